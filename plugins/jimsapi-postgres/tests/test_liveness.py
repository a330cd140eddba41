"""Processes that are stopped for a while, and notices that never came."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from database import Postgres
from jimsapi_postgres import connections, peers
from jimsapi_postgres.store import PostgresStore

from jimsapi.testing.store import completed, look_at, make_event, make_plan
from jimsapi.threads.errors import RunClosed
from jimsapi.threads.ids import uuid7
from jimsapi.threads.run import ContextLimits, RunPlan, RunStatus

pytestmark = pytest.mark.anyio

CONTEXT = ContextLimits()
SILENT = "UPDATE jimsapi_owners SET beat_at = clock_timestamp() - interval '2 hours' WHERE owner = $1"
"""Two hours: a server that was started a moment ago declares nobody dead sooner."""


WAITS_FOR_A_LOCK = """
    SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'
"""


class Process:
    """A store and an owner, and what it was told of its runs."""

    def __init__(self, url: str) -> None:
        self.store = PostgresStore(url)
        self.store.on_turn = self._hear
        self.owner = uuid7()
        self._told: dict[UUID, asyncio.Event] = {}

    async def __aenter__(self) -> "Process":
        await self.store.__aenter__()
        await self.store.recover(self.owner)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.store.__aexit__(None, None, None)

    def _hear(self, run_id: UUID) -> None:
        self._told.setdefault(run_id, asyncio.Event()).set()

    async def told_of(self, run_id: UUID) -> None:
        async with asyncio.timeout(30):
            await self._told.setdefault(run_id, asyncio.Event()).wait()

    async def accept(self, contact_id: str = "ann") -> RunPlan:
        plan = make_plan(contact_id, owner=self.owner)
        await self.store.accept(plan)
        return plan


@pytest.fixture
async def deaf(url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Process]:
    """A process that no notice reaches."""
    monkeypatch.setattr(peers, "POLL_EVERY", 0.02)
    monkeypatch.setattr(peers, "CHANNEL", "somewhere_else")
    async with Process(url) as process:
        yield process


@pytest.mark.parametrize("ending", ["cancel", "delete", "recover"])
async def test_a_waiting_run_that_others_ended_is_found_without_a_notice(
    deaf: Process, url: str, outside: Any, ending: str
) -> None:
    running, waiting = await deaf.accept(), await deaf.accept()
    async with Process(url) as other:
        if ending == "cancel":
            await other.store.cancel(waiting.run_id)
        elif ending == "delete":
            await other.store.delete_contact("ann")
        else:
            await outside.execute(SILENT, deaf.owner)
            assert await other.store.recover(other.owner) == 2
        await deaf.told_of(waiting.run_id)
    with pytest.raises(RunClosed):
        await deaf.store.start(waiting.run_id, deaf.owner, (), CONTEXT)
    assert not (await deaf.store.finish(running.run_id, deaf.owner, completed())).counted or ending == "cancel"
    assert deaf.store._waiting == set()


async def test_nothing_is_looked_for_that_does_not_wait(deaf: Process, url: str) -> None:
    running, waiting, cancelled, orphan = [await deaf.accept() for _ in range(4)]
    assert deaf.store._waiting == {waiting.run_id, cancelled.run_id, orphan.run_id}
    await deaf.store.cancel(cancelled.run_id)
    await deaf.store.heartbeat(deaf.owner, {running.run_id, waiting.run_id})
    assert deaf.store._waiting == {waiting.run_id}
    await deaf.store.finish(running.run_id, deaf.owner, completed())
    await deaf.told_of(waiting.run_id)
    assert await deaf.store.start(waiting.run_id, deaf.owner, (), CONTEXT) is not None
    assert deaf.store._waiting == set()


async def test_a_process_that_was_taken_for_dead_hears_that_its_runs_have_ended(
    url: str, outside: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "POLL_EVERY", 3600.0)
    async with Process(url) as stopped, Process(url) as other:
        running, waiting = await stopped.accept(), await stopped.accept()
        await outside.execute("SELECT pg_notify('jimsapi_turn', $1)", f"{stopped.owner} {stopped.owner}")
        await stopped.told_of(stopped.owner)  # it listens
        await outside.execute(SILENT, stopped.owner)
        assert await other.store.recover(other.owner) == 2
        await stopped.told_of(waiting.run_id)
        settled = await stopped.store.finish(running.run_id, stopped.owner, completed(make_event()))
        assert (settled.counted, settled.status, settled.stored) == (False, RunStatus.INTERRUPTED, [])
        # It is alive, and takes new messages.
        await stopped.store.heartbeat(stopped.owner, set())
        assert (await look_at(other.store, (await stopped.accept()).run_id)).status is RunStatus.RUNNING


async def test_who_was_stopped_itself_declares_nobody_dead_at_once(
    url: str, postgres: Postgres, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "POLL_EVERY", 0.02)
    monkeypatch.setattr(peers, "SILENCE", timedelta(seconds=1))
    async with Process(url) as process:
        async with Process(url) as other:
            lost = await other.accept("lost")
        postgres.psql(SILENT.replace("$1", f"'{other.owner}'"), database)
        async with asyncio.timeout(20):
            while (await look_at(process.store, lost.run_id)).status is not RunStatus.INTERRUPTED:
                await asyncio.sleep(0.02)
        # From here on whoever is silent is buried. Now the whole machine stops, and another process with it.
        async with Process(url) as other:
            kept = (await other.accept("kept")).run_id
        monkeypatch.setattr(peers, "SILENCE", timedelta(seconds=2))
        postgres.psql("SELECT pg_sleep(1.1)")  # in the loop's own thread
        postgres.psql(SILENT.replace("$1", f"'{other.owner}'"), database)
        for _ in range(5):
            await asyncio.sleep(0.02)
        assert (await look_at(process.store, kept)).status is RunStatus.RUNNING


async def test_a_heartbeat_does_not_wait_for_connections(
    url: str, outside: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "BUSY_TIMEOUT", 1.0)
    async with Process(url) as process:
        plan = make_plan(owner=process.owner, conversation_start=True)
        thread_id = (await process.store.accept(plan)).thread.thread_id
        await outside.execute("SELECT pg_advisory_lock(uuid_hash_extended($1, 3))", thread_id)
        cancelling = [asyncio.ensure_future(process.store.cancel(plan.run_id)) for _ in range(6)]
        async with asyncio.timeout(30):
            while await outside.fetchval(WAITS_FOR_A_LOCK) < 3:
                await asyncio.sleep(0.01)
        assert await process.store.heartbeat(process.owner, {plan.run_id}) == []
        await outside.execute("SELECT pg_advisory_unlock_all()")
        await asyncio.gather(*cancelling, return_exceptions=True)
