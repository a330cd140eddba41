"""The protocol that every file store implements. `jimsapi.testing.FileStoreContract` tests a file store against it."""

from collections.abc import AsyncIterator
from datetime import datetime
from types import TracebackType
from typing import Protocol, Self

import msgspec


class NewFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that a client sends.

    `name` and `type` are the client's words: any text without control characters, and any media type. `size` is the
    number of bytes that the content has; None if that is not known before its end. `limit` is the largest number of
    bytes that it may have.
    """

    contact_id: str
    name: str
    type: str
    size: int | None
    limit: int


class StoredFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file of a contact. Its content never changes.

    `file_id` has 1 to 200 characters: letters, digits, `-` and `_`. `name` and `type` are those of the `NewFile`,
    `size` is in bytes, and `created_at` has the time zone UTC.
    """

    file_id: str
    contact_id: str
    name: str
    type: str
    size: int
    created_at: datetime


class FilePage(msgspec.Struct, frozen=True):
    """A page of a contact's files. `next` is the cursor of the next page, None if this page is the last."""

    files: list[StoredFile]
    next: str | None


class FileStore(Protocol):
    """Stores the files of contacts.

    A file store is an async context manager. Entering opens it, and raises `StoreUnusable` with the cause if that
    fails. Exiting closes it. Any method may raise `StoreUnavailable`.

    What a method has stored or deleted survives a crash of the process and of the machine. If the caller of `put` is
    cancelled before `content` ends, or if `content` raises, nothing of the file remains, and the exception is raised.

    - `name`: the kind and location of the store, for logs. It must not contain passwords.
    """

    name: str

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    async def put(self, new: NewFile, content: AsyncIterator[bytes], quota: int) -> StoredFile:
        """Store a file. `content` yields its bytes, of which the store keeps only some in memory.

        If the contact has a file with the same name, type and content already, the store returns that file, and stores
        nothing. The identifier of a file cannot be guessed by somebody who knows its contact, name and content.

        `quota` is the number of bytes that all files of the contact may have together. The store may count more than
        its size for a file. Concurrent calls cannot exceed the quota, because what they may store counts from their
        beginning.

        Raises:
            FileQuotaExceeded: the file does not fit. If `new.size` is known, the store raises this before it reads
                `content`.
            ContactDeleted: `delete_contact` was called while the file was stored.
        """

    async def find(self, file_id: str, acting_for: str | None) -> StoredFile:
        """Return a file. `file_id` is any text that a client has sent.

        Raises `StoredFileNotFound` if the file does not exist, or is not of the contact `acting_for` (None: any).
        """

    async def read(self, file: StoredFile, begin: int, end: int) -> AsyncIterator[bytes]:
        """Open a file, and return an iterator over its bytes from `begin` to before `end`.

        If the file is deleted while the iterator reads it, the iterator goes on or raises. Raises `StoredFileNotFound`
        if the file was deleted before.
        """

    async def files(self, contact_id: str, limit: int, after: str | None) -> FilePage:
        """Return a page of at most `limit` files of a contact, in an order of the store's choice.

        `after` is the cursor of the page; None for the first page. Raises `InvalidCursor`.
        """

    async def delete(self, file: StoredFile) -> None:
        """Delete a file. Raises `StoredFileNotFound` if it was deleted before."""

    async def delete_contact(self, contact_id: str) -> None:
        """Delete all files of a contact, if there are any. A concurrent `put` for this contact fails."""
