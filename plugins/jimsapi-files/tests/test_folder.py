"""The folder of a file store: what is on the disk, and what a crash, another process or a fault of the disk leaves."""

import asyncio
import errno
import json
import os
import shutil
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from filing import kept, left
from jimsapi_files.disk import LEAST, Disk, Incoming
from jimsapi_files.folder import FolderStore, path_of

from jimsapi.threads import (
    FileQuotaExceeded,
    NewFile,
    StoredFile,
    StoredFileNotFound,
    StoreUnavailable,
    StoreUnusable,
)

pytestmark = pytest.mark.anyio

QUOTA = 100 * LEAST


@pytest.fixture
async def store(folder: Path) -> AsyncIterator[FolderStore]:
    async with FolderStore(folder) as store:
        yield store


def new_file(size: int | None = 5, name: str = "a", contact_id: str = "ann") -> NewFile:
    return NewFile(contact_id=contact_id, name=name, type="text/plain", size=size, limit=QUOTA)


async def content(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def put(store: FolderStore, data: bytes = b"hello", **options: Any) -> StoredFile:
    return await store.put(new_file(len(data), **options), content(data), QUOTA)


async def test_only_the_server_s_user_may_read_the_folder_and_no_path_has_a_client_s_text(
    folder: Path, store: FolderStore
) -> None:
    before = os.umask(0)
    try:
        file = await put(store, name="../../secret name", contact_id="../ann")
    finally:
        os.umask(before)
    for path in (folder, *folder.rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path
        assert set(path.name) <= set("0123456789abcdef") or path.name in (
            "files", "incoming", "removed", "key", "content", "about",
        )  # fmt: skip
    [path] = kept(folder)
    assert file.file_id == path.parent.parent.name + path.parent.name
    about = json.loads((path.parent / "about").read_bytes())
    assert (about["contact_id"], about["name"], about["type"], about["size"]) == (
        "../ann", "../../secret name", "text/plain", 5,
    )  # fmt: skip


async def test_an_identifier_says_nothing_to_who_does_not_have_the_key(tmp_path: Path) -> None:
    """Two folders give the same file of the same contact different identifiers."""
    found = []
    for name in ("one", "two"):
        async with FolderStore(tmp_path / name) as store:
            found.append((await put(store)).file_id)
    assert found[0][:32] != found[1][:32]
    assert found[0][32:] != found[1][32:]


async def test_a_start_removes_what_a_crash_has_left(folder: Path) -> None:
    async with FolderStore(folder) as store:
        file = await put(store)
    contact = file.file_id[:32]
    # The crash came before the content was created, while it was written, and after its description was written.
    for number, names in enumerate(([], ["content"], ["content", "about"])):
        unfinished = folder / "incoming" / f"{contact}-{number:032x}"
        unfinished.mkdir()
        for name in names:
            (unfinished / name).write_bytes(b"half")
    shutil.copytree(kept(folder)[0].parent, folder / "removed" / "deleted")
    async with FolderStore(folder) as store:
        assert left(folder) == []
        assert await store.find(file.file_id, "ann") == file


async def test_a_start_leaves_alone_what_another_process_receives(folder: Path, store: FolderStore) -> None:
    incoming = Incoming(store._disk, new_file(), QUOTA)
    incoming.begin()
    incoming.write(b"hel")
    async with FolderStore(folder):
        assert len(left(folder)) == 1
    incoming.write(b"lo")
    file = incoming.keep()
    incoming.discard()
    assert [path.read_bytes() for path in kept(folder)] == [b"hello"]
    assert await store.find(file.file_id, "ann") == file


async def test_what_another_process_receives_counts(folder: Path, store: FolderStore) -> None:
    incoming = Incoming(disk_of(folder), new_file(QUOTA - LEAST), QUOTA)
    incoming.begin()
    await put(store)
    with pytest.raises(FileQuotaExceeded):
        await put(store, name="b")
    incoming.discard()
    await put(store, name="b")


def disk_of(folder: Path) -> Disk:
    """The folder as another process has it."""
    other = Disk(folder)
    other.open()
    return other


@pytest.mark.parametrize("size", [5, None])
async def test_what_is_deleted_by_another_process_during_an_upload_is_gone(
    folder: Path, store: FolderStore, size: int | None
) -> None:
    incoming = Incoming(store._disk, new_file(size), QUOTA)
    incoming.begin()
    incoming.write(b"hello")
    disk_of(folder).delete_contact("ann")
    with pytest.raises(Exception, match="The contact was deleted"):
        incoming.keep()
    incoming.discard()
    assert (kept(folder), left(folder)) == ([], [])


async def test_calls_after_the_end_of_an_upload_do_nothing(folder: Path, store: FolderStore) -> None:
    """A thread may begin with a call when the task that waited for it has been cancelled."""
    incoming = Incoming(store._disk, new_file(), QUOTA)
    incoming.discard()
    incoming.begin()
    incoming.write(b"hello")
    with pytest.raises(Exception, match="The contact was deleted"):
        incoming.keep()
    incoming.discard()
    assert (kept(folder), left(folder)) == ([], [])


@pytest.mark.parametrize("processes", [1, 2])
async def test_two_uploads_that_begin_at_once_do_not_share_the_same_room(
    folder: Path, monkeypatch: pytest.MonkeyPatch, processes: int
) -> None:
    """Without a lock, both would meet at the barrier, and find the room of the other one free."""
    disks = [disk_of(folder) for _ in range(processes)] * 2
    uploads = [Incoming(disk, new_file(name=f"{number}"), LEAST) for number, disk in enumerate(disks[:2])]
    barrier, used = threading.Barrier(2), Disk.used

    def used_after_a_meeting(disk: Disk, contact: str) -> int:
        found = used(disk, contact)
        with suppress(threading.BrokenBarrierError):
            barrier.wait(0.3)
        return found

    monkeypatch.setattr(Disk, "used", used_after_a_meeting)
    begun = await asyncio.gather(*[asyncio.to_thread(one.begin) for one in uploads], return_exceptions=True)
    assert sorted(type(one).__name__ for one in begun) == ["FileQuotaExceeded", "NoneType"]
    for one in uploads:
        one.discard()


async def test_a_small_file_counts_as_one_of_64_kib(store: FolderStore) -> None:
    for number in range(3):
        await store.put(new_file(0, name=f"{number}"), content(), 3 * LEAST)
    with pytest.raises(FileQuotaExceeded):
        await store.put(new_file(0, name="d"), content(), 3 * LEAST)


async def test_a_missing_key_stops_the_start_if_there_are_files(folder: Path) -> None:
    async with FolderStore(folder) as store:
        await put(store)
    for damage, reason in ((lambda path: path.write_bytes(b"x"), "damaged"), (Path.unlink, "missing")):
        damage(folder / "key")
        with pytest.raises(StoreUnusable, match=f"key is {reason}, so the files beside it cannot be found; restore it"):
            async with FolderStore(folder):
                pass


def test_a_process_that_is_slower_to_create_the_key_uses_that_of_the_other(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slower, faster = Disk(folder), Disk(folder)
    link = os.link

    def link_later(*paths: Path) -> None:
        monkeypatch.undo()
        faster.open()
        link(*paths)

    monkeypatch.setattr(os, "link", link_later)
    slower.open()
    assert slower.contact("ann") == faster.contact("ann")
    assert left(folder) == []


async def test_a_damaged_description_is_a_fault_of_the_store(folder: Path, store: FolderStore) -> None:
    file = await put(store)
    (kept(folder)[0].parent / "about").write_bytes(b"{")
    with pytest.raises(StoreUnavailable, match="is damaged"):
        await store.find(file.file_id, "ann")


async def test_a_file_that_is_too_short_is_cut(folder: Path, store: FolderStore) -> None:
    file = await put(store)
    os.truncate(kept(folder)[0], 3)
    with pytest.raises(EOFError):
        _ = [piece async for piece in await store.read(file, 0, 5)]


async def test_links_are_not_followed(folder: Path, store: FolderStore, tmp_path: Path) -> None:
    file = await put(store)
    (tmp_path / "secret").write_bytes(b"secret")
    kept(folder)[0].unlink()
    (folder / "files" / file.file_id[:2] / file.file_id[:32] / file.file_id[32:] / "content").symlink_to(
        tmp_path / "secret"
    )
    with pytest.raises(StoreUnavailable):
        await store.read(file, 0, 5)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (errno.ENOSPC, "disk full"),
        (errno.EDQUOT, "disk full"),
        (errno.EIO, "disk error"),
        (errno.EMFILE, "too many open files"),
    ],
)
@pytest.mark.parametrize("call", ["mkdir", "open", "ftruncate", "write", "fsync", "rename"])
async def test_a_disk_that_fails_leaves_nothing_and_the_store_recovers(
    folder: Path, store: FolderStore, monkeypatch: pytest.MonkeyPatch, call: str, fault: int, reason: str
) -> None:
    file = await put(store)
    real = getattr(os, call)

    def failing(*arguments: Any, **named: Any) -> Any:
        if call != "open" or arguments[1] & os.O_CREAT:
            raise OSError(fault, os.strerror(fault))
        return real(*arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(os, call, failing)
        with pytest.raises(StoreUnavailable) as raised:
            await put(store, name="b")
    assert raised.value.reason == reason
    assert str(folder) in str(raised.value)
    assert (len(kept(folder)), left(folder)) == (1, [])
    assert (await put(store, name="b")).file_id != file.file_id


async def test_a_deletion_that_fails_can_be_repeated(
    folder: Path, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(store)

    def failing(*arguments: Any) -> None:
        raise OSError(errno.EIO, "I/O error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", failing)
        with pytest.raises(StoreUnavailable):
            await store.delete_contact("ann")
    assert len(kept(folder)) == 1
    await store.delete_contact("ann")
    assert (kept(folder), left(folder)) == ([], [])


async def test_uploads_and_deletions_of_many_processes_do_not_disturb_each_other(folder: Path) -> None:
    disks = [disk_of(folder) for _ in range(4)]

    def work(number: int) -> int:
        one, stored = disks[number % 4], 0
        for turn in range(20):
            incoming = Incoming(one, new_file(name=f"{turn % 3}"), 6 * LEAST)
            try:
                incoming.begin()
                incoming.write(b"hello")
                file = incoming.keep()
                stored += 1
                if turn % 2:
                    one.delete(file.file_id)
            except (FileQuotaExceeded, StoredFileNotFound):
                pass
            finally:
                incoming.discard()
        return stored

    counts = await asyncio.gather(*[asyncio.to_thread(work, number) for number in range(8)])
    assert sum(counts) > 0
    assert left(folder) == []
    assert len(kept(folder)) <= 3
    assert all(path.read_bytes() == b"hello" for path in kept(folder))


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("file:///srv/files", "/srv/files"),
        ("file:/srv/files", "/srv/files"),
        ("file:///srv/my%20files/", "/srv/my files"),
        ("file:////srv", "//srv"),
    ],
)
def test_a_url_names_a_folder(url: str, path: str) -> None:
    assert path_of(url) == Path(path)


@pytest.mark.parametrize(
    "url", ["file:", "file:x", "file://x/y", "file:///", "file://///", "file:///a?b", "file:///a%00b"]
)
def test_a_url_without_a_folder_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="give the whole path of a folder"):
        path_of(url)
