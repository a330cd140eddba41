"""The files that inbound messages name."""

from jimsapi.runs.inbound import Inbound
from jimsapi.threads.errors import InputRefused, StoredFileNotFound
from jimsapi.threads.file_store import FileStore, StoredFile

MAX_FILES = 100
"""The most files that one message may have."""


async def find_files(inbound: Inbound, store: FileStore | None) -> list[StoredFile]:
    """Return the files that a message names, each once.

    Raises:
        InputRefused: the server stores no files, the message has too many, or its contact has no such file.
        StoreUnavailable: the file store is not available.
    """
    named = dict.fromkeys(inbound.files or ())
    if not named:
        return []
    if store is None:
        message = "This server stores no files: its operator has to set --files-store of the plugin jimsapi-files"
        raise InputRefused("files", "files_off", message, None)
    if len(named) > MAX_FILES:
        raise InputRefused("files", "too_long", f"A message may have at most {MAX_FILES} files", None)
    return [await _find(store, file_id, inbound.contact_id) for file_id in named]


async def _find(store: FileStore, file_id: str, contact_id: str) -> StoredFile:
    try:
        return await store.find(file_id, contact_id)
    except StoredFileNotFound:
        raise InputRefused("files", "file_not_found", "The contact has no such file", file_id[:200]) from None
