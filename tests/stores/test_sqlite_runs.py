"""Runs in an SQLite database: what an older server left, and what other programs put between a run's events."""

import asyncio
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import orjson
import pytest

from jimsapi.runs.errors import PipelineFailed, RunTimedOut
from jimsapi.runs.result import failure_of, stored_result
from jimsapi.stores.sqlite import SQLiteStore
from jimsapi.stores.sqlite.schema import SCHEMA_VERSION
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
from jimsapi.threads.errors import KeyUsed, QueueFull, StoreUnavailable, StoreUnusable
from jimsapi.threads.run import ContextLimits, FailureKind, Outcome, RunStatus

pytestmark = pytest.mark.anyio

VERSION_1 = Path(__file__).with_name("sqlite_version_1.sql")
ANSWERED = UUID("01a213b077017cef850df0dfb2ee45cf")
FAILED = UUID("01a213b077027718950b103ee1a2750f")
CANCELLED = UUID("01a213b07704786b82db0bf654c7d6ff")
RUNNING = UUID("01a213b0770577a0982ec52dcae350df")
WAITING = UUID("01a213b07709729e9d6cd61c63e8f70f")
ANNS_THREAD = UUID("01a213b077017cef850df0f1cee3450f")
VERSION_7 = """
    DROP TABLE jimsapi_subscriptions;
    DROP TABLE jimsapi_outbox;
    DROP TABLE jimsapi_sinks;
    DROP TABLE jimsapi_dead_letters;
    DROP TABLE jimsapi_webhooks;
    ALTER TABLE jimsapi_runs DROP COLUMN restarts;
    UPDATE jimsapi_schema SET version = 7;
"""
VERSION_4 = f"""
    {VERSION_7}
    DROP TABLE jimsapi_threads;
    DROP TABLE jimsapi_feedback;
    DROP TABLE jimsapi_search_threads;
    DROP INDEX jimsapi_events_asked;
    DROP TABLE jimsapi_thread_usage;
    DROP TABLE jimsapi_contact_usage;
    DROP TABLE jimsapi_caller_usage;
    ALTER TABLE jimsapi_runs DROP COLUMN failure;
    UPDATE jimsapi_schema SET version = 4;
"""
VERSION_3 = f"""
    {VERSION_4}
    CREATE INDEX jimsapi_runs_finished ON jimsapi_runs (finished_at) WHERE finished_at IS NOT NULL;
    UPDATE jimsapi_schema SET version = 3;
"""
VERSION_2 = f"""
    {VERSION_3}
    DROP INDEX jimsapi_runs_waiting;
    CREATE INDEX jimsapi_runs_open ON jimsapi_runs (thread_id, seq) WHERE finished_at IS NULL;
    UPDATE jimsapi_schema SET version = 2;
"""


async def test_a_database_of_version_1_is_brought_up_to_date_with_its_runs(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(VERSION_1.read_text())
    async with SQLiteStore(path) as store:
        statuses = [
            (await store.run(run_id, None, None)).status for run_id in (ANSWERED, FAILED, CANCELLED, RUNNING, WAITING)
        ]
        assert statuses == [
            RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.RUNNING, RunStatus.QUEUED,
        ]  # fmt: skip
        failed = await store.run(FAILED, "ann", None)
        assert (failed.error, failed.failure, failed.streamed, failed.events) == ("ValueError: no", None, None, [])
        assert failed.accepted_at == failed.started_at == datetime(2026, 11, 25, 17, 11, 1, 634956, tzinfo=UTC)
        assert await store.recover(OWNER) == 2
        assert await store.adopt(OWNER) == []
        assert await contents(store, ANNS_THREAD) == ["one", "to one", "two", "four", "five"]
        plan = make_plan(idempotency=make_key())
        assert (await store.accept(plan)).thread.thread_id == ANNS_THREAD
        with pytest.raises(KeyUsed):
            await store.accept(make_plan(idempotency=plan.idempotency))
        await store.finish(plan.run_id, OWNER, completed(make_event()))
        assert len((await store.run(plan.run_id, None, None)).events) == 1
    async with SQLiteStore(path) as store:
        assert (await store.run(RUNNING, None, None)).status is RunStatus.INTERRUPTED
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT version FROM jimsapi_schema").fetchall() == [(SCHEMA_VERSION,)]


async def test_runs_that_wait_in_a_database_of_version_2_keep_their_order(path: Path) -> None:
    plans = [make_plan(text=str(number), queue_limit=9) for number in range(5)]
    first, second, given_up, third, last = plans
    ended = make_plan("bob")
    async with SQLiteStore(path) as store:
        for plan in (*plans, ended):
            await store.accept(plan)
        await store.cancel(given_up.run_id)
        await store.finish(ended.run_id, OWNER, completed(make_event()))
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(VERSION_2)
    async with SQLiteStore(path) as store:
        with pytest.raises(QueueFull) as full:
            await store.accept(make_plan(queue_limit=3))
        assert full.value.open_run == first.run_id
        for run, follower in ((first, second), (second, third), (third, last)):
            assert await store.start(follower.run_id, OWNER, [], ContextLimits()) is None
            assert (await store.finish(run.run_id, OWNER, completed())).next_run == follower.run_id
            assert await store.start(follower.run_id, OWNER, [], ContextLimits()) is not None
        found = [(await store.run(plan.run_id, None, None)).status for plan in (*plans, ended)]
        assert found == [
            RunStatus.COMPLETED, RunStatus.COMPLETED, RunStatus.CANCELLED, RunStatus.COMPLETED, RunStatus.RUNNING,
            RunStatus.COMPLETED,
        ]  # fmt: skip


@pytest.mark.parametrize("older", [VERSION_2, VERSION_3, VERSION_4], ids=["2", "3", "4"])
async def test_what_failed_in_a_database_of_an_older_version_keeps_its_kind(path: Path, older: str) -> None:
    failures = [
        (make_plan("ann"), PipelineFailed(ValueError("no")), FailureKind.PIPELINE),
        (make_plan("bob"), RunTimedOut(30), FailureKind.TIMEOUT),
    ]
    async with SQLiteStore(path) as store:
        for plan, error, kind in failures:
            await store.accept(plan)
            await store.finish(plan.run_id, OWNER, Outcome(RunStatus.FAILED, (), str(error), failure=kind))
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(older)
    async with SQLiteStore(path) as store:
        for plan, error, kind in failures:
            found = await store.run(plan.run_id, None, None)
            assert (found.status, found.failure) == (RunStatus.FAILED, None)
            assert failure_of(found) is kind
            answer = stored_result(found)
            assert (type(answer), str(answer)) == (type(error), str(error))
        plan = make_plan("cid")
        await store.accept(plan)
        await store.finish(plan.run_id, OWNER, Outcome(RunStatus.FAILED, (), "no", failure=FailureKind.PIPELINE))
        assert (await store.run(plan.run_id, None, None)).failure is FailureKind.PIPELINE


async def test_an_upgrade_that_fails_leaves_version_1_as_it_was(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(VERSION_1.read_text())
        connection.execute("CREATE TABLE jimsapi_idempotency (theirs TEXT)")
        before = list(connection.iterdump())
    with pytest.raises(StoreUnusable, match="jimsapi_idempotency"):
        await SQLiteStore(path).__aenter__()
    with closing(sqlite3.connect(path)) as connection:
        assert list(connection.iterdump()) == before


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
