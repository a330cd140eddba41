"""SQLite databases of tests: the tables of JIMS, and what other programs and processes do with a database."""

import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from jimsapi.stores.sqlite import SQLiteStore

LOAD = Path(__file__).with_name("sqlite_load.py")
JIMS_SCHEMA = """
CREATE TABLE threads (
    thread_id UUID NOT NULL,
    contact_id VARCHAR,
    external_id VARCHAR,
    created_at DATETIME NOT NULL,
    thread_config JSON NOT NULL,
    PRIMARY KEY (thread_id)
);
CREATE INDEX ix_threads_external_id ON threads (external_id);
CREATE INDEX ix_threads_contact_id ON threads (contact_id);
CREATE TABLE thread_events (
    thread_id UUID NOT NULL,
    event_id UUID NOT NULL,
    created_at DATETIME DEFAULT CURRENT_TIMESTAMP NOT NULL,
    event_type VARCHAR(255) NOT NULL,
    event_domain VARCHAR(255),
    event_name VARCHAR(255),
    event_data JSON,
    PRIMARY KEY (thread_id, event_id)
);
"""


def ask(path: Path, statement: str, *values: object) -> list[Any]:
    """Execute a statement as another program does, and return its rows."""
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(statement, values).fetchall()


def add_event(path: Path, thread_id: str, event_id: str, **columns: object) -> None:
    """Add an event as another program does, which may leave its time to SQLite."""
    row = {"thread_id": thread_id, "event_id": event_id, **columns}
    ask(path, f"INSERT INTO thread_events ({', '.join(row)}) VALUES ({', '.join('?' for _ in row)})", *row.values())


async def open_and_close(path: Path) -> None:
    """Start on a database, and stop."""
    async with SQLiteStore(path):
        pass


def steps(connection: sqlite3.Connection, work: Callable[[], object], unit: int = 1) -> int:
    """Return the number of SQLite's instructions that work takes, in units of so many."""
    ticks: list[None] = []
    connection.set_progress_handler(lambda: ticks.append(None), unit)
    try:
        work()
    finally:
        connection.set_progress_handler(None, 0)
    return len(ticks)


@contextmanager
def started(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A Python process with a pipe to it and from it, which is killed in the end."""
    command: Sequence[str] = [sys.executable, *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def line_of(process: subprocess.Popen[str]) -> str:
    """Return the next line that a process writes."""
    assert process.stdout is not None
    return process.stdout.readline()
