"""The maintenance of an SQLite database (`MaintainedStore`)."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

from jimsapi.stores.sqlite.errors import as_domain_error
from jimsapi.stores.sqlite.lock import DatabaseLock, refuse_lock
from jimsapi.stores.sqlite.schema import (
    HARMLESS_FINDINGS,
    SCHEMA_VERSION,
    Durability,
    migrations_after,
    open_beside_a_server,
    open_writer,
    read_version,
    refuse_place,
)
from jimsapi.threads.errors import StoreUnusable
from jimsapi.threads.maintenance import Migration, SchemaChange, StoreStats, describe_fault

MOST_FINDINGS = 20
"""The most faults of the file itself that are listed."""

_NO_THREAD = "NOT EXISTS (SELECT 1 FROM threads t WHERE t.thread_id = r.thread_id)"
_NO_EVENT = """
    NOT EXISTS (SELECT 1 FROM thread_events e WHERE e.thread_id = r.thread_id AND e.event_id = r.event_id)
"""
_FAULTS = (
    (
        "threads with two running runs",
        "SELECT thread_id FROM jimsapi_runs NOT INDEXED WHERE status = 'running' GROUP BY 1 HAVING count(*) > 1",
    ),
    (
        "runs with a status that does not fit the time of their end",
        "SELECT run_id FROM jimsapi_runs WHERE (finished_at IS NULL) <> (status IN ('queued', 'running'))",
    ),
    ("runs without a thread", f"SELECT run_id FROM jimsapi_runs r WHERE {_NO_THREAD}"),
    (
        "missing threads of which there are events",
        f"SELECT DISTINCT thread_id FROM thread_events r WHERE {_NO_THREAD}",
    ),
    ("titles or metadata without a thread", f"SELECT thread_id FROM jimsapi_threads r WHERE {_NO_THREAD}"),
    ("ratings without an event", f"SELECT event_id FROM jimsapi_feedback r WHERE {_NO_EVENT}"),
    ("totals of usage without a thread", f"SELECT thread_id FROM jimsapi_thread_usage r WHERE {_NO_THREAD}"),
    ("dead letters without an event", f"SELECT number FROM jimsapi_dead_letters r WHERE {_NO_EVENT}"),
    (
        "rows of the outbox with a thread and without an event",
        f"SELECT position FROM jimsapi_outbox r WHERE {_NO_EVENT} AND NOT {_NO_THREAD}",
    ),
    (
        "subscriptions with another thread than that of their run",
        """
        SELECT r.subscription_id FROM jimsapi_subscriptions r JOIN jimsapi_runs o ON o.run_id = r.run_id
        WHERE o.thread_id <> r.thread_id
        """,
    ),
)
"""What may be wrong, and a query of the identifiers of the rows. Deleted threads leave rows in the outbox."""

_COUNTS = """
    SELECT
        (SELECT count(*) FROM threads), (SELECT count(*) FROM thread_events),
        (SELECT count(DISTINCT contact_id) FROM threads), (SELECT count(*) FROM jimsapi_outbox),
        (SELECT count(*) FROM jimsapi_dead_letters), (SELECT count(*) FROM jimsapi_webhooks),
        (SELECT count(*) FROM jimsapi_subscriptions)
"""
_RUNS = "SELECT status, count(*) FROM jimsapi_runs GROUP BY status ORDER BY status"
_SINKS = """
    SELECT name, (SELECT count(*) FROM jimsapi_outbox o WHERE o.position > s.position)
    FROM jimsapi_sinks s ORDER BY name
"""
_TABLES = """
    SELECT m.tbl_name, sum(s.pgsize) FROM dbstat s JOIN sqlite_master m ON m.name = s.name
    WHERE s.aggregate = TRUE GROUP BY m.tbl_name ORDER BY m.tbl_name
"""


def find_faults(path: str) -> list[str]:
    """`MaintainedStore.find_faults`."""
    with _beside_a_server(path) as connection:
        texts = (text for (text,) in connection.execute(f"PRAGMA integrity_check({MOST_FINDINGS})"))
        found = [f"the file is damaged: {one_line}" for text in texts if (one_line := _damage(text))]
        for what, query in _FAULTS:
            (count,) = connection.execute(f"SELECT count(*) FROM ({query})").fetchone()
            if count:
                (example,) = connection.execute(f"{query} LIMIT 1").fetchone()
                found.append(describe_fault(count, what, example))
    return found


def read_stats(path: str) -> StoreStats:
    """`MaintainedStore.stats`."""
    with _beside_a_server(path) as connection:
        threads, events, contacts, *rows = connection.execute(_COUNTS).fetchone()
        outbox, dead_letters, webhooks, subscriptions = rows
        return StoreStats(
            schema=SCHEMA_VERSION,
            threads=threads,
            events=events,
            contacts=contacts,
            runs=dict(connection.execute(_RUNS).fetchall()),
            size=_size(path),
            tables=_table_sizes(connection),
            outbox=outbox,
            dead_letters=dead_letters,
            webhooks=webhooks,
            sinks=dict(connection.execute(_SINKS).fetchall()),
            subscriptions=subscriptions,
        )


def vacuum(path: str) -> tuple[int, int]:
    """`MaintainedStore.vacuum`. The file gets smaller. It needs as much free space as the database has."""
    _refuse_missing(path)
    with _locked(path):
        before = _size(path)
        with closing(open_beside_a_server(path, "rw")) as connection:
            for statement in ("PRAGMA wal_checkpoint(TRUNCATE)", "VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"):
                connection.execute(statement).fetchall()
        return before, _size(path)


def pending_migration(path: str) -> Migration:
    """`MaintainedStore.pending_migration`."""
    _refuse_missing(path)
    with _as_domain_errors():
        found = read_version(path)
    changes = [
        SchemaChange(version, " ".join(statement.split()))
        for version, statements in migrations_after(found)
        for statement in statements
    ]
    return Migration(found, SCHEMA_VERSION, changes)


def migrate(path: str, durability: Durability) -> Migration:
    """`MaintainedStore.migrate`. Only this process has the database open meanwhile."""
    _refuse_missing(path)
    with _locked(path):
        migration = pending_migration(path)
        open_writer(path, durability).close()
    return migration


def _damage(text: str) -> str:
    return "" if text.startswith(HARMLESS_FINDINGS) else text.replace("\n", " ")


def _table_sizes(connection: sqlite3.Connection) -> dict[str, int]:
    """Return the bytes of each table with its indexes. Some builds of SQLite do not know them."""
    try:
        return dict(connection.execute(_TABLES).fetchall())
    except sqlite3.OperationalError:
        return {}


def _size(path: str) -> int:
    """Return the bytes of the database and its log."""
    return sum(os.path.getsize(file) for file in (path, f"{path}-wal") if os.path.exists(file))


def _refuse_missing(path: str) -> None:
    refuse_place(path)
    if not os.path.exists(path):
        raise StoreUnusable(f"there is no database {path}; name another")


@contextmanager
def _beside_a_server(path: str) -> Iterator[sqlite3.Connection]:
    _refuse_missing(path)
    refuse_lock(path)  # a log that belongs to another file would be read as if it belonged to this one
    with _as_domain_errors(), closing(open_beside_a_server(path)) as connection:
        yield connection


@contextmanager
def _locked(path: str) -> Iterator[None]:
    """Keep servers from opening the database. Raises `LockedByAnother` if one has it open."""
    lock = DatabaseLock(path)
    try:
        with _as_domain_errors():
            yield
    finally:
        lock.release()


@contextmanager
def _as_domain_errors() -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise as_domain_error(error) from error
