"""Answers: what is sent, and how a stream ends."""

import asyncio
import gc
import logging
import weakref
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import anyio
import msgspec
import pytest
from anyio.lowlevel import checkpoint

from jimsapi.asgi import (
    App,
    EventStreamResponse,
    JSONResponse,
    Request,
    Response,
    ServerSentEvent,
    StreamingResponse,
    streaming,
)
from jimsapi.asgi.extension import EXTENSION, ServerExchange
from jimsapi.asgi.types import ASGIApp, Scope

from .driver import Exchange, chunks, http_scope, yielding

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def serving(response: Any) -> App:
    app = App()

    @app.get("/")
    async def handler(request: Request) -> Response:
        made = response() if callable(response) else response
        assert isinstance(made, Response)
        return made

    app.post("/")(handler)
    return app


# Bytes and JSON.


def test_a_text_answer_has_its_length_and_type() -> None:
    response = Response("é")
    assert (response.status, response.body) == (200, b"\xc3\xa9")
    assert response.raw_headers == [(b"content-length", b"2"), (b"content-type", b"text/plain; charset=utf-8")]
    assert Response(b"x", content_type=None).raw_headers == [(b"content-length", b"1")]
    assert (b"content-length", b"5000") in Response("x" * 5000).raw_headers


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_without_a_body_has_no_length(status: int) -> None:
    response = Response("ignored", status, {"x-a": "b"})
    assert (response.body, response.raw_headers) == (b"", [(b"x-a", b"b")])


def test_json_is_compact_and_knows_ids_times_and_structs() -> None:
    class Point(msgspec.Struct):
        x: int

    moment = datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)
    response = JSONResponse({"id": UUID(int=1), "at": moment, "point": Point(1), "e": "é"}, 201, {"x-run-id": "r"})
    assert response.body == (
        '{"id":"00000000-0000-0000-0000-000000000001","at":"2024-01-02T03:04:05Z","point":{"x":1},"e":"é"}'.encode()
    )
    assert (b"content-type", b"application/json") in response.raw_headers
    assert (b"x-run-id", b"r") in response.raw_headers


@pytest.mark.parametrize(
    ("name", "value"),
    [("x", "a\r\nset-cookie: b"), ("x", "a\nb"), ("x", "\0"), ("x y", "a"), ("", "a"), ("x", "名"), ("x\n", "a")],
)
def test_a_header_that_http_cannot_carry_is_refused(name: str, value: str) -> None:
    with pytest.raises(ValueError, match="header"):
        Response(headers={name: value})


@pytest.mark.parametrize(("name", "value"), [("retry-after", 5), (b"x", "y"), ("x", None)])
def test_a_header_that_is_no_text_is_named(name: Any, value: Any) -> None:
    with pytest.raises(TypeError, match=r"^The header b?'(retry-after|x)' and its value must both be a str, not"):
        Response(headers={name: value})


@pytest.mark.parametrize("body", [5, None, ["a"], {"a": 1}])
def test_a_body_that_is_neither_text_nor_bytes_is_refused(body: Any) -> None:
    with pytest.raises(TypeError, match=f"is a str or bytes, not {type(body).__name__}"):
        Response(body)


@pytest.mark.parametrize("body", ["ab", b"ab", bytearray(b"ab"), memoryview(b"ab")])
def test_a_body_is_text_or_bytes_of_any_kind(body: Any) -> None:
    assert Response(body).body == b"ab"


async def test_an_item_of_a_stream_that_is_neither_text_nor_bytes_is_refused() -> None:
    async def content() -> AsyncIterator[Any]:
        yield b"a"
        yield 5

    with pytest.raises(TypeError, match="is a str or bytes, not int"):
        await Exchange(*chunks(b"")).run(serving(lambda: StreamingResponse(content())), http_scope())


def test_the_length_is_not_the_caller_s_to_say_and_the_type_is() -> None:
    with pytest.raises(ValueError, match="follows from the body"):
        Response("x", headers={"Content-Length": "5"})
    given = Response("x", headers={"Content-Type": "text/html"})
    assert [value for name, value in given.raw_headers if name == b"content-type"] == [b"text/html"]


async def test_one_response_may_answer_many_requests() -> None:
    app = serving(JSONResponse({"status": "ok"}))
    answers = [await Exchange().run(app, http_scope()) for _ in range(3)]
    assert len({len(answer.sent[0]["headers"]) for answer in answers}) == 1
    assert len({id(answer.sent[0]["headers"]) for answer in answers}) == 3


# Streams.


async def test_a_stream_sends_each_chunk_and_then_an_end() -> None:
    exchange = await Exchange().run(serving(lambda: StreamingResponse(yielding(b"a", "é"))), http_scope())
    assert [message["body"] for message in exchange.sent[1:]] == [b"a", "é".encode(), b""]
    assert [message["more_body"] for message in exchange.sent[1:]] == [True, True, False]
    assert "content-length" not in exchange.headers


MOST_CHUNKS = 1_000_000
"""Content that nobody has ended after so many chunks fails, before it has taken all memory."""


class Watched:
    """Content that says what happened to it."""

    def __init__(self, *, fails: bool = False, endless: bool = False, awaits: bool = True) -> None:
        self.fails, self.endless, self.awaits = fails, endless, awaits
        self.begun = anyio.Event()
        self.closed = anyio.Event()
        self.count = 0

    async def items(self) -> AsyncIterator[bytes]:
        try:
            while True:
                self.count += 1
                assert self.count < MOST_CHUNKS, "nobody has ended this content"
                yield b"x"
                self.begun.set()
                if self.fails:
                    raise LookupError("torn")
                if self.endless and self.awaits:
                    await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await checkpoint()  # a generator that cannot be closed without awaiting
            self.closed.set()


@pytest.mark.parametrize("awaits", [True, False], ids=["waiting", "tight"])
async def test_a_client_that_leaves_ends_the_content_and_closes_it(awaits: bool) -> None:
    content = Watched(endless=True, awaits=awaits)
    exchange = Exchange(*chunks(b""))

    async def leave() -> None:
        await content.begun.wait()
        exchange.left.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(leave)
        await exchange.run(serving(lambda: StreamingResponse(content.items())), http_scope())
    assert content.closed.is_set()
    assert all(message.get("more_body", True) for message in exchange.sent)


async def test_content_that_is_closed_between_two_chunks_may_await_to_clean_up() -> None:
    cleaned = []
    exchange = Exchange(*chunks(b""))

    async def content() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x"
                exchange.left.set()
        finally:
            await checkpoint()
            cleaned.append(True)

    await exchange.run(serving(lambda: StreamingResponse(content())), http_scope())
    assert cleaned == [True]


async def test_a_tight_stream_does_not_hold_up_other_tasks() -> None:
    content = Watched(endless=True, awaits=False)
    exchange = Exchange(*chunks(b""))
    turns = 0

    async def others() -> None:
        nonlocal turns
        while turns < 20:
            await checkpoint()
            turns += 1
        exchange.left.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(others)
        await exchange.run(serving(lambda: StreamingResponse(content.items())), http_scope())
    assert turns == 20


async def test_a_tight_stream_does_not_hold_up_other_tasks_while_the_clock_stands_still(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streaming, "monotonic", lambda: 5.0)
    content = Watched(endless=True, awaits=False)
    exchange = Exchange(*chunks(b""))

    async def leave() -> None:
        exchange.left.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(leave)
        await exchange.run(serving(lambda: StreamingResponse(content.items())), http_scope())
    assert content.closed.is_set()


async def test_content_that_fails_is_raised_plain_and_never_looks_finished() -> None:
    content = Watched(fails=True)
    exchange = Exchange(*chunks(b""))
    with pytest.raises(LookupError, match="torn"):
        await exchange.run(serving(lambda: StreamingResponse(content.items())), http_scope())
    assert content.closed.is_set()
    assert exchange.sent[-1]["more_body"] is True


async def test_content_that_fails_with_a_system_error_is_not_taken_for_a_client_that_left() -> None:
    async def content() -> AsyncIterator[bytes]:
        yield b"x"
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        await Exchange(*chunks(b"")).run(serving(lambda: StreamingResponse(content())), http_scope())


async def test_a_send_that_says_the_client_left_closes_the_content_quietly() -> None:
    content = Watched(endless=True)
    exchange = Exchange(*chunks(b""))

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            raise OSError("gone")

    with anyio.fail_after(30):
        await serving(lambda: StreamingResponse(content.items()))(http_scope(), exchange.receive, send)
    assert content.closed.is_set()


async def test_a_cancelled_request_closes_the_content() -> None:
    content = Watched(endless=True)
    exchange = Exchange(*chunks(b""))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(exchange.run, serving(lambda: StreamingResponse(content.items())), http_scope())
        await content.begun.wait()
        tasks.cancel_scope.cancel()
    assert content.closed.is_set()


async def test_head_of_a_stream_does_not_iterate_it_and_closes_it() -> None:
    content = Watched()
    items = content.items()
    exchange = await Exchange().run(serving(lambda: StreamingResponse(items)), http_scope("HEAD"))
    assert [message.get("body") for message in exchange.sent] == [None, b""]
    assert content.count == 0
    assert [item async for item in items] == []


async def test_a_stream_may_answer_while_it_reads_the_request() -> None:
    app = App()

    @app.post("/")
    async def echo(request: Request) -> Response:
        return StreamingResponse(request.stream())

    exchange = Exchange(*chunks(b"a", b"b", b"c"))
    await exchange.run(app, http_scope("POST", headers=[(b"transfer-encoding", b"chunked")]))
    assert exchange.body == b"abc"


async def test_a_stream_does_not_read_a_long_body_that_nobody_wants() -> None:
    exchange = Exchange(*chunks(b"x", b"y"))
    headers = [(b"content-length", b"99999999")]
    await exchange.run(serving(lambda: StreamingResponse(yielding(b"a", b"b"))), http_scope("POST", headers=headers))
    assert (exchange.asked, exchange.headers["connection"]) == (0, "close")


class Stuck(Exchange):
    """A client that reads the start of the answer, and then as many chunks as `reads`."""

    def __init__(self, reads: int = 0) -> None:
        super().__init__(*chunks(b""))
        self.reads = reads
        self.refused = 0
        self.direct_app: object | None = None
        self.gone = False
        self.cancel_when_gone = False
        self.aborted = 0

    def unread_bytes(self) -> int:
        return 0

    def abort(self) -> None:
        self.aborted += 1

    async def respond(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
        raise AssertionError("a stream is not whole")

    def call_when_gone(self, callback: Callable[[], None] | None) -> None:
        """It does not leave."""

    def is_in_its_task(self) -> bool:
        return True

    def end_cancelling(self) -> bool:
        return False

    async def run(self, app: ASGIApp, scope: Scope) -> Exchange:
        offered: ServerExchange = self
        return await super().run(app, {**scope, "extensions": {EXTENSION: offered}})

    async def send(self, message: Any) -> None:
        await super().send(message)
        if len(self.sent) > self.reads + 1:
            await anyio.sleep_forever()


def impatient(content: Any, kind: type[StreamingResponse] = StreamingResponse, **options: Any) -> App:
    def respond() -> StreamingResponse:
        response = kind(content(), **options)
        response.send_timeout = 0.02
        return response

    return serving(respond)


def cancelling(backend: str) -> bool:
    task = asyncio.current_task() if backend == "asyncio" else None
    return task is not None and task.cancelling() > 0


async def test_content_that_swallows_its_cancellation_ends_at_its_next_chunk(anyio_backend: str) -> None:
    swallowed = 0
    exchange = Exchange(*chunks(b""), hangs_up=True)

    async def content() -> AsyncIterator[bytes]:
        nonlocal swallowed
        while True:
            try:
                await anyio.sleep_forever()
            except anyio.get_cancelled_exc_class():
                swallowed += 1
            yield b"x"

    await exchange.run(serving(lambda: StreamingResponse(content())), http_scope())
    await checkpoint()  # this task is not left cancelled
    assert swallowed == 1
    assert exchange.body == b""
    assert not cancelling(anyio_backend)


async def test_a_request_s_task_is_not_left_cancelled_by_a_client_that_left(anyio_backend: str) -> None:
    for awaits in (True, False):
        content = Watched(endless=True, awaits=awaits)
        exchange = Exchange(*chunks(b""), hangs_up=True)
        await exchange.run(serving(lambda content=content: StreamingResponse(content.items())), http_scope())
        await checkpoint()
        assert content.closed.is_set()
    assert not cancelling(anyio_backend)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_stream_leaves_no_task_behind() -> None:
    async def events() -> AsyncIterator[ServerSentEvent]:
        while b"ping" not in exchange.body:
            await anyio.sleep(0.005)
        yield ServerSentEvent("x")

    before = asyncio.all_tasks()
    exchange = Exchange(*chunks(b""))
    await exchange.run(serving(lambda: EventStreamResponse(events(), keepalive=0.01)), http_scope())
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("waits", [False, True])
async def test_an_ended_stream_is_held_by_no_timer_and_no_task(waits: bool) -> None:
    async def content() -> AsyncIterator[str]:
        if waits:
            await checkpoint()
        yield "chunk"

    items = content()
    held = weakref.ref(items)
    await Exchange(*chunks(b"")).run(serving(StreamingResponse(items)), http_scope())
    del items
    await checkpoint()
    gc.collect()
    assert held() is None


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_stream_has_a_task_beside_the_request_s_only_once_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "_TURN_SECONDS", 60.0)  # it lets others have a turn if the machine pauses
    others: list[int] = []

    async def content() -> AsyncIterator[str]:
        for _ in range(3):
            yield "chunk"
            others.append(len(asyncio.all_tasks() - before))
        await checkpoint()
        others.append(len(asyncio.all_tasks() - before))

    before = asyncio.all_tasks()
    await Exchange(*chunks(b"")).run(serving(lambda: StreamingResponse(content())), http_scope())
    assert others == [0, 0, 0, 1]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_request_that_is_cancelled_by_others_too_stays_cancelled() -> None:
    content = Watched(endless=True)
    exchange = Exchange(*chunks(b""))
    task = asyncio.ensure_future(exchange.run(serving(lambda: StreamingResponse(content.items())), http_scope()))
    await content.begun.wait()
    exchange.left.set()
    await asyncio.sleep(0)  # the client's leaving is on its way
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert content.closed.is_set()


async def test_a_client_that_does_not_read_is_cut_off_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "jimsapi.asgi")
    content = Watched(endless=True, awaits=False)
    stuck = Stuck(reads=3)
    await stuck.run(impatient(content.items), http_scope())
    assert content.closed.is_set()
    assert (content.count, stuck.aborted) == (4, 1)
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "slow client was cut off" in caplog.text
    assert "GET /" in caplog.text


async def test_a_send_has_its_deadline_even_if_the_request_s_body_is_still_unread() -> None:
    content = Watched(endless=True, awaits=False)
    await Stuck().run(impatient(content.items), http_scope("POST", headers=[(b"transfer-encoding", b"chunked")]))
    assert content.closed.is_set()


async def test_a_ping_has_its_deadline() -> None:
    content = Watched(endless=True)

    async def events() -> AsyncIterator[ServerSentEvent]:
        async for _ in content.items():
            yield ServerSentEvent("x")

    stuck = Stuck(reads=1)
    await stuck.run(impatient(events, EventStreamResponse, keepalive=0.01), http_scope())
    assert stuck.aborted == 1


async def test_the_end_of_a_stream_has_its_deadline() -> None:
    stuck = Stuck(reads=1)
    await stuck.run(impatient(lambda: yielding(b"x")), http_scope())
    assert (stuck.aborted, stuck.sent[-1]["more_body"]) == (1, False)


async def test_the_deadline_is_of_each_send_and_not_of_the_stream() -> None:
    async def content() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield b"x"
            await anyio.sleep(0.03)  # longer than the deadline

    exchange = Exchange(*chunks(b""))
    await exchange.run(impatient(content), http_scope())
    assert exchange.body == b"xxxx"
    assert exchange.sent[-1]["more_body"] is False


async def test_a_server_that_says_all_is_sent_is_not_taken_for_a_client_that_left(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "jimsapi.asgi")

    class Server(Exchange):
        async def send(self, message: Any) -> None:
            await super().send(message)
            if message.get("more_body") is False:
                self.left.set()
                await anyio.wait_all_tasks_blocked()

    await Server(*chunks(b"")).run(serving(lambda: StreamingResponse(yielding(b"x"))), http_scope())
    assert not caplog.records


async def test_a_stream_watches_for_the_client_s_leaving_once_the_body_is_read() -> None:
    left = anyio.Event()
    app = App()
    exchange = Exchange(*chunks(b"a", b"b"))

    @app.post("/")
    async def echo(request: Request) -> Response:
        async def content() -> AsyncIterator[bytes]:
            async for chunk in request.stream():
                yield chunk
            yield b"all"
            exchange.left.set()
            try:
                await anyio.sleep_forever()
            finally:
                left.set()

        return StreamingResponse(content())

    await exchange.run(app, http_scope("POST", headers=[(b"transfer-encoding", b"chunked")]))
    assert left.is_set()
    assert exchange.body == b"aball"


# Server-sent events.


def test_an_event_is_written_line_by_line() -> None:
    event = ServerSentEvent("one\r\ntwo\rthree\n", event="status", id="7", retry=1500)
    assert event.encode() == (b"retry: 1500\nevent: status\nid: 7\ndata: one\ndata: two\ndata: three\ndata: \n\n")
    assert ServerSentEvent(b'{"a":1}').encode() == b'data: {"a":1}\n\n'
    assert ServerSentEvent(b"one\r\ntwo\rthree\n", "\x7f").encode() == (
        b"event: \x7f\ndata: one\ndata: two\ndata: three\ndata: \n\n"
    )
    assert ServerSentEvent("a\rb").encode() == b"data: a\ndata: b\n\n"
    assert ServerSentEvent("a\u2028b").encode() == b"data: a\xe2\x80\xa8b\n\n"


@pytest.mark.parametrize("text", ["a\nb", "a\rb", "a\0b"])
def test_an_event_s_type_and_id_hold_no_line_break_and_no_nul(text: str) -> None:
    with pytest.raises(ValueError, match="event"):
        ServerSentEvent("x", event=text)
    with pytest.raises(ValueError, match="id"):
        ServerSentEvent("x", id=text)
    with pytest.raises(ValueError, match="retry"):
        ServerSentEvent("x", retry=-1)


async def test_an_event_stream_has_the_headers_that_proxies_need() -> None:
    async def events() -> AsyncIterator[ServerSentEvent | bytes]:
        yield ServerSentEvent("a")
        yield ServerSentEvent("b", id="1").encode()

    exchange = await Exchange().run(serving(lambda: EventStreamResponse(events())), http_scope())
    assert exchange.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert exchange.headers["cache-control"] == "no-store"
    assert exchange.headers["x-accel-buffering"] == "no"
    assert "connection" not in exchange.headers
    assert exchange.body == b"data: a\n\nid: 1\ndata: b\n\n"


@pytest.mark.parametrize("suspends", [True, False])
async def test_a_silent_event_stream_is_kept_alive_by_comments_and_loses_no_event(suspends: bool) -> None:
    class Server(Exchange):
        async def send(self, message: Any) -> None:
            await super().send(message)
            if suspends:
                await anyio.sleep(0.002)

    exchange = Server(*chunks(b""))

    async def events() -> AsyncIterator[ServerSentEvent]:
        yield ServerSentEvent("before")
        while exchange.body.count(b": ping\n\n") < 3:
            await anyio.sleep(0.005)
        yield ServerSentEvent("after")

    await exchange.run(serving(lambda: EventStreamResponse(events(), keepalive=0.01)), http_scope())
    assert exchange.body.startswith(b"data: before\n\n: ping\n\n: ping\n\n")
    assert exchange.body.endswith(b"data: after\n\n")


async def test_pings_come_only_into_silence() -> None:
    last = anyio.current_time()
    silences: list[float] = []

    async def send(message: Any) -> None:
        nonlocal last
        if message.get("body", b"").startswith(b":"):
            silences.append(anyio.current_time() - last)
        last = anyio.current_time()

    async def events() -> AsyncIterator[ServerSentEvent]:
        for pause in (0.02, 0.02, 0.02, 0.02, 0.02, 1.0):
            yield ServerSentEvent("x")
            await anyio.sleep(pause)

    app = serving(lambda: EventStreamResponse(events(), keepalive=0.05))
    await app(http_scope(), Exchange(*chunks(b"")).receive, send)
    assert silences
    assert min(silences) >= 0.049


async def test_a_ping_never_falls_into_the_middle_of_an_event() -> None:
    pieces: list[bytes] = []

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            half = len(message["body"]) // 2
            pieces.append(message["body"][:half])
            await anyio.sleep(0.01)  # longer than the keep-alive
            pieces.append(message["body"][half:])

    async def events() -> AsyncIterator[ServerSentEvent]:
        for _ in range(5):
            yield ServerSentEvent("0123456789")
            await anyio.sleep(0.005)

    app = serving(lambda: EventStreamResponse(events(), keepalive=0.001))
    await app(http_scope(), Exchange(*chunks(b"")).receive, send)
    assert b"".join(pieces).count(b"data: 0123456789\n\n") == 5


async def test_a_ping_to_a_client_that_left_ends_the_stream() -> None:
    content = Watched(endless=True)

    async def events() -> AsyncIterator[ServerSentEvent]:
        async for _ in content.items():
            yield ServerSentEvent("x")

    async def send(message: Any) -> None:
        if message.get("body", b"").startswith(b":"):
            raise OSError("gone")

    with anyio.fail_after(30):
        app = serving(lambda: EventStreamResponse(events(), keepalive=0.01))
        await app(http_scope(), Exchange(*chunks(b"")).receive, send)
