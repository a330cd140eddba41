"""What an SQLite store of the service holds, read past the service."""

import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    """The rows of a query over a database."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def said(path: Path, role: str) -> Counter[str]:
    """How often each text was said by `user` or `assistant`, in all threads."""
    query = f"SELECT json_extract(event_data, '$.content') FROM thread_events WHERE event_type = 'comm.{role}_message'"
    return Counter(content for (content,) in rows(path, query))


def runs(path: Path) -> dict[str, str]:
    """Each run's status."""
    return dict(rows(path, "SELECT run_id, status FROM jimsapi_runs"))


def statuses(path: Path) -> Counter[str]:
    """How many runs have each status."""
    return Counter(runs(path).values())
