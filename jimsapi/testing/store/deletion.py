"""Tests that a deletion also deletes the events and runs."""

import pytest

from jimsapi.testing.store.base import StoreTests
from jimsapi.testing.store.samples import (
    CONTEXT,
    OWNER,
    all_threads,
    completed,
    look_at,
    make_event,
    make_plan,
    take_turn,
)
from jimsapi.threads.errors import RunClosed, ThreadNotFound
from jimsapi.threads.run import ByExternalId, New, Settled
from jimsapi.threads.store import ThreadStore


class Deletion(StoreTests):
    """Tests that a deletion also deletes the events and runs."""

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
