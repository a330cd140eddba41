"""Calls an app as a server would, message by message, for what no client can do or see."""

from collections.abc import AsyncIterator, Iterable
from typing import Any

import anyio
import httpx

from jimsapi.asgi import App, RequestRecord
from jimsapi.asgi.testing import TestClient
from jimsapi.asgi.types import ASGIApp, Message, Scope


def http_scope(method: str = "GET", path: str = "/", **changes: Any) -> Scope:
    """A request's scope as uvicorn gives it; `changes` replace keys, and None takes one away."""
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"test")],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000),
        "state": {},
        **changes,
    }
    return {key: value for key, value in scope.items() if value is not None}


class Exchange:
    """One request: `messages` are what the server has received of it; after them the client stays, or `hangs_up`."""

    def __init__(self, *messages: Message, hangs_up: bool = False) -> None:
        self.waiting = list(messages)
        self.asked = 0
        self.sent: list[Message] = []
        self.left = anyio.Event()
        if hangs_up:
            self.left.set()

    async def receive(self) -> Message:
        self.asked += 1
        if self.waiting:
            return self.waiting.pop(0)
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    async def run(self, app: ASGIApp, scope: Scope) -> "Exchange":
        """Call the app. Raises `TimeoutError` if it does not return within 30 seconds."""
        with anyio.fail_after(30):
            await app(scope, self.receive, self.send)
        return self

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.sent[1:])


def recorded(app: App) -> list[RequestRecord]:
    """What the observers of the app are told from now on."""
    records: list[RequestRecord] = []
    app.on_request.append(records.append)
    return records


async def ask(app: ASGIApp, method: str, path: str, root_path: str = "", **options: Any) -> httpx.Response:
    """One request by the client for tests, in a lifespan of its own."""
    async with TestClient(app, root_path=root_path) as client:
        return await client.request(method, path, **options)


async def yielding(*items: bytes | str) -> AsyncIterator[bytes | str]:
    """The content of a stream."""
    for item in items:
        yield item


def chunks(*parts: bytes) -> Iterable[Message]:
    """A body in parts, as a server hands them on."""
    last = len(parts) - 1
    for index, part in enumerate(parts):
        yield {"type": "http.request", "body": part, "more_body": index < last}
