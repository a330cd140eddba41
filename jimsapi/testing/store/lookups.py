"""Tests that a run is shown in its current state, and only to its own caller and contact; for threads, see `pages`."""

from datetime import UTC, datetime, timedelta

import pytest

from jimsapi.testing.store.base import StoreTests
from jimsapi.testing.store.samples import (
    ALREADY,
    CONTEXT,
    OTHER_OWNER,
    OWNER,
    all_events,
    completed,
    fill,
    ids_of,
    json_of,
    make_event,
    make_plan,
    take_turn,
)
from jimsapi.threads.errors import QueueFull, RunNotFound, ThreadNotFound
from jimsapi.threads.ids import uuid7
from jimsapi.threads.run import ByExternalId, ById, FailureKind, Latest, New, Outcome, RunStatus, Selector, ThreadQuery
from jimsapi.threads.store import ThreadStore


class Lookups(StoreTests):
    """Tests that a run is shown in its current state, and only to its own caller and contact."""

    async def test_a_run_is_returned_in_its_current_state(self, store: ThreadStore) -> None:
        before = datetime.now(UTC)
        first, waiting = make_plan(), make_plan()
        thread = (await store.accept(first)).thread
        await store.accept(waiting)
        running, queued = [await store.run(plan.run_id, None, None) for plan in (first, waiting)]
        assert (running.run_id, running.thread_id, running.contact_id) == (first.run_id, thread.thread_id, "ann")
        assert (running.status, queued.status) == (RunStatus.RUNNING, RunStatus.QUEUED)
        assert (running.created_new_thread, queued.created_new_thread) == (True, False)
        assert running.started_at is not None
        assert before <= running.accepted_at <= running.started_at <= datetime.now(UTC)
        assert running.started_at.utcoffset() == running.accepted_at.utcoffset() == timedelta(0)
        assert queued.started_at is None
        assert [(one.finished_at, one.error, one.streamed, one.events) for one in (running, queued)] == [
            (None, None, None, [])
        ] * 2
        await store.finish(first.run_id, OWNER, Outcome(RunStatus.FAILED, (), "ValueError: no", 7))
        await store.start(waiting.run_id, OWNER, (), CONTEXT)
        failed, started = [await store.run(plan.run_id, None, None) for plan in (first, waiting)]
        assert (failed.status, failed.error, failed.streamed) == (RunStatus.FAILED, "ValueError: no", 7)
        assert (failed.accepted_at, failed.started_at) == (running.accepted_at, running.started_at)
        assert failed.finished_at is not None
        assert running.started_at <= failed.finished_at <= datetime.now(UTC)
        assert failed.finished_at.utcoffset() == timedelta(0)
        assert (started.status, started.accepted_at) == (RunStatus.RUNNING, queued.accepted_at)
        assert started.started_at is not None
        assert started.started_at >= started.accepted_at

    async def test_a_run_shows_the_events_that_it_sent_and_no_others(self, store: ThreadStore) -> None:
        plans = [make_plan(text=str(number), conversation_start=True) for number in range(4)]
        sent = [
            [make_event("rag.step", [number]), *[make_event(data={"content": "é🦊"}) for _ in range(number)]]
            for number in range(4)
        ]
        accepted = [await store.accept(plan) for plan in plans]
        for number, plan in enumerate(plans):
            greeting = [make_event("rag.greeted")] if number == 0 else []
            await store.start(plan.run_id, OWNER, greeting, CONTEXT)
            events = sent[number] if number != 2 else []
            await store.finish(plan.run_id, OWNER, Outcome(RunStatus.COMPLETED, tuple(events), None, number))
        stored = {event.event_id: event for event in await all_events(store, accepted[0].thread.thread_id)}
        for number, plan in enumerate(plans):
            found = await store.run(plan.run_id, None, None)
            assert found.streamed == number
            assert found.events == [stored[event.event_id] for event in sent[number] if number != 2]

    async def test_a_run_of_many_events_is_shown_with_all_of_them(self, store: ThreadStore) -> None:
        plan = make_plan()
        await store.accept(plan)
        sent = [make_event("rag.step", number) for number in range(1500)]
        await store.finish(plan.run_id, OWNER, completed(*sent))
        found = await store.run(plan.run_id, None, None)
        assert [event.event_id for event in found.events] == [event.event_id for event in sent]
        assert [json_of(event.event_data) for event in found.events] == list(range(1500))

    async def test_a_run_is_returned_to_its_contact_and_its_caller(self, store: ThreadStore) -> None:
        mine, other = uuid7(), uuid7()
        plan, without_caller = make_plan("ann", caller=mine), make_plan("", caller=None)
        await store.accept(plan)
        await store.accept(without_caller)
        for acting_for, caller in ((None, None), ("ann", None), (None, mine), ("ann", mine)):
            assert (await store.run(plan.run_id, acting_for, caller)).run_id == plan.run_id
        for acting_for, caller in (("bob", None), ("", mine), (None, other), ("ann", other)):
            with pytest.raises(RunNotFound) as refused:
                await store.run(plan.run_id, acting_for, caller)
            assert refused.value.run_id == plan.run_id
        assert (await store.run(without_caller.run_id, "", None)).contact_id == ""
        with pytest.raises(RunNotFound):
            await store.run(without_caller.run_id, None, mine)

    async def test_a_run_that_is_unknown_purged_or_deleted_is_not_found(self, store: ThreadStore) -> None:
        plans = [make_plan(contact) for contact in ("ann", "bob", "cid")]
        threads = [(await store.accept(plan)).thread.thread_id for plan in plans]
        await store.finish(plans[0].run_id, OWNER, completed(make_event()))
        await store.purge(ALREADY)
        await store.delete_thread(threads[1], None)
        await store.delete_contact("cid")
        refused = make_plan(selectors=(ById(uuid7()),))
        with pytest.raises(ThreadNotFound):
            await store.accept(refused)
        for run_id in (uuid7(), refused.run_id, *(plan.run_id for plan in plans)):
            with pytest.raises(RunNotFound):
                await store.run(run_id, None, None)

    async def test_the_streamed_count_is_unknown_unless_the_run_finished(self, store: ThreadStore) -> None:
        cancelled, orphaned = make_plan("ann"), make_plan("bob")
        started, waited = [make_plan("cid", owner=OTHER_OWNER) for _ in range(2)]
        silent = make_plan("dan")
        for plan in (cancelled, orphaned, started, waited, silent):
            await store.accept(plan)
        await store.cancel(cancelled.run_id)
        await store.heartbeat(OWNER, {silent.run_id})
        await self.recover(store, OWNER)
        await store.finish(silent.run_id, OWNER, completed())
        found = [await store.run(plan.run_id, None, None) for plan in (cancelled, orphaned, started, waited, silent)]
        assert [one.streamed for one in found] == [None, None, None, None, 0]
        assert [one.started_at is None for one in found] == [False, False, False, True, False]
        assert all(one.finished_at is not None for one in found)
        assert [one.events for one in found] == [[]] * 5

    async def test_a_thread_is_found_by_selectors_as_a_message_would_find_it(self, store: ThreadStore) -> None:
        old = (await take_turn(store, "ann", selectors=(New(external_id="x"),))).thread
        new = (await take_turn(store, "ann", selectors=(New(),))).thread
        other = (await take_turn(store, "bob")).thread
        selectors: tuple[Selector, ...]
        for selectors, acting_for, found in (
            ((Latest(),), None, new),
            ((Latest(), New()), "ann", new),
            ((ByExternalId("x"), New()), "ann", old),
            ((ById(old.thread_id),), "ann", old),
            ((ById(other.thread_id),), None, other),
            ((ById(uuid7()), Latest()), None, new),
            ((Latest(timedelta(days=1)),), None, new),
        ):
            assert await store.find_thread(ThreadQuery("ann", selectors, acting_for)) == found
        for selectors, acting_for, named in (
            ((ById(other.thread_id),), "ann", other.thread_id),
            ((ByExternalId("y"),), None, None),
            ((ByExternalId("x"),), "bob", None),
            ((New(), Latest()), None, None),
            ((Latest(ALREADY), New()), None, None),
        ):
            with pytest.raises(ThreadNotFound) as refused:
                await store.find_thread(ThreadQuery("ann", selectors, acting_for))
            assert refused.value.thread_id == named
        assert len((await store.threads("ann", 10, None)).threads) == 2

    async def test_events_are_returned_by_their_identifiers(self, store: ThreadStore) -> None:
        sent = [make_event("rag.step", {"n": number}) for number in range(100)]
        thread_id = await fill(store, sent)
        wanted = [sent[90].event_id, uuid7(), sent[3].event_id]
        found = await store.events_by_id(thread_id, wanted)
        assert ids_of(found) == [wanted[0], wanted[2]]
        assert [json_of(row.data) for row in found] == [{"n": 90}, {"n": 3}]
        other = await fill(store, [], "bob")
        assert await store.events_by_id(other, wanted) == []
        assert await store.events_by_id(uuid7(), wanted) == []
        assert await store.events_by_id(thread_id, []) == []

    async def test_an_error_of_any_text_is_shown(self, store: ThreadStore) -> None:
        for error, shown in (("", ""), ("\ud800 🦊 \n ü", "? 🦊 \n ü"), ("x" * 100_000, "x" * 100_000)):
            plan = make_plan()
            await store.accept(plan)
            await store.finish(plan.run_id, OWNER, Outcome(RunStatus.FAILED, (), error))
            assert (await store.run(plan.run_id, None, None)).error == shown

    async def test_the_kind_of_a_failure_is_shown_as_it_was_stored(self, store: ThreadStore) -> None:
        for failure in (FailureKind.PIPELINE, FailureKind.TIMEOUT, None):
            plan = make_plan()
            await store.accept(plan)
            assert (await store.run(plan.run_id, None, None)).failure is None
            await store.finish(plan.run_id, OWNER, Outcome(RunStatus.FAILED, (), "no", failure=failure))
            assert (await store.run(plan.run_id, None, None)).failure is failure

    async def test_a_full_queue_names_the_oldest_open_run(self, store: ThreadStore) -> None:
        plans = [make_plan() for _ in range(3)]
        for plan in plans:
            await store.accept(plan)
        for plan, limit in zip(plans, (2, 1, 0), strict=True):
            with pytest.raises(QueueFull) as refused:
                await store.accept(make_plan(queue_limit=limit))
            assert refused.value.open_run == plan.run_id
            await store.cancel(plan.run_id)
