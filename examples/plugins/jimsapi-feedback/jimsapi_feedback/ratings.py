"""The database of the feedback."""

import asyncio
import sqlite3
import threading
from pathlib import Path
from typing import Self
from uuid import UUID

from jimsapi.plugins import StartError

TABLE = "CREATE TABLE IF NOT EXISTS feedback (run_id TEXT PRIMARY KEY, rating INTEGER, comment TEXT)"


class Ratings:
    """Feedback by run, in an SQLite file or, without a path, in memory. Threads read and write it, one at a time."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock = threading.Lock()

    async def __aenter__(self) -> Self:
        try:
            self._database = sqlite3.connect(self._path or ":memory:", check_same_thread=False, isolation_level=None)
            self._database.execute(TABLE)
        except sqlite3.Error as error:
            raise StartError(f"--feedback-file: cannot open {self._path}: {error}") from None
        return self

    async def __aexit__(self, *_: object) -> None:
        self._database.close()

    async def put(self, run_id: UUID, rating: int, comment: str) -> None:
        """Store feedback for a run."""
        await self._execute("INSERT OR REPLACE INTO feedback VALUES (?, ?, ?)", str(run_id), rating, comment)

    async def get(self, run_id: UUID) -> tuple[int, str] | None:
        """Return rating and comment; None if there are none."""
        rows = await self._execute("SELECT rating, comment FROM feedback WHERE run_id = ?", str(run_id))
        return rows[0] if rows else None

    async def _execute(self, statement: str, *values: str | int) -> list[tuple[int, str]]:
        def execute() -> list[tuple[int, str]]:
            with self._lock:
                return self._database.execute(statement, values).fetchall()

        return await asyncio.to_thread(execute)
