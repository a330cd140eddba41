"""The rows at the bottom of a terminal that are erased again: a text that grows, and a status below it."""

import shutil
from collections.abc import Callable

from jimsapi.cli.terminal.screen import CLEAR_LINE
from jimsapi.cli.terminal.text import wrap

_UP = "\x1b[A"
_CLEAR_BELOW = "\x1b[J"
_TAB = "    "


class LiveArea:
    """Shows the newest rows of a text that grows, and a status.

    It breaks lines itself, so that it knows how many rows there are to erase. If the text has more rows than the
    terminal, it keeps the newest half: so the work on a piece does not grow with the text.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._rows: list[str] = []
        self._has_status = False

    def add(self, text: str) -> None:
        """Show the next piece of the text. The cursor stays behind it. The status ends."""
        self._clear_status()
        if not text:
            return
        size = shutil.get_terminal_size()
        most = max(2, size.lines - 2)  # one row for the status, and one that stays empty
        last = self._rows[-1] if self._rows else ""
        added = wrap(last + text.replace("\t", _TAB), max(1, size.columns - 1))
        rows = [*self._rows[:-1], *added]
        if len(rows) <= most:
            self._write("\n".join(added)[len(last) :])
        else:
            self.erase()
            rows = rows[-(most // 2) :]
            self._write("\n".join(rows))
        self._rows = rows

    def status(self, text: str) -> None:
        """Show a status below the text, in place of the one before. An empty one ends it."""
        self._clear_status()
        if text:
            self._write(f"\n{text}" if self._rows else text)
            self._has_status = True

    def insert(self, text: str) -> None:
        """Show complete lines above the text. They are not erased. The status ends."""
        rows = self._rows
        self.erase()
        self._write(text + "\n".join(rows))
        self._rows = rows

    def erase(self) -> None:
        """Erase the text and the status."""
        self._clear_status()
        if self._rows:
            self._write(f"\r{_UP * (len(self._rows) - 1)}{_CLEAR_BELOW}")
        self._rows = []

    def _clear_status(self) -> None:
        if self._has_status:
            self._has_status = False
            self._write(f"{CLEAR_LINE}{_UP}{self._rows[-1]}" if self._rows else CLEAR_LINE)
