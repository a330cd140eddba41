"""Tests that what belongs to a message enters the thread with it, just before it."""

from collections.abc import Sequence
from itertools import pairwise
from uuid import UUID

from jimsapi.testing.store.base import StoreTests
from jimsapi.testing.store.samples import (
    CONTEXT,
    OTHER_OWNER,
    OWNER,
    all_events,
    completed,
    ids_of,
    json_of,
    make_event,
    make_key,
    make_plan,
)
from jimsapi.threads.event import THREAD_CREATED, NewEvent
from jimsapi.threads.run import RunPlan, RunStatus
from jimsapi.threads.store import ThreadStore

BESIDE = [("message.metadata", {"metadata": {"n": 1, "text": "é🦊"}}), ("message.files", {"files": []})]


def _entering(plan: RunPlan) -> list[UUID]:
    return [event.event_id for event in (*plan.beside, plan.message)]


async def _has_entered(store: ThreadStore, thread_id: UUID, before: int, entering: Sequence[NewEvent]) -> None:
    """Check that the thread has `before` other events, then these, each with its data and a time of its own."""
    events = await all_events(store, thread_id)
    found = [(event.event_id, event.event_type, json_of(event.event_data)) for event in events[before:]]
    assert found == [(event.event_id, event.event_type, json_of(event.data)) for event in entering]
    assert all(earlier.created_at < later.created_at for earlier, later in pairwise(events))


class BesideMessages(StoreTests):
    """Tests that what belongs to a message enters the thread with it, just before it."""

    async def test_it_enters_with_the_message_of_a_new_thread_and_of_an_old_one(self, store: ThreadStore) -> None:
        entering: list[NewEvent] = []
        for created in (True, False):
            plan = make_plan(beside=BESIDE)
            accepted = await store.accept(plan)
            assert accepted.created_new_thread is created
            assert accepted.snapshot is not None
            assert ids_of(accepted.stored)[-3:] == _entering(plan)
            assert ids_of(accepted.snapshot.rows)[-3:] == _entering(plan)
            assert ids_of((await store.accept(plan)).stored) == ids_of(accepted.stored)
            await store.finish(plan.run_id, OWNER, completed())
            entering += [*plan.beside, plan.message]
        await _has_entered(store, accepted.thread.thread_id, 1, entering)

    async def test_it_waits_with_its_message(self, store: ThreadStore) -> None:
        running, waiting = make_plan(), make_plan(beside=BESIDE)
        thread_id = (await store.accept(running)).thread.thread_id
        await store.accept(waiting)
        assert len(await all_events(store, thread_id)) == 2
        await store.finish(running.run_id, OWNER, completed())
        for _ in range(2):
            started = await store.start(waiting.run_id, OWNER, (), CONTEXT)
            assert started is not None
            assert ids_of(started.stored) == _entering(waiting)
            assert ids_of(started.snapshot.rows)[-3:] == _entering(waiting)
        await _has_entered(store, thread_id, 2, [*waiting.beside, waiting.message])

    async def test_it_enters_after_a_conversation_start(self, store: ThreadStore) -> None:
        plan = make_plan(beside=BESIDE, conversation_start=True)
        thread_id = (await store.accept(plan)).thread.thread_id
        greeting = make_event("rag.greeted")
        started = await store.start(plan.run_id, OWNER, [greeting], CONTEXT)
        assert started is not None
        assert ids_of(started.stored) == [greeting.event_id, *_entering(plan)]
        await _has_entered(store, thread_id, 1, [greeting, *plan.beside, plan.message])

    async def test_a_cancelled_message_leaves_nothing(self, store: ThreadStore) -> None:
        running, waiting = make_plan(), make_plan(beside=BESIDE)
        thread_id = (await store.accept(running)).thread.thread_id
        await store.accept(waiting)
        await store.cancel(waiting.run_id)
        await store.finish(running.run_id, OWNER, completed())
        assert [event.event_type for event in await all_events(store, thread_id)] == [
            THREAD_CREATED,
            "comm.user_message",
        ]

    async def test_it_enters_with_a_message_whose_process_died(self, store: ThreadStore) -> None:
        running = make_plan(owner=OTHER_OWNER)
        waiting = [make_plan(owner=OTHER_OWNER, beside=BESIDE) for _ in range(2)]
        thread_id = (await store.accept(running)).thread.thread_id
        for plan in waiting:
            await store.accept(plan)
        assert await self.recover(store, OWNER) == 3
        entering = [event for plan in waiting for event in (*plan.beside, plan.message)]
        await _has_entered(store, thread_id, 2, entering)

    async def test_it_enters_with_a_message_that_another_process_takes_over(self, store: ThreadStore) -> None:
        running = make_plan(owner=OTHER_OWNER)
        waiting = make_plan(owner=OTHER_OWNER, beside=BESIDE, background=True)
        thread_id = (await store.accept(running)).thread.thread_id
        await store.accept(waiting)
        await self.recover(store, OWNER)
        assert [(run.beside, run.message) for run in await self.adopt(store, OWNER)] == [
            (waiting.beside, waiting.message)
        ]
        started = await store.start(waiting.run_id, OWNER, (), CONTEXT)
        assert started is not None
        assert ids_of(started.stored) == _entering(waiting)
        await _has_entered(store, thread_id, 2, [*waiting.beside, waiting.message])

    async def test_a_message_that_is_answered_again_keeps_it(self, store: ThreadStore) -> None:
        key = make_key()
        first = make_plan(owner=OTHER_OWNER, beside=BESIDE, idempotency=key)
        thread_id = (await store.accept(first)).thread.thread_id
        await self.recover(store, OWNER)
        await store.append(thread_id, None, [make_event("rag.later")])
        again = make_plan(beside=BESIDE, idempotency=key)
        for _ in range(2):  # the second call repeats the first
            accepted = await store.accept(again)
            assert accepted.status is RunStatus.RUNNING
            assert accepted.stored == []
            assert accepted.snapshot is not None
            assert ids_of(accepted.snapshot.rows)[-3:] == _entering(first)
        assert len(await all_events(store, thread_id)) == 5

    async def test_a_message_that_is_answered_again_keeps_it_while_it_waits(self, store: ThreadStore) -> None:
        key = make_key()
        first = make_plan(owner=OTHER_OWNER, beside=BESIDE, idempotency=key)
        thread_id = (await store.accept(first)).thread.thread_id
        await self.recover(store, OWNER)
        running, again = make_plan(), make_plan(beside=BESIDE, idempotency=key)
        await store.accept(running)
        assert (await store.accept(again)).status is RunStatus.QUEUED
        await store.finish(running.run_id, OWNER, completed())
        for _ in range(2):
            started = await store.start(again.run_id, OWNER, (), CONTEXT)
            assert started is not None
            assert started.stored == []
            assert ids_of(started.snapshot.rows)[-3:] == _entering(first)
        assert len(await all_events(store, thread_id)) == 5
