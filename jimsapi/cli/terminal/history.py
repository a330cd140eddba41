"""The file in which a terminal keeps what a person has typed: one JSON string a line, oldest first."""

import json
import os
from pathlib import Path
from typing import BinaryIO

MAX_BYTES = 256 * 1024
"""A longer file loses its oldest half."""
MAX_ENTRY = 16 * 1024
"""Bytes of a line. Longer messages are not kept."""


def history_path() -> Path:
    """Return the path of the file. Raises `RuntimeError` if the user has no home."""
    folder = Path(os.environ.get("XDG_STATE_HOME", ""))
    if not folder.is_absolute():
        folder = Path.home() / ".local" / "state"
    return folder / "jimsapi" / "chat_history"


class HistoryFile:
    """The messages of earlier conversations, which only the user of this machine may read."""

    def __init__(self, path: Path) -> None:
        """Create the file and its folder. Raises `OSError` if that is not possible."""
        self._path = path
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(self._open(os.O_APPEND))

    def read(self) -> list[str]:
        """Return the messages, oldest first. Raises `OSError`."""
        with open(self._open(os.O_RDONLY), "rb") as file:
            messages = [_message(line) for line in _newest_lines(file, MAX_BYTES)]
        return [message for message in messages if message is not None]

    def append(self, message: str) -> None:
        """Keep a message. Raises `OSError`."""
        line = f"{json.dumps(message)}\n".encode()
        if len(line) > MAX_ENTRY:
            return
        with open(self._open(os.O_WRONLY | os.O_APPEND), "ab") as file:
            file.write(line)
            size = file.tell()
        if size > MAX_BYTES:
            self._shorten()

    def _shorten(self) -> None:
        shorter = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        with open(self._open(os.O_RDONLY), "rb") as file:
            lines = _newest_lines(file, MAX_BYTES // 2)
        with open(os.open(shorter, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.writelines(lines)
        os.replace(shorter, self._path)

    def _open(self, flags: int) -> int:
        descriptor = os.open(self._path, flags | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.fchmod(descriptor, 0o600)  # another program may have made it readable to others
        return descriptor


def _newest_lines(file: BinaryIO, most: int) -> list[bytes]:
    """The newest lines of a file, with at most so many bytes."""
    start = max(0, file.seek(0, os.SEEK_END) - most)
    file.seek(start)
    lines = file.read(most).splitlines(keepends=True)
    return lines[1:] if start else lines  # the first is probably not whole


def _message(line: bytes) -> str | None:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return None  # another program has written it
    return message if isinstance(message, str) else None
