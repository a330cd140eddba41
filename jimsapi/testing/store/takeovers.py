"""Tests that background runs of dead processes are taken over."""

import msgspec
import pytest

from jimsapi.testing.store.base import StoreTests
from jimsapi.testing.store.samples import (
    CONTEXT,
    OTHER_OWNER,
    OWNER,
    all_events,
    completed,
    contents,
    ids_of,
    make_event,
    make_key,
    make_plan,
)
from jimsapi.threads.errors import KeyUsed, RunClosed
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

    async def test_a_started_background_run_may_start_again_with_the_message_that_is_in_the_thread(
        self, store: ThreadStore
    ) -> None:
        caller = uuid7()
        dead = make_plan(
            "ann", "one", owner=OTHER_OWNER, background=True, caller=caller, webhook_url="https://ü",
            beside=[("message.metadata", {"mood": "calm"})],
        )  # fmt: skip
        behind = make_plan("ann", "two", owner=OTHER_OWNER, background=True)
        thread_id = (await store.accept(dead)).thread.thread_id
        await store.accept(behind)
        step = make_event("rag.step", {"step": 1})
        await store.append(thread_id, None, [step])
        before = await all_events(store, thread_id)

        store.max_restarts = 1
        assert await self.recover(store, OWNER) == 0
        assert await self.adopt(store, OWNER) == [
            AdoptedRun(dead.run_id, thread_id, "ann", dead.message, caller, "https://ü", dead.beside, 1),
            AdoptedRun(behind.run_id, thread_id, "ann", behind.message, None, None),
        ]
        assert await self.adopt(store, OWNER) == []
        waiting = await store.run(dead.run_id, None, None)
        assert (waiting.status, waiting.started_at, waiting.restarts) == (RunStatus.QUEUED, None, 1)
        assert waiting.created_new_thread
        lost = await store.finish(dead.run_id, OTHER_OWNER, completed(make_event()))
        assert (lost.counted, lost.status) == (False, RunStatus.QUEUED)

        again = make_plan("ann", "not this one", selectors=(), background=True)
        again = msgspec.structs.replace(again, run_id=dead.run_id, message=dead.message)
        accepted = await store.accept(again)
        assert (accepted.status, accepted.snapshot, accepted.stored) == (RunStatus.QUEUED, None, [])
        assert await store.start(behind.run_id, OWNER, (), CONTEXT) is None
        started = await store.start(dead.run_id, OWNER, (), CONTEXT)
        assert started is not None
        assert started.stored == []
        assert ids_of(started.snapshot.rows)[-2:] == [dead.beside[0].event_id, dead.message.event_id]
        assert await all_events(store, thread_id) == before

        settled = await store.finish(dead.run_id, OWNER, completed(make_event()))
        assert (settled.counted, settled.next_run) == (True, behind.run_id)
        assert (await store.start(behind.run_id, OWNER, (), CONTEXT)) is not None
        assert await contents(store, thread_id) == ["one", "Hi", "two"]

    async def test_a_run_that_was_restarted_in_vain_is_interrupted_and_its_error_says_so(
        self, store: ThreadStore
    ) -> None:
        dead = make_plan(owner=OTHER_OWNER, background=True)
        thread_id = (await store.accept(dead)).thread.thread_id
        store.max_restarts = 2
        for restarts, owner in enumerate([OWNER, OTHER_OWNER], 1):
            assert await self.recover(store, owner) == 0
            (adopted,) = await self.adopt(store, owner)
            assert adopted.restarts == restarts
            assert await store.start(dead.run_id, owner, (), CONTEXT) is not None
        assert await self.recover(store, OWNER) == 1
        assert await self.adopt(store, OWNER) == []
        ended = await store.run(dead.run_id, None, None)
        error = "The run was interrupted: it was started 3 times, and its server died each time"
        assert (ended.status, ended.error, ended.restarts) == (RunStatus.INTERRUPTED, error, 2)
        assert await contents(store, thread_id) == ["Hello"]

    async def test_runs_that_callers_wait_for_do_not_start_again(self, store: ThreadStore) -> None:
        attended, background = make_plan("ann", owner=OTHER_OWNER), make_plan("bob", owner=OTHER_OWNER, background=True)
        for plan in (attended, background):
            await store.accept(plan)
        store.max_restarts = 5
        assert await self.recover(store, OWNER) == 1
        assert (await store.run(attended.run_id, None, None)).error is None
        store.max_restarts = 0
        assert await self.adopt(store, OWNER) == []
        assert await self.recover(store, OWNER) == 1
        ended = await store.run(background.run_id, None, None)
        assert (ended.status, ended.error, ended.restarts) == (RunStatus.INTERRUPTED, None, 0)

    async def test_a_greeted_run_that_starts_again_is_not_greeted_again(self, store: ThreadStore) -> None:
        dead = make_plan(owner=OTHER_OWNER, background=True, conversation_start=True)
        thread_id = (await store.accept(dead)).thread.thread_id
        greeting = make_event(data={"content": "Welcome"})
        assert await store.start(dead.run_id, OTHER_OWNER, [greeting], CONTEXT) is not None
        store.max_restarts = 1
        await self.recover(store, OWNER)
        (adopted,) = await self.adopt(store, OWNER)
        accepted = await store.accept(msgspec.structs.replace(dead, owner=OWNER, message=adopted.message))
        assert (accepted.snapshot, accepted.stored, accepted.created_new_thread) == (None, [], True)
        assert await store.start(dead.run_id, OWNER, (), CONTEXT) is not None
        again = await store.accept(msgspec.structs.replace(dead, owner=OWNER, message=adopted.message))
        assert again.snapshot is not None
        assert (again.status, again.stored) == (RunStatus.RUNNING, [])
        assert ids_of(again.snapshot.rows)[-1] == dead.message.event_id
        assert await contents(store, thread_id) == ["Welcome", "Hello"]

    async def test_the_key_of_a_run_that_waits_for_another_start_names_it_until_it_is_cancelled(
        self, store: ThreadStore
    ) -> None:
        dead = make_plan(text="one", owner=OTHER_OWNER, background=True, idempotency=make_key())
        thread_id = (await store.accept(dead)).thread.thread_id
        store.max_restarts = 1
        await self.recover(store, OWNER)
        await self.adopt(store, OWNER)
        with pytest.raises(KeyUsed):
            await store.accept(make_plan(text="one", idempotency=dead.idempotency))
        assert (await store.cancel(dead.run_id)).counted
        accepted = await store.accept(make_plan(text="one", idempotency=dead.idempotency))
        assert (accepted.status, accepted.stored) == (RunStatus.RUNNING, [])
        assert await contents(store, thread_id) == ["one"]
