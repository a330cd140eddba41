"""Servers with a metrics port, and one on which everything happens that the dashboard and the rules look at."""

import base64
import http.server
import resource
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

import httpx

from tests.plugins.distributions import install
from tests.ports import free_port
from tests.serving import Served

KEY = "k" * 16
ADMITTED = {"authorization": f"Bearer {KEY}"}
SHAKY = {"authorization": "Bearer shaky"}
SECRET = "whsec_" + base64.b64encode(b"a signing key of thirty-two byte").decode()
MAX_RUNS = 3
CHAT, RUNS = "/api/v1/chat", "/api/v1/runs"
TROUBLED = """
from pathlib import Path

from jimsapi import AuthUnavailable, hookimpl


class Shaky:
    name = "shaky"

    async def authenticate(self, connection):
        if connection.headers.get("authorization") == "Bearer shaky" and not Path("repaired").exists():
            raise AuthUnavailable("its issuer does not answer")


class Away:
    name = "away"

    async def deliver(self, events):
        raise OSError("the receiver is away")


class Broken:
    def collect(self):
        raise RuntimeError("broken")


@hookimpl
def jimsapi_auth_provider():
    return Shaky()


@hookimpl
def jimsapi_event_sink():
    return Away()


@hookimpl
def jimsapi_metrics(registry):
    registry.register(Broken())
"""
"""A plugin with an auth provider, a sink and a collector that fail. A file `repaired` repairs the provider."""
STRICT = """
from jimsapi import hookimpl
from jimsapi.runs import EventRefused


class Strict:
    name = "strict"
    durable = True

    async def deliver(self, events):
        raise EventRefused("it accepts no event", events)


@hookimpl
def jimsapi_event_sink():
    return Strict()
"""
"""A plugin with a durable sink, for which every event becomes a dead letter."""


class Observed(Served):
    """A server with a metrics port of its own on 127.0.0.1. `metrics_port` is its number."""

    def __init__(self, *options: str, folder: Path | None = None, env: Mapping[str, str] | None = None) -> None:
        self.metrics_port = free_port()
        metrics = ("--metrics-host", "127.0.0.1", "--metrics-port", str(self.metrics_port))
        super().__init__(*metrics, *options, folder=folder, env=env)

    @property
    def metrics_url(self) -> str:
        """What Prometheus scrapes."""
        return f"http://127.0.0.1:{self.metrics_port}/metrics"

    @property
    def log_file(self) -> Path:
        """What its log is written to."""
        return Path(self._log)


def troubled(folder: Path) -> Observed:
    """A server for `trouble`, with an SQLite database in `folder`. It is not started yet."""
    install(folder, "acme-troubled", TROUBLED)
    install(folder, "acme-strict", STRICT)
    options = ("--store", "sqlite:///troubled.db", "--api-key", KEY, "--max-runs", str(MAX_RUNS))
    webhooks = ("--webhook-secret", SECRET, "--webhook-allow-private")
    return Observed("--app", "tests.apps.scripted:app", *options, *webhooks, folder=folder)


@contextmanager
def rejecting_receiver() -> Iterator[str]:
    """A receiver of webhooks that rejects all of them. Gives its URL."""

    class Reject(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_error(HTTPStatus.BAD_REQUEST)

        def log_message(self, *_: object) -> None:
            """Write nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Reject)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def trouble(served: Observed, receiver: str) -> None:
    """Let happen once, or a few times, on a `troubled` server what the dashboard and the rules look at."""
    async with served.async_client(headers=ADMITTED) as client:
        await chat(client, "ann", "use 120; send Hello")
        (
            await client.post(f"{CHAT}/stream", json={"contact_id": "ann", "message": "stream a; send b"})
        ).raise_for_status()
        assert (await chat(client, "bob", "raise broken")).status_code == 500
        assert (await client.post(CHAT, headers=SHAKY, json={"contact_id": "ann", "message": "hi"})).status_code == 503
        assert (await client.post(CHAT, headers={"authorization": "Bearer wrong"}, json={})).status_code == 401
        called = {"contact_id": "ann", "message": "hi", "webhook_url": receiver}
        (await client.post(CHAT, json=called)).raise_for_status()
        holding = [await begin(client, str(number), "hold door") for number in range(MAX_RUNS)]
        assert (await chat(client, "cid", "hi")).status_code == 503
        for run in holding:
            (await client.post(f"{RUNS}/{run}/cancel")).raise_for_status()


@contextmanager
def no_room(served: Served) -> Iterator[None]:
    """The process may not enlarge any file, as under a quota that is used up. It also loses its log lines meanwhile."""
    before = resource.prlimit(served.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(served.pid, resource.RLIMIT_FSIZE, (1024, before[1]))
    try:
        yield
    finally:
        resource.prlimit(served.pid, resource.RLIMIT_FSIZE, before)


async def begin(client: httpx.AsyncClient, contact: str, message: str) -> str:
    """Begin a run in the background. Returns its identifier."""
    begun = await client.post(RUNS, json={"contact_id": contact, "message": message})
    run: str = begun.raise_for_status().json()["run_id"]
    return run


async def chat(client: httpx.AsyncClient, contact: str, message: str) -> httpx.Response:
    """Send a message and return the answer."""
    return await client.post(CHAT, json={"contact_id": contact, "message": message})
