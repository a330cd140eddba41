"""The contract of stores, and what only this plugin promises."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from jimsapi.asgi.testing import TestClient
from jimsapi.testing import ThreadStoreContract
from jimsapi.threads import StoreUnusable, ThreadStore

from jimsapi_lmdb.store import LmdbStore


class TestLmdb(ThreadStoreContract):
    is_portable = False
    has_outbox = False
    has_subscriptions = False

    @pytest.fixture(autouse=True)
    def place(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    @asynccontextmanager
    async def open_store(self) -> AsyncIterator[ThreadStore]:
        async with LmdbStore(self.folder / str(uuid4())) as store:
            yield store

    @asynccontextmanager
    async def reopen_store(self, closed: ThreadStore) -> AsyncIterator[ThreadStore]:
        async with LmdbStore(Path(closed.name.removeprefix("lmdb:"))) as store:
            yield store


@pytest.mark.anyio
async def test_the_installed_plugin_keeps_messages(jimsapi_client: Callable[..., TestClient], tmp_path: Path) -> None:
    for created in (True, False):
        async with jimsapi_client(store=f"lmdb:{tmp_path / 'threads'}") as client:
            answer = await client.post("/api/v1/chat", json={"contact_id": "ann", "message": "hi"})
        assert answer.json()["created_new_thread"] is created


@pytest.mark.anyio
async def test_two_processes_cannot_open_one_folder(tmp_path: Path) -> None:
    async with LmdbStore(tmp_path):
        with pytest.raises(StoreUnusable, match="another process uses it"):
            async with LmdbStore(tmp_path):
                pass


@pytest.mark.anyio
async def test_a_url_without_a_folder_stops_the_start(jimsapi_client: Callable[..., TestClient]) -> None:
    with pytest.raises(RuntimeError, match="give a folder, for example lmdb:threads"):
        async with jimsapi_client(store="lmdb:"):
            pass
