"""Readiness probes: what they say of the store, and what they cost it."""

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from jimsapi import create_api
from jimsapi.api import probes
from jimsapi.asgi.testing import TestClient
from jimsapi.runs import outage
from jimsapi.stores.memory import MemoryStore
from jimsapi.stores.sqlite import SQLiteStore
from jimsapi.threads.errors import StoreUnavailable
from tests.apps.steered import app

pytestmark = pytest.mark.anyio


class Pinged:
    """What a store's `ping` is replaced by: counts, waits until it may answer, and fails if told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.failure: StoreUnavailable | None = None
        monkeypatch.setattr(MemoryStore, "ping", self._ping)

    async def _ping(self, *_: Any) -> None:
        self.count += 1
        await self.may_answer.wait()
        if self.failure is not None:
            raise self.failure


@pytest.fixture
async def pinged(monkeypatch: pytest.MonkeyPatch) -> Pinged:
    return Pinged(monkeypatch)


async def test_probes_at_the_same_time_and_shortly_after_one_another_share_a_ping(
    pinged: Pinged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "VALID_FOR", 60.0)
    async with TestClient(create_api(app, store="memory:")) as client:
        pinged.may_answer.clear()
        asking = [asyncio.create_task(client.get("/readyz")) for _ in range(20)]
        while not pinged.count:
            await asyncio.sleep(0)
        pinged.may_answer.set()
        assert {(await one).status_code for one in asking} == {200}
        assert (await client.get("/readyz")).json() == {"status": "ok"}
        assert pinged.count == 1


async def test_the_answer_of_a_store_that_fails_is_not_used_again(pinged: Pinged) -> None:
    async with TestClient(create_api(app, store="memory:")) as client:
        pinged.failure = StoreUnavailable("SQLite: /srv/jims.db: database or disk is full", "disk full")
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.json()) == (503, {"status": "store unavailable", "reason": "disk full"})
        pinged.failure = StoreUnavailable("host=db.internal")
        assert (await client.get("/readyz")).json() == {"status": "store unavailable"}
        pinged.failure = None
        assert (await client.get("/readyz")).status_code == 200
        assert (await client.get("/healthz")).status_code == 200


async def test_a_disk_on_which_only_small_writes_fit_is_not_ready_until_no_message_was_refused_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outage, "QUIET", 2.0)
    monkeypatch.setattr(probes, "VALID_FOR", 0.0)
    api = create_api(app, store=f"sqlite:///{tmp_path}/jims.db")
    async with TestClient(api) as client:
        assert api.service is not None
        store = api.service.store
        assert isinstance(store, SQLiteStore)
        await store._write(lambda connection: _limit_growth(connection, 10))
        large = {"contact_id": "ann", "message": "see " + "x" * 200_000}
        for _ in range(3):
            assert (await client.post("/api/v1/chat", json=large)).status_code == 503
            await store.ping()
            ready = await client.get("/readyz")
            assert (ready.status_code, ready.json()["reason"]) == (503, "disk full")
        await store._write(lambda connection: _limit_growth(connection, 1_000_000))
        assert (await client.post("/api/v1/chat", json=large)).status_code == 200
        async with asyncio.timeout(30):
            while (await client.get("/readyz")).status_code != 200:
                await asyncio.sleep(0.02)


def _limit_growth(connection: sqlite3.Connection, pages: int) -> None:
    (now,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {now + pages}")


async def test_a_store_that_does_not_answer_is_unavailable_and_is_asked_once(
    pinged: Pinged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "PING_WITHIN", 0.05)
    pinged.may_answer.clear()
    async with TestClient(create_api(app, store="memory:")) as client:
        for _ in range(3):
            answer = await client.get("/readyz")
            assert (answer.status_code, answer.json()["reason"]) == (503, "no answer")
        assert pinged.count == 1
        pinged.may_answer.set()
