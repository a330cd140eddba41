"""The reads of an SQLite database of threads: contexts, pages and single rows.

If SQLite could choose another index, the query names its index, so that ANALYZE does not change the query's cost.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any
from uuid import UUID

from jimsapi.stores.sqlite.rows import ThreadRow, contact_of, id_text, thread_record, time_text
from jimsapi.threads.errors import InvalidCursor, RunNotFound, ThreadNotFound
from jimsapi.threads.event import TICK, Event, EventRow, id_beside
from jimsapi.threads.run import (
    ContextLimits,
    EventPage,
    EventRecord,
    FailureKind,
    RunStatus,
    Snapshot,
    StoredRun,
    ThreadPage,
    ThreadRecord,
)
from jimsapi.threads.search import NO_FILTER, ThreadFilter
from jimsapi.threads.store import decode_cursor, encode_cursor, take_page
from jimsapi.threads.transitions import may_see
from jimsapi.threads.window import choose, is_comm, window_size

_EVENT = "event_id, created_at, event_type, CAST(event_data AS BLOB)"
_THREAD = "thread_id, contact_id, created_at, CAST(thread_config AS BLOB)"
_NEWEST_FIRST = "ORDER BY created_at DESC, event_id DESC"

_ALL = f"""
    SELECT {_EVENT} FROM thread_events INDEXED BY jimsapi_events_order
    WHERE thread_id = ? ORDER BY created_at, event_id
"""
_NEWEST = f"""
    SELECT {_EVENT} FROM thread_events INDEXED BY jimsapi_events_order
    WHERE thread_id = ? {_NEWEST_FIRST} LIMIT ?
"""
_OLDER = f"""
    SELECT {_EVENT} FROM thread_events INDEXED BY jimsapi_events_order
    WHERE thread_id = ? AND (created_at, event_id) < (?, ?) {_NEWEST_FIRST} LIMIT ?
"""
_OLDER_COMM = f"""
    SELECT {_EVENT} FROM thread_events INDEXED BY jimsapi_events_comm
    WHERE thread_id = ? AND substr(event_type, 1, 5) = 'comm.' AND (created_at, event_id) < (?, ?)
    {_NEWEST_FIRST} LIMIT ?
"""
# Each step of the recursion seeks the next name after the last one. The cost does not depend on how often it was set.
_OLDER_STATES = f"""
    WITH RECURSIVE name(event_type) AS (
        SELECT (
            SELECT event_type FROM thread_events INDEXED BY jimsapi_events_state
            WHERE thread_id = :thread AND substr(event_type, 1, 10) = 'state.set.'
            ORDER BY event_type LIMIT 1
        )
        UNION ALL
        SELECT (
            SELECT event_type FROM thread_events INDEXED BY jimsapi_events_state
            WHERE thread_id = :thread AND substr(event_type, 1, 10) = 'state.set.' AND event_type > name.event_type
            ORDER BY event_type LIMIT 1
        )
        FROM name WHERE name.event_type IS NOT NULL
    ),
    newest(event_id) AS (
        SELECT (
            SELECT event_id FROM thread_events INDEXED BY jimsapi_events_state
            WHERE thread_id = :thread AND substr(event_type, 1, 10) = 'state.set.' AND event_type = name.event_type
            {_NEWEST_FIRST} LIMIT 1
        )
        FROM name WHERE name.event_type IS NOT NULL
    )
    SELECT {_EVENT.replace("event_id", "thread_events.event_id")}
    FROM newest CROSS JOIN thread_events
    WHERE thread_id = :thread AND thread_events.event_id = newest.event_id
        AND (created_at, thread_events.event_id) < (:created_at, :event_id)
    ORDER BY created_at DESC, thread_events.event_id DESC
"""
_HAS_MORE_THAN = """
    SELECT 1 FROM thread_events INDEXED BY jimsapi_events_order WHERE thread_id = ? LIMIT 1 OFFSET ?
"""
NEWEST_TIME = f"""
    SELECT created_at FROM thread_events INDEXED BY jimsapi_events_order
    WHERE thread_id = ? {_NEWEST_FIRST} LIMIT 1
"""
_PAGE = f"""
    SELECT {_EVENT} FROM thread_events INDEXED BY jimsapi_events_order
    WHERE thread_id = ? AND (created_at, event_id) > (?, ?) ORDER BY created_at, event_id LIMIT ?
"""
_FIRST_PAGE = f"{_ALL} LIMIT ?"
_BETWEEN = f"""
    SELECT {_EVENT} FROM thread_events INDEXED BY jimsapi_events_order
    WHERE thread_id = ? AND created_at BETWEEN ? AND ? ORDER BY created_at, event_id
"""
_EVENT_BY_ID = f"SELECT {_EVENT} FROM thread_events WHERE thread_id = ? AND event_id = ?"

_BY_ID = f"SELECT {_THREAD} FROM threads WHERE thread_id = ?"
_LATEST = f"""
    SELECT {_THREAD} FROM threads INDEXED BY jimsapi_threads_contact
    WHERE contact_id = ? ORDER BY created_at DESC, thread_id DESC LIMIT ?
"""
_IS_ARCHIVED = """
    EXISTS (SELECT 1 FROM jimsapi_threads f WHERE f.thread_id = threads.thread_id AND f.archived_at IS NOT NULL)
"""
_THREADS = f"""
    SELECT {_THREAD} FROM threads INDEXED BY jimsapi_threads_contact
    WHERE contact_id = ?1 AND (created_at, thread_id) < (?2, ?3) AND (?4 IS NULL OR {_IS_ARCHIVED} = ?4)
    ORDER BY created_at DESC, thread_id DESC LIMIT ?5
"""
_FORKS = f"""
    SELECT {", ".join(f"threads.{column}" for column in ("thread_id", "contact_id", "created_at"))},
        CAST(thread_config AS BLOB)
    FROM jimsapi_threads parents INDEXED BY jimsapi_threads_parent
    CROSS JOIN threads ON threads.thread_id = parents.thread_id
    WHERE contact_id = ?1 AND (created_at, threads.thread_id) < (?2, ?3) AND (?4 IS NULL OR {_IS_ARCHIVED} = ?4)
        AND parent_id = ?6
    ORDER BY created_at DESC, threads.thread_id DESC LIMIT ?5
"""
_METADATA = "SELECT metadata FROM jimsapi_threads WHERE thread_id = ?"
_LAST_THREAD = ("~", "")
"""A position after all threads: times are text that begins with the year. SQLite would compare a digit as a number."""
_BY_EXTERNAL_ID = f"""
    SELECT {_THREAD} FROM threads INDEXED BY jimsapi_threads_external
    WHERE external_id = ? ORDER BY created_at DESC LIMIT 1
"""

_RUN = """
    SELECT
        thread_id, status, created_new_thread, accepted_at, started_at, finished_at,
        error, failure, message_id, caller, streamed, restarts, sent_at, sent
    FROM jimsapi_runs WHERE run_id = ?
"""


def load_snapshot(connection: sqlite3.Connection, thread: str, limits: ContextLimits) -> Snapshot:
    """Return the context of a thread (32 hex digits). The cost depends on the limits, not on the thread's length."""
    if limits.events == 0:
        return Snapshot(event_rows(connection.execute(_ALL, (thread,)).fetchall()), False)
    size = window_size(limits)
    window = _read_within(connection, _NEWEST, (thread, size + 1), limits.bytes)
    seen = len(window)
    if seen <= size and _text_size(window) <= limits.bytes:
        window.reverse()
        return Snapshot(window, False)
    del window[size:]
    edge = (window[-1].created_at, window[-1].event_id)
    missing_comm = limits.events - sum(map(is_comm, window))
    older_comm: list[EventRow] = []
    if missing_comm > 0:
        older_comm = _read_within(connection, _OLDER_COMM, (thread, *edge, missing_comm), limits.bytes)
    states = {"thread": thread, "created_at": edge[0], "event_id": edge[1]}
    older_states = _read_within(connection, _OLDER_STATES, states, limits.bytes)
    rows = choose(window, older_comm, older_states, limits)
    more = len(rows) < seen or connection.execute(_HAS_MORE_THAN, (thread, len(rows))).fetchone() is not None
    return Snapshot(rows, more)


def newest_time(connection: sqlite3.Connection, thread: str) -> datetime | None:
    """Return the time of a thread's newest event."""
    row = connection.execute(NEWEST_TIME, (thread,)).fetchone()
    return None if row is None else datetime.fromisoformat(row[0])


def event_by_id(connection: sqlite3.Connection, thread: str, event_id: UUID) -> EventRow | None:
    """Return one event of a thread."""
    rows = event_rows(connection.execute(_EVENT_BY_ID, (thread, event_id.hex)).fetchall())
    return rows[0] if rows else None


def read_events_by_id(connection: sqlite3.Connection, thread_id: UUID, event_ids: Sequence[UUID]) -> list[EventRow]:
    """`ThreadStore.events_by_id`."""
    found = (event_by_id(connection, thread_id.hex, event_id) for event_id in event_ids)
    return [row for row in found if row is not None]


def message_by_id(connection: sqlite3.Connection, thread: str, message_id: UUID) -> list[EventRow]:
    """Return the events beside a message, then the message; an empty list if the thread does not have the message."""
    message = event_by_id(connection, thread, message_id)
    if message is None:
        return []
    rows: list[EventRow] = []
    while (row := event_by_id(connection, thread, id_beside(message_id, len(rows) + 1))) is not None:
        rows.append(row)
    return [*rows, message]


def oldest_event(connection: sqlite3.Connection, thread: str) -> list[EventRow]:
    """Return the thread's first event, if it has one."""
    return event_rows(connection.execute(_FIRST_PAGE, (thread, 1)).fetchall())


def thread_by_id(connection: sqlite3.Connection, thread: str) -> ThreadRow | None:
    """Return the thread with this identifier (32 hex digits)."""
    row: ThreadRow | None = connection.execute(_BY_ID, (thread,)).fetchone()
    return row


def latest_thread(connection: sqlite3.Connection, contact_id: str) -> ThreadRow | None:
    """Return the contact's newest thread."""
    row: ThreadRow | None = connection.execute(_LATEST, (contact_id, 1)).fetchone()
    return row


def thread_by_external_id(connection: sqlite3.Connection, external_id: str) -> ThreadRow | None:
    """Return the newest thread with this external identifier. Other JIMS programs may create several."""
    row: ThreadRow | None = connection.execute(_BY_EXTERNAL_ID, (external_id,)).fetchone()
    return row


def visible_thread(connection: sqlite3.Connection, thread_id: UUID, acting_for: str | None) -> ThreadRow:
    """Return a thread. Raises `ThreadNotFound` if it does not exist or the caller may not see it."""
    row = thread_by_id(connection, thread_id.hex)
    if row is None or not may_see(contact_of(row), acting_for):
        raise ThreadNotFound(thread_id)
    return row


def read_run(connection: sqlite3.Connection, run_id: UUID, acting_for: str | None, caller: UUID | None) -> StoredRun:
    """`ThreadStore.run`."""
    run = connection.execute(_RUN, (run_id.hex,)).fetchone()
    if run is None:
        raise RunNotFound(run_id)
    thread, status, created_new_thread, accepted_at, started_at, finished_at, error, failure, *more = run
    message_id, run_caller, streamed, restarts, *sent = more
    row = thread_by_id(connection, thread)
    if row is None or not may_see(contact_of(row), acting_for) or (caller is not None and run_caller != caller.hex):
        raise RunNotFound(run_id)
    return StoredRun(
        run_id=run_id,
        thread_id=UUID(id_text(row[0])),
        contact_id=row[1],
        status=RunStatus(status),
        created_new_thread=bool(created_new_thread),
        accepted_at=utc(accepted_at),
        started_at=started_at and utc(started_at),
        finished_at=finished_at and utc(finished_at),
        error=error,
        streamed=streamed,
        events=_sent_events(connection, thread, *sent),
        failure=failure and FailureKind(failure),
        message_id=UUID(message_id),
        restarts=restarts,
    )


def _sent_events(connection: sqlite3.Connection, thread: str, sent_at: str | None, sent: int) -> list[EventRecord]:
    """Return the events that a run sent, by their times. So events of other programs between them are not included."""
    if sent_at is None:
        return []
    first = datetime.fromisoformat(sent_at)
    times = [time_text(first + TICK * number) for number in range(sent)]
    rows = {row[1]: row for row in connection.execute(_BETWEEN, (thread, times[0], times[-1]))}
    return [_event_record(rows[time]) for time in times if time in rows]


def read_thread(connection: sqlite3.Connection, thread_id: UUID, acting_for: str | None) -> ThreadRecord:
    """`ThreadStore.thread`."""
    return thread_record(visible_thread(connection, thread_id, acting_for))


def read_threads(
    connection: sqlite3.Connection,
    contact_id: str,
    limit: int,
    after: str | None,
    archived: bool | None = None,
    only: ThreadFilter = NO_FILTER,
) -> ThreadPage:
    """`ThreadStore.threads`."""
    edge = _LAST_THREAD if after is None else _read_cursor("threads", after)
    most = -1 if only.metadata else limit + 1  # for SQLite, a negative limit means no limit
    rows: Iterable[ThreadRow]
    if only.parent is None:
        rows = connection.execute(_THREADS, (contact_id, *edge, archived, most))
    else:
        rows = connection.execute(_FORKS, (contact_id, *edge, archived, most, only.parent.hex))
    if only.metadata:
        rows = (row for row in rows if only.accepts_metadata(_metadata(connection, row)))
    page, more = take_page(rows, limit, itemgetter(3))
    return ThreadPage(
        [thread_record(row) for row in page],
        encode_cursor("threads", page[-1][2], id_text(page[-1][0])) if more else None,
    )


def _metadata(connection: sqlite3.Connection, thread: ThreadRow) -> str:
    row = connection.execute(_METADATA, (id_text(thread[0]),)).fetchone()
    return "{}" if row is None else str(row[0])


def read_events(
    connection: sqlite3.Connection, thread_id: UUID, acting_for: str | None, limit: int, after: str | None
) -> EventPage:
    """`ThreadStore.events`."""
    visible_thread(connection, thread_id, acting_for)
    if after is None:
        rows = connection.execute(_FIRST_PAGE, (thread_id.hex, limit + 1))
    else:
        rows = connection.execute(_PAGE, (thread_id.hex, *_read_cursor("events", after), limit + 1))
    page, more = take_page(rows, limit, itemgetter(3))
    return EventPage(
        [_event_record(row) for row in page],
        encode_cursor("events", page[-1][1], id_text(page[-1][0])) if more else None,
    )


def read_events_before(
    connection: sqlite3.Connection, thread_id: UUID, before: Event | None, limit: int
) -> list[EventRow]:
    """`ThreadStore.load_events`."""
    thread = thread_id.hex
    limit = max(0, limit)  # for SQLite, a negative limit means no limit
    if before is None:
        rows = connection.execute(_NEWEST, (thread, limit)).fetchall()
    else:
        # Other JIMS programs omit the fraction of whole seconds, so this compares with the stored text.
        stored = event_by_id(connection, thread, before.event_id)
        edge = time_text(before.created_at) if stored is None else stored.created_at
        rows = connection.execute(_OLDER, (thread, edge, before.event_id.hex, limit)).fetchall()
    rows.reverse()
    return event_rows(rows)


def _read_within(connection: sqlite3.Connection, query: str, parameters: Any, size: int) -> list[EventRow]:
    """Read rows until their JSON text exceeds `size` bytes; the row that exceeds it is the last."""
    rows: list[Any] = []
    cursor = connection.execute(query, parameters)
    for row in cursor:
        rows.append(row)
        if row[3] is not None:
            size -= len(row[3])
            if size < 0:
                break
    cursor.close()
    return event_rows(rows)


def event_rows(rows: list[Any]) -> list[EventRow]:
    """Return events from rows of `event_id, created_at, event_type, event_data`."""
    return [
        EventRow(event_id if event_id.__class__ is str else id_text(event_id), created_at, event_type, data)
        for event_id, created_at, event_type, data in rows
    ]


def _event_record(row: Any) -> EventRecord:
    event_id, created_at, event_type, data = row
    return EventRecord(UUID(id_text(event_id)), utc(created_at), event_type, data)


def utc(stored: str) -> datetime:
    """Return a stored time, which is in UTC, with its zone."""
    return datetime.fromisoformat(stored).replace(tzinfo=UTC)


def _text_size(rows: list[EventRow]) -> int:
    return sum([len(row.data) for row in rows if row.data])


def _read_cursor(kind: str, cursor: str) -> tuple[str, str]:
    found, created_at, row_id = decode_cursor(cursor, 3)
    if found != kind:
        raise InvalidCursor
    try:
        datetime.fromisoformat(created_at)
    except ValueError:
        raise InvalidCursor from None
    return created_at, row_id
