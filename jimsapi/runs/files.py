"""The files of inbound messages: those that a message names, and those that come within it."""

from collections.abc import Sequence
from typing import Protocol

from jimsapi.runs.inbound import Inbound
from jimsapi.threads.errors import InputRefused, StoredFileNotFound
from jimsapi.threads.file_store import FileStore, StoredFile
from jimsapi.threads.message_files import MAX_FILES, FileKeeper, SentFile


class MessageFiles(FileKeeper, Protocol):
    """The files of a server, as `RunService.use_files` gets them."""

    @property
    def store(self) -> FileStore:
        """The file store. It is open while the service works."""
        ...

    def check(self, file: SentFile) -> SentFile:
        """Return a file of a message, or of a pipeline, with its name and type as the server stores them.

        Raises `InputRefused` if the server does not accept it.
        """
        ...

    async def keep(self, contact_id: str, file: SentFile) -> StoredFile:
        """Store a file that `check` has returned. Raises as `FileStore.put` does."""
        ...


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
    found = [await _find(files.store, file_id, inbound.contact_id) for file_id in named]
    return [*found, *[await files.keep(inbound.contact_id, file) for file in accepted]]


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
