"""Background runs of nobody: workers claim them, each once."""

import asyncio
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from jimsapi_postgres.store import PostgresStore

from jimsapi.testing.store.samples import CONTEXT, OTHER_OWNER, OWNER, completed, contents, make_key, make_plan
from jimsapi.threads import NOBODY, AdoptedRun, KeyUsed, RunClosed, RunPlan, RunStatus, row_id, uuid7

pytestmark = pytest.mark.anyio

NOW = timedelta()


def handed_over(contact: str = "ann", text: str = "hi", **fields: Any) -> RunPlan:
    """The plan of a run that a worker will do."""
    return make_plan(contact, text, owner=NOBODY, background=True, **fields)


async def let_die(outside: Any, owner: Any) -> None:
    """Let the last heartbeat of a process be long ago."""
    await outside.execute(
        "INSERT INTO jimsapi_owners VALUES ($1, 'yesterday') ON CONFLICT (owner) DO UPDATE SET beat_at = 'yesterday'",
        owner,
    )


async def test_a_run_of_nobody_waits_in_a_free_thread_until_it_is_claimed(store: PostgresStore) -> None:
    first = make_plan("ann", "first")
    thread_id = (await store.accept(first)).thread.thread_id
    await store.finish(first.run_id, OWNER, completed())
    caller = uuid7()
    beside = [("message.metadata", {"mood": "calm"})]
    plan = handed_over(text="second", caller=caller, webhook_url="https://example.com", beside=beside)
    accepted = await store.accept(plan)
    assert (accepted.status, accepted.snapshot, accepted.stored) == (RunStatus.QUEUED, None, [])
    assert await store.accept(plan) == accepted
    for owner in (NOBODY, OWNER):
        with pytest.raises(RunClosed):
            await store.start(plan.run_id, OWNER, (), CONTEXT)
        assert await store.recover(owner) == 0
    assert await contents(store, thread_id) == ["first"]
    claimed = await store.claim(plan.run_id, OWNER)
    expected = AdoptedRun(plan.run_id, thread_id, "ann", plan.message, caller, plan.webhook_url, plan.beside)
    assert claimed == expected
    assert await store.claim(plan.run_id, OWNER) == expected, "its result may be lost"
    assert await store.claim(plan.run_id, OTHER_OWNER) is None
    assert (await store.accept(make_plan_of(claimed))).snapshot is None
    started = await store.start(plan.run_id, OWNER, (), CONTEXT)
    assert started is not None
    assert await contents(store, thread_id) == ["first", "second"]
    assert (await store.finish(plan.run_id, OWNER, completed())).counted
    assert await store.claim(plan.run_id, OWNER) is None


def make_plan_of(claimed: AdoptedRun) -> RunPlan:
    """The plan with which a service accepts a run again that it has claimed."""
    plan = make_plan("ann", "not this one", selectors=(), background=True)
    return msgspec.structs.replace(plan, run_id=claimed.run_id, message=claimed.message, beside=claimed.beside)


@pytest.mark.parametrize("greets", [True, False])
async def test_a_run_of_nobody_in_a_new_thread_has_its_conversation_start_only_if_its_message_wants_it(
    store: PostgresStore, greets: bool
) -> None:
    plan = handed_over(conversation_start=greets)
    accepted = await store.accept(plan)
    assert accepted.created_new_thread
    assert accepted.status is RunStatus.QUEUED
    assert len(accepted.stored) == (1 if greets else 2), "without a start, the message enters the thread"
    claimed = await store.claim(plan.run_id, OWNER)
    assert claimed is not None
    again = await store.accept(make_plan_of(claimed))
    assert again.created_new_thread
    assert (again.snapshot is not None) == greets
    started = await store.start(plan.run_id, OWNER, (), CONTEXT)
    assert started is not None
    assert row_id(started.snapshot.rows[-1]) == plan.message.event_id
    assert await contents(store, accepted.thread.thread_id) == ["hi"]


async def test_only_the_oldest_open_run_of_a_thread_can_be_claimed(store: PostgresStore) -> None:
    running = make_plan("ann", "attended")
    await store.accept(running)
    first, second = handed_over(text="first"), handed_over(text="second")
    for plan in (first, second):
        await store.accept(plan)
    assert await store.claim(first.run_id, OWNER) is None
    await store.finish(running.run_id, OWNER, completed())
    assert await store.claim(second.run_id, OWNER) is None
    assert await store.claim(first.run_id, OWNER) is not None
    await store.cancel(first.run_id)
    assert await store.claim(second.run_id, OWNER) is not None


async def test_of_many_processes_one_claims_a_run(store: PostgresStore) -> None:
    plan = handed_over()
    await store.accept(plan)
    claims = await asyncio.gather(*(store.claim(plan.run_id, uuid7()) for _ in range(8)))
    assert sum(claim is not None for claim in claims) == 1


async def test_a_run_of_nobody_that_repeats_an_interrupted_request_continues_its_message(
    store: PostgresStore, outside: Any
) -> None:
    dead = make_plan(owner=OTHER_OWNER, idempotency=make_key())
    thread_id = (await store.accept(dead)).thread.thread_id
    await let_die(outside, OTHER_OWNER)
    assert await store.recover(OWNER) == 1
    plan = handed_over(idempotency=dead.idempotency)
    assert (await store.accept(plan)).status is RunStatus.QUEUED
    with pytest.raises(KeyUsed):
        await store.accept(handed_over(idempotency=dead.idempotency))
    claimed = await store.claim(plan.run_id, OWNER)
    assert claimed is not None
    assert claimed.message.event_id == dead.message.event_id
    assert await store.start(plan.run_id, OWNER, (), CONTEXT) is not None
    assert await contents(store, thread_id) == ["Hello"]


async def test_runs_of_dead_processes_are_left_to_nobody_and_claimed_again(store: PostgresStore, outside: Any) -> None:
    store.max_restarts = 1
    started, waiting = handed_over("ann"), handed_over("bob")
    for plan in (started, waiting):
        await store.accept(plan)
        assert await store.claim(plan.run_id, OTHER_OWNER) is not None
    assert await store.start(started.run_id, OTHER_OWNER, (), CONTEXT) is not None
    assert await store.adopt(NOBODY) == []
    await let_die(outside, OTHER_OWNER)
    assert {run.run_id: run.restarts for run in await store.adopt(NOBODY)} == {started.run_id: 1, waiting.run_id: 0}
    assert await store.adopt(NOBODY) == []
    assert set(await store.unclaimed(NOW, 10)) == {started.run_id, waiting.run_id}
    again = await store.claim(started.run_id, OWNER)
    assert again is not None
    assert again.restarts == 1
    await let_die(outside, OWNER)
    await store.start(started.run_id, OWNER, (), CONTEXT)
    assert [run.run_id for run in await store.adopt(NOBODY)] == []
    assert await store.recover(uuid7()) == 1
    ended = await store.run(started.run_id, None, None)
    assert ended.status is RunStatus.INTERRUPTED
    assert ended.error is not None
    assert "it was started 2 times" in ended.error


async def test_unclaimed_runs_are_those_of_nobody_the_oldest_first(store: PostgresStore) -> None:
    plans = [handed_over(f"contact {number}") for number in range(4)]
    for plan in (make_plan("other", background=True), *plans):
        await store.accept(plan)
    await store.claim(plans[0].run_id, OWNER)
    await store.cancel(plans[1].run_id)
    assert await store.unclaimed(NOW, 10) == [plan.run_id for plan in plans[2:]]
    assert await store.unclaimed(NOW, 1) == [plans[2].run_id]
    assert await store.unclaimed(timedelta(hours=1), 10) == []
    await store.accept(handed_over("contact 2", "behind another one"))
    assert await store.unclaimed(NOW, 10) == [plan.run_id for plan in plans[2:]], "it cannot be claimed yet"


async def test_a_process_without_workers_takes_over_what_nobody_has_claimed_for_long(
    store: PostgresStore, outside: Any
) -> None:
    plan = handed_over()
    await store.accept(plan)
    assert await store.adopt(OWNER) == []
    await outside.execute("UPDATE jimsapi_runs SET accepted_at = accepted_at - interval '2 hours'")
    assert [run.run_id for run in await store.adopt(OWNER)] == [plan.run_id]


async def test_a_process_that_has_lost_its_claim_gets_no_context_of_the_run(store: PostgresStore, outside: Any) -> None:
    plan = handed_over()
    await store.accept(plan)
    lost = await store.claim(plan.run_id, OWNER)
    assert lost is not None
    await let_die(outside, OWNER)
    await store.adopt(NOBODY)
    assert await store.claim(plan.run_id, OTHER_OWNER) is not None
    await store.start(plan.run_id, OTHER_OWNER, (), CONTEXT)
    accepted = await store.accept(make_plan_of(lost))
    assert (accepted.status, accepted.snapshot) == (RunStatus.RUNNING, None)
    with pytest.raises(RunClosed):
        await store.start(plan.run_id, OWNER, (), CONTEXT)
