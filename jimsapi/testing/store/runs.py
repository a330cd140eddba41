"""Tests that runs start in their order, and end once."""

import asyncio
from datetime import timedelta
from itertools import pairwise

import pytest

from jimsapi.testing.store.base import StoreTests
from jimsapi.testing.store.samples import (
    CONTEXT,
    OTHER_OWNER,
    OWNER,
    all_events,
    answer_all,
    completed,
    contents,
    event_types,
    fill,
    ids_of,
    json_of,
    look_at,
    make_event,
    make_plan,
    take_turn,
)
from jimsapi.threads.errors import IdentifierTaken, RunClosed
from jimsapi.threads.event import THREAD_CREATED, NewEvent
from jimsapi.threads.ids import uuid7
from jimsapi.threads.run import Outcome, RunStatus, Settled
from jimsapi.threads.store import ThreadStore


class RunEndings(StoreTests):
    """Tests that runs start in their order, and end once."""

    async def test_the_runs_of_a_thread_start_in_order_of_acceptance(self, store: ThreadStore) -> None:
        plans = [make_plan("ann", str(number)) for number in range(50)]
        accepted = [await store.accept(plan) for plan in plans]
        other = await asyncio.wait_for(store.accept(make_plan("bob")), 10)
        assert other.status is RunStatus.RUNNING
        await answer_all(store, plans, accepted[0].thread.thread_id)

    async def test_only_the_oldest_open_run_may_start(self, store: ThreadStore) -> None:
        first, second, third = plans = [make_plan(text=str(number)) for number in range(3)]
        accepted = [await store.accept(plan) for plan in plans]
        thread_id = accepted[0].thread.thread_id
        assert await store.start(second.run_id, OWNER, (), CONTEXT) is None
        assert (await store.finish(first.run_id, OWNER, completed())).next_run == second.run_id
        assert await store.start(third.run_id, OWNER, (), CONTEXT) is None
        assert await store.start(second.run_id, OWNER, (), CONTEXT) is not None
        assert await store.start(third.run_id, OWNER, (), CONTEXT) is None
        assert await contents(store, thread_id) == ["0", "1"]

    async def test_a_start_returns_all_earlier_events(self, store: ThreadStore) -> None:
        first, second = make_plan(text="one"), make_plan(text="two")
        await store.accept(first)
        await store.accept(second)
        await store.finish(first.run_id, OWNER, completed(make_event(data={"content": "answer"})))
        started = await store.start(second.run_id, OWNER, (), CONTEXT)
        assert started is not None
        texts = [json_of(row.data)["content"] for row in started.snapshot.rows[1:]]
        assert texts == ["one", "answer", "two"]

    async def test_a_run_that_is_not_open_or_not_owned_cannot_start(self, store: ThreadStore) -> None:
        running, waiting, cancelled = plans = [make_plan() for _ in range(3)]
        for plan in plans:
            await store.accept(plan)
        await store.cancel(cancelled.run_id)
        await store.finish(running.run_id, OWNER, completed())
        for run_id, owner in (
            (running.run_id, OWNER),
            (waiting.run_id, OTHER_OWNER),
            (cancelled.run_id, OWNER),
            (uuid7(), OWNER),
        ):
            with pytest.raises(RunClosed):
                await store.start(run_id, owner, (), CONTEXT)
        assert (await look_at(store, waiting.run_id)).status is RunStatus.QUEUED

    async def test_starting_a_run_twice_stores_it_once(self, store: ThreadStore) -> None:
        plan = make_plan(conversation_start=True)
        thread_id = (await store.accept(plan)).thread.thread_id
        greeting = [make_event(), make_event("rag.greeted")]
        first = await store.start(plan.run_id, OWNER, greeting, CONTEXT)
        second = await store.start(plan.run_id, OWNER, greeting, CONTEXT)
        assert first is not None
        assert second is not None
        assert ids_of(second.stored) == ids_of(first.stored)
        assert ids_of(second.snapshot.rows) == ids_of(first.snapshot.rows)
        assert len(await all_events(store, thread_id)) == 4

    async def test_a_start_with_a_known_identifier_is_refused_and_may_be_tried_again(self, store: ThreadStore) -> None:
        plan = make_plan(conversation_start=True)
        accepted = await store.accept(plan)
        taken = ids_of(accepted.stored)[0]
        with pytest.raises(IdentifierTaken) as refused:
            await store.start(plan.run_id, OWNER, [make_event(), NewEvent(taken, "x", b"{}")], CONTEXT)
        assert refused.value.event_ids == {taken}
        assert await event_types(store, accepted.thread.thread_id) == [THREAD_CREATED]
        assert await store.start(plan.run_id, OWNER, (), CONTEXT) is not None

    async def test_a_finish_stores_all_its_events_in_order(self, store: ThreadStore) -> None:
        plan = make_plan()
        accepted = await store.accept(plan)
        sent = [make_event(f"rag.{number}", {"n": number}) for number in range(500)]
        settled = await store.finish(plan.run_id, OWNER, completed(*sent))
        assert settled.counted
        assert settled.status is RunStatus.COMPLETED
        assert settled.next_run is None
        assert ids_of(settled.stored) == [event.event_id for event in sent]
        events = await all_events(store, accepted.thread.thread_id)
        assert [event.event_id for event in events[2:]] == [event.event_id for event in sent]

    async def test_no_two_events_of_a_thread_share_a_time(self, store: ThreadStore) -> None:
        accepted = await take_turn(store)
        for number in range(30):
            plan = make_plan(text=str(number))
            await store.accept(plan)
            await store.finish(plan.run_id, OWNER, completed(*[make_event() for _ in range(number % 4)]))
        times = [event.created_at for event in await all_events(store, accepted.thread.thread_id)]
        assert all(earlier < later for earlier, later in pairwise(times))
        assert all(time.tzinfo is not None and time.utcoffset() == timedelta(0) for time in times)

    async def test_only_the_first_finish_counts(self, store: ThreadStore) -> None:
        plan = make_plan()
        accepted = await store.accept(plan)
        await store.finish(plan.run_id, OWNER, completed(make_event()))
        for outcome in (completed(make_event()), Outcome(RunStatus.FAILED, (), "late")):
            late = await store.finish(plan.run_id, OWNER, outcome)
            assert late == Settled(False, RunStatus.COMPLETED, None, [])
        assert len(await all_events(store, accepted.thread.thread_id)) == 3

    async def test_only_the_owner_finishes_and_only_a_running_run(self, store: ThreadStore) -> None:
        running, waiting = make_plan(), make_plan()
        accepted = await store.accept(running)
        await store.accept(waiting)
        assert await store.finish(running.run_id, OTHER_OWNER, completed(make_event())) == Settled(
            False, RunStatus.RUNNING, None
        )
        assert await store.finish(waiting.run_id, OWNER, completed(make_event())) == Settled(
            False, RunStatus.QUEUED, None
        )
        assert await store.finish(uuid7(), OWNER, completed(make_event())) == Settled(False, None, None)
        assert len(await all_events(store, accepted.thread.thread_id)) == 2

    async def test_only_a_completed_run_stores_events(self, store: ThreadStore) -> None:
        for status in (RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.INTERRUPTED):
            plan = make_plan(status.value)
            accepted = await store.accept(plan)
            settled = await store.finish(plan.run_id, OWNER, Outcome(status, (make_event(),), "went wrong"))
            assert settled == Settled(True, status, None, [])
            assert await event_types(store, accepted.thread.thread_id) == [THREAD_CREATED, "comm.user_message"]

    async def test_what_a_run_used_is_stored_unless_it_completed(self, store: ThreadStore) -> None:
        for status in (RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.INTERRUPTED, RunStatus.COMPLETED):
            plan = make_plan(status.value)
            accepted = await store.accept(plan)
            usage = (make_event("model.usage", {"input_tokens": 1}), make_event("model.usage", {"input_tokens": 2}))
            settled = await store.finish(plan.run_id, OWNER, Outcome(status, usage=usage))
            stored = () if status is RunStatus.COMPLETED else usage
            assert ids_of(settled.stored) == [event.event_id for event in stored]
            events = (await all_events(store, accepted.thread.thread_id))[2:]
            assert [json_of(event.event_data) for event in events] == [json_of(event.data) for event in stored]
            assert (await store.run(plan.run_id, None, None)).events == []

    async def test_an_error_of_any_text_ends_a_run(self, store: ThreadStore) -> None:
        for error in ("", "\ud800 \0 🦊", "x" * 100_000):
            plan = make_plan()
            await store.accept(plan)
            assert (await store.finish(plan.run_id, OWNER, Outcome(RunStatus.FAILED, (), error))).counted

    async def test_a_finish_with_a_known_identifier_is_refused_and_leaves_the_run(self, store: ThreadStore) -> None:
        plan, neighbour = make_plan(), make_plan("bob")
        accepted = await store.accept(plan)
        await store.accept(neighbour)
        taken = plan.message.event_id
        refused, others = await asyncio.gather(
            store.finish(plan.run_id, OWNER, completed(make_event(), NewEvent(taken, "x", b"{}"))),
            store.finish(neighbour.run_id, OWNER, completed(make_event())),
            return_exceptions=True,
        )
        assert isinstance(refused, IdentifierTaken)
        assert refused.event_ids == {taken}
        assert isinstance(others, Settled)
        assert others.counted
        assert (await look_at(store, plan.run_id)).status is RunStatus.RUNNING
        assert len(await all_events(store, accepted.thread.thread_id)) == 2
        assert (await store.finish(plan.run_id, OWNER, completed(make_event()))).counted

    async def test_two_threads_may_have_the_same_identifier(self, store: ThreadStore) -> None:
        event = make_event()
        assert await fill(store, [event], "ann") != await fill(store, [event], "bob")

    async def test_a_cancelled_run_that_waited_leaves_no_message(self, store: ThreadStore) -> None:
        running, waiting, last = plans = [make_plan(text=text) for text in ("one", "two", "three")]
        accepted = [await store.accept(plan) for plan in plans]
        assert await store.cancel(waiting.run_id) == Settled(True, RunStatus.CANCELLED, None)
        assert (await store.finish(running.run_id, OWNER, completed())).next_run == last.run_id
        await store.start(last.run_id, OWNER, (), CONTEXT)
        assert await contents(store, accepted[0].thread.thread_id) == ["one", "three"]

    async def test_a_cancelled_run_unblocks_its_thread_and_cannot_finish(self, store: ThreadStore) -> None:
        running, waiting = make_plan(), make_plan()
        accepted = await store.accept(running)
        await store.accept(waiting)
        assert await store.cancel(running.run_id) == Settled(True, RunStatus.CANCELLED, waiting.run_id)
        late = await store.finish(running.run_id, OWNER, completed(make_event()))
        assert late == Settled(False, RunStatus.CANCELLED, waiting.run_id)
        assert len(await all_events(store, accepted.thread.thread_id)) == 2

    async def test_cancelling_an_ended_run_changes_nothing(self, store: ThreadStore) -> None:
        plan = make_plan()
        await store.accept(plan)
        await store.finish(plan.run_id, OWNER, completed())
        assert await store.cancel(plan.run_id) == Settled(False, RunStatus.COMPLETED, None)
        assert await store.cancel(uuid7()) == Settled(False, None, None)
