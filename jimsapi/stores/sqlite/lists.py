"""The lists of runs and of contacts in an SQLite database.

No index is for these lists alone, so a chat does not pay for them. The primary key of the runs has their order, and the
indexes that runs need anyway find the open ones, and those of a thread and of a contact. Only a list of runs that ended
in some way, or those of a contact with very many threads, examines others, so a page examines at most `RUNS_EXAMINED`.
"""

import heapq
import sqlite3
from collections.abc import Iterable
from itertools import islice
from typing import Any
from uuid import UUID

from jimsapi.stores.sqlite.reads import thread_by_id, utc, visible_thread
from jimsapi.stores.sqlite.rows import contact_of, id_text, time_text
from jimsapi.threads.run import (
    OPEN,
    ContactPage,
    ContactRecord,
    FailureKind,
    ListedRun,
    RunFilter,
    RunPage,
    RunStatus,
)
from jimsapi.threads.store import (
    decode_contact_cursor,
    decode_id_cursor,
    encode_contact_cursor,
    encode_id_cursor,
)
from jimsapi.threads.transitions import may_see

RUNS_EXAMINED = 10_000
"""The most runs that a page examines, since other reads wait meanwhile: about 20 ms."""

THREADS_MERGED = 1000
"""The most threads of a contact whose runs are read thread by thread, each with a statement of its own: about 20 ms."""

_COLUMNS = "run_id, r.thread_id, status, accepted_at, started_at, finished_at, failure, caller"
_RANGE = "run_id >= ?2 AND run_id < ?3 ORDER BY run_id DESC LIMIT ?4"
_NEWEST = f"SELECT {_COLUMNS} FROM jimsapi_runs r WHERE ?1 IS NULL AND {_RANGE}"
_OPEN = f"""
    SELECT {_COLUMNS} FROM (
        SELECT * FROM jimsapi_runs INDEXED BY jimsapi_runs_running WHERE status = 'running'
        UNION ALL
        SELECT * FROM jimsapi_runs INDEXED BY jimsapi_runs_waiting WHERE status = 'queued'
    ) r
    WHERE ?1 IS NULL AND {_RANGE}
"""
_OF_THREAD = f"""
    SELECT {_COLUMNS} FROM jimsapi_runs r INDEXED BY jimsapi_runs_thread WHERE thread_id = ?1 AND {_RANGE}
"""
_THREADS_OF_CONTACT = "SELECT thread_id FROM threads INDEXED BY jimsapi_threads_contact WHERE contact_id = ?"
_FIRST_CONTACT = """
    SELECT contact_id FROM threads INDEXED BY jimsapi_threads_contact
    WHERE contact_id >= ? ORDER BY contact_id LIMIT 1
"""
_NEXT_CONTACT = _FIRST_CONTACT.replace(">=", ">")
_CONTACT = """
    SELECT count(*), max((
        SELECT e.created_at FROM thread_events e INDEXED BY jimsapi_events_order
        WHERE e.thread_id = t.thread_id ORDER BY e.created_at DESC, e.event_id DESC LIMIT 1
    ))
    FROM threads t INDEXED BY jimsapi_threads_contact WHERE contact_id = ?
"""


def read_runs(
    connection: sqlite3.Connection, acting_for: str | None, limit: int, after: str | None, only: RunFilter
) -> RunPage:
    """`ThreadStore.runs`."""
    if only.thread_id is not None:
        visible_thread(connection, only.thread_id, acting_for)
    least, edge = only.id_range()
    if after is not None:
        edge = min(edge, decode_id_cursor("runs", after))
    statuses = frozenset(only.statuses or RunStatus)
    accepted_from = "" if only.accepted_from is None else time_text(only.accepted_from.replace(tzinfo=None))
    accepted_before = "~" if only.accepted_before is None else time_text(only.accepted_before.replace(tzinfo=None))
    caller = None if only.caller is None else only.caller.hex
    page: list[ListedRun] = []
    examined, last = 0, ""
    for row in _examined(connection, acting_for, only, (least.hex, edge.hex, RUNS_EXAMINED + 1)):
        if examined == RUNS_EXAMINED:
            return RunPage(page, encode_id_cursor("runs", UUID(last)))
        examined, last = examined + 1, row[0]
        if row[2] in statuses and accepted_from <= row[3] < accepted_before and caller in (None, row[7]):
            record = _record(connection, row)
            if record is None or not all(may_see(record.contact_id, one) for one in (acting_for, only.contact_id)):
                continue
            if len(page) == limit:
                return RunPage(page, encode_id_cursor("runs", page[-1].run_id))
            page.append(record)
    return RunPage(page, None)


def _examined(
    connection: sqlite3.Connection, acting_for: str | None, only: RunFilter, bounds: tuple[str, str, int]
) -> Iterable[Any]:
    """Return the fewest runs that have those of the list, newest first."""
    contact_id = only.contact_id if acting_for is None else acting_for
    if only.thread_id is not None:
        return connection.execute(_OF_THREAD, (only.thread_id.hex, *bounds))
    if contact_id is not None:
        # Not in one statement: a column of other JIMS programs may have an identifier as a number.
        threads = connection.execute(_THREADS_OF_CONTACT, (contact_id,)).fetchmany(THREADS_MERGED + 1)
        if len(threads) <= THREADS_MERGED:
            of_threads = [connection.execute(_OF_THREAD, (id_text(thread), *bounds)) for (thread,) in threads]
            return islice(heapq.merge(*of_threads, reverse=True), bounds[2])  # it reads a run when it needs it
    if only.statuses and all(status in OPEN for status in only.statuses):
        return connection.execute(_OPEN, (None, *bounds))
    return connection.execute(_NEWEST, (None, *bounds))


def _record(connection: sqlite3.Connection, row: Any) -> ListedRun | None:
    """Return the record of a run; None if another program has deleted its thread."""
    run_id, thread, status, accepted_at, started_at, finished_at, failure, _ = row
    found = thread_by_id(connection, thread)
    if found is None:
        return None
    return ListedRun(
        UUID(run_id),
        UUID(id_text(found[0])),
        contact_of(found),
        RunStatus(status),
        utc(accepted_at),
        started_at and utc(started_at),
        finished_at and utc(finished_at),
        failure and FailureKind(failure),
    )


def read_contacts(connection: sqlite3.Connection, acting_for: str | None, limit: int, after: str | None) -> ContactPage:
    """`ThreadStore.contacts`, in the order of the bytes of the contacts."""
    query, edge = (_FIRST_CONTACT, "") if after is None else (_NEXT_CONTACT, decode_contact_cursor(after))
    if acting_for is not None:
        own = _contact(connection, acting_for)
        return ContactPage([own] if own.threads and (after is None or acting_for > edge) else [], None)
    page: list[ContactRecord] = []
    while (row := connection.execute(query, (edge,)).fetchone()) is not None:
        if len(page) == limit:
            return ContactPage(page, encode_contact_cursor(page[-1].contact_id))
        query, edge = _NEXT_CONTACT, row[0]
        page.append(_contact(connection, edge))
    return ContactPage(page, None)


def _contact(connection: sqlite3.Connection, contact_id: str) -> ContactRecord:
    threads, active_at = connection.execute(_CONTACT, (contact_id,)).fetchone()
    return ContactRecord(contact_id, threads, active_at and utc(active_at))
