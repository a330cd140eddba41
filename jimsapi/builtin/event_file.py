"""A durable sink that appends every event to a file, one JSON object a line, and begins a new file in time."""

import asyncio
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import orjson

from jimsapi.plugins import OptionError, Options, Settings, hookimpl, option
from jimsapi.threads import SinkEvent, event_object


class EventFileOptions(Options, prefix="event_file"):
    """A file of all events, for audits and analyses."""

    path: Path | None = option(help="Append every stored event to this file, one JSON object a line.")
    size: int = option(
        104_857_600, minimum=1, maximum=1 << 50, help="Bytes after which the file gets the time as a part of its name."
    )
    keep: int = option(0, minimum=0, maximum=1_000_000, help="How many such older files are kept; 0 means all.")


class EventFile:
    """Appends events to a file, and syncs the disk before it returns.

    A file that has at least `size` bytes is renamed, with the time in its name, and at most `keep` such files stay (0:
    all). A line that a dead process has not written to its end is removed: its event comes again.
    """

    name = "event-file"
    durable = True

    def __init__(self, path: Path, size: int, keep: int) -> None:
        self._path = path
        self._size = size
        self._keep = keep
        self._thread = ThreadPoolExecutor(1, "jimsapi event file")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=False)

    async def deliver(self, events: Sequence[SinkEvent]) -> None:
        """Append events. Raises `OSError` if the file cannot be written."""
        lines = b"".join(orjson.dumps(event_object(event), option=orjson.OPT_APPEND_NEWLINE) for event in events)
        await asyncio.get_running_loop().run_in_executor(self._thread, self._append, lines)

    def _append(self, lines: bytes) -> None:
        file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            size = _without_torn_line(file)
            _write_all(file, lines)
            os.fsync(file)
            if size + len(lines) >= self._size:
                self._begin_new_file()
        finally:
            os.close(file)

    def _begin_new_file(self) -> None:
        os.rename(self._path, self._free_name())
        if self._keep:
            for old in sorted(self._older_files())[: -self._keep]:
                old.unlink(missing_ok=True)
        _sync_folder(self._path.parent)

    def _free_name(self) -> Path:
        time = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
        return self._path.with_name(f"{self._path.stem}-{time}{self._path.suffix}")

    def _older_files(self) -> Iterator[Path]:
        for file in self._path.parent.iterdir():
            time = file.name.removeprefix(f"{self._path.stem}-").removesuffix(self._path.suffix)
            if file.name == f"{self._path.stem}-{time}{self._path.suffix}" and _is_time(time):
                yield file


def _without_torn_line(file: int) -> int:
    """Remove what follows the last line break. Returns the size of the file in bytes."""
    size = end = os.fstat(file).st_size
    while end:
        begin = max(0, end - 65_536)
        block = os.pread(file, end - begin, begin)
        position = block.rfind(b"\n")
        if position >= 0:
            end = begin + position + 1
            break
        end = begin
    if end != size:
        os.ftruncate(file, end)
    return end


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
    path = options.path.absolute()
    if not path.parent.is_dir():
        raise OptionError(f"--event-file-path: there is no folder {path.parent}; create it, or name another file")
    if path.exists() and not path.is_file():
        raise OptionError(f"--event-file-path: {path} is not a regular file; name another")
    return EventFile(path, options.size, options.keep)
