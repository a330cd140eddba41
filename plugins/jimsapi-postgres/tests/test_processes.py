"""Several processes on one database: one queue for each thread, and turns that pass between them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from database import Postgres
from jimsapi_postgres import peers
from jimsapi_postgres.store import PostgresStore

from jimsapi.testing.store import all_events, all_threads, completed, contents, look_at, make_event, make_plan
from jimsapi.threads.ids import uuid7
from jimsapi.threads.run import ById, ContextLimits, RunPlan, RunStatus

pytestmark = pytest.mark.anyio

CONTEXT = ContextLimits()
KILL_ALL = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


class Process:
    """A store and an owner, as a server process has them; it waits for its turns as the run service does."""

    def __init__(self, url: str) -> None:
        self.store = PostgresStore(url)
        self.store.on_turn = self.give_turn
        self.owner = uuid7()
        self.turns: dict[UUID, asyncio.Event] = {}
        self.told: list[UUID] = []

    async def __aenter__(self) -> "Process":
        await self.store.__aenter__()
        await self.store.recover(self.owner)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.store.__aexit__(None, None, None)

    def give_turn(self, run_id: UUID | None) -> None:
        if run_id is not None:
            self.told.append(run_id)
            if run_id in self.turns:
                self.turns[run_id].set()

    async def accept(self, contact_id: str, text: str = "Hello", **plan: object) -> tuple[RunPlan, UUID, RunStatus]:
        made = make_plan(contact_id, text, owner=self.owner, **plan)  # type: ignore[arg-type]  # passed on
        self.turns[made.run_id] = asyncio.Event()
        accepted = await self.store.accept(made)
        return made, accepted.thread.thread_id, accepted.status

    async def answer(self, contact_id: str, text: str) -> UUID:
        """A whole turn: accept, wait, start, finish."""
        plan, thread_id, status = await self.accept(contact_id, text)
        turn = self.turns[plan.run_id]
        while status is RunStatus.QUEUED:
            await turn.wait()
            turn.clear()
            if await self.store.start(plan.run_id, self.owner, (), CONTEXT) is not None:
                break
        answer = make_event(data={"content": f"to {text}"})
        settled = await self.store.finish(plan.run_id, self.owner, completed(answer))
        assert settled.counted
        self.give_turn(settled.next_run)
        return thread_id


@pytest.fixture
async def two(url: str) -> AsyncIterator[tuple[Process, Process]]:
    async with AsyncExitStack() as stack:
        yield (
            await stack.enter_async_context(Process(url)),
            await stack.enter_async_context(Process(url)),
        )


@pytest.fixture(autouse=True)
def no_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns come by notice alone, unless a test says otherwise."""
    monkeypatch.setattr(peers, "POLL_EVERY", 3600.0)


async def test_fifty_first_messages_through_two_processes_make_one_thread(two: tuple[Process, Process]) -> None:
    for contact in map(str, range(20)):  # once may be luck
        taken = await asyncio.gather(*[two[number % 2].accept(contact, str(number)) for number in range(50)])
        assert len({thread_id for _, thread_id, _ in taken}) == 1
        assert [status for _, _, status in taken].count(RunStatus.RUNNING) == 1
        assert len(await all_threads(two[0].store, contact)) == 1


async def test_a_hundred_messages_through_two_processes_are_answered_one_after_another(
    two: tuple[Process, Process],
) -> None:
    await _listening(*two)
    async with asyncio.timeout(60):
        threads = await asyncio.gather(*[two[number % 2].answer("ann", str(number)) for number in range(100)])
    assert len(set(threads)) == 1
    said = await contents(two[1].store, threads[0])
    assert len(said) == 200
    assert said[1::2] == [f"to {message}" for message in said[::2]]
    times = [event.created_at for event in await all_events(two[0].store, threads[0])]
    assert times == sorted(set(times))


async def test_threads_of_two_processes_are_answered_at_once(two: tuple[Process, Process]) -> None:
    async with asyncio.timeout(60):
        await asyncio.gather(*[two[number % 2].answer(str(number // 4), str(number)) for number in range(200)])
    for contact in map(str, range(50)):
        assert len(await all_threads(two[0].store, contact)) == 1


async def test_whoever_ends_a_run_tells_the_owner_of_the_next_one_and_nobody_else(two: tuple[Process, Process]) -> None:
    a, b = two
    await _listening(a, b)
    first, thread_id, _ = await a.accept("ann")
    foreign, _, _ = await b.accept("ann")
    own, _, _ = await a.accept("ann")
    assert (await a.store.finish(first.run_id, a.owner, completed())).next_run == foreign.run_id
    async with asyncio.timeout(30):
        await b.turns[foreign.run_id].wait()
    assert await b.store.start(foreign.run_id, b.owner, (), CONTEXT) is not None
    # A cancelled run, a deleted thread: whoever waits is woken, and finds out by asking.
    await b.store.cancel(own.run_id)
    async with asyncio.timeout(30):
        await a.turns[own.run_id].wait()
    last, _, _ = await b.accept("ann", selectors=(ById(thread_id),))
    await a.store.delete_thread(thread_id, None)
    async with asyncio.timeout(30):
        await b.turns[last.run_id].wait()
    assert set(a.told) == {own.run_id}
    assert set(b.told) >= {foreign.run_id, last.run_id}


async def test_a_heartbeat_that_ends_a_run_passes_the_turn_on(two: tuple[Process, Process]) -> None:
    a, b = two
    await _listening(a, b)
    await a.accept("ann")
    follower, _, _ = await b.accept("ann")
    assert await a.store.heartbeat(a.owner, set()) == [follower.run_id]
    async with asyncio.timeout(30):
        await b.turns[follower.run_id].wait()


async def test_a_turn_whose_notice_was_lost_is_found(
    two: tuple[Process, Process], postgres: Postgres, database: str
) -> None:
    a, b = two
    await _listening(a, b)
    first, _, _ = await a.accept("ann")
    waiting, _, _ = await b.accept("ann")
    postgres.psql(KILL_ALL, database)
    await a.store.finish(first.run_id, a.owner, completed())
    async with asyncio.timeout(30):
        await b.turns[waiting.run_id].wait()


async def test_a_turn_is_found_by_looking_now_and_then(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "POLL_EVERY", 0.05)
    monkeypatch.setattr(peers, "CHANNEL", "somewhere_else")
    async with Process(url) as a, Process(url) as b:
        first, _, _ = await a.accept("ann")
        waiting, _, _ = await b.accept("ann")
        assert b.told == []
        await a.store.finish(first.run_id, a.owner, completed())
        async with asyncio.timeout(30):
            await b.turns[waiting.run_id].wait()


async def test_a_start_ends_the_runs_of_the_silent_and_leaves_those_of_the_living(
    two: tuple[Process, Process], postgres: Postgres, database: str, url: str
) -> None:
    a, b = two
    silent, silent_thread, _ = await a.accept("ann", "lost")
    living, _, _ = await b.accept("bob")
    waiting, _, _ = await b.accept("ann", "waits")
    async with Process(url):
        assert (await look_at(b.store, silent.run_id)).status is RunStatus.RUNNING  # it was heard a moment ago
    postgres.psql(
        f"UPDATE jimsapi_owners SET beat_at = clock_timestamp() - interval '2 hours' WHERE owner = '{a.owner}'",
        database,
    )
    async with Process(url) as c:
        assert (await look_at(c.store, silent.run_id)).status is RunStatus.INTERRUPTED
        assert (await look_at(c.store, living.run_id)).status is RunStatus.RUNNING
        assert (await look_at(c.store, waiting.run_id)).status is RunStatus.QUEUED
        async with asyncio.timeout(30):
            await b.turns[waiting.run_id].wait()
    assert await contents(b.store, silent_thread) == ["lost"]
    assert not (await a.store.finish(silent.run_id, a.owner, completed(make_event()))).counted


async def test_those_who_live_bury_the_dead(
    url: str, postgres: Postgres, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "POLL_EVERY", 0.05)
    async with Process(url) as dead:
        lost, thread_id, _ = await dead.accept("ann", "lost")
        unheard, _, _ = await dead.accept("ann", "unheard")
    async with Process(url) as living:
        assert (await look_at(living.store, lost.run_id)).status is RunStatus.RUNNING
        monkeypatch.setattr(peers, "SILENCE", timedelta(seconds=0.2))
        postgres.psql(f"UPDATE jimsapi_owners SET beat_at = '-infinity' WHERE owner = '{dead.owner}'", database)
        async with asyncio.timeout(20):
            while (await look_at(living.store, unheard.run_id)).status is not RunStatus.INTERRUPTED:
                await asyncio.sleep(0.02)
        assert (await look_at(living.store, lost.run_id)).status is RunStatus.INTERRUPTED
        assert await contents(living.store, thread_id) == ["lost", "unheard"]


async def test_a_server_that_was_just_started_declares_nobody_dead(own_postgres: Postgres) -> None:
    async with Process(own_postgres.url()) as a:
        running, _, _ = await a.accept("ann")
        own_postgres.psql("UPDATE jimsapi_owners SET beat_at = clock_timestamp() - interval '10 minutes'")
        async with Process(own_postgres.url()) as b:
            assert (await look_at(b.store, running.run_id)).status is RunStatus.RUNNING


async def _listening(*processes: Process) -> None:
    """Wait until these processes hear notices."""
    for process in processes:
        probe = uuid7()
        process.turns[probe] = asyncio.Event()
        pool = process.store._pool
        assert pool is not None
        async with asyncio.timeout(30):
            while not process.turns[probe].is_set():
                await pool.run_with_retry(partial(_notify, text=f"{process.owner} {probe}"))
                await asyncio.sleep(0.01)
        process.told.clear()


async def _notify(connection: Any, text: str) -> None:
    await connection.execute("SELECT pg_notify('jimsapi_turn', $1)", text)
