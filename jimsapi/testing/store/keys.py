"""Tests that a repeated request gets its first run, and that no message is stored twice after an interruption."""

import asyncio
from datetime import timedelta

import pytest

from jimsapi.testing.store.base import StoreTests
from jimsapi.testing.store.contexts import expected_context
from jimsapi.testing.store.samples import (
    ALREADY,
    ANYBODY,
    CONTEXT,
    OTHER_OWNER,
    OWNER,
    all_events,
    all_threads,
    completed,
    contents,
    event_types,
    expect_key_used,
    ids_of,
    json_of,
    look_at,
    make_event,
    make_key,
    make_plan,
    with_other_body,
)
from jimsapi.threads.errors import KeyMismatch, KeyUsed, QueueFull, ThreadNotFound
from jimsapi.threads.event import THREAD_CREATED
from jimsapi.threads.ids import uuid7
from jimsapi.threads.run import Accepted, ById, ContextLimits, Idempotency, Outcome, RunStatus
from jimsapi.threads.store import ThreadStore


class IdempotencyKeys(StoreTests):
    """Tests that a repeated request gets its first run, and that no message is stored twice after an interruption."""

    # Idempotency keys

    async def test_a_repeated_request_gets_its_run(self, store: ThreadStore) -> None:
        for status in (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED):
            key = make_key()
            first = make_plan(status.value, idempotency=key)
            thread_id = (await store.accept(first)).thread.thread_id
            await expect_key_used(store, first, key)
            await store.finish(first.run_id, OWNER, Outcome(status))
            await expect_key_used(store, first, key)
            assert await event_types(store, thread_id) == [THREAD_CREATED, "comm.user_message"]

    async def test_without_selectors_only_a_repeated_request_is_accepted(self, store: ThreadStore) -> None:
        interrupted = await self._interrupted(store)
        answered = make_plan("bob", idempotency=make_key())
        await store.accept(answered)
        for key in (make_key(), None):
            with pytest.raises(ThreadNotFound):
                await store.accept(make_plan(selectors=(), idempotency=key))
        with pytest.raises(KeyUsed) as used:
            await store.accept(make_plan("bob", selectors=(), idempotency=answered.idempotency))
        assert used.value.run_id == answered.run_id
        with pytest.raises(KeyMismatch):
            await store.accept(make_plan("bob", selectors=(), idempotency=with_other_body(answered.idempotency)))
        again = await store.accept(make_plan(selectors=(), idempotency=interrupted.idempotency))
        assert again.status is RunStatus.RUNNING
        assert len(await all_threads(store, "ann")) == len(await all_threads(store, "bob")) == 1

    async def test_a_repeated_request_gets_its_run_while_the_run_waits(self, store: ThreadStore) -> None:
        running = make_plan()
        waiting = make_plan(idempotency=make_key())
        greeted = make_plan("bob", conversation_start=True, idempotency=make_key())
        for plan in (running, waiting, greeted):
            await store.accept(plan)
        for plan in (waiting, greeted):
            await expect_key_used(store, plan, plan.idempotency)

    async def test_accepting_a_run_with_a_key_twice_stores_it_once(self, store: ThreadStore) -> None:
        plan = make_plan(idempotency=make_key())
        first, second = await store.accept(plan), await store.accept(plan)
        assert second.status is RunStatus.RUNNING
        assert ids_of(second.stored) == ids_of(first.stored)
        assert len(await all_events(store, first.thread.thread_id)) == 2

    async def test_another_body_under_a_known_key_is_refused(self, store: ThreadStore) -> None:
        key = make_key()
        for end in (None, RunStatus.COMPLETED, RunStatus.INTERRUPTED):
            plan = make_plan(str(end), idempotency=Idempotency(make_key().key, key.body))
            thread_id = (await store.accept(plan)).thread.thread_id
            if end is not None:
                await store.finish(plan.run_id, OWNER, Outcome(end))
            other = make_plan(str(end), idempotency=with_other_body(plan.idempotency))
            with pytest.raises(KeyMismatch):
                await store.accept(other)
            assert (await look_at(store, other.run_id)).status is None
            assert len(await all_events(store, thread_id)) == 2

    async def test_other_keys_are_other_requests(self, store: ThreadStore) -> None:
        body = make_key().body
        plans = [make_plan(idempotency=Idempotency(make_key().key, body)) for _ in range(3)]
        accepted = [await store.accept(plan) for plan in plans]
        assert [one.status for one in accepted] == [RunStatus.RUNNING, RunStatus.QUEUED, RunStatus.QUEUED]

    async def test_fifty_equal_requests_at_once_make_one_run(self, store: ThreadStore) -> None:
        key = make_key()
        plans = [make_plan(idempotency=key) for _ in range(50)]
        answers = await asyncio.gather(*map(store.accept, plans), return_exceptions=True)
        ((run_id, accepted),) = [
            (plan.run_id, answer) for plan, answer in zip(plans, answers, strict=True) if isinstance(answer, Accepted)
        ]
        used = [answer.run_id for answer in answers if isinstance(answer, KeyUsed)]
        assert used == [run_id] * 49
        assert len(await all_threads(store, "ann")) == 1
        assert await contents(store, accepted.thread.thread_id) == ["Hello"]

    async def test_only_one_of_two_concurrent_bodies_gets_the_key(self, store: ThreadStore) -> None:
        key = make_key()
        bodies = [key, with_other_body(key)]
        plans = [make_plan(idempotency=bodies[number % 2]) for number in range(40)]
        answers = await asyncio.gather(*map(store.accept, plans), return_exceptions=True)
        (winner,) = [number for number, answer in enumerate(answers) if isinstance(answer, Accepted)]
        for number, answer in enumerate(answers):
            if number == winner:
                continue
            if number % 2 == winner % 2:
                assert isinstance(answer, KeyUsed)
                assert answer.run_id == plans[winner].run_id
            else:
                assert isinstance(answer, KeyMismatch)

    async def test_a_run_that_was_cancelled_while_it_waited_leaves_its_key_free(self, store: ThreadStore) -> None:
        running = make_plan()
        thread_id = (await store.accept(running)).thread.thread_id
        key = make_key()
        for number, end in enumerate(("cancel", "heartbeat")):
            cancelled = make_plan(text="cancelled", idempotency=key)
            await store.accept(cancelled)
            if end == "cancel":
                await store.cancel(cancelled.run_id)
            else:
                await store.heartbeat(OWNER, {running.run_id})
            again = make_plan(text=f"again {number}", idempotency=with_other_body(key))
            assert (await store.accept(again)).status is RunStatus.QUEUED
            await expect_key_used(store, again, again.idempotency)
            await store.cancel(again.run_id)
        assert await contents(store, thread_id) == ["Hello"]

    async def test_a_rejected_request_leaves_its_key_free(self, store: ThreadStore) -> None:
        key = make_key()
        running = make_plan(queue_limit=0)
        await store.accept(running)
        for refusal, selectors in ((QueueFull, ANYBODY), (ThreadNotFound, (ById(uuid7()),))):
            with pytest.raises(refusal):
                await store.accept(make_plan(queue_limit=0, selectors=selectors, idempotency=key))
        await store.finish(running.run_id, OWNER, completed())
        accepted = await store.accept(make_plan(idempotency=with_other_body(key)))
        assert accepted.status is RunStatus.RUNNING

    async def test_a_key_is_free_once_it_is_old(self, store: ThreadStore) -> None:
        key = make_key()
        first, second = make_plan(idempotency=key), make_plan(idempotency=with_other_body(key))
        await store.accept(first)
        kept, store.keep_keys = store.keep_keys, ALREADY
        assert kept == timedelta(hours=24)
        assert (await store.accept(second)).status is RunStatus.QUEUED
        store.keep_keys = kept
        await expect_key_used(store, second, second.idempotency)

    async def test_a_purge_deletes_old_keys_and_no_run(self, store: ThreadStore) -> None:
        plan = make_plan(idempotency=make_key())
        await store.accept(plan)
        await store.finish(plan.run_id, OWNER, completed())
        await store.purge(timedelta(days=1))
        await expect_key_used(store, plan, plan.idempotency)
        kept, store.keep_keys = store.keep_keys, ALREADY
        assert await store.purge(timedelta(days=1)) == 0
        store.keep_keys = kept
        assert (await store.run(plan.run_id, None, None)).status is RunStatus.COMPLETED
        assert (await store.accept(make_plan(idempotency=plan.idempotency))).status is RunStatus.RUNNING

    async def test_the_key_of_a_purged_or_deleted_run_is_free(self, store: ThreadStore) -> None:
        for way in ("purge", "thread", "contact"):
            plan = make_plan(way, idempotency=make_key())
            thread_id = (await store.accept(plan)).thread.thread_id
            await store.finish(plan.run_id, OWNER, completed())
            match way:
                case "purge":
                    await store.purge(ALREADY)
                case "thread":
                    await store.delete_thread(thread_id, None)
                case "contact":
                    await store.delete_contact(way)
            again = make_plan(way, idempotency=with_other_body(plan.idempotency))
            assert (await store.accept(again)).status is RunStatus.RUNNING
            await expect_key_used(store, again, again.idempotency)

    # Keys of interrupted runs

    async def test_the_message_of_an_interrupted_run_is_answered_without_a_second_copy(
        self, store: ThreadStore
    ) -> None:
        first = await self._interrupted(store, text="one")
        thread_id = (await store.run(first.run_id, None, None)).thread_id
        # The store ignores these selectors, which match nothing, and stores no conversation start.
        again = make_plan(
            text="one", idempotency=first.idempotency, selectors=(), acting_for="ann", conversation_start=True
        )
        accepted = await store.accept(again)
        assert accepted.thread.thread_id == thread_id
        assert accepted.status is RunStatus.RUNNING
        assert not accepted.created_new_thread
        assert accepted.stored == []
        assert accepted.snapshot is not None
        assert ids_of(accepted.snapshot.rows)[-1] == first.message.event_id
        twice = await store.accept(again)
        assert twice.status is RunStatus.RUNNING
        assert twice.stored == []
        assert twice.snapshot is not None
        assert ids_of(twice.snapshot.rows) == ids_of(accepted.snapshot.rows)
        await expect_key_used(store, again, first.idempotency)
        assert (await store.finish(again.run_id, OWNER, completed(make_event()))).counted
        assert await contents(store, thread_id) == ["one", "Hi"]
        await expect_key_used(store, again, first.idempotency)
        assert (await look_at(store, first.run_id)).status is RunStatus.INTERRUPTED

    async def test_an_interrupted_run_that_had_not_started_is_answered_without_a_second_copy(
        self, store: ThreadStore
    ) -> None:
        dead = [make_plan(text=str(number), owner=OTHER_OWNER, idempotency=make_key()) for number in range(3)]
        accepted_before = [await store.accept(plan) for plan in dead]
        await self.recover(store, OWNER)
        for number in (1, 2, 0):
            again = make_plan(idempotency=dead[number].idempotency)
            accepted = await store.accept(again)
            assert accepted.snapshot is not None
            expected = [text for text in ("0", "1", "2") if text != str(number)]
            texts = [
                json_of(row.data)["content"] for row in accepted.snapshot.rows if row.event_type.startswith("comm.")
            ]
            assert texts == [*expected, str(number)]
            await store.finish(again.run_id, OWNER, completed())
        assert await contents(store, accepted_before[0].thread.thread_id) == ["0", "1", "2"]

    async def test_a_context_ends_with_an_old_message_that_is_answered_now(self, store: ThreadStore) -> None:
        first = await self._interrupted(store, text="old")
        thread_id = (await store.run(first.run_id, None, None)).thread_id
        later = make_plan(selectors=(ById(thread_id),))
        await store.accept(later)
        await store.finish(later.run_id, OWNER, completed(*[make_event() for _ in range(20)]))
        again = make_plan(idempotency=first.idempotency, context=ContextLimits(events=5))
        accepted = await store.accept(again)
        assert accepted.snapshot is not None
        events = await all_events(store, thread_id)
        newest = expected_context(events, again.context)
        assert first.message.event_id not in newest
        assert ids_of(accepted.snapshot.rows) == [*newest, first.message.event_id]
        assert accepted.snapshot.truncated

    async def test_an_interrupted_message_waits_its_turn_and_does_not_enter_again(self, store: ThreadStore) -> None:
        first = await self._interrupted(store, text="one")
        before, again = make_plan(text="two"), make_plan(text="one", idempotency=first.idempotency)
        thread_id = (await store.accept(before)).thread.thread_id
        for _ in range(2):
            accepted = await store.accept(again)
            assert (accepted.status, accepted.snapshot, accepted.stored) == (RunStatus.QUEUED, None, [])
        assert await store.start(again.run_id, OWNER, (), CONTEXT) is None
        await store.finish(before.run_id, OWNER, completed(make_event()))
        for _ in range(2):
            started = await store.start(again.run_id, OWNER, (), CONTEXT)
            assert started is not None
            assert started.stored == []
            assert [json_of(row.data).get("content") for row in started.snapshot.rows] == [None, "two", "Hi", "one"]
        await store.finish(again.run_id, OWNER, completed())
        assert await contents(store, thread_id) == ["one", "two", "Hi"]

    async def test_an_interrupted_message_may_be_interrupted_and_cancelled_again(self, store: ThreadStore) -> None:
        first = await self._interrupted(store, text="one")
        before = make_plan(text="two", owner=OTHER_OWNER)
        thread_id = (await store.accept(before)).thread.thread_id
        dead = make_plan(text="one", owner=OTHER_OWNER, idempotency=first.idempotency)
        assert (await store.accept(dead)).status is RunStatus.QUEUED
        assert await self.recover(store, OWNER) == 2
        before = make_plan(text="three")
        await store.accept(before)
        cancelled = make_plan(text="one", idempotency=first.idempotency)
        assert (await store.accept(cancelled)).status is RunStatus.QUEUED
        await store.cancel(cancelled.run_id)
        with pytest.raises(KeyMismatch):
            await store.accept(make_plan(idempotency=with_other_body(first.idempotency)))
        await store.finish(before.run_id, OWNER, completed())
        last = make_plan(text="one", idempotency=first.idempotency)
        accepted = await store.accept(last)
        assert accepted.snapshot is not None
        assert ids_of(accepted.snapshot.rows)[-1] == first.message.event_id
        assert await contents(store, thread_id) == ["one", "two", "three"]

    async def test_a_full_queue_leaves_the_key_to_the_interrupted_run(self, store: ThreadStore) -> None:
        first = await self._interrupted(store)
        running = make_plan()
        await store.accept(running)
        with pytest.raises(QueueFull):
            await store.accept(make_plan(idempotency=first.idempotency, queue_limit=0))
        await store.finish(running.run_id, OWNER, completed())
        accepted = await store.accept(make_plan(idempotency=first.idempotency))
        assert accepted.stored == []

    async def test_an_interrupted_message_is_answered_for_its_contact_only(self, store: ThreadStore) -> None:
        first = await self._interrupted(store)
        with pytest.raises(ThreadNotFound):
            await store.accept(make_plan("bob", idempotency=first.idempotency, acting_for="bob"))
        assert await all_threads(store, "bob") == []
        assert (await store.accept(make_plan("ann", idempotency=first.idempotency, acting_for="ann"))).stored == []

    async def test_twenty_retries_at_once_make_one_new_run(self, store: ThreadStore) -> None:
        first = await self._interrupted(store)
        plans = [make_plan(idempotency=first.idempotency) for _ in range(20)]
        answers = await asyncio.gather(*map(store.accept, plans), return_exceptions=True)
        (winner,) = [number for number, answer in enumerate(answers) if isinstance(answer, Accepted)]
        assert [answer.run_id for answer in answers if isinstance(answer, KeyUsed)] == [plans[winner].run_id] * 19
