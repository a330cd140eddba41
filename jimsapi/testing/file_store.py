"""The contract of a file store, as tests. A file store that passes them keeps files whole, apart and within quotas."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

import anyio
import pytest

from jimsapi.builtin import builtin_plugins
from jimsapi.plugins.compose import build_file_store
from jimsapi.plugins.manager import PluginManager
from jimsapi.testing.contract import (
    DoesNotApply,
    PluginContract,
    cancel_in_mid_call,
    needs,
    nothing_left,
    resolved,
    within,
)
from jimsapi.threads.errors import ContactDeleted, FileQuotaExceeded, InvalidCursor, StoredFileNotFound
from jimsapi.threads.file_store import FileStore, NewFile, StoredFile

KIB = 1024
MIB = 1024 * KIB
QUOTA = 64 * MIB
"""Room for everything that a case stores, unless the case is about the quota."""


class FileStoreContract(PluginContract):
    """Derive a class from this one in a test module, and declare the plugin, its options, and the URL of a file store:

        class TestAttic(FileStoreContract):
            distribution = "jimsapi-attic"
            settings = {}
            url = "attic:"
            keeps = DoesNotApply("it forgets all files when it is closed")

    pytest then runs every case against the file store that the installed plugin builds for the URL. The place that it
    names must be empty at the start of each case, and every case may open it several times.

    The contract cannot test two requirements, so write tests for them: what the store has stored survives a crash; and
    when its place is unavailable, the store raises `StoreUnavailable`, and works again afterwards.
    """

    hook = "jimsapi_file_store"

    @cached_property
    def url(self) -> str:
        """The URL of an empty place for files, as an operator gives it."""
        raise self.undeclared("url", "the URL of an empty place for files")

    @cached_property
    def keeps(self) -> bool | DoesNotApply:
        """Whether the files are still there when the store is closed and opened again. The default is that they are."""
        return True

    # Helpers of the cases

    @pytest.fixture
    async def store(self) -> AsyncIterator[FileStore]:
        async with self.opened() as store:
            yield store

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[FileStore]:
        """Open the file store that the installed plugin builds for the URL."""
        plugins = PluginManager(builtin_plugins())
        self.implementations(plugins)
        built: Any = build_file_store(self.url, "--files-store", resolved(plugins, self.settings))
        context: AbstractAsyncContextManager[Any] = built
        async with context as entered:
            yield built if entered is None else entered

    # Content

    async def test_a_file_is_found_and_read_as_it_was_stored(self, store: FileStore) -> None:
        before = datetime.now(UTC)
        file = await put(store, b"hello", contact_id="ann", name="a.txt", kind="text/plain")
        assert (file.contact_id, file.name, file.type, file.size) == ("ann", "a.txt", "text/plain", 5)
        assert before - timedelta(seconds=1) <= file.created_at <= datetime.now(UTC) + timedelta(seconds=1)
        assert await within(store.find(file.file_id, "ann")) == file
        assert await within(store.find(file.file_id, None)) == file
        assert await read(store, file) == b"hello"

    async def test_a_file_may_have_any_length_known_or_not(self, store: FileStore) -> None:
        for size in (0, 1, 65_536, 5 * MIB + 1):
            data = some_bytes(size)
            for known in (True, False):
                file = await put(store, data, name=f"{size} {known}", known=known)
                assert (file.size, await read(store, file)) == (size, data)

    async def test_a_part_of_a_file_can_be_read(self, store: FileStore) -> None:
        data = some_bytes(3 * MIB)
        file = await put(store, data)
        for begin, end in ((0, 1), (MIB, 2 * MIB + 7), (3 * MIB - 1, 3 * MIB), (5, 5)):
            assert await read(store, file, begin, end) == data[begin:end]

    async def test_pieces_of_any_length_are_joined(self, store: FileStore) -> None:
        pieces = [b"", b"a", some_bytes(MIB), b"", b"b" * 7]
        file = await within(store.put(new_file(sum(map(len, pieces))), each(pieces), QUOTA))
        assert await read(store, file) == b"".join(pieces)

    async def test_names_types_and_contacts_may_be_any_text(self, store: FileStore) -> None:
        for text in ("../../etc/passwd", "Zoë 😀.png", 'a"b;c', " ", "x" * 255, "%2e%2e%2f", "\\..\\"):
            file = await put(store, b"x", contact_id=text, name=text, kind="application/x.odd+json")
            assert await within(store.find(file.file_id, text)) == file
            assert (file.contact_id, file.name) == (text, text)
            await within(store.delete_contact(text))

    async def test_the_same_file_is_stored_once(self, store: FileStore) -> None:
        first = await put(store, b"same")
        assert await put(store, b"same") == first
        others = [
            await put(store, b"same", name="b"),
            await put(store, b"same", kind="image/png"),
            await put(store, b"same", contact_id="bea"),
            await put(store, b"Same"),
        ]
        assert len({first.file_id, *(other.file_id for other in others)}) == 5
        assert len((await within(store.files("ann", 10, None))).files) == 4

    async def test_identifiers_are_short_and_fit_into_a_path(self, store: FileStore) -> None:
        file = await put(store, b"x", contact_id="a/b")
        assert 1 <= len(file.file_id) <= 200
        assert set(file.file_id) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")

    # Owners

    async def test_a_file_of_another_contact_is_not_found(self, store: FileStore) -> None:
        file = await put(store, b"x", contact_id="ann")
        for other in ("bea", "", "Ann", "ann "):
            await expect_not_found(store, file.file_id, other)

    async def test_an_identifier_that_is_none_is_not_found(self, store: FileStore) -> None:
        await put(store, b"x")
        for file_id in ("", ".", "..", "../ann", "a/b", "a\\b", "\0", "x" * 10_000, "é", "0" * 64, "%00", "*"):
            for acting_for in (None, "ann"):
                await expect_not_found(store, file_id, acting_for)

    async def test_a_contact_lists_its_files_page_by_page(self, store: FileStore) -> None:
        stored = [await put(store, b"x", name=f"{number}") for number in range(7)]
        await put(store, b"x", contact_id="bea")
        found: list[StoredFile] = []
        after = None
        for _ in range(4):
            page = await within(store.files("ann", 2, after))
            found += page.files
            after = page.next
            if after is None:
                break
        assert sorted(found, key=lambda file: file.name) == stored
        assert after is None
        assert (await within(store.files("cay", 2, None))).files == []

    async def test_a_cursor_that_is_none_is_refused(self, store: FileStore) -> None:
        await put(store, b"x")
        for cursor in ("", "x", "../..", "0" * 64, "é"):
            with pytest.raises(InvalidCursor):
                await within(store.files("ann", 2, cursor))

    # Quotas

    async def test_a_file_beyond_the_quota_is_refused_before_it_is_read(self, store: FileStore) -> None:
        await put(store, some_bytes(2 * MIB), quota=4 * MIB)
        with pytest.raises(FileQuotaExceeded):
            await within(store.put(new_file(3 * MIB, name="b"), never_read(), 4 * MIB))
        await put(store, b"of another contact", contact_id="bea", quota=4 * MIB)

    async def test_a_file_of_unknown_length_ends_at_the_quota(self, store: FileStore) -> None:
        await put(store, some_bytes(2 * MIB), quota=4 * MIB)
        with pytest.raises(FileQuotaExceeded):
            await put(store, some_bytes(3 * MIB), name="b", known=False, quota=4 * MIB)
        assert len((await within(store.files("ann", 10, None))).files) == 1
        await put(store, some_bytes(MIB), name="c", known=False, quota=4 * MIB)

    async def test_a_deleted_file_leaves_its_room(self, store: FileStore) -> None:
        file = await put(store, some_bytes(3 * MIB), quota=4 * MIB)
        await within(store.delete(file))
        await put(store, some_bytes(3 * MIB), name="b", quota=4 * MIB)

    async def test_a_file_that_is_stored_twice_counts_once(self, store: FileStore) -> None:
        for _ in range(3):
            await put(store, some_bytes(MIB), quota=2 * MIB)
        await put(store, some_bytes(MIB), name="b", quota=2 * MIB)

    async def test_concurrent_files_do_not_exceed_the_quota(self, store: FileStore) -> None:
        for known in (True, False):
            await put_at_once(store, known)
            stored = (await within(store.files("ann", 10, None))).files
            assert 1 <= len(stored) <= 3
            assert {file.size for file in stored} == {MIB}
            await within(store.delete_contact("ann"))

    # What does not end well

    async def test_content_that_raises_leaves_nothing(self, store: FileStore) -> None:
        for known in (True, False):
            with pytest.raises(ConnectionError, match="gone"):
                await within(store.put(new_file(2 * MIB if known else None), broken(), 3 * MIB))
        assert (await within(store.files("ann", 10, None))).files == []
        await put(store, some_bytes(2 * MIB), quota=3 * MIB)

    async def test_a_cancelled_put_leaves_nothing(self) -> None:
        async with nothing_left(), self.opened() as store:
            await cancel_in_mid_call(lambda: store.put(new_file(2 * MIB), endless(some_bytes(MIB)), 3 * MIB), times=60)
            assert (await within(store.files("ann", 10, None))).files == []
            await put(store, some_bytes(2 * MIB), quota=3 * MIB)

    async def test_a_deleted_file_is_gone(self, store: FileStore) -> None:
        file, other = await put(store, b"x"), await put(store, b"y")
        await within(store.delete(file))
        await expect_not_found(store, file.file_id, "ann")
        for call in (store.delete(file), store.read(file, 0, 1)):
            with pytest.raises(StoredFileNotFound):
                await within(call)
        assert await read(store, other) == b"y"
        assert await read(store, await put(store, b"x")) == b"x"

    async def test_a_deleted_contact_has_no_files_and_the_others_keep_theirs(self, store: FileStore) -> None:
        files = [await put(store, b"x", name=f"{number}") for number in range(3)]
        other = await put(store, b"x", contact_id="bea")
        for _ in range(2):
            await within(store.delete_contact("ann"))
        for file in files:
            await expect_not_found(store, file.file_id, None)
        assert (await within(store.files("ann", 10, None))).files == []
        assert await read(store, other) == b"x"

    async def test_a_contact_that_is_deleted_during_a_put_keeps_nothing(self, store: FileStore) -> None:
        for known in (True, False):
            gate, begun = anyio.Event(), anyio.Event()
            new = new_file(MIB if known else None)
            putting = asyncio.create_task(store.put(new, held(some_bytes(MIB), gate, begun.set), QUOTA))
            await within(begun.wait())
            await within(store.delete_contact("ann"))
            gate.set()
            with pytest.raises(ContactDeleted):
                await within(putting)
            assert (await within(store.files("ann", 10, None))).files == []
        await put(store, b"after that")

    @needs("keeps")
    async def test_files_are_there_when_the_store_is_opened_again(self) -> None:
        async with self.opened() as store:
            file, gone = await put(store, b"kept"), await put(store, b"gone")
            await within(store.delete(gone))
        async with self.opened() as store:
            assert await within(store.find(file.file_id, "ann")) == file
            assert await read(store, file) == b"kept"
            assert await put(store, b"kept") == file
            await expect_not_found(store, gone.file_id, None)

    async def test_it_has_a_name_and_leaves_nothing_open(self) -> None:
        async with nothing_left(), self.opened() as store:
            assert store.name
            file = await put(store, some_bytes(MIB))
            assert await read(store, file, 0, 100) == some_bytes(100)


def new_file(
    size: int | None, *, contact_id: str = "ann", name: str = "a", kind: str = "text/plain", limit: int = 8 * MIB
) -> NewFile:
    """Return the description of a file that is sent."""
    return NewFile(contact_id=contact_id, name=name, type=kind, size=size, limit=limit)


async def put(
    store: FileStore,
    data: bytes,
    *,
    contact_id: str = "ann",
    name: str = "a",
    kind: str = "text/plain",
    known: bool = True,
    quota: int = QUOTA,
) -> StoredFile:
    """Store a file. `known` is whether its length is known in advance."""
    new = new_file(len(data) if known else None, contact_id=contact_id, name=name, kind=kind)
    pieces = [data[begin : begin + 64 * KIB] for begin in range(0, len(data), 64 * KIB)]
    file: StoredFile = await within(store.put(new, each(pieces), quota))
    return file


async def put_at_once(store: FileStore, known: bool) -> None:
    """Store eight files of 1 MiB with a quota of 3 MiB. Each has begun or was refused before the first one ends."""
    gate, settled = anyio.Event(), asyncio.Semaphore(0)

    async def attempt(number: int) -> None:
        new = new_file(MIB if known else None, name=f"{number}", limit=MIB)
        try:
            await store.put(new, held(some_bytes(MIB), gate, settled.release), 3 * MIB)
        except FileQuotaExceeded:
            settled.release()

    attempts = [asyncio.create_task(attempt(number)) for number in range(8)]
    for _ in attempts:
        await within(settled.acquire())
    gate.set()
    await within(asyncio.gather(*attempts))


async def read(store: FileStore, file: StoredFile, begin: int = 0, end: int | None = None) -> bytes:
    """Return the content of a file, or a part of it."""

    async def whole() -> bytes:
        pieces = await store.read(file, begin, file.size if end is None else end)
        return b"".join([piece async for piece in pieces])

    data: bytes = await within(whole())
    return data


async def expect_not_found(store: FileStore, file_id: str, acting_for: str | None) -> None:
    """Fail unless the store raises `StoredFileNotFound`."""
    with pytest.raises(StoredFileNotFound):
        await within(store.find(file_id, acting_for))


def some_bytes(size: int) -> bytes:
    """Return bytes in which every place differs from its neighbours."""
    return (bytes(range(251)) * (size // 251 + 1))[:size]


async def each(pieces: Sequence[bytes]) -> AsyncIterator[bytes]:
    """Yield the pieces."""
    for piece in pieces:
        yield piece


async def never_read(fails: bool = True) -> AsyncIterator[bytes]:
    """Fail when the first piece is read."""
    assert not fails, "the content was read"
    yield b""


async def broken() -> AsyncIterator[bytes]:
    """Yield a piece, then raise."""
    yield some_bytes(MIB)
    raise ConnectionError("gone")


async def endless(data: bytes) -> AsyncIterator[bytes]:
    """Yield the data, and then wait until it is cancelled."""
    yield data
    await anyio.sleep_forever()


async def held(data: bytes, gate: anyio.Event, on_begin: Callable[[], None]) -> AsyncIterator[bytes]:
    """Call `on_begin`, yield the first half of the data, wait for the gate, and yield the rest."""
    on_begin()
    yield data[: len(data) // 2]
    await gate.wait()
    yield data[len(data) // 2 :]
