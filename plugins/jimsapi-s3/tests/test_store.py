"""The file store on a real storage: parts, other processes, crashes, and requests whose answer is lost."""

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import anyio
import pytest
from jimsapi_s3 import contact_files
from jimsapi_s3.bucket import Bucket, Missing
from jimsapi_s3.contact_files import KEY, LEAST
from jimsapi_s3.store import S3Store
from jimsapi_s3.upload import PART, Upload
from seaweed import Seaweed
from stores import MIB, QUOTA, begun, content, files_at, new_file, put, read, store_at

from jimsapi.threads import (
    ContactDeleted,
    FileQuotaExceeded,
    StoredFileNotFound,
    StoreUnavailable,
    StoreUnusable,
)
from tests.waiting import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture
async def store(storage: Seaweed, bucket: str) -> AsyncIterator[S3Store]:
    async with store_at(storage, bucket) as store:
        yield store


# Parts


@pytest.mark.parametrize("size", [PART - 1, PART, PART + 1, 2 * PART, 2 * PART + 7])
@pytest.mark.parametrize("known", [True, False])
async def test_a_file_of_several_parts_is_whole(store: S3Store, size: int, known: bool) -> None:
    data = (bytes(range(251)) * (size // 251 + 1))[:size]
    pieces = [data[begin : begin + 99_991] for begin in range(0, size, 99_991)]
    file = await store.put(new_file(size if known else None), content(*pieces), QUOTA)
    assert file.size == size
    assert await read(store, file) == data


async def test_an_upload_that_is_cancelled_between_its_parts_leaves_no_parts(
    storage: Seaweed, bucket: str, store: S3Store
) -> None:
    sent = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(13):
            yield b"x" * MIB
        sent.set()
        await anyio.sleep_forever()

    putting = asyncio.create_task(store.put(new_file(20 * MIB), pieces(), QUOTA))
    await sent.wait()
    assert len(storage.left(bucket)) == 2, "an empty description, and parts"
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting
    assert (storage.left(bucket), storage.contents(bucket)) == ([], [])


# Other processes


@pytest.mark.parametrize("size", [5, 6 * MIB])
async def test_a_contact_that_another_process_deletes_during_an_upload_keeps_nothing(
    storage: Seaweed, bucket: str, store: S3Store, size: int
) -> None:
    upload = begun(files_at(storage, bucket), size)
    await store.delete_contact("ann")
    upload.add(b"y")
    with pytest.raises(ContactDeleted):
        upload.keep()
    upload.discard()
    assert storage.keys(bucket) == [KEY]
    assert storage.left(bucket) == []


async def test_parts_that_are_sent_after_the_contact_was_deleted_are_refused(
    storage: Seaweed, bucket: str, store: S3Store
) -> None:
    upload = begun(files_at(storage, bucket), 6 * MIB, limit=QUOTA)
    await store.delete_contact("ann")
    upload._reserved = QUOTA
    upload.add(b"x" * 6 * MIB)
    with pytest.raises(ContactDeleted):
        upload.send()
    upload.discard()
    assert storage.left(bucket) == []


async def test_what_another_process_receives_counts(storage: Seaweed, bucket: str, store: S3Store) -> None:
    upload = begun(files_at(storage, bucket), 3 * MIB, quota=4 * MIB)
    with pytest.raises(FileQuotaExceeded):
        await put(store, b"y" * 2 * MIB, quota=4 * MIB)
    upload.discard()
    await put(store, b"y" * 2 * MIB, quota=4 * MIB)


async def test_uploads_of_two_processes_that_begin_at_once_do_not_exceed_the_quota(
    storage: Seaweed, bucket: str
) -> None:
    """Both may be refused, but never both accepted."""
    processes = [files_at(storage, bucket) for _ in range(2)]
    for turn in range(10):
        uploads = [Upload(files, new_file(LEAST, contact_id=f"{turn}"), LEAST) for files in processes]
        results = await asyncio.gather(*[asyncio.to_thread(one.begin) for one in uploads], return_exceptions=True)
        assert results.count(None) <= 1, results


async def test_many_processes_that_start_at_once_agree_on_one_key(storage: Seaweed, bucket: str) -> None:
    stores = [store_at(storage, bucket) for _ in range(6)]
    await asyncio.gather(*[store.__aenter__() for store in stores])
    assert len({store._files.contact("ann") for store in stores}) == 1
    for store in stores:
        await store.__aexit__(None, None, None)


async def test_two_folders_of_a_bucket_are_apart(storage: Seaweed, bucket: str) -> None:
    async with store_at(storage, bucket, "one/") as one, store_at(storage, bucket, "other/") as other:
        file = await put(one)
        with pytest.raises(StoredFileNotFound):
            await other.find(file.file_id, None)
        await other.delete_contact("ann")
        assert await read(one, file) == b"hello"


async def test_no_key_has_a_text_of_a_client(storage: Seaweed, bucket: str, store: S3Store) -> None:
    await put(store, name="secret-name", contact_id="../ann-secret")
    keys = storage.keys(bucket)
    assert len(keys) == 4
    assert not any("secret" in key or "ann" in key or ".." in key for key in keys)


async def test_a_small_file_counts_as_one_of_64_kib(store: S3Store) -> None:
    for number in range(3):
        await put(store, b"", name=f"{number}", quota=3 * LEAST)
    with pytest.raises(FileQuotaExceeded):
        await put(store, b"", name="d", quota=3 * LEAST)


async def test_a_page_leaves_out_what_is_being_received(storage: Seaweed, bucket: str, store: S3Store) -> None:
    upload = begun(files_at(storage, bucket), 5)
    names = {(await put(store, name=f"{number}")).name for number in range(5)}
    found, after = set(), None
    while True:
        page = await store.files("ann", 2, after)
        found |= {file.name for file in page.files}
        after = page.next
        if after is None:
            break
    assert found == names
    upload.discard()


# Crashes


@pytest.mark.parametrize("size", [5, 6 * MIB])
@pytest.mark.parametrize("content_is_there", [True, False])
async def test_an_upload_that_a_crash_has_left_counts_until_it_is_abandoned_and_is_removed_then(
    storage: Seaweed,
    bucket: str,
    store: S3Store,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
    content_is_there: bool,
) -> None:
    upload = begun(files_at(storage, bucket), size)
    if content_is_there:
        upload._complete_content()
    assert (await store.files("ann", 10, None)).files == []
    with pytest.raises(FileQuotaExceeded):
        await put(store, quota=max(size, LEAST) + LEAST - 1)
    monkeypatch.setattr(contact_files, "ABANDONED_AFTER", timedelta(days=-1))
    await put(store, quota=LEAST)
    assert storage.left(bucket) == []
    assert len(storage.contents(bucket)) == 1
    with pytest.raises(ContactDeleted):
        upload.keep()


async def test_an_upload_that_is_complete_before_it_is_removed_as_abandoned_stays(
    storage: Seaweed, bucket: str, store: S3Store
) -> None:
    files = files_at(storage, bucket)
    upload = begun(files, 5)
    tag = upload._tag
    file = upload.keep()
    files.remove_abandoned(file.file_id, tag)
    assert await read(store, file) == b"xxxxx"


async def test_an_upload_that_goes_on_renews_its_description(storage: Seaweed, bucket: str) -> None:
    upload = begun(files_at(storage, bucket), 5)
    before = stored_at(storage, bucket)

    def is_renewed() -> bool:
        upload._renewed_at -= 100
        assert upload.is_full
        upload.send()
        return stored_at(storage, bucket) > before

    eventually(is_renewed)  # the storage's clock has seconds
    upload.discard()


def stored_at(storage: Seaweed, bucket: str) -> datetime:
    """When the only description in a bucket was stored, by the storage's clock."""
    found = storage.client.list_objects_v2(Bucket=bucket)["Contents"]
    [about] = [item for item in found if "/about/" in item["Key"]]
    stored: datetime = about["LastModified"]
    return stored


async def test_a_content_without_a_description_is_removed_by_the_next_upload(
    storage: Seaweed, bucket: str, store: S3Store
) -> None:
    file = await put(store)
    [about] = [key for key in storage.keys(bucket) if "/about/" in key]
    storage.client.delete_object(Bucket=bucket, Key=about)
    await put(store, b"other")
    assert storage.left(bucket) == []
    with pytest.raises(StoredFileNotFound):
        await store.find(file.file_id, None)


async def test_a_storage_whose_entity_tags_are_no_digests_keeps_files(
    storage: Seaweed, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bucket that encrypts with keys of its own has such tags. Here, an empty description has one byte."""
    put_object = Bucket.put

    def put_more(self: Bucket, key: str, data: bytes) -> str:
        return put_object(self, key, data or b" ")

    monkeypatch.setattr(Bucket, "put", put_more)
    upload = begun(files_at(storage, bucket), 5)
    monkeypatch.setattr(Bucket, "put", put_object)
    upload._renewed_at -= 100
    upload.send()
    async with store_at(storage, bucket) as store:
        assert await read(store, upload.keep()) == b"xxxxx"


@pytest.mark.parametrize("failing", ["/same/", "/content/", "/about/"])
async def test_a_deletion_that_fails_can_be_repeated(
    storage: Seaweed, bucket: str, store: S3Store, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    file = await put(store)
    delete = Bucket.delete

    def fails(self: Bucket, keys: Any) -> None:
        keys = list(keys)
        if any(failing in key for key in keys):
            raise StoreUnavailable("down", "no answer")
        delete(self, keys)

    with monkeypatch.context() as patched:
        patched.setattr(Bucket, "delete", fails)
        with pytest.raises(StoreUnavailable):
            await store.delete(file)
    assert await put(store) != file or failing == "/same/"
    await store.delete(file)
    with pytest.raises(StoredFileNotFound):
        await store.find(file.file_id, None)


# Requests that were repeated because the answer to the first one was lost


@pytest.mark.parametrize("method", ["replace", "join_parts", "put_part", "put"])
async def test_a_request_that_is_sent_twice_stores_the_file_once(
    storage: Seaweed, bucket: str, store: S3Store, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    send = getattr(Bucket, method)

    def twice(self: Bucket, *arguments: Any) -> Any:
        send(self, *arguments)
        return send(self, *arguments)

    monkeypatch.setattr(Bucket, method, twice)
    file = await put(store, b"y" * 6 * MIB)
    assert await read(store, file) == b"y" * 6 * MIB
    assert storage.left(bucket) == []


async def test_parts_that_were_joined_before_the_answer_was_lost_are_whole(
    storage: Seaweed, bucket: str, store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some storages do not know an upload any more when the request that completes it is repeated."""
    join = Bucket.join_parts

    def join_and_forget(self: Bucket, key: str, upload: str, tags: list[str]) -> None:
        join(self, key, upload, tags)
        raise Missing

    monkeypatch.setattr(Bucket, "join_parts", join_and_forget)
    file = await put(store, b"y" * 6 * MIB)
    assert await read(store, file) == b"y" * 6 * MIB


# The start


async def test_a_missing_key_stops_the_start_if_there_are_files(storage: Seaweed, bucket: str, store: S3Store) -> None:
    await put(store)
    storage.client.put_object(Bucket=bucket, Key=KEY, Body=b"x")
    with pytest.raises(StoreUnusable, match="key is damaged, so the files beside it cannot be found; restore it"):
        await opened(store_at(storage, bucket))
    storage.client.delete_object(Bucket=bucket, Key=KEY)
    with pytest.raises(StoreUnusable, match="key is missing, so the files beside it cannot be found; restore it"):
        await opened(store_at(storage, bucket))


@pytest.mark.parametrize("method", ["create", "replace"])
async def test_a_storage_that_ignores_conditions_is_refused(
    storage: Seaweed, bucket: str, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    await opened(store_at(storage, bucket))
    monkeypatch.setattr(Bucket, method, lambda self, key, *more: self.put(key, more[-1]))
    with pytest.raises(StoreUnusable, match="supports conditional writes"):
        await opened(store_at(storage, bucket))
    monkeypatch.undo()


async def test_a_bucket_that_keeps_old_versions_is_reported(
    storage: Seaweed, bucket: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "jimsapi.s3"):
        await opened(store_at(storage, bucket))
        assert caplog.messages == []
        storage.client.put_bucket_versioning(
            Bucket=(versioned := storage.new_bucket("versioned")), VersioningConfiguration={"Status": "Enabled"}
        )
        await opened(store_at(storage, versioned))
    [message] = caplog.messages
    assert message.startswith(f"the bucket of s3://{versioned}/ keeps old versions, so deleted files stay in it")


async def opened(store: S3Store) -> None:
    """Open and close a store."""
    async with store:
        pass
