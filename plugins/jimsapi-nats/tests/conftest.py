"""NATS servers, and two servers of jimsapi on one database."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.plugins.modules import load
from tests.serving import Served

# Tests are collected by path, so that a helper beside them has to be put within reach.
sys.path.insert(0, str(Path(__file__).parent))

from nats_server import NatsServer  # it is within reach only now


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
def url(postgres: Any) -> Iterator[str]:
    """Where a new, empty database is."""
    with postgres.database() as name:
        yield postgres.url(name)


@pytest.fixture
def replicas(url: str, server: NatsServer) -> Iterator[tuple[Served, Served]]:
    """Two servers on one database and one NATS, with the scripted bot."""
    options = ("--app", "tests.apps.scripted:app", "--store", url)
    env = {"JIMS_NATS_URL": server.url}
    with Served(*options, env=env) as one, Served(*options, env=env) as other:
        yield one, other
