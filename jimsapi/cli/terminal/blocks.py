"""Markdown that arrives in pieces, as complete blocks: paragraphs, headings, code, tables, and the items of lists."""

import re
from collections.abc import Iterator
from typing import NamedTuple

MAX_BLOCK = 8_000
"""Characters. A longer block is split, so that the work on a block has a limit."""

_HEADING = re.compile(r" {0,3}#{1,6}(?:[ \t]|$)")
_FENCE = re.compile(r"( *)(`{3,}(?=[^`]*$)|~{3,})")
_ITEM = re.compile(r" {0,3}(?:[-*+]|\d{1,9}[.)])(?:[ \t]|$)")
_NEXT_ITEM = re.compile(r" ?(?:[-*+]|\d{1,9}[.)])(?:[ \t]|$)")
_FIRST_ITEM = re.compile(r" {0,3}(?:[-*+]|1[.)])[ \t]+\S")
"""A line that begins a list, also directly below a paragraph."""
_INDENTED = ("  ", "\t")


class Block(NamedTuple):
    """A block. If it is `tight`, no blank line separates it from the block before."""

    text: str
    tight: bool


class Blocks:
    """Splits a message into its blocks. Every character is in one block, except blank lines between blocks."""

    def __init__(self) -> None:
        self._partial: list[str] = []  # the line that is not complete, in the pieces in which it arrived
        self._partial_length = 0
        self._lines: list[str] = []  # the complete lines of the open block
        self._length = 0
        self._fence: tuple[str, int, str] | None = None  # the opening line, its indent, and its marks
        self._is_list = False
        self._after_blank = False
        self._tight = False

    @property
    def open(self) -> str:
        """The text of the block that is not complete."""
        return "\n".join([*self._lines, "".join(self._partial)])

    def feed(self, text: str) -> Iterator[Block]:
        """Yield the blocks that are complete with the next piece of the message."""
        *complete, rest = text.split("\n")
        for line in complete:
            yield from self._add_piece(line)
            yield from self._end_line()
        yield from self._add_piece(rest)

    def end(self) -> Iterator[Block]:
        """Yield what is left. The message is complete."""
        if self._partial:
            yield from self._end_line()
        yield from self._end_block(tight=False)

    def _add_piece(self, piece: str) -> Iterator[Block]:
        while self._partial_length + len(piece) > MAX_BLOCK:
            room = MAX_BLOCK - self._partial_length
            self._partial.append(piece[:room])
            piece = piece[room:]
            yield from self._end_line()
        if piece:
            self._partial.append(piece)
            self._partial_length += len(piece)

    def _end_line(self) -> Iterator[Block]:
        line = "".join(self._partial)
        self._partial, self._partial_length = [], 0
        if self._length + len(line) > MAX_BLOCK:
            yield from self._split()
        if self._fence is not None:
            yield from self._add_code(line, self._fence)
        elif not line.strip():
            yield from self._add_blank()
        else:
            yield from self._add_text(line)

    def _add_code(self, line: str, fence: tuple[str, int, str]) -> Iterator[Block]:
        self._append(line)
        _, indent, marks = fence
        text = line.strip(" ")
        if set(text) == {marks[0]} and len(text) >= len(marks) and line.index(text) <= indent + 3:
            self._fence = None
            if not self._is_list:
                yield from self._end_block(tight=False)

    def _add_blank(self) -> Iterator[Block]:
        if self._is_list:
            self._after_blank = True  # an indented line would continue the item
        else:
            yield from self._end_block(tight=False)

    def _add_text(self, line: str) -> Iterator[Block]:
        fence = _FENCE.match(line)
        inside = self._is_list and line.startswith(_INDENTED)
        next_item = self._is_list and _NEXT_ITEM.match(line) is not None
        if self._lines and not inside:
            begins = fence or next_item or _HEADING.match(line) or (not self._is_list and _FIRST_ITEM.match(line))
            if begins or self._after_blank:
                yield from self._end_block(tight=next_item and not self._after_blank)
        if not self._lines:
            self._is_list = _ITEM.match(line) is not None
        elif self._after_blank:
            self._append("")
        self._after_blank = False
        self._append(line)
        if fence:
            self._fence = (line, len(fence[1]), fence[2])
        elif _HEADING.match(line) and not inside:
            yield from self._end_block(tight=False)

    def _append(self, line: str) -> None:
        self._lines.append(line)
        self._length += len(line) + 1

    def _split(self) -> Iterator[Block]:
        """End a block that is too long. If it is in a fence, the next one begins with the same fence."""
        yield from self._end_block(tight=True)
        if self._fence is not None:
            self._append(self._fence[0])

    def _end_block(self, *, tight: bool) -> Iterator[Block]:
        """Yield the open block, if there is one. `tight` says whether the next one is."""
        if self._lines:
            yield Block("\n".join(self._lines), self._tight)
            self._tight = tight
        self._lines, self._length = [], 0
        self._is_list = self._after_blank = False
