"""Known names, and finding one from how a person wrote it."""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

APOSTROPHES = str.maketrans(dict.fromkeys("’‘ʼʹ′´`＇", "'"))

MOST_NAMES = 12
"""In one question. It bounds the work that a message can cause."""

_SEPARATOR = re.compile(r"(\s*,\s*and\s+|\s*,\s*|\s+and\s+|\s*&\s*|\s+as well as\s+)", re.IGNORECASE)
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Match:
    """What became of a name that somebody wrote.

    `asked` is as they wrote it; `name` the known name, or None; `exact` whether they wrote that very name (case,
    accents and punctuation aside). Without a `name`, `candidates` holds those that may equally well be meant.
    """

    asked: str
    name: str | None = None
    exact: bool = False
    candidates: tuple[str, ...] = ()


class Names:
    """The names of one kind, people or interests, in data order."""

    def __init__(self, names: Iterable[str]) -> None:
        self.all = list(names)
        self._written = set(self.all)
        self._folded: dict[str, str] = {}
        for name in self.all:
            self._folded.setdefault(fold(name), name)
        for name in self.all:
            self._folded.setdefault(_without_article(fold(name)), name)
        self._longest = max((len(folded) for folded in self._folded), default=0)
        self._most_pieces = max((len(_SEPARATOR.split(name)) // 2 + 1 for name in self.all), default=1)

    def find(self, asked: str) -> Match:
        """The name that was meant: the same one, else the nearest in spelling, else the only one with those words."""
        if asked in self._written:
            return Match(asked, asked, exact=True)
        folded = fold(asked)
        for spelling in (folded, _without_article(folded)):
            if spelling in self._folded:
                return Match(asked, self._folded[spelling], exact=True)
        likely = self._nearest(folded) or self._containing(folded)
        if len(likely) == 1:
            return Match(asked, likely[0])
        return Match(asked, candidates=tuple(likely))

    def find_owner(self, asked: str) -> Match:
        """Like `find`, for a name that may carry a possessive: "Ann's", "James'"."""
        bare = without_possessive(asked)
        whole = self.find(asked)
        return whole if whole.exact or bare == asked else self.find(bare)

    def find_all(self, text: str, *, owners: bool = False) -> list[Match]:
        """Read a list of names: "A, B and C". Names that themselves hold a comma or an "and" are kept whole.

        Returns no match at all if there are more than `MOST_NAMES`.
        """
        find = self.find_owner if owners else self.find
        parts = _SEPARATOR.split(text)
        count = len(parts) // 2 + 1
        if count > MOST_NAMES:
            return []
        # best[n] is the cheapest reading of the first n pieces; a reading's last name spans one piece or several.
        best: list[tuple[int, list[Match]]] = [(0, [])]
        for end in range(1, count + 1):
            readings = []
            for start in range(max(0, end - self._most_pieces), end):
                match = find("".join(parts[2 * start : 2 * end - 1]).strip())
                cost, before = best[start]
                readings.append((cost + _cost(match, end - start), [*before, match]))
            best.append(min(readings, key=lambda reading: reading[0]))
        return best[count][1]

    def _nearest(self, folded: str) -> list[str]:
        """The names at the smallest distance, if that can be a slip: one letter in four, and at least one."""
        limit = max(1, len(folded) // 4)
        if len(folded) < 3 or len(folded) > self._longest + limit:
            return []
        nearest: list[str] = []
        for candidate, name in self._folded.items():
            slips = distance(folded, candidate, limit)
            if slips > limit:
                continue
            if slips < limit:
                limit = slips
                nearest.clear()
            nearest.append(name)
        return _once_each(nearest)

    def _containing(self, folded: str) -> list[str]:
        """The names that hold all the words asked for, as "Durben" is held by "Geneva Durben"."""
        words = set(folded.split())
        if not words:
            return []
        return _once_each(name for candidate, name in self._folded.items() if words <= set(candidate.split()))


def fold(text: str) -> str:
    """What of a name is compared: lower case, without accents and punctuation."""
    plain = unicodedata.normalize("NFKD", text.translate(APOSTROPHES)).casefold()
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    words = _WORD.findall(plain.replace("'", "").replace("&", " and "))
    # A name of signs alone ("+++") has no words to compare.
    return " ".join(words) or plain.strip()


def without_possessive(text: str) -> str:
    """ "Ann's" and "James'" without the possessive; any other text as it is."""
    plain = text.translate(APOSTROPHES)
    if plain.casefold().endswith("'s"):
        return text[:-2]
    if plain.casefold().endswith("s'"):
        return text[:-1]
    return text


def distance(one: str, other: str, limit: int) -> int:
    """Letters to add, drop, change or swap with their neighbour to get from one text to the other.

    Stops counting beyond `limit` and returns `limit` + 1 then, which is what makes a search through all names quick.
    """
    if abs(len(one) - len(other)) > limit:
        return limit + 1
    earlier: list[int] = []
    above = list(range(len(other) + 1))
    for row, letter in enumerate(one, 1):
        current = [row]
        for column, opposite in enumerate(other, 1):
            slips = min(above[column] + 1, current[-1] + 1, above[column - 1] + (letter != opposite))
            if row > 1 and column > 1 and letter == other[column - 2] and one[row - 2] == opposite:
                slips = min(slips, earlier[column - 2] + 1)
            current.append(slips)
        if min(current) > limit:
            return limit + 1
        earlier, above = above, current
    return min(above[-1], limit + 1)


def _without_article(folded: str) -> str:
    return folded.removeprefix("the ")


def _once_each(names: Iterable[str]) -> list[str]:
    """A name with an article is known by two spellings."""
    return list(dict.fromkeys(names))


def _cost(match: Match, pieces: int) -> int:
    """How little a reading is to be believed: names as written, then slips, then doubtful ones, then unknown ones."""
    if match.exact:
        return 0
    if match.name:
        return 1
    if match.candidates:
        return 2
    return 10 * pieces + (pieces - 1)
