"""Reads messages: in which language they are, and what they ask, alone or after the messages before."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .english import ENGLISH
from .german import GERMAN
from .grammar import Grammar, Language, Reading, Reason, Talk
from .names import Match, Names, without_possessive
from .query import Alike, Check, Count, Kind, Query, Question, Search, Subject
from .sentence import Budget, Reader, Sentence, tidy, word_form

LONGEST = 300
"""Characters. A longer message is not a question of these kinds."""

LOOK_BACK = 20
"""Messages. A follow-up is read against the newest question in them."""

MAX_FOLLOW_UP = 4
"""Words. A longer "and …" that names nobody and nothing is not a name with a slip."""

_GRAMMARS = (ENGLISH, GERMAN)
_FOLLOW_UPS = [re.compile(grammar.follow_up, re.IGNORECASE) for grammar in _GRAMMARS]


@dataclass(frozen=True)
class Message:
    """What was read in a message: a query, or talk, or the reason for which it has no answer, if that is known.

    `loosely`: a word of the question counts for nothing, or a model read it, so the answer says what was read.
    `unknown` are words that are neither known nor names.
    """

    language: Language
    query: Query | None = None
    talk: Talk | None = None
    reason: Reason | None = None
    loosely: bool = False
    is_empty: bool = False
    unknown: tuple[str, ...] = ()

    @property
    def is_open(self) -> bool:
        """Whether the grammar leaves open what the message asks, so that a model may read it."""
        return self.query is None and self.talk is None and self.reason is None and not self.is_empty


def read_message(messages: Sequence[str], people: Names, interests: Names) -> Message:
    """Read the last of a person's messages; a follow-up refers to earlier ones."""
    conversation = _Conversation(messages[-LOOK_BACK:], people, interests)
    return conversation.read(len(conversation.messages) - 1) if messages else Message(Language.ENGLISH, is_empty=True)


class _Conversation:
    """The messages of a person, and the names that they may contain."""

    def __init__(self, messages: Sequence[str], people: Names, interests: Names) -> None:
        self.messages = messages
        self._people = people
        self._interests = interests
        self._names: Mapping[Subject, Names] = {Subject.PEOPLE: people, Subject.INTERESTS: interests}
        budget = Budget()
        self._readers = {
            grammar.language: Reader(grammar.vocabulary, people, interests, budget) for grammar in _GRAMMARS
        }
        self._read: dict[int, Message] = {}

    def read(self, place: int) -> Message:
        """Read one message. Messages before it are read only if it refers to them."""
        if place not in self._read:
            self._read[place] = self._read_new(place)
        return self._read[place]

    def _read_new(self, place: int) -> Message:
        if len(self.messages[place]) > LONGEST:
            return Message(self._language(place), reason=Reason.TOO_LONG)
        text = tidy(self.messages[place])
        language = self._language(place)
        reasons: list[Reason | None] = []
        unknown: tuple[str, ...] = ()
        for grammar in sorted(_GRAMMARS, key=lambda grammar: grammar.language is not language):
            sentences = self._sentences(text, grammar)
            talk = next(filter(None, map(grammar.talk_in, sentences)), None)
            if talk is not None:
                return Message(grammar.language, talk=talk)
            reading = self._full(sentences, grammar)
            if reading.query is not None:
                return self._resolved(reading, place, grammar.language)
            reasons.append(reading.reason)
            if sentences and grammar.language is language:
                unknown = sentences[0].unknown
            reasons += [grammar.reason_in(sentence) for sentence in sentences[:1]]
        follow_up = self._follow_up(text, place, language)
        if follow_up is not None:
            return follow_up
        if {*reasons} <= {None, Reason.SEVERAL} and (asked := self._asked_at_the_end(text, language)) is not None:
            return Message(language, asked, loosely=True)
        return Message(language, reason=next(filter(None, reasons), None), is_empty=not text, unknown=unknown)

    def _asked_at_the_end(self, text: str, language: Language) -> Query | None:
        """Read the question at the end of a message that says more: "I am new here and wonder who likes Quokkas".

        What is before it must not deny it, refer to somebody, ask something else, or have a name: that would count.
        """
        [grammar] = [grammar for grammar in _GRAMMARS if grammar.language is language]
        found = re.search(grammar.asked_at_the_end, text, re.IGNORECASE)
        if (
            found is None
            or re.search(grammar.denied, found["before"], re.IGNORECASE)
            or self._has_name(found["before"])
        ):
            return None
        reading = self._full(self._sentences(found["asked"], grammar), grammar)
        return None if reading.refers_else or reading.refers_also else reading.query

    def _has_name(self, text: str) -> bool:
        """Whether a word that is not one of the grammars' is one of a person's or an interest's name."""
        own = ENGLISH.own_words | GERMAN.own_words
        words = [word for word in re.findall(r"[\w']+", text) if word_form(word) not in own]
        return any(names.has_part(word) for word in words for names in self._names.values())

    def _sentences(self, text: str, grammar: Grammar) -> list[Sentence]:
        """Return the ways in which a text may be words and names, the likeliest first."""
        reader = self._readers[grammar.language]
        ways = (reader.read(text), reader.read(text, words_first=True), reader.read(text, joined=True))
        return list(dict.fromkeys(filter(None, ways)))

    def _full(self, sentences: Iterable[Sentence], grammar: Grammar) -> Reading:
        """Read a question that needs no other; the first reading in which each name is known, else the first."""
        readings = [grammar.read(sentence, self._names) for sentence in sentences]
        with_query = [reading for reading in readings if reading.query is not None]
        for reading in with_query:
            assert reading.query is not None
            if all(match.name for _, match in reading.query.mentions()):
                return reading
        return next(iter([*with_query, *(reading for reading in readings if reading.reason)]), Reading())

    def _resolved(self, reading: Reading, place: int, language: Language) -> Message:
        """Give the "else" of a question its meaning: other people than those of the question before."""
        query = reading.query
        assert query is not None
        if not (reading.refers_else or reading.refers_also):
            return Message(language, query)
        previous = self._previous(place)
        if previous is None:
            return Message(language, query, loosely=True)
        others = tuple(match for subject, match in previous.mentions() if subject is Subject.PEOPLE)
        narrowed = _without_people(query, others) if others and reading.refers_else else None
        if narrowed is None:
            return Message(language, reason=Reason.REFERENCE)
        return Message(language, narrowed)

    def _previous(self, place: int) -> Query | None:
        """Return the newest question before a message."""
        for before in range(place - 1, -1, -1):
            query = self.read(before).query
            if query is not None:
                return query
        return None

    def _language(self, place: int) -> Language:
        """Return the language of most words of a message; if it has none, the language of the message before."""
        for text in self.messages[place::-1]:
            # A message may be long; its beginning shows its language.
            words = {*map(word_form, re.findall(r"\w+", text[:LONGEST]))}
            for known in ("own_words", "vocabulary"):
                english, german = (len(words & getattr(grammar, known)) for grammar in _GRAMMARS)
                if english != german:
                    return Language.ENGLISH if english > german else Language.GERMAN
        return Language.ENGLISH

    def _follow_up(self, text: str, place: int, language: Language) -> Message | None:
        """Read "What about B?", "and B's?" or a name alone.

        The name decides the kind, then the previous question does.
        """
        found = next(filter(None, (pattern.fullmatch(text) for pattern in _FOLLOW_UPS)), None)
        names = next(filter(None, found.groups())) if found else text
        about_people = Question(Kind.INTERESTS, self._people.find_all(names, owners=True))
        about_interests = Question(Kind.FANS, self._interests.find_all(names))
        readings = [about_people, about_interests]
        is_owner = names != without_possessive(names)
        previous = self._previous(place) if found or _has_known(readings) else None
        if isinstance(previous, Question) and previous.kind is Kind.FANS and not is_owner:
            readings.reverse()
        reading = _clearest(readings)
        if not reading.matches or not self._may_be_names(names, reading, is_follow_up=found is not None):
            return None
        if isinstance(previous, Search | Count | Check | Alike) and not is_owner:
            changed = _about_another(previous, reading)
            return Message(language, changed, reason=None if changed else Reason.FOLLOW_UP)
        if reading is about_people and _asks_in_common(previous) and not is_owner:
            assert isinstance(previous, Question)
            return Message(language, Question(Kind.COMMON, _in_common(previous.matches, reading.matches)))
        return Message(language, reading)

    def _may_be_names(self, names: str, reading: Question, *, is_follow_up: bool) -> bool:
        if all(match.exact for match in reading.matches):
            return True
        words = [word_form(word) for word in re.findall(r"\w+", names)]
        if not is_follow_up:
            # Without "what about" or the like, only a known name is a follow-up: "hello" does not mean "Jello".
            return all(match.exact or match.is_part for match in reading.matches) and not _KNOWN_WORDS.issuperset(words)
        if all(match.name or match.candidates for match in reading.matches):
            return True
        return len(words) <= MAX_FOLLOW_UP and not _NOT_NAMES.intersection(words)


_KNOWN_WORDS = frozenset[str]().union(*(grammar.vocabulary for grammar in _GRAMMARS))
_NOT_NAMES = frozenset(word_form(word) for grammar in _GRAMMARS for word in grammar.not_names.split("|"))


def _has_known(readings: Iterable[Question]) -> bool:
    return any(reading.matches and all(match.name for match in reading.matches) for reading in readings)


def _asks_in_common(query: Query | None) -> bool:
    return isinstance(query, Question) and query.kind is Kind.COMMON


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


def _without_people(query: Query, people: tuple[Match, ...]) -> Query | None:
    """Return the query about other people; None if it is not about people."""
    if isinstance(query, Question) and query.kind is Kind.FANS:
        return Search(Subject.PEOPLE, all=tuple(query.matches), excluded=people)
    if isinstance(query, Search) and query.find is Subject.PEOPLE:
        return replace(query, excluded=(*query.excluded, *people))
    if isinstance(query, Check | Count) and query.search is not None and not query.people:
        narrowed = _without_people(query.search, people)
        return replace(query, search=narrowed) if isinstance(narrowed, Search) else None
    return None


def _about_another(query: Query, reading: Question) -> Query | None:
    """Return the query with the name of the follow-up in place of its only name of that kind.

    Returns None if it has several.
    """
    [(subject, new), *more] = reading.mentions()
    olds = [match for kind, match in query.mentions() if kind is subject]
    if more or len(olds) != 1:
        return None
    changed = _replaced(query, olds[0], new)
    assert isinstance(changed, Query)
    return changed


def _replaced(value: Any, old: Match, new: Match) -> Any:
    """Return the value with one match in place of another, wherever it is."""
    if value is old:
        return new
    if isinstance(value, tuple):
        return tuple(_replaced(item, old, new) for item in value)
    if isinstance(value, Search | Count | Check | Alike):
        return replace(value, **{name: _replaced(part, old, new) for name, part in vars(value).items()})
    return value
