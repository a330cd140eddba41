"""An archive with everything that the stores hold of one contact. docs/operating.md describes its format.

The parts are written one after another while they are read, so the memory that this needs does not grow with the data.
"""

import re
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, date, datetime
from os.path import splitext
from typing import IO, Any
from uuid import UUID
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import msgspec
import orjson

from jimsapi.runs.conversation import all_events
from jimsapi.threads.facts import Feedback, ThreadSummary
from jimsapi.threads.file_store import FileStore, StoredFile
from jimsapi.threads.message_files import MESSAGE_FILES
from jimsapi.threads.run import EventRecord, ThreadRecord
from jimsapi.threads.storable import stored_json
from jimsapi.threads.store import ThreadStore
from jimsapi.threads.usage import DayTotal, UsageHolder

FORMAT, FORMAT_VERSION = "jimsapi.contact", 1

THREADS_AT_ONCE = 100
FILES_AT_ONCE = 100
FIRST_DAY = date(2000, 1, 1)
"""A day before all usage."""

_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,16}")


class FilesLeftOut(Exception):
    """Messages of the contact have files, and the command has no file store to read them from."""


class Counts(msgspec.Struct):
    """How much there is of a contact. `file_bytes` is the size of all files together."""

    threads: int = 0
    events: int = 0
    feedback: int = 0
    files: int = 0
    usage: int = 0
    file_bytes: int = 0

    def __bool__(self) -> bool:
        return bool(self.threads or self.files or self.usage)


class Contact:
    """What the stores hold of one contact. `files` is None if the server stores no files."""

    def __init__(self, contact_id: str, store: ThreadStore, files: FileStore | None) -> None:
        self.contact_id = contact_id
        self._store = store
        self._files = files

    async def threads(self) -> AsyncIterator[tuple[ThreadRecord, ThreadSummary]]:
        """Read the threads and their facts, the newest thread first."""
        after: str | None = None
        while True:
            page = await self._store.threads(self.contact_id, THREADS_AT_ONCE, after)
            summaries = await self._store.summaries([thread.thread_id for thread in page.threads])
            for thread, summary in zip(page.threads, summaries, strict=True):
                yield thread, summary
            after = page.next
            if after is None:
                return

    async def files(self) -> AsyncIterator[StoredFile]:
        """Read the facts of the files."""
        after: str | None = None
        while self._files is not None:
            page = await self._files.files(self.contact_id, FILES_AT_ONCE, after)
            for file in page.files:
                yield file
            after = page.next
            if after is None:
                return

    async def usage(self) -> Sequence[DayTotal]:
        """Read the totals of usage, by day and model."""
        return await self._store.usage(UsageHolder(self.contact_id), FIRST_DAY, date.max)

    async def count(self) -> Counts:
        """Count the threads, the files, and the totals of usage."""
        counts = Counts(usage=len(await self.usage()))
        async for _ in self.threads():
            counts.threads += 1
        async for file in self.files():
            counts.files += 1
            counts.file_bytes += file.size
        return counts

    async def check_files(self) -> None:
        """Raise `FilesLeftOut` if there is no file store, and a message has files."""
        if self._files is None:
            async for thread, _ in self.threads():
                async for event in all_events(self._store, thread.thread_id, self.contact_id):
                    _check_for_files(event)

    async def write(
        self, file: IO[bytes], version: str, *, without_files: bool, on_line: Callable[[], None] | None = None
    ) -> Counts:
        """Write the archive to an empty file. `version` is that of jimsapi. `on_line` is called for each line.

        Raises:
            FilesLeftOut: there is no file store, a message has files, and `without_files` is false.
            ThreadNotFound, StoredFileNotFound: something was deleted meanwhile.
        """
        began = datetime.now(UTC)
        parts = {
            "threads": self._threads_in_json(),
            "events": self._events_in_json(check_files=self._files is None and not without_files),
            "feedback": self._feedback_in_json(),
            "files": self._files_in_json(),
            "usage": self._usage_in_json(),
        }
        with ZipFile(file, "w", ZIP_DEFLATED) as archive:
            numbers = {
                name: await _write_lines(archive, name, began, values, on_line) for name, values in parts.items()
            }
            counts = Counts(**numbers, file_bytes=await self._write_contents(archive, began))
            manifest = {
                "format": FORMAT,
                "version": FORMAT_VERSION,
                "jimsapi": version,
                "contact_id": self.contact_id,
                "exported_at": _utc(began),
                "without_files": self._files is None,
                "counts": msgspec.structs.asdict(counts),
            }
            with _part(archive, "manifest.json", began) as part:
                part.write(orjson.dumps(manifest, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
        return counts

    async def _threads_in_json(self) -> AsyncIterator[dict[str, Any]]:
        async for thread, summary in self.threads():
            yield thread_json(thread, summary)

    async def _events_in_json(self, *, check_files: bool) -> AsyncIterator[dict[str, Any]]:
        async for thread, _ in self.threads():
            async for event in all_events(self._store, thread.thread_id, self.contact_id):
                if check_files:
                    _check_for_files(event)
                yield _event(thread.thread_id, event)

    async def _feedback_in_json(self) -> AsyncIterator[dict[str, Any]]:
        async for thread, _ in self.threads():
            for given in await self._store.feedback(thread.thread_id, self.contact_id):
                yield _feedback(thread.thread_id, given)

    async def _files_in_json(self) -> AsyncIterator[dict[str, Any]]:
        async for file in self.files():
            yield _file(file)

    async def _usage_in_json(self) -> AsyncIterator[dict[str, Any]]:
        for one in await self.usage():
            yield {"day": one.day, "model": one.model, **msgspec.structs.asdict(one.total)}

    async def _write_contents(self, archive: ZipFile, began: datetime) -> int:
        """Write the contents of the files. Returns the number of their bytes."""
        written = 0
        async for file in self.files():
            assert self._files is not None  # otherwise there are none
            with _part(archive, _path(file), began) as part:
                async for piece in await self._files.read(file, 0, file.size):
                    part.write(piece)
            written += file.size
        return written


def _part(archive: ZipFile, name: str, time: datetime) -> IO[bytes]:
    """Begin a part of the archive. Its size is not known, and may exceed 4 GB."""
    info = ZipInfo(name, time.timetuple()[:6])
    info.compress_type = ZIP_DEFLATED
    info.external_attr = 0o600 << 16
    return archive.open(info, "w", force_zip64=True)


async def _write_lines(
    archive: ZipFile,
    name: str,
    time: datetime,
    values: AsyncIterator[dict[str, Any]],
    on_line: Callable[[], None] | None,
) -> int:
    """Write JSON values, one a line. Returns their number."""
    number = 0
    with _part(archive, f"{name}.jsonl", time) as part:
        async for value in values:
            part.write(orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE))
            number += 1
            if on_line is not None:
                on_line()
    return number


def _check_for_files(event: EventRecord) -> None:
    if event.event_type == MESSAGE_FILES:
        raise FilesLeftOut


def thread_json(thread: ThreadRecord, summary: ThreadSummary) -> dict[str, Any]:
    """Return the facts of a thread as they are exported."""
    facts = summary.facts
    return {
        "thread_id": thread.thread_id,
        "created_at": _utc(thread.created_at),
        "thread_config": stored_json(thread.thread_config),
        "title": facts.title,
        "archived_at": facts.archived_at and _utc(facts.archived_at),
        "metadata": stored_json(facts.metadata),
        "parent": facts.parent and {"thread_id": facts.parent.thread_id, "event_id": facts.parent.event_id},
    }


def _event(thread_id: UUID, event: EventRecord) -> dict[str, Any]:
    return {
        "thread_id": thread_id,
        "event_id": event.event_id,
        "created_at": _utc(event.created_at),
        "event_type": event.event_type,
        "event_data": None if event.event_data is None else stored_json(event.event_data),
    }


def _feedback(thread_id: UUID, given: Feedback) -> dict[str, Any]:
    return {
        "thread_id": thread_id,
        "event_id": given.event_id,
        "rating": given.rating.rating,
        "comment": given.rating.comment,
        "given_at": _utc(given.given_at),
    }


def _file(file: StoredFile) -> dict[str, Any]:
    return {
        "file_id": file.file_id,
        "name": file.name,
        "type": file.type,
        "size": file.size,
        "created_at": _utc(file.created_at),
        "path": _path(file),
    }


def _path(file: StoredFile) -> str:
    """Return the name of a file's content in the archive: its identifier, and the ending of its name if that is plain.

    A client has chosen the name. A name such as `../x` could make a program write outside of its folder.
    """
    suffix = splitext(file.name)[1]
    return f"files/{file.file_id}{suffix if _SUFFIX.fullmatch(suffix) else ''}"


def _utc(time: datetime) -> str:
    """Return a time with the zone UTC in the format of RFC 3339."""
    return time.isoformat(timespec="microseconds").replace("+00:00", "Z")
