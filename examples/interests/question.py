"""Reads questions: their kind, and the people or interests that they name."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from .names import APOSTROPHES, Match, Names, without_possessive

LONGEST = 300
"""Characters. A longer message is not a question of these kinds."""

LOOK_BACK = 20
"""Messages. A follow-up is read against the newest question in them."""


class Kind(Enum):
    """The kind of a question."""

    INTERESTS = auto()  # the interests of people
    FANS = auto()  # the people who share interests
    COMMON = auto()  # the interests that people share


@dataclass(frozen=True)
class Question:
    """The kind of a question, and the names in it: people for `INTERESTS` and `COMMON`, interests for `FANS`."""

    kind: Kind
    matches: list[Match]


def read_question(messages: Sequence[str], people: Names, interests: Names) -> Question | None:
    """Read the last of a person's messages; a follow-up refers to earlier ones. None: not understood."""
    question = previous = None
    for message in messages[-LOOK_BACK:]:
        question = _read(message, previous, people, interests)
        previous = question or previous
    return question


def _read(message: str, previous: Question | None, people: Names, interests: Names) -> Question | None:
    if len(message) > LONGEST:
        return None
    text = _tidy(message)
    return _read_full(text, people, interests) or _read_follow_up(text, previous, people, interests)


# Regular expressions over a tidied text, in which a gap is one space. A group holds names.
_INTO = "(?:interested in|into|fond of|keen on)"
_LIKE = f"(?:likes?|loves?|enjoys?|(?:is |are )?(?:really )?{_INTO})"
_SHARE = "(?:have in common|share)"
_BE = "(?: is| are|'s|'re)"
_HOBBY = "(?:interests?|hobby|hobbies)"
_WHAT = f"(?:what|which)(?: {_HOBBY})?"
_LIST = "(?:list|show(?: me)?|give me|name|find)"
_THE = "(?:(?:all|some) )?(?:of )?(?:the )?"
_NO_NAME = "(?:the|all|some|my|your|his|her|our|their)"
_PEOPLE = "(?:people|persons?|everyone|everybody|anyone|anybody|those)"
_WHO = f"(?:(?:{_LIST} )?who|(?:{_LIST} {_THE})?{_PEOPLE} (?:who|that))(?: else| all)?(?: also)?"

# The order matters: "do ... share" must be read as a question about two people before one about one person.
_PHRASES = {
    Kind.COMMON: [
        f"{_WHAT} (?:do|does) (.+?) (?:both |all )?{_SHARE}",
        f"{_WHAT} (?:do|does) (.+?) {_SHARE} with (.+)",
        f"{_WHAT} do (.+?) (?:both|all) {_LIKE}",
        f"{_WHAT}{_BE} (?:the )?(?:{_HOBBY} )?(?:shared by|common (?:to|between)) (.+)",
        f"do (.+?) (?:have (?:any|some)(?:thing| {_HOBBY}) in common|share any(?:thing| {_HOBBY}))",
        f"(?:what{_BE} |{_LIST} )?(?:the )?(?:common|shared) {_HOBBY} (?:of|between) (.+)",
    ],
    Kind.FANS: [
        f"{_WHO} {_LIKE} (.+)",
        f"who's (?:else )?{_INTO} (.+)",
        f"(?:which|what) {_PEOPLE} {_LIKE} (.+)",
        f"whose {_HOBBY} include (.+)",
        f"who (?:has|have|shares?) (?:an |the )?{_HOBBY} in (.+)",
        f"who{_BE} (?:an? )?(?:fans?|lovers?) of (.+)",
    ],
    Kind.INTERESTS: [
        f"{_WHAT} (?:do|does) (.+?) (?:have|{_LIKE})",
        f"what{_BE} (.+?) {_INTO}",
        f"(?:{_WHAT}{_BE} |{_LIST} )?{_THE}{_HOBBY} of (.+)",
        f"(?:{_WHAT}{_BE}|{_LIST}) (?:(?:all|some) )?(?:of )?(?!{_NO_NAME} {_HOBBY}$)(.+?) {_HOBBY}",
        f"(.+?(?:'s|s')) {_HOBBY}",
        f"what (.+?) {_LIKE}",
        f"what {_HOBBY} (.+)",
    ],
}
_FULL = [(kind, re.compile(phrase, re.IGNORECASE)) for kind, phrases in _PHRASES.items() for phrase in phrases]
_WHAT_ABOUT = re.compile(
    f"(?:(?:and|but) )?(?:what|how) about (.+)|(?:and|but|or) (?:also |with |what{_BE} )?(.+)", re.IGNORECASE
)
_LEAD_IN = re.compile(
    r"(?:(?:hi|hello|hey|please|ok|okay|so|now|then|and|but|also|well)\b[ ,.!:]*"
    r"|(?:(?:can|could|would) you )?(?:please )?tell me[ ,:]+"
    r"|(?:do you know|i wonder|i'd like to know|i would like to know|i want to know)[ ,:]+)+",
    re.IGNORECASE,
)
_POLITE = re.compile(",? (?:please|thanks|thank you)$", re.IGNORECASE)
_BOTH = re.compile("^(?:both|all of) ", re.IGNORECASE)
_QUOTES = str.maketrans("", "", '“”„«»"')


def _tidy(message: str) -> str:
    """Return the message as one line, with one kind of apostrophe, without quotation marks, up to its last word."""
    text = " ".join(message.translate(APOSTROPHES).translate(_QUOTES).split())
    text = text.lstrip("¿¡ ").rstrip(" ?!.…,;:")
    return _POLITE.sub("", text)


def _read_full(text: str, people: Names, interests: Names) -> Question | None:
    if lead_in := _LEAD_IN.match(text):
        text = text[lead_in.end() :]
    for kind, pattern in _FULL:
        found = pattern.fullmatch(text)
        if not found:
            continue
        names = _BOTH.sub("", " and ".join(found.groups()))
        matches = interests.find_all(names) if kind is Kind.FANS else people.find_all(names, owners=True)
        return Question(kind, matches) if matches else None
    return None


def _read_follow_up(text: str, previous: Question | None, people: Names, interests: Names) -> Question | None:
    """Read "What about B?", "and B's?" or a name alone. The name decides the kind, then the previous question does."""
    found = _WHAT_ABOUT.fullmatch(text)
    names = next(filter(None, found.groups())) if found else text
    about_people = Question(Kind.INTERESTS, people.find_all(names, owners=True))
    about_interests = Question(Kind.FANS, interests.find_all(names))
    readings = [about_people, about_interests]
    if previous and previous.kind is Kind.FANS and names == without_possessive(names):
        readings.reverse()
    reading = _clearest(readings)
    if not reading.matches or (not found and not all(match.exact for match in reading.matches)):
        # Without "what about" or the like, only a known name is a follow-up: "hello" does not mean "Jello".
        return None
    if reading is about_people and previous and previous.kind is Kind.COMMON and names == without_possessive(names):
        return Question(Kind.COMMON, _in_common(previous.matches, reading.matches))
    return reading


def _clearest(readings: list[Question]) -> Question:
    """Return the first reading with only exact names, else the first with only known names, else the first."""
    for reading in readings:
        if all(match.exact for match in reading.matches):
            return reading
    for reading in readings:
        if all(match.name for match in reading.matches):
            return reading
    return readings[0]


def _in_common(before: list[Match], now: list[Match]) -> list[Match]:
    """Return the people of a follow-up to "What do A and B have in common?".

    "And C?" asks about all three, "What about C and D?" only about those two.
    """
    return now if len(now) > 1 else [*before, *now]
