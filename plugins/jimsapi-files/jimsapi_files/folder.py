"""A file store that keeps files in a folder of the server's disk: `--files-store file:///folder`."""

import errno
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, TypeVar, TypeVarTuple
from urllib.parse import unquote

import msgspec
from anyio import CancelScope, CapacityLimiter, to_thread

from jimsapi.threads import FilePage, NewFile, StoredFile, StoreUnavailable, StoreUnusable
from jimsapi_files.disk import Disk, Incoming

PIECE = 262_144
"""Bytes that are written or read at once."""
THREADS = 20
"""How many threads may read and write at once."""

_REASONS = {
    errno.ENOSPC: "disk full",
    errno.EDQUOT: "disk full",
    errno.EROFS: "read-only",
    errno.EMFILE: "too many open files",
    errno.ENFILE: "too many open files",
}
"""The public reasons of errors; any other error is a "disk error"."""

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")


def path_of(url: str) -> Path:
    """Return the folder that a URL `file:///folder` names. Raises `ValueError` if it names none."""
    path = unquote(url.removeprefix("file:").removeprefix("//"))
    if not path.startswith("/") or not path.strip("/") or any(mark in path for mark in "?#\0"):
        raise ValueError("give the whole path of a folder, for example file:///var/lib/jimsapi/files")
    return Path(path)


class FolderStore:
    """A `FileStore` in a folder. Several processes on one machine may use the folder at the same time."""

    def __init__(self, path: Path) -> None:
        self.name = f"file://{path}"
        self._disk = Disk(path)

    def preflight(self) -> str | None:
        """Return what opening the folder would create; None if a server has used it. It changes nothing."""
        return f"no server has used the folder of --files-store, {self.name}" if self._disk.is_unused() else None

    async def __aenter__(self) -> Self:
        self._threads = CapacityLimiter(THREADS)
        try:
            await to_thread.run_sync(self._disk.open, limiter=self._threads)
        except OSError as error:
            raise StoreUnusable(
                f"cannot open the folder of --files-store, {self.name}: {error.strerror}: {error.filename}; create the "
                "folder above it, and let the server's user write to it"
            ) from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Do nothing: each call closes what it has opened."""

    async def put(self, new: NewFile, content: AsyncIterator[bytes], quota: int) -> StoredFile:
        incoming = Incoming(self._disk, new, quota)
        try:
            await self._call(incoming.begin)
            await self._receive(incoming, content)
            return await self._call(incoming.keep)
        finally:
            with CancelScope(shield=True):
                await self._call(incoming.discard)

    async def find(self, file_id: str, acting_for: str | None) -> StoredFile:
        return await self._call(self._disk.find, file_id, acting_for)

    async def read(self, file: StoredFile, begin: int, end: int) -> AsyncIterator[bytes]:
        return self._read(await self._call(self._disk.content, file.file_id, begin), end - begin)

    async def files(self, contact_id: str, limit: int, after: str | None) -> FilePage:
        return await self._call(self._disk.page, contact_id, limit, after)

    async def delete(self, file: StoredFile) -> None:
        await self._call(self._disk.delete, file.file_id)

    async def delete_contact(self, contact_id: str) -> None:
        await self._call(self._disk.delete_contact, contact_id)

    async def _receive(self, incoming: Incoming, content: AsyncIterator[bytes]) -> None:
        """Write the content in pieces of `PIECE` bytes or a little more, so that few of them need a thread."""
        gathered = bytearray()
        async for chunk in content:
            gathered += chunk
            if len(gathered) >= PIECE:
                await self._call(incoming.write, bytes(gathered))
                gathered.clear()
        if gathered:
            await self._call(incoming.write, bytes(gathered))

    async def _read(self, file: BinaryIO, length: int) -> AsyncIterator[bytes]:
        """Yield the next `length` bytes of a file, and close it."""
        with file:
            while length:
                piece = await self._call(file.read, min(PIECE, length))
                if not piece:
                    raise EOFError("a stored file is shorter than its description says")
                length -= len(piece)
                yield piece

    async def _call(self, function: Callable[[*Arguments], T], *arguments: *Arguments) -> T:
        """Call a function that blocks, in a thread. Raises `StoreUnavailable` if the disk fails."""
        try:
            return await to_thread.run_sync(function, *arguments, limiter=self._threads)
        except OSError as error:
            reason = _REASONS.get(error.errno or 0, "disk error")
            raise StoreUnavailable(f"the file store {self.name}: {error}", reason) from error
        except msgspec.MsgspecError as error:
            raise StoreUnavailable(f"the file store {self.name} is damaged: {error}", "disk error") from error
