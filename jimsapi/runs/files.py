"""The files of messages: those that an inbound message names, those that come within it, and those of pipelines."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Protocol
from uuid import UUID

from jimsapi.runs.inbound import Inbound
from jimsapi.runs.tasks import ServiceTask
from jimsapi.threads.errors import (
    ContactDeleted,
    InputRefused,
    StoredFileNotFound,
    StoreUnavailable,
    ThreadNotFound,
)
from jimsapi.threads.file_store import FileStore, StoredFile
from jimsapi.threads.message_files import MAX_FILES, FileKeeper, SentFile
from jimsapi.threads.store import ThreadStore

_keeping: set[asyncio.Task[StoredFile]] = set()


class MessageFiles(FileKeeper, Protocol):
    """The files of a server, as `RunService.use_files` gets them."""

    @property
    def store(self) -> FileStore:
        """The file store. It is open while the service works."""

    def check(self, file: SentFile) -> SentFile:
        """Return a file of a message, or of a pipeline, with its name and type as the server stores them.

        Raises `InputRefused` if the server does not accept it.
        """

    async def keep(self, contact_id: str, file: SentFile) -> StoredFile:
        """Store a file that `check` has returned. Raises as `FileStore.put` does."""


class FilesOfRun:
    """The `FileKeeper` of the pipeline of a run in a thread.

    The deletion of a contact deletes its files before its threads, and stops its runs last. So a pipeline may save a
    file after the deletion. Such a file is deleted again, because nobody would know of it.
    """

    def __init__(self, files: MessageFiles, threads: ThreadStore, thread_id: UUID) -> None:
        self._files = files
        self._threads = threads
        self._thread_id = thread_id
        self.check = files.check

    @property
    def store(self) -> FileStore:
        """The file store."""
        return self._files.store

    async def keep(self, contact_id: str, file: SentFile) -> StoredFile:
        """Store a file, unless the thread is deleted meanwhile. Raises as `FileStore.put` does."""
        keeping = self._keep(contact_id, file)
        task = ServiceTask.begin(keeping, loop=asyncio.get_running_loop(), name="jimsapi-keep-file")
        _keeping.add(task)  # a loop does not keep its tasks
        task.add_done_callback(_keeping.discard)
        return await asyncio.shield(task)  # a run that is stopped may have stored its file already

    async def _keep(self, contact_id: str, file: SentFile) -> StoredFile:
        began = datetime.now(UTC)
        stored = await self._files.keep(contact_id, file)
        try:
            await self._threads.thread(self._thread_id, None)
        except ThreadNotFound:
            if stored.created_at >= began:  # otherwise the contact has had it before
                with suppress(StoredFileNotFound):
                    await self._files.store.delete(stored)
            raise ContactDeleted from None
        except StoreUnavailable:  # then the contact cannot be deleted either
            pass
        return stored


async def find_files(inbound: Inbound, sent: Sequence[SentFile], files: MessageFiles | None) -> list[StoredFile]:
    """Return the files of a message: those that it names, each once, and those that came within it, which are stored.

    Raises:
        InputRefused: the server stores no files, the message has too many, its contact has no such file, or the server
            does not accept one of them.
        FileQuotaExceeded, ContactDeleted: a file cannot be stored.
        StoreUnavailable: the file store is not available.
    """
    named = dict.fromkeys(inbound.files or ())
    if not (named or sent):
        return []
    files = _required(files)
    if len(named) + len(sent) > MAX_FILES:
        raise _too_many()
    accepted = [files.check(file) for file in sent]
    try:
        found = [await _find(files.store, file_id, inbound.contact_id) for file_id in named]
        return [*found, *[await files.keep(inbound.contact_id, file) for file in accepted]]
    except StoreUnavailable as error:
        raise StoreUnavailable(str(error)) from error  # its `reason` would be that of the store of threads


def validate_files(sent: Sequence[SentFile], files: MessageFiles | None) -> list[SentFile]:
    """Return the files that came within a message that belongs to no thread. Raises `InputRefused` as `find_files`."""
    if len(sent) > MAX_FILES:
        raise _too_many()
    required = _required(files)
    return [required.check(file) for file in sent]


def _required(files: MessageFiles | None) -> MessageFiles:
    if files is None:
        message = "This server stores no files: its operator has to set --files-store of the plugin jimsapi-files"
        raise InputRefused("files", "files_off", message, None)
    return files


def _too_many() -> InputRefused:
    return InputRefused("files", "too_long", f"A message may have at most {MAX_FILES} files", None)


async def _find(store: FileStore, file_id: str, contact_id: str) -> StoredFile:
    try:
        return await store.find(file_id, contact_id)
    except StoredFileNotFound:
        raise InputRefused("files", "file_not_found", "The contact has no such file", file_id[:200]) from None
