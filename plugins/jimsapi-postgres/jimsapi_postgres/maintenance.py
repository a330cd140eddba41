"""The maintenance of a database (`MaintainedStore`). Each function has a connection of its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from jimsapi.threads import Migration, StoreStats, StoreUnusable, describe_fault
from jimsapi_postgres.connections import Connection
from jimsapi_postgres.errors import as_unusable
from jimsapi_postgres.schema import SCHEMA_VERSION, TABLES, pending, prepare, read_version
from jimsapi_postgres.url import Target, connect_arguments

_NO_THREAD = "NOT EXISTS (SELECT FROM threads t WHERE t.thread_id = r.thread_id)"
_NO_EVENT = "NOT EXISTS (SELECT FROM thread_events e WHERE e.thread_id = r.thread_id AND e.event_id = r.event_id)"
_FAULTS = (
    (
        "indexes that are not valid",
        """
        SELECT i.indexrelid::regclass::text FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
        WHERE NOT i.indisvalid AND c.relname = ANY ($1)
        """,
    ),
    (
        "threads with two running runs",
        "SELECT thread_id FROM jimsapi_runs WHERE status = 'running' GROUP BY thread_id HAVING count(*) > 1",
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
_SIZES = """
    SELECT name, pg_total_relation_size(to_regclass(name))::bigint FROM unnest($1::text[]) name
    WHERE to_regclass(name) IS NOT NULL ORDER BY name
"""


async def find_faults(target: Target) -> list[str]:
    """`MaintainedStore.find_faults`."""
    async with _connected(target, readonly=True) as connection:
        found: list[str] = []
        for what, query in _FAULTS:
            arguments = [list(TABLES)] if "$1" in query else []
            count = await connection.fetchval(f"SELECT count(*) FROM ({query}) faults", *arguments)
            if count:
                example = await connection.fetchval(f"{query} LIMIT 1", *arguments)
                found.append(describe_fault(count, what, example))
        return found


async def read_stats(target: Target) -> StoreStats:
    """`MaintainedStore.stats`."""
    async with _connected(target, readonly=True) as connection:
        threads, events, contacts, *rows = await connection.fetchrow(_COUNTS)
        outbox, dead_letters, webhooks, subscriptions = rows
        tables = await _sizes(connection)
        return StoreStats(
            schema=SCHEMA_VERSION,
            threads=threads,
            events=events,
            contacts=contacts,
            runs=dict(await connection.fetch(_RUNS)),
            size=sum(tables.values()),
            tables=tables,
            outbox=outbox,
            dead_letters=dead_letters,
            webhooks=webhooks,
            sinks=dict(await connection.fetch(_SINKS)),
            subscriptions=subscriptions,
        )


async def vacuum(target: Target) -> tuple[int, int]:
    """`MaintainedStore.vacuum`. Servers may run. The space becomes free for new rows; the files seldom get smaller."""
    refused: list[Any] = []
    async with _connected(target) as connection:
        connection.add_log_listener(lambda _, message: refused.append(message))
        before = sum((await _sizes(connection)).values())
        for table in TABLES:
            await connection.execute(f"VACUUM (ANALYZE) {table}")
        after = sum((await _sizes(connection)).values())
    if refused:
        raise StoreUnusable(
            f"{target.name}: {refused[0].message}; run the command with the role that owns the tables, or grant its "
            "role MAINTAIN on them"
        )
    return before, after


async def pending_migration(target: Target) -> Migration:
    """`MaintainedStore.pending_migration`."""
    async with _connected(target, readonly=True, of_any_version=True) as connection:
        return await pending(connection, target.name)


async def migrate(target: Target) -> Migration:
    """`MaintainedStore.migrate`. Servers and other programs may run. It waits for transactions that are in its way."""
    migration = await pending_migration(target)
    await prepare(target, wait=None, large=None)
    return migration


async def _sizes(connection: Connection) -> dict[str, int]:
    return dict(await connection.fetch(_SIZES, list(TABLES)))


@asynccontextmanager
async def _connected(
    target: Target, *, readonly: bool = False, of_any_version: bool = False
) -> AsyncIterator[Connection]:
    """Open a connection. Raises `StoreUnusable` if that is not possible, or if the schema is not of this version."""
    try:
        connection = await asyncpg.connect(**connect_arguments(target))
    except Exception as error:
        raise as_unusable(target.name, error) from error
    try:
        if readonly:
            await connection.execute("SET default_transaction_read_only = on")
        await connection.execute("SET statement_timeout = 0; SET client_min_messages = warning")
        if not of_any_version:
            await _refuse_other_version(connection, target.name)
        yield connection
    except Exception as error:
        raise as_unusable(target.name, error) from error
    finally:
        connection.terminate()


async def _refuse_other_version(connection: Connection, name: str) -> None:
    version = await read_version(connection, name)
    if version < SCHEMA_VERSION:
        raise StoreUnusable(
            f"{name}: its tables have the version {version}, and this jimsapi-postgres needs {SCHEMA_VERSION}; "
            "upgrade them with `jimsapi store migrate`"
        )
