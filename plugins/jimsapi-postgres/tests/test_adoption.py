"""Background runs of dead processes: each is taken over once, by a process that knows that it was."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from database import Postgres
from jimsapi_postgres import peers
from jimsapi_postgres.store import PostgresStore
from proxy import Proxy

from jimsapi.testing.store import completed, contents, look_at, make_plan
from jimsapi.threads.errors import RunClosed, StoreUnavailable
from jimsapi.threads.ids import uuid7
from jimsapi.threads.run import ContextLimits, RunPlan, RunStatus

pytestmark = pytest.mark.anyio

CONTEXT = ContextLimits()
DEAD, ME, OTHER = uuid7(), uuid7(), uuid7()
SILENT = """
    INSERT INTO jimsapi_owners VALUES ($1, '-infinity') ON CONFLICT (owner) DO UPDATE SET beat_at = excluded.beat_at
"""


async def left_behind(store: PostgresStore, contacts: int = 1, waiting: int = 1) -> tuple[list[RunPlan], list[UUID]]:
    """Background runs that wait, each thread's behind one that runs; and the threads. Their owner has not died yet."""
    plans, threads = [], []
    for contact in map(str, range(contacts)):
        threads.append((await store.accept(make_plan(contact, "0", owner=DEAD))).thread.thread_id)
        for number in range(waiting):
            plan = make_plan(contact, str(number + 1), owner=DEAD, background=True)
            await store.accept(plan)
            plans.append(plan)
    return plans, threads


async def test_two_processes_that_take_over_at_once_take_each_run_once(
    store: PostgresStore, url: str, outside: Any
) -> None:
    plans, threads = await left_behind(store, contacts=20, waiting=5)
    await outside.execute(SILENT, DEAD)
    async with PostgresStore(url) as other:
        await asyncio.gather(store.recover(ME), other.recover(OTHER))
        taken = await asyncio.gather(store.adopt(ME), other.adopt(OTHER))
        assert sorted(one.run_id for share in taken for one in share) == sorted(plan.run_id for plan in plans)
        assert not any(await asyncio.gather(store.adopt(ME), other.adopt(OTHER)))
        for holder, owner, share in ((store, ME, taken[0]), (other, OTHER, taken[1])):
            assert await holder.heartbeat(owner, {one.run_id for one in share}) == []
            for one in share:
                assert await holder.start(one.run_id, owner, (), CONTEXT) is not None
                assert (await holder.finish(one.run_id, owner, completed())).counted
    for thread_id in threads:
        assert await contents(store, thread_id) == ["0", "1", "2", "3", "4", "5"]


async def test_nothing_of_the_living_is_taken_over(store: PostgresStore) -> None:
    await left_behind(store)
    await store.heartbeat(DEAD, set(store._waiting))
    assert await store.recover(ME) == 0
    assert await store.adopt(ME) == []


async def test_those_who_live_bury_the_dead_and_leave_what_waits_to_be_taken_over(
    url: str, outside: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "POLL_EVERY", 0.02)
    monkeypatch.setattr(peers, "SILENCE", timedelta(seconds=0.2))
    async with PostgresStore(url) as store:
        await store.recover(ME)
        (plan,), (thread_id,) = await left_behind(store)
        store._owners.discard(DEAD)
        await outside.execute(SILENT, DEAD)
        async with asyncio.timeout(20):
            while (await look_at(store, plan.run_id)).next_run != plan.run_id:  # the one before it was buried
                await asyncio.sleep(0.02)
        assert (await look_at(store, plan.run_id)).status is RunStatus.QUEUED
        async with asyncio.timeout(20):
            while not (adopted := await store.adopt(ME)):
                await asyncio.sleep(0.05)
        assert [one.run_id for one in adopted] == [plan.run_id]
        assert await contents(store, thread_id) == ["0"]


async def test_who_was_taken_for_dead_can_neither_start_nor_end_what_another_took_over(
    store: PostgresStore, outside: Any
) -> None:
    (plan,), _ = await left_behind(store)
    await outside.execute(SILENT, DEAD)
    await store.recover(ME)
    await store.adopt(ME)
    assert await store.heartbeat(DEAD, set()) == []
    with pytest.raises(RunClosed):
        await store.start(plan.run_id, DEAD, (), CONTEXT)
    assert not (await store.finish(plan.run_id, DEAD, completed())).counted
    assert await store.start(plan.run_id, ME, (), CONTEXT) is not None


async def test_a_run_that_starts_while_another_process_reaches_for_it_stays_where_it_is(
    store: PostgresStore, outside: Any
) -> None:
    """Its process was only stopped for a while."""
    plan = make_plan(owner=DEAD, background=True, conversation_start=True)
    thread_id = (await store.accept(plan)).thread.thread_id
    await outside.execute(SILENT, DEAD)
    await outside.execute("SELECT pg_advisory_lock(uuid_hash_extended($1, 3))", thread_id)
    starting = asyncio.ensure_future(store.start(plan.run_id, DEAD, (), CONTEXT))
    await _until_waiting(outside, 1)
    adopting = asyncio.ensure_future(store.adopt(ME))
    await _until_waiting(outside, 2)
    await outside.execute("SELECT pg_advisory_unlock_all()")
    assert await starting is not None
    assert await adopting == []
    assert (await store.finish(plan.run_id, DEAD, completed())).counted


async def test_what_was_taken_over_in_a_call_whose_answer_was_lost_is_not_lost(
    postgres: Postgres, url: str, outside: Any
) -> None:
    async with Proxy(postgres.port) as proxy, PostgresStore(url.replace(str(postgres.port), str(proxy.port))) as store:
        (plan,), _ = await left_behind(store)
        await outside.execute(SILENT, DEAD)
        await store.recover(ME)
        adopting = asyncio.ensure_future(store.adopt(ME))
        async with asyncio.timeout(30):
            for _ in range(2):  # it is asked twice
                proxy.lost.clear()
                proxy.lose_answer_to = b"jimsapi_adopt"
                await proxy.lost.wait()
        with pytest.raises(StoreUnavailable):
            await adopting
        assert await store.heartbeat(ME, set()) == []
        assert [one.run_id for one in await store.adopt(ME)] == [plan.run_id]
        # From here on it is one of ours, as any other.
        assert await store.adopt(ME) == []
        await store.heartbeat(ME, set())
        assert (await look_at(store, plan.run_id)).status is RunStatus.CANCELLED


async def test_who_was_stopped_itself_takes_nothing_over_at_once(
    url: str, outside: Any, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "POLL_EVERY", 0.02)
    monkeypatch.setattr(peers, "SILENCE", timedelta(seconds=1.5))
    async with PostgresStore(url) as store:
        (plan,), _ = await left_behind(store)
        await outside.execute(SILENT, DEAD)
        await store.recover(ME)
        async with asyncio.timeout(30):
            while store._peers is None or store._peers._checked_at is None:
                await asyncio.sleep(0.01)
        postgres.psql("SELECT pg_sleep(1)")  # in the loop's own thread
        assert await store.adopt(ME) == []
        async with asyncio.timeout(20):
            while not (adopted := await store.adopt(ME)):
                await asyncio.sleep(0.05)
        assert [one.run_id for one in adopted] == [plan.run_id]


async def _until_waiting(outside: Any, count: int) -> None:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'"
    async with asyncio.timeout(30):
        while await outside.fetchval(waiting) < count:
            await asyncio.sleep(0.01)


async def test_a_run_whose_message_another_program_has_deleted_does_not_start_again(
    store: PostgresStore, outside: Any
) -> None:
    plan = make_plan(owner=DEAD, background=True)
    await store.accept(plan)
    await outside.execute("DELETE FROM thread_events WHERE event_id = $1", plan.message.event_id)
    await outside.execute(SILENT, DEAD)
    store.max_restarts = 1
    assert await store.adopt(ME) == []
    assert await store.recover(ME) == 1
    assert (await look_at(store, plan.run_id)).status is RunStatus.INTERRUPTED


async def test_a_run_that_starts_again_is_counted_once_if_the_result_of_its_adoption_is_lost(
    postgres: Postgres, url: str, outside: Any
) -> None:
    through = url.replace(f":{postgres.port}/", ":{}/")
    async with Proxy(postgres.port) as proxy, PostgresStore(through.format(proxy.port)) as store:
        plan = make_plan(owner=DEAD, background=True)
        await store.accept(plan)
        await outside.execute(SILENT, DEAD)
        store.max_restarts = 5
        adopting = asyncio.ensure_future(store.adopt(ME))
        async with asyncio.timeout(30):
            for _ in range(2):  # it is asked twice
                proxy.lost.clear()
                proxy.lose_answer_to = b"jimsapi_adopt"
                await proxy.lost.wait()
        with pytest.raises(StoreUnavailable):
            await adopting
        assert await store.heartbeat(ME, set()) == []
        [adopted] = await store.adopt(ME)
        assert (adopted.run_id, adopted.message, adopted.restarts) == (plan.run_id, plan.message, 1)
