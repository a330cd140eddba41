"""Known names, and finding the name that a person meant."""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain

APOSTROPHES = str.maketrans(dict.fromkeys("’‘ʼʹ′´`＇", "'"))

MAX_NAMES = 12
"""The most names in one question. It limits the work that a message can cause."""

_Spellings = dict[int, list[tuple[str, str]]]
"""Spellings with their names, by the length of the spelling."""

_SEPARATOR = re.compile(r"(\s*,\s*and\s+|\s*,\s*|\s+and\s+|\s*&\s*|\s+as well as\s+)", re.IGNORECASE)
_WORD = re.compile(r"\w+")
_WORD_OR_SIGN = re.compile(r"\w+|[^\w\s]")

_LONG_WORD = 4
"""Letters. The beginning of a shorter word does not show which word is meant."""

_LONG_PART = 5
"""Letters. A slip in a shorter first name makes another name: "Ren" is not "Ben"."""

_ENDING = 3
"""Letters. Words that differ more at their ends are different words."""

_CACHED = 1024
"""Texts whose similar names are kept: a message is read in several ways, and a conversation at each message."""


@dataclass(frozen=True)
class Match:
    """The known name for a name that a person wrote.

    `written` is the name as the person wrote it, and `name` the known name, or None. `exact`: both are equal, apart
    from case, accents and punctuation. If `name` is None, `candidates` are the names that may be meant.
    """

    written: str
    name: str | None = None
    exact: bool = False
    candidates: tuple[str, ...] = ()

    @property
    def is_part(self) -> bool:
        """Whether the person wrote only words of the known name, such as a first name."""
        return self.name is not None and {*fold(self.written).split()} <= {*fold(self.name).split()}


class Names:
    """The names of one kind, people or interests, in data order."""

    def __init__(self, names: Iterable[str], *, any_part: bool = True) -> None:
        """Take the names. With `any_part`, one word of a name is enough to find it, such as a first name.

        Without it, the last word is needed, or more than half of all: "trains" finds "Night Trains", "night" does not.
        """
        self.all = list(names)
        self._any_part = any_part
        self._exact = set(self.all)
        self._folded: dict[str, str] = {}
        for name in self.all:
            self._folded.setdefault(fold(name), name)
        for name in self.all:
            self._folded.setdefault(_without_article(fold(name)), name)
            self._folded.setdefault(fold(name).replace(" and ", " und "), name)
        self._longest = max((len(folded) for folded in self._folded), default=0)
        self._max_pieces = max((len(_SEPARATOR.split(name)) // 2 + 1 for name in self.all), default=1)
        self.most_words = max((len(_WORD_OR_SIGN.findall(name)) for name in self.all), default=0)
        self._plain = _by_length(self._folded)
        self._singular = _by_length(
            {singular: name for folded, name in self._folded.items() for singular in _singulars(folded)}
        )
        self._with_part: dict[str, list[str]] = {}
        for name in self.all:
            for part in dict.fromkeys(_parts(name)):
                self._with_part.setdefault(part, []).append(name)
        self._long_parts = _by_length({part: part for part in self._with_part if len(part) >= _LONG_PART})
        self._similar = lru_cache(_CACHED)(self._find_similar)

    def known(self, written: str) -> str | None:
        """Return the name that this is, apart from case, accents and punctuation."""
        if written in self._exact:
            return written
        folded = fold(written)
        return self._folded.get(folded) or self._folded.get(_without_article(folded))

    def find(self, written: str) -> Match:
        """Return the name that was meant: the same, else the nearest in spelling, else the only one with its words."""
        known = self.known(written)
        if known is not None:
            return Match(written, known, exact=True)
        found = self._similar(fold(written))
        if len(found) == 1 and self._is_enough(fold(written), found[0]):
            return Match(written, found[0])
        return Match(written, candidates=found)

    def has_part(self, word: str) -> bool:
        """Whether a word, which may be a possessive, is one of a name's."""
        return any(part in self._with_part for part in fold(without_possessive(word)).split())

    def find_owner(self, written: str) -> Match:
        """Do what `find` does, for a name that may be a possessive: "Ann's", "James'"."""
        bare = without_possessive(written)
        whole = self.find(written)
        return whole if whole.exact or bare == written else self.find(bare)

    def find_all(self, text: str, *, owners: bool = False) -> list[Match]:
        """Read a list of names: "A, B and C". Names that contain a comma or an "and" are not split.

        Returns an empty list if there are more than `MAX_NAMES` names.
        """
        find = self.find_owner if owners else self.find
        parts = _SEPARATOR.split(text)
        count = len(parts) // 2 + 1
        if count > MAX_NAMES:
            return []
        # best[n] is the cheapest reading of the first n pieces. The last name of a reading has one or more pieces.
        best: list[tuple[int, list[Match]]] = [(0, [])]
        for end in range(1, count + 1):
            readings = []
            for start in range(max(0, end - self._max_pieces), end):
                match = find("".join(parts[2 * start : 2 * end - 1]).strip())
                cost, before = best[start]
                readings.append((cost + _cost(match, end - start), [*before, match]))
            best.append(min(readings, key=lambda reading: reading[0]))
        return best[count][1]

    def _find_similar(self, folded: str) -> tuple[str, ...]:
        nearest = self._nearest(folded, self._plain)
        if not nearest:
            # "quoka" is nearer to one quokka than to several.
            nearest = self._nearest(folded, self._singular)
        return tuple(nearest or self._containing(folded) or self._beginning(folded) or self._nearest_part(folded))

    def _nearest(self, folded: str, spellings: _Spellings) -> list[str]:
        """Return the names at the smallest distance. At most one letter in four may differ, and always one letter."""
        limit = max(1, len(folded) // 4)
        if len(folded) < 3 or len(folded) > self._longest + limit:
            return []
        nearest: list[str] = []
        lengths = range(len(folded) - limit, len(folded) + limit + 1)
        for candidate, name in chain.from_iterable(spellings.get(length, ()) for length in lengths):
            edits = distance(folded, candidate, limit)
            if edits > limit or not _same_words(folded, candidate):
                continue
            if edits < limit:
                limit = edits
                nearest.clear()
            nearest.append(name)
        return _without_duplicates(nearest)

    def _containing(self, folded: str) -> list[str]:
        """Return the names that contain all these words, as "Geneva Durben" contains "Durben"."""
        return self._with_all(self._with_part.get(word, []) for word in folded.split())

    def _beginning(self, folded: str) -> list[str]:
        """Return the names with words that begin like all these words, as "Pub Quizzes" has words like "pub quiz"."""
        return self._with_all(
            [name for part, names in self._with_part.items() if _begins_alike(word, part) for name in names]
            for word in folded.split()
        )

    def _with_all(self, names_of_words: Iterable[list[str]]) -> list[str]:
        """Return the names that are in every one of the lists."""
        lists = list(names_of_words)
        others = [set(names) for names in lists[1:]]
        return [name for name in dict.fromkeys(lists[0]) if all(name in names for names in others)] if lists else []

    def _nearest_part(self, folded: str) -> list[str]:
        """Return the names of which one long word is the nearest to this one, as "Siobahn" is to "Siobhán"."""
        if not self._any_part or " " in folded or len(folded) < _LONG_PART:
            return []
        nearest = self._nearest(folded, self._long_parts)
        return _without_duplicates(name for part in nearest for name in self._with_part[part])

    def _is_enough(self, folded: str, name: str) -> bool:
        """Whether these words, if they are a part of the name, are enough of it."""
        parts, words = _parts(name), folded.split()
        is_part = len(words) < len(parts) and all(any(_begins_alike(word, part) for part in parts) for word in words)
        if self._any_part or not is_part:
            return True
        return 2 * len(words) > len(fold(name).split()) or any(_begins_alike(word, parts[-1]) for word in words)


def fold(text: str) -> str:
    """Return the form of a name that is compared: lower case, without accents and punctuation."""
    plain = unicodedata.normalize("NFKD", text.translate(APOSTROPHES)).casefold()
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    words = _WORD.findall(plain.replace("'", "").replace("&", " and "))
    # A name such as "+++" has no words.
    return " ".join(words) or plain.strip()


def without_possessive(text: str) -> str:
    """Return "Ann's" or "James'" without the possessive, and other texts unchanged."""
    plain = text.translate(APOSTROPHES)
    if plain.casefold().endswith("'s"):
        return text[:-2]
    if plain.casefold().endswith("s'"):
        return text[:-1]
    return text


def distance(one: str, other: str, limit: int) -> int:
    """Return how many letters must be added, removed, changed or swapped to get from one text to the other.

    Returns `limit` + 1 if there are more than `limit`. To stop counting there makes a search through all names fast.
    """
    if abs(len(one) - len(other)) > limit:
        return limit + 1
    earlier: list[int] = []
    above = list(range(len(other) + 1))
    for row, letter in enumerate(one, 1):
        current = [row]
        for column, other_letter in enumerate(other, 1):
            edits = min(above[column] + 1, current[-1] + 1, above[column - 1] + (letter != other_letter))
            if row > 1 and column > 1 and letter == other[column - 2] and one[row - 2] == other_letter:
                edits = min(edits, earlier[column - 2] + 1)
            current.append(edits)
        if min(current) > limit:
            return limit + 1
        earlier, above = above, current
    return min(above[-1], limit + 1)


def _by_length(spellings: Mapping[str, str]) -> _Spellings:
    grouped: _Spellings = {}
    for spelling, name in spellings.items():
        grouped.setdefault(len(spelling), []).append((spelling, name))
    return grouped


def _parts(name: str) -> tuple[str, ...]:
    """Return the words of a name that stand for it alone: not "cat's", which is no cat."""
    return tuple(
        part for word in name.translate(APOSTROPHES).split() if not _is_possessive(word) for part in fold(word).split()
    )


def _is_possessive(word: str) -> bool:
    return word.casefold().endswith("'s")


def _same_words(folded: str, candidate: str) -> bool:
    """Whether a slip in letters explains the difference, and not a word too many: "no go karts" is not "go karts"."""
    if folded.count(" ") == candidate.count(" "):
        return True
    return distance(folded.replace(" ", ""), candidate.replace(" ", ""), 1) <= 1


def _begins_alike(word: str, other: str) -> bool:
    """Whether two words differ only in their ending, as "quiz" and "quizzes" do."""
    shorter, longer = sorted((word, other), key=len)
    return word == other or (
        len(shorter) >= _LONG_WORD and len(longer) - len(shorter) <= _ENDING and longer.startswith(shorter)
    )


def _singulars(folded: str) -> list[str]:
    """Return the name without the ending of a plural, if it has one."""
    return [folded[: -len(ending)] for ending in ("s", "es", "zes") if folded.endswith(ending)]


def _without_article(folded: str) -> str:
    return folded.removeprefix("the ")


def _without_duplicates(names: Iterable[str]) -> list[str]:
    """Return each name once: a name with an article has two spellings."""
    return list(dict.fromkeys(names))


def _cost(match: Match, pieces: int) -> int:
    """Return the cost of a reading: lowest for exact names, then corrected, ambiguous and unknown names."""
    if match.exact:
        return 0
    if match.name:
        return 1
    if match.candidates:
        return 2
    return 10 * pieces + (pieces - 1)
