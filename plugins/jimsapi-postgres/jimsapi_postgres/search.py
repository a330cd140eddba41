"""Search in PostgreSQL, with an index of our own beside JIMS's tables, and filters of lists.

The index is brought up to date when somebody searches, and not when events are stored. So a chat does not pay for it,
and it also has the events of other JIMS programs. An index on `thread_events` itself could break their writes: JSON may
have characters that PostgreSQL refuses as text, and a text may have more words than a `tsvector` holds.
"""

import asyncio
from collections.abc import Iterable, Sequence
from datetime import datetime
from hashlib import blake2b
from typing import Any, NamedTuple
from uuid import UUID

from jimsapi.threads import (
    EventRow,
    InvalidCursor,
    SearchPage,
    SearchQuery,
    ThreadFilter,
    ThreadMatch,
    decode_cursor,
    encode_cursor,
    message_text,
    take_sized,
    words_of,
)
from jimsapi_postgres import rows
from jimsapi_postgres.connections import Connection

COMPARED_AT_ONCE = 1000
"""The most threads that one query compares with the index."""
THREADS_AT_ONCE, MESSAGES_AT_ONCE, BYTES_AT_ONCE = 100, 500, 1_048_576
"""The most threads and messages, and about the most bytes of messages, that one transaction adds to the index."""
FILTERED_AT_ONCE = 500
"""The threads that a filter by metadata reads in one query."""
FOUND_AT_ONCE = 1000
"""The threads that one query of the index returns."""
DETAILS_AT_ONCE = 50
"""The threads that one query reads with their messages, of which each may have a mebibyte."""
LAST_NUMBER = 2**62
MAX_POSITIONS = 255
"""The positions of one word in a message that a `tsvector` holds. Phrases later in the message may not be found."""

_EVENT = "e.event_id, e.created_at, e.event_type, e.event_data::json"
_THREAD = "t.thread_id, t.contact_id, t.created_at, t.thread_config::json"
_METADATA = "coalesce(f.metadata, '{}')"
_IS_LISTED = "($5::boolean IS NULL OR $5 = (f.archived_at IS NOT NULL)) AND ($6::uuid IS NULL OR f.parent_id = $6)"
# As a subquery with a limit, a join cannot read more than the rows that it needs.
_FACTS = """
    LEFT JOIN LATERAL (
        SELECT f.title, f.archived_at, f.metadata, f.parent_id FROM jimsapi_threads f
        WHERE f.thread_id = t.thread_id
        ORDER BY f.thread_id
        LIMIT 1
    ) f ON true
"""

_STALE = f"""
    SELECT t.created_at, t.thread_id, f.title, coalesce(i.until, '-infinity'), i.title, i.number, (
        SELECT true FROM thread_events e
        WHERE e.thread_id = t.thread_id AND substr(e.event_type, 1, 5) = 'comm.' AND e.created_at >= i.until
            AND (
                SELECT true FROM jimsapi_search s
                WHERE s.number = i.number AND s.at = e.created_at AND s.event_id = e.event_id
                LIMIT 1
            ) IS NULL
        ORDER BY e.created_at, e.event_id
        LIMIT 1
    )
    FROM (
        SELECT n.created_at, n.thread_id FROM threads n
        WHERE n.contact_id = $1 AND (n.created_at, n.thread_id) > ($2, $3)
        ORDER BY n.created_at, n.thread_id
        LIMIT $4
    ) t
    LEFT JOIN LATERAL (
        SELECT i.number, i.until, i.title FROM jimsapi_search_threads i
        WHERE i.thread_id = t.thread_id
        ORDER BY i.thread_id
        LIMIT 1
    ) i ON true
    {_FACTS}
    ORDER BY t.created_at, t.thread_id
"""
# The size of a row's text is known without fetching it.
_MISSING = f"""
    SELECT event_id, created_at, event_type, event_data, position < total FROM (
        SELECT n.*, row_number() OVER w AS position, sum(n.size) OVER w AS weight, count(*) OVER () AS total
        FROM (
            SELECT {_EVENT}, coalesce(pg_column_size(e.event_data), 0) AS size FROM thread_events e
            WHERE e.thread_id = $1 AND substr(e.event_type, 1, 5) = 'comm.' AND e.created_at >= $2
                AND (
                    SELECT true FROM jimsapi_search s
                    WHERE s.number = $3 AND s.at = e.created_at AND s.event_id = e.event_id
                    LIMIT 1
                ) IS NULL
            ORDER BY e.created_at, e.event_id
            LIMIT $4
        ) n
        WINDOW w AS (ORDER BY n.created_at, n.event_id ROWS UNBOUNDED PRECEDING)
    ) page
    WHERE position = 1 OR weight <= {BYTES_AT_ONCE}
    ORDER BY created_at, event_id
"""
_INDEXED = "SELECT i.number, i.until FROM jimsapi_search_threads i WHERE i.thread_id = $1 ORDER BY i.thread_id LIMIT 1"
_INDEX = "SELECT jimsapi_index($1, $2, $3, $4, $5, $6, $7, $8)"
_FIND = f"SELECT number, at FROM jimsapi_find($1, $2, {FOUND_AT_ONCE})"
_FOUND = f"""
    SELECT {_THREAD}, {_METADATA}, m.number, m.at, {_EVENT}
    FROM unnest($1::bigint[], $2::timestamp[]) WITH ORDINALITY m (number, at, position)
    JOIN LATERAL (
        SELECT i.thread_id FROM jimsapi_search_threads i WHERE i.number = m.number ORDER BY i.number LIMIT 1
    ) i ON true
    JOIN LATERAL (
        SELECT t.* FROM threads t WHERE t.thread_id = i.thread_id ORDER BY t.thread_id LIMIT 1
    ) t ON true
    {_FACTS}
    LEFT JOIN LATERAL (
        SELECT s.event_id FROM jimsapi_search s
        WHERE s.number = m.number AND s.at = m.at AND s.words @@ $4::text::tsquery
        ORDER BY s.number, s.at, s.event_id
        LIMIT 1
    ) x ON true
    LEFT JOIN LATERAL (
        SELECT e.* FROM thread_events e
        WHERE e.thread_id = t.thread_id AND e.event_id = x.event_id
        ORDER BY e.event_id
        LIMIT 1
    ) e ON true
    WHERE t.contact_id = $3 AND {_IS_LISTED} AND (m.at = '-infinity' OR e.event_id IS NOT NULL)
    ORDER BY m.position
"""
_FILTERED = f"""
    SELECT {_THREAD}, {_METADATA} FROM threads t {_FACTS}
    WHERE t.contact_id = $1 AND (t.created_at, t.thread_id) < ($2, $3) AND {_IS_LISTED}
    ORDER BY t.created_at DESC, t.thread_id DESC
    LIMIT $4
"""
_FORKS = f"""
    WITH forks AS MATERIALIZED (SELECT f.thread_id FROM jimsapi_threads f WHERE f.parent_id = $6 ORDER BY f.parent_id)
    SELECT {_THREAD}, {_METADATA} FROM forks
    JOIN LATERAL (
        SELECT t.* FROM threads t WHERE t.thread_id = forks.thread_id ORDER BY t.thread_id LIMIT 1
    ) t ON true
    {_FACTS}
    WHERE t.contact_id = $1 AND (t.created_at, t.thread_id) < ($2, $3) AND {_IS_LISTED}
    ORDER BY t.created_at DESC, t.thread_id DESC
    LIMIT $4
"""

Position = tuple[datetime, UUID]
"""The time and the identifier of a thread."""


class StaleThread(NamedTuple):
    """A thread that the index does not have as it is. `number` is that of the index; None if it does not have it.

    Events of the thread before `until` are in the index.
    """

    thread_id: UUID
    number: int | None
    title: str | None
    until: datetime


async def find_stale(
    contact_id: str, after: Position, connection: Connection
) -> tuple[Sequence[StaleThread], Position | None]:
    """Return those of the next threads of a contact that the index does not have as they are, in their order.

    Returns the position after these threads, too; None if they are the last ones.
    """
    found = await connection.fetch(_STALE, contact_id, *after, COMPARED_AT_ONCE)
    stale = [
        StaleThread(rows.as_uuid(thread_id), number, title, until)
        for _, thread_id, title, until, indexed_title, number, has_more in found
        if number is None or title != indexed_title or has_more
    ]
    return stale, (found[-1][0], rows.as_uuid(found[-1][1])) if len(found) == COMPARED_AT_ONCE else None


async def add_to_index(contact_id: str, stale: Sequence[StaleThread], connection: Connection) -> Sequence[StaleThread]:
    """Add messages of threads to the index, as many as one transaction may.

    Returns the threads that are left. The last thread that this call worked on is there again if it may have more.
    """
    contact = _lexeme(contact_id)
    threads: list[StaleThread] = []
    lasts: list[datetime | None] = []
    events: list[tuple[UUID, UUID, EventRow]] = []
    size, more = 0, False
    for thread in stale[:THREADS_AT_ONCE]:
        most = MESSAGES_AT_ONCE - len(events)
        if more or most <= 0 or size > BYTES_AT_ONCE:
            break
        found = await connection.fetch(_MISSING, thread.thread_id, thread.until, thread.number, most)
        for row in found:
            event = rows.event_row(row)
            size += len(event.data or b"")
            events.append((thread.thread_id, rows.as_uuid(row[0]), event))
        threads.append(thread)
        lasts.append(found[-1][1] if found else None)
        more = bool(found) and (found[-1][4] or len(found) == most)
    title_words = [None if one.title is None else f"{contact} {_vector(one.title)}" for one in threads]
    ids, titles = [one.thread_id for one in threads], [one.title for one in threads]
    # Not in the thread of the event loop: the words of long messages take a second.
    columns = await asyncio.to_thread(_columns, contact, events) if events else ((), (), (), ())
    await connection.execute(_INDEX, ids, titles, title_words, lasts, *columns)
    left = stale[len(threads) :]
    if not more:
        return left
    indexed = await connection.fetchrow(_INDEXED, threads[-1].thread_id)
    if indexed is None:  # the thread was deleted meanwhile
        return left
    return [threads[-1]._replace(number=indexed[0], until=indexed[1]), *left]


async def search(
    query: SearchQuery,
    contact_id: str,
    limit: int,
    before: int,
    archived: bool | None,
    only: ThreadFilter,
    connection: Connection,
) -> SearchPage:
    """Return what the index finds below the number `before` (`ThreadStore.search`)."""
    text = " & ".join([_lexeme(contact_id), *(f"({' <-> '.join(_quoted(phrase))})" for phrase in query.phrases)])
    listed: list[tuple[int, ThreadMatch]] = []
    while True:
        found = await connection.fetch(_FIND, text, before)
        at_once = min(limit + 1, DETAILS_AT_ONCE)
        for start in range(0, len(found), at_once):
            numbers, times = zip(*found[start : start + at_once], strict=True)
            details = await connection.fetch(
                _FOUND, list(numbers), list(times), contact_id, text, archived, only.parent
            )
            listed += [(row[5], _match(row)) for row in details if only.accepts_metadata(row[4])]
            page, more = take_sized(listed, limit, lambda item: item[1].size)
            if more:
                return SearchPage([match for _, match in page], encode_cursor("search", str(page[-1][0])))
        if len(found) < FOUND_AT_ONCE:
            return SearchPage([match for _, match in listed], None)
        before = found[-1][0]


def _match(row: Any) -> ThreadMatch:
    return ThreadMatch(rows.thread_record(*row[:4]), None if row[7] is None else rows.event_row(row[7:]))


async def filtered_threads(
    contact_id: str, edge: Position, most: int, archived: bool | None, only: ThreadFilter, connection: Connection
) -> list[Any]:
    """Return the rows of at most `most` threads of a contact after `edge`, newest first, that meet the conditions."""
    query = _FILTERED if only.parent is None else _FORKS
    at_once = FILTERED_AT_ONCE if only.metadata else most
    listed: list[Any] = []
    while len(listed) < most:
        found = await connection.fetch(query, contact_id, *edge, at_once, archived, only.parent)
        listed += [row for row in found if only.accepts_metadata(row[4])]
        if len(found) < at_once:
            break
        edge = found[-1][2], found[-1][0]
    return [row[:4] for row in listed[:most]]


def read_search_cursor(cursor: str) -> int:
    """Return the number in the cursor of a search. Raises `InvalidCursor`."""
    kind, number = decode_cursor(cursor, 2)
    if kind != "search" or not (number.isascii() and number.isdecimal()) or len(number) > 18:
        raise InvalidCursor
    return int(number)


def _lexeme(contact_id: str) -> str:
    """Return the word that stands for a contact in the index. No other word has the sign `=`."""
    return f"'={blake2b(contact_id.encode(), digest_size=8).hexdigest()}'"


def _vector(text: str) -> str:
    """Return the words of a text with their positions, as text for PostgreSQL. Words have no quotes."""
    positions: dict[str, list[str]] = {}
    for position, word in enumerate(words_of(text), 1):
        positions.setdefault(word, []).append(str(position))
    return " ".join(f"'{word}':{','.join(found[:MAX_POSITIONS])}" for word, found in positions.items())


def _quoted(words: Iterable[str]) -> Iterable[str]:
    return (f"'{word}'" for word in words)


def _columns(contact: str, events: Sequence[tuple[UUID, UUID, EventRow]]) -> Sequence[Sequence[Any]]:
    """Return what the index has of the messages `events` of threads: threads, identifiers, times and words."""
    return (
        [thread_id for thread_id, _, _ in events],
        [event_id for _, event_id, _ in events],
        [event.created_at for _, _, event in events],
        [f"{contact} {_vector(message_text(event) or '')}" for _, _, event in events],
    )
