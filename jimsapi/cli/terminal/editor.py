"""The input of a conversation in a terminal, by prompt_toolkit: several lines, paste and history."""

import sys
import termios
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from prompt_toolkit import PromptSession
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import has_focus
from prompt_toolkit.history import History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from jimsapi.cli.terminal.history import HistoryFile

_INPUT_FLAGS, _LOCAL_FLAGS = 0, 3
"""Places in what `termios.tcgetattr` returns."""


class Editor:
    """Reads messages from the terminal. Enter sends a message, and Alt-Enter begins a line in it."""

    def __init__(self, prompt: str, kept: HistoryFile | None) -> None:
        self._session: PromptSession[str] = PromptSession(
            prompt,
            multiline=True,
            prompt_continuation=" " * len(prompt),
            key_bindings=_key_bindings(),
            history=InMemoryHistory() if kept is None else _KeptHistory(kept),
            enable_suspend=True,
        )

    def read(self) -> str:
        """Read a message. Raises `EOFError` after Ctrl-D and `KeyboardInterrupt` after Ctrl-C."""
        return self._session.prompt()


@contextmanager
def no_echo() -> Iterator[None]:
    """Keep what is typed meanwhile for the next prompt, and do not show it: it would be in the middle of the output."""
    descriptor = sys.stdin.fileno()
    before, changed = termios.tcgetattr(descriptor), termios.tcgetattr(descriptor)
    changed[_INPUT_FLAGS] &= ~termios.ICRNL  # the prompt expects the characters of the keys
    changed[_LOCAL_FLAGS] &= ~(termios.ECHO | termios.ICANON)
    termios.tcsetattr(descriptor, termios.TCSANOW, changed)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSANOW, before)


class _KeptHistory(History):
    def __init__(self, file: HistoryFile) -> None:
        super().__init__()
        self._file = file

    def load_history_strings(self) -> Iterable[str]:
        try:
            return reversed(self._file.read())
        except OSError:
            return []

    def store_string(self, string: str) -> None:
        with suppress(OSError):  # the disk is full, for example, which does not concern the conversation
            self._file.append(string)


def _key_bindings() -> KeyBindings:
    bindings = KeyBindings()
    in_message = has_focus(DEFAULT_BUFFER)  # and not in a search of the history

    @bindings.add("enter", filter=in_message)
    def send(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    @bindings.add("escape", "enter", filter=in_message)
    def begin_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return bindings
