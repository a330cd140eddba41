"""A store that cannot write when a run ends: 503, then recovery by itself, with the outcome and without a locked thread."""

import asyncio
import resource
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import pytest

from tests.reliability.database import said, statuses
from tests.reliability.paced import paced_server, until
from tests.reliability.wire import Wire, once
from tests.serving import Served

pytestmark = pytest.mark.anyio

OUTAGE = 5.0
UNAVAILABLE = {"detail": "The store is not available; try again later"}

Break = Callable[[Served, Path], AbstractContextManager[None]]


@contextmanager
def locked(served: Served, database: Path) -> Iterator[None]:
    """Another program holds the database's write lock."""
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@contextmanager
def limited(served: Served, database: Path) -> Iterator[None]:
    """The process may write to no file beyond its first few bytes, as under a quota that is used up."""
    before = resource.prlimit(served.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(served.pid, resource.RLIMIT_FSIZE, (1024, before[1]))
    yield
    resource.prlimit(served.pid, resource.RLIMIT_FSIZE, before)


@contextmanager
def filled(served: Served, database: Path) -> Iterator[None]:
    """The disk that holds the database is full."""
    filler = database.with_name("filler")
    with filler.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while file.write(b"\0" * size):
                    pass
            except OSError:
                continue
    yield
    filler.unlink()


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A disk of 2 MiB, mounted in `folder`. Raises `CalledProcessError` where mounting is not allowed."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], check=True, capture_output=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
