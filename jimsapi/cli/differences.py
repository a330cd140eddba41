"""The differences of two texts, for people: lines side by side, and the changed words of a line."""

import re
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from itertools import takewhile, zip_longest

import msgspec

MOST_WORDS = 1000
"""The most words in which single changes are searched. The time of the search grows with their square."""
ALIKE = 0.5
"""The smallest part of the words, from 0 to 1, that two lines must share. Below it their common words are chance."""

_WORD = re.compile(r"\w+|\W")

Piece = tuple[str, bool]
"""A part of a line, and whether it differs from the other line."""


class Row(msgspec.Struct, frozen=True):
    """A line of the old text beside one of the new text. None: that text has no line here."""

    old: str | None
    new: str | None

    @property
    def changed(self) -> bool:
        """Whether the lines differ."""
        return self.old != self.new

    def pieces(self) -> tuple[list[Piece], list[Piece]]:
        """Return the old and the new line as pieces. Joined, the pieces of a line are the line."""
        if self.old is None or self.new is None or not self.changed:
            return _whole(self.old, self.changed), _whole(self.new, self.changed)
        return _changed_words(self.old, self.new)


def side_by_side(old: Sequence[str], new: Sequence[str]) -> list[Row]:
    """Return two texts side by side. A line that both texts have is in one row."""
    rows: list[Row] = []
    for _, old_begin, old_end, new_begin, new_end in SequenceMatcher(None, old, new).get_opcodes():
        rows += [Row(*lines) for lines in zip_longest(old[old_begin:old_end], new[new_begin:new_end])]
    return rows


def near_changes(rows: Sequence[Row], distance: int) -> Iterator[Row | None]:
    """Yield the rows that are at most `distance` rows away from a change, and None for each gap between them."""
    in_gap = False
    for position, row in enumerate(rows):
        if any(near.changed for near in rows[max(0, position - distance) : position + distance + 1]):
            in_gap = False
            yield row
        elif not in_gap:
            in_gap = True
            yield None


def _whole(line: str | None, changed: bool) -> list[Piece]:
    return [(line, changed)] if line else []


def _changed_words(old: str, new: str) -> tuple[list[Piece], list[Piece]]:
    old_words, new_words = _WORD.findall(old), _WORD.findall(new)
    same = _shared_beginning(old_words, new_words)
    first = _whole("".join(old_words[:same]), False)
    old_rest, new_rest = old_words[same:], new_words[same:]
    if max(len(old_rest), len(new_rest)) > MOST_WORDS:
        return [*first, *_whole("".join(old_rest), True)], [*first, *_whole("".join(new_rest), True)]
    matcher = SequenceMatcher(None, old_rest, new_rest, autojunk=False)
    shared = same + sum(block.size for block in matcher.get_matching_blocks())
    if 2 * shared < ALIKE * (len(old_words) + len(new_words)):
        return _whole(old, True), _whole(new, True)
    steps = matcher.get_opcodes()
    return (
        [*first, *(("".join(old_rest[begin:end]), tag != "equal") for tag, begin, end, _, _ in steps if begin < end)],
        [*first, *(("".join(new_rest[begin:end]), tag != "equal") for tag, _, _, begin, end in steps if begin < end)],
    )


def _shared_beginning(old: Sequence[str], new: Sequence[str]) -> int:
    """Return how many words two lines have in common before their first difference."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(old, new, strict=False)))
