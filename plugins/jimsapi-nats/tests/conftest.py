"""NATS servers, and two servers of jimsapi on one database."""

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.restarts import Notes
from tests.plugins.modules import load

# Tests are collected by path, so that a helper beside them has to be put within reach.
sys.path.insert(0, str(Path(__file__).parent))

from nats_server import NatsServer  # they are within reach only now
from worker_processes import Site


@pytest.fixture
def server() -> Iterator[NatsServer]:
    """A server that the test may stop. It has no stream."""
    with NatsServer() as running:
        yield running


@pytest.fixture(scope="session")
def postgres() -> Iterator[Any]:
    """A PostgreSQL server that tests share, each with a database of its own."""
    database = load(Path(__file__).parents[2] / "jimsapi-postgres" / "tests" / "database.py")
    with database.Postgres(fsync="off") as running:
        yield running


@pytest.fixture
def database(postgres: Any) -> Iterator[str]:
    """The name of a new, empty database."""
    with postgres.database() as name:
        yield name


@pytest.fixture
def url(postgres: Any, database: str) -> str:
    """Where a new, empty database is."""
    found: str = postgres.url(database)
    return found


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    """What the runs of the bot note."""
    return Notes(tmp_path)


@pytest.fixture
def site(postgres: Any, database: str, server: NatsServer, notes: Notes) -> Site:
    """A database and a NATS server with a queue of runs."""
    asyncio.run(server.add_queue())
    return Site(postgres, database, server, notes.env)
