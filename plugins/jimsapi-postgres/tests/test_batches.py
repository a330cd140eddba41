"""Messages and outcomes that share a call: their order, and what one of them does to the others."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest
from database import Postgres
from jimsapi_postgres.store import PostgresStore
from proxy import Proxy

from jimsapi.testing.store import OWNER, all_events, all_threads, completed, make_event, make_key, make_plan
from jimsapi.threads.errors import StoreUnavailable
from jimsapi.threads.run import ByExternalId, FailureKind, New, Outcome, RunPlan, RunStatus
from jimsapi.threads.store import CommitRecord

pytestmark = pytest.mark.anyio

TAKEN = "SELECT run_id FROM jimsapi_runs ORDER BY seq"
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'"
EVENT = "INSERT INTO thread_events (thread_id, event_id, created_at, event_type) VALUES ($1, $2, '{}', 'rag.x')"


async def test_messages_of_a_contact_that_come_while_an_earlier_one_is_held_up_do_not_overtake_it(
    store: PostgresStore, outside: Any
) -> None:
    await outside.execute("SELECT pg_advisory_lock(hashtextextended('ann', 1))")
    plans = [make_plan("ann", str(number)) for number in range(6)]
    accepting = [asyncio.ensure_future(store.accept(plans[0]))]
    async with asyncio.timeout(30):
        while not await outside.fetchval(WAITING):
            await asyncio.sleep(0.01)
        for number, plan in enumerate(plans[1:]):
            accepting.append(asyncio.ensure_future(store.accept(plan)))
            await store.accept(make_plan(f"other {number}"))  # the other lane is at work meanwhile
        assert await outside.fetchval(WAITING) == 1
        await outside.execute("SELECT pg_advisory_unlock_all()")
        taken = await asyncio.gather(*accepting)
    assert len({accepted.thread.thread_id for accepted in taken}) == 1
    stored = [row[0] for row in await outside.fetch(TAKEN)]
    assert [run_id for run_id in stored if run_id in {plan.run_id for plan in plans}] == [plan.run_id for plan in plans]


async def test_a_message_whose_resolver_gave_rubbish_fails_alone(store: PostgresStore) -> None:
    rubbish: list[Any] = [
        New(config={"a": object()}),
        New(config={"a": "\0"}),
        New(external_id="\ud800"),
        ByExternalId("\0"),
        ByExternalId(5),  # type: ignore[arg-type]  # rubbish
    ]
    for number, selector in enumerate(rubbish):
        spoilt = make_plan("spoilt", selectors=(selector,))
        others = [make_plan(f"{number} {name}") for name in ("before", "after")]
        before, failed, after = await asyncio.gather(
            *map(store.accept, [others[0], spoilt, others[1]]), return_exceptions=True
        )
        assert isinstance(failed, Exception)
        for other in (before, after):
            assert not isinstance(other, BaseException)
            assert other.status is RunStatus.RUNNING


@pytest.mark.parametrize("when", ["20000-01-01", "infinity", "0044-03-15 BC"])
async def test_a_thread_with_a_time_that_python_has_not_spoils_nothing_but_itself(
    store: PostgresStore, outside: Any, when: str
) -> None:
    first = make_plan("odd")
    thread_id = (await store.accept(first)).thread.thread_id
    await store.finish(first.run_id, OWNER, completed())
    await outside.execute(EVENT.format(when), thread_id, uuid4())
    plans = [make_plan("before"), make_plan("odd"), make_plan("after")]
    taken = await asyncio.gather(*map(store.accept, plans), return_exceptions=True)
    answers = [completed(make_event(), make_event()) for _ in plans]
    ends = await asyncio.gather(
        *[store.finish(plan.run_id, OWNER, answer) for plan, answer in zip(plans, answers, strict=True)],
        return_exceptions=True,
    )
    for accepted, settled in ((taken[0], ends[0]), (taken[2], ends[2])):
        assert not isinstance(accepted, BaseException)
        assert not isinstance(settled, BaseException)
        assert settled.counted
        assert len(settled.stored) == 2


@pytest.mark.parametrize("known", [0, 1, 5])
async def test_messages_of_new_and_known_contacts_share_a_call(store: PostgresStore, known: int) -> None:
    before = [make_plan(f"contact {number}") for number in range(known)]
    threads = {plan.contact_id: (await store.accept(plan)).thread.thread_id for plan in before}
    for plan in before:
        await store.finish(plan.run_id, OWNER, completed())
    calls: list[CommitRecord] = []
    store.on_commit = calls.append
    plans = [make_plan(f"contact {number}", str(number), caller=uuid4()) for number in range(10)]
    taken = await asyncio.gather(*map(store.accept, plans))
    assert len(calls) == 1
    for plan, accepted in zip(plans, taken, strict=True):
        new = plan.contact_id not in threads
        assert accepted.status is RunStatus.RUNNING
        assert accepted.created_new_thread is new
        assert new or accepted.thread.thread_id == threads[plan.contact_id]
        assert accepted.thread == await store.thread(accepted.thread.thread_id, plan.contact_id)
        stored = [event.event_id for event in await all_events(store, accepted.thread.thread_id)]
        assert stored[-1] == plan.message.event_id
        assert len(stored) == (2 if new else 3)
        assert (await store.run(plan.run_id, plan.contact_id, plan.caller)).events == []


async def test_messages_of_new_contacts_and_runs_that_end_share_a_transaction(
    store: PostgresStore, outside: Any
) -> None:
    running = await _running(store)
    calls: list[CommitRecord] = []
    store.on_commit = calls.append
    plans = [make_plan(f"new {number}", str(number), caller=uuid4()) for number in range(10)]
    taken, ends = await _together(store, plans, running)
    assert [call.operations for call in calls] == [20]
    _check_taken(taken, new=10)
    _check_ended(ends)
    for plan, accepted in zip(plans, taken, strict=True):
        assert accepted.thread == await store.thread(accepted.thread.thread_id, plan.contact_id)
        stored = [event.event_id for event in await all_events(store, accepted.thread.thread_id)]
        assert stored == [UUID(str(row.event_id)) for row in accepted.stored]
        assert (await store.run(plan.run_id, plan.contact_id, plan.caller)).events == []
    transactions = "SELECT count(DISTINCT xmin::text) FROM jimsapi_runs WHERE run_id = ANY ($1)"
    assert await outside.fetchval(transactions, [plan.run_id for plan in (*plans, *running)]) == 1


async def test_a_message_of_a_known_contact_does_not_share_it_and_is_taken_all_the_same(store: PostgresStore) -> None:
    running = await _running(store)
    known = running[0].contact_id
    taken, ends = await _together(store, [make_plan(known), *[make_plan(f"new {n}") for n in range(9)]], running)
    _check_ended(ends)
    _check_taken(taken[1:], new=9)
    assert not taken[0].created_new_thread
    assert len(await all_threads(store, known)) == 1


@pytest.mark.parametrize("rubbish", ["\0", "\ud800"])
async def test_rubbish_in_a_shared_transaction_fails_alone(store: PostgresStore, rubbish: str) -> None:
    running = await _running(store)
    taken, ends = await _together(store, [*[make_plan(f"new {n}") for n in range(9)], make_plan(rubbish)], running)
    assert isinstance(taken[-1], Exception)
    _check_taken(taken[:-1], new=9)
    _check_ended(ends)


async def test_a_shared_transaction_whose_commit_is_in_doubt_counts_once(url: str, postgres: Postgres) -> None:
    async with Proxy(postgres.port) as proxy, PostgresStore(url.replace(str(postgres.port), str(proxy.port))) as store:
        await _together(store, [make_plan(f"first {n}") for n in range(10)], await _running(store))
        running = await _running(store, "again")
        proxy.lose_answer_to = b"jimsapi_accept_alike"
        plans = [make_plan(f"new {n}") for n in range(10)]
        taken, ends = await _together(store, plans, running)
        assert proxy.lost.is_set()
        _check_taken(taken, new=10)
        _check_ended(ends)
        for plan in plans:
            assert len(await all_threads(store, plan.contact_id)) == 1


async def test_messages_with_keys_share_nothing_and_leave_the_ends_of_runs_a_call_of_their_own(
    store: PostgresStore,
) -> None:
    running = [make_plan(f"running {number}", idempotency=make_key()) for number in range(20)]
    await asyncio.gather(*map(store.accept, running))
    calls: list[CommitRecord] = []
    store.on_commit = calls.append
    taken, ends = await _together(store, [make_plan(f"new {n}", idempotency=make_key()) for n in range(10)], running)
    assert sorted(call.operations for call in calls) == [10, 20]
    _check_taken(taken, new=10)
    _check_ended(ends)


@pytest.mark.parametrize("new", [0, 10], ids=["alone", "with messages"])
async def test_each_of_the_runs_that_end_together_gets_its_own_failure(store: PostgresStore, new: int) -> None:
    running = await _running(store)
    kinds = [(FailureKind.PIPELINE, FailureKind.TIMEOUT, None)[number % 3] for number in range(len(running))]
    ends = [
        completed(make_event()) if kind is None else Outcome(RunStatus.FAILED, (), str(number), failure=kind)
        for number, kind in enumerate(kinds)
    ]
    calls: list[CommitRecord] = []
    store.on_commit = calls.append
    await asyncio.gather(
        *[store.accept(make_plan(f"new {number}")) for number in range(new)],
        *[store.finish(plan.run_id, OWNER, end) for plan, end in zip(running, ends, strict=True)],
    )
    assert [call.operations for call in calls] == [len(running) + new]
    found = [await store.run(plan.run_id, None, None) for plan in running]
    assert [(run.failure, run.error) for run in found] == [
        (kind, end.error) for kind, end in zip(kinds, ends, strict=True)
    ]


async def _running(store: PostgresStore, name: str = "running") -> list[RunPlan]:
    """Runs of new contacts: as many as make it worth to have the next messages share a transaction with their ends."""
    plans = [make_plan(f"{name} {number}") for number in range(10)]
    for accepted in await asyncio.gather(*map(store.accept, plans)):
        assert accepted.created_new_thread
    return plans


async def _together(store: PostgresStore, plans: list[RunPlan], running: list[RunPlan]) -> tuple[list[Any], list[Any]]:
    """Accept some and finish others at the same time."""
    ends = [store.finish(plan.run_id, OWNER, completed(make_event())) for plan in running]
    results = await asyncio.gather(*map(store.accept, plans), *ends, return_exceptions=True)
    return results[: len(plans)], results[len(plans) :]


def _check_taken(taken: list[Any], new: int) -> None:
    assert [accepted.status for accepted in taken] == [RunStatus.RUNNING] * len(taken)
    assert [accepted.created_new_thread for accepted in taken] == [True] * new


def _check_ended(ends: list[Any]) -> None:
    assert [settled.counted for settled in ends] == [True] * len(ends)
    assert [len(settled.stored) for settled in ends] == [1] * len(ends)


async def test_many_new_threads_of_one_contact_are_made_in_one_call(store: PostgresStore) -> None:
    calls: list[CommitRecord] = []
    store.on_commit = calls.append
    plans = [make_plan("ann", str(number), selectors=(New(),)) for number in range(100)]
    taken = await asyncio.gather(*map(store.accept, plans))
    assert len(calls) < 10
    threads = await all_threads(store, "ann")
    assert [thread.thread_id for thread in threads] == [accepted.thread.thread_id for accepted in reversed(taken)]
    assert len({thread.created_at for thread in threads}) == 100


async def test_a_message_for_the_newest_thread_finds_those_that_are_made_beside_it(store: PostgresStore) -> None:
    plans = [make_plan("ann", selectors=(New(),)) for _ in range(5)]
    *made, found = await asyncio.gather(*map(store.accept, [*plans, make_plan("ann")]))
    assert found.thread.thread_id == made[-1].thread.thread_id
    assert found.status is RunStatus.QUEUED


async def test_a_finish_that_is_asked_again_after_two_lost_answers_counts(url: str, postgres: Postgres) -> None:
    async with Proxy(postgres.port) as proxy, PostgresStore(url.replace(str(postgres.port), str(proxy.port))) as store:
        plan, answer = make_plan(), make_event()
        accepted = await store.accept(plan)
        finishing = asyncio.ensure_future(store.finish(plan.run_id, OWNER, completed(answer)))
        async with asyncio.timeout(30):
            for _ in range(2):
                proxy.lost.clear()
                proxy.lose_answer_to = b"jimsapi_finish"
                await proxy.lost.wait()
        with pytest.raises(StoreUnavailable):
            await finishing
        settled = await store.finish(plan.run_id, OWNER, completed(answer))
        assert settled.counted
        assert [row.event_type for row in settled.stored] == ["comm.assistant_message"]
        assert not (await store.finish(plan.run_id, OWNER, completed(answer))).counted
        assert len(await all_events(store, accepted.thread.thread_id)) == 3


async def test_callers_that_leave_at_any_moment_leave_nothing_half_done(store: PostgresStore, outside: Any) -> None:
    """Each caller leaves after another number of steps of the loop."""

    async def chat(plan: RunPlan) -> None:
        await store.accept(plan)
        await store.finish(plan.run_id, OWNER, completed(make_event()))

    for steps in range(40):
        plans = [make_plan(f"{steps} {number % 3}") for number in range(6)]
        callers = [asyncio.ensure_future(chat(plan)) for plan in plans]
        for _ in range(steps):
            await asyncio.sleep(0)
        for caller in callers[::2]:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
    async with asyncio.timeout(30):
        await chat(make_plan("at last"))
    await store.heartbeat(OWNER, set())  # what nobody finished any more
    assert await outside.fetchval("SELECT count(*) FROM jimsapi_runs WHERE finished_at IS NULL") == 0
    doubled = "SELECT count(*) FROM thread_events GROUP BY thread_id, created_at HAVING count(*) > 1"
    assert await outside.fetch(doubled) == []
