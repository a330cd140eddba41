"""PostgreSQL servers, and stores on them."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from jimsapi_postgres.schema import prepare
from jimsapi_postgres.store import PostgresStore
from jimsapi_postgres.url import parse_url

from tests.serving import Served

# Tests are collected by path, so that a helper beside them has to be put within reach.
sys.path.insert(0, str(Path(__file__).parent))

from database import Postgres  # they are within reach only now
from jims_process import Jims


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A server that tests share, each with a database of its own. It does not sync: nothing here outlives it."""
    with Postgres(fsync="off") as server:
        yield server


@pytest.fixture
def database(postgres: Postgres) -> Iterator[str]:
    """The name of a new, empty database."""
    with postgres.database() as name:
        yield name


@pytest.fixture
def url(postgres: Postgres, database: str) -> str:
    """Where a new, empty database is."""
    return postgres.url(database)


@pytest.fixture
async def store(url: str) -> AsyncIterator[PostgresStore]:
    """A store in a new database."""
    async with PostgresStore(url) as store:
        yield store


@pytest.fixture
async def outside(url: str) -> AsyncIterator[Any]:
    """Another program's connection to that database."""
    connection = await asyncpg.connect(url)
    yield connection
    await connection.close()


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """A server that the test may stop and break."""
    with Postgres(fsync="off") as server:
        yield server


@pytest.fixture(scope="session")
def shared_url(postgres: Postgres) -> Iterator[str]:
    """A database with our tables, which those empty who use it."""
    with postgres.database() as name:
        asyncio.run(prepare(parse_url(postgres.url(name)), wait=None))
        yield postgres.url(name)


@pytest.fixture(scope="session")
def jims_process() -> Iterator[Jims]:
    """A program on jims-core that tests share, one after another: its start takes seconds."""
    with Jims() as jims:
        yield jims


@pytest.fixture
def jims(jims_process: Jims, url: str) -> Iterator[Jims]:
    """A program on jims-core at the test's database. It has made its tables."""
    jims_process.open(url)
    yield jims_process
    jims_process.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Served]:
    """Makes a server process on a database, with the bot of `witness.py`; it is not started yet."""
    env = {"WITNESS_FOLDER": str(tmp_path_factory.mktemp("witness"))}

    def make(url: str, *options: str) -> Served:
        return Served("--app", "witness:app", "--store", url, *options, folder=Path(__file__).parent, env=env)

    return make
