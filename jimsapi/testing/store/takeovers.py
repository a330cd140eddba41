"""Tests that background runs of dead processes are taken over."""

import msgspec
import pytest

from jimsapi.testing.store.base import StoreTests
from jimsapi.testing.store.samples import (
    CONTEXT,
    OTHER_OWNER,
    OWNER,
    completed,
    contents,
    ids_of,
    make_event,
    make_key,
    make_plan,
)
from jimsapi.threads.errors import RunClosed
from jimsapi.threads.ids import uuid7
from jimsapi.threads.run import AdoptedRun, RunStatus
from jimsapi.threads.store import ThreadStore


class Takeovers(StoreTests):
    """Tests that background runs of dead processes are taken over."""

    async def test_background_runs_that_wait_are_taken_over_in_their_order(self, store: ThreadStore) -> None:
        started = make_plan("ann", "0", owner=OTHER_OWNER, background=True)
        caller = uuid7()
        waiting = [
            make_plan(
                "ann", str(number), owner=OTHER_OWNER, background=True, caller=caller, webhook_url=f"https://ü/{number}"
            )
            for number in range(1, 4)
        ]
        attended = make_plan("ann", "attended", owner=OTHER_OWNER)
        mine = make_plan("ann", "mine", background=True)
        elsewhere = make_plan("bob", "first", owner=OTHER_OWNER)
        other = make_plan("bob", "second", owner=OTHER_OWNER, background=True)
        for plan in (started, *waiting, attended, mine, elsewhere, other):
            thread_id = (await store.accept(plan)).thread.thread_id
        other_thread = thread_id
        thread_id = (await store.run(started.run_id, None, None)).thread_id
        assert await self.recover(store, OWNER) == 3
        assert await contents(store, thread_id) == ["0", "attended"]
        adopted = await self.adopt(store, OWNER)
        assert [one for one in adopted if one.thread_id == thread_id] == [
            AdoptedRun(plan.run_id, thread_id, "ann", plan.message, caller, plan.webhook_url) for plan in waiting
        ]
        assert [one for one in adopted if one.thread_id != thread_id] == [
            AdoptedRun(other.run_id, other_thread, "bob", other.message, None, None)
        ]
        assert await self.adopt(store, OWNER) == []
        assert await self.recover(store, OWNER) == 0
        statuses = [(await store.run(plan.run_id, None, None)).status for plan in (started, attended, mine, *waiting)]
        assert statuses == [RunStatus.INTERRUPTED] * 2 + [RunStatus.QUEUED] * 4
        live = {plan.run_id for plan in (mine, other, *waiting)}
        assert await store.heartbeat(OWNER, live) == []
        assert await store.heartbeat(OTHER_OWNER, set()) == []
        order = [plan.run_id for plan in (*waiting, mine)]
        for number, run_id in enumerate(order):
            with pytest.raises(RunClosed):
                await store.start(run_id, OTHER_OWNER, (), CONTEXT)
            assert await store.start(run_id, OWNER, (), CONTEXT) is not None
            settled = await store.finish(run_id, OWNER, completed())
            assert settled.counted
            assert settled.next_run == (order[number + 1] if number + 1 < len(order) else None)
        assert await contents(store, thread_id) == ["0", "attended", "1", "2", "3", "mine"]

    async def test_accepting_an_adopted_run_again_returns_the_same_thread_and_status(self, store: ThreadStore) -> None:
        first = make_plan("ann", "one", owner=OTHER_OWNER)
        waiting = make_plan("ann", "two", owner=OTHER_OWNER, background=True)
        greeted = make_plan("bob", "hi", owner=OTHER_OWNER, background=True, conversation_start=True)
        before = [await store.accept(plan) for plan in (first, waiting, greeted)][1:]
        await self.recover(store, OWNER)
        adopted = {one.run_id: one for one in await self.adopt(store, OWNER)}
        for plan, answer in zip((waiting, greeted), before, strict=True):
            again = make_plan(plan.contact_id, "not this one", selectors=(), background=True)
            again = msgspec.structs.replace(again, run_id=plan.run_id, message=adopted[plan.run_id].message)
            accepted = await store.accept(again)
            assert accepted.thread == answer.thread
            assert accepted.status is RunStatus.QUEUED
            assert accepted.created_new_thread == answer.created_new_thread
            assert ids_of(accepted.stored) == ids_of(answer.stored)
            assert (accepted.snapshot is None) == (answer.snapshot is None)
            greeting = [make_event()] if accepted.created_new_thread else []
            started = await store.start(plan.run_id, OWNER, greeting, CONTEXT)
            assert started is not None
            assert ids_of(started.snapshot.rows)[-1] == plan.message.event_id
        assert await contents(store, before[0].thread.thread_id) == ["one", "two"]
        assert await contents(store, before[1].thread.thread_id) == ["Hi", "hi"]

    async def test_an_interrupted_message_that_is_taken_over_does_not_enter_again(self, store: ThreadStore) -> None:
        first = await self._interrupted(store, text="one")
        before = make_plan(text="two", owner=OTHER_OWNER)
        thread_id = (await store.accept(before)).thread.thread_id
        dead = make_plan(text="one", owner=OTHER_OWNER, background=True, idempotency=first.idempotency)
        await store.accept(dead)
        assert await self.recover(store, OWNER) == 1
        (adopted,) = await self.adopt(store, OWNER)
        assert (adopted.run_id, adopted.message) == (dead.run_id, first.message)
        started = await store.start(dead.run_id, OWNER, (), CONTEXT)
        assert started is not None
        assert started.stored == []
        again = await store.accept(msgspec.structs.replace(dead, owner=OWNER, message=adopted.message))
        assert (again.status, again.stored) == (RunStatus.RUNNING, [])
        for snapshot in (started.snapshot, again.snapshot):
            assert snapshot is not None
            assert ids_of(snapshot.rows)[-1] == first.message.event_id
        assert await contents(store, thread_id) == ["one", "two"]

    async def test_events_beside_an_interrupted_message_name_it_when_it_is_taken_over(self, store: ThreadStore) -> None:
        interrupted = make_plan(
            owner=OTHER_OWNER, background=True, idempotency=make_key(), beside=[("message.metadata", {"mood": "calm"})]
        )
        await store.accept(interrupted)
        await self.recover(store, OWNER)
        await store.accept(make_plan(text="another"))
        again = make_plan(
            background=True, idempotency=interrupted.idempotency, beside=[("message.metadata", {"mood": "calm"})]
        )
        await store.accept(again)
        (adopted,) = await self.adopt(store, OTHER_OWNER)
        assert (adopted.run_id, adopted.message.event_id) == (again.run_id, interrupted.message.event_id)
        assert adopted.beside == interrupted.beside
