"""A line on a terminal that shows how far a command has come."""

import sys
import time
from types import TracebackType
from typing import Self

SHOW_EVERY = 0.1
"""Seconds between two changes of the line."""


class Progress:
    """Counts what a command has done, and shows the count on the terminal of the errors. Elsewhere it shows nothing.

    A context manager: when it is left, the line is empty again.
    """

    def __init__(self, noun: str) -> None:
        self._noun = noun
        self._count = self._width = 0
        self._shown_at = -SHOW_EVERY
        self._visible = sys.stderr.isatty()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.clear()

    def add(self, count: int = 1) -> None:
        """Add to the count."""
        self._count += count
        if self._visible and time.monotonic() - self._shown_at >= SHOW_EVERY:
            self._shown_at = time.monotonic()
            line = f"{self._noun}: {self._count}"
            self._write(f"\r{line}")
            self._width = len(line)

    def clear(self) -> None:
        """Remove the line, so that other output can follow."""
        if self._width:
            self._write(f"\r{' ' * self._width}\r")
            self._width = 0

    def _write(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()
