"""The tables and indexes of an SQLite database of threads, and opening and upgrading a database.

`threads` and `thread_events` are the tables of JIMS, so that other JIMS programs can use the same file. All other
tables and indexes are jimsapi's. Their names begin with `jimsapi_`. Upgrades change no table of JIMS.
"""

import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, Literal
from urllib.parse import quote

from jimsapi.stores.sqlite.errors import one_line, primary_code, save_what_can_be_read
from jimsapi.stores.sqlite.lock import refuse_hard_links
from jimsapi.threads.errors import StoreUnusable

Durability = Literal["durable", "relaxed"]

_HEADER = b"SQLite format 3\0"
"""The first bytes of a database. An empty file is a database, too."""

BUSY_TIMEOUT = 1.0
"""Seconds to wait for another program that has locked the database."""
LOOK_FOR_DAMAGE = 1.0
"""Seconds that a start spends on searching for damage. That is enough for some hundred megabytes."""

_TOTALS = """
        calls INTEGER NOT NULL,
        input INTEGER NOT NULL,
        output INTEGER NOT NULL,
        cached INTEGER NOT NULL,
        cost REAL NOT NULL
""".strip()
"""The columns of a `UsageTotal`."""

_TABLES = (
    "CREATE TABLE jimsapi_schema (version INTEGER NOT NULL)",
    # Other JIMS programs declare ids as `UUID` and JSON as `JSON`. SQLite gives both NUMERIC affinity, which converts
    # ids that have only digits, and JSON numbers, to SQLite numbers. jimsapi's columns have TEXT affinity, which does
    # not. `threads` is WITHOUT ROWID, since rows are small. `thread_events` is not: above 1 KB, rows would use overflow
    # pages.
    """
    CREATE TABLE IF NOT EXISTS threads (
        thread_id CHAR(32) NOT NULL PRIMARY KEY,
        contact_id VARCHAR,
        external_id VARCHAR,
        created_at DATETIME NOT NULL,
        thread_config TEXT NOT NULL
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE IF NOT EXISTS thread_events (
        thread_id CHAR(32) NOT NULL,
        event_id CHAR(32) NOT NULL,
        created_at DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP,
        event_type VARCHAR(255) NOT NULL,
        event_domain VARCHAR(255),
        event_name VARCHAR(255),
        event_data TEXT,
        PRIMARY KEY (thread_id, event_id)
    )
    """,
    "CREATE INDEX jimsapi_threads_contact ON threads (contact_id, created_at, thread_id)",
    "CREATE INDEX jimsapi_threads_external ON threads (external_id, created_at) WHERE external_id IS NOT NULL",
    "CREATE INDEX jimsapi_events_order ON thread_events (thread_id, created_at, event_id)",
    # These indexes find the parts of a context, and the questions of a thread, at a cost that does not depend on the
    # thread's length. The predicates are equalities of an expression, which queries repeat word for word: for a range,
    # SQLite would scan after ANALYZE.
    """
    CREATE INDEX jimsapi_events_comm ON thread_events (thread_id, created_at, event_id)
    WHERE substr(event_type, 1, 5) = 'comm.'
    """,
    """
    CREATE INDEX jimsapi_events_state ON thread_events (thread_id, event_type, created_at, event_id)
    WHERE substr(event_type, 1, 10) = 'state.set.'
    """,
    """
    CREATE INDEX jimsapi_events_asked ON thread_events (thread_id, created_at, event_id)
    WHERE event_type = 'question.asked'
    """,
    # `seq` orders the open runs of one thread. `message` is JSON, kept only until it enters the thread. `message_id` is
    # the message that the run answers, and `continues` whether it was in the thread before the run. `sent` is the
    # number of events that `finish` stored, a microsecond apart from `sent_at` on. `restarts` is how often the run
    # started again because its process had died.
    """
    CREATE TABLE jimsapi_runs (
        run_id CHAR(32) NOT NULL PRIMARY KEY,
        thread_id CHAR(32) NOT NULL,
        seq INTEGER NOT NULL,
        owner CHAR(32) NOT NULL,
        status VARCHAR(16) NOT NULL,
        created_new_thread INTEGER NOT NULL,
        message TEXT,
        accepted_at DATETIME NOT NULL,
        started_at DATETIME,
        finished_at DATETIME,
        error TEXT,
        message_id CHAR(32) NOT NULL,
        continues INTEGER NOT NULL,
        caller CHAR(32),
        background INTEGER NOT NULL,
        webhook_url TEXT,
        sent_at DATETIME,
        sent INTEGER NOT NULL DEFAULT 0,
        streamed INTEGER,
        failure VARCHAR(16),
        restarts INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID
    """,
    # Most runs never wait, so they write nothing to `jimsapi_runs_waiting`. A purge finds old runs by their
    # identifiers, which begin with the time of acceptance.
    "CREATE UNIQUE INDEX jimsapi_runs_running ON jimsapi_runs (thread_id) WHERE status = 'running'",
    "CREATE INDEX jimsapi_runs_waiting ON jimsapi_runs (thread_id, seq) WHERE status = 'queued'",
    "CREATE INDEX jimsapi_runs_thread ON jimsapi_runs (thread_id)",
    "CREATE TABLE jimsapi_owners (owner CHAR(32) NOT NULL PRIMARY KEY, beat_at DATETIME NOT NULL) WITHOUT ROWID",
    """
    CREATE TABLE jimsapi_idempotency (
        key CHAR(32) NOT NULL PRIMARY KEY,
        body CHAR(32) NOT NULL,
        run_id CHAR(32) NOT NULL,
        used_at DATETIME NOT NULL
    ) WITHOUT ROWID
    """,
    "CREATE INDEX jimsapi_idempotency_used ON jimsapi_idempotency (used_at)",
    # The titles, archive times, metadata and parents of threads (`ThreadFacts`), and the ratings of events. Threads
    # without any of these have no row.
    """
    CREATE TABLE jimsapi_threads (
        thread_id CHAR(32) NOT NULL PRIMARY KEY,
        title TEXT,
        archived_at DATETIME,
        metadata TEXT NOT NULL,
        parent_id CHAR(32),
        parent_event_id CHAR(32)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX jimsapi_threads_parent ON jimsapi_threads (parent_id) WHERE parent_id IS NOT NULL",
    """
    CREATE TABLE jimsapi_feedback (
        thread_id CHAR(32) NOT NULL,
        event_id CHAR(32) NOT NULL,
        rating INTEGER NOT NULL,
        comment TEXT,
        given_at DATETIME NOT NULL,
        PRIMARY KEY (thread_id, event_id)
    ) WITHOUT ROWID
    """,
    # What the index of the search has of each thread (`jimsapi.stores.sqlite.search`): the number of its messages, and
    # the identifiers of those since `until`. The index itself is created at the first search.
    """
    CREATE TABLE jimsapi_search_threads (
        thread_id CHAR(32) NOT NULL PRIMARY KEY,
        number INTEGER NOT NULL,
        messages INTEGER NOT NULL,
        until DATETIME NOT NULL,
        recent TEXT NOT NULL,
        title TEXT
    ) WITHOUT ROWID
    """,
    "CREATE UNIQUE INDEX jimsapi_search_numbers ON jimsapi_search_threads (number)",
    # Totals of what was used of models: of threads, of contacts and their callers, and of callers.
    f"""
    CREATE TABLE jimsapi_thread_usage (
        thread_id CHAR(32) NOT NULL,
        model TEXT NOT NULL,
        {_TOTALS},
        PRIMARY KEY (thread_id, model)
    ) WITHOUT ROWID
    """,
    f"""
    CREATE TABLE jimsapi_contact_usage (
        contact_id TEXT NOT NULL,
        day TEXT NOT NULL,
        model TEXT NOT NULL,
        caller CHAR(32) NOT NULL,
        {_TOTALS},
        PRIMARY KEY (contact_id, day, model, caller)
    ) WITHOUT ROWID
    """,
    f"""
    CREATE TABLE jimsapi_caller_usage (
        caller CHAR(32) NOT NULL,
        day TEXT NOT NULL,
        model TEXT NOT NULL,
        {_TOTALS},
        PRIMARY KEY (caller, day, model)
    ) WITHOUT ROWID
    """,
    # What durable sinks have not received yet (`jimsapi.threads.outbox`), where each sink is, and what it refused. The
    # newest row of the outbox is never deleted, so positions are not used again. `letters` counts the dead letters of a
    # sink.
    """
    CREATE TABLE jimsapi_outbox (
        position INTEGER PRIMARY KEY,
        thread_id CHAR(32) NOT NULL,
        event_id CHAR(32) NOT NULL,
        run_id CHAR(32),
        added_at DATETIME NOT NULL
    )
    """,
    """
    CREATE TABLE jimsapi_sinks (
        name TEXT NOT NULL PRIMARY KEY,
        position INTEGER NOT NULL,
        owner CHAR(32),
        held_until DATETIME,
        history DATETIME,
        history_after TEXT,
        rewinds INTEGER NOT NULL DEFAULT 0,
        letters INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE jimsapi_dead_letters (
        sink TEXT NOT NULL,
        number INTEGER NOT NULL,
        thread_id CHAR(32) NOT NULL,
        event_id CHAR(32) NOT NULL,
        run_id CHAR(32),
        reason TEXT NOT NULL,
        failed_at DATETIME NOT NULL,
        again INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (sink, number)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX jimsapi_dead_letters_again ON jimsapi_dead_letters (sink, number) WHERE again = 1",
    "CREATE INDEX jimsapi_dead_letters_thread ON jimsapi_dead_letters (thread_id)",
    # The webhooks of runs that have ended. `jimsapi_runs` has their URLs.
    """
    CREATE TABLE jimsapi_webhooks (
        run_id CHAR(32) NOT NULL PRIMARY KEY,
        caller CHAR(32) NOT NULL,
        due_at DATETIME NOT NULL,
        calls INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID
    """,
    "CREATE INDEX jimsapi_webhooks_due ON jimsapi_webhooks (caller, due_at)",
    # The receivers of runs that plugins notify. Those that are settled have no time at which they are due.
    """
    CREATE TABLE jimsapi_subscriptions (
        run_id CHAR(32) NOT NULL,
        kind TEXT NOT NULL,
        name TEXT NOT NULL,
        subscription_id CHAR(32) NOT NULL,
        thread_id CHAR(32) NOT NULL,
        caller CHAR(32),
        data TEXT NOT NULL,
        due_at DATETIME,
        call_at DATETIME,
        notice TEXT,
        calls INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (run_id, kind, name)
    ) WITHOUT ROWID
    """,
    "CREATE UNIQUE INDEX jimsapi_subscriptions_id ON jimsapi_subscriptions (subscription_id)",
    "CREATE INDEX jimsapi_subscriptions_due ON jimsapi_subscriptions (due_at) WHERE due_at IS NOT NULL",
    "CREATE INDEX jimsapi_subscriptions_thread ON jimsapi_subscriptions (thread_id)",
)

FIRST_VERSION = 10
"""The version of `_TABLES`. Commits from before the first release used 1 to 9."""
MIGRATIONS = {FIRST_VERSION: _TABLES}
"""Each version of the tables, in order, with the statements that lead to it from the one before.

To change the tables, add the next version.
"""
SCHEMA_VERSION = max(MIGRATIONS)

_NEEDED_COLUMNS = {
    "threads": {"thread_id", "contact_id", "external_id", "created_at", "thread_config"},
    "thread_events": {"thread_id", "event_id", "created_at", "event_type", "event_data"},
}

HAS_SINKS = "SELECT EXISTS (SELECT 1 FROM jimsapi_sinks)"
_UNOPENABLE = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH}
_DAMAGED = {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT}
_LOCKED = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
HARMLESS_FINDINGS = ("ok", "NULL value in ", "NUMERIC value in ", "TEXT value in ", "CHECK constraint failed")
"""Results of SQLite's integrity check that are not damage."""


class Connection(sqlite3.Connection):
    """A connection to a database of threads.

    `may_have_sinks`: whether a durable sink may be registered. Without one, no turn has to look for it.
    """

    may_have_sinks = True


def open_writer(path: str, durability: Durability) -> sqlite3.Connection:
    """Open the connection that writes, and upgrade the database's tables.

    Raises:
        StoreUnusable: the file is not a database, cannot be written, or has tables of another program or version.
    """
    with _opening(path, path, cached_statements=256, check_same_thread=False) as connection:
        _refuse_damage(connection, path)
        _refuse_foreign_tables(connection, path)
        _supported_version(connection, path)
        _configure(connection, path, durability)
        _migrate(connection)
        _schema_version(connection)  # SQLite creates the log at the first read
        connection.may_have_sinks = bool(connection.execute(HAS_SINKS).fetchone()[0])
    return connection


def refuse_place(path: str) -> None:
    """Raise `StoreUnusable` if no database can be at this path."""
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        raise StoreUnusable(f"{path}: there is no folder {folder}; create it, or name another with --store")
    if os.path.isdir(path):
        raise StoreUnusable(f"{path}: is a folder; name a file in it with --store")
    if os.path.exists(path) and not os.path.isfile(path):
        raise StoreUnusable(f"{path}: is not a regular file; name another with --store")
    for log_file in (f"{path}-wal", f"{path}-shm"):
        if not os.path.exists(log_file):
            continue
        if not os.path.isfile(log_file):
            raise StoreUnusable(f"{path}: its log {log_file} is not a regular file; move it away")
        if not os.access(log_file, os.R_OK | os.W_OK):
            raise StoreUnusable(f"{path}: no read and write access to {log_file}; fix its permissions")


def refuse_file(path: str) -> None:
    """Raise `StoreUnusable` if a file is not a database or not accessible.

    Call it only if the process has no connection to the database: closing a file releases the process's locks.
    """
    refuse_place(path)
    folder = os.path.dirname(path)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StoreUnusable(f"{path}: the folder {folder} cannot be written, and SQLite keeps more files in it")
    if not os.path.isfile(path):
        return
    if not os.access(path, os.R_OK | os.W_OK):
        raise StoreUnusable(f"{path}: cannot be opened for reading and writing; check the permissions of the file")
    with open(path, "rb") as file:
        header = file.read(len(_HEADER))
    if len(header) > 1 and header != _HEADER:  # SQLite counts a file of one byte as empty
        raise StoreUnusable(
            f"{path}: is not an SQLite database, or is damaged; name another file, or remove {path}-wal and "
            f"{path}-shm and restore a backup"
        )
    refuse_hard_links(path)


def open_reader(path: str) -> sqlite3.Connection:
    """Open a connection that only reads. Raises `StoreUnusable`."""
    with _opening(path, path) as connection:
        connection.execute("PRAGMA query_only = ON")
        _schema_version(connection)  # SQLite opens the log at the first read; read now, so that it is the writer's log
    return connection


def open_beside_a_server(path: str, mode: Literal["ro", "rw"] = "ro") -> sqlite3.Connection:
    """Open a connection, whether or not a server has the database open. With the mode "ro", it cannot write.

    When a connection closes that cannot write, SQLite does not move the content of the log to the database, so the
    server keeps its log. Raises `StoreUnusable` if the tables are not those of this version, since nothing here
    upgrades them.
    """
    with _opening(path, f"file:{quote(path)}?mode={mode}", uri=True) as connection:
        found = _supported_version(connection, path)
        if found < SCHEMA_VERSION:
            raise StoreUnusable(
                f"{path}: an older jimsapi, or another program, made this database (schema {found}; this one reads "
                f"{SCHEMA_VERSION}); upgrade it with `jimsapi store migrate`, or start the server of this version once"
            )
    return connection


def read_version(path: str) -> int:
    """Return the version of a database's tables; 0 if it has none of jimsapi. It only reads.

    Raises `StoreUnusable` if the file is not a database, or has tables of another program or version.
    """
    with _opening(path, f"file:{quote(path)}?mode=ro", uri=True) as connection, closing(connection):
        _refuse_foreign_tables(connection, path)
        return _supported_version(connection, path)


@contextmanager
def _opening(path: str, database: str, **options: Any) -> Iterator[Connection]:
    """Open a connection, which the end of the `with` block closes only if the block raises.

    Raises `StoreUnusable` for each error of SQLite.
    """
    try:
        connection = Connection(database, timeout=BUSY_TIMEOUT, isolation_level=None, **options)
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise StoreUnusable(_cause(path, error)) from error


def _configure(connection: sqlite3.Connection, path: str, durability: Durability) -> None:
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise StoreUnusable(
            f"{path}: SQLite cannot keep a write-ahead log there (a network file system?); put the file on a local disk"
        )
    connection.execute(f"PRAGMA synchronous = {'FULL' if durability == 'durable' else 'NORMAL'}")


def _migrate(connection: sqlite3.Connection) -> None:
    for version, statements in migrations_after(_schema_version(connection)):
        with connection:  # it commits, or rolls back what has failed
            connection.execute("BEGIN IMMEDIATE")
            for statement in statements:
                connection.execute(statement)
            connection.execute("DELETE FROM jimsapi_schema")
            connection.execute("INSERT INTO jimsapi_schema (version) VALUES (?)", (version,))


def migrations_after(found: int) -> list[tuple[int, Sequence[str]]]:
    """Return the versions after the version `found`, with their statements."""
    return [(version, statements) for version, statements in MIGRATIONS.items() if version > found]


def _schema_version(connection: sqlite3.Connection) -> int:
    if not _columns(connection, "jimsapi_schema"):
        return 0
    version: int = connection.execute("SELECT coalesce(max(version), 0) FROM jimsapi_schema").fetchone()[0]
    return version


def _supported_version(connection: sqlite3.Connection, path: str) -> int:
    """Return the version of the tables. Raises `StoreUnusable` if this jimsapi cannot upgrade or use them."""
    found = _schema_version(connection)
    if found > SCHEMA_VERSION:
        raise StoreUnusable(
            f"{path}: a newer jimsapi made this database (schema {found}; this one supports {SCHEMA_VERSION}); "
            "upgrade jimsapi, or name another file with --store"
        )
    if 0 < found < FIRST_VERSION:
        raise StoreUnusable(
            f"{path}: a commit of jimsapi from before its first release made this database (schema {found}); export it "
            "with `jimsapi store copy` of that commit, or name another file with --store"
        )
    return found


def _refuse_foreign_tables(connection: sqlite3.Connection, path: str) -> None:
    for table, needed in _NEEDED_COLUMNS.items():
        found = _columns(connection, table)
        if found and (missing := needed - found):
            raise StoreUnusable(
                f"{path}: its table '{table}' is not JIMS's (it lacks {', '.join(sorted(missing))}); "
                "name another file with --store"
            )


def _columns(connection: sqlite3.Connection, table: str) -> set[str]:
    return {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}


def _refuse_damage(connection: sqlite3.Connection, path: str) -> None:
    """Raise `StoreUnusable` if the check, which has a time limit, finds damage. Later reads find the rest."""
    deadline = time.monotonic() + LOOK_FOR_DAMAGE
    connection.set_progress_handler(lambda: time.monotonic() > deadline, 10_000)
    try:
        found = [
            text for (text,) in connection.execute("PRAGMA quick_check(10)") if not text.startswith(HARMLESS_FINDINGS)
        ]
    except sqlite3.OperationalError as error:
        if primary_code(error) != sqlite3.SQLITE_INTERRUPT:
            raise
        return
    finally:
        connection.set_progress_handler(None, 0)
    if found:
        problem = found[0].replace("\n", " ")
        raise StoreUnusable(f"{path}: is damaged ({problem}); {save_what_can_be_read(path)}")


def _cause(path: str, error: sqlite3.Error | UnicodeDecodeError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"{path}: is damaged ({one_line(error)}); {save_what_can_be_read(path)}"
    code = primary_code(error)
    if code in _UNOPENABLE:
        return (
            f"{path}: cannot be opened for reading and writing ({error}); check the permissions of the file and of its "
            f"folder {os.path.dirname(path)}, in which SQLite keeps two more files"
        )
    if code in _DAMAGED:
        return (
            f"{path}: is not an SQLite database, or is damaged ({error}); name another file, or if it is yours, "
            f"{save_what_can_be_read(path)}"
        )
    if code in _LOCKED:
        return f"{path}: another program holds it locked; stop that program and start again"
    if code == sqlite3.SQLITE_FULL:
        return f"{path}: the disk is full; make room and start again"
    if code == sqlite3.SQLITE_IOERR:
        name = getattr(error, "sqlite_errorname", None) or "SQLITE_IOERR"
        return (
            f"{path}: the disk does not do what SQLite needs ({error}, {name}): it may be full, reach a quota, or be "
            f"faulty; check it with `df {os.path.dirname(path)}` and `dmesg`, and start again"
        )
    return f"{path}: cannot be used ({error}); name another file with --store"
