"""A store whose database goes away, goes silent, or refuses: nothing that was acknowledged is lost or doubled."""

import asyncio
from collections.abc import AsyncIterator
from itertools import count
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from database import Postgres
from jimsapi_postgres import connections
from jimsapi_postgres.errors import DataRefused
from jimsapi_postgres.store import PostgresStore
from proxy import Proxy

from jimsapi.testing.store import OWNER, all_events, completed, contents, make_event, make_plan
from jimsapi.threads.errors import RunClosed, StoreUnavailable, StoreUnusable
from jimsapi.threads.event import NewEvent
from jimsapi.threads.ids import uuid7
from jimsapi.threads.run import ById, ContextLimits, Outcome, RunPlan, RunStatus
from tests.waiting import eventually, insist

pytestmark = pytest.mark.anyio

KILL_ALL = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
WAITING = """
    SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'
"""
CLIENTS = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
CONTEXT = ContextLimits()


@pytest.fixture
async def proxy(postgres: Postgres) -> AsyncIterator[Proxy]:
    async with Proxy(postgres.port) as proxy:
        yield proxy


@pytest.fixture
async def proxied(proxy: Proxy, url: str, postgres: Postgres) -> AsyncIterator[PostgresStore]:
    async with PostgresStore(url.replace(str(postgres.port), str(proxy.port))) as store:
        yield store


async def test_nothing_acknowledged_is_lost_when_postgresql_restarts_under_load(own_postgres: Postgres) -> None:
    async with PostgresStore(own_postgres.url()) as store:
        acknowledged: list[tuple[UUID, UUID, UUID]] = []
        failures: list[StoreUnavailable] = []
        stop = asyncio.Event()

        async def client(number: int) -> None:
            for turn in count():
                if stop.is_set():
                    return
                plan, answer = make_plan(f"{number}-{turn // 5}"), make_event()
                try:
                    accepted = await store.accept(plan)
                    settled = await store.finish(plan.run_id, OWNER, completed(answer))
                except StoreUnavailable as failure:
                    failures.append(failure)
                    continue
                if settled.counted:  # not so behind a run that was accepted although its caller heard of a failure
                    acknowledged.append((accepted.thread.thread_id, plan.message.event_id, answer.event_id))

        async def until(more_than: int) -> None:
            while len(acknowledged) <= more_than:
                await asyncio.sleep(0.01)

        clients = [asyncio.ensure_future(client(number)) for number in range(16)]
        try:
            for restart in (own_postgres.stop, own_postgres.crash):
                async with asyncio.timeout(60):
                    await until(len(acknowledged) + 200)
                    await asyncio.to_thread(restart)
                    while not failures:
                        await asyncio.sleep(0.01)
                    with pytest.raises(StoreUnavailable):
                        await store.ping()
                    await asyncio.to_thread(own_postgres.start)
                    failures.clear()
                    await until(len(acknowledged) + 200)
        finally:
            stop.set()
            await asyncio.gather(*clients)
        await store.ping()
        threads = {thread_id for thread_id, _, _ in acknowledged}
        stored = {thread_id: [event.event_id for event in await all_events(store, thread_id)] for thread_id in threads}
        for thread_id, message, answer in acknowledged:
            assert stored[thread_id].count(message) == 1
            assert stored[thread_id].count(answer) == 1


async def test_connections_that_the_server_closed_are_replaced_unnoticed(
    store: PostgresStore, postgres: Postgres, database: str
) -> None:
    plan = make_plan()
    accepted = await store.accept(plan)
    thread_id = accepted.thread.thread_id
    postgres.psql(KILL_ALL, database)
    assert (await store.finish(plan.run_id, OWNER, completed(make_event()))).counted
    postgres.psql(KILL_ALL, database)
    assert len((await store.events(thread_id, None, 10, None)).events) == 3
    postgres.psql(KILL_ALL, database)
    assert (await store.accept(make_plan())).status is RunStatus.RUNNING


async def test_an_accept_whose_commit_is_in_doubt_is_settled_by_its_run(proxied: PostgresStore, proxy: Proxy) -> None:
    for plan in (make_plan(), make_plan("bob"), make_plan("bob"), make_plan("cid", conversation_start=True)):
        proxy.lost.clear()
        proxy.lose_answer_to = b"jimsapi_accept"
        async with asyncio.timeout(30):
            accepted = await proxied.accept(plan)
            await proxy.lost.wait()
        expected = await proxied.accept(plan)
        assert accepted.thread == expected.thread
        assert accepted.status is expected.status
        assert accepted.created_new_thread is expected.created_new_thread
        assert [row.event_type for row in accepted.stored] == [row.event_type for row in expected.stored]
        assert (accepted.snapshot is None) is (expected.snapshot is None)
        types = [event.event_type for event in await all_events(proxied, accepted.thread.thread_id)]
        assert types.count("comm.user_message") == {"ann": 1, "bob": 1, "cid": 0}[plan.contact_id]


async def test_a_finish_whose_commit_is_in_doubt_counts_once(proxied: PostgresStore, proxy: Proxy) -> None:
    for events in ([], [make_event(), make_event("rag.x")]):
        plan, follower = make_plan(), make_plan()
        accepted = await proxied.accept(plan)
        await proxied.accept(follower)
        proxy.lost.clear()
        proxy.lose_answer_to = b"jimsapi_finish"
        async with asyncio.timeout(30):
            settled = await proxied.finish(plan.run_id, OWNER, completed(*events))
            await proxy.lost.wait()
        assert settled.counted
        assert settled.status is RunStatus.COMPLETED
        assert settled.next_run == follower.run_id
        assert [row.event_type for row in settled.stored] == [event.event_type for event in events]
        ids = [event.event_id for event in await all_events(proxied, accepted.thread.thread_id)]
        assert [ids.count(event.event_id) for event in events] == [1] * len(events)
        await proxied.cancel(follower.run_id)


async def test_a_finish_that_somebody_else_forestalled_does_not_count_even_in_doubt(
    proxied: PostgresStore, proxy: Proxy, url: str
) -> None:
    plan = make_plan()
    await proxied.accept(plan)
    async with PostgresStore(url) as other:
        await other.cancel(plan.run_id)
    proxy.lose_answer_to = b"jimsapi_finish"
    settled = await proxied.finish(plan.run_id, OWNER, completed(make_event()))
    assert proxy.lost.is_set()
    assert (settled.counted, settled.status) == (False, RunStatus.CANCELLED)


async def test_an_accept_that_is_repeated_while_the_first_is_still_under_way_is_the_same_one(
    proxied: PostgresStore, proxy: Proxy, url: str
) -> None:
    plan = make_plan()
    thread_id = (await proxied.accept(plan)).thread.thread_id
    locker = await asyncpg.connect(url)
    for expected in (RunStatus.QUEUED, RunStatus.RUNNING):
        await locker.execute("SELECT pg_advisory_lock(uuid_hash_extended($1, 3))", thread_id)
        repeated = make_plan(selectors=(ById(thread_id),))
        accepting = asyncio.ensure_future(proxied.accept(repeated))
        async with asyncio.timeout(30):
            for waiting in (1, 2):
                while await locker.fetchval(WAITING) < waiting:
                    await asyncio.sleep(0.01)
                if waiting == 1:
                    proxy.cut_all()
            await locker.execute("SELECT pg_advisory_unlock_all()")
            assert (await accepting).status is expected
        if expected is RunStatus.QUEUED:
            await proxied.cancel(repeated.run_id)
            await proxied.finish(plan.run_id, OWNER, completed())
    await locker.close()


async def test_a_start_and_a_cancel_in_doubt_are_repeated(proxied: PostgresStore, proxy: Proxy) -> None:
    plan = make_plan(conversation_start=True)
    await proxied.accept(plan)
    proxy.lose_answer_to = b"jimsapi_start"
    started = await proxied.start(plan.run_id, OWNER, [make_event()], CONTEXT)
    assert proxy.lost.is_set()
    assert started is not None
    assert len(started.stored) == 2
    assert len(started.snapshot.rows) == 3
    proxy.lost.clear()
    proxy.lose_answer_to = b"jimsapi_end"
    assert (await proxied.cancel(plan.run_id)).status is RunStatus.CANCELLED
    assert proxy.lost.is_set()
    with pytest.raises(RunClosed):
        await proxied.start(plan.run_id, OWNER, [], CONTEXT)


async def test_a_run_that_ends_though_its_start_was_in_doubt_waits_for_no_turn_any_more(store: PostgresStore) -> None:
    first, second = make_plan(), make_plan()
    for plan in (first, second):
        await store.accept(plan)
    await store.finish(first.run_id, OWNER, completed())
    assert await store.start(second.run_id, OWNER, (), second.context) is not None
    store._waiting.add(second.run_id)  # as if the answer had been lost
    await store.finish(second.run_id, OWNER, Outcome(RunStatus.INTERRUPTED))
    assert second.run_id not in store._waiting


async def test_a_server_that_goes_silent_is_given_up(
    postgres: Postgres, url: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "ANSWER_TIMEOUT", 1.5)
    monkeypatch.setattr(connections, "CHECK_TIMEOUT", 1.5)
    proxied_url = url.replace(str(postgres.port), str(proxy.port)) + "?connect_timeout=1.5"
    async with PostgresStore(proxied_url) as store:
        plan = make_plan()
        await store.accept(plan)
        proxy.silent = True
        refused = await asyncio.gather(
            store.finish(plan.run_id, OWNER, completed()),
            store.accept(make_plan("bob")),
            store.thread(uuid7(), None),
            store.ping(),
            return_exceptions=True,
        )
        assert {type(error) for error in refused} == {StoreUnavailable}  # the API's table goes by the very type
        proxy.silent = False
        settled = await insist(lambda: store.finish(plan.run_id, OWNER, completed()))
        assert settled.status is RunStatus.COMPLETED
        await insist(lambda: store.accept(make_plan("cid")))


async def test_a_server_that_became_read_only_is_left_until_it_takes_writes(own_postgres: Postgres) -> None:
    async with PostgresStore(own_postgres.url()) as store:
        plan = make_plan()
        await store.accept(plan)
        before = set(own_postgres.psql(CLIENTS).split())
        _set(own_postgres, "default_transaction_read_only", "on")
        with pytest.raises(StoreUnavailable):
            await store.finish(plan.run_id, OWNER, completed())
        with pytest.raises(StoreUnavailable):
            await store.ping()
        _set(own_postgres, "default_transaction_read_only", "off")
        assert (await insist(lambda: store.finish(plan.run_id, OWNER, completed()))).counted
        await insist(store.ping)
        assert before - set(own_postgres.psql(CLIENTS).split())


async def test_an_item_that_cannot_be_stored_fails_alone(store: PostgresStore) -> None:
    good, bad = [make_plan(str(number)) for number in range(5)], make_plan("bad")
    bad = RunPlan(
        run_id=bad.run_id, owner=OWNER, contact_id="bad", acting_for=None, selectors=bad.selectors,
        message=NewEvent(uuid7(), "comm.user_message", b"{"), thread_config=b"{}",
    )  # fmt: skip
    outcomes = await asyncio.gather(*map(store.accept, [*good[:2], bad, *good[2:]]), return_exceptions=True)
    assert isinstance(outcomes.pop(2), DataRefused)
    assert not any(isinstance(outcome, BaseException) for outcome in outcomes)
    finishes = [store.finish(plan.run_id, OWNER, completed(make_event())) for plan in good[1:]]
    spoilt = store.finish(good[0].run_id, OWNER, completed(NewEvent(uuid7(), "x" * 300, b"{}")))
    refused, *settled = await asyncio.gather(spoilt, *finishes, return_exceptions=True)
    assert isinstance(refused, DataRefused)
    assert all(not isinstance(one, BaseException) and one.counted for one in settled)


async def test_a_thread_that_somebody_locks_holds_up_its_own_messages_only(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connections.SESSION, "lock_timeout", "200ms")
    async with PostgresStore(url) as store:
        plan = make_plan("ann")
        thread_id = (await store.accept(plan)).thread.thread_id
        locker = await asyncpg.connect(url)
        await locker.execute("SELECT pg_advisory_lock(uuid_hash_extended($1, 3))", thread_id)
        messages = [make_plan("ann", selectors=(ById(thread_id),)), make_plan("bob"), make_plan("cid")]
        locked, *others = await asyncio.gather(*map(store.accept, messages), return_exceptions=True)
        assert isinstance(locked, StoreUnavailable)
        assert not any(isinstance(other, BaseException) for other in others)
        await locker.close()
        assert (await store.accept(messages[0])).status is RunStatus.QUEUED


async def test_callers_that_leave_take_no_connection_with_them(store: PostgresStore) -> None:
    plan = make_plan()
    thread_id = (await store.accept(plan)).thread.thread_id
    for _ in range(5):
        leaving: list[asyncio.Future[Any]] = [asyncio.ensure_future(store.thread(thread_id, None)) for _ in range(20)]
        leaving += [asyncio.ensure_future(store.heartbeat(OWNER, {plan.run_id})) for _ in range(20)]
        await asyncio.sleep(0)
        for task in leaving[::2]:
            task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)
    async with asyncio.timeout(30):
        await asyncio.gather(*[store.thread(thread_id, None) for _ in range(20)])
        assert (await store.finish(plan.run_id, OWNER, completed())).counted


async def test_a_store_that_is_not_open_says_so(url: str) -> None:
    store = PostgresStore(url)
    for _ in range(2):
        for call in (store.ping(), store.accept(make_plan()), store.cancel(uuid7())):
            with pytest.raises(StoreUnavailable, match="not open"):
                await call
        async with store:
            pass


async def test_what_waits_is_stored_before_the_store_closes(url: str) -> None:
    plans = [make_plan(text=str(number)) for number in range(5)]
    async with PostgresStore(url) as store:
        waiting = [asyncio.ensure_future(store.accept(plan)) for plan in plans]
        await asyncio.sleep(0)
    assert len({(await one).thread.thread_id for one in waiting}) == 1
    async with PostgresStore(url) as store:
        thread_id = (await waiting[0]).thread.thread_id
        assert await contents(store, thread_id) == ["0"]


async def test_no_message_holds_the_password(postgres: Postgres, database: str) -> None:
    url = f"postgresql://postgres:geheim@127.0.0.1:1/{database}"
    store = PostgresStore(url)
    assert "geheim" not in store.name + repr(vars(store))
    with pytest.raises(StoreUnusable) as refused:
        await store.__aenter__()
    assert "geheim" not in str(refused.value)
    assert "127.0.0.1:1" in str(refused.value)
    with pytest.raises(StoreUnusable, match="does not exist"):
        await PostgresStore(postgres.url("nowhere")).__aenter__()
    with pytest.raises(StoreUnusable, match="role"):
        await PostgresStore(postgres.url(database, user="nobody")).__aenter__()


def _set(server: Postgres, name: str, value: str) -> None:
    server.psql(
        f"SET default_transaction_read_only = off;\nALTER SYSTEM SET {name} = '{value}';\nSELECT pg_reload_conf()"
    )
    eventually(lambda: server.psql(f"SHOW {name}").strip() == value)  # the server has told all of its processes
