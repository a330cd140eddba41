"""Tests that runs on which no process works are ended, and that old runs are deleted."""

from datetime import timedelta

from jimsapi.testing.store.base import StoreTests
from jimsapi.testing.store.samples import (
    ALREADY,
    CONTEXT,
    OTHER_OWNER,
    OWNER,
    all_events,
    completed,
    contents,
    look_at,
    make_event,
    make_plan,
)
from jimsapi.threads.run import RunStatus
from jimsapi.threads.store import ThreadStore


class Housekeeping(StoreTests):
    """Tests that runs on which no process works are ended, and that old runs are deleted."""

    async def test_a_heartbeat_ends_the_runs_that_are_not_live(self, store: ThreadStore) -> None:
        orphan, follower, lost = make_plan("ann"), make_plan("ann"), make_plan("ann")
        alive, foreign = make_plan("bob"), make_plan("cid", owner=OTHER_OWNER)
        for plan in (orphan, follower, lost, alive, foreign):
            await store.accept(plan)
        live = {follower.run_id, alive.run_id}
        assert await store.heartbeat(OWNER, live) == [follower.run_id]
        seen = [(await look_at(store, plan.run_id)).status for plan in (orphan, follower, lost, alive, foreign)]
        assert seen == [
            RunStatus.INTERRUPTED, RunStatus.QUEUED, RunStatus.CANCELLED, RunStatus.RUNNING, RunStatus.RUNNING,
        ]  # fmt: skip
        assert await store.heartbeat(OWNER, live) == []
        assert await store.start(follower.run_id, OWNER, (), CONTEXT) is not None

    async def test_recover_interrupts_runs_of_dead_owners_and_adds_their_messages(self, store: ThreadStore) -> None:
        dead = [make_plan(text=str(number), owner=OTHER_OWNER) for number in range(5)]
        greeted = make_plan("bob", "hi", owner=OTHER_OWNER, conversation_start=True)
        accepted = [await store.accept(plan) for plan in dead]
        thread_id = accepted[0].thread.thread_id
        greeted_id = (await store.accept(greeted)).thread.thread_id
        mine = make_plan("cid")
        await store.accept(mine)
        assert await self.recover(store, OWNER) == 6
        assert await contents(store, thread_id) == ["0", "1", "2", "3", "4"]
        assert await contents(store, greeted_id) == ["hi"]
        for plan in (*dead, greeted):
            assert (await look_at(store, plan.run_id)).status is RunStatus.INTERRUPTED
        assert (await look_at(store, mine.run_id)).status is RunStatus.RUNNING
        assert (await store.accept(make_plan())).status is RunStatus.RUNNING
        assert await self.recover(store, OWNER) == 0

    async def test_a_purge_deletes_ended_runs_and_nothing_else(self, store: ThreadStore) -> None:
        done, running, waiting = plans = [make_plan() for _ in range(3)]
        accepted = [await store.accept(plan) for plan in plans]
        await store.finish(done.run_id, OWNER, completed(make_event()))
        await store.start(running.run_id, OWNER, (), CONTEXT)
        assert await store.purge(timedelta(days=1)) == 0
        assert (await look_at(store, done.run_id)).status is RunStatus.COMPLETED
        assert await store.purge(ALREADY) == 1
        assert await store.purge(ALREADY) == 0
        statuses = [(await look_at(store, plan.run_id)).status for plan in plans]
        assert statuses == [None, RunStatus.RUNNING, RunStatus.QUEUED]
        assert len(await all_events(store, accepted[0].thread.thread_id)) == 4
        assert (await store.finish(running.run_id, OWNER, completed())).next_run == waiting.run_id
