"""A line on a terminal that shows how far a command has come."""

import sys
import time
from types import TracebackType
from typing import Self

SHOW_EVERY = 0.1
"""Seconds between two changes of the line."""
BAR = 20
"""Characters of the bar of a step."""


class Progress:
    """Counts what a command has done, and shows the count on the terminal of the errors. Elsewhere it shows nothing.

    A context manager: when it is left, the line is empty again.
    """

    def __init__(self, noun: str) -> None:
        self._noun = noun
        self._step = ""
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
        self._show(f"{self._noun}: {self._count}")

    def add_to(self, step: str, count: int, total: int) -> None:
        """Add to the count of a step, which is to reach `total`. A step that is new begins with 0."""
        if step != self._step:
            self._step, self._count, self._shown_at = step, 0, -SHOW_EVERY
        self._count += count
        share = self._count / max(1, total)
        bar = "#" * int(share * BAR)
        self._show(f"{self._noun} {step} [{bar:.<{BAR}}] {self._count} of {total} ({share:.0%})")

    def clear(self) -> None:
        """Remove the line, so that other output can follow."""
        if self._width:
            self._write(f"\r{' ' * self._width}\r")
            self._width = 0

    def _show(self, line: str) -> None:
        if self._visible and time.monotonic() - self._shown_at >= SHOW_EVERY:
            self._shown_at = time.monotonic()
            self._write(f"\r{line.ljust(self._width)}")
            self._width = len(line)

    def _write(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()
