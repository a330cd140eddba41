"""Converts plans and outcomes to arguments of the functions in `sql/functions.sql`, and their rows to results."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any
from uuid import UUID

import msgspec
import orjson

from jimsapi.threads import (
    NOBODY,
    THREAD_CREATED,
    TICK,
    Accepted,
    AdoptedRun,
    ByExternalId,
    ById,
    ContextLimits,
    EventRecord,
    EventRow,
    FailureKind,
    IdentifierTaken,
    KeyMismatch,
    KeyUsed,
    Latest,
    New,
    NewEvent,
    Outcome,
    Parent,
    QueueFull,
    RunPlan,
    RunStatus,
    Settled,
    Snapshot,
    StoredRun,
    ThreadFacts,
    ThreadNotFound,
    ThreadRecord,
    ThreadSummary,
    UsageTotal,
    choose,
    config_of_new,
    id_beside,
    storable_text,
    stored_events,
    uuid7,
)

ACCEPT = """
    SELECT item, part, verdict, id, at, kind, data, first_at FROM jimsapi_accept(
        $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24,
        $25
    )
"""
ACCEPT_ALIKE = """
    SELECT item, part, verdict, id, at, kind, data, first_at FROM jimsapi_accept_alike(
        $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16
    )
"""
ACCEPT_WITH_KEYS = """
    SELECT item, part, verdict, id, at, kind, data, first_at FROM jimsapi_accept_with_keys(
        $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24,
        $25, $26, $27, $28
    )
"""
FINISH = """
    SELECT counted, status, next_run, first_at, taken
    FROM jimsapi_finish($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
    ORDER BY item
"""

# The messages come first, since every transaction locks contacts before threads.
ACCEPT_AND_FINISH = """
    SELECT NULL::boolean, verdict, id, NULL::timestamp, NULL::uuid[], data, first_at FROM jimsapi_accept_alike(
        $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16
    )
    UNION ALL
    SELECT counted, status, next_run, first_at, taken, NULL, NULL FROM jimsapi_finish(
        $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27
    )
"""

WINDOW, OLDER_COMM, OLDER_STATES, MORE, ENTERED, CONTINUED = 1, 2, 3, 4, 5, 6
"""Values of `part`: the parts of a context, then the events that were added to the thread (`ENTERED`), and the message
that was in the thread before (`CONTINUED`)."""

LONG_AGO = 3e9
"""Seconds. PostgreSQL's timestamps go back only a few thousand years."""

CREATED_IDS = 12
"""The index of `new_events` in the arguments of `jimsapi_accept`."""

_event_order = attrgetter("created_at", "event_id")
_shared_fields = attrgetter(
    "selectors", "owner", "thread_config", "context", "queue_limit", "conversation_start", "background", "webhook_url",
    "beside",
)  # fmt: skip

Finishing = tuple[UUID, UUID, Outcome]
"""A run, its owner, and its outcome."""


class Known(Exception):
    """The run was accepted before, so its result has to be looked up."""


class Alone(Exception):
    """The run answers the message of an interrupted run, which needs a separate call."""


class Again(Exception):
    """The message has to be retried: another message of the call created the thread or has the same key, or the thread
    was deleted meanwhile."""


def accept_arguments(plans: Sequence[RunPlan]) -> list[Any]:
    """Return the arguments for `jimsapi_accept`."""
    new: list[tuple[UUID | None, UUID | None, str | None, bytes | None]] = []
    selectors: list[tuple[int, int, UUID | None, str | None, float | None]] = []
    for item, plan in enumerate(plans, 1):
        new_row: tuple[UUID | None, UUID | None, str | None, bytes | None] = (None, None, None, None)
        for selector in plan.selectors:
            match selector:
                case Latest(age):
                    selectors.append((item, 2, None, None, _seconds(age)))
                case New():
                    selectors.append((item, 4, None, None, None))
                    new_row = (uuid7(), uuid7(), selector.external_id, config_of_new(plan, selector))
                    break
                case ById(thread_id):
                    selectors.append((item, 1, thread_id, None, None))
                case ByExternalId(external_id):
                    selectors.append((item, 3, None, external_id, None))
        new.append(new_row)
    now = datetime.now()  # JIMS stores the creation time of threads in the process's local time
    limits = [context_arguments(plan.context) for plan in plans]
    columns: list[Any] = [
        [plan.run_id for plan in plans],
        [plan.owner for plan in plans],
        [plan.contact_id for plan in plans],
        [plan.acting_for for plan in plans],
        [plan.message.event_id for plan in plans],
        [plan.message.event_type for plan in plans],
        [plan.message.data for plan in plans],
        [plan.conversation_start for plan in plans],
        [plan.queue_limit for plan in plans],
        [events for events, _ in limits],
        [size for _, size in limits],
    ]
    columns += _columns(new, 4)
    columns.append([now] * len(plans))
    columns += _columns(selectors, 5)
    columns += [
        [plan.caller for plan in plans],
        [plan.background for plan in plans],
        [plan.webhook_url for plan in plans],
        [_beside(plan.beside) for plan in plans] if any(plan.beside for plan in plans) else None,
    ]
    return columns


def _beside(events: Sequence[NewEvent]) -> bytes | None:
    """Return the events beside a message as JSON. The database makes their identifiers of the message's."""
    if not events:
        return None
    return orjson.dumps([{"type": event.event_type, "data": orjson.Fragment(event.data)} for event in events])


def are_alike(plans: Sequence[RunPlan]) -> bool:
    """Whether `jimsapi_accept_alike` can accept the plans. Most messages are for the newest thread of their contact.

    The function stores only the parts of a plan that its arguments contain, so plans with other parts are excluded.
    """
    first = plans[0]
    match first.selectors:
        case (Latest(), New(None, None)):
            plain = not (first.conversation_start or first.background or first.webhook_url or first.beside)
        case _:
            return False
    shared = _shared_fields(first)
    one_per_contact = len({plan.contact_id for plan in plans}) == len(plans)
    return plain and one_per_contact and all(_shared_fields(plan) == shared for plan in plans)


def alike_arguments(plans: Sequence[RunPlan], *, only_new: bool) -> list[Any]:
    """Return the arguments for `jimsapi_accept_alike`."""
    first = plans[0]
    messages = [plan.message for plan in plans]
    age = next(selector.active_within for selector in first.selectors if isinstance(selector, Latest))
    return [
        [plan.run_id for plan in plans],
        [plan.contact_id for plan in plans],
        [message.event_id for message in messages],
        [message.event_type for message in messages],
        [message.data for message in messages],
        [uuid7() for _ in plans],
        [uuid7() for _ in plans],
        [plan.caller for plan in plans],
        first.owner,
        first.thread_config,
        datetime.now(),
        _seconds(age),
        first.queue_limit,
        *context_arguments(first.context),
        only_new,
    ]


class _Beside(msgspec.Struct):
    """An event beside a message that waits, as `_beside` stores it."""

    type: str
    data: msgspec.Raw


def _load_beside(message_id: UUID, text: bytes) -> Iterable[NewEvent]:
    for number, event in enumerate(msgspec.json.decode(text, type=list[_Beside]), 1):
        yield NewEvent(id_beside(message_id, number), event.type, bytes(event.data))


def read_alike(plans: Sequence[RunPlan], arguments: Sequence[Any], rows: Sequence[Any]) -> list[Accepted | Exception]:
    """Return the result of each plan from the rows of `jimsapi_accept_alike`."""
    item, *_, config, first_at = rows[0]
    return read_accepted(plans, arguments[6], rows) if item > 0 else read_new(plans, arguments, config, first_at)


def read_new(
    plans: Sequence[RunPlan], arguments: Sequence[Any], config: bytes, first_at: datetime
) -> list[Accepted | Exception]:
    """Return the result of each plan if all contacts were new."""
    threads, created_ids, now = arguments[5], arguments[6], arguments[10]
    created_at, second_at = now.astimezone(UTC), first_at + TICK
    results: list[Accepted | Exception] = []
    for plan, thread_id, created_id in zip(plans, threads, created_ids, strict=True):
        entered = [EventRow(created_id, first_at, THREAD_CREATED, b"{}"), _row(plan.message, second_at)]
        thread = ThreadRecord(thread_id, plan.contact_id, created_at, config)
        results.append(Accepted(thread, True, RunStatus.RUNNING, Snapshot(entered[:], False), entered))
    return results


def key_arguments(plans: Sequence[RunPlan], keep_keys: timedelta) -> list[Any]:
    """Return the first arguments for `jimsapi_accept_with_keys`; those of `jimsapi_accept` follow. All plans must
    have a key."""
    keys = [plan.idempotency for plan in plans if plan.idempotency is not None]
    return [[key.key for key in keys], [key.body for key in keys], keep_keys]


def read_accepted(
    plans: Sequence[RunPlan], created_ids: Sequence[UUID], rows: Iterable[Any]
) -> list[Accepted | Exception]:
    """Return the result of each plan, or the error for its caller."""
    headers: dict[int, Any] = {}
    contexts: dict[int, list[Any]] = {}
    for row in rows:
        if row[1] == 0:
            headers[row[0]] = row
        else:
            contexts.setdefault(row[0], []).append((row[1], row[3], row[4], row[5], row[6]))
    return [
        _accepted(plan, created_id, headers[item], contexts.get(item, []))
        for item, (plan, created_id) in enumerate(zip(plans, created_ids, strict=True), 1)
    ]


def _accepted(plan: RunPlan, created_id: UUID, header: Any, context: list[Any]) -> Accepted | Exception:
    _, _, verdict, thread_id, created_at, contact_id, config, first_at = header
    match verdict:
        case "missing":
            requested = [selector.thread_id for selector in plan.selectors if isinstance(selector, ById)]
            return ThreadNotFound(requested[-1] if requested else None)
        case "refused":
            by_id = any(isinstance(selector, ById) and selector.thread_id == thread_id for selector in plan.selectors)
            return ThreadNotFound(as_uuid(thread_id) if by_id else None)
        case "full":
            return QueueFull(plan.queue_limit, as_uuid(thread_id))
        case "taken":
            return IdentifierTaken([plan.message.event_id])
        case "used":
            return KeyUsed(as_uuid(thread_id))
        case "mismatch":
            return KeyMismatch()
        case "known":
            return Known()
        case "alone":
            return Alone()
        case "again":
            return Again()
    thread = thread_record(thread_id, contact_id, created_at, config)
    if verdict == "queued":
        return Accepted(thread, False, RunStatus.QUEUED, None, [])
    if verdict == "running":
        snapshot = read_snapshot(context, plan.context)
        return Accepted(thread, False, RunStatus.RUNNING, snapshot, event_rows((*plan.beside, plan.message), first_at))
    entered = [EventRow(created_id, first_at, THREAD_CREATED, b"{}")]
    if verdict == "created":
        entered += event_rows((*plan.beside, plan.message), first_at + TICK)
        if plan.owner == NOBODY:
            return Accepted(thread, True, RunStatus.QUEUED, None, entered)
    status = RunStatus.RUNNING if verdict == "created" else RunStatus.QUEUED
    return Accepted(thread, True, status, Snapshot(entered[:], False), entered)


def read_snapshot(rows: Iterable[Any], limits: ContextLimits) -> Snapshot:
    """Return the context in the rows `(part, event_id, created_at, event_type, event_data)` of a function."""
    parts: dict[int, list[EventRow]] = {WINDOW: [], OLDER_COMM: [], OLDER_STATES: []}
    more = False
    for part, event_id, created_at, event_type, data in rows:
        if part == MORE:
            more = True
        elif part in parts:
            parts[part].append(EventRow(as_text(event_id), created_at, event_type, data))
    window, comm, states = parts.values()
    if limits.events == 0 or (not (comm or states or more) and _fits(window, limits)):
        return Snapshot(window[::-1], False)
    states.sort(key=_event_order, reverse=True)
    chosen = choose(window, comm, states, limits)
    return Snapshot(chosen, more or len(chosen) < len(window) + len(comm) + len(states))


def context_arguments(limits: ContextLimits) -> tuple[int | None, int | None]:
    """Return the limits as arguments for the functions."""
    return (None, None) if limits.events == 0 else (limits.events, limits.bytes)


def finish_arguments(finishing: Sequence[Finishing]) -> list[list[Any]]:
    """Return the arrays for `jimsapi_finish`."""
    events = [
        (item, event.event_id, event.event_type, event.data)
        for item, (_, _, outcome) in enumerate(finishing, 1)
        for event in stored_events(outcome)
    ]
    return [
        [run_id for run_id, _, _ in finishing],
        [owner for _, owner, _ in finishing],
        [outcome.status for _, _, outcome in finishing],
        [None if outcome.error is None else storable_text(outcome.error) for _, _, outcome in finishing],
        *_columns(events, 4),
        [len(outcome.events) if outcome.status is RunStatus.COMPLETED else 0 for _, _, outcome in finishing],
        [outcome.streamed for _, _, outcome in finishing],
        [outcome.failure for _, _, outcome in finishing],
    ]


def read_settled(finishing: Sequence[Finishing], rows: Sequence[Any]) -> list[Settled | Exception]:
    """Return the result of each run."""
    return [_settled(outcome, row) for (_, _, outcome), row in zip(finishing, rows, strict=True)]


def _settled(outcome: Outcome, row: Any) -> Settled | Exception:
    counted, status, next_run, first_at, taken = row
    if taken:
        return IdentifierTaken([as_uuid(event_id) for event_id in taken])
    if not counted:
        return settled(False, status, next_run, [])
    stored = event_rows(stored_events(outcome), first_at)
    return Settled(True, outcome.status, None if next_run is None else as_uuid(next_run), stored)


def settled(counted: bool, status: str | None, next_run: UUID | None, stored: list[EventRow]) -> Settled:
    """Return the state of a run as a `Settled`."""
    return Settled(
        counted,
        None if status is None else RunStatus(status),
        None if next_run is None else as_uuid(next_run),
        stored,
    )


def thread_record(thread_id: UUID, contact_id: str | None, created_at: datetime, config: bytes) -> ThreadRecord:
    """Return a thread. Its `created_at` in the database is in the process's local time."""
    return ThreadRecord(as_uuid(thread_id), contact_id, created_at.astimezone(UTC), config)


def thread_facts(
    title: str | None,
    archived_at: datetime | None,
    metadata: bytes | None,
    parent_id: UUID | None,
    parent_event_id: UUID | None,
) -> ThreadFacts:
    """Return what was said of a thread from a row of `jimsapi_threads`, which may have only nulls."""
    parent = None
    if parent_id is not None and parent_event_id is not None:
        parent = Parent(as_uuid(parent_id), as_uuid(parent_event_id))
    return ThreadFacts(title, archived_at and archived_at.astimezone(UTC), metadata or b"{}", parent)


def usage_total(figures: Sequence[Any]) -> UsageTotal:
    """Return a total from `calls, input, output, cached, cost`. Sums of integers are decimals."""
    calls, read, written, cached, cost = figures
    return UsageTotal(int(calls), int(read), int(written), int(cached), cost)


def thread_summary(row: Any) -> ThreadSummary:
    """Return what lists show of a thread: its facts, the time of its newest event, its first and newest message.

    The row also has the number of its forks. Its open questions are not counted here.
    """
    facts, active_at, forks, first, newest = row[:5], row[5], row[6], row[7:11], row[11:15]
    return ThreadSummary(
        thread_facts(*facts),
        None if first[0] is None else event_row(first),
        None if newest[0] is None else event_row(newest),
        active_at and active_at.astimezone(UTC),
        forks,
    )


def adopted_run(row: Any) -> AdoptedRun:
    """Return a run from a row of `jimsapi_adopt`, or of a run that was claimed."""
    run_id, thread_id, contact_id, message_id, message_type, data, caller, webhook_url, beside, restarts = row
    return AdoptedRun(
        as_uuid(run_id),
        as_uuid(thread_id),
        contact_id,
        NewEvent(as_uuid(message_id), message_type, data),
        None if caller is None else as_uuid(caller),
        webhook_url,
        () if beside is None else tuple(_load_beside(as_uuid(message_id), beside)),
        restarts,
    )


def stored_run(run_id: UUID, contact_id: str | None, row: Sequence[Any], events: list[EventRecord]) -> StoredRun:
    """Return a run from the row `thread_id, status, created_new_thread, accepted_at, started_at, finished_at, error,
    failure, streamed, message_id, restarts` and the events that it sent."""
    thread_id, status, created_new_thread, accepted_at, started_at, finished_at, error, failure, *more = row
    streamed, message_id, restarts = more
    return StoredRun(
        run_id=run_id,
        thread_id=as_uuid(thread_id),
        contact_id=contact_id,
        status=RunStatus(status),
        created_new_thread=created_new_thread,
        accepted_at=accepted_at,
        started_at=started_at,
        finished_at=finished_at,
        error=error,
        streamed=streamed,
        events=events,
        failure=None if failure is None else FailureKind(failure),
        message_id=as_uuid(message_id),
        restarts=restarts,
    )


def event_record(row: Any) -> EventRecord:
    """Return an event from `event_id, created_at, event_type, event_data`, and `created_at` with its time zone."""
    event_id, _, event_type, data, created_at = row
    return EventRecord(as_uuid(event_id), created_at.astimezone(UTC), event_type, data)


def event_row(row: Any) -> EventRow:
    """Return an event from `event_id, created_at, event_type, event_data`."""
    return EventRow(as_text(row[0]), row[1], row[2], row[3])


def as_uuid(value: UUID) -> UUID:
    """Convert asyncpg's own class of UUIDs, which some encoders do not support, to `UUID`."""
    return UUID(int=value.int)


def as_text(value: UUID) -> str:
    """Return an identifier as 32 digits. Most events of a context are not used, and a `UUID` is more expensive."""
    return value.hex


def _seconds(age: timedelta | None) -> float | None:
    return None if age is None else min(age.total_seconds(), LONG_AGO)


def event_rows(events: Iterable[NewEvent], first_at: datetime) -> list[EventRow]:
    """Return the rows of events that were stored together. The first has the time `first_at`."""
    stored: list[EventRow] = []
    for event in events:
        stored.append(_row(event, first_at))
        first_at += TICK
    return stored


def _row(event: NewEvent, created_at: datetime) -> EventRow:
    return EventRow(event.event_id, created_at, event.event_type, event.data)


def _fits(rows: Sequence[EventRow], limits: ContextLimits) -> bool:
    return sum([len(row.data) for row in rows if row.data]) <= limits.bytes


def _columns(rows: Sequence[tuple[Any, ...]], count: int) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(count)]
