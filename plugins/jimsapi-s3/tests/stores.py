"""Stores on a bucket of the tests, and files for them."""

from collections.abc import AsyncIterator
from typing import Any

from jimsapi_s3.bucket import Bucket
from jimsapi_s3.contact_files import ContactFiles
from jimsapi_s3.place import Place
from jimsapi_s3.store import S3Store
from jimsapi_s3.upload import Upload
from seaweed import Seaweed

from jimsapi.threads import NewFile, StoredFile

MIB = 1_048_576
QUOTA = 100 * MIB


def place(storage: Seaweed, bucket: str, folder: str = "") -> Place:
    return Place(bucket, folder, storage.url, None, False)


def store_at(storage: Seaweed, bucket: str, folder: str = "") -> S3Store:
    """A store that is not open yet."""
    return S3Store(place(storage, bucket, folder))


def files_at(storage: Seaweed, bucket: str) -> ContactFiles:
    """The files of a bucket, as another process has them."""
    files = ContactFiles(Bucket(place(storage, bucket)))
    files.bucket.open()
    files.open()
    return files


def new_file(size: int | None = 5, name: str = "a", contact_id: str = "ann", limit: int = QUOTA) -> NewFile:
    return NewFile(contact_id=contact_id, name=name, type="text/plain", size=size, limit=limit)


async def content(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def put(store: S3Store, data: bytes = b"hello", quota: int = QUOTA, **options: Any) -> StoredFile:
    return await store.put(new_file(len(data), **options), content(data), quota)


async def read(store: S3Store, file: StoredFile) -> bytes:
    return b"".join([piece async for piece in await store.read(file, 0, file.size)])


def begun(files: ContactFiles, size: int, quota: int = QUOTA, **options: Any) -> Upload:
    """An upload of another process that has sent `size` bytes and goes on."""
    upload = Upload(files, new_file(size + 1, **options), quota)
    upload.begin()
    upload.add(b"x" * size)
    upload.send()
    return upload
