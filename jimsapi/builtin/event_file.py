"""A durable sink that appends every event to a file, one JSON object a line, and begins a new file in time."""

import asyncio
import fcntl
import logging
import os
import stat
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import orjson

from jimsapi.plugins import Options, Settings, StartError, hookimpl, option
from jimsapi.threads import SinkEvent, cloud_event_of, event_object

logger = logging.getLogger("jimsapi.sinks")

Format = Literal["json", "cloudevents"]
MAKERS = {"json": event_object, "cloudevents": cloud_event_of}
LINE_BEGINNINGS = {"json": b'{"thread_id":', "cloudevents": b'{"specversion":'}
"""The first bytes of each line, by which the sink recognizes its own files."""
LOCK_WITHIN = 5.0
"""Seconds for which the sink waits while another process writes to the file. `deliver` has 10 seconds in all."""
LOCK_POLL = 0.01


class EventFileOptions(Options, prefix="event_file"):
    """A file of all events, for audits and analyses."""

    path: Path | None = option(help="Append every stored event to this file, one JSON object a line.")
    size: int = option(
        104_857_600, minimum=1, maximum=1 << 50, help="Bytes after which the file gets the time as a part of its name."
    )
    keep: int = option(0, minimum=0, maximum=1_000_000, help="How many such older files are kept; 0 means all.")
    format: Format = option("json", help="Whether a line is an object of this server's own, or a CloudEvent.")


class EventFile:
    """Appends events to a file, and syncs the disk before it returns.

    A file that has at least `size` bytes is renamed before the next events are written. Its new name has the time in
    it, and at most `keep` such files stay (0: all). If a process died while it wrote a line, the sink removes the part
    that was written, since the event comes again. The sink does not change a file that begins or ends with
    something other than events. `format` is `json` for objects of the server's own, or `cloudevents`.

    `path` may be a symbolic link or have some in it. All files are in the folder to which they point.
    """

    name = "event-file"
    durable = True

    def __init__(self, path: Path, size: int, keep: int, format: Format = "json") -> None:
        # If the path itself were used, the rename of a full file would rename the link to it.
        self._path = Path(os.path.realpath(path))
        self._size = size
        self._keep = keep
        self._object_of = MAKERS[format]
        self._format = format
        self._line_beginning = LINE_BEGINNINGS[format]
        self._cannot_rotate = False
        self._thread = ThreadPoolExecutor(1, "jimsapi event file")

    def check(self) -> None:
        """Raise `OSError` if the file cannot be written or renamed, or is not a file of events. Changes nothing."""
        folder = self._path.parent
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {folder}; create it, or name another file")
        if not _may(folder, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(
                f"this user may not read and write the folder {folder}, in which full files are renamed; change its "
                "owner or mode, or name a file in another folder"
            )
        if not os.path.lexists(self._path):
            return
        if not self._path.is_file():
            raise OSError(f"{self._path} is not a regular file; name another")
        if not _may(self._path, os.R_OK | os.W_OK):
            raise PermissionError(f"this user may not read and write {self._path}; change its owner or mode")
        file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._end_of_lines(file)
        finally:
            os.close(file)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=False)

    async def deliver(self, events: Sequence[SinkEvent]) -> None:
        """Append events. Raises `OSError` if the file cannot be written, or is not a file of events."""
        lines = b"".join(orjson.dumps(self._object_of(event), option=orjson.OPT_APPEND_NEWLINE) for event in events)
        await asyncio.get_running_loop().run_in_executor(self._thread, self._append, lines)

    def _append(self, lines: bytes) -> None:
        with self._locked_file() as file:
            if os.fstat(file).st_size < self._size:
                self._write(file, lines)
                return
            self._begin_new_file(file)
        with self._locked_file() as file:  # the same file again if it could not be renamed
            self._write(file, lines)

    def _write(self, file: int, lines: bytes) -> None:
        """Append lines, and sync the disk. If this fails, the file is as it was before, since the lines come again."""
        size = os.fstat(file).st_size
        if size == 0:
            _sync_folder(self._path.parent)  # otherwise a power cut may remove a new file, with the lines in it
        try:
            _write_all(file, lines)
            os.fsync(file)
        except OSError:
            with suppress(OSError):
                os.ftruncate(file, min(size, os.fstat(file).st_size))  # `logrotate` may have made it shorter
            raise

    @contextmanager
    def _locked_file(self) -> Iterator[int]:
        """Open the file for this process alone, without a line that was not written to its end.

        A process that has lost its hold of the sink may still write. Without the lock, this one would take the line
        that the other one is writing for one of a dead process.
        """
        until = time.monotonic() + LOCK_WITHIN
        while True:
            file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if self._lock(file):
                    self._remove_torn_line(file)
                    yield file
                    return
            finally:
                os.close(file)
            if time.monotonic() >= until:
                raise BlockingIOError(f"another process has locked {self._path}; find it with `lsof`, and stop it")
            time.sleep(LOCK_POLL)

    def _lock(self, file: int) -> bool:
        """Lock the open file. Returns False if another process has locked it, or has renamed it meanwhile."""
        try:
            # Waiting for the lock without an end would stop the exit of the process, which waits for its threads.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return os.path.samestat(os.fstat(file), self._path.stat())
        except (BlockingIOError, FileNotFoundError):
            return False

    def _remove_torn_line(self, file: int) -> None:
        end = self._end_of_lines(file)
        if end != os.fstat(file).st_size:
            os.ftruncate(file, end)

    def _end_of_lines(self, file: int) -> int:
        """Return the position after the last whole line. Raises `OSError` if it has something else."""
        end = _after_last_line_break(file)
        if not self._begins_line(file, 0):
            raise OSError(
                f"{self._path} is not a file of events in the format {self._format}; name another file, or move this "
                "one away"
            )
        if not self._begins_line(file, end):
            raise OSError(
                f"{self._path} ends with something other than an event; remove what follows its last line break, or "
                "move the file away"
            )
        return end

    def _begins_line(self, file: int, position: int) -> bool:
        """Whether a line of events may begin at a position, where the file may end before the line does."""
        text = os.pread(file, len(self._line_beginning), position)
        return self._line_beginning.startswith(text)

    def _begin_new_file(self, full: int) -> None:
        """Rename the full file, and create its successor. If this fails, the next lines go to the same file."""
        try:
            os.rename(self._path, self._free_name())
            self._create_like(os.fstat(full))
            if self._keep:
                for old in sorted(self._older_files())[: -self._keep]:
                    old.unlink(missing_ok=True)
            _sync_folder(self._path.parent)
        except OSError as error:
            if not self._cannot_rotate:
                logger.error(
                    "event sink %s cannot rotate %s, which grows until it can: %s", self.name, self._path, error
                )
            self._cannot_rotate = True
        else:
            self._cannot_rotate = False

    def _create_like(self, former: os.stat_result) -> None:
        """Create the file so that the programs that could read the former one can read it too."""
        file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            with suppress(OSError):  # perhaps the user is not in that group; then the mode would be for another group
                os.fchown(file, -1, former.st_gid)
            if os.fstat(file).st_gid == former.st_gid:
                os.fchmod(file, stat.S_IMODE(former.st_mode))
        finally:
            os.close(file)

    def _free_name(self) -> Path:
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
        return self._path.with_name(f"{self._path.stem}-{stamp}{self._path.suffix}")

    def _older_files(self) -> Iterator[Path]:
        for file in self._path.parent.iterdir():
            stamp = file.name.removeprefix(f"{self._path.stem}-").removesuffix(self._path.suffix)
            if file.name == f"{self._path.stem}-{stamp}{self._path.suffix}" and _is_time(stamp):
                yield file


def _may(path: Path, rights: int) -> bool:
    return os.access(path, rights, effective_ids=os.access in os.supports_effective_ids)


def _after_last_line_break(file: int) -> int:
    """Return the position after the last line break of a file; 0 if it has none."""
    end = os.fstat(file).st_size
    while end:
        begin = max(0, end - 65_536)
        position = os.pread(file, end - begin, begin).rfind(b"\n")
        if position >= 0:
            return begin + position + 1
        end = begin
    return 0


def _write_all(file: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(file, left) :]


def _is_time(text: str) -> bool:
    return len(text) == 21 and text[8] == "T" and text.replace("T", "", 1).isdigit()


def _sync_folder(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


@hookimpl
def jimsapi_options() -> type[Options]:
    return EventFileOptions


@hookimpl
def jimsapi_event_sink(settings: Settings) -> EventFile | None:
    options = settings.get(EventFileOptions)
    if options.path is None:
        return None
    file = EventFile(options.path, options.size, options.keep, options.format)
    try:
        file.check()
    except OSError as error:
        raise StartError(f"--event-file-path: {error}") from None
    return file
