"""Tests that a deletion also deletes the events and runs, and what was said of the thread."""

from uuid import UUID

import pytest

from jimsapi.testing.store.base import StoreTests
from jimsapi.testing.store.samples import (
    ALREADY,
    CONTEXT,
    OWNER,
    all_threads,
    completed,
    expect_key_used,
    fill,
    look_at,
    make_event,
    make_key,
    make_plan,
    take_turn,
)
from jimsapi.threads.errors import RunClosed, ThreadNotFound
from jimsapi.threads.event import NewEvent
from jimsapi.threads.facts import ForkPlan, Rating, ThreadChange, ThreadFacts
from jimsapi.threads.run import ByExternalId, New, Settled
from jimsapi.threads.store import ThreadStore


async def described(store: ThreadStore, event_id: UUID) -> UUID:
    """Create a thread with a title, metadata, a mark that it is archived, and a rating of an event."""
    thread_id = await fill(store, [NewEvent(event_id, "comm.assistant_message", b'{"content":"Hi"}')])
    await store.change_thread(thread_id, None, ThreadChange("Quokkas", archived=True, metadata=b'{"stars":5}'))
    await store.rate(thread_id, None, event_id, Rating(-1, "too short"))
    return thread_id


async def expect_nothing_left(store: ThreadStore, thread_id: UUID, event_id: UUID) -> None:
    """Check that the facts and ratings of a deleted thread are gone, by a thread and an event with its identifiers."""
    assert [summary.facts for summary in await store.summaries([thread_id])] == [ThreadFacts()]
    other_id = await fill(store, [], "bob")
    await store.fork(ForkPlan(thread_id=thread_id, parent_id=other_id, acting_for=None))
    await store.append(thread_id, None, [NewEvent(event_id, "comm.assistant_message", b'{"content":"Ho"}')])
    [summary] = await store.summaries([thread_id])
    assert (summary.facts.title, summary.facts.archived_at, summary.facts.metadata) in (
        (None, None, b"{}"),
        (None, None, "{}"),
    )
    assert await store.feedback(thread_id, None) == []


class Deletion(StoreTests):
    """Tests that a deletion also deletes the events and runs, and what was said of the thread."""

    async def test_deleting_a_thread_deletes_its_events_and_runs(self, store: ThreadStore) -> None:
        done, running, waiting = plans = [make_plan() for _ in range(3)]
        thread_id = (await store.accept(done)).thread.thread_id
        await store.finish(done.run_id, OWNER, completed(make_event()))
        await store.accept(running)
        await store.accept(waiting)
        other = (await take_turn(store, "bob")).thread
        assert await store.delete_thread(thread_id, None) == [running.run_id, waiting.run_id]
        for plan in plans:
            assert await look_at(store, plan.run_id) == Settled(False, None, None)
        with pytest.raises(ThreadNotFound):
            await store.thread(thread_id, None)
        with pytest.raises(ThreadNotFound):
            await store.events(thread_id, None, 10, None)
        with pytest.raises(ThreadNotFound):
            await store.delete_thread(thread_id, None)
        with pytest.raises(RunClosed):
            await store.start(waiting.run_id, OWNER, (), CONTEXT)
        assert await store.load_events(thread_id, None, 10) == []
        assert await all_threads(store, "ann") == []
        assert await store.heartbeat(OWNER, set()) == []
        assert await store.thread(other.thread_id, None) == other
        assert (await take_turn(store)).created_new_thread

    async def test_deleting_a_contact_deletes_all_its_threads(self, store: ThreadStore) -> None:
        first, second = make_plan(selectors=(New(external_id="x"),)), make_plan(selectors=(New(),))
        await store.accept(first)
        await store.accept(second)
        kept = (await take_turn(store, "")).thread
        assert sorted(await store.delete_contact("ann")) == sorted([first.run_id, second.run_id])
        assert await store.delete_contact("ann") == []
        assert await all_threads(store, "ann") == []
        assert await all_threads(store, "") == [kept]
        with pytest.raises(ThreadNotFound):
            await store.accept(make_plan(selectors=(ByExternalId("x"),)))

    async def test_deleting_a_thread_deletes_its_facts_and_ratings(self, store: ThreadStore) -> None:
        event_id = make_event().event_id
        thread_id = await described(store, event_id)
        await store.delete_thread(thread_id, None)
        await expect_nothing_left(store, thread_id, event_id)

    async def test_deleting_a_contact_deletes_the_facts_and_ratings_of_its_threads(self, store: ThreadStore) -> None:
        event_id = make_event().event_id
        thread_id = await described(store, event_id)
        await store.delete_contact("ann")
        await expect_nothing_left(store, thread_id, event_id)

    async def test_expiring_a_thread_deletes_its_facts_and_ratings(self, store: ThreadStore) -> None:
        event_id = make_event().event_id
        thread_id = await described(store, event_id)
        assert await store.expire(ALREADY) == 1
        await expect_nothing_left(store, thread_id, event_id)

    async def test_a_key_of_a_deleted_contact_is_free_and_that_of_another_is_not(self, store: ThreadStore) -> None:
        deleted, kept = make_plan(idempotency=make_key()), make_plan("bob", idempotency=make_key())
        for plan in (deleted, kept):
            await store.accept(plan)
            await store.finish(plan.run_id, OWNER, completed())
        await store.delete_contact("ann")
        await expect_key_used(store, kept, kept.idempotency)
        assert (await store.accept(make_plan(idempotency=deleted.idempotency))).created_new_thread

    async def test_a_deletion_for_another_contact_deletes_nothing(self, store: ThreadStore) -> None:
        event_id = make_event().event_id
        thread_id = await described(store, event_id)
        plan = make_plan(idempotency=make_key())
        await store.accept(plan)
        with pytest.raises(ThreadNotFound):
            await store.delete_thread(thread_id, "bob")
        assert await store.delete_contact("bob") == []
        await expect_key_used(store, plan, plan.idempotency)
        assert [given.event_id for given in await store.feedback(thread_id, "ann")] == [event_id]
        assert [summary.facts.title for summary in await store.summaries([thread_id])] == ["Quokkas"]
