"""A file whose parsed content stays in memory, and is read again when the file changes."""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from jimsapi.plugins import StartError, read_plain_file

logger = logging.getLogger("jimsapi.key")

CHECK_EVERY = 1.0
"""Seconds between two checks of the file."""

RECHECK_AFTER = 0.2
"""Seconds until the second check of a file that is missing or empty: a program may just be writing it."""

TIME_RESOLUTION = 2_000_000_000
"""Nanoseconds within which two changes may have the same timestamp; no file system's clock is coarser."""

Content = TypeVar("Content")

Stamp = tuple[int, ...]


class WatchedFile(Generic[Content]):
    """The parsed content of a file. `current()` returns it, and reads the file again if it has changed.

    Arguments:
        path: the file.
        source: the name of the option that names the file, for messages.
        parse: converts the file's bytes to the content. Returns None if the file is empty. Raises `ValueError` if it is
            invalid; the message must not quote the content.
        empty: the content when the file is missing or empty.
        clock: returns monotonic seconds.

    If the file later becomes missing or empty, the content becomes `empty`. If it cannot be read or parsed, the last
    valid content stays. Both are logged once, as errors.

    Raises:
        StartError: the file is missing, empty or invalid when the object is created.
    """

    def __init__(
        self,
        path: Path,
        source: str,
        parse: Callable[[bytes], Content | None],
        empty: Content,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._name = f"{source}: {path}"
        self._parse = parse
        self._empty = empty
        self._clock = clock
        self._stamp: Stamp | None = None
        self._fault: str | None = None
        self._was_missing = False
        try:
            self._data: bytes | None = self._read()
            content = parse(self._data)
        except (OSError, ValueError) as error:
            raise StartError(f"{self._name}: {_error_text(error)}") from None
        if content is None:
            raise StartError(f"{self._name}: it is empty; put a key in it, or leave the option out")
        self._content: Content = content
        self._check_at = clock() + CHECK_EVERY

    def current(self) -> Content:
        """Return the content. Checks the file first if the last check was a second ago."""
        now = self._clock()
        if now >= self._check_at:
            self._check_at = now + (CHECK_EVERY if self._check() else RECHECK_AFTER)
        return self._content

    def _check(self) -> bool:
        """Read the file if it has changed. Returns false if the next check should come soon."""
        try:
            if self._stamp is not None and _stamp(os.stat(self._path)) == self._stamp:
                return True
            data = self._read()
            content = self._parse(data)
        except (FileNotFoundError, NotADirectoryError):
            return self._on_missing()
        except (OSError, ValueError) as error:
            self._log_once(f"{_error_text(error)}; the previous content stays valid until it is fixed")
            return True
        if content is None:
            return self._on_missing()
        if self._fault or data != self._data:
            logger.info("%s: it was read again", self._name)
        self._content, self._data = content, data
        self._fault, self._was_missing = None, False
        return True

    def _on_missing(self) -> bool:
        """Drop the content if the file was missing or empty at the last check too.

        A program that writes a file in place truncates it first, so one check is not enough.
        """
        self._stamp = None
        if not self._was_missing:
            self._was_missing = True
            return False
        self._content, self._data = self._empty, None
        self._log_once("it is missing or empty; its keys are invalid until it is back")
        return True

    def _log_once(self, fault: str) -> None:
        if fault != self._fault:
            logger.error("%s: %s", self._name, fault)
        self._fault = fault

    def _read(self) -> bytes:
        data, status = read_plain_file(self._path)
        # If the file changed just now, a second change may have the same timestamp and size. Then read it again at the
        # next check.
        age = time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns)
        self._stamp = _stamp(status) if age > TIME_RESOLUTION else None
        return data


def _stamp(status: os.stat_result) -> Stamp:
    """Values of which at least one differs after the file, or a symbolic link to it, is replaced or written."""
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size


def _error_text(error: Exception) -> str:
    return f"cannot be read ({error.strerror})" if isinstance(error, OSError) else str(error)
