"""Threads that are stored before a server starts: plain rows in JIMS's own tables, events a second apart."""

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

KINDS = {
    "a mixture": ["comm.user_message", "rag.query_processed", "state.set.mood", "comm.assistant_message"],
    "comm.* alone": ["comm.user_message", "comm.assistant_message"],
    "own types alone": ["rag.query_processed", "rag.chunk_found"],
    "one state": ["state.set.mood"],
}
"""Types of events that take turns in a thread."""
MESSAGES, CALLS = "comm.* alone", "calls of tools"
TYPES = {**KINDS, CALLS: ["tool.call"]}
"""All kinds that threads may be of."""
DATA = json.dumps({"role": "user", "content": "What are the interests of somebody who is asked about? " * 3})

Thread = tuple[str, str, int]
"""A contact, the kind of its only thread's events, and how many they are."""

SQLITE_NUMBERS = "WITH RECURSIVE numbers(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < :many)"
SQLITE_THREADS = "INSERT INTO threads (thread_id, contact_id, created_at, thread_config)"
SQLITE_EVENTS = "INSERT INTO thread_events (thread_id, event_id, created_at, event_type, event_data)"
SQLITE_ONE = (
    f"{SQLITE_THREADS} VALUES (:thread, :contact, '2025-01-01 00:00:00.000000', '{{}}')",
    f"""
    {SQLITE_NUMBERS} {SQLITE_EVENTS}
    SELECT :thread, substr(:thread, 1, 16) || printf('%016x', n), datetime('2025-01-01', n || ' seconds') || '.000000',
        json_extract(:types, '$[' || (n % json_array_length(:types)) || ']'), :data
    FROM numbers
    """,
)
SQLITE_MANY = (
    f"""
    {SQLITE_NUMBERS} {SQLITE_THREADS}
    SELECT printf('%032x', n), 'contact ' || n, '2025-01-01 00:00:00.000000', '{{}}' FROM numbers
    """,
    f"""
    {SQLITE_NUMBERS} {SQLITE_EVENTS}
    SELECT printf('%032x', n), printf('%016x%016x', n, key), datetime('2025-01-01', key || ' seconds') || '.000000',
        value, :data
    FROM numbers, json_each(:types)
    """,
)
POSTGRES_THREADS = """
    INSERT INTO threads (thread_id, contact_id, created_at, thread_config)
    SELECT md5(contact)::uuid, contact, timestamp '2025-01-01', '{}' FROM (SELECT %s AS contact %s) named;
"""
POSTGRES_EVENTS = """
    INSERT INTO thread_events (thread_id, event_id, created_at, event_type, event_data)
    SELECT md5(contact)::uuid, (left(md5(contact), 16) || lpad(to_hex(n), 16, '0'))::uuid,
        timestamp '2025-01-01' + n * interval '1 second', (ARRAY%s)[1 + n %% %s], $data$%s$data$
    FROM (SELECT %s AS contact %s) named, generate_series(0, %s - 1) n;
"""


def fill_sqlite(path: Path, threads: Iterable[Thread]) -> None:
    """Write threads into the tables of an SQLite database that no server uses now."""
    with filling(path) as connection:
        for contact, kind, length in threads:
            thread_id = hashlib.md5(contact.encode()).hexdigest()
            values = {"thread": thread_id, "contact": contact, "many": length, "types": json.dumps(TYPES[kind])}
            for sql in SQLITE_ONE:
                connection.execute(sql, {**values, "data": DATA})


def fill_sqlite_with_many(path: Path, number: int, kind: str) -> None:
    """Write so many contacts, `contact 0` and so on, each with a thread of one event of each type of a kind."""
    with filling(path) as connection:
        for sql in SQLITE_MANY:
            connection.execute(sql, {"many": number, "types": json.dumps(TYPES[kind]), "data": DATA})


@contextmanager
def filling(path: Path) -> Iterator[sqlite3.Connection]:
    """A database that is written to without regard to a crash, and committed at the end."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA cache_size = -400000")
        yield connection
        connection.commit()


def fill_postgres(postgres: Any, database: str, threads: Iterable[Thread]) -> None:
    """Write threads into the tables of a PostgreSQL database."""
    sql = []
    for contact, kind, length in threads:
        types = TYPES[kind]
        sql.append(POSTGRES_THREADS % (f"'{contact}'", ""))
        sql.append(POSTGRES_EVENTS % (types, len(types), DATA, f"'{contact}'", "", length))
    postgres.psql("BEGIN;" + "".join(sql) + "COMMIT;", database)


def fill_postgres_with_many(postgres: Any, database: str, number: int, kind: str) -> None:
    """Write into the tables of a PostgreSQL database what `fill_sqlite_with_many` writes."""
    types = TYPES[kind]
    named = "'contact ' || each", f"FROM generate_series(0, {number} - 1) each"
    sql = POSTGRES_THREADS % named + POSTGRES_EVENTS % (types, len(types), DATA, *named, len(types))
    postgres.psql(sql, database)
