"""The content of a database as other stores can hold it (`PortableStore`)."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC
from operator import itemgetter
from typing import Any
from uuid import UUID

import msgspec

from jimsapi.threads import (
    Activity,
    CallerUsage,
    ContactUsage,
    EndedRun,
    FailureKind,
    Feedback,
    KeyRecord,
    ModelTotal,
    Rating,
    Record,
    RecordKind,
    RunStatus,
    SubscriptionRecord,
    ThreadFacts,
    ThreadRefused,
    WholeEvent,
    WholeThread,
    take_sized,
)
from jimsapi_postgres.connections import Connection
from jimsapi_postgres.errors import DataRefused, as_domain_error
from jimsapi_postgres.peers import SILENCE
from jimsapi_postgres.rows import as_uuid, thread_facts, usage_total

TIMEOUT = 3600.0
"""Seconds that one call may take: a thread of other JIMS programs may be very long."""

_UNKNOWN = UUID(int=0)
"""Stands for the owner of a run that another store has ended, and for the message of such a run if it is not known."""
_NO_TIMEOUT = f"SET LOCAL statement_timeout = '{TIMEOUT:g}s'"
_OPEN_RUNS = "SELECT count(*) FROM jimsapi_runs WHERE finished_at IS NULL"
_PROCESSES = "SELECT count(*) FROM jimsapi_owners WHERE beat_at > clock_timestamp() - $1::interval"
_COUNT = "SELECT count(*) FROM threads"
# A batch is limited by the size of its events as they are stored, which is known without reading them.
_NEXT = """
    SELECT t.thread_id, (
        SELECT coalesce(sum(pg_column_size(e.event_data)), 0) FROM thread_events e WHERE e.thread_id = t.thread_id
    ) AS size
    FROM threads t {where} ORDER BY t.thread_id LIMIT $1
"""
_FIRST = _NEXT.format(where="")
_AFTER = _NEXT.format(where="WHERE t.thread_id > $2")
_THREADS = """
    SELECT
        t.thread_id, t.contact_id, t.external_id, t.created_at, t.thread_config::json,
        f.title, f.archived_at, f.metadata, f.parent_id, f.parent_event_id
    FROM unnest($1::uuid[]) WITH ORDINALITY i (thread, item)
    JOIN threads t ON t.thread_id = i.thread
    LEFT JOIN jimsapi_threads f ON f.thread_id = i.thread
    ORDER BY i.item
"""
_EVENTS = """
    SELECT i.thread, e.event_id, e.created_at, e.event_type, e.event_domain, e.event_name, e.event_data::json
    FROM unnest($1::uuid[]) i (thread)
    CROSS JOIN LATERAL (
        SELECT * FROM thread_events t WHERE t.thread_id = i.thread ORDER BY t.created_at, t.event_id
    ) e
"""
_RUN_COLUMNS = """
    run_id, status, created_new_thread, accepted_at, started_at, finished_at, error, failure, message_id, continues,
    caller, background, webhook_url, sent_at, sent, streamed, restarts
"""
# The rows of these are sorted here: PostgreSQL, which does not sort in this session, would read another index whole.
_RUNS = f"""
    SELECT thread_id, {_RUN_COLUMNS} FROM jimsapi_runs WHERE thread_id = ANY ($1::uuid[]) AND finished_at IS NOT NULL
"""
_FEEDBACK = """
    SELECT thread_id, event_id, rating, comment, given_at FROM jimsapi_feedback WHERE thread_id = ANY ($1::uuid[])
"""
_USAGE = """
    SELECT thread_id, model, calls, input, output, cached, cost FROM jimsapi_thread_usage
    WHERE thread_id = ANY ($1::uuid[])
"""
_ADD_THREADS = """
    INSERT INTO threads (thread_id, contact_id, external_id, created_at, thread_config)
    SELECT t.id, t.contact, t.external, t.created, t.config::jsonb
    FROM unnest($1::uuid[], $2::text[], $3::text[], $4::timestamp[], $5::json[])
        t (id, contact, external, created, config)
    ON CONFLICT (thread_id) DO NOTHING
    RETURNING thread_id
"""
# Rows of a thread that another JIMS program has deleted may be left.
_ADD_FACTS = """
    INSERT INTO jimsapi_threads (thread_id, title, archived_at, metadata, parent_id, parent_event_id)
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::json[], $5::uuid[], $6::uuid[])
    ON CONFLICT (thread_id) DO UPDATE SET
        title = excluded.title, archived_at = excluded.archived_at, metadata = excluded.metadata,
        parent_id = excluded.parent_id, parent_event_id = excluded.parent_event_id
"""
_ADD_EVENTS = """
    INSERT INTO thread_events (thread_id, event_id, created_at, event_type, event_domain, event_name, event_data)
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::timestamp[], $4::text[], $5::text[], $6::text[], $7::json[])
"""
_ADD_RUNS = f"""
    INSERT INTO jimsapi_runs (thread_id, seq, owner, message_type, {_RUN_COLUMNS})
    SELECT r.thread, 0, '{_UNKNOWN}', r.message_type, {_RUN_COLUMNS}
    FROM unnest(
        $1::uuid[], $2::text[], $3::uuid[], $4::text[], $5::boolean[], $6::timestamptz[], $7::timestamptz[],
        $8::timestamptz[], $9::text[], $10::text[], $11::uuid[], $12::boolean[], $13::uuid[], $14::boolean[],
        $15::text[], $16::timestamp[], $17::int[], $18::int[], $19::int[]
    ) r (thread, message_type, {_RUN_COLUMNS})
"""
_ADD_FEEDBACK = """
    INSERT INTO jimsapi_feedback (thread_id, event_id, rating, comment, given_at)
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::smallint[], $4::text[], $5::timestamptz[])
    ON CONFLICT (thread_id, event_id) DO UPDATE SET
        rating = excluded.rating, comment = excluded.comment, given_at = excluded.given_at
"""
_ADD_USAGE = """
    INSERT INTO jimsapi_thread_usage (thread_id, model, calls, input, output, cached, cost)
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::float8[])
    ON CONFLICT (thread_id, model) DO UPDATE SET
        calls = excluded.calls, input = excluded.input, output = excluded.output, cached = excluded.cached,
        cost = excluded.cost
"""
_FIGURES = ("calls", "input", "output", "cached", "cost")
_FIGURE_TYPES = ("bigint", "bigint", "bigint", "bigint", "float8")
_TABLES = {
    ContactUsage: (
        "jimsapi_contact_usage",
        ("contact_id", "day", "model", "caller", *_FIGURES),
        ("text", "date", "text", "uuid", *_FIGURE_TYPES),
        4,
    ),
    CallerUsage: (
        "jimsapi_caller_usage",
        ("caller", "day", "model", *_FIGURES),
        ("uuid", "date", "text", *_FIGURE_TYPES),
        3,
    ),
    KeyRecord: (
        "jimsapi_idempotency",
        ("key", "body", "run_id", "used_at"),
        ("uuid", "uuid", "uuid", "timestamptz"),
        1,
    ),
    SubscriptionRecord: (
        "jimsapi_subscriptions",
        (
            "run_id", "kind", "name", "subscription_id", "thread_id", "caller", "data", "notice", "calls", "due_at",
            "call_at",
        ),
        ("uuid", "text", "text", "uuid", "uuid", "uuid", "text", "text", "int", "timestamptz", "timestamptz"),
        3,
    ),
}  # fmt: skip
"""The table of each kind of records, its columns, their types, and the number of columns of the key."""


_LEFT: Mapping[RecordKind, str] = {
    SubscriptionRecord: """
        EXISTS (
            SELECT FROM jimsapi_runs r JOIN threads t ON t.thread_id = r.thread_id
            WHERE r.run_id = jimsapi_subscriptions.run_id
        )
    """
}
"""Which records of a kind are part of the content. Those of deleted runs are deleted when they are due."""


async def read_activity(connection: Connection) -> Activity:
    """`PortableStore.activity`. A process that did not end properly counts until its last heartbeat is old."""
    return Activity(await connection.fetchval(_OPEN_RUNS), await connection.fetchval(_PROCESSES, SILENCE))


async def count_threads(connection: Connection) -> int:
    """`PortableStore.count_threads`."""
    async with connection.transaction(readonly=True):
        await connection.execute(_NO_TIMEOUT)
        count: int = await connection.fetchval(_COUNT, timeout=TIMEOUT)
        return count


async def export_threads(connection: Connection, after: UUID | None, limit: int) -> list[WholeThread]:
    """`PortableStore.export_threads`."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        await connection.execute(_NO_TIMEOUT)
        if after is None:
            found = await connection.fetch(_FIRST, limit, timeout=TIMEOUT)
        else:
            found = await connection.fetch(_AFTER, limit, after, timeout=TIMEOUT)
        page, _ = take_sized(found, limit, lambda row: int(row[1]))
        return await _whole_threads(connection, [as_uuid(row[0]) for row in page])


async def export_by_id(connection: Connection, thread_ids: Sequence[UUID]) -> list[WholeThread]:
    """`PortableStore.export_by_id`."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        await connection.execute(_NO_TIMEOUT)
        return await _whole_threads(connection, thread_ids)


async def import_threads(connection: Connection, threads: Sequence[WholeThread]) -> int:
    """`PortableStore.import_threads`. If PostgreSQL refuses them, each is stored alone, to find the faulty one."""
    try:
        return await _import(connection, threads)
    except Exception as error:
        refused = as_domain_error(error)
        if not isinstance(refused, DataRefused):
            raise
        if len(threads) == 1:
            raise ThreadRefused(threads[0].thread_id, str(refused)) from error
    return sum([await import_threads(connection, [thread]) for thread in threads])


async def export_records(connection: Connection, kind: RecordKind, after: Record | None, limit: int) -> list[Record]:
    """`PortableStore.export_records`."""
    table, columns, types, keys = _TABLES[kind]
    order = ", ".join(columns[:keys])
    values: Sequence[Any] = ()
    where = f"WHERE {_LEFT.get(kind, 'true')}"
    if after is not None:
        values = _columns(after)[:keys]
        places = ", ".join(f"${number}::{of_type}" for number, of_type in enumerate(types[:keys], 1))
        where += f" AND ({order}) > ({places})"
    query = f"SELECT {', '.join(columns)} FROM {table} {where} ORDER BY {order} LIMIT ${len(values) + 1}"
    return [_record(kind, row) for row in await connection.fetch(query, *values, limit, timeout=TIMEOUT)]


async def import_records(connection: Connection, records: Sequence[Record]) -> None:
    """`PortableStore.import_records`."""
    if records:
        table, columns, types, _ = _TABLES[type(records[0])]
        arrays = ", ".join(f"${number}::{of_type}[]" for number, of_type in enumerate(types, 1))
        query = f"INSERT INTO {table} ({', '.join(columns)}) SELECT * FROM unnest({arrays}) ON CONFLICT DO NOTHING"
        await connection.execute(query, *_arrays(map(_columns, records), len(columns)), timeout=TIMEOUT)


async def _whole_threads(connection: Connection, thread_ids: Sequence[UUID]) -> list[WholeThread]:
    ids = list(thread_ids)
    events, runs, feedback, usage = [
        _by_thread(await connection.fetch(query, ids, timeout=TIMEOUT)) for query in (_EVENTS, _RUNS, _FEEDBACK, _USAGE)
    ]
    return [
        WholeThread(
            thread_id=as_uuid(thread_id),
            contact_id=contact_id,
            external_id=external_id,
            created_at=created_at,
            thread_config=config,
            facts=thread_facts(*facts),
            events=[WholeEvent(as_uuid(event_id), *columns) for event_id, *columns in events.get(thread_id, ())],
            runs=[_run(row) for row in sorted(runs.get(thread_id, ()), key=_first)],
            feedback=[_feedback(row) for row in sorted(feedback.get(thread_id, ()), key=_first)],
            usage=[
                ModelTotal(model, usage_total(figures))
                for model, *figures in sorted(usage.get(thread_id, ()), key=_first)
            ],
        )
        for thread_id, contact_id, external_id, created_at, config, *facts in await connection.fetch(_THREADS, ids)
    ]


_first = itemgetter(0)


def _by_thread(rows: Iterable[Any]) -> dict[UUID, list[Any]]:
    """Return the rows of each thread, without their first column, which is the thread."""
    found: dict[UUID, list[Any]] = {}
    for thread_id, *columns in rows:
        found.setdefault(thread_id, []).append(columns)
    return found


def _run(row: Sequence[Any]) -> EndedRun:
    run_id, status, created, accepted_at, started_at, finished_at, error, failure, message_id, continues, *more = row
    caller, background, webhook_url, sent_at, sent, streamed, restarts = more
    return EndedRun(
        run_id=as_uuid(run_id),
        status=RunStatus(status),
        created_new_thread=created,
        accepted_at=accepted_at,
        started_at=started_at,
        finished_at=finished_at,
        error=error,
        failure=failure and FailureKind(failure),
        message_id=as_uuid(message_id),
        continues=continues,
        caller=caller and as_uuid(caller),
        background=background,
        webhook_url=webhook_url,
        sent_at=sent_at,
        sent=sent,
        streamed=streamed,
        restarts=restarts,
    )


def _feedback(row: Sequence[Any]) -> Feedback:
    event_id, rating, comment, given_at = row
    return Feedback(as_uuid(event_id), Rating(rating, comment), given_at.astimezone(UTC))


async def _import(connection: Connection, threads: Sequence[WholeThread]) -> int:
    async with connection.transaction():
        await connection.execute(_NO_TIMEOUT)
        columns = _arrays(map(_thread_columns, threads), 5)
        added = {row[0] for row in await connection.fetch(_ADD_THREADS, *columns, timeout=TIMEOUT)}
        new = [thread for thread in threads if thread.thread_id in added]
        for query, rows, count in (
            (_ADD_FACTS, [_facts_columns(thread) for thread in new if thread.facts != ThreadFacts()], 6),
            (_ADD_EVENTS, _event_columns(new), 7),
            (_ADD_RUNS, _run_columns(new), 19),
            (_ADD_FEEDBACK, _feedback_columns(new), 5),
            (_ADD_USAGE, _usage_columns(new), 7),
        ):
            await connection.execute(query, *_arrays(rows, count), timeout=TIMEOUT)
        return len(new)


def _thread_columns(thread: WholeThread) -> tuple[Any, ...]:
    return thread.thread_id, thread.contact_id, thread.external_id, thread.created_at, thread.thread_config


def _facts_columns(thread: WholeThread) -> tuple[Any, ...]:
    facts = thread.facts
    metadata = facts.metadata if isinstance(facts.metadata, bytes) else facts.metadata.encode()
    parent = (None, None) if facts.parent is None else (facts.parent.thread_id, facts.parent.event_id)
    return thread.thread_id, facts.title, facts.archived_at, metadata, *parent


def _event_columns(threads: Iterable[WholeThread]) -> Iterable[tuple[Any, ...]]:
    for thread in threads:
        for event in thread.events:
            names = event.event_type, event.event_domain, event.event_name
            yield thread.thread_id, event.event_id, event.created_at, *names, event.data


def _run_columns(threads: Iterable[WholeThread]) -> Iterable[tuple[Any, ...]]:
    for thread in threads:
        types = {event.event_id: event.event_type for event in thread.events} if thread.runs else {}
        for run in thread.runs:
            yield (
                thread.thread_id,
                types.get(run.message_id, ""),  # it matters only while a run waits
                run.run_id,
                run.status,
                run.created_new_thread,
                run.accepted_at,
                run.started_at,
                run.finished_at,
                run.error,
                run.failure,
                run.message_id,
                run.continues,
                run.caller,
                run.background,
                run.webhook_url,
                run.sent_at,
                run.sent,
                run.streamed,
                run.restarts,
            )


def _feedback_columns(threads: Iterable[WholeThread]) -> Iterable[tuple[Any, ...]]:
    for thread in threads:
        for given in thread.feedback:
            yield thread.thread_id, given.event_id, given.rating.rating, given.rating.comment, given.given_at


def _usage_columns(threads: Iterable[WholeThread]) -> Iterable[tuple[Any, ...]]:
    for thread in threads:
        for used in thread.usage:
            total = used.total
            figures = total.calls, total.input_tokens, total.output_tokens, total.cached_tokens, total.cost
            yield thread.thread_id, used.model, *figures


def _record(kind: RecordKind, row: Sequence[Any]) -> Record:
    if kind is ContactUsage:
        contact_id, day, model, caller, *figures = row
        return ContactUsage(contact_id, day, model, as_uuid(caller), usage_total(figures))
    if kind is CallerUsage:
        caller, day, model, *figures = row
        return CallerUsage(as_uuid(caller), day, model, usage_total(figures))
    if kind is SubscriptionRecord:
        return _subscription(row)
    key, body, run_id, used_at = row
    return KeyRecord(as_uuid(key), as_uuid(body), as_uuid(run_id), used_at.astimezone(UTC))


def _subscription(row: Sequence[Any]) -> SubscriptionRecord:
    run, kind, name, subscription, thread, caller, data, notice, calls, due_at, call_at = row
    return SubscriptionRecord(
        as_uuid(run),
        kind,
        name,
        as_uuid(subscription),
        as_uuid(thread),
        caller and as_uuid(caller),
        data.encode(),
        notice,
        calls,
        due_at and due_at.astimezone(UTC),
        call_at and call_at.astimezone(UTC),
    )


def _columns(record: Record) -> tuple[Any, ...]:
    if isinstance(record, KeyRecord):
        return record.key, record.body, record.run_id, record.used_at
    if isinstance(record, SubscriptionRecord):
        _, kind, name, subscription_id, thread_id, caller, data, *rest = msgspec.structs.astuple(record)
        return record.run_id, kind, name, subscription_id, thread_id, caller, data.decode(), *rest
    total = record.total
    figures = total.calls, total.input_tokens, total.output_tokens, total.cached_tokens, total.cost
    return *record.position, *figures


def _arrays(rows: Iterable[Sequence[Any]], count: int) -> list[list[Any]]:
    """Return columns as arrays."""
    columns: list[list[Any]] = [[] for _ in range(count)]
    for row in rows:
        for column, value in zip(columns, row, strict=True):
            column.append(value)
    return columns
