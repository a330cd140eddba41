"""The contract of observers, and what arrives at a StatsD server."""

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from jimsapi.asgi.testing import TestClient
from jimsapi.testing import ObserverContract


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.settimeout(10)
        yield listening


class TestStatsd(ObserverContract):
    distribution = "jimsapi-statsd"

    @pytest.fixture(autouse=True)
    def listen(self, server: socket.socket) -> None:
        self.server_port = server.getsockname()[1]

    @property
    def settings(self) -> dict[str, Any]:
        return {"statsd_server": f"127.0.0.1:{self.server_port}"}


def received(server: socket.socket, wanted: set[str]) -> set[str]:
    """Read packets until the counters `wanted` have arrived. Returns the names of all metrics."""
    names = set[str]()
    while not wanted <= names:
        names.update(line.partition(":")[0] for line in server.recv(65535).decode().splitlines())
    return names


@pytest.mark.anyio
async def test_requests_runs_admissions_and_commits_arrive(
    jimsapi_client: Callable[..., TestClient], server: socket.socket
) -> None:
    address = f"127.0.0.1:{server.getsockname()[1]}"
    async with jimsapi_client(statsd_server=address, statsd_prefix="bot", api_key="open-sesame") as client:
        for key in ("open-sesame", "simsim"):
            headers = {"authorization": f"Bearer {key}"}
            await client.post("/api/v1/chat", json={"contact_id": "ann", "message": "hi"}, headers=headers)
        wanted = {"requests.200", "requests.401", "runs.completed", "admissions.key.admitted", "commits.done"}
        names = received(server, {f"bot.{name}" for name in wanted})
    assert names >= {"bot.requests", "bot.runs", "bot.runs.waited", "bot.commits", "bot.admissions.key.invalid"}


@pytest.mark.anyio
@pytest.mark.parametrize("address", ["localhost", ":8125", "localhost:port", "localhost:65536"])
async def test_an_invalid_address_stops_the_start(jimsapi_client: Callable[..., TestClient], address: str) -> None:
    with pytest.raises(RuntimeError, match="is not an address: give HOST:PORT"):
        async with jimsapi_client(statsd_server=address):
            pass
