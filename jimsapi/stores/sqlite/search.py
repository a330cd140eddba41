"""Search in an SQLite database, with an index of FTS5.

The index is brought up to date when somebody searches, and not when events are stored. So a chat does not pay for it,
threads of contacts that nobody searches are not in it, and it also gets the events of other JIMS programs. Triggers on
`thread_events` would break the writes of programs whose SQLite lacks FTS5.

Each thread in the index has a number, and the newest thread of a contact the greatest. A message has the rowid
`number * 2**24 + position`, and the title of the thread the position 0. So one step finds the newest match of the next
thread, whatever the number of matches before it.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from hashlib import blake2b
from typing import Any
from uuid import UUID

from jimsapi.stores.sqlite.facts import read_facts
from jimsapi.stores.sqlite.reads import event_by_id, thread_by_id
from jimsapi.stores.sqlite.rows import ThreadRow, contact_of, id_text, thread_record, time_text
from jimsapi.threads.errors import InvalidCursor, StoreLacks
from jimsapi.threads.event import EventRow, utc_now
from jimsapi.threads.search import SearchPage, SearchQuery, ThreadFilter, ThreadMatch, message_text, words_of
from jimsapi.threads.store import decode_cursor, encode_cursor, take_sized

SETTLED_AFTER = timedelta(minutes=1)
"""Events that are newer than this are compared with the index one by one, since another program may store an event
after one with a later time."""
COMPARED_AT_ONCE = 1000
"""The most threads that one read compares with the index."""
MESSAGES_AT_ONCE, BYTES_AT_ONCE = 500, 1_048_576
"""The most messages, and about the most bytes of them and their words, that one transaction adds to the index."""

_POSITIONS = 24
"""The number of bits of a position."""
_LAST_NUMBER = 1 << (62 - _POSITIONS)

# The tokenizer `ascii` splits nothing that `words_of` has not split, and changes none of its words.
_CREATE = """
    CREATE VIRTUAL TABLE jimsapi_search
    USING fts5(contact, words, event_id UNINDEXED, columnsize = 0, tokenize = 'ascii')
"""
# Otherwise the words of deleted messages stay in the file until FTS5 merges its segments. SQLite has it since 3.42.
_DELETE_FOR_GOOD = "INSERT INTO jimsapi_search (jimsapi_search, rank) VALUES ('secure-delete', 1)"
_EXISTS = "SELECT 1 FROM sqlite_schema WHERE name = 'jimsapi_search'"
_ADD = "INSERT INTO jimsapi_search (rowid, contact, words, event_id) VALUES (?, ?, ?, ?)"
_REMOVE = "DELETE FROM jimsapi_search WHERE rowid >= ? AND rowid < ?"
_NEXT_MATCH = """
    SELECT rowid, event_id FROM jimsapi_search WHERE jimsapi_search MATCH ? AND rowid < ? ORDER BY rowid DESC LIMIT 1
"""
_THREADS_AFTER = """
    SELECT created_at, thread_id FROM threads INDEXED BY jimsapi_threads_contact
    WHERE contact_id = ? AND (created_at, thread_id) > (?, ?) ORDER BY created_at, thread_id LIMIT ?
"""
_INDEXED = """
    SELECT number, messages, until, recent, title, (SELECT title FROM jimsapi_threads WHERE thread_id = ?1)
    FROM jimsapi_search_threads WHERE thread_id = ?1
"""
_INSERT_THREAD = """
    INSERT INTO jimsapi_search_threads (thread_id, number, messages, until, recent, title)
    SELECT ?, coalesce(max(number), 0) + 1, 0, '', '', NULL FROM jimsapi_search_threads
"""
_UPDATE_THREAD = """
    UPDATE jimsapi_search_threads SET messages = ?, until = ?, recent = ?, title = ? WHERE thread_id = ?
"""
_SINCE = """
    FROM thread_events INDEXED BY jimsapi_events_comm
    WHERE thread_id = ? AND substr(event_type, 1, 5) = 'comm.' AND created_at >= ?
    ORDER BY created_at, event_id
"""
_HAS_MORE_SINCE = f"SELECT 1 {_SINCE} LIMIT 1 OFFSET ?"
_MESSAGES_SINCE = f"SELECT event_id, created_at, event_type, CAST(event_data AS BLOB) {_SINCE}"

Position = tuple[Any, Any]
"""The time and the identifier of a thread, as they are stored."""
FIRST: Position = ("", "")


def find_stale(connection: sqlite3.Connection, contact_id: str, after: Position) -> tuple[list[str], Position | None]:
    """Return those of the next threads of a contact that the index does not have as they are, in their order.

    Returns the position after these threads, too; None if they are the last ones.
    """
    rows = connection.execute(_THREADS_AFTER, (contact_id, *after, COMPARED_AT_ONCE)).fetchall()
    threads = (id_text(thread) for _, thread in rows)
    stale = [thread for thread in threads if _is_stale(connection, thread)]
    return stale, rows[-1] if len(rows) == COMPARED_AT_ONCE else None


def _is_stale(connection: sqlite3.Connection, thread: str) -> bool:
    indexed = connection.execute(_INDEXED, (thread,)).fetchone()
    if indexed is None:
        return True
    _, _, until, recent, title, title_now = indexed
    return title != title_now or (
        connection.execute(_HAS_MORE_SINCE, (thread, until, len(recent.split()))).fetchone() is not None
    )


def add_to_index(connection: sqlite3.Connection, contact_id: str, threads: Sequence[str]) -> Sequence[str]:
    """Bring the index of threads up to date, as far as one transaction may. Returns the threads that are left."""
    try:
        if connection.execute(_EXISTS).fetchone() is None:
            connection.execute(_CREATE)
            with suppress(sqlite3.OperationalError):
                connection.execute(_DELETE_FOR_GOOD)
    except sqlite3.OperationalError as error:
        if "no such module" not in str(error):
            raise
        raise StoreLacks("SQLite", "search, since Python's SQLite was built without FTS5") from error
    left = MESSAGES_AT_ONCE
    for number, thread in enumerate(threads):
        added = _add_thread(connection, contact_id, thread, left)
        if added is None:
            return threads[number:]
        left -= added + 1
    return ()


def _add_thread(connection: sqlite3.Connection, contact_id: str, thread: str, limit: int) -> int | None:
    """Add the messages of a thread that the index lacks. Returns their number; None if `limit` of them were not all."""
    if limit <= 0:
        return None
    if thread_by_id(connection, thread) is None:  # deleted meanwhile
        forget(connection, thread)
        return 0
    if connection.execute(_INDEXED, (thread,)).fetchone() is None:
        connection.execute(_INSERT_THREAD, (thread,))
    number, messages, until, recent_text, title, title_now = connection.execute(_INDEXED, (thread,)).fetchone()
    first, contact = number << _POSITIONS, _digest(contact_id)
    if title != title_now:
        connection.execute(_REMOVE, (first, first + 1))
        if title_now is not None:
            connection.execute(_ADD, (first, contact, " ".join(words_of(title_now)), None))
    recent = dict.fromkeys(recent_text.split(), until)
    added, size, more = 0, 0, False
    last = until
    rows = connection.execute(_MESSAGES_SINCE, (thread, until))
    for event_id, created_at, event_type, data in rows:
        event = id_text(event_id)
        if event in recent:
            recent[event] = created_at
            continue
        if added == limit or size > BYTES_AT_ONCE:
            more = True
            break
        text = message_text(EventRow(event, created_at, event_type, data))
        messages, added, size = messages + 1, added + 1, size + len(data or b"")
        recent[event] = last = created_at
        if text and messages < 1 << _POSITIONS:
            words = " ".join(words_of(text))
            size += len(words)  # it may be longer than the message
            connection.execute(_ADD, (first + messages, contact, words, event))
    rows.close()
    until = max(until, min(last, time_text(utc_now() - SETTLED_AFTER)))
    kept = " ".join(event for event, created_at in recent.items() if created_at >= until)
    connection.execute(_UPDATE_THREAD, (messages, until, kept, title_now, thread))
    return None if more else added


def forget(connection: sqlite3.Connection, thread: str) -> None:
    """Remove a thread (32 hex digits) from the index, if it is there."""
    indexed = connection.execute("SELECT number FROM jimsapi_search_threads WHERE thread_id = ?", (thread,)).fetchone()
    if indexed is not None:
        [number] = indexed
        connection.execute(_REMOVE, (number << _POSITIONS, (number + 1) << _POSITIONS))
        connection.execute("DELETE FROM jimsapi_search_threads WHERE thread_id = ?", (thread,))


def search(
    connection: sqlite3.Connection,
    query: SearchQuery,
    contact_id: str,
    limit: int,
    after: str | None,
    archived: bool | None,
    only: ThreadFilter,
) -> SearchPage:
    """Return what the index finds (`ThreadStore.search`)."""
    before = _LAST_NUMBER if after is None else _read_cursor(after)
    if connection.execute(_EXISTS).fetchone() is None:
        return SearchPage([], None)
    found = (
        (number, ThreadMatch(thread_record(row), event))
        for number, row, event in _matches(connection, query, contact_id, before)
        if only.accepts(read_facts(connection, id_text(row[0])), archived)
    )
    page, more = take_sized(found, limit, lambda item: item[1].size)
    return SearchPage([match for _, match in page], encode_cursor("search", str(page[-1][0])) if more else None)


def _matches(
    connection: sqlite3.Connection, query: SearchQuery, contact_id: str, before: int
) -> Iterator[tuple[int, ThreadRow, EventRow | None]]:
    """Yield the number and the row of each thread that matches, newest first, and its newest message that matches."""
    words = " AND ".join(f'"{" ".join(phrase)}"' for phrase in query.phrases)
    expression = f'contact : "{_digest(contact_id)}" AND words : ({words})'
    edge = before << _POSITIONS
    while (found := connection.execute(_NEXT_MATCH, (expression, edge)).fetchone()) is not None:
        edge, event_id = found
        number = edge >> _POSITIONS
        indexed = connection.execute(
            "SELECT thread_id FROM jimsapi_search_threads WHERE number = ?", (number,)
        ).fetchone()
        row = None if indexed is None else thread_by_id(connection, indexed[0])
        if row is None or contact_of(row) != contact_id:  # another program deleted or changed it
            edge = number << _POSITIONS
            continue
        event = None if event_id is None else event_by_id(connection, indexed[0], UUID(event_id))
        if event_id is None or event is not None:
            yield number, row, event
            edge = number << _POSITIONS


def _digest(contact_id: str) -> str:
    """Return the word that stands for a contact in the index."""
    return blake2b(contact_id.encode(), digest_size=8).hexdigest()


def _read_cursor(cursor: str) -> int:
    kind, number = decode_cursor(cursor, 2)
    if kind != "search" or not (number.isascii() and number.isdecimal()) or len(number) > 12:
        raise InvalidCursor
    return min(int(number), _LAST_NUMBER)
