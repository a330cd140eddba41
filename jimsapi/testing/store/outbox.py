"""Tests of the outbox: what durable sinks receive of a store, and in which order."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from jimsapi.testing.contract import DoesNotApply, needs
from jimsapi.testing.store.base import StoreTests
from jimsapi.testing.store.samples import (
    ALREADY,
    CONTEXT,
    OTHER_OWNER,
    OWNER,
    all_events,
    completed,
    fill,
    json_of,
    make_event,
    make_plan,
    outbox_of,
    take_turn,
)
from jimsapi.threads.errors import IdentifierTaken
from jimsapi.threads.event import THREAD_CREATED, NewEvent, row_id
from jimsapi.threads.facts import ForkPlan, ThreadPlan
from jimsapi.threads.ids import uuid7
from jimsapi.threads.outbox import (
    MAX_REASON,
    WEBHOOKS_OF_A_CALLER,
    DueWebhook,
    OutboxBatch,
    OutboxEvent,
    Refused,
)
from jimsapi.threads.run import New, Outcome, RunStatus
from jimsapi.threads.store import ThreadStore

SINK = "audit"
URL = "https://example.com/hook"
CLOCKS = timedelta(minutes=5)
"""How far the clock of a store may be from that of the tests."""
HOLD = 600.0
"""Seconds for which a test holds a sink."""


class Outboxes(StoreTests):
    """Tests of the outbox: what durable sinks receive of a store, and in which order."""

    @needs("has_outbox")
    async def test_a_sink_gets_every_event_with_its_contact_and_its_run(self, store: ThreadStore) -> None:
        await hold(store)
        plan = make_plan(beside=[("message.metadata", {"metadata": {}})])
        thread_id = (await store.accept(plan)).thread.thread_id
        await store.finish(plan.run_id, OWNER, completed(make_event("tool.call"), make_event()))
        appended = (await store.append(thread_id, None, [make_event("rag.added")]))[0]
        received = await receive(store)
        await expect_order(store, [thread_id], received)
        assert {event.contact_id for event in received} == {"ann"}
        assert [event.run_id for event in received] == [plan.run_id] * 5 + [None]
        assert row_id(received[-1].row) == row_id(appended)
        assert json_of(received[4].row.data) == {"content": "Hi"}

    @needs("has_outbox")
    async def test_a_sink_gets_the_events_of_a_run_that_waited(self, store: ThreadStore) -> None:
        await hold(store)
        greeted = make_plan(conversation_start=True)
        waiting = make_plan(beside=[("message.metadata", {"metadata": {}})])
        thread_id = (await store.accept(greeted)).thread.thread_id
        await store.accept(waiting)
        await store.start(greeted.run_id, OWNER, [make_event(data={"content": "Welcome"})], CONTEXT)
        await store.finish(greeted.run_id, OWNER, completed(make_event()))
        assert await store.start(waiting.run_id, OWNER, (), CONTEXT) is not None
        await store.finish(waiting.run_id, OWNER, Outcome(RunStatus.FAILED, (), "broken"))
        received = await receive(store)
        await expect_order(store, [thread_id], received)
        assert [event.run_id for event in received] == [greeted.run_id] * 4 + [waiting.run_id] * 2

    @needs("has_outbox")
    async def test_a_sink_gets_what_is_created_and_forked_without_a_run(self, store: ThreadStore) -> None:
        await hold(store)
        created = ThreadPlan(
            thread_id=uuid7(),
            contact_id="ann",
            events=(NewEvent(uuid7(), THREAD_CREATED, b"{}"), make_event()),
            thread_config=b"{}",
        )
        await store.create(created)
        fork = ForkPlan(thread_id=uuid7(), parent_id=created.thread_id, acting_for=None)
        await store.fork(fork)
        await store.create(created)  # a call that is repeated
        await store.fork(fork)
        received = await receive(store)
        await expect_order(store, [created.thread_id, fork.thread_id], received)
        assert {event.run_id for event in received} == {None}

    @needs("has_outbox")
    async def test_a_sink_gets_the_message_of_a_run_whose_process_died_before_its_start(
        self, store: ThreadStore
    ) -> None:
        await hold(store)
        running, waiting = make_plan(owner=OTHER_OWNER), make_plan(text="Wait", owner=OTHER_OWNER)
        thread_id = (await store.accept(running)).thread.thread_id
        await store.accept(waiting)
        assert await self.recover(store, OWNER) == 2
        received = await receive(store)
        await expect_order(store, [thread_id], received)
        assert received[-1].run_id == waiting.run_id

    @needs("has_outbox")
    async def test_what_is_stored_before_a_sink_is_registered_is_not_for_it(self, store: ThreadStore) -> None:
        thread_id = await fill(store, [make_event()])
        await hold(store)
        await hold(store, "later")
        [event] = await store.append(thread_id, None, [make_event("rag.added")])
        for sink in (SINK, "later"):
            assert [row_id(one.row) for one in await receive(store, sink)] == [row_id(event)]

    @needs("has_outbox")
    async def test_what_is_not_stored_is_not_in_the_outbox(self, store: ThreadStore) -> None:
        await hold(store)
        known = make_event()
        thread_id = await fill(store, [known])
        with pytest.raises(IdentifierTaken):
            await store.append(thread_id, None, [make_event(), known])
        plan = make_plan()
        await store.accept(plan)
        for _ in range(2):  # the second call repeats the first one
            await store.finish(plan.run_id, OWNER, completed(make_event()))
        await expect_order(store, [thread_id], await receive(store))

    @needs("has_outbox")
    async def test_a_batch_is_read_again_until_the_sink_has_advanced(self, store: ThreadStore) -> None:
        await hold(store)
        await take_turn(store)
        first = await outbox_of(store).read(SINK, 1)
        assert await outbox_of(store).read(SINK, 1) == first
        assert len(first.events) == 1
        assert first.after is not None
        assert await outbox_of(store).advance(SINK, OWNER, first.after)
        second = await outbox_of(store).read(SINK, 1)
        assert [event.row.event_type for event in (*first.events, *second.events)] == [
            THREAD_CREATED,
            "comm.user_message",
        ]
        assert second.after is not None
        assert await outbox_of(store).advance(SINK, OWNER, second.after)
        assert await outbox_of(store).read(SINK, 1) == OutboxBatch([], None)

    @needs("has_outbox")
    async def test_each_sink_has_its_own_position(self, store: ThreadStore) -> None:
        await hold(store)
        await hold(store, "other")
        thread_id = await fill(store, [make_event() for _ in range(5)])
        await expect_order(store, [thread_id], await receive(store, limit=2))
        await expect_order(store, [thread_id], await receive(store, "other", limit=3))
        assert await receive(store) == []

    @needs("has_outbox")
    async def test_one_process_at_a_time_works_for_a_sink(self, store: ThreadStore) -> None:
        await hold(store)
        await take_turn(store)
        assert not await outbox_of(store).hold(SINK, OTHER_OWNER, HOLD)
        batch = await outbox_of(store).read(SINK, 10)
        assert batch.after is not None
        assert not await outbox_of(store).advance(SINK, OTHER_OWNER, batch.after, [Refused(batch.events[0], "no")])
        assert await outbox_of(store).read(SINK, 10) == batch
        assert await outbox_of(store).dead_letters(SINK, 10) == []
        await outbox_of(store).release(SINK, OTHER_OWNER)
        assert not await outbox_of(store).hold(SINK, OTHER_OWNER, HOLD)
        await outbox_of(store).release(SINK, OWNER)
        assert await outbox_of(store).hold(SINK, OTHER_OWNER, HOLD)
        assert not await outbox_of(store).advance(SINK, OWNER, batch.after)
        assert await outbox_of(store).advance(SINK, OTHER_OWNER, batch.after)

    @needs("has_outbox")
    async def test_another_process_may_work_for_a_sink_when_its_owner_is_silent(self, store: ThreadStore) -> None:
        await hold(store)
        await take_turn(store)
        batch = await outbox_of(store).read(SINK, 10)
        assert batch.after is not None
        assert await outbox_of(store).hold(SINK, OWNER, 0.0)
        assert await outbox_of(store).hold(SINK, OTHER_OWNER, HOLD)
        assert not await outbox_of(store).hold(SINK, OWNER, HOLD)
        assert not await outbox_of(store).advance(SINK, OWNER, batch.after)

    @needs("has_outbox")
    async def test_what_is_deleted_is_not_delivered(self, store: ThreadStore) -> None:
        await hold(store)
        kept = await fill(store, [make_event()], "bob")
        deleted = await fill(store, [make_event()])
        batch = await outbox_of(store).read(SINK, 100)
        assert batch.after is not None
        refused = [Refused(event, "no") for event in batch.events if event.thread_id == deleted]
        await store.delete_thread(deleted, None)
        await expect_order(store, [kept], (await outbox_of(store).read(SINK, 100)).events)
        assert await outbox_of(store).advance(SINK, OWNER, batch.after, refused)
        assert await outbox_of(store).dead_letters(SINK, 10) == []
        await outbox_of(store).replay(SINK)
        assert await receive(store) == []

    @needs("has_outbox")
    async def test_dead_letters_are_listed_replayed_and_dropped(self, store: ThreadStore) -> None:
        await hold(store)
        plan = make_plan()
        thread_id = (await store.accept(plan)).thread.thread_id
        batch = await outbox_of(store).read(SINK, 10)
        assert batch.after is not None
        reasons = ["a faulty event", "x" * 2 * MAX_REASON]
        refused = [Refused(event, reason) for event, reason in zip(batch.events, reasons, strict=True)]
        assert await outbox_of(store).advance(SINK, OWNER, batch.after, refused)
        await store.append(thread_id, None, [make_event("rag.added")])

        first, second = await outbox_of(store).dead_letters(SINK, 10)
        assert (first.thread_id, first.run_id, first.event_id) == (thread_id, plan.run_id, row_id(batch.events[0].row))
        assert (first.event_type, first.reason, first.again) == (THREAD_CREATED, "a faulty event", False)
        assert abs(datetime.now(UTC) - first.failed_at) < timedelta(minutes=5)
        assert second.reason == "x" * MAX_REASON
        assert await outbox_of(store).dead_letters(SINK, 1) == [first]
        assert await outbox_of(store).dead_letters(SINK, 10, first.number) == [second]

        assert await outbox_of(store).replay(SINK, [second.number]) == 1
        assert [letter.again for letter in await outbox_of(store).dead_letters(SINK, 10)] == [False, True]
        received = await receive(store)
        assert [event.row.event_type for event in received] == ["comm.user_message", "rag.added"]
        assert received[0].run_id == plan.run_id
        assert await outbox_of(store).dead_letters(SINK, 10) == [first]
        assert await outbox_of(store).drop(SINK, [second.number]) == 0
        assert await outbox_of(store).drop(SINK) == 1
        assert await outbox_of(store).dead_letters(SINK, 10) == []

    @needs("has_outbox")
    async def test_a_dead_letter_that_is_refused_again_is_a_dead_letter_again(self, store: ThreadStore) -> None:
        await hold(store)
        await take_turn(store)
        batch = await outbox_of(store).read(SINK, 10)
        assert batch.after is not None
        await outbox_of(store).advance(SINK, OWNER, batch.after, [Refused(event, "no") for event in batch.events])
        assert await outbox_of(store).replay(SINK) == 2
        again = await outbox_of(store).read(SINK, 10)
        assert again.events == batch.events
        assert again.replayed
        assert not batch.replayed
        assert again.after is not None
        assert await outbox_of(store).advance(SINK, OWNER, again.after, [Refused(again.events[1], "still no")])
        [letter] = await outbox_of(store).dead_letters(SINK, 10)
        assert (letter.event_id, letter.reason, letter.again) == (row_id(batch.events[1].row), "still no", False)

    @needs("has_outbox")
    async def test_a_sink_reads_the_history_and_then_goes_on(self, store: ThreadStore) -> None:
        threads = [await fill(store, [make_event() for _ in range(4)], contact) for contact in ("ann", "bob")]
        await hold(store)
        assert await outbox_of(store).rewind(SINK, datetime(2000, 1, 1, tzinfo=UTC))
        await store.append(threads[0], None, [make_event("rag.added")])
        assert (await outbox_of(store).sinks())[0].history == datetime(2000, 1, 1, tzinfo=UTC)
        received = await receive(store, limit=3)
        assert [event.row.event_type for event in received[-1:]] == ["rag.added"]
        await expect_order(store, threads, received[:-1])  # the history has the newest event, too
        assert [event.contact_id for event in received] == ["ann"] * 7 + ["bob"] * 6 + ["ann"]
        assert (await outbox_of(store).sinks())[0].history is None

    @needs("has_outbox")
    async def test_the_history_begins_at_a_time(self, store: ThreadStore) -> None:
        thread_id = await fill(store, [make_event() for _ in range(4)])
        await hold(store)
        events = await all_events(store, thread_id)
        assert await outbox_of(store).rewind(SINK, events[3].created_at)
        assert [row_id(event.row) for event in await receive(store)] == [event.event_id for event in events[3:]]
        assert await outbox_of(store).rewind(SINK, events[-1].created_at + timedelta(microseconds=1))
        assert await receive(store) == []

    @needs("has_outbox")
    async def test_the_sinks_are_listed_with_what_waits_for_them(self, store: ThreadStore) -> None:
        assert await outbox_of(store).sinks() == []
        await outbox_of(store).register("b")
        await hold(store, "a")
        assert [sink.name for sink in await outbox_of(store).sinks()] == ["a", "b"]
        before = datetime.now(UTC) - CLOCKS
        await fill(store, [make_event()])
        first, second = await outbox_of(store).sinks()
        assert (first.waiting, first.dead) == (3, 0)
        assert first.oldest is not None
        assert before <= first.oldest <= datetime.now(UTC) + CLOCKS
        assert (second.owner, second.held_until) == (None, None)
        assert first.owner == OWNER
        assert first.held_until is not None
        batch = await outbox_of(store).read("a", 2)
        assert batch.after is not None
        await outbox_of(store).advance("a", OWNER, batch.after, [Refused(batch.events[0], "no")])
        first, second = await outbox_of(store).sinks()
        assert (first.waiting, first.dead) == (1, 1)
        assert first.oldest is not None
        assert (second.waiting, second.dead) == (3, 0)
        await receive(store, "a")
        assert (await outbox_of(store).sinks())[0].oldest is None

    @needs("has_outbox")
    async def test_what_waits_counts_from_when_it_was_stored_here_and_also_if_it_is_deleted(
        self, store: ThreadStore
    ) -> None:
        parent = await fill(store, [make_event()])
        await hold(store)
        before = datetime.now(UTC) - CLOCKS
        fork = ForkPlan(thread_id=uuid7(), parent_id=parent, acting_for=None)
        await store.fork(fork)
        [state] = await outbox_of(store).sinks()
        assert state.oldest is not None
        assert state.oldest >= before
        await store.delete_thread(fork.thread_id, None)
        await store.append(parent, None, [make_event("rag.added")])
        [state] = await outbox_of(store).sinks()
        assert state.oldest is not None
        assert [event.row.event_type for event in await receive(store)] == ["rag.added"]

    @needs("has_outbox")
    async def test_a_sink_that_is_rewound_in_the_middle_of_a_batch_begins_again(self, store: ThreadStore) -> None:
        thread_id = await fill(store, [make_event() for _ in range(4)])
        await hold(store)
        for size in (2, 100):
            await outbox_of(store).rewind(SINK, datetime(2000, 1, 1, tzinfo=UTC))
            batch = await outbox_of(store).read(SINK, size)
            await outbox_of(store).rewind(SINK, datetime(2000, 1, 1, tzinfo=UTC))
            assert batch.after is not None
            assert await outbox_of(store).advance(SINK, OWNER, batch.after)
            await expect_order(store, [thread_id], await receive(store))

    @needs("has_outbox")
    async def test_a_sink_that_is_removed_is_gone(self, store: ThreadStore) -> None:
        await hold(store)
        await hold(store, "other")
        thread_id = await fill(store, [make_event()])
        assert await outbox_of(store).remove(SINK)
        assert not await outbox_of(store).remove(SINK)
        assert not await outbox_of(store).hold(SINK, OWNER, HOLD)
        assert not await outbox_of(store).rewind(SINK, datetime.now(UTC))
        assert await outbox_of(store).read(SINK, 10) == OutboxBatch([], None)
        await expect_order(store, [thread_id], await receive(store, "other"))
        await outbox_of(store).register(SINK)
        await outbox_of(store).register(SINK)
        await outbox_of(store).hold(SINK, OWNER, HOLD)
        assert await receive(store) == []

    @needs("has_outbox")
    async def test_every_event_is_received_once_and_in_order_while_others_are_stored(self, store: ThreadStore) -> None:
        await hold(store)
        contacts = [f"contact {number}" for number in range(8)]

        async def talk(contact_id: str) -> UUID:
            for number in range(6):
                plan = make_plan(contact_id, str(number))
                accepted = await store.accept(plan)
                await store.finish(plan.run_id, OWNER, completed(make_event(), make_event()))
            return accepted.thread.thread_id

        talks = asyncio.gather(*map(talk, contacts))
        received: list[OutboxEvent] = []
        while not talks.done():
            received += await receive(store, limit=7)
            await asyncio.sleep(0)
        received += await receive(store)
        await expect_order(store, await talks, received)

    @needs("reopen_store", "has_outbox")
    async def test_positions_and_dead_letters_are_there_after_the_store_is_opened_again(self) -> None:
        reopen = self.reopen_store
        assert not isinstance(reopen, DoesNotApply)
        async with self.open_store() as store:
            await hold(store)
            await take_turn(store)
            batch = await outbox_of(store).read(SINK, 1)
            assert batch.after is not None
            await outbox_of(store).advance(SINK, OWNER, batch.after, [Refused(batch.events[0], "no")])
            letters = await outbox_of(store).dead_letters(SINK, 10)
        async with reopen(store) as again:
            assert await outbox_of(again).dead_letters(SINK, 10) == letters
            await take_turn(again)
            await outbox_of(again).hold(SINK, OWNER, HOLD)
            assert [event.row.event_type for event in await receive(again)] == ["comm.user_message"] * 2

    @needs("has_outbox")
    async def test_the_webhook_of_a_run_that_ended_is_due_unless_its_process_calls_it(self, store: ThreadStore) -> None:
        done, cancelled, plain = make_plan(webhook_url=URL), make_plan("bob", webhook_url=URL), make_plan("cora")
        for plan in (done, cancelled, plain):
            await store.accept(plan)
        assert await outbox_of(store).count_webhooks() == 0
        await store.finish(done.run_id, OWNER, completed(make_event()))
        await store.finish(done.run_id, OWNER, completed(make_event()))
        await store.finish(plain.run_id, OWNER, completed(make_event()))
        await store.cancel(cancelled.run_id)
        assert await outbox_of(store).take_webhooks(10, HOLD) == []
        assert await outbox_of(store).count_webhooks() == 2

        assert await outbox_of(store).delay_webhooks({done.run_id: 3, cancelled.run_id: 0, plain.run_id: 1}, 0.0) == 2
        assert await outbox_of(store).delay_webhooks({}, 0.0) == 0
        assert len(await outbox_of(store).take_webhooks(1, HOLD)) == 1
        await outbox_of(store).delay_webhooks({done.run_id: 3, cancelled.run_id: 0}, 0.0)
        taken = {due.run_id: due for due in await outbox_of(store).take_webhooks(10, HOLD)}
        assert taken == {
            done.run_id: DueWebhook(done.run_id, URL, 3),
            cancelled.run_id: DueWebhook(cancelled.run_id, URL, 0),
        }
        assert await outbox_of(store).take_webhooks(10, HOLD) == []
        await outbox_of(store).end_webhook(done.run_id)
        await outbox_of(store).end_webhook(done.run_id)
        await outbox_of(store).delay_webhooks({done.run_id: 0, cancelled.run_id: 1}, 0.0)
        assert [due.run_id for due in await outbox_of(store).take_webhooks(10, 0.0)] == [cancelled.run_id]
        assert [due.run_id for due in await outbox_of(store).take_webhooks(10, 0.0)] == [cancelled.run_id]

    @needs("has_outbox")
    async def test_the_webhook_of_a_run_whose_process_died_is_due_at_once(self, store: ThreadStore) -> None:
        running, waiting = (make_plan(owner=OTHER_OWNER, webhook_url=URL) for _ in range(2))
        for plan in (running, waiting):
            await store.accept(plan)
        assert await self.recover(store, OWNER) == 2
        assert {due.run_id for due in await outbox_of(store).take_webhooks(10, HOLD)} == {
            running.run_id,
            waiting.run_id,
        }

    @needs("has_outbox")
    async def test_the_webhook_of_an_orphan_is_due_at_once(self, store: ThreadStore) -> None:
        orphan = make_plan(webhook_url=URL)
        await store.accept(orphan)
        await store.heartbeat(OWNER, ())
        assert [due.run_id for due in await outbox_of(store).take_webhooks(10, HOLD)] == [orphan.run_id]

    @needs("has_outbox")
    async def test_the_webhook_of_a_run_that_is_gone_is_forgotten(self, store: ThreadStore) -> None:
        deleted, purged = make_plan("ann", webhook_url=URL), make_plan("bob", webhook_url=URL)
        thread_id = (await store.accept(deleted)).thread.thread_id
        await store.accept(purged)
        for plan in (deleted, purged):
            await store.finish(plan.run_id, OWNER, completed())
        await outbox_of(store).delay_webhooks({deleted.run_id: 0, purged.run_id: 0}, 0.0)
        await store.delete_thread(thread_id, None)
        assert [due.run_id for due in await outbox_of(store).take_webhooks(10, 0.0)] == [purged.run_id]
        await store.purge(ALREADY)
        assert await outbox_of(store).take_webhooks(10, HOLD) == []
        assert await outbox_of(store).count_webhooks() == 0

    @needs("has_outbox")
    async def test_callers_take_turns_with_their_webhooks(self, store: ThreadStore) -> None:
        busy, others = uuid4(), [uuid4(), uuid4(), None]
        plans = [make_plan(f"busy {number}", caller=busy, webhook_url=URL) for number in range(40)]
        plans += [make_plan(f"{number}", caller=caller, webhook_url=URL) for number, caller in enumerate(others)]
        for plan in plans:
            await store.accept(plan)
            await store.finish(plan.run_id, OWNER, completed())
        await outbox_of(store).delay_webhooks({plan.run_id: 0 for plan in plans}, 0.0)
        first = {due.run_id for due in await outbox_of(store).take_webhooks(1000, HOLD)}
        assert len(first) == WEBHOOKS_OF_A_CALLER + 3
        assert {plan.run_id for plan in plans[-3:]} <= first
        assert len(await outbox_of(store).take_webhooks(1000, HOLD)) == WEBHOOKS_OF_A_CALLER
        assert len(await outbox_of(store).take_webhooks(1000, HOLD)) == 40 - 2 * WEBHOOKS_OF_A_CALLER

    @needs("has_outbox")
    async def test_an_outbox_of_many_threads_is_read_in_batches(self, store: ThreadStore) -> None:
        await hold(store)
        threads = [await fill(store, [make_event()], f"contact {number}") for number in range(12)]
        await expect_order(store, threads, await receive(store, limit=5))
        assert await outbox_of(store).rewind(SINK, datetime(2000, 1, 1, tzinfo=UTC))
        await expect_order(store, threads, await receive(store, limit=5))

    @needs("has_outbox")
    async def test_a_new_thread_of_each_message_has_its_own_order(self, store: ThreadStore) -> None:
        await hold(store)
        accepted = [await take_turn(store, selectors=(New(),)) for _ in range(3)]
        await expect_order(store, [one.thread.thread_id for one in accepted], await receive(store))


async def hold(store: ThreadStore, sink: str = SINK) -> None:
    """Register a sink, and let `OWNER` work for it."""
    await outbox_of(store).register(sink)
    assert await outbox_of(store).hold(sink, OWNER, HOLD)


async def receive(store: ThreadStore, sink: str = SINK, limit: int = 100) -> list[OutboxEvent]:
    """Return everything that waits for a sink, and advance it."""
    received: list[OutboxEvent] = []
    for _ in range(1000):
        batch = await outbox_of(store).read(sink, limit)
        assert len(batch.events) <= limit
        received += batch.events
        if batch.after is None:
            return received
        assert await outbox_of(store).advance(sink, OWNER, batch.after)
    raise AssertionError("the outbox does not end")


async def expect_order(store: ThreadStore, threads: Sequence[UUID], received: Sequence[OutboxEvent]) -> None:
    """Fail unless `received` are exactly the events of these threads, those of each in its order."""
    by_thread: defaultdict[UUID, list[UUID]] = defaultdict(list)
    for event in received:
        by_thread[event.thread_id].append(row_id(event.row))
    expected = {thread_id: [event.event_id for event in await all_events(store, thread_id)] for thread_id in threads}
    assert by_thread == expected
