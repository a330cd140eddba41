"""Requests of each kind in this process, without a server or a socket, one after another: for callgrind to count.

`benchmarks.instructions` runs it. Between two kinds, `os.getpgid` is called, which nothing else does: callgrind ends a
part of its counts there. With the variable `CALLS`, this process counts the calls of Python functions itself.
"""

import asyncio
import gc
import itertools
import json
import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType
from typing import Any

os.environ["BENCHMARK_KEY"] = "key"
os.environ["BENCHMARK_ROUTES"] = "10"

from benchmarks.apps import ours
from jimsapi import JimsApp, ThreadContext
from jimsapi.api.app import Api
from jimsapi.asgi import streaming
from jimsapi.plugins.secrets import redact
from jimsapi.runs import housekeeping, watchdog
from jimsapi.server import logs
from jimsapi.server.logs import LogWriter
from jimsapi.threads import ids

REQUESTS, WARM_UP = 200, 100
DELTAS = 10
HEADERS = [
    (b"host", b"127.0.0.1:8080"),
    (b"content-type", b"application/json"),
    (b"authorization", b"Bearer key"),
]
"""As a client sends them, with the length of a body beside."""
FILES = "BENCHMARK_FILES"
"""The variable with the folder of a file store. With it, chats have all beside them that conversations may have."""
CALLS = "BENCHMARK_CALLS"
"""The variable with a file that gets the calls of a request by kind, as JSON."""
numbers = itertools.count()

# A stream gives others a turn after some time, so often on a busy machine. What is counted would depend on that.
streaming._TURN_SECONDS = math.inf
# On a busy machine a request takes longer, and more of what is done from time to time falls into it.
watchdog.BEAT_EVERY = watchdog.CHECK_EVERY = housekeeping.HEARTBEAT_EVERY = 3600.0

# A request calls these when a new millisecond or second has begun, which a slow machine meets more often. They do not
# count.
_OF_CLOCK = {ids._Latest.begin.__code__, logs._timestamp.__wrapped__.__code__, logs._second.__wrapped__.__code__}

Body = Callable[[], bytes]


def nothing() -> bytes:
    """The body of a GET."""
    return b""


def question() -> bytes:
    """A message of a new contact."""
    return b'{"contact_id":"c-%06d","message":"What are Geneva Durben\'s interests?"}' % next(numbers)


def count() -> bytes:
    """A message that is answered by a stream of deltas."""
    return b'{"contact_id":"c-%06d","message":"%d"}' % (next(numbers), DELTAS)


KINDS: dict[str, tuple[str, str, Body, int]] = {
    "healthz": ("GET", "/healthz", nothing, 200),
    "routed GET with a parameter": ("GET", "/things7/chair/parts/7", nothing, 200),
    "validated POST": ("POST", "/messages", question, 200),
    "404": ("GET", "/nowhere", nothing, 404),
    "chat, memory": ("POST", "/api/v1/chat", question, 200),
    "SSE of 10 deltas": ("POST", "/api/v1/chat/stream", count, 200),
    "chat, SQLite": ("POST", "/api/v1/chat", question, 200),
}
"""Method, path, body and the answer's status of each kind of request. SQLite's are asked last."""


async def answer(ctx: ThreadContext) -> None:
    """A pipeline that counts if it is told a number, and else says what it was told."""
    message = ctx.get_last_user_message()
    if message.isdigit():
        for _ in range(int(message)):
            await ctx.stream("Hello ")
    else:
        ctx.send_message(message)


def chatting() -> tuple[JimsApp, dict[str, Any]]:
    """The app of chats, and its further options."""
    files = os.environ.get(FILES)
    if files is None:
        return JimsApp(answer), {}
    from benchmarks.apps.agent import app

    return app, {"files_store": f"file://{files}"}


async def ask(app: Any, method: str, path: str, made: Body, status: int) -> None:
    """One request as a server brings it. Raises `AssertionError` for another status."""
    body = made()
    headers = [*HEADERS, (b"content-length", b"%d" % len(body))] if body else HEADERS.copy()
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 5),
        "scheme": "http",
        "root_path": "",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": headers,
        "state": {},
    }
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])
    answered: list[int] = []

    async def receive() -> Any:
        for message in messages:
            return message
        await asyncio.Event().wait()  # until the client leaves, which it does not

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            answered.append(message["status"])

    await app(scope, receive, send)
    assert answered == [status], (path, answered)


class CallCounter:
    """Counts calls of Python functions, and the steps of coroutines, in the thread of the event loop.

    What the app does in the background falls into some requests. So the count is that of the request with the fewest.
    """

    def __init__(self) -> None:
        self.count = 0
        self._counts: list[int] = []

    @property
    def fewest(self) -> int:
        """The calls of a request, without those of the background."""
        return min(self._counts)

    def end_request(self) -> None:
        """Begin the count of the next request."""
        self._counts.append(self.count)
        self.count = 0

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        """Count an event of the interpreter (`sys.setprofile`)."""
        self.count += event == "call" and frame.f_code not in _OF_CLOCK


async def ask_all(store: str, kinds: Iterable[str], calls: dict[str, float] | None) -> None:
    """Some kinds, each warmed up before it is counted. `calls` gets the calls of a request, if they are counted."""
    writer = LogWriter(as_json=False, redact=redact)  # takes each line; its thread, which writes them, is not started
    bot, further = chatting()
    app = Api(bot, {"store": store, "api_key": ("key",), **further}, on_request=(writer.on_request,))
    ours.jimsapi_routes(app)
    async with app.lifespan():
        for kind in kinds:
            for _ in range(WARM_UP):
                await asyncio.create_task(ask(app, *KINDS[kind]))
            gc.collect()
            gc.disable()
            counter = None if calls is None else CallCounter()
            os.getpgid(0)
            sys.setprofile(counter)
            for _ in range(REQUESTS):
                await asyncio.create_task(ask(app, *KINDS[kind]))
                if counter is not None:
                    counter.end_request()
            sys.setprofile(None)
            os.getpgid(0)
            gc.enable()
            if calls is not None and counter is not None:
                calls[kind] = counter.fewest


async def main(calls: dict[str, float] | None) -> None:
    """All kinds, in their order."""
    *in_memory, in_sqlite = KINDS
    with tempfile.TemporaryDirectory() as folder:
        await ask_all("memory:", in_memory, calls)
        await ask_all(f"sqlite:///{Path(folder)}/jims.db", [in_sqlite], calls)


if __name__ == "__main__":
    import uvloop

    counted: dict[str, float] | None = {} if CALLS in os.environ else None
    uvloop.run(main(counted))
    if counted is not None:
        Path(os.environ[CALLS]).write_text(json.dumps(counted))
    # Leave without the log lines that nobody has written, and without what Python does at its end.
    os._exit(0)
