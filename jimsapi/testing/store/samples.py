"""Plans, events and keys for tests of stores, and helpers that read from a store."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest

from jimsapi.threads.errors import KeyUsed
from jimsapi.threads.event import EventRow, NewEvent, beside_message, id_with_room, message_event
from jimsapi.threads.ids import uuid7
from jimsapi.threads.outbox import Outbox
from jimsapi.threads.run import (
    NO_RUN_FILTER,
    Accepted,
    ContactRecord,
    ContextLimits,
    EventRecord,
    Idempotency,
    Latest,
    ListedRun,
    New,
    Outcome,
    RunFilter,
    RunPlan,
    RunStatus,
    Selector,
    Settled,
    ThreadRecord,
)
from jimsapi.threads.store import ThreadStore

OWNER = uuid7()
OTHER_OWNER = uuid7()
ANYBODY: tuple[Selector, ...] = (Latest(), New())
ALREADY = timedelta(seconds=-60)
"""An age that everything has reached, with any resolution of the clock."""
CONTEXT = ContextLimits()
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
    context: ContextLimits = CONTEXT,
    caller: UUID | None = None,
    background: bool = False,
    webhook_url: str | None = None,
    idempotency: Idempotency | None = None,
    beside: Sequence[tuple[str, Any]] = (),
) -> RunPlan:
    """Return a plan as the run service makes it, with a new run and message. `beside` are types and data."""
    message = message_event(event_type, text, id_with_room())
    return RunPlan(
        run_id=uuid7(),
        owner=owner,
        contact_id=contact_id,
        acting_for=acting_for,
        selectors=selectors,
        message=message,
        thread_config=thread_config,
        conversation_start=conversation_start,
        queue_limit=queue_limit,
        context=context,
        caller=caller,
        background=background,
        webhook_url=webhook_url,
        idempotency=idempotency,
        beside=beside_message(message.event_id, beside),
    )


def make_key() -> Idempotency:
    """Return an unused idempotency key, with the body of its request."""
    return Idempotency(uuid7(), uuid7())


def make_event(event_type: str = "comm.assistant_message", data: Any = _HI) -> NewEvent:
    """Return an event as a pipeline sends it."""
    return NewEvent(uuid7(), event_type, orjson.dumps(data))


def completed(*events: NewEvent) -> Outcome:
    """Return the outcome of a successful run."""
    return Outcome(RunStatus.COMPLETED, events)


async def all_events(store: ThreadStore, thread_id: UUID, limit: int = 1000) -> list[EventRecord]:
    """Return all events of a thread, read page by page."""
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
    """Return all threads of a contact, read page by page."""
    threads: list[ThreadRecord] = []
    after: str | None = None
    while True:
        page = await store.threads(contact_id, limit, after)
        assert len(page.threads) <= limit
        threads += page.threads
        assert len(threads) <= 10_000, "the pages do not end"
        if (after := page.next) is None:
            return threads


async def all_runs(
    store: ThreadStore, acting_for: str | None = None, only: RunFilter = NO_RUN_FILTER, limit: int = 1000
) -> list[ListedRun]:
    """Return all runs that meet conditions, read page by page."""
    runs: list[ListedRun] = []
    after: str | None = None
    for _ in range(10_000):
        page = await store.runs(acting_for, limit, after, only)
        assert len(page.runs) <= limit
        runs += page.runs
        if (after := page.next) is None:
            return runs
    raise AssertionError("the pages do not end")


async def all_contacts(store: ThreadStore, acting_for: str | None = None, limit: int = 1000) -> list[ContactRecord]:
    """Return all contacts, read page by page."""
    contacts: list[ContactRecord] = []
    after: str | None = None
    while True:
        page = await store.contacts(acting_for, limit, after)
        assert len(page.contacts) <= limit
        contacts += page.contacts
        assert len(contacts) <= 10_000, "the pages do not end"
        if (after := page.next) is None:
            return contacts


async def event_types(store: ThreadStore, thread_id: UUID) -> list[str]:
    """Return the types of a thread's events, in order."""
    return [event.event_type for event in await all_events(store, thread_id)]


async def contents(store: ThreadStore, thread_id: UUID) -> list[str]:
    """Return the texts of a thread's messages, in order."""
    events = await all_events(store, thread_id)
    return [json_of(event.event_data)["content"] for event in events if event.event_type.startswith("comm.")]


async def look_at(store: ThreadStore, run_id: UUID) -> Settled:
    """Return the status of a run, from a call of `finish` with another owner, which never counts."""
    seen = await store.finish(run_id, uuid4(), Outcome(RunStatus.FAILED))
    assert not seen.counted
    assert seen.stored == []
    return seen


def outbox_of(store: ThreadStore) -> Outbox:
    """Return the outbox of a store that has one."""
    assert store.outbox is not None, "the store has no outbox; declare `has_outbox = False`"
    return store.outbox


async def fill(store: ThreadStore, events: Sequence[NewEvent], contact_id: str = "ann") -> UUID:
    """Create a thread with `thread_created`, a message, and `events`."""
    plan = make_plan(contact_id, selectors=(New(),))
    accepted = await store.accept(plan)
    assert (await store.finish(plan.run_id, plan.owner, completed(*events))).counted
    return accepted.thread.thread_id


async def take_turn(store: ThreadStore, contact_id: str = "ann", text: str = "Hello", **plan: Any) -> Accepted:
    """Accept a message and finish its run without events."""
    run_plan = make_plan(contact_id, text, **plan)
    accepted = await store.accept(run_plan)
    assert (await store.finish(run_plan.run_id, run_plan.owner, completed())).counted
    return accepted


async def answer_all(store: ThreadStore, plans: Sequence[RunPlan], thread_id: UUID) -> None:
    """Finish runs that were accepted in this order, each as soon as it may start, and check their order."""
    for number, plan in enumerate(plans):
        if number:
            started = await store.start(plan.run_id, plan.owner, (), CONTEXT)
            assert started is not None
            assert ids_of(started.snapshot.rows)[-1] == plan.message.event_id
        settled = await store.finish(plan.run_id, plan.owner, completed(make_event(data={"content": f"to {number}"})))
        assert settled.counted
        assert settled.next_run == (plans[number + 1].run_id if number + 1 < len(plans) else None)
    expected = [text for number in range(len(plans)) for text in (str(number), f"to {number}")]
    assert await contents(store, thread_id) == expected


def with_other_body(idempotency: Idempotency | None) -> Idempotency:
    assert idempotency is not None
    return Idempotency(idempotency.key, uuid7())


async def expect_key_used(store: ThreadStore, plan: RunPlan, idempotency: Idempotency | None) -> None:
    """Check that a request with this key gets the run of `plan`, and stores nothing."""
    run = await store.run(plan.run_id, None, None)
    before = await all_events(store, run.thread_id)
    again = make_plan(plan.contact_id, idempotency=idempotency)
    with pytest.raises(KeyUsed) as used:
        await store.accept(again)
    assert used.value.run_id == plan.run_id
    assert (await look_at(store, again.run_id)).status is None
    assert await all_events(store, run.thread_id) == before


def ids_of(rows: Sequence[EventRow]) -> list[UUID]:
    return [row.event_id if isinstance(row.event_id, UUID) else UUID(row.event_id) for row in rows]


def types_of(rows: Sequence[EventRow]) -> list[str]:
    return [row.event_type for row in rows]


def json_of(data: bytes | str | None) -> Any:
    return None if data is None else orjson.loads(data)


def same(found: Any, sent: Any) -> bool:
    return type(found) is type(sent) and bool(found == sent)
