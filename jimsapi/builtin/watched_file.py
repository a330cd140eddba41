"""A file whose content is kept in memory, and read again when the file changed."""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from jimsapi.plugins.errors import StartError
from jimsapi.plugins.options import read_plain_file

logger = logging.getLogger("jimsapi.key")

LOOK_EVERY = 1.0
"""Seconds between two looks at the file."""

SETTLES_WITHIN = 0.2
"""Seconds after which a file that is gone or empty is so on purpose, and not about to be written."""

GRAIN = 2_000_000_000
"""Nanoseconds within which two changes may bear one time: the coarsest that a file system has."""

Content = TypeVar("Content")

Stamp = tuple[int, ...]


class WatchedFile(Generic[Content]):
    """Gives the `content` of a file; `current()` looks now and then whether it changed.

    `source` is how messages name the option that named the file. `parse` makes the content from the file's bytes, or
    returns None if there is nothing in it, and raises `ValueError`, which says what is wrong and quotes nothing, if it
    cannot. `clock` is a monotonic one, in seconds.

    A file that is gone or empty takes its content with it: what remains is `nothing`. One that is there and cannot be
    read or parsed is somebody's mistake, and the last good content stays. Either is logged once, as an error.

    Raises:
        StartError: at first the file must be there and good.
    """

    def __init__(
        self,
        path: Path,
        source: str,
        parse: Callable[[bytes], Content | None],
        nothing: Content,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._name = f"{source}: {path}"
        self._parse = parse
        self._nothing = nothing
        self._clock = clock
        self._stamp: Stamp | None = None
        self._fault: str | None = None
        self._gone = False
        try:
            self._data: bytes | None = self._read()
            content = parse(self._data)
        except (OSError, ValueError) as error:
            raise StartError(f"{self._name}: {_reason(error)}") from None
        if content is None:
            raise StartError(f"{self._name}: it is empty; put a key in it, or leave the option out")
        self._content: Content = content
        self._look_at = clock() + LOOK_EVERY

    def current(self) -> Content:
        """The content. Looks at the file if the last look is a second old; else it touches nothing."""
        now = self._clock()
        if now >= self._look_at:
            self._look_at = now + (LOOK_EVERY if self._look() else SETTLES_WITHIN)
        return self._content

    def _look(self) -> bool:
        """Read the file if it changed. Returns whether it has settled; else the next look should come soon."""
        try:
            if self._stamp is not None and _stamp(os.stat(self._path)) == self._stamp:
                return True
            data = self._read()
            content = self._parse(data)
        except (FileNotFoundError, NotADirectoryError):
            return self._lose()
        except (OSError, ValueError) as error:
            self._tell(f"{_reason(error)}; what it held before stays in force until it is mended")
            return True
        if content is None:
            return self._lose()
        if self._fault or data != self._data:
            logger.info("%s: it was read again", self._name)
        self._content, self._data = content, data
        self._fault, self._gone = None, False
        return True

    def _lose(self) -> bool:
        """Let the content go. Whoever writes a file in place empties it first, so it must be gone or empty twice."""
        self._stamp = None
        if not self._gone:
            self._gone = True
            return False
        self._content, self._data = self._nothing, None
        self._tell("it is gone or empty; no key of it is valid until it is back")
        return True

    def _tell(self, fault: str) -> None:
        if fault != self._fault:
            logger.error("%s: %s", self._name, fault)
        self._fault = fault

    def _read(self) -> bytes:
        data, status = read_plain_file(self._path)
        # A second change within the grain of the file system's clock may bear the same time and size: look again.
        age = time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns)
        self._stamp = _stamp(status) if age > GRAIN else None
        return data


def _stamp(status: os.stat_result) -> Stamp:
    """What differs when a file was replaced (also by the swap of a link to it) or written."""
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size


def _reason(error: Exception) -> str:
    return f"cannot be read ({error.strerror})" if isinstance(error, OSError) else str(error)
