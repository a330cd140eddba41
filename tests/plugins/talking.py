"""Fixtures for plugins that speak another protocol: a bot that does what its message says, behind a key."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from jimsapi import create_api
from jimsapi.asgi.testing import TestClient
from tests.apps.scripted import Scripted
from tests.plugins.distributions import install
from tests.serving import ROOT, Served

KEY = "suite-key"


@pytest.fixture(scope="session")
def served() -> Iterator[Served]:
    """A real server, for clients that need one."""
    with Served("--app", "tests.apps.scripted:app", "--api-key", KEY) as server:
        yield server


@pytest.fixture(scope="session")
def key() -> str:
    """The key of that server."""
    return KEY


@pytest.fixture
def bot() -> Scripted:
    """The bot of `client`."""
    return Scripted()


@pytest.fixture
def settings() -> dict[str, Any]:
    """Options of `client`'s server; a module or test that needs others overrides it."""
    return {}


@pytest.fixture
async def client(bot: Scripted, settings: dict[str, Any]) -> AsyncIterator[TestClient]:
    """A client of a public server in this process."""
    async with TestClient(create_api(bot, store="memory:", **settings)) as client:
        yield client


@pytest.fixture
def people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Callers with an identity, by the header `x-user`: `ann` and `bea` are bound to their contacts, `root` is not."""
    install(tmp_path, "jimsapi-users", (ROOT / "tests" / "apps" / "jimsapi_users.py").read_text())
    monkeypatch.syspath_prepend(str(tmp_path))
