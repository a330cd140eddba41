"""One served process a module, and a client of it."""

from collections.abc import Iterator

import httpx
import pytest

from tests.serving import Served


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """A public server that keeps threads in memory; modules that need another override this."""
    with Served() as server:
        yield server


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[httpx.Client]:
    """A client of the module's server."""
    with served.client() as client:
        yield client
