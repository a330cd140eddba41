"""The output of a conversation as plain text."""

import os
import shutil
import threading
from collections.abc import Sequence
from typing import TextIO

import click

from jimsapi.cli.terminal.text import clean, clean_line, cut

CLEAR_LINE = "\r\x1b[K"


class Screen:
    """The output. It removes control characters, so that a server cannot control the terminal.

    If it is `interactive`, it has a status line, which the next output replaces. Several threads may share a screen.
    """

    def __init__(self, out: TextIO) -> None:
        self.interactive = out.isatty() and os.environ.get("TERM") != "dumb"
        self._out = out
        self._lock = threading.Lock()
        self._status = False
        self._in_line = False

    def status(self, text: str) -> None:
        """Show a status line, if the screen is interactive."""
        if not self.interactive:
            return
        with self._lock:
            self._end_line()
            width = shutil.get_terminal_size().columns - 1
            self._status = True
            self._write(CLEAR_LINE + cut(clean_line(text), width))

    def write(self, text: str) -> None:
        """Show the next piece of a message."""
        text = clean(text)
        if not text:
            return
        with self._lock:
            self._clear_status()
            self._in_line = not text.endswith("\n")
            self._write(text)

    def line(self, text: str) -> None:
        """Show a text on a new line."""
        with self._lock:
            self._end_line()
            self._write(f"{clean(text)}\n")

    def tool_call(self, name: str, seconds: float, error: str | None) -> None:
        """Show that a tool call has ended."""
        self.status(f"Tool: {name}")

    def choices(self, text: str, options: Sequence[str], first: int) -> None:
        """Show what a person may answer. A screen that numbers the options begins with the number `first`."""
        self.line(" ".join([*([text] if text else []), *(f"[{option}]" for option in options)]))

    def show_error(self, text: str) -> None:
        """Show an error. If the output is a file or a pipe, write the error to standard error."""
        if self.interactive:
            self.line(text)
        else:
            self.end_line()
            click.echo(text, err=True)

    def end_line(self) -> None:
        """End the current message, and its line if the line has text."""
        with self._lock:
            self._end_line()

    def _end_line(self) -> None:
        self._clear_status()
        if self._in_line:
            self._in_line = False
            self._write("\n")

    def _clear_status(self) -> None:
        if self._status:
            self._status = False
            self._write(CLEAR_LINE)

    def _write(self, text: str) -> None:
        encoding = self._out.encoding or "utf-8"
        self._out.write(text.encode(encoding, "replace").decode(encoding))
        self._out.flush()
