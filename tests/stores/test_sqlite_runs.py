"""Runs in an SQLite database: what a dead server left, and what other programs put between a run's events."""

import asyncio
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import orjson
import pytest

from jimsapi.stores.sqlite import SQLiteStore
from jimsapi.testing.store import (
    OTHER_OWNER,
    OWNER,
    all_events,
    completed,
    contents,
    make_event,
    make_key,
    make_plan,
)
from jimsapi.threads.errors import StoreUnavailable
from jimsapi.threads.run import ContextLimits, RunStatus

pytestmark = pytest.mark.anyio


async def test_rows_of_other_programs_between_a_runs_events_are_not_its_own(path: Path, store: SQLiteStore) -> None:
    plan = make_plan()
    thread_id = (await store.accept(plan)).thread.thread_id
    sent = [make_event("rag.step", number) for number in range(5)]
    await store.finish(plan.run_id, OWNER, completed(*sent))
    with closing(sqlite3.connect(path)) as neighbour, neighbour:
        times = [time for (time,) in neighbour.execute("SELECT created_at FROM thread_events ORDER BY created_at")]
        # Whole seconds as JIMS has them, and texts that stand between two of our microseconds.
        foreign = [times[0][:19], *(time + "5" for time in times), *(time[:-1] for time in times)]
        for number, time in enumerate(foreign):
            neighbour.execute(
                "INSERT INTO thread_events (thread_id, event_id, created_at, event_type, event_data) "
                "VALUES (?, ?, ?, 'comm.other', '{}')",
                (thread_id.hex, UUID(int=number << 4 | 0xF).hex, time),
            )
    found = await store.run(plan.run_id, None, None)
    assert [event.event_id for event in found.events] == [event.event_id for event in sent]
    assert [orjson.loads(event.event_data or b"") for event in found.events] == [0, 1, 2, 3, 4]
    assert all(event.event_type == "rag.step" for event in found.events)


@pytest.mark.parametrize("moment", ["before accept", "before start"])
async def test_a_message_that_another_program_took_out_enters_again(
    path: Path, store: SQLiteStore, moment: str
) -> None:
    first = make_plan(text="one", owner=OTHER_OWNER, idempotency=make_key())
    thread_id = (await store.accept(first)).thread.thread_id
    await store.recover(OWNER)
    before, again = make_plan(text="two"), make_plan(text="one", idempotency=first.idempotency)
    if moment == "before accept":
        _take_out(path, first.message.event_id)
    await store.accept(before)
    await store.accept(again)
    if moment == "before start":
        _take_out(path, first.message.event_id)
    assert await contents(store, thread_id) == ["two"]
    await store.finish(before.run_id, OWNER, completed())
    started = await store.start(again.run_id, OWNER, (), ContextLimits())
    assert started is not None
    assert [row.event_id for row in started.stored] == [first.message.event_id.hex]
    assert started.snapshot.rows[-1] == started.stored[-1]
    events = await all_events(store, thread_id)
    assert events[-1].event_id == first.message.event_id
    assert await contents(store, thread_id) == ["two", "one"]


async def test_a_transaction_that_failed_leaves_its_key_free(path: Path, store: SQLiteStore) -> None:
    key = make_key()
    with closing(sqlite3.connect(path, isolation_level=None)) as neighbour:
        neighbour.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable):
            await store.accept(make_plan(idempotency=key))
        neighbour.execute("ROLLBACK")
    assert (await store.accept(make_plan(idempotency=key))).status is RunStatus.RUNNING


async def test_a_purge_forgets_more_keys_than_one_transaction_takes(
    path: Path, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jimsapi.stores.sqlite.store.PURGED_AT_ONCE", 3)
    plans = [make_plan(str(number), idempotency=make_key()) for number in range(8)]
    for plan in plans:
        await store.accept(plan)
    with closing(sqlite3.connect(path)) as neighbour, neighbour:
        neighbour.execute(
            "UPDATE jimsapi_idempotency SET used_at = '2020-01-01 00:00:00.000000' WHERE run_id != ?",
            (plans[0].run_id.hex,),
        )
    await store.purge(timedelta(days=1))
    with closing(sqlite3.connect(path)) as neighbour:
        assert neighbour.execute("SELECT run_id FROM jimsapi_idempotency").fetchall() == [(plans[0].run_id.hex,)]


def _take_out(path: Path, event_id: UUID) -> None:
    with closing(sqlite3.connect(path)) as neighbour, neighbour:
        assert neighbour.execute("DELETE FROM thread_events WHERE event_id = ?", (event_id.hex,)).rowcount == 1


async def test_dead_processes_are_forgotten_by_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "jims.db"
    for owner in (OWNER, OTHER_OWNER, OWNER):
        async with SQLiteStore(path) as store:
            await store.recover(owner)
            await store.heartbeat(owner, [])
            with closing(sqlite3.connect(path)) as connection:
                assert connection.execute("SELECT owner FROM jimsapi_owners").fetchall() == [(owner.hex,)]


async def test_a_heartbeat_knows_the_runs_that_began_after_it_was_asked_for(tmp_path: Path) -> None:
    async with SQLiteStore(tmp_path / "jims.db") as store:
        plan, live = make_plan(), set[UUID]()
        await store.accept(plan)
        beat = asyncio.create_task(store.heartbeat(OWNER, live))
        await asyncio.sleep(0)
        live.add(plan.run_id)
        await beat
        assert (await store.run(plan.run_id, None, None)).status is RunStatus.RUNNING


async def test_a_run_whose_message_another_program_has_deleted_does_not_start_again(path: Path) -> None:
    plan = make_plan(owner=OTHER_OWNER, background=True)
    async with SQLiteStore(path) as store:
        await store.accept(plan)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DELETE FROM thread_events WHERE event_id = ?", (plan.message.event_id.hex,))
    async with SQLiteStore(path) as store:
        store.max_restarts = 1
        assert await store.adopt(OWNER) == []
        assert await store.recover(OWNER) == 1
        assert (await store.run(plan.run_id, None, None)).status is RunStatus.INTERRUPTED
