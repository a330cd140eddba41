"""The contract of a `ThreadStore`, as tests. A store that passes them keeps what the run service counts on."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID, uuid4

import msgspec
import orjson
import pytest

from jimsapi.testing.store_machine import run_store_machine
from jimsapi.threads.errors import (
    IdentifierTaken,
    InvalidCursor,
    KeyMismatch,
    KeyUsed,
    QueueFull,
    RunClosed,
    RunNotFound,
    ThreadNotFound,
)
from jimsapi.threads.event import STATE_PREFIX, THREAD_CREATED, EventRow, NewEvent, decode_row, message_event
from jimsapi.threads.ids import uuid7
from jimsapi.threads.run import (
    Accepted,
    AdoptedRun,
    ByExternalId,
    ById,
    ContextLimits,
    EventRecord,
    FailureKind,
    Idempotency,
    Latest,
    New,
    Outcome,
    RunPlan,
    RunStatus,
    Selector,
    Settled,
    ThreadRecord,
)
from jimsapi.threads.store import CommitRecord, ThreadStore, encode_cursor

OWNER = uuid7()
OTHER_OWNER = uuid7()
ANYBODY: tuple[Selector, ...] = (Latest(), New())
ALREADY = timedelta(seconds=-60)
"""An age that everything has reached, whatever the clock's resolution."""

_CONTEXT = ContextLimits()
_HI = {"content": "Hi"}


def make_plan(
    contact_id: str = "ann",
    text: str = "Hello",
    *,
    owner: UUID = OWNER,
    selectors: tuple[Selector, ...] = ANYBODY,
    acting_for: str | None = None,
    event_type: str = "comm.user_message",
    thread_config: bytes = b'{"interface":"api"}',
    conversation_start: bool = False,
    queue_limit: int = 256,
    context: ContextLimits = _CONTEXT,
    caller: UUID | None = None,
    background: bool = False,
    webhook_url: str | None = None,
    idempotency: Idempotency | None = None,
) -> RunPlan:
    """A plan as the run service makes one, with a new run and message."""
    return RunPlan(
        run_id=uuid7(),
        owner=owner,
        contact_id=contact_id,
        acting_for=acting_for,
        selectors=selectors,
        message=message_event(event_type, text),
        thread_config=thread_config,
        conversation_start=conversation_start,
        queue_limit=queue_limit,
        context=context,
        caller=caller,
        background=background,
        webhook_url=webhook_url,
        idempotency=idempotency,
    )


def make_key() -> Idempotency:
    """An idempotency key that was never used, and the body of its request."""
    return Idempotency(uuid7(), uuid7())


def make_event(event_type: str = "comm.assistant_message", data: Any = _HI) -> NewEvent:
    """An event as a pipeline sends it."""
    return NewEvent(uuid7(), event_type, orjson.dumps(data))


def completed(*events: NewEvent) -> Outcome:
    """The outcome of a run that went well."""
    return Outcome(RunStatus.COMPLETED, events)


async def all_events(store: ThreadStore, thread_id: UUID, limit: int = 1000) -> list[EventRecord]:
    """Every event of a thread, page by page."""
    events: list[EventRecord] = []
    after: str | None = None
    while True:
        page = await store.events(thread_id, None, limit, after)
        assert len(page.events) <= limit
        events += page.events
        assert len(events) <= 10_000, "the pages do not end"
        if (after := page.next) is None:
            return events


async def all_threads(store: ThreadStore, contact_id: str, limit: int = 1000) -> list[ThreadRecord]:
    """Every thread of a contact, page by page."""
    threads: list[ThreadRecord] = []
    after: str | None = None
    while True:
        page = await store.threads(contact_id, limit, after)
        assert len(page.threads) <= limit
        threads += page.threads
        assert len(threads) <= 10_000, "the pages do not end"
        if (after := page.next) is None:
            return threads


async def event_types(store: ThreadStore, thread_id: UUID) -> list[str]:
    """The types of a thread's events, in order."""
    return [event.event_type for event in await all_events(store, thread_id)]


async def contents(store: ThreadStore, thread_id: UUID) -> list[str]:
    """What was said in a thread, in order."""
    events = await all_events(store, thread_id)
    return [_json(event.event_data)["content"] for event in events if event.event_type.startswith("comm.")]


async def look_at(store: ThreadStore, run_id: UUID) -> Settled:
    """How a run stands: a stranger's finish never counts, and says what the run is."""
    seen = await store.finish(run_id, uuid4(), Outcome(RunStatus.FAILED))
    assert not seen.counted
    assert seen.stored == []
    return seen


async def fill(store: ThreadStore, events: Sequence[NewEvent], contact_id: str = "ann") -> UUID:
    """Make a thread that holds `thread_created`, a message, and `events`."""
    plan = make_plan(contact_id, selectors=(New(),))
    accepted = await store.accept(plan)
    assert (await store.finish(plan.run_id, plan.owner, completed(*events))).counted
    return accepted.thread.thread_id


def expected_context(events: Sequence[EventRecord], limits: ContextLimits) -> list[UUID]:
    """The rule of `ContextLimits`, spelled out: the identifiers of the events that a context begins with."""
    if limits.events == 0:
        return [event.event_id for event in events]
    newest_first = list(reversed(events))
    comm = [event for event in newest_first if event.event_type.startswith("comm.")][: limits.events]
    states: dict[str, EventRecord] = {}
    for event in newest_first:
        if event.event_type.startswith(STATE_PREFIX):
            states.setdefault(event.event_type, event)
    recent = newest_first[: 2 * limits.events]
    chosen: dict[UUID, int] = {}
    for event in (*newest_first[:1], *comm, *states.values(), *recent):
        if event.event_id in chosen:
            continue
        size = len(event.event_data or b"")
        if chosen and sum(chosen.values()) + size > limits.bytes:
            break
        chosen[event.event_id] = size
    return [event.event_id for event in events if event.event_id in chosen]


SHAPES: dict[str, list[str]] = {
    "talk": ["comm.assistant_message", "comm.user_message"] * 30,
    "own types": ["rag.query_processed"] * 60,
    "one state": [f"{STATE_PREFIX}mood"] * 60,
    "states": [f"{STATE_PREFIX}{name}" for name in "abcdef"] + ["rag.step"] * 50,
    "old talk": ["comm.assistant_message"] * 20 + ["rag.step"] * 50,
    "everything": ["rag.a", "comm.x", f"{STATE_PREFIX}a", "rag.b", f"{STATE_PREFIX}b", "context.c"] * 12,
    "almost comm": ["comma.x", "comm", "state.settled", "state.set", "COMM.x"] * 10,
    "short": ["rag.a", "comm.assistant_message"],
}
LIMITS = [
    ContextLimits(events=5),
    ContextLimits(events=10, bytes=400),
    ContextLimits(events=10, bytes=150),
    ContextLimits(events=10, bytes=0),
    ContextLimits(events=200),
    ContextLimits(events=30, bytes=1500),
    ContextLimits(events=0, bytes=1),
]


@pytest.mark.anyio
class KeptRunsContract:
    """The part of a store's contract by which runs are looked up, asked for twice, and taken over."""

    async def recover(self, store: ThreadStore, owner: UUID) -> int:
        """Recover after the death of every other owner. Override it where a store has to be told of that death."""
        return await store.recover(owner)

    async def adopt(self, store: ThreadStore, owner: UUID) -> list[AdoptedRun]:
        """Adopt after the death of every other owner. Override it as `recover`."""
        return await store.adopt(owner)

    # Idempotency keys

    async def test_a_request_that_comes_again_is_told_its_run(self, store: ThreadStore) -> None:
        for status in (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED):
            key = make_key()
            first = make_plan(status.value, idempotency=key)
            thread_id = (await store.accept(first)).thread.thread_id
            await _expect_key_used(store, first, key)
            await store.finish(first.run_id, OWNER, Outcome(status))
            await _expect_key_used(store, first, key)
            assert await event_types(store, thread_id) == [THREAD_CREATED, "comm.user_message"]

    async def test_a_request_that_comes_again_is_told_its_run_while_that_waits(self, store: ThreadStore) -> None:
        running = make_plan()
        waiting = make_plan(idempotency=make_key())
        greeted = make_plan("bob", conversation_start=True, idempotency=make_key())
        for plan in (running, waiting, greeted):
            await store.accept(plan)
        for plan in (waiting, greeted):
            await _expect_key_used(store, plan, plan.idempotency)

    async def test_accepting_a_run_with_a_key_twice_stores_it_once(self, store: ThreadStore) -> None:
        plan = make_plan(idempotency=make_key())
        first, second = await store.accept(plan), await store.accept(plan)
        assert second.status is RunStatus.RUNNING
        assert _ids(second.stored) == _ids(first.stored)
        assert len(await all_events(store, first.thread.thread_id)) == 2

    async def test_another_body_under_a_known_key_is_refused(self, store: ThreadStore) -> None:
        key = make_key()
        for end in (None, RunStatus.COMPLETED, RunStatus.INTERRUPTED):
            plan = make_plan(str(end), idempotency=Idempotency(make_key().key, key.body))
            thread_id = (await store.accept(plan)).thread.thread_id
            if end is not None:
                await store.finish(plan.run_id, OWNER, Outcome(end))
            other = make_plan(str(end), idempotency=_with_other_body(plan.idempotency))
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

    async def test_of_two_bodies_at_once_one_has_the_key(self, store: ThreadStore) -> None:
        key = make_key()
        bodies = [key, _with_other_body(key)]
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
            given_up = make_plan(text="given up", idempotency=key)
            await store.accept(given_up)
            if end == "cancel":
                await store.cancel(given_up.run_id)
            else:
                await store.heartbeat(OWNER, {running.run_id})
            again = make_plan(text=f"again {number}", idempotency=_with_other_body(key))
            assert (await store.accept(again)).status is RunStatus.QUEUED
            await _expect_key_used(store, again, again.idempotency)
            await store.cancel(again.run_id)
        assert await contents(store, thread_id) == ["Hello"]

    async def test_a_request_that_was_refused_takes_no_key(self, store: ThreadStore) -> None:
        key = make_key()
        running = make_plan(queue_limit=0)
        await store.accept(running)
        for refusal, selectors in ((QueueFull, ANYBODY), (ThreadNotFound, (ById(uuid7()),))):
            with pytest.raises(refusal):
                await store.accept(make_plan(queue_limit=0, selectors=selectors, idempotency=key))
        await store.finish(running.run_id, OWNER, completed())
        accepted = await store.accept(make_plan(idempotency=_with_other_body(key)))
        assert accepted.status is RunStatus.RUNNING

    async def test_a_key_is_free_once_it_is_old(self, store: ThreadStore) -> None:
        key = make_key()
        first, second = make_plan(idempotency=key), make_plan(idempotency=_with_other_body(key))
        await store.accept(first)
        kept, store.keep_keys = store.keep_keys, ALREADY
        assert kept == timedelta(hours=24)
        assert (await store.accept(second)).status is RunStatus.QUEUED
        store.keep_keys = kept
        await _expect_key_used(store, second, second.idempotency)

    async def test_a_purge_forgets_old_keys_and_no_run(self, store: ThreadStore) -> None:
        plan = make_plan(idempotency=make_key())
        await store.accept(plan)
        await store.finish(plan.run_id, OWNER, completed())
        await store.purge(timedelta(days=1))
        await _expect_key_used(store, plan, plan.idempotency)
        kept, store.keep_keys = store.keep_keys, ALREADY
        assert await store.purge(timedelta(days=1)) == 0
        store.keep_keys = kept
        assert (await store.run(plan.run_id, None, None)).status is RunStatus.COMPLETED
        assert (await store.accept(make_plan(idempotency=plan.idempotency))).status is RunStatus.RUNNING

    async def test_the_key_of_a_forgotten_or_deleted_run_is_free(self, store: ThreadStore) -> None:
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
            again = make_plan(way, idempotency=_with_other_body(plan.idempotency))
            assert (await store.accept(again)).status is RunStatus.RUNNING
            await _expect_key_used(store, again, again.idempotency)

    # Keys of interrupted runs

    async def test_the_message_of_an_interrupted_run_is_answered_without_a_second_copy(
        self, store: ThreadStore
    ) -> None:
        first = await self._interrupted(store, text="one")
        thread_id = (await store.run(first.run_id, None, None)).thread_id
        # Selectors that match nothing are not asked, and nobody is greeted.
        again = make_plan(
            text="one", idempotency=first.idempotency, selectors=(), acting_for="ann", conversation_start=True
        )
        accepted = await store.accept(again)
        assert accepted.thread.thread_id == thread_id
        assert accepted.status is RunStatus.RUNNING
        assert not accepted.created_new_thread
        assert accepted.stored == []
        assert accepted.snapshot is not None
        assert _ids(accepted.snapshot.rows)[-1] == first.message.event_id
        twice = await store.accept(again)
        assert twice.status is RunStatus.RUNNING
        assert twice.stored == []
        assert twice.snapshot is not None
        assert _ids(twice.snapshot.rows) == _ids(accepted.snapshot.rows)
        await _expect_key_used(store, again, first.idempotency)
        assert (await store.finish(again.run_id, OWNER, completed(make_event()))).counted
        assert await contents(store, thread_id) == ["one", "Hi"]
        await _expect_key_used(store, again, first.idempotency)
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
            said = [_json(row.data)["content"] for row in accepted.snapshot.rows if row.event_type.startswith("comm.")]
            assert said == [*expected, str(number)]
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
        assert _ids(accepted.snapshot.rows) == [*newest, first.message.event_id]
        assert accepted.snapshot.truncated

    async def test_an_interrupted_message_waits_its_turn_and_does_not_enter_again(self, store: ThreadStore) -> None:
        first = await self._interrupted(store, text="one")
        before, again = make_plan(text="two"), make_plan(text="one", idempotency=first.idempotency)
        thread_id = (await store.accept(before)).thread.thread_id
        for _ in range(2):
            accepted = await store.accept(again)
            assert (accepted.status, accepted.snapshot, accepted.stored) == (RunStatus.QUEUED, None, [])
        assert await store.start(again.run_id, OWNER, (), _CONTEXT) is None
        await store.finish(before.run_id, OWNER, completed(make_event()))
        for _ in range(2):
            started = await store.start(again.run_id, OWNER, (), _CONTEXT)
            assert started is not None
            assert started.stored == []
            assert [_json(row.data).get("content") for row in started.snapshot.rows] == [None, "two", "Hi", "one"]
        await store.finish(again.run_id, OWNER, completed())
        assert await contents(store, thread_id) == ["one", "two", "Hi"]

    async def test_an_interrupted_message_may_be_interrupted_and_given_up_again(self, store: ThreadStore) -> None:
        first = await self._interrupted(store, text="one")
        before = make_plan(text="two", owner=OTHER_OWNER)
        thread_id = (await store.accept(before)).thread.thread_id
        dead = make_plan(text="one", owner=OTHER_OWNER, idempotency=first.idempotency)
        assert (await store.accept(dead)).status is RunStatus.QUEUED
        assert await self.recover(store, OWNER) == 2
        before = make_plan(text="three")
        await store.accept(before)
        given_up = make_plan(text="one", idempotency=first.idempotency)
        assert (await store.accept(given_up)).status is RunStatus.QUEUED
        await store.cancel(given_up.run_id)
        with pytest.raises(KeyMismatch):
            await store.accept(make_plan(idempotency=_with_other_body(first.idempotency)))
        await store.finish(before.run_id, OWNER, completed())
        last = make_plan(text="one", idempotency=first.idempotency)
        accepted = await store.accept(last)
        assert accepted.snapshot is not None
        assert _ids(accepted.snapshot.rows)[-1] == first.message.event_id
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

    async def _interrupted(self, store: ThreadStore, text: str = "Hello") -> RunPlan:
        """A first run of Ann's, with a key, whose process died while it worked."""
        plan = make_plan(text=text, owner=OTHER_OWNER, idempotency=make_key())
        await store.accept(plan)
        assert await self.recover(store, OWNER) == 1
        return plan

    # Looking up a run

    async def test_a_run_is_shown_as_it_stands(self, store: ThreadStore) -> None:
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
        await store.start(waiting.run_id, OWNER, (), _CONTEXT)
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
            await store.start(plan.run_id, OWNER, greeting, _CONTEXT)
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
        assert [_json(event.event_data) for event in found.events] == list(range(1500))

    async def test_a_run_is_shown_to_its_contact_and_to_who_asked(self, store: ThreadStore) -> None:
        mine, other = uuid7(), uuid7()
        plan, nobodys = make_plan("ann", caller=mine), make_plan("", caller=None)
        await store.accept(plan)
        await store.accept(nobodys)
        for acting_for, caller in ((None, None), ("ann", None), (None, mine), ("ann", mine)):
            assert (await store.run(plan.run_id, acting_for, caller)).run_id == plan.run_id
        for acting_for, caller in (("bob", None), ("", mine), (None, other), ("ann", other)):
            with pytest.raises(RunNotFound) as refused:
                await store.run(plan.run_id, acting_for, caller)
            assert refused.value.run_id == plan.run_id
        assert (await store.run(nobodys.run_id, "", None)).contact_id == ""
        with pytest.raises(RunNotFound):
            await store.run(nobodys.run_id, None, mine)

    async def test_a_run_that_is_unknown_forgotten_or_deleted_is_not_found(self, store: ThreadStore) -> None:
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

    async def test_what_a_run_streamed_is_unknown_unless_it_finished(self, store: ThreadStore) -> None:
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

    # Taking over

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
                await store.start(run_id, OTHER_OWNER, (), _CONTEXT)
            assert await store.start(run_id, OWNER, (), _CONTEXT) is not None
            settled = await store.finish(run_id, OWNER, completed())
            assert settled.counted
            assert settled.next_run == (order[number + 1] if number + 1 < len(order) else None)
        assert await contents(store, thread_id) == ["0", "attended", "1", "2", "3", "mine"]

    async def test_a_run_that_was_taken_over_is_accepted_as_before(self, store: ThreadStore) -> None:
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
            assert _ids(accepted.stored) == _ids(answer.stored)
            assert (accepted.snapshot is None) == (answer.snapshot is None)
            greeting = [make_event()] if accepted.created_new_thread else []
            started = await store.start(plan.run_id, OWNER, greeting, _CONTEXT)
            assert started is not None
            assert _ids(started.snapshot.rows)[-1] == plan.message.event_id
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
        started = await store.start(dead.run_id, OWNER, (), _CONTEXT)
        assert started is not None
        assert started.stored == []
        again = await store.accept(msgspec.structs.replace(dead, owner=OWNER, message=adopted.message))
        assert (again.status, again.stored) == (RunStatus.RUNNING, [])
        for snapshot in (started.snapshot, again.snapshot):
            assert snapshot is not None
            assert _ids(snapshot.rows)[-1] == first.message.event_id
        assert await contents(store, thread_id) == ["one", "two"]

    def test_random_histories_leave_what_the_model_says(self) -> None:
        run_store_machine(self.open_store, self.recover, self.adopt, self.disturb)

    async def disturb(self, store: ThreadStore) -> None:
        """Take something from under the store, between two calls: cut its connections, remove a file it makes anew.

        The random histories do so now and then. Whatever raises `StoreUnavailable` after that is asked again, and has
        to answer as if nothing had happened, within seconds. Override it for a store that recovers by itself.
        """

    def open_store(self) -> AbstractAsyncContextManager[ThreadStore]:
        """Open a new, empty store."""
        raise NotImplementedError


@pytest.mark.anyio
class ThreadStoreContract(KeptRunsContract):
    """Derive a class from this one in a test module, and say how a new, empty store is opened:

        class TestMyStore(ThreadStoreContract):
            @asynccontextmanager
            async def open_store(self):
                async with MyStore(new_place()) as store:
                    yield store

    pytest then runs every case against it. `open_store` is called for each case, and many times by the last one, which
    drives a store through random operations and compares it with a model; each call is to give a store without
    content. It needs pytest, anyio (whose pytest plugin runs the cases) and hypothesis. For a longer run of the last
    case set `JIMSAPI_STORE_EXAMPLES` (default 60) to the number of random histories.

    A store has more to keep than can be tested from outside: say with tests of your own that what it acknowledged
    survives a crash, and that it answers `StoreUnavailable`, and then works again, when its database goes away.
    """

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.fixture
    async def store(self) -> AsyncIterator[ThreadStore]:
        async with self.open_store() as store:
            yield store

    # Accepting

    async def test_a_first_message_makes_a_thread_and_starts_its_run(self, store: ThreadStore) -> None:
        before = datetime.now(UTC)
        plan = make_plan("ann", "Hello")
        accepted = await store.accept(plan)
        assert accepted.created_new_thread
        assert accepted.status is RunStatus.RUNNING
        assert accepted.thread.contact_id == "ann"
        assert _json(accepted.thread.thread_config) == {"interface": "api"}
        assert before <= accepted.thread.created_at <= datetime.now(UTC)
        assert _types(accepted.stored) == [THREAD_CREATED, "comm.user_message"]
        assert accepted.snapshot is not None
        assert _ids(accepted.snapshot.rows) == _ids(accepted.stored)
        assert not accepted.snapshot.truncated
        created, message = await all_events(store, accepted.thread.thread_id)
        assert _json(created.event_data) == {}
        assert message.event_id == plan.message.event_id
        assert _json(message.event_data) == {"role": "user", "content": "Hello"}
        assert before <= created.created_at < message.created_at

    async def test_the_newest_thread_of_a_contact_takes_the_next_message(self, store: ThreadStore) -> None:
        await _turn(store, selectors=(New(),))
        newest = await _turn(store, selectors=(New(),))
        again = await _turn(store)
        assert not again.created_new_thread
        assert again.thread == newest.thread
        assert again.snapshot is not None
        assert _types(again.snapshot.rows) == [THREAD_CREATED, "comm.user_message", "comm.user_message"]
        assert _types(again.stored) == ["comm.user_message"]

    async def test_fifty_concurrent_first_messages_make_one_thread(self, store: ThreadStore) -> None:
        plans = [make_plan("ann", str(number)) for number in range(50)]
        accepted = await asyncio.gather(*map(store.accept, plans))
        assert len({one.thread.thread_id for one in accepted}) == 1
        assert [one.created_new_thread for one in accepted].count(True) == 1
        assert [one.status for one in accepted].count(RunStatus.RUNNING) == 1
        assert len(await all_threads(store, "ann")) == 1

    async def test_contacts_do_not_share_threads(self, store: ThreadStore) -> None:
        contacts = ["ann", "", "Ann", "ann ", "🦊 Ümläut", "漢" * 666]
        accepted = [await _turn(store, contact) for contact in contacts]
        assert len({one.thread.thread_id for one in accepted}) == len(contacts)
        for contact, one in zip(contacts, accepted, strict=True):
            assert await all_threads(store, contact) == [one.thread]
            assert one.thread.contact_id == contact
        assert await all_threads(store, "nobody") == []

    async def test_the_first_selector_that_matches_decides(self, store: ThreadStore) -> None:
        known = (await _turn(store)).thread.thread_id
        chosen = [
            await _turn(store, selectors=selectors)
            for selectors in (
                (ById(uuid7()), ByExternalId("none"), Latest(), New()),
                (ById(known), New()),
                (ById(uuid7()), New(), Latest()),
            )
        ]
        assert [one.created_new_thread for one in chosen] == [False, False, True]
        assert [one.thread.thread_id == known for one in chosen] == [True, True, False]

    async def test_no_selector_that_matches_is_thread_not_found(self, store: ThreadStore) -> None:
        missing = uuid7()
        for selectors in ((ById(missing),), (Latest(),), (ByExternalId("none"),), ()):
            with pytest.raises(ThreadNotFound) as refused:
                await store.accept(make_plan(selectors=selectors))
            assert refused.value.thread_id == (missing if selectors == (ById(missing),) else None)
        assert await all_threads(store, "ann") == []

    async def test_latest_looks_at_the_newest_event(self, store: ThreadStore) -> None:
        first = await _turn(store)
        busy = await _turn(store, selectors=(Latest(active_within=timedelta(minutes=30)), New()))
        assert busy.thread == first.thread
        quiet = await _turn(store, selectors=(Latest(active_within=ALREADY), New()))
        assert quiet.created_new_thread

    async def test_new_may_bring_its_own_config_and_external_id(self, store: ThreadStore) -> None:
        new = await _turn(store, selectors=(New(config={"lang": "ü"}, external_id="slack:7"),))
        assert _json(new.thread.thread_config) == {"lang": "ü"}
        found = await _turn(store, "bob", selectors=(ByExternalId("slack:7"), New()))
        assert found.thread == new.thread

    async def test_concurrent_messages_with_one_external_id_make_one_thread(self, store: ThreadStore) -> None:
        selectors = (ByExternalId("slack:7"), New(external_id="slack:7"))
        plans = [make_plan(selectors=selectors) for _ in range(20)]
        accepted = await asyncio.gather(*map(store.accept, plans))
        assert len({one.thread.thread_id for one in accepted}) == 1

    async def test_a_thread_config_comes_back_as_it_was(self, store: ThreadStore) -> None:
        config = {"a": [1, 2.5, None, True, {"b": '🦊 \\u0041 " ü'}], "": -9007199254740993, "z": 18446744073709551615}
        accepted = await _turn(store, thread_config=orjson.dumps(config))
        for thread in (accepted.thread, await store.thread(accepted.thread.thread_id, None)):
            assert _json(thread.thread_config) == config

    async def test_any_event_type_and_data_come_back_as_they_were(self, store: ThreadStore) -> None:
        values: list[Any] = [
            {"a": "🦊"}, [], {}, "text", "5", 5, -3, 0.1, 1.0, 18446744073709551615, True, None, "x" * 100_000, [[1]],
        ]  # fmt: skip
        kinds = ["ü" * 255, "5"]
        sent = [make_event(kinds[number % 2], value) for number, value in enumerate(values)]
        thread = await fill(store, sent)
        events = (await all_events(store, thread))[2:]
        rows = await store.load_events(thread, None, len(values))
        decoded = [decode_row(thread, row) for row in rows]
        for sent_event, value, event, row in zip(sent, values, events, decoded, strict=True):
            assert event.event_type == row.event_type == sent_event.event_type
            assert event.event_id == row.event_id == sent_event.event_id
            assert _same(_json(event.event_data), value)
            assert _same(row.event_data, value)

    async def test_accepting_a_run_twice_stores_it_once(self, store: ThreadStore) -> None:
        running, queued = make_plan(queue_limit=1), make_plan(queue_limit=1)
        for plan in (running, queued):
            first, second = await store.accept(plan), await store.accept(plan)
            assert second.thread == first.thread
            assert second.created_new_thread == first.created_new_thread
            assert second.status == first.status
            assert _ids(second.stored) == _ids(first.stored)
            assert (second.snapshot is None) == (first.snapshot is None)
            assert first.snapshot is None or _ids(second.snapshot.rows if second.snapshot else []) == _ids(
                first.snapshot.rows
            )
        greeted = make_plan("bob", conversation_start=True)
        first, second = await store.accept(greeted), await store.accept(greeted)
        assert second.status is RunStatus.QUEUED
        assert _ids(second.stored) == _ids(first.stored)
        assert second.snapshot is not None
        assert len(await all_events(store, first.thread.thread_id)) == 1

    async def test_a_message_with_a_known_identifier_is_refused(self, store: ThreadStore) -> None:
        plan = make_plan()
        accepted = await store.accept(plan)
        await store.finish(plan.run_id, OWNER, completed())
        fake = make_plan()
        fake = RunPlan(
            run_id=fake.run_id, owner=OWNER, contact_id="ann", acting_for=None, selectors=ANYBODY,
            message=plan.message, thread_config=b"{}",
        )  # fmt: skip
        with pytest.raises(IdentifierTaken) as refused:
            await store.accept(fake)
        assert refused.value.event_ids == {plan.message.event_id}
        assert (await look_at(store, fake.run_id)).status is None
        assert len(await all_events(store, accepted.thread.thread_id)) == 2

    async def test_a_conversation_start_comes_before_the_message(self, store: ThreadStore) -> None:
        first, second = make_plan(text="one", conversation_start=True), make_plan(text="two", conversation_start=True)
        accepted, waiting = await store.accept(first), await store.accept(second)
        assert accepted.status is RunStatus.QUEUED
        assert accepted.snapshot is not None
        assert _types(accepted.snapshot.rows) == _types(accepted.stored) == [THREAD_CREATED]
        assert waiting.status is RunStatus.QUEUED
        assert waiting.snapshot is None
        assert waiting.stored == []
        assert await store.start(second.run_id, OWNER, (), _CONTEXT) is None
        started = await store.start(first.run_id, OWNER, [make_event(data={"content": "Welcome"})], _CONTEXT)
        assert started is not None
        assert _types(started.stored) == ["comm.assistant_message", "comm.user_message"]
        assert _ids(started.snapshot.rows) == _ids(accepted.stored) + _ids(started.stored)
        assert (await store.finish(first.run_id, OWNER, completed())).next_run == second.run_id
        assert await contents(store, accepted.thread.thread_id) == ["Welcome", "one"]

    async def test_an_existing_thread_is_not_greeted(self, store: ThreadStore) -> None:
        await _turn(store)
        assert (await store.accept(make_plan(conversation_start=True))).status is RunStatus.RUNNING

    async def test_a_full_queue_refuses(self, store: ThreadStore) -> None:
        running, waiting = make_plan(queue_limit=1), make_plan(queue_limit=1)
        await store.accept(running)
        await store.accept(waiting)
        refused = make_plan(queue_limit=1)
        with pytest.raises(QueueFull):
            await store.accept(refused)
        assert (await look_at(store, refused.run_id)).status is None
        assert (await store.accept(make_plan("bob", queue_limit=0))).status is RunStatus.RUNNING
        await store.cancel(waiting.run_id)
        assert (await store.accept(refused)).status is RunStatus.QUEUED

    async def test_a_cancelled_caller_undoes_nothing(self, store: ThreadStore) -> None:
        plans = [make_plan("ann", str(number)) for number in range(20)]
        callers = [asyncio.ensure_future(store.accept(plan)) for plan in plans]
        await asyncio.sleep(0)
        for caller in callers[::2]:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
        accepted = await asyncio.gather(*map(store.accept, plans))
        assert len({one.thread.thread_id for one in accepted}) == 1
        assert [one.status for one in accepted].count(RunStatus.RUNNING) == 1
        await _answer_all(store, plans, accepted[0].thread.thread_id)

    # Acting for one contact only

    async def test_a_thread_of_another_contact_does_not_exist(self, store: ThreadStore) -> None:
        foreign = await _turn(store, "ann", selectors=(New(external_id="x"),))
        thread_id = foreign.thread.thread_id
        for contact in ("bob", ""):
            for selectors in ((ById(thread_id), New()), (ByExternalId("x"), New())):
                with pytest.raises(ThreadNotFound):
                    await store.accept(make_plan(contact, selectors=selectors, acting_for=contact))
            with pytest.raises(ThreadNotFound):
                await store.thread(thread_id, contact)
            with pytest.raises(ThreadNotFound):
                await store.events(thread_id, contact, 10, None)
            with pytest.raises(ThreadNotFound):
                await store.delete_thread(thread_id, contact)
            assert await all_threads(store, contact) == []
        assert len(await all_events(store, thread_id)) == 2

    async def test_a_thread_of_the_own_contact_is_found(self, store: ThreadStore) -> None:
        for contact in ("ann", ""):
            thread = (await _turn(store, contact, acting_for=contact)).thread
            again = await _turn(store, contact, selectors=(ById(thread.thread_id),), acting_for=contact)
            assert again.thread == thread
            assert await store.thread(thread.thread_id, contact) == thread
            assert len((await store.events(thread.thread_id, contact, 10, None)).events) == 3
            assert await store.delete_thread(thread.thread_id, contact) == []

    # Runs

    async def test_the_runs_of_a_thread_start_in_order_of_acceptance(self, store: ThreadStore) -> None:
        plans = [make_plan("ann", str(number)) for number in range(50)]
        accepted = [await store.accept(plan) for plan in plans]
        other = await asyncio.wait_for(store.accept(make_plan("bob")), 10)
        assert other.status is RunStatus.RUNNING
        await _answer_all(store, plans, accepted[0].thread.thread_id)

    async def test_only_the_oldest_open_run_may_start(self, store: ThreadStore) -> None:
        first, second, third = plans = [make_plan(text=str(number)) for number in range(3)]
        accepted = [await store.accept(plan) for plan in plans]
        thread_id = accepted[0].thread.thread_id
        assert await store.start(second.run_id, OWNER, (), _CONTEXT) is None
        assert (await store.finish(first.run_id, OWNER, completed())).next_run == second.run_id
        assert await store.start(third.run_id, OWNER, (), _CONTEXT) is None
        assert await store.start(second.run_id, OWNER, (), _CONTEXT) is not None
        assert await store.start(third.run_id, OWNER, (), _CONTEXT) is None
        assert await contents(store, thread_id) == ["0", "1"]

    async def test_a_start_sees_all_that_went_before(self, store: ThreadStore) -> None:
        first, second = make_plan(text="one"), make_plan(text="two")
        await store.accept(first)
        await store.accept(second)
        await store.finish(first.run_id, OWNER, completed(make_event(data={"content": "answer"})))
        started = await store.start(second.run_id, OWNER, (), _CONTEXT)
        assert started is not None
        said = [_json(row.data)["content"] for row in started.snapshot.rows[1:]]
        assert said == ["one", "answer", "two"]

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
                await store.start(run_id, owner, (), _CONTEXT)
        assert (await look_at(store, waiting.run_id)).status is RunStatus.QUEUED

    async def test_starting_a_run_twice_stores_it_once(self, store: ThreadStore) -> None:
        plan = make_plan(conversation_start=True)
        thread_id = (await store.accept(plan)).thread.thread_id
        greeting = [make_event(), make_event("rag.greeted")]
        first = await store.start(plan.run_id, OWNER, greeting, _CONTEXT)
        second = await store.start(plan.run_id, OWNER, greeting, _CONTEXT)
        assert first is not None
        assert second is not None
        assert _ids(second.stored) == _ids(first.stored)
        assert _ids(second.snapshot.rows) == _ids(first.snapshot.rows)
        assert len(await all_events(store, thread_id)) == 4

    async def test_a_start_with_a_known_identifier_is_refused_and_may_be_tried_again(self, store: ThreadStore) -> None:
        plan = make_plan(conversation_start=True)
        accepted = await store.accept(plan)
        taken = _ids(accepted.stored)[0]
        with pytest.raises(IdentifierTaken) as refused:
            await store.start(plan.run_id, OWNER, [make_event(), NewEvent(taken, "x", b"{}")], _CONTEXT)
        assert refused.value.event_ids == {taken}
        assert await event_types(store, accepted.thread.thread_id) == [THREAD_CREATED]
        assert await store.start(plan.run_id, OWNER, (), _CONTEXT) is not None

    async def test_a_finish_stores_all_its_events_in_order(self, store: ThreadStore) -> None:
        plan = make_plan()
        accepted = await store.accept(plan)
        sent = [make_event(f"rag.{number}", {"n": number}) for number in range(500)]
        settled = await store.finish(plan.run_id, OWNER, completed(*sent))
        assert settled.counted
        assert settled.status is RunStatus.COMPLETED
        assert settled.next_run is None
        assert _ids(settled.stored) == [event.event_id for event in sent]
        events = await all_events(store, accepted.thread.thread_id)
        assert [event.event_id for event in events[2:]] == [event.event_id for event in sent]

    async def test_no_two_events_of_a_thread_share_a_time(self, store: ThreadStore) -> None:
        accepted = await _turn(store)
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

    async def test_only_a_completed_run_leaves_events(self, store: ThreadStore) -> None:
        for status in (RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.INTERRUPTED):
            plan = make_plan(status.value)
            accepted = await store.accept(plan)
            settled = await store.finish(plan.run_id, OWNER, Outcome(status, (make_event(),), "went wrong"))
            assert settled == Settled(True, status, None, [])
            assert await event_types(store, accepted.thread.thread_id) == [THREAD_CREATED, "comm.user_message"]

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

    async def test_the_same_identifier_may_stand_in_two_threads(self, store: ThreadStore) -> None:
        event = make_event()
        assert await fill(store, [event], "ann") != await fill(store, [event], "bob")

    async def test_a_cancelled_run_that_waited_leaves_no_message(self, store: ThreadStore) -> None:
        running, waiting, last = plans = [make_plan(text=text) for text in ("one", "two", "three")]
        accepted = [await store.accept(plan) for plan in plans]
        assert await store.cancel(waiting.run_id) == Settled(True, RunStatus.CANCELLED, None)
        assert (await store.finish(running.run_id, OWNER, completed())).next_run == last.run_id
        await store.start(last.run_id, OWNER, (), _CONTEXT)
        assert await contents(store, accepted[0].thread.thread_id) == ["one", "three"]

    async def test_a_cancelled_run_makes_way_and_can_no_more_finish(self, store: ThreadStore) -> None:
        running, waiting = make_plan(), make_plan()
        accepted = await store.accept(running)
        await store.accept(waiting)
        assert await store.cancel(running.run_id) == Settled(True, RunStatus.CANCELLED, waiting.run_id)
        late = await store.finish(running.run_id, OWNER, completed(make_event()))
        assert late == Settled(False, RunStatus.CANCELLED, waiting.run_id)
        assert len(await all_events(store, accepted.thread.thread_id)) == 2

    async def test_cancelling_what_has_ended_changes_nothing(self, store: ThreadStore) -> None:
        plan = make_plan()
        await store.accept(plan)
        await store.finish(plan.run_id, OWNER, completed())
        assert await store.cancel(plan.run_id) == Settled(False, RunStatus.COMPLETED, None)
        assert await store.cancel(uuid7()) == Settled(False, None, None)

    async def test_a_heartbeat_ends_the_runs_that_nobody_works_on(self, store: ThreadStore) -> None:
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
        assert await store.start(follower.run_id, OWNER, (), _CONTEXT) is not None

    async def test_recovering_ends_the_runs_of_the_dead_and_keeps_their_messages(self, store: ThreadStore) -> None:
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

    async def test_deleting_a_thread_takes_events_and_runs_with_it(self, store: ThreadStore) -> None:
        done, running, waiting = plans = [make_plan() for _ in range(3)]
        thread_id = (await store.accept(done)).thread.thread_id
        await store.finish(done.run_id, OWNER, completed(make_event()))
        await store.accept(running)
        await store.accept(waiting)
        other = (await _turn(store, "bob")).thread
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
            await store.start(waiting.run_id, OWNER, (), _CONTEXT)
        assert await store.load_events(thread_id, None, 10) == []
        assert await all_threads(store, "ann") == []
        assert await store.heartbeat(OWNER, set()) == []
        assert await store.thread(other.thread_id, None) == other
        assert (await _turn(store)).created_new_thread

    async def test_deleting_a_contact_takes_all_its_threads(self, store: ThreadStore) -> None:
        first, second = make_plan(selectors=(New(external_id="x"),)), make_plan(selectors=(New(),))
        await store.accept(first)
        await store.accept(second)
        kept = (await _turn(store, "")).thread
        assert sorted(await store.delete_contact("ann")) == sorted([first.run_id, second.run_id])
        assert await store.delete_contact("ann") == []
        assert await all_threads(store, "ann") == []
        assert await all_threads(store, "") == [kept]
        with pytest.raises(ThreadNotFound):
            await store.accept(make_plan(selectors=(ByExternalId("x"),)))

    async def test_a_purge_forgets_ended_runs_and_nothing_else(self, store: ThreadStore) -> None:
        done, running, waiting = plans = [make_plan() for _ in range(3)]
        accepted = [await store.accept(plan) for plan in plans]
        await store.finish(done.run_id, OWNER, completed(make_event()))
        await store.start(running.run_id, OWNER, (), _CONTEXT)
        assert await store.purge(timedelta(days=1)) == 0
        assert (await look_at(store, done.run_id)).status is RunStatus.COMPLETED
        assert await store.purge(ALREADY) == 1
        assert await store.purge(ALREADY) == 0
        statuses = [(await look_at(store, plan.run_id)).status for plan in plans]
        assert statuses == [None, RunStatus.RUNNING, RunStatus.QUEUED]
        assert len(await all_events(store, accepted[0].thread.thread_id)) == 4
        assert (await store.finish(running.run_id, OWNER, completed())).next_run == waiting.run_id

    # Pages

    @pytest.mark.parametrize("limit", [1, 3, 10, 11])
    async def test_pages_hold_everything_once(self, store: ThreadStore, limit: int) -> None:
        threads = [(await _turn(store, selectors=(New(),))).thread for _ in range(10)]
        await _turn(store, "bob")
        assert await all_threads(store, "ann", limit) == threads[::-1]
        sent = [make_event() for _ in range(8)]
        thread_id = await fill(store, sent, "cid")
        events = await all_events(store, thread_id, limit)
        assert [event.event_id for event in events[2:]] == [event.event_id for event in sent]
        assert len(events) == 10
        exact = await store.events(thread_id, None, 10, None)
        assert len(exact.events) == 10
        assert exact.next is None

    async def test_a_page_goes_on_where_the_last_one_ended(self, store: ThreadStore) -> None:
        thread_id = await fill(store, [make_event() for _ in range(3)])
        page = await store.events(thread_id, None, 4, None)
        late = make_event()
        plan = make_plan(selectors=(ById(thread_id),))
        await store.accept(plan)
        await store.finish(plan.run_id, OWNER, completed(late))
        rest = await store.events(thread_id, None, 10, page.next)
        assert len(rest.events) == 3
        assert rest.events[-1].event_id == late.event_id
        await fill(store, (), "ann")
        newest = await store.threads("ann", 1, None)
        await store.delete_thread(newest.threads[0].thread_id, None)
        assert [one.thread_id for one in (await store.threads("ann", 9, newest.next)).threads] == [thread_id]

    async def test_a_cursor_that_the_store_did_not_make_is_refused(self, store: ThreadStore) -> None:
        thread_id = await fill(store, [make_event() for _ in range(3)])
        await fill(store, ())
        of_events = (await store.events(thread_id, None, 1, None)).next
        of_threads = (await store.threads("ann", 1, None)).next
        assert of_events is not None
        assert of_threads is not None
        garbage = ["", "x", "ü", "\0", "bnVsbA", of_events[:-5], encode_cursor("a", "b"), encode_cursor("a", "b", "c")]
        garbage += [encode_cursor("threads", "then"), encode_cursor("events", "now", "x"), "A" * 10_000]
        for cursor in (*garbage, of_threads):
            with pytest.raises(InvalidCursor):
                await store.events(thread_id, None, 10, cursor)
        for cursor in (*garbage, of_events):
            with pytest.raises(InvalidCursor):
                await store.threads("ann", 10, cursor)

    # Contexts

    @pytest.mark.parametrize("shape", SHAPES)
    async def test_a_context_holds_what_the_rule_says(self, store: ThreadStore, shape: str) -> None:
        sent = [make_event(kind, {"n": "x" * (number % 37)}) for number, kind in enumerate(SHAPES[shape])]
        thread_id = await fill(store, sent)
        for limits in LIMITS:
            for message_type in ("comm.user_message", "ui.click", f"{STATE_PREFIX}mood"):
                plan = make_plan(selectors=(ById(thread_id),), context=limits, event_type=message_type)
                accepted = await store.accept(plan)
                await store.finish(plan.run_id, OWNER, completed())
                events = await all_events(store, thread_id)
                assert accepted.snapshot is not None
                assert _ids(accepted.snapshot.rows) == expected_context(events, limits), limits
                assert accepted.snapshot.truncated == (len(accepted.snapshot.rows) < len(events)), limits

    async def test_the_newest_event_is_in_the_context_however_large(self, store: ThreadStore) -> None:
        await _turn(store)
        accepted = await _turn(store, text="x" * 5000, context=ContextLimits(bytes=1000))
        assert accepted.snapshot is not None
        assert _types(accepted.snapshot.rows) == ["comm.user_message"]
        assert accepted.snapshot.truncated

    async def test_events_can_be_loaded_back_to_the_first(self, store: ThreadStore) -> None:
        thread_id = await fill(store, [make_event(f"rag.{number}") for number in range(20)])
        loaded: list[UUID] = []
        before = None
        while rows := await store.load_events(thread_id, before, 7):
            events = [decode_row(thread_id, row) for row in rows]
            loaded = [event.event_id for event in events] + loaded
            before = events[0]
            assert len(loaded) <= 22, "loading back does not end"
        assert loaded == [event.event_id for event in await all_events(store, thread_id)]
        assert await store.load_events(uuid7(), None, 7) == []
        for nothing in (0, -1):
            assert await store.load_events(thread_id, None, nothing) == []
            assert await store.load_events(thread_id, before, nothing) == []

    # The store itself

    async def test_it_answers_a_ping_and_has_a_name(self, store: ThreadStore) -> None:
        await store.ping()
        assert store.name

    async def test_every_commit_is_reported(self, store: ThreadStore) -> None:
        reports: list[CommitRecord] = []
        store.on_commit = reports.append
        await asyncio.gather(*[_turn(store, str(number)) for number in range(10)])
        assert sum(report.operations for report in reports) == 20
        assert not any(report.failed for report in reports)
        assert all(report.duration >= 0 for report in reports)


async def _turn(store: ThreadStore, contact_id: str = "ann", text: str = "Hello", **plan: Any) -> Accepted:
    """Accept a message and answer it with nothing."""
    made = make_plan(contact_id, text, **plan)
    accepted = await store.accept(made)
    assert (await store.finish(made.run_id, made.owner, completed())).counted
    return accepted


async def _answer_all(store: ThreadStore, plans: Sequence[RunPlan], thread_id: UUID) -> None:
    """Answer runs that were accepted in this order, each as soon as it may start, and check that none was overtaken."""
    for number, plan in enumerate(plans):
        if number:
            started = await store.start(plan.run_id, plan.owner, (), _CONTEXT)
            assert started is not None
            assert _ids(started.snapshot.rows)[-1] == plan.message.event_id
        settled = await store.finish(plan.run_id, plan.owner, completed(make_event(data={"content": f"to {number}"})))
        assert settled.counted
        assert settled.next_run == (plans[number + 1].run_id if number + 1 < len(plans) else None)
    said = [text for number in range(len(plans)) for text in (str(number), f"to {number}")]
    assert await contents(store, thread_id) == said


def _with_other_body(idempotency: Idempotency | None) -> Idempotency:
    assert idempotency is not None
    return Idempotency(idempotency.key, uuid7())


async def _expect_key_used(store: ThreadStore, plan: RunPlan, idempotency: Idempotency | None) -> None:
    """A request with this key is told the run of `plan`, and stores nothing."""
    run = await store.run(plan.run_id, None, None)
    before = await all_events(store, run.thread_id)
    again = make_plan(plan.contact_id, idempotency=idempotency)
    with pytest.raises(KeyUsed) as used:
        await store.accept(again)
    assert used.value.run_id == plan.run_id
    assert (await look_at(store, again.run_id)).status is None
    assert await all_events(store, run.thread_id) == before


def _ids(rows: Sequence[EventRow]) -> list[UUID]:
    return [row.event_id if isinstance(row.event_id, UUID) else UUID(row.event_id) for row in rows]


def _types(rows: Sequence[EventRow]) -> list[str]:
    return [row.event_type for row in rows]


def _json(data: bytes | str | None) -> Any:
    return None if data is None else orjson.loads(data)


def _same(found: Any, sent: Any) -> bool:
    return type(found) is type(sent) and bool(found == sent)
