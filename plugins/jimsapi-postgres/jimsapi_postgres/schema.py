"""The tables, indexes and functions in a database, and their migrations, which run while servers are active.

`threads` and `thread_events` are JIMS's own tables, so that other JIMS programs can use the same database. Migrations
only add to the rest, whose names begin with `jimsapi_`. An interrupted migration is repeated.
"""

import asyncio
import logging
import re
import time
from collections.abc import Mapping, Sequence
from importlib.resources import files

import asyncpg
import msgspec

from jimsapi.threads import Migration, SchemaChange, StoreUnusable
from jimsapi_postgres.connections import Connection
from jimsapi_postgres.errors import as_unusable
from jimsapi_postgres.url import Target, connect_arguments

logger = logging.getLogger("jimsapi.postgres")

OLDEST_POSTGRES = 13
LOCK_KEY = 0x6A696D73_61706901
"""The advisory lock of the process that changes the schema."""
POLL_LOCK_EVERY = 0.2
LARGE = 268_435_456
"""Maximum number of bytes of `thread_events` with which a start builds indexes. If there are more, run
`jimsapi db upgrade`."""

TABLES = (
    "threads", "thread_events", "jimsapi_threads", "jimsapi_feedback", "jimsapi_search", "jimsapi_search_threads",
    "jimsapi_thread_usage", "jimsapi_contact_usage", "jimsapi_caller_usage", "jimsapi_outbox", "jimsapi_sinks",
    "jimsapi_dead_letters", "jimsapi_webhooks", "jimsapi_subscriptions", "jimsapi_runs", "jimsapi_owners",
    "jimsapi_idempotency",
)  # fmt: skip


class Script(msgspec.Struct, frozen=True):
    """A file of the folder `sql` with statements."""

    name: str


class Index(msgspec.Struct, frozen=True):
    """An index that is built while other processes write."""

    name: str
    definition: str


Change = Script | Index

INDEXES = (
    Index("jimsapi_threads_contact", "threads (contact_id, created_at, thread_id)"),
    Index("jimsapi_threads_external", "threads (external_id, created_at) WHERE external_id IS NOT NULL"),
    Index("jimsapi_events_order", "thread_events (thread_id, created_at, event_id)"),
    # With these the cost of a context does not depend on the thread's length. Queries must repeat the expressions of
    # the predicates literally.
    Index(
        "jimsapi_events_comm",
        "thread_events (thread_id, created_at, event_id) WHERE substr(event_type, 1, 5) = 'comm.'",
    ),
    Index(
        "jimsapi_events_state",
        "thread_events (thread_id, event_type, created_at, event_id) WHERE substr(event_type, 1, 10) = 'state.set.'",
    ),
    # Open questions of the threads of a list.
    Index(
        "jimsapi_events_asked",
        "thread_events (thread_id, created_at, event_id) WHERE event_type = 'question.asked'",
    ),
)
_JIMS_INDEXES = Script("jims_indexes")
"""Only if this package creates the tables of JIMS."""

FIRST_VERSION = 10
"""The version of `sql/tables.sql`. Commits from before the first release used 1 to 9."""
MIGRATIONS: Mapping[int, Sequence[Change]] = {
    FIRST_VERSION: (
        Script("jims_tables"),
        _JIMS_INDEXES,
        Script("tables"),
        Script("usage"),
        Script("functions"),
        *INDEXES,
    ),
}
"""Each version of the schema, in order, with the changes that lead to it from the one before.

The scripts of a version are one transaction, and its indexes are built after it. To change the schema, add the next
version. `usage` and `functions` move to it. Older servers may run meanwhile: a function whose parameters or results
change gets another name, and `SERVES_FROM` is the oldest version whose servers still work.
"""
SCHEMA_VERSION = max(MIGRATIONS)
SERVES_FROM = FIRST_VERSION
"""The version of the oldest server that works with this schema."""

_NEEDED_COLUMNS = {
    "threads": {"thread_id", "contact_id", "external_id", "created_at", "thread_config"},
    "thread_events": {"thread_id", "event_id", "created_at", "event_type", "event_data"},
}
_COLUMNS = """
    SELECT attname FROM pg_attribute WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped
"""
_IS_VALID = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass($1)"
_STATEMENT = re.compile(
    r"^ *(CREATE (?:OR REPLACE )?(?:FUNCTION|TABLE)[^(]*)|^ *((?:CREATE (?:UNIQUE )?INDEX|ALTER TABLE)[^;]*)",
    re.MULTILINE,
)
_MISSING_PRIVILEGES = """
    SELECT privilege || ' on ' || name AS missing
    FROM
        unnest($1::text[]) name,
        unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) privilege
    WHERE NOT has_table_privilege(name, privilege) AND (privilege <> 'UPDATE' OR name LIKE 'jimsapi%')
    UNION ALL
    SELECT 'EXECUTE on function ' || f.oid::regprocedure
    FROM pg_proc f
    WHERE f.proname LIKE 'jimsapi\\_%' AND pg_function_is_visible(f.oid)
        AND NOT has_function_privilege(f.oid, 'EXECUTE')
"""


async def prepare(target: Target, *, wait: float | None, large: int | None = LARGE) -> int:
    """Upgrade the schema of a database, and check that the store can use it.

    Returns the version of the schema before the upgrade; 0 if there was none. One process at a time upgrades. The
    others wait for it, and each change waits for transactions that block it, for at most `wait` seconds each (None: no
    limit). If `thread_events` has more than `large` bytes (None: no limit), its indexes are not built here.

    Raises:
        StoreUnusable: the database cannot be used. The message contains the reason and the remedy.
    """
    try:
        connection = await asyncpg.connect(**connect_arguments(target))
    except Exception as error:
        raise as_unusable(target.name, error) from error
    try:
        await _refuse_shared_session(connection, target)
        return await _prepare(connection, target.name, wait, large)
    except Exception as error:
        raise as_unusable(target.name, error) from error
    finally:
        connection.terminate()


async def _prepare(connection: Connection, name: str, wait: float | None, large: int | None) -> int:
    limit = int(1000 * (wait or 0))  # 0 means no limit
    await connection.execute(
        f"SET statement_timeout = {limit}; SET lock_timeout = 0; SET client_min_messages = warning"
    )
    await _refuse_unfit_server(connection, name)
    await _refuse_tables_of_others(connection, name)
    version_before = await read_version(connection, name)
    if version_before < SCHEMA_VERSION:
        await _acquire_lock(connection, name, wait)
        # Another process may have upgraded the database while this one waited.
        for version, changes in await _migrations_after(connection, await read_version(connection, name)):
            await _refuse_large(connection, name, changes, large)
            logger.info("%s: upgrading the schema to version %d", name, version)
            try:
                await _apply(connection, changes)
            except asyncpg.QueryCanceledError as error:
                raise StoreUnusable(
                    f"{name}: the schema could not be changed in time, perhaps because of another program's open "
                    "transaction (see pg_stat_activity): end that transaction and start again, or run "
                    "`jimsapi db upgrade --store …`, which waits for it"
                ) from error
        await _set_version(connection)
    missing = await connection.fetch(_MISSING_PRIVILEGES, TABLES)
    if missing:
        raise StoreUnusable(f"{name}: the role of --store lacks {', '.join(row[0] for row in missing)}; grant it these")
    return version_before


async def _migrations_after(connection: Connection, found: int) -> list[tuple[int, list[Change]]]:
    """Return the versions after the version `found`, with what each changes in this database."""
    creates_threads = await connection.fetchval("SELECT to_regclass('threads') IS NULL")
    return [
        (version, [change for change in changes if creates_threads or change != _JIMS_INDEXES])
        for version, changes in MIGRATIONS.items()
        if version > found
    ]


async def _apply(connection: Connection, changes: Sequence[Change]) -> None:
    async with connection.transaction():
        for change in changes:
            if isinstance(change, Script):
                await connection.execute(_sql(change.name))
    for change in changes:
        if isinstance(change, Index):
            await _build_index(connection, change)


async def pending(connection: Connection, name: str) -> Migration:
    """Return what `prepare` would do, without changing anything. Raises `StoreUnusable` as `prepare` does."""
    await _refuse_unfit_server(connection, name)
    await _refuse_tables_of_others(connection, name)
    found = await read_version(connection, name)
    changes = [
        SchemaChange(version, statement)
        for version, changes in await _migrations_after(connection, found)
        for change in changes
        for statement in await _statements(connection, change)
    ]
    return Migration(found, SCHEMA_VERSION, changes)


async def _statements(connection: Connection, change: Change) -> list[str]:
    """Return the statements of a change, one line each: without the columns of tables and the bodies of functions."""
    if isinstance(change, Script):
        return [" ".join("".join(found).split()) for found in _STATEMENT.findall(_sql(change.name))]
    if await connection.fetchval(_IS_VALID, change.name):
        return []
    return [f"CREATE INDEX CONCURRENTLY {change.name} ON {change.definition}"]


async def _build_index(connection: Connection, index: Index) -> None:
    """Build an index while other processes write. If an interrupted build has left an invalid index, it is replaced."""
    valid = await connection.fetchval(_IS_VALID, index.name)
    if valid is False:
        await connection.execute(f"DROP INDEX CONCURRENTLY {index.name}")
    if not valid:
        await connection.execute(f"CREATE INDEX CONCURRENTLY {index.name} ON {index.definition}")


async def read_version(connection: Connection, name: str) -> int:
    """Return the version of the schema; 0 if there is none. Raises `StoreUnusable` if this package cannot use it."""
    if await connection.fetchval("SELECT to_regclass('jimsapi_schema') IS NULL"):
        return 0
    row = await connection.fetchrow("SELECT version, serves_from FROM jimsapi_schema ORDER BY version DESC LIMIT 1")
    if row is None:
        return 0
    version, serves_from = row
    if serves_from > SCHEMA_VERSION:
        raise StoreUnusable(
            f"{name}: a newer jimsapi-postgres made this database (schema {version}, for servers that know "
            f"{serves_from}; this one knows {SCHEMA_VERSION}); upgrade it: pip install --upgrade jimsapi-postgres"
        )
    if version < FIRST_VERSION:
        raise StoreUnusable(
            f"{name}: a commit of jimsapi from before its first release made this database (schema {version}); export "
            "it with `jimsapi store copy` of that commit, or name another database with --store"
        )
    return int(version)


async def _set_version(connection: Connection) -> None:
    """Store the version, at the end of an upgrade: until then, older servers may use the database."""
    async with connection.transaction():
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS jimsapi_schema (version int NOT NULL, serves_from int NOT NULL)"
        )
        await connection.execute("DELETE FROM jimsapi_schema")
        await connection.execute("INSERT INTO jimsapi_schema VALUES ($1, $2)", SCHEMA_VERSION, SERVES_FROM)


async def _acquire_lock(connection: Connection, name: str, wait: float | None) -> None:
    """Acquire the lock, which is released with the connection.

    It polls for the lock. A statement that waits would block the building of indexes, which waits for all statements.
    """
    began = time.monotonic()
    while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", LOCK_KEY):
        if wait is not None and time.monotonic() - began > wait:
            raise StoreUnusable(f"{name}: another process is upgrading the database; start again when it has finished")
        await asyncio.sleep(POLL_LOCK_EVERY)


async def _refuse_unfit_server(connection: Connection, name: str) -> None:
    server = connection.get_server_version()
    if server.major < OLDEST_POSTGRES:
        raise StoreUnusable(f"{name}: this is PostgreSQL {server.major}; upgrade it to {OLDEST_POSTGRES} or newer")
    encoding = await connection.fetchval("SHOW server_encoding")
    if encoding != "UTF8":
        raise StoreUnusable(
            f"{name}: its encoding is {encoding}, which cannot store every message; use a database with UTF8"
        )


async def _refuse_shared_session(connection: Connection, target: Target) -> None:
    """Reject a pooler that gives each transaction another session, since locks, notices and settings would be lost."""
    session = await connection.fetchval("SELECT pg_backend_pid()")
    if session == connection.get_server_pid():
        return
    other = await asyncpg.connect(**connect_arguments(target))
    try:
        shared = session == await other.fetchval("SELECT pg_backend_pid()")
    finally:
        other.terminate()
    if shared:
        raise StoreUnusable(
            f"{target.name}: --store names a pooler (PgBouncer?) that shares sessions between connections; set its "
            "pool_mode = session, or name PostgreSQL itself with --store"
        )


async def _refuse_tables_of_others(connection: Connection, name: str) -> None:
    for table, needed in _NEEDED_COLUMNS.items():
        found = {row[0] for row in await connection.fetch(_COLUMNS, table)}
        if found and (missing := needed - found):
            raise StoreUnusable(
                f"{name}: its table '{table}' is not JIMS's (it lacks {', '.join(sorted(missing))}); "
                "name another database with --store"
            )


async def _refuse_large(connection: Connection, name: str, changes: Sequence[Change], large: int | None) -> None:
    builds_indexes = any(isinstance(change, Index) for change in changes)
    if large is None or not builds_indexes or await connection.fetchval("SELECT to_regclass('thread_events') IS NULL"):
        return
    size = await connection.fetchval("SELECT pg_table_size('thread_events')")
    if size > large:
        raise StoreUnusable(
            f"{name}: the indexes of {size // 1_048_576} MiB of events must be built, which may take longer than a "
            "start: run `jimsapi db upgrade --store …` first, which does not block running programs"
        )


def _sql(name: str) -> str:
    return files("jimsapi_postgres").joinpath("sql", f"{name}.sql").read_text()
