"""Idempotency keys in a database that several processes and other programs share."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID

import pytest
from database import Postgres
from jimsapi_postgres.store import PostgresStore
from proxy import Proxy

from jimsapi.testing.store import (
    OWNER,
    all_events,
    completed,
    contents,
    event_types,
    make_key,
    make_plan,
)
from jimsapi.threads.errors import KeyUsed
from jimsapi.threads.event import THREAD_CREATED
from jimsapi.threads.run import Accepted, ByExternalId, ById, Latest, New, Outcome, RunStatus, Selector
from jimsapi.threads.store import CommitRecord

pytestmark = pytest.mark.anyio

DELETE_MESSAGE = "DELETE FROM thread_events WHERE event_id = $1"
DELETE_THREAD = """
    WITH
        runs AS (DELETE FROM jimsapi_runs WHERE thread_id = $1),
        events AS (DELETE FROM thread_events WHERE thread_id = $1)
    DELETE FROM threads WHERE thread_id = $1
"""
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'"
WAITS = """
    SELECT count(*) FILTER (WHERE granted), max(classid::text || ' ' || objid::text) FILTER (WHERE NOT granted)
    FROM pg_locks
    WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    GROUP BY pid
    HAVING bool_or(NOT granted)
"""
"""For each session that waits for a lock: how many it has, and the one that it waits for."""
OF_THREAD = "SELECT run_id FROM jimsapi_runs WHERE thread_id = $1 ORDER BY seq"
INTERRUPTED = Outcome(RunStatus.INTERRUPTED)


@pytest.fixture
async def two(url: str) -> AsyncIterator[tuple[PostgresStore, PostgresStore]]:
    async with AsyncExitStack() as stack:
        pair = [await stack.enter_async_context(PostgresStore(url)) for _ in range(2)]
        yield pair[0], pair[1]


@pytest.fixture
async def store(two: tuple[PostgresStore, PostgresStore]) -> PostgresStore:
    return two[0]


async def test_equal_requests_through_two_processes_make_one_run(two: tuple[PostgresStore, PostgresStore]) -> None:
    for contact in map(str, range(10)):
        key = make_key()
        plans = [make_plan(contact, idempotency=key) for _ in range(20)]
        calls = [two[number % 2].accept(plan) for number, plan in enumerate(plans)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        (winner,) = [plan for plan, answer in zip(plans, answers, strict=True) if isinstance(answer, Accepted)]
        assert [answer.run_id for answer in answers if isinstance(answer, KeyUsed)] == [winner.run_id] * 19


async def test_an_accept_with_a_key_whose_commit_is_in_doubt_is_settled_by_its_run(
    postgres: Postgres, url: str
) -> None:
    async with Proxy(postgres.port) as proxy, PostgresStore(url.replace(str(postgres.port), str(proxy.port))) as store:
        first = make_plan(idempotency=make_key())
        for plan in (first, make_plan(text="again", idempotency=first.idempotency)):
            proxy.lose_answer_to = b"jimsapi_accept_with_key"
            async with asyncio.timeout(30):
                accepted = await store.accept(plan)
                await proxy.lost.wait()
            assert accepted.status is RunStatus.RUNNING
            await store.finish(plan.run_id, OWNER, INTERRUPTED)
            proxy.lost.clear()
        assert await contents(store, accepted.thread.thread_id) == ["Hello"]


async def test_who_waits_for_a_key_holds_up_nobody_who_has_it(
    two: tuple[PostgresStore, PostgresStore], outside: Any
) -> None:
    """Locks are taken in one order: a key, then contacts and external ids, then threads."""
    first = make_plan(idempotency=make_key())
    thread_id = (await two[0].accept(first)).thread.thread_id
    await two[0].finish(first.run_id, OWNER, INTERRUPTED)
    selectors: list[tuple[Selector, ...]] = [
        (Latest(), New()),
        (ById(thread_id),),
        (ByExternalId("x"), New(external_id="x")),
        (New(),),
    ]
    # Of several contacts, since a process takes one call at a time for a contact.
    plans = [
        make_plan(f"contact {number}", selectors=one, idempotency=first.idempotency)
        for number, one in enumerate(selectors)
    ]
    async with outside.transaction():
        await outside.execute("SELECT pg_advisory_xact_lock(uuid_hash_extended($1, 3))", thread_id)
        accepting = []
        for number, plan in enumerate(plans):
            accepting.append(asyncio.ensure_future(two[number % 2].accept(plan)))
            async with asyncio.timeout(30):
                while len(waits := await outside.fetch(WAITS)) <= number:
                    await asyncio.sleep(0.01)
        # The first one has the key, and waits for the thread; the others wait for the key, and have nothing.
        assert sorted(held for held, _ in waits) == [0, 0, 0, 1]
        assert sorted(Counter(waited_for for _, waited_for in waits).values()) == [1, 3]
    answers = await asyncio.gather(*accepting, return_exceptions=True)
    assert isinstance(answers[0], Accepted)
    assert [answer.run_id for answer in answers if isinstance(answer, KeyUsed)] == [plans[0].run_id] * 3


async def test_a_message_that_another_program_took_out_enters_again_under_its_old_identifier(
    store: PostgresStore, outside: Any
) -> None:
    first = make_plan(idempotency=make_key())
    thread_id = (await store.accept(first)).thread.thread_id
    await store.finish(first.run_id, OWNER, INTERRUPTED)
    await outside.execute(DELETE_MESSAGE, first.message.event_id)
    again = make_plan(idempotency=first.idempotency)
    accepted = await store.accept(again)
    assert [UUID(str(row.event_id)) for row in accepted.stored] == [first.message.event_id]
    assert accepted.snapshot is not None
    assert len(accepted.snapshot.rows) == 2
    await store.finish(again.run_id, OWNER, INTERRUPTED)
    # The same for one that waits, and loses its message only then.
    before, waiting = make_plan(), make_plan(idempotency=first.idempotency)
    await store.accept(before)
    assert (await store.accept(waiting)).status is RunStatus.QUEUED
    await store.finish(before.run_id, OWNER, completed())
    await outside.execute(DELETE_MESSAGE, first.message.event_id)
    started = await store.start(waiting.run_id, OWNER, (), waiting.context)
    assert started is not None
    assert [UUID(str(row.event_id)) for row in started.stored] == [first.message.event_id]
    assert await event_types(store, thread_id) == [THREAD_CREATED, "comm.user_message", "comm.user_message"]


async def test_a_thread_that_is_deleted_while_a_request_waits_for_it_leaves_the_key_free(
    store: PostgresStore, outside: Any
) -> None:
    first = make_plan(idempotency=make_key())
    thread_id = (await store.accept(first)).thread.thread_id
    await store.finish(first.run_id, OWNER, INTERRUPTED)
    async with outside.transaction():
        await outside.execute("SELECT pg_advisory_xact_lock(uuid_hash_extended($1, 3))", thread_id)
        accepting = asyncio.ensure_future(store.accept(make_plan(idempotency=first.idempotency)))
        async with asyncio.timeout(30):
            while not await outside.fetchval(WAITING):
                await asyncio.sleep(0.01)
        await outside.execute(DELETE_THREAD, thread_id)
    accepted = await accepting
    assert accepted.created_new_thread
    assert accepted.thread.thread_id != thread_id
    assert len(await all_events(store, accepted.thread.thread_id)) == 2


async def test_a_thread_that_another_program_deleted_leaves_the_key_free(store: PostgresStore, outside: Any) -> None:
    first = make_plan(idempotency=make_key())
    thread_id = (await store.accept(first)).thread.thread_id
    await store.finish(first.run_id, OWNER, INTERRUPTED)
    await outside.execute("DELETE FROM threads WHERE thread_id = $1", thread_id)
    assert (await store.accept(make_plan(idempotency=first.idempotency))).created_new_thread


async def test_messages_with_and_without_keys_share_calls_and_keep_their_order(
    store: PostgresStore, outside: Any
) -> None:
    calls: list[CommitRecord] = []
    store.on_commit = calls.append
    interrupted = [make_plan(f"old {number}", idempotency=make_key()) for number in range(3)]
    for plan in interrupted:
        await store.accept(plan)
        await store.finish(plan.run_id, OWNER, INTERRUPTED)
    calls.clear()
    used = make_key()
    plans = [make_plan("ann", idempotency=make_key() if number % 2 else None) for number in range(10)]
    plans += [make_plan(str(number), idempotency=make_key()) for number in range(20)]
    plans += [make_plan("bob", idempotency=used) for _ in range(5)]
    plans += [make_plan("cid", idempotency=plan.idempotency) for plan in interrupted]
    answers = await asyncio.gather(*map(store.accept, plans), return_exceptions=True)
    assert len(calls) < 20
    taken = [answer for answer in answers if isinstance(answer, Accepted)]
    assert len(taken) == len(plans) - 4
    assert sum(isinstance(answer, KeyUsed) for answer in answers) == 4
    assert [answer.stored for answer in taken[-3:]] == [[]] * 3
    assert all(answer.snapshot is not None and answer.status is RunStatus.RUNNING for answer in taken[10:])
    in_order = [row[0] for row in await outside.fetch(OF_THREAD, taken[0].thread.thread_id)]
    assert in_order == [plan.run_id for plan in plans[:10]]


async def test_a_message_with_a_key_that_cannot_be_stored_fails_alone(store: PostgresStore) -> None:
    plans = [make_plan(f"contact {number}", idempotency=make_key()) for number in range(9)]
    plans[4] = make_plan("spoilt", selectors=(New(external_id="\ud800"),), idempotency=make_key())
    plans[6] = make_plan("spoilt", selectors=(New(config={"a": "\0"}),), idempotency=make_key())
    answers = await asyncio.gather(*map(store.accept, plans), return_exceptions=True)
    assert [isinstance(answer, Accepted) for answer in answers] == [number not in (4, 6) for number in range(9)]
