"""Issuers, and APIs that trust them."""

import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from jimsapi_oidc import OidcOptions
from jimsapi_oidc.issuer import PACE, Pace
from jimsapi_oidc.metrics import Counts
from jimsapi_oidc.provider import OidcProvider

# Tests are collected by path, so that a helper beside them has to be put within reach.
sys.path.insert(0, str(Path(__file__).parent))

from fake_issuer import AUDIENCE, FakeIssuer  # it is within reach only now


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def issuer() -> Iterator[FakeIssuer]:
    """An issuer that the tests of a module share. A test that changes the issuer uses `fresh_issuer`."""
    with FakeIssuer() as issuer:
        yield issuer


@pytest.fixture(scope="module")
def _changing_issuer() -> Iterator[FakeIssuer]:
    with FakeIssuer() as issuer:
        yield issuer


@pytest.fixture
def fresh_issuer(_changing_issuer: FakeIssuer) -> FakeIssuer:
    """An issuer that the test may change, break and stop: it is as new."""
    _changing_issuer.start()
    _changing_issuer.reset()
    return _changing_issuer


@dataclass
class Clock:
    """Clocks that a test advances, in seconds: `now` since 1970, `ticks` of the monotonic clock."""

    now: float
    ticks: float = 1000.0

    def wall(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.ticks

    def pass_by(self, seconds: float) -> None:
        self.now += seconds
        self.ticks += seconds


@pytest.fixture
def clock() -> Clock:
    """The time of now, standing still."""
    return Clock(time.time())


@pytest.fixture
def make_provider(clock: Clock) -> Callable[..., OidcProvider]:
    """Makes a provider that trusts an issuer: `make_provider(issuer, pace=Pace(...), **options)`."""

    def make(issuer: FakeIssuer, pace: Pace = PACE, **options: Any) -> OidcProvider:
        trusted = {"issuer": issuer.url, "audience": (AUDIENCE,), "ca_file": issuer.ca_file}
        resolved = OidcOptions(**{**trusted, **options})
        return OidcProvider(resolved, Counts(), pace=pace, clock=clock.wall, monotonic=clock.monotonic)

    return make


class Trap:
    """A port that must stay unvisited."""

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self._socket.listen()
        self._socket.setblocking(False)
        self.port: int = self._socket.getsockname()[1]

    def url(self, path: str = "/keys") -> str:
        return f"https://127.0.0.1:{self.port}{path}"

    def was_visited(self) -> bool:
        try:
            self._socket.accept()
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(scope="module")
def trap() -> Iterator[Trap]:
    """A port to which an attacker's token points."""
    trap = Trap()
    yield trap
    trap.close()
