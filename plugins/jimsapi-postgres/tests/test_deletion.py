"""Deletion of much: it takes few locks, and holds up nothing else."""

import asyncio
from contextlib import nullcontext, suppress
from typing import Any

import asyncpg
import pytest
from jimsapi_postgres import connections
from jimsapi_postgres.store import PostgresStore

from jimsapi.testing.store import OWNER, completed, contents, make_event, make_plan
from jimsapi.threads.errors import ThreadNotFound
from jimsapi.threads.facts import ForkPlan
from jimsapi.threads.ids import uuid7
from jimsapi.threads.run import ById

pytestmark = pytest.mark.anyio

THREADS = """
    INSERT INTO threads
    SELECT gen_random_uuid(), $1, NULL, timestamp '2025-01-01' + n * interval '1 second', '{}'
    FROM generate_series(1, $2::int) n
"""
WAITS_FOR_A_LOCK = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
WAITS_FOR_A_ROW = """
    SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'transactionid'
"""


async def test_a_contact_with_more_threads_than_the_server_has_locks_is_deleted(
    store: PostgresStore, outside: Any
) -> None:
    await outside.execute(THREADS, "many", 20_000)
    plan, waiting, other = make_plan("many"), make_plan("many"), make_plan("other")
    for one in (plan, waiting, other):
        await store.accept(one)
    assert set(await store.delete_contact("many")) == {plan.run_id, waiting.run_id}
    assert [row[0] for row in await outside.fetch("SELECT contact_id FROM threads")] == ["other"]
    assert await outside.fetchval("SELECT count(*) FROM thread_events") == 2
    assert await outside.fetchval("SELECT count(*) FROM jimsapi_runs") == 1


async def test_a_thread_takes_messages_until_most_of_it_is_deleted(store: PostgresStore, outside: Any) -> None:
    first = make_plan()
    thread_id = (await store.accept(first)).thread.thread_id
    await store.finish(first.run_id, OWNER, completed(make_event()))
    # Another program keeps the deletion at its events, as a million of them would.
    async with outside.transaction():
        await outside.execute("SELECT FROM thread_events WHERE thread_id = $1 FOR UPDATE", thread_id)
        deleting = asyncio.ensure_future(store.delete_thread(thread_id, None))
        probe = await asyncpg.connect(store._target.dsn)
        async with asyncio.timeout(30):
            while not await probe.fetchval(WAITS_FOR_A_ROW):
                await asyncio.sleep(0.01)
            second = make_plan(selectors=(ById(thread_id),))
            await store.accept(second)
            await store.accept(make_plan("bob"))
            assert len(await contents(store, thread_id)) == 3
        await probe.close()
    assert await deleting == [second.run_id]
    with pytest.raises(ThreadNotFound):
        await store.thread(thread_id, None)
    assert await outside.fetchval("SELECT count(*) FROM thread_events WHERE thread_id = $1", thread_id) == 0


async def test_heartbeats_and_reads_go_on_while_much_is_deleted(
    store: PostgresStore, outside: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "BUSY_TIMEOUT", 4.0)
    plan = make_plan()
    thread_id = (await store.accept(plan)).thread.thread_id
    await outside.execute("SELECT pg_advisory_lock(uuid_hash_extended($1, 3))", thread_id)
    deleting = [asyncio.ensure_future(store.delete_thread(thread_id, None)) for _ in range(6)]
    reading = [asyncio.ensure_future(store.thread(thread_id, None)) for _ in range(20)]
    assert await store.heartbeat(OWNER, {plan.run_id}) == []
    assert {record.thread_id for record in await asyncio.gather(*reading)} == {thread_id}
    await outside.execute("SELECT pg_advisory_unlock_all()")
    outcomes = await asyncio.gather(*deleting, return_exceptions=True)
    assert [plan.run_id] in outcomes


@pytest.mark.parametrize("whole_contact", [True, False])
async def test_a_fork_that_copies_while_its_parent_is_deleted_leaves_no_half_and_no_rest(
    store: PostgresStore, outside: Any, whole_contact: bool
) -> None:
    plan = make_plan()
    parent_id = (await store.accept(plan)).thread.thread_id
    await store.finish(plan.run_id, OWNER, completed(make_event()))
    fork = ForkPlan(thread_id=uuid7(), parent_id=parent_id, acting_for=None)
    probe = await asyncpg.connect(store._target.dsn)

    async def is_seen(query: str) -> bool:
        return bool(await probe.fetchval(query))

    # Another transaction keeps the fork between its checks and its copies.
    holding = outside.transaction()
    await holding.start()
    await outside.execute("INSERT INTO threads VALUES ($1, NULL, NULL, now(), '{}')", fork.thread_id)
    forking = asyncio.ensure_future(store.fork(fork))
    async with asyncio.timeout(30):
        while not await is_seen(WAITS_FOR_A_ROW):
            await asyncio.sleep(0.01)
        deletion = store.delete_contact("ann") if whole_contact else store.delete_thread(parent_id, None)
        deleting = asyncio.ensure_future(deletion)
        while not deleting.done() and not await is_seen(WAITS_FOR_A_LOCK):
            await asyncio.sleep(0.01)
        await holding.rollback()
        await deleting
        # A contact may be deleted whole before the fork reads its new thread.
        with suppress(ThreadNotFound) if whole_contact else nullcontext():
            await forking
    await probe.close()
    left = {row[0] for row in await outside.fetch("SELECT thread_id FROM threads")}
    if whole_contact:
        assert left == set()
        assert await outside.fetchval("SELECT count(*) FROM thread_events") == 0
    else:
        assert left == {fork.thread_id}
        assert len(await contents(store, fork.thread_id)) == 2
