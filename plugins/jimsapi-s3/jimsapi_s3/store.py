"""A file store that keeps files in a bucket of S3: `--files-store s3://bucket/folder`."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Self, TypeVar, TypeVarTuple

from anyio import CancelScope, CapacityLimiter, to_thread

from jimsapi.threads import FilePage, NewFile, StoredFile, StoreUnavailable, StoreUnusable
from jimsapi_s3.bucket import Bucket
from jimsapi_s3.contact_files import ContactFiles
from jimsapi_s3.place import Place
from jimsapi_s3.preflight import keeps_deleted_files, prepare
from jimsapi_s3.upload import Upload

logger = logging.getLogger("jimsapi.s3")

PIECE = 1024 * 1024
"""Bytes that are read at once. Each piece is a request of its own, so a slow reader keeps no connection open."""
THREADS = 20
"""How many requests to the storage may wait for its answer at the same time."""
LOCKS = 64

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")


class S3Store:
    """A `FileStore` in a bucket. Several processes on any machines may use the bucket at the same time."""

    def __init__(self, place: Place) -> None:
        self.name = place.name
        self._bucket = Bucket(place)
        self._files = ContactFiles(self._bucket)

    async def __aenter__(self) -> Self:
        self._threads = CapacityLimiter(THREADS)
        # Uploads of one contact that begin at once would see each other, and refuse each other the same room.
        self._locks = [asyncio.Lock() for _ in range(LOCKS)]
        try:
            await self._call(prepare, self._bucket, self._files)
            if await self._call(keeps_deleted_files, self._bucket):
                logger.warning(
                    "the bucket of %s keeps old versions, so deleted files stay in it; give it a lifecycle rule that "
                    "expires noncurrent versions, or use a bucket without versioning",
                    self.name,
                )
        except StoreUnavailable as error:
            raise StoreUnusable(f"cannot open --files-store: {error}; {_way_out(error)}") from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bucket.close()

    async def put(self, new: NewFile, content: AsyncIterator[bytes], quota: int) -> StoredFile:
        upload = Upload(self._files, new, quota)
        try:
            async with self._locks[hash(new.contact_id) % LOCKS]:
                await self._call(upload.begin)
            async for piece in content:
                upload.add(piece)
                if upload.is_full:
                    await self._call(upload.send)
            return await self._call(upload.keep)
        finally:
            with CancelScope(shield=True):
                await self._call(upload.discard)

    async def find(self, file_id: str, acting_for: str | None) -> StoredFile:
        return await self._call(self._files.find, file_id, acting_for)

    async def read(self, file: StoredFile, begin: int, end: int) -> AsyncIterator[bytes]:
        first = await self._call(self._files.read, file.file_id, begin, min(begin + PIECE, end))
        return self._read(file.file_id, first, begin, end)

    async def files(self, contact_id: str, limit: int, after: str | None) -> FilePage:
        return await self._call(self._files.page, contact_id, limit, after)

    async def delete(self, file: StoredFile) -> None:
        await self._call(self._files.delete, file.file_id)

    async def delete_contact(self, contact_id: str) -> None:
        await self._call(self._files.delete_contact, contact_id)

    async def _read(self, file_id: str, piece: bytes, begin: int, end: int) -> AsyncIterator[bytes]:
        """Yield the bytes from `begin` to before `end`. `piece` has the first of them."""
        while begin < end:
            if not piece:
                raise EOFError("a stored file is shorter than its description says")
            yield piece
            begin += len(piece)
            piece = await self._call(self._files.read, file_id, begin, min(begin + PIECE, end))

    async def _call(self, function: Callable[[*Arguments], T], *arguments: *Arguments) -> T:
        """Call a function that blocks, in a thread."""
        return await to_thread.run_sync(function, *arguments, limiter=self._threads)


def _way_out(error: StoreUnavailable) -> str:
    """Return what the operator can do if the store cannot be opened."""
    return {
        "no answer": "check --s3-endpoint and --s3-region, and that this machine reaches the storage",
        "no credentials": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the machine a role",
        "access denied": "check the credentials, and that they allow what the plugin's README lists",
        "the bucket is missing": "create the bucket, or correct its name in --files-store",
    }.get(error.reason, "check --files-store, --s3-endpoint and --s3-region")
