"""The lists of runs and of contacts.

No index is for these lists alone, so a chat does not pay for them. The primary key of the runs has their order, and the
indexes that runs need anyway find the open ones, and those of a thread and of a contact. Only a list of runs that ended
in some way, or those of a thread or contact with more runs than that, examines others, so a page examines at most
`RUNS_EXAMINED`.
"""

from typing import Any

from jimsapi.threads import (
    ContactPage,
    ContactRecord,
    FailureKind,
    ListedRun,
    RunFilter,
    RunPage,
    RunStatus,
    decode_contact_cursor,
    decode_id_cursor,
    encode_contact_cursor,
    encode_id_cursor,
)
from jimsapi_postgres import rows
from jimsapi_postgres.connections import Connection

RUNS_EXAMINED = 10_000
"""The most runs that a page examines."""

_OPEN = (RunStatus.QUEUED, RunStatus.RUNNING)

# Each fits one index. `$1` is the thread or the contact.
_NEWEST = "SELECT r.* FROM jimsapi_runs r WHERE $1::uuid IS NULL"
_ALL_OPEN = "SELECT r.* FROM jimsapi_runs r WHERE $1::uuid IS NULL AND r.finished_at IS NULL"
_OF_THREAD = """
    SELECT r.* FROM jimsapi_runs r WHERE r.thread_id = $1::uuid AND r.finished_at IS NULL
    UNION ALL
    SELECT r.* FROM jimsapi_runs r WHERE r.thread_id = $1::uuid AND r.finished_at IS NOT NULL
"""
_OF_CONTACT = """
    SELECT r.* FROM jimsapi_runs r
    WHERE r.thread_id = ANY (ARRAY(SELECT t.thread_id FROM threads t WHERE t.contact_id = $1::text))
        AND r.finished_at IS NULL
    UNION ALL
    SELECT r.* FROM jimsapi_runs r
    WHERE r.thread_id = ANY (ARRAY(SELECT t.thread_id FROM threads t WHERE t.contact_id = $1::text))
        AND r.finished_at IS NOT NULL
"""
_COUNT = f"SELECT count(*) FROM (SELECT FROM ({{source}}) e LIMIT {RUNS_EXAMINED + 1}) counted"
# The result has a row without a run if the list has none, since the last run that was examined is needed, too. A run
# of which another program has deleted the thread is left out.
_RUNS = f"""
    WITH examined AS MATERIALIZED (
        SELECT e.run_id, e.thread_id, e.status, e.accepted_at, e.started_at, e.finished_at, e.failure, e.caller
        FROM ({{source}}) e
        WHERE e.run_id >= $2 AND e.run_id < $3
        ORDER BY e.run_id DESC
        LIMIT {RUNS_EXAMINED + 1}
    )
    SELECT
        (SELECT x.run_id FROM examined x ORDER BY x.run_id DESC LIMIT 1 OFFSET {RUNS_EXAMINED - 1}) AS last,
        (SELECT count(*) FROM examined) > {RUNS_EXAMINED} AS more,
        f.*
    FROM (SELECT) one LEFT JOIN LATERAL (
        SELECT
            x.run_id, x.thread_id, t.contact_id, x.status, x.accepted_at, x.started_at, x.finished_at, x.failure
        FROM (SELECT * FROM examined ORDER BY run_id DESC LIMIT {RUNS_EXAMINED}) x
        JOIN LATERAL (
            SELECT t.contact_id FROM threads t WHERE t.thread_id = x.thread_id ORDER BY t.thread_id LIMIT 1
        ) t ON true
        WHERE x.status = ANY ($4::text[])
            AND ($5::timestamptz IS NULL OR x.accepted_at >= $5) AND ($6::timestamptz IS NULL OR x.accepted_at < $6)
            AND ($7::text IS NULL OR t.contact_id = $7) AND ($8::text IS NULL OR t.contact_id = $8)
            AND ($10::uuid IS NULL OR x.thread_id = $10) AND ($11::uuid IS NULL OR x.caller = $11)
        ORDER BY x.run_id DESC
        LIMIT $9
    ) f ON true
    ORDER BY f.run_id DESC
"""
_CONTACTS = """
    WITH RECURSIVE page AS (
        SELECT 1 AS position, (
            SELECT t.contact_id FROM threads t WHERE {first} ORDER BY t.contact_id LIMIT 1
        ) AS contact_id
        UNION ALL
        SELECT page.position + 1, (
            SELECT t.contact_id FROM threads t WHERE t.contact_id > page.contact_id ORDER BY t.contact_id LIMIT 1
        )
        FROM page WHERE page.contact_id IS NOT NULL AND page.position < $2
    )
    SELECT page.contact_id, c.threads, c.active_at AT TIME ZONE current_setting('TimeZone')
    FROM page CROSS JOIN LATERAL (
        SELECT count(*) AS threads, max((
            SELECT e.created_at FROM thread_events e WHERE e.thread_id = t.thread_id
            ORDER BY e.created_at DESC, e.event_id DESC
            LIMIT 1
        )) AS active_at
        FROM threads t WHERE t.contact_id = page.contact_id
    ) c
    WHERE page.contact_id IS NOT NULL
    ORDER BY page.position
"""
_FIRST_CONTACTS = _CONTACTS.format(first="$1::text IS NULL AND t.contact_id IS NOT NULL")
_NEXT_CONTACTS = _CONTACTS.format(first="t.contact_id > $1")
_OWN_CONTACT = _CONTACTS.format(first="t.contact_id = $1")


async def read_runs(
    acting_for: str | None, limit: int, after: str | None, only: RunFilter, connection: Connection
) -> RunPage:
    """Return a page of runs (`ThreadStore.runs`). It does not check whether there is a thread `only.thread_id`."""
    least, edge = only.id_range()
    if after is not None:
        edge = min(edge, decode_id_cursor("runs", after))
    query, subject = await _source(acting_for, only, connection)
    found = await connection.fetch(
        _RUNS.format(source=query),
        subject,
        least,
        edge,
        [status.value for status in only.statuses or RunStatus],
        only.accepted_from,
        only.accepted_before,
        acting_for,
        only.contact_id,
        limit + 1,
        only.thread_id,
        only.caller,
    )
    last, more = found[0][:2]
    listed = [_run(row[2:]) for row in found if row[2] is not None]
    if len(listed) > limit:
        return RunPage(listed[:limit], encode_id_cursor("runs", listed[limit - 1].run_id))
    return RunPage(listed, encode_id_cursor("runs", last) if more else None)


async def _source(acting_for: str | None, only: RunFilter, connection: Connection) -> tuple[str, Any]:
    """Return the query that examines the fewest runs, and the thread or contact in it."""
    contact_id = only.contact_id if acting_for is None else acting_for
    query, subject = (_OF_THREAD, only.thread_id) if only.thread_id is not None else (_OF_CONTACT, contact_id)
    # No index has the runs of a thread in their order, so these queries read and sort all of them.
    if subject is not None and await connection.fetchval(_COUNT.format(source=query), subject) <= RUNS_EXAMINED:
        return query, subject
    if only.statuses and all(status in _OPEN for status in only.statuses):
        return _ALL_OPEN, None
    return _NEWEST, None


def _run(row: Any) -> ListedRun:
    run_id, thread_id, contact_id, status, accepted_at, started_at, finished_at, failure = row
    return ListedRun(
        rows.as_uuid(run_id),
        rows.as_uuid(thread_id),
        contact_id,
        RunStatus(status),
        accepted_at,
        started_at,
        finished_at,
        None if failure is None else FailureKind(failure),
    )


async def read_contacts(acting_for: str | None, limit: int, after: str | None, connection: Connection) -> ContactPage:
    """Return a page of contacts in the order of the database (`ThreadStore.contacts`)."""
    edge = None if after is None else decode_contact_cursor(after)
    if acting_for is not None:
        found = await connection.fetch(_OWN_CONTACT, acting_for, 1) if edge is None or acting_for > edge else []
    else:
        found = await connection.fetch(_FIRST_CONTACTS if edge is None else _NEXT_CONTACTS, edge, limit + 1)
    page = [ContactRecord(contact_id, threads, active_at) for contact_id, threads, active_at in found[:limit]]
    return ContactPage(page, encode_contact_cursor(page[-1].contact_id) if len(found) > limit else None)
