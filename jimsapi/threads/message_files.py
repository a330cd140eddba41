"""The files of messages: what the thread holds of them, and how a pipeline reads them."""

import asyncio
import mimetypes
import shutil
import tempfile
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol
from uuid import UUID

import msgspec

from jimsapi.threads.errors import ContactDeleted, FileQuotaExceeded, InputRefused, StoredFileNotFound
from jimsapi.threads.event import EventRow, NewEvent
from jimsapi.threads.file_store import StoredFile
from jimsapi.threads.questions import decode_data

MESSAGE_FILES = "message.files"
"""`{"message_id", "files": [{"file_id", "name", "type", "size"}]}`: the files of a message, beside it."""

MAX_FILES = 100
"""The most files that one message may have."""
OCTETS = "application/octet-stream"

InLoop = Callable[[Coroutine[Any, Any, Any]], Any]
"""Runs a coroutine in the event loop of a run. Returns an awaitable, or in a plain function the result."""


class FileFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the thread holds of a file."""

    file_id: str
    name: str
    type: str
    size: int


class SentFile(msgspec.Struct, frozen=True):
    """A file that came within a message. `name` and `type` are the client's words; `name` may be empty."""

    name: str
    type: str
    content: bytes


class FilesOfMessage(msgspec.Struct, frozen=True):
    """The data of an event `message.files`."""

    message_id: UUID
    files: list[FileFacts]


class FileRefused(Exception):
    """A file of a pipeline was not saved. The text says why, and `kind` is a stable identifier of the reason.

    `kind` is `files_off` (the server stores no files), `no_contact` (the thread belongs to nobody), `invalid_name`,
    `invalid_type`, `too_large`, `quota_exceeded`, `contact_deleted`, or another one of the plugin that stores files.
    """

    def __init__(self, name: str, kind: str, reason: str) -> None:
        super().__init__(f"the file {name!r} was not saved: {reason}")
        self.kind = kind


class FileReader(Protocol):
    """Reads files. Every `FileStore` does."""

    async def find(self, file_id: str, acting_for: str | None) -> StoredFile: ...

    async def read(self, file: StoredFile, begin: int, end: int) -> AsyncIterator[bytes]: ...


class FileKeeper(Protocol):
    """Stores the files of pipelines. `store` reads what was stored."""

    @property
    def store(self) -> FileReader: ...

    def check(self, file: SentFile) -> SentFile:
        """Return a file with its name and type as they are stored. Raises `InputRefused` if it is not accepted."""

    async def keep(self, contact_id: str, file: SentFile) -> StoredFile:
        """Store a file that `check` has returned. Raises as `FileStore.put` does."""


class MessageFile:
    """A file of a message, as a pipeline has it.

    `name` and `type` (a media type) are the words of who sent it, and `size` is in bytes. In a plain `def` pipeline,
    `read` and `data_url` return their value without `await`.

    Reading raises `StoredFileNotFound` if the file was deleted, `StoreUnavailable`, and `RuntimeError` if the process
    has no file store.
    """

    def __init__(self, facts: FileFacts, reader: FileReader | None, contact_id: str | None, in_loop: InLoop) -> None:
        self.file_id = facts.file_id
        self.name = facts.name
        self.type = facts.type
        self.size = facts.size
        self._reader = reader
        self._contact_id = contact_id
        self._in_loop = in_loop

    def __repr__(self) -> str:
        return f"MessageFile({self.file_id!r}, name={self.name!r}, type={self.type!r}, size={self.size})"

    def belongs_to(self, contact_id: str | None) -> bool:
        """Return whether the file is one of a contact."""
        return self._contact_id == contact_id

    @property
    def facts(self) -> FileFacts:
        """What the thread holds of the file."""
        return FileFacts(file_id=self.file_id, name=self.name, type=self.type, size=self.size)

    def read(self) -> Any:
        """Return the content as `bytes`: `content = await file.read()`."""
        return self._in_loop(self._read())

    def data_url(self) -> Any:
        """Return the content as a `data:` URL (RFC 2397), which the APIs of models accept for images and documents."""
        return self._in_loop(self._data_url())

    def copy(self) -> "FileCopy":
        """Return a context, for `with` or `async with`, that has the path of a copy of the file:

            async with file.copy() as path:
                text = await asyncio.to_thread(extract, path)

        The path ends as the name of the file does, and the copy is removed at the end.
        """
        return FileCopy(Path(self.name).suffix, self._copy_to, self._in_loop)

    async def _read(self) -> bytes:
        return b"".join([piece async for piece in await self._open()])

    async def _data_url(self) -> str:
        return f"data:{self.type};base64,{b64encode(await self._read()).decode()}"

    async def _copy_to(self, path: Path) -> None:
        with path.open("wb") as file:
            async for piece in await self._open():
                await asyncio.to_thread(file.write, piece)

    async def _open(self) -> AsyncIterator[bytes]:
        if self._reader is None:
            raise RuntimeError("this process has no file store, so the pipeline cannot read files")
        file = await self._reader.find(self.file_id, self._contact_id)
        return await self._reader.read(file, 0, file.size)


class FileCopy:
    """A copy of a file in a temporary folder, from the beginning of a `with` block to its end."""

    def __init__(self, suffix: str, copy_to: Callable[[Path], Coroutine[Any, Any, None]], in_loop: InLoop) -> None:
        self._suffix = suffix if suffix.isascii() and len(suffix) < 20 and "/" not in suffix else ""
        self._copy_to = copy_to
        self._in_loop = in_loop
        self._folder: Path | None = None

    def __enter__(self) -> Path:
        path = self._make_path()
        try:
            copied = self._in_loop(self._copy_to(path))
            if copied is not None:
                copied.close()
                raise TypeError("in an async function, use `async with file.copy()`")
        except BaseException:
            self._remove()
            raise
        return path

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    async def __aenter__(self) -> Path:
        path = self._make_path()
        try:
            await self._in_loop(self._copy_to(path))
        except BaseException:
            self._remove()
            raise
        return path

    async def __aexit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self._remove)

    def _make_path(self) -> Path:
        self._folder = Path(tempfile.mkdtemp(prefix="jimsapi-file-"))
        return self._folder / f"file{self._suffix}"

    def _remove(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def _unchanged(file: SentFile) -> SentFile:
    return file


class FilesInMemory:
    """A `FileReader` and `FileKeeper` of files that no store has.

    It is for runs outside of threads, for replays, and for contexts that a test makes. `check` is that of the server,
    and `others` reads the files that are not here.
    """

    def __init__(
        self,
        sent: Iterable[SentFile],
        contact_id: str,
        check: Callable[[SentFile], SentFile] = _unchanged,
        others: FileReader | None = None,
    ) -> None:
        self.check = check
        self._others = others
        self._contents: dict[str, tuple[StoredFile, bytes]] = {}
        for file in sent:
            self._add(contact_id, file)

    @property
    def files(self) -> list[StoredFile]:
        """The files, in their order."""
        return [file for file, _ in self._contents.values()]

    @property
    def store(self) -> "FilesInMemory":
        """This object: it reads what it keeps."""
        return self

    async def keep(self, contact_id: str, file: SentFile) -> StoredFile:
        """Keep a file, once if it is repeated, and return what is known of it."""
        for stored, content in self._contents.values():
            if (stored.name, stored.type, content) == (file.name, file.type, file.content):
                return stored
        return self._add(contact_id, file)

    def _add(self, contact_id: str, file: SentFile) -> StoredFile:
        stored = StoredFile(
            file_id=f"file-{len(self._contents) + 1}",
            contact_id=contact_id,
            name=file.name,
            type=file.type,
            size=len(file.content),
            created_at=datetime.now(UTC),
        )
        self._contents[stored.file_id] = stored, file.content
        return stored

    async def find(self, file_id: str, acting_for: str | None) -> StoredFile:
        """Return a file. Raises `StoredFileNotFound`."""
        if file_id in self._contents:
            return self._contents[file_id][0]
        if self._others is None:
            raise StoredFileNotFound
        return await self._others.find(file_id, acting_for)

    async def read(self, file: StoredFile, begin: int, end: int) -> AsyncIterator[bytes]:
        """Return an iterator over the bytes of a file."""
        if file.file_id not in self._contents and self._others is not None:
            return await self._others.read(file, begin, end)
        return _one_piece(self._contents[file.file_id][1][begin:end])


def sent_file(name: str, content: bytes) -> SentFile:
    """Return a file whose type is that of the ending of its name."""
    return SentFile(name, mimetypes.guess_type(name)[0] or OCTETS, content)


async def keep_file(keeper: FileKeeper | None, contact_id: str | None, file: SentFile) -> FileFacts:
    """Store a file of a pipeline for the contact of its thread. Raises `FileRefused` and `StoreUnavailable`."""
    if keeper is None:
        reason = "this server stores no files; its operator has to set --files-store of the plugin jimsapi-files"
        raise FileRefused(file.name, "files_off", reason)
    if contact_id is None:
        raise FileRefused(file.name, "no_contact", "the thread belongs to no contact, and each file needs one")
    try:
        stored = await keeper.keep(contact_id, keeper.check(file))
    except InputRefused as error:
        raise FileRefused(file.name, error.kind, error.message) from error
    except FileQuotaExceeded as error:
        raise FileRefused(file.name, "quota_exceeded", str(error)) from error
    except ContactDeleted as error:
        raise FileRefused(file.name, "contact_deleted", str(error)) from error
    return FileFacts(file_id=stored.file_id, name=stored.name, type=stored.type, size=stored.size)


async def _one_piece(content: bytes) -> AsyncIterator[bytes]:
    yield content


def files_data(files: Iterable[StoredFile | FileFacts]) -> dict[str, Any]:
    """Return the data of an event `message.files`, without the message."""
    return {"files": [{"file_id": f.file_id, "name": f.name, "type": f.type, "size": f.size} for f in files]}


def files_by_message(events: Iterable[NewEvent | EventRow]) -> dict[UUID, list[FileFacts]]:
    """Return the files of those messages that have some, by the identifiers of the messages."""
    found = [data for event in events if (data := decode_files(event)) is not None]
    return {data.message_id: data.files for data in found}


def decode_files(event: NewEvent | EventRow) -> FilesOfMessage | None:
    """Return the data of an event `message.files`; None for other events."""
    return decode_data(event, FilesOfMessage) if event.event_type == MESSAGE_FILES else None
