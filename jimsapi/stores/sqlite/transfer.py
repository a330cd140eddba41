"""The content of an SQLite database as other stores can hold it (`PortableStore`)."""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, assert_never
from uuid import UUID

from jimsapi.stores.sqlite.errors import primary_code
from jimsapi.stores.sqlite.facts import read_facts, store_facts
from jimsapi.stores.sqlite.reads import utc
from jimsapi.stores.sqlite.rows import id_hex, id_text, json_value, time_text
from jimsapi.threads.facts import NO_FACTS, Feedback, Rating
from jimsapi.threads.run import FailureKind, RunStatus
from jimsapi.threads.store import take_sized
from jimsapi.threads.transfer import (
    Activity,
    CallerUsage,
    ContactUsage,
    EndedRun,
    KeyRecord,
    Record,
    RecordKind,
    SubscriptionRecord,
    ThreadRefused,
    WholeEvent,
    WholeThread,
    thread_size,
)
from jimsapi.threads.usage import ModelTotal, UsageTotal

_OPEN_RUNS = "SELECT count(*) FROM jimsapi_runs WHERE status IN ('queued', 'running')"
_COUNT = "SELECT count(*) FROM threads"
_COLUMNS = "thread_id, contact_id, external_id, created_at, CAST(thread_config AS BLOB)"
# Identifiers that other JIMS programs stored as numbers come before all texts, also before the empty one.
_FIRST_THREADS = f"SELECT {_COLUMNS} FROM threads ORDER BY thread_id LIMIT ?"
_THREADS = f"SELECT {_COLUMNS} FROM threads WHERE thread_id > ? ORDER BY thread_id LIMIT ?"
_THREAD = f"SELECT {_COLUMNS} FROM threads WHERE thread_id = ?"
_EVENTS = """
    SELECT event_id, created_at, event_type, event_domain, event_name, CAST(event_data AS BLOB)
    FROM thread_events INDEXED BY jimsapi_events_order WHERE thread_id = ? ORDER BY created_at, event_id
"""
_RUN_COLUMNS = (
    "run_id, status, created_new_thread, accepted_at, started_at, finished_at, error, failure, message_id, continues, "
    "caller, background, webhook_url, sent_at, sent, streamed, restarts"
)
_RUNS = f"""
    SELECT {_RUN_COLUMNS} FROM jimsapi_runs INDEXED BY jimsapi_runs_thread
    WHERE thread_id = ? AND finished_at IS NOT NULL ORDER BY run_id
"""
_FEEDBACK = "SELECT event_id, rating, comment, given_at FROM jimsapi_feedback WHERE thread_id = ? ORDER BY event_id"
_USAGE = """
    SELECT model, calls, input, output, cached, cost FROM jimsapi_thread_usage WHERE thread_id = ? ORDER BY model
"""
_ADD_THREAD = """
    INSERT INTO threads (thread_id, contact_id, external_id, created_at, thread_config) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (thread_id) DO NOTHING
"""
_ADD_EVENT = """
    INSERT INTO thread_events (thread_id, event_id, created_at, event_type, event_domain, event_name, event_data)
    VALUES (?, ?, ?, ?, ?, ?, ?)
"""
_ADD_RUN = f"""
    INSERT INTO jimsapi_runs (thread_id, seq, owner, {_RUN_COLUMNS})
    VALUES (?, 0, '{UUID(int=0).hex}', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
# Rows of a thread that another JIMS program has deleted may be left.
_ADD_FEEDBACK = """
    INSERT OR REPLACE INTO jimsapi_feedback (thread_id, event_id, rating, comment, given_at) VALUES (?, ?, ?, ?, ?)
"""
_ADD_USAGE = """
    INSERT OR REPLACE INTO jimsapi_thread_usage (thread_id, model, calls, input, output, cached, cost)
    VALUES (?, ?, ?, ?, ?, ?, ?)
"""
_TABLES = {
    ContactUsage: (
        "jimsapi_contact_usage",
        ("contact_id", "day", "model", "caller"),
        ("calls", "input", "output", "cached", "cost"),
    ),
    CallerUsage: ("jimsapi_caller_usage", ("caller", "day", "model"), ("calls", "input", "output", "cached", "cost")),
    KeyRecord: ("jimsapi_idempotency", ("key",), ("body", "run_id", "used_at")),
    SubscriptionRecord: (
        "jimsapi_subscriptions",
        ("run_id", "kind", "name"),
        ("subscription_id", "thread_id", "caller", "data", "notice", "calls", "due_at", "call_at"),
    ),
}
"""The table, the columns of the key, and the other columns of each kind of records."""
_LEFT: Mapping[RecordKind, str] = {
    SubscriptionRecord: """
        EXISTS (
            SELECT 1 FROM jimsapi_runs r JOIN threads t ON t.thread_id = r.thread_id
            WHERE r.run_id = jimsapi_subscriptions.run_id
        )
    """
}
"""Which records of a kind are part of the content. Those of deleted runs are deleted when they are due."""


def read_activity(connection: sqlite3.Connection) -> Activity:
    """`PortableStore.activity`. No other process has the database open."""
    return Activity(connection.execute(_OPEN_RUNS).fetchone()[0], 0)


def count_threads(connection: sqlite3.Connection) -> int:
    """`PortableStore.count_threads`."""
    count: int = connection.execute(_COUNT).fetchone()[0]
    return count


def export_threads(connection: sqlite3.Connection, after: UUID | None, limit: int) -> list[WholeThread]:
    """`PortableStore.export_threads`."""
    if after is None:
        rows = connection.execute(_FIRST_THREADS, (limit,)).fetchall()
    else:
        rows = connection.execute(_THREADS, (id_hex(after), limit)).fetchall()
    threads, _ = take_sized((_whole_thread(connection, row) for row in rows), limit, thread_size)
    return threads


def export_by_id(connection: sqlite3.Connection, thread_ids: Sequence[UUID]) -> list[WholeThread]:
    """`PortableStore.export_by_id`."""
    rows = (connection.execute(_THREAD, (id_hex(thread_id),)).fetchone() for thread_id in thread_ids)
    return [_whole_thread(connection, row) for row in rows if row is not None]


def import_threads(connection: sqlite3.Connection, threads: Sequence[WholeThread]) -> int:
    """`PortableStore.import_threads`."""
    return sum([_add_thread(connection, thread) for thread in threads])


def export_records(connection: sqlite3.Connection, kind: RecordKind, after: Record | None, limit: int) -> list[Record]:
    """`PortableStore.export_records`."""
    table, keys, others = _TABLES[kind]
    order = ", ".join(keys)
    query = f"SELECT {', '.join((*keys, *others))} FROM {table} WHERE {_LEFT.get(kind, 'true')}"
    values: Iterable[Any] = ()
    if after is not None:
        values = _columns(after)[: len(keys)]
        query += f" AND ({order}) > ({', '.join('?' for _ in keys)})"
    rows = connection.execute(f"{query} ORDER BY {order} LIMIT ?", (*values, limit)).fetchall()
    return [_record(kind, row) for row in rows]


def import_records(connection: sqlite3.Connection, records: Sequence[Record]) -> None:
    """`PortableStore.import_records`."""
    if records:
        table, keys, others = _TABLES[type(records[0])]
        columns = (*keys, *others)
        query = f"INSERT OR IGNORE INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' for _ in columns)})"
        connection.executemany(query, map(_columns, records))


def _whole_thread(connection: sqlite3.Connection, row: Any) -> WholeThread:
    stored_id, contact_id, external_id, created_at, config = row
    thread = id_text(stored_id)
    return WholeThread(
        thread_id=UUID(thread),
        contact_id=contact_id,
        external_id=external_id,
        created_at=_naive(created_at),
        thread_config=config,
        facts=read_facts(connection, thread),
        events=[_event(row) for row in connection.execute(_EVENTS, (thread,))],
        runs=[_run(row) for row in connection.execute(_RUNS, (thread,))],
        feedback=[_feedback(row) for row in connection.execute(_FEEDBACK, (thread,))],
        usage=[ModelTotal(model, UsageTotal(*figures)) for model, *figures in connection.execute(_USAGE, (thread,))],
    )


def _event(row: Any) -> WholeEvent:
    event_id, created_at, *columns = row
    return WholeEvent(UUID(id_text(event_id)), _naive(created_at), *columns)


def _run(row: Any) -> EndedRun:
    run_id, status, created, accepted_at, started_at, finished_at, error, failure, message_id, continues, *more = row
    caller, background, webhook_url, sent_at, sent, streamed, restarts = more
    return EndedRun(
        run_id=UUID(run_id),
        status=RunStatus(status),
        created_new_thread=bool(created),
        accepted_at=utc(accepted_at),
        started_at=started_at and utc(started_at),
        finished_at=utc(finished_at),
        error=error,
        failure=failure and FailureKind(failure),
        message_id=UUID(message_id),
        continues=bool(continues),
        caller=caller and UUID(caller),
        background=bool(background),
        webhook_url=webhook_url,
        sent_at=sent_at and _naive(sent_at),
        sent=sent,
        streamed=streamed,
        restarts=restarts,
    )


def _feedback(row: Any) -> Feedback:
    event_id, rating, comment, given_at = row
    return Feedback(UUID(event_id), Rating(rating, comment), utc(given_at))


def _add_thread(connection: sqlite3.Connection, whole: WholeThread) -> int:
    """Add a thread if the database does not have it. Returns the number of threads that were added."""
    try:
        return _insert_thread(connection, whole)
    except sqlite3.Error as error:
        if primary_code(error) in (sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_TOOBIG):
            raise ThreadRefused(whole.thread_id, f"SQLite: {error}") from error
        raise


def _insert_thread(connection: sqlite3.Connection, whole: WholeThread) -> int:
    thread = id_hex(whole.thread_id)
    columns = thread, whole.contact_id, whole.external_id, time_text(whole.created_at), json_value(whole.thread_config)
    if not connection.execute(_ADD_THREAD, columns).rowcount:
        return 0
    if whole.facts != NO_FACTS:
        store_facts(connection, thread, whole.facts)
    connection.executemany(_ADD_EVENT, _event_rows(thread, whole.events))
    connection.executemany(_ADD_RUN, [(thread, *_run_columns(run)) for run in whole.runs])
    connection.executemany(
        _ADD_FEEDBACK,
        [
            (thread, id_hex(given.event_id), given.rating.rating, given.rating.comment, _utc_text(given.given_at))
            for given in whole.feedback
        ],
    )
    connection.executemany(_ADD_USAGE, [(thread, used.model, *_figures(used.total)) for used in whole.usage])
    return 1


def _event_rows(thread: str, events: Iterable[WholeEvent]) -> Iterator[tuple[Any, ...]]:
    for event in events:
        data = None if event.data is None else json_value(event.data)
        time = time_text(event.created_at)
        yield thread, id_hex(event.event_id), time, event.event_type, event.event_domain, event.event_name, data


def _run_columns(run: EndedRun) -> tuple[Any, ...]:
    return (
        id_hex(run.run_id),
        run.status.value,
        int(run.created_new_thread),
        _utc_text(run.accepted_at),
        run.started_at and _utc_text(run.started_at),
        _utc_text(run.finished_at),
        run.error,
        run.failure and run.failure.value,
        id_hex(run.message_id),
        int(run.continues),
        run.caller and id_hex(run.caller),
        int(run.background),
        run.webhook_url,
        run.sent_at and time_text(run.sent_at),
        run.sent,
        run.streamed,
        run.restarts,
    )


def _record(kind: RecordKind, row: Sequence[Any]) -> Record:
    if kind is ContactUsage:
        contact_id, day, model, caller, *figures = row
        return ContactUsage(contact_id, date.fromisoformat(day), model, UUID(caller), UsageTotal(*figures))
    if kind is CallerUsage:
        caller, day, model, *figures = row
        return CallerUsage(UUID(caller), date.fromisoformat(day), model, UsageTotal(*figures))
    if kind is SubscriptionRecord:
        return _subscription(row)
    key, body, run_id, used_at = row
    return KeyRecord(UUID(key), UUID(body), UUID(run_id), utc(used_at))


def _columns(record: Record) -> tuple[Any, ...]:
    match record:
        case ContactUsage():
            day = record.day.isoformat()
            return record.contact_id, day, record.model, id_hex(record.caller), *_figures(record.total)
        case CallerUsage():
            return id_hex(record.caller), record.day.isoformat(), record.model, *_figures(record.total)
        case KeyRecord():
            return id_hex(record.key), id_hex(record.body), id_hex(record.run_id), _utc_text(record.used_at)
        case SubscriptionRecord():
            return _subscription_columns(record)
        case _:
            assert_never(record)


def _subscription(row: Sequence[Any]) -> SubscriptionRecord:
    run, kind, name, subscription, thread, caller, data, notice, calls, due_at, call_at = row
    return SubscriptionRecord(
        UUID(run),
        kind,
        name,
        UUID(subscription),
        UUID(thread),
        None if caller is None else UUID(caller),
        data.encode(),
        notice,
        calls,
        due_at and utc(due_at),
        call_at and utc(call_at),
    )


def _subscription_columns(record: SubscriptionRecord) -> tuple[Any, ...]:
    return (
        id_hex(record.run_id),
        record.kind,
        record.name,
        id_hex(record.subscription_id),
        id_hex(record.thread_id),
        record.caller and id_hex(record.caller),
        record.data.decode(),
        record.notice,
        record.calls,
        record.due_at and _utc_text(record.due_at),
        record.call_at and _utc_text(record.call_at),
    )


def _figures(total: UsageTotal) -> tuple[Any, ...]:
    return total.calls, total.input_tokens, total.output_tokens, total.cached_tokens, total.cost


def _naive(stored: str) -> datetime:
    """Return a stored time. Other JIMS programs may omit the fraction of whole seconds."""
    return datetime.fromisoformat(stored).replace(tzinfo=None)


def _utc_text(time: datetime) -> str:
    return time_text(time.astimezone(UTC).replace(tzinfo=None))
