"""The output of a conversation with Markdown and colours, by rich."""

import re
import shutil
from collections.abc import Sequence
from typing import TextIO

from markdown_it import MarkdownIt
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.markdown import Markdown
from rich.segment import Segment
from rich.text import Text

from jimsapi.cli.terminal.blocks import Block, Blocks
from jimsapi.cli.terminal.live_area import LiveArea
from jimsapi.cli.terminal.screen import Screen
from jimsapi.cli.terminal.text import clean, clean_line, cut

_TRAILING = re.compile(r" +\n")
_PARSER = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"]).disable(["image", "reference"])
"""What a terminal cannot show stays as it was written: HTML, images, and the addresses of links by reference."""


class RichScreen(Screen):
    """A terminal that shows messages as Markdown.

    Each block is rendered once, when it is complete. Until then it is plain text at the bottom of the terminal.
    """

    def __init__(self, out: TextIO) -> None:
        super().__init__(out)
        self._console = Console(file=out, force_terminal=True, highlight=False, markup=False, emoji=False)
        self._area = LiveArea(self._write)
        self._blocks = Blocks()
        self._has_blocks = False

    def status(self, text: str) -> None:
        """Show a status line. An empty one ends it."""
        with self._lock:
            self._area.status(self._render(_dim_line(text, end="")) if text else "")

    def write(self, text: str) -> None:
        """Show the next piece of a message."""
        text = clean(text)
        if not text:
            return
        with self._lock:
            complete = list(self._blocks.feed(text))
            if complete:
                self._area.erase()
                self._show(complete)
                text = self._blocks.open
            self._area.add(text)

    def note(self, text: str) -> None:
        """Show a dim line, above the block of the message that is not complete."""
        with self._lock:
            self._area.insert(self._render(_dim_line(text)))

    def tool_call(self, name: str, seconds: float, error: str | None) -> None:
        """Show that a tool call has ended, how long it took, and its error."""
        duration = f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"
        self.note(f"Tool: {name}, {duration}" if error is None else f"Tool: {name}, failed after {duration}: {error}")

    def choices(self, text: str, options: Sequence[str], first: int) -> None:
        """Show what a person may answer, numbered from `first`."""
        lines = Text(end="")
        if text:
            lines.append(f"{text}\n", "bold")
        for number, option in enumerate(options, first):
            lines.append(f"{number:>3}. ", "cyan").append(f"{clean_line(option)}\n")
        with self._lock:
            self._end_line()
            self._write(self._render(lines))

    def _end_line(self) -> None:
        self._area.erase()
        self._show(list(self._blocks.end()))
        self._blocks = Blocks()
        self._has_blocks = False

    def _show(self, blocks: Sequence[Block]) -> None:
        for block in blocks:
            gap = "\n" if self._has_blocks and not block.tight else ""
            self._write(gap + self._render_block(block.text))
            self._has_blocks = True

    def _render_block(self, text: str) -> str:
        try:
            # Without the space around a block: rich fills lines up with blanks, which would be copied with the text.
            return _TRAILING.sub("\n", self._render(_markdown(text)).lstrip("\n"))
        except Exception:  # a fault of the libraries, which ends neither the message nor the conversation
            return self._render(Text(text))

    def _render(self, shown: RenderableType) -> str:
        with self._console.capture() as capture:
            self._console.print(_Cleaned(shown))
        return capture.get()


class _Cleaned:
    """What is rendered, without control characters: in Markdown, `&#27;` is one after rendering only."""

    def __init__(self, shown: RenderableType) -> None:
        self._shown = shown

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self._shown, options):
            if not segment.control:
                yield Segment(clean(segment.text), segment.style)


def _dim_line(text: str, end: str = "\n") -> Text:
    return Text(cut(clean_line(text), shutil.get_terminal_size().columns - 1), "dim", end=end)


def _markdown(text: str) -> Markdown:
    """Return a text as Markdown. Links show where they lead, and are no escape sequences of the terminal."""
    markdown = Markdown("", hyperlinks=False)
    markdown.parsed = _PARSER.parse(text)
    return markdown
