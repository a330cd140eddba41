"""A database for tests of the SQLite store."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from jimsapi.stores.sqlite import SQLiteStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the database is; a store or a test makes it."""
    return tmp_path / "jims.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SQLiteStore]:
    """A store at `path`."""
    async with SQLiteStore(path, durability="relaxed") as store:
        yield store
