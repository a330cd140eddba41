"""The SQLite store keeps the contract of every store."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from jimsapi.stores.sqlite import SQLiteStore
from jimsapi.testing import ThreadStoreContract
from jimsapi.threads.store import ThreadStore


class TestSQLiteStore(ThreadStoreContract):
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path) -> None:
        self._folder = tmp_path

    @asynccontextmanager
    async def open_store(self) -> AsyncIterator[ThreadStore]:
        async with SQLiteStore(self._folder / f"{uuid4()}.db", durability="relaxed") as store:
            yield store

    @property
    def reopen_store(self) -> Callable[[ThreadStore], AbstractAsyncContextManager[ThreadStore]]:
        @asynccontextmanager
        async def again(closed: ThreadStore) -> AsyncIterator[ThreadStore]:
            async with SQLiteStore(Path(closed.name.removeprefix("sqlite:///")), durability="relaxed") as store:
                yield store

        return again

    async def disturb(self, store: ThreadStore) -> None:
        """Somebody removes the write-ahead log and the lock file."""
        path = store.name.removeprefix("sqlite:///")
        for suffix in ("-wal", ".lock"):
            Path(path + suffix).unlink(missing_ok=True)
