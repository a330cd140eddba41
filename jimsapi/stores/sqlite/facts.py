"""The facts of threads in an SQLite database, and forks: threads that begin as others do."""

import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from jimsapi.stores.sqlite.outbox import add_thread_to_outbox
from jimsapi.stores.sqlite.reads import (
    NEWEST_TIME,
    event_by_id,
    event_rows,
    latest_thread,
    thread_by_id,
    utc,
    visible_thread,
)
from jimsapi.stores.sqlite.rows import contact_of, id_hex, id_text, thread_record, time_text
from jimsapi.threads.errors import EventNotFound
from jimsapi.threads.event import USER_MESSAGE, EventRow, time_after, utc_now
from jimsapi.threads.facts import (
    MAX_FORKS,
    MAX_QUESTIONS,
    NO_FACTS,
    OPENING,
    Feedback,
    ForkPlan,
    Parent,
    Rating,
    ThreadChange,
    ThreadFacts,
    ThreadSummary,
)
from jimsapi.threads.questions import count_open
from jimsapi.threads.run import ThreadRecord
from jimsapi.threads.transitions import changed_facts

_FACTS = "SELECT title, archived_at, metadata, parent_id, parent_event_id FROM jimsapi_threads WHERE thread_id = ?"
_STORE_FACTS = """
    INSERT OR REPLACE INTO jimsapi_threads (thread_id, title, archived_at, metadata, parent_id, parent_event_id)
    VALUES (?, ?, ?, ?, ?, ?)
"""
_RATE = """
    INSERT OR REPLACE INTO jimsapi_feedback (thread_id, event_id, rating, comment, given_at) VALUES (?, ?, ?, ?, ?)
"""
_FEEDBACK = """
    SELECT f.event_id, f.rating, f.comment, f.given_at
    FROM jimsapi_feedback f CROSS JOIN thread_events e ON e.thread_id = f.thread_id AND e.event_id = f.event_id
    WHERE f.thread_id = ? AND (e.created_at, e.event_id) > (?, ?) ORDER BY e.created_at, e.event_id LIMIT ?
"""
_POSITION = "SELECT created_at, event_id FROM thread_events WHERE thread_id = ? AND event_id = ?"
_LAST_UNTIL = """
    SELECT created_at, event_id FROM thread_events INDEXED BY jimsapi_events_order
    WHERE thread_id = ? AND (created_at, event_id) {comparison} (?, ?)
    ORDER BY created_at DESC, event_id DESC LIMIT 1
"""
_LAST = """
    SELECT created_at, event_id FROM thread_events INDEXED BY jimsapi_events_order
    WHERE thread_id = ? ORDER BY created_at DESC, event_id DESC LIMIT 1
"""
_COPY_THREAD = """
    INSERT INTO threads (thread_id, contact_id, external_id, created_at, thread_config)
    SELECT ?, contact_id, CASE WHEN ? THEN external_id END, ?, thread_config FROM threads WHERE thread_id = ?
"""
_COPY_EVENTS = """
    INSERT INTO thread_events
        (thread_id, event_id, created_at, event_type, event_domain, event_name, event_data)
    SELECT ?, event_id, created_at, event_type, event_domain, event_name, event_data
    FROM thread_events INDEXED BY jimsapi_events_order
    WHERE thread_id = ? AND (created_at, event_id) <= (?, ?)
    ORDER BY created_at, event_id
"""
_NEWEST_COMM = """
    SELECT event_id, created_at, event_type, CAST(event_data AS BLOB)
    FROM thread_events INDEXED BY jimsapi_events_comm
    WHERE thread_id = ? AND substr(event_type, 1, 5) = 'comm.'
    ORDER BY created_at DESC, event_id DESC LIMIT 1
"""
# `transitions.opening_message`
_FIRST_COMM = f"""
    SELECT e.event_id, e.created_at, e.event_type, CAST(e.event_data AS BLOB)
    FROM (
        SELECT thread_id, event_id FROM (
            SELECT thread_id, event_id, created_at, event_type
            FROM thread_events INDEXED BY jimsapi_events_comm
            WHERE thread_id = ? AND substr(event_type, 1, 5) = 'comm.'
            ORDER BY created_at, event_id LIMIT {OPENING}
        )
        ORDER BY event_type <> '{USER_MESSAGE}', created_at, event_id LIMIT 1
    ) f
    CROSS JOIN thread_events e ON e.thread_id = f.thread_id AND e.event_id = f.event_id
"""
_COUNT_FORKS = f"""
    SELECT count(*) FROM (
        SELECT 1 FROM jimsapi_threads INDEXED BY jimsapi_threads_parent WHERE parent_id = ? LIMIT {MAX_FORKS}
    )
"""
_NEWEST_QUESTIONS = f"""
    SELECT event_id, created_at, event_type, CAST(event_data AS BLOB)
    FROM thread_events INDEXED BY jimsapi_events_asked
    WHERE thread_id = ? AND event_type = 'question.asked'
    ORDER BY created_at DESC, event_id DESC LIMIT {MAX_QUESTIONS}
"""


def fork(connection: sqlite3.Connection, plan: ForkPlan) -> ThreadRecord:
    """`ThreadStore.fork`."""
    thread = id_hex(plan.thread_id)
    earlier = thread_by_id(connection, thread)
    if earlier is not None:
        return thread_record(earlier)
    parent_row = visible_thread(connection, plan.parent_id, plan.acting_for)
    parent = id_hex(plan.parent_id)
    end = _last_copied(connection, parent, plan)
    contact_id = contact_of(parent_row)
    newest = None if contact_id is None else latest_thread(connection, contact_id)
    created_at = time_after(None if newest is None else datetime.fromisoformat(newest[2]), datetime.now())
    connection.execute(_COPY_THREAD, (thread, plan.keeps_external_id, time_text(created_at), parent))
    connection.execute(_COPY_EVENTS, (thread, parent, *end))
    add_thread_to_outbox(connection, thread)
    facts = read_facts(connection, parent)
    store_facts(
        connection, thread, ThreadFacts(metadata=facts.metadata, parent=Parent(plan.parent_id, UUID(id_text(end[1]))))
    )
    copied = thread_by_id(connection, thread)
    assert copied is not None
    return thread_record(copied)


def _last_copied(connection: sqlite3.Connection, parent: str, plan: ForkPlan) -> tuple[str, Any]:
    """Return the position of the last event of the parent that the fork has: its time and identifier as stored."""
    if plan.event_id is None:
        found = connection.execute(_LAST, (parent,)).fetchone()
    else:
        edge = connection.execute(_POSITION, (parent, id_hex(plan.event_id))).fetchone()
        if edge is None:
            raise EventNotFound(plan.event_id)
        comparison = "<" if plan.before else "<="
        found = connection.execute(_LAST_UNTIL.format(comparison=comparison), (parent, *edge)).fetchone()
    if found is None:
        raise EventNotFound
    position: tuple[str, Any] = found
    return position


def change_thread(
    connection: sqlite3.Connection, thread_id: UUID, acting_for: str | None, change: ThreadChange
) -> ThreadFacts:
    """`ThreadStore.change_thread`."""
    visible_thread(connection, thread_id, acting_for)
    thread = id_hex(thread_id)
    facts = changed_facts(read_facts(connection, thread), change, utc_now().replace(tzinfo=UTC))
    store_facts(connection, thread, facts)
    return facts


def read_facts(connection: sqlite3.Connection, thread: str) -> ThreadFacts:
    """Return the facts of a thread (32 hex digits)."""
    row = connection.execute(_FACTS, (thread,)).fetchone()
    if row is None:
        return NO_FACTS
    title, archived_at, metadata, parent_id, parent_event_id = row
    parent = None if parent_id is None else Parent(UUID(parent_id), UUID(parent_event_id))
    return ThreadFacts(title, archived_at and utc(archived_at), metadata, parent)


def rate(
    connection: sqlite3.Connection, thread_id: UUID, acting_for: str | None, event_id: UUID, rating: Rating | None
) -> None:
    """`ThreadStore.rate`."""
    visible_thread(connection, thread_id, acting_for)
    thread, event = id_hex(thread_id), id_hex(event_id)
    if connection.execute(_POSITION, (thread, event)).fetchone() is None:
        raise EventNotFound(event_id)
    if rating is None:
        connection.execute("DELETE FROM jimsapi_feedback WHERE thread_id = ? AND event_id = ?", (thread, event))
    else:
        connection.execute(_RATE, (thread, event, rating.rating, rating.comment, time_text(utc_now())))


def read_feedback(
    connection: sqlite3.Connection, thread_id: UUID, acting_for: str | None, limit: int | None, after: UUID | None
) -> list[Feedback]:
    """`ThreadStore.feedback`."""
    visible_thread(connection, thread_id, acting_for)
    position: Sequence[Any] = ("", "")
    if after is not None:
        found = connection.execute(_POSITION, (id_hex(thread_id), id_hex(after))).fetchone()
        if found is None:
            raise EventNotFound(after)
        position = found
    rows = connection.execute(_FEEDBACK, (id_hex(thread_id), *position, -1 if limit is None else limit)).fetchall()
    return [
        Feedback(UUID(event_id), Rating(rating, comment), utc(given_at)) for event_id, rating, comment, given_at in rows
    ]


def read_summaries(connection: sqlite3.Connection, thread_ids: Sequence[UUID]) -> list[ThreadSummary]:
    """`ThreadStore.summaries`."""
    return [_summary(connection, id_hex(thread_id)) for thread_id in thread_ids]


def _summary(connection: sqlite3.Connection, thread: str) -> ThreadSummary:
    newest = connection.execute(NEWEST_TIME, (thread,)).fetchone()
    return ThreadSummary(
        read_facts(connection, thread),
        _message(connection, _FIRST_COMM, thread),
        _message(connection, _NEWEST_COMM, thread),
        None if newest is None else utc(newest[0]),
        connection.execute(_COUNT_FORKS, (thread,)).fetchone()[0],
        _open_questions(connection, thread),
    )


def _open_questions(connection: sqlite3.Connection, thread: str) -> int:
    asked = event_rows(connection.execute(_NEWEST_QUESTIONS, (thread,)).fetchall())
    return (
        count_open(asked, lambda event_id: event_by_id(connection, thread, event_id) is not None, datetime.now(UTC))
        if asked
        else 0
    )


def _message(connection: sqlite3.Connection, query: str, thread: str) -> EventRow | None:
    rows = event_rows(connection.execute(query, (thread,)).fetchall())
    return rows[0] if rows else None


def store_facts(connection: sqlite3.Connection, thread: str, facts: ThreadFacts) -> None:
    """Store the facts of a thread (32 hex digits), in place of the earlier ones."""
    archived_at = facts.archived_at and time_text(facts.archived_at.replace(tzinfo=None))
    metadata = facts.metadata if isinstance(facts.metadata, str) else facts.metadata.decode()
    parent = (None, None) if facts.parent is None else (facts.parent.thread_id.hex, facts.parent.event_id.hex)
    connection.execute(_STORE_FACTS, (thread, facts.title, archived_at, metadata, *parent))
