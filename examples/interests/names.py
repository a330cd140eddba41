"""Known names, and finding the name that a person meant."""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

APOSTROPHES = str.maketrans(dict.fromkeys("’‘ʼʹ′´`＇", "'"))

MAX_NAMES = 12
"""The most names in one question. It limits the work that a message can cause."""

_SEPARATOR = re.compile(r"(\s*,\s*and\s+|\s*,\s*|\s+and\s+|\s*&\s*|\s+as well as\s+)", re.IGNORECASE)
_WORD = re.compile(r"\w+")


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


class Names:
    """The names of one kind, people or interests, in data order."""

    def __init__(self, names: Iterable[str]) -> None:
        self.all = list(names)
        self._exact = set(self.all)
        self._folded: dict[str, str] = {}
        for name in self.all:
            self._folded.setdefault(fold(name), name)
        for name in self.all:
            self._folded.setdefault(_without_article(fold(name)), name)
        self._longest = max((len(folded) for folded in self._folded), default=0)
        self._max_pieces = max((len(_SEPARATOR.split(name)) // 2 + 1 for name in self.all), default=1)

    def find(self, written: str) -> Match:
        """Return the name that was meant: the same, else the nearest in spelling, else the only one with its words."""
        if written in self._exact:
            return Match(written, written, exact=True)
        folded = fold(written)
        for spelling in (folded, _without_article(folded)):
            if spelling in self._folded:
                return Match(written, self._folded[spelling], exact=True)
        found = self._nearest(folded) or self._containing(folded)
        if len(found) == 1:
            return Match(written, found[0])
        return Match(written, candidates=tuple(found))

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

    def _nearest(self, folded: str) -> list[str]:
        """Return the names at the smallest distance. At most one letter in four may differ, and always one letter."""
        limit = max(1, len(folded) // 4)
        if len(folded) < 3 or len(folded) > self._longest + limit:
            return []
        nearest: list[str] = []
        for candidate, name in self._folded.items():
            edits = distance(folded, candidate, limit)
            if edits > limit:
                continue
            if edits < limit:
                limit = edits
                nearest.clear()
            nearest.append(name)
        return _without_duplicates(nearest)

    def _containing(self, folded: str) -> list[str]:
        """Return the names that contain all these words, as "Geneva Durben" contains "Durben"."""
        words = set(folded.split())
        if not words:
            return []
        return _without_duplicates(name for candidate, name in self._folded.items() if words <= set(candidate.split()))


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
