"""Servers with pages, of an app that does what its messages say."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.plugins.distributions import install
from tests.serving import Served

SCRIPTED = ("--app", "tests.apps.scripted:app")
KEY = "clients-key"


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the plugin with the pages is installed."""
    folder = tmp_path_factory.mktemp("clients")
    install(folder, "jimsapi-pages", "", point="pages = tests.clients.pages")
    return folder


@pytest.fixture(scope="session")
def headers() -> dict[str, str]:
    """What opens the server that has a key."""
    return {"authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="session")
def served(folder: Path) -> Iterator[Served]:
    """A server that asks for a key."""
    with Served(*SCRIPTED, "--api-key", KEY, folder=folder) as server:
        yield server


@pytest.fixture(scope="session")
def public(folder: Path) -> Iterator[Served]:
    """A server that asks for nothing."""
    with Served(*SCRIPTED, folder=folder) as server:
        yield server
