"""PostgreSQL servers, and stores on them."""

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from jimsapi_postgres.schema import prepare
from jimsapi_postgres.url import parse_url

# Tests are collected by path, so that a helper beside them has to be put within reach.
sys.path.insert(0, str(Path(__file__).parent))

from database import Postgres  # it is within reach only now


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No option comes from outside."""
    for variable in list(os.environ):
        if variable.startswith(("JIMS_", "PG")):
            monkeypatch.delenv(variable)


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
