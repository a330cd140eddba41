"""`jimsapi chat` in a terminal of its own: a real process on a pseudo-terminal."""

import fcntl
import os
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import pyte

from tests.serving import ROOT

PATIENCE = 60.0
COLUMNS, ROWS = 64, 16

_MAIN = "from jimsapi.cli import main; main()"
_WITHOUT_EXTRA = f"import sys; sys.modules['prompt_toolkit'] = sys.modules['rich'] = None; {_MAIN}"


def environment(**more: str) -> dict[str, str]:
    """Return variables for the command, without any `JIMS_*` of ours."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("JIMS_")}
    return {**clean, "PYTHONPATH": str(ROOT), "TERM": "xterm", "LOGNAME": "zoe", "PYTHONIOENCODING": "utf-8", **more}


class Terminal:
    """The command `code` in a terminal of its own; with `said`, only its output is there. `shown` is all that it wrote.

    `env` adds to its environment.
    """

    def __init__(self, code: str, url: str, *options: str, said: str | None = None, env: dict[str, str]) -> None:
        self.shown = ""
        self._place = 0
        self._grown = threading.Condition()
        self._ended = False
        self._near, far = os.openpty()
        fcntl.ioctl(far, termios.TIOCSWINSZ, struct.pack("HHHH", *self._size(), 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, "chat", "--url", url, *options],
            stdin=far if said is None else subprocess.PIPE,
            stdout=far,
            stderr=far,
            env=environment(**env),
            cwd=ROOT,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(1, termios.TIOCSCTTY, 0),  # so that Ctrl-C is a signal
        )
        os.close(far)
        if self.process.stdin is not None and said is not None:
            self.process.stdin.write(said.encode())
            self.process.stdin.close()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()  # nobody has the terminal open any more
        os.close(self._near)

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._near, text.encode())

    def see(self, text: str) -> str:
        """Wait until a text is written, behind the one that was seen last. Returns what is written between the two."""
        with self._grown:
            self._wait_for(lambda: self._there(text), PATIENCE)
            found = self.shown.find(text, self._place)
            assert found >= 0, f"{text!r} is not in {self.shown[self._place :]!r}"
            before, self._place = self.shown[self._place : found], found + len(text)
            return before

    def ends(self) -> int:
        """Wait for the end. Returns the exit status."""
        return self.process.wait(PATIENCE)

    def _size(self) -> tuple[int, int]:
        """Rows and columns; 0 if the terminal does not know."""
        return 0, 0

    def _there(self, text: str) -> bool:
        return self.shown.find(text, self._place) >= 0

    def _wait_for(self, holds: Callable[[], object], seconds: float) -> bool:
        """Wait until something holds or the command ends. Returns false if neither has happened."""
        return self._grown.wait_for(lambda: self._ended or bool(holds()), seconds)

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._near, 4096)
            except OSError:
                data = b""
            with self._grown:
                self._take(data)
                self._ended = not data
                self._grown.notify_all()
            if not data:
                return

    def _take(self, data: bytes) -> None:
        self.shown += data.decode("utf-8", "replace")


class PlainTerminal(Terminal):
    """The command without the libraries of its extra."""

    def __init__(self, url: str, *options: str, said: str | None = None) -> None:
        super().__init__(_WITHOUT_EXTRA, url, *options, said=said, env={})

    def interrupt_prompt(self, text: str | None = None) -> None:
        """Press Ctrl-C at the prompt until `text` is shown, or the command ends.

        `readline` heeds a signal that comes right before it begins to wait no sooner than the next one. What was typed
        has to be shown before: the terminal drops it at Ctrl-C, and a `readline` that was about to read it heeds none.
        """
        with self._grown:
            for _ in range(10):
                self.type("\x03")
                if self._wait_for(lambda: text is not None and self._there(text), 5):
                    return
            raise AssertionError(f"Ctrl-C had no effect: {self.shown[self._place :]!r}")


class AnsweringScreen(pyte.HistoryScreen):
    """A screen that answers where its cursor is, when a program asks for that."""

    def __init__(self, answer: Callable[[str], None]) -> None:
        super().__init__(COLUMNS, ROWS, history=2000)
        self._answer = answer

    def write_process_input(self, data: str) -> None:
        """Send an answer to the program."""
        self._answer(data)


class RichTerminal(Terminal):
    """The command with the libraries of its extra. `rows` is what a person sees now, and `lines` what has passed, too.

    `state` is the folder for the history of messages.
    """

    def __init__(self, url: str, state: Path, *options: str, **env: str) -> None:
        self._screen = AnsweringScreen(self.type)
        self._stream = pyte.ByteStream(self._screen)
        super().__init__(_MAIN, url, *options, env={"XDG_STATE_HOME": str(state), **env})

    @property
    def rows(self) -> list[str]:
        """The rows of the screen, without the empty ones at its end."""
        with self._grown:
            return self._rows()

    @property
    def lines(self) -> list[str]:
        """All rows, also those that have left the screen at its top."""
        with self._grown:
            above = [
                "".join(row[column].data for column in range(COLUMNS)).rstrip() for row in self._screen.history.top
            ]
            return above + self._rows()

    def wait_for_rows(self, *end: str) -> None:
        """Wait until the screen ends with these rows."""
        with self._grown:
            self._wait_for(lambda: self._rows()[-len(end) :] == list(end), PATIENCE)
            assert self._rows()[-len(end) :] == list(end)

    def wait_for_prompt(self) -> None:
        """Wait until the screen ends with an empty prompt."""
        self.wait_for_rows(">")

    def is_bold(self, text: str) -> bool:
        """Return whether the newest row that contains `text` shows it in bold."""
        with self._grown:
            row = max(number for number, shown in enumerate(self._screen.display) if text in shown)
            column = self._screen.display[row].index(text)
            return all(self._screen.buffer[row][column + offset].bold for offset in range(len(text)))

    def say(self, message: str) -> None:
        """Paste a message at the prompt and press Enter."""
        self.paste(message)
        self.type("\r")

    def paste(self, text: str) -> None:
        """Paste a text, as terminals send it."""
        self.type(f"\x1b[200~{text}\x1b[201~")

    def _size(self) -> tuple[int, int]:
        return ROWS, COLUMNS

    def _rows(self) -> list[str]:
        rows = [row.rstrip() for row in self._screen.display]
        while rows and not rows[-1]:
            rows.pop()
        return rows

    def _take(self, data: bytes) -> None:
        super()._take(data)
        self._stream.feed(data)
