"""Handlers that are cancelled if their client leaves; `test_servers` has the same with real servers."""

import asyncio
from contextlib import suppress
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from jimsapi.asgi import CLIENT_GONE, App, ClientDisconnected, JSONResponse, Request, Response, StreamingResponse
from jimsapi.asgi.testing import TestClient
from jimsapi.asgi.types import Message

from .driver import Exchange, chunks, http_scope

EMPTY: Message = {"type": "http.request", "body": b"", "more_body": False}


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


pytestmark = pytest.mark.anyio


class Waiting:
    """A handler that waits until it is cancelled or released, and what has happened to it."""

    def __init__(self) -> None:
        self.began, self.released, self.ended = anyio.Event(), anyio.Event(), anyio.Event()
        self.events: list[str] = []

    async def __call__(self, request: Request) -> Response:
        self.began.set()
        try:
            await self.released.wait()
        except anyio.get_cancelled_exc_class():
            self.events.append("cancelled")
            raise
        finally:
            self.ended.set()
        return JSONResponse({"released": True})


def app_with(handler: Any, **options: Any) -> App:
    app = App()
    app.route("/", ("GET", "POST"), public=True, cancel_on_disconnect=True, **options)(handler)
    return app


async def test_the_client_leaves_and_the_record_says_so() -> None:
    waiting = Waiting()
    app = app_with(waiting)
    statuses: list[int] = []
    app.on_request.append(lambda record: statuses.append(record.status))
    exchange = Exchange(EMPTY)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(exchange.run, app, http_scope())
        await waiting.began.wait()
        exchange.left.set()
    assert (waiting.events, statuses, exchange.sent) == (["cancelled"], [CLIENT_GONE], [])


async def test_a_request_of_the_test_client_that_is_cancelled_cancels_the_handler() -> None:
    waiting = Waiting()
    async with TestClient(app_with(waiting)) as client, anyio.create_task_group() as tasks:
        tasks.start_soon(client.get, "/")
        await waiting.began.wait()
        tasks.cancel_scope.cancel()
    assert waiting.events == ["cancelled"]


async def test_a_handler_that_waits_and_answers_is_not_disturbed() -> None:
    async def slow(request: Request) -> Response:
        await anyio.sleep(0.12)  # longer than the app waits before it watches
        body = await request.body()
        await anyio.sleep(0.12)
        return JSONResponse({"size": len(body)})

    app = app_with(slow)
    async with TestClient(app) as client:
        for content in (b"", b"hello"):
            assert (await client.post("/", content=content)).json() == {"size": len(content)}
        empty = await Exchange(EMPTY).run(app, http_scope())
        headers = [(b"content-length", b"5")]
        parts = await Exchange(*chunks(b"he", b"llo")).run(app, http_scope("POST", headers=headers))
        unannounced = await Exchange(*chunks(b"he", b"llo")).run(app, http_scope("POST", http_version="2"))
    assert empty.body == b'{"size":0}'
    assert parts.body == b'{"size":5}'
    assert unannounced.body == b'{"size":5}'


async def test_a_handler_that_never_waits_is_not_watched() -> None:
    async def quick(request: Request) -> Response:
        return JSONResponse({"size": len(await request.body())})

    exchange = await Exchange({**EMPTY, "body": b"hello"}).run(app_with(quick), http_scope())
    assert (exchange.body, exchange.asked) == (b'{"size":5}', 1)


async def test_errors_of_the_handler_are_answered_as_usual() -> None:
    async def fails(request: Request) -> Response:
        await anyio.sleep(0.12)
        raise LookupError("on purpose")

    exchange = await Exchange(EMPTY).run(app_with(fails), http_scope())
    assert exchange.status == 500


async def test_a_handler_that_suppresses_its_cancellation_sends_nothing() -> None:
    async def stubborn(request: Request) -> Response:
        with suppress(BaseException):
            await anyio.sleep_forever()
        return JSONResponse({})

    exchange = await Exchange(EMPTY, hangs_up=True).run(app_with(stubborn), http_scope())
    assert exchange.sent == []


async def test_what_a_cancelled_handler_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def fails(request: Request) -> Response:
        try:
            await anyio.sleep_forever()
        finally:
            raise LookupError("in its cleanup")

    await Exchange(EMPTY, hangs_up=True).run(app_with(fails), http_scope())
    assert "in its cleanup" in caplog.text


async def test_limits_of_the_route_hold_too() -> None:
    async def slow(request: Request) -> Response:
        await request.body()
        await anyio.sleep_forever()
        raise AssertionError

    app = app_with(slow, time_limit=0.2, max_body=3)
    assert (await Exchange(EMPTY).run(app, http_scope())).status == 504
    headers = [(b"content-length", b"5")]
    assert (await Exchange(*chunks(b"hello")).run(app, http_scope("POST", headers=headers))).status == 413


async def test_the_cancellation_of_the_request_itself_goes_on() -> None:
    waiting = Waiting()
    exchange = Exchange(EMPTY)
    ended = False
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(exchange.run, app_with(waiting), http_scope())
        await waiting.began.wait()
        await anyio.sleep(0.12)
        tasks.cancel_scope.cancel()
        ended = True
    assert ended
    assert waiting.events == ["cancelled"]
    assert exchange.sent == []


async def test_a_broken_receive_is_an_error_and_not_a_disconnect(caplog: pytest.LogCaptureFixture) -> None:
    async def receive() -> Message:
        raise RuntimeError("receive is broken")

    waiting = Waiting()
    exchange = Exchange()
    await app_with(waiting)(http_scope(), receive, exchange.send)
    assert (waiting.events, exchange.status) == (["cancelled"], 500)
    assert "receive is broken" in caplog.text


async def test_a_stream_of_a_watched_route_watches_by_itself() -> None:
    closed = anyio.Event()

    async def stream(request: Request) -> Response:
        async def pieces() -> Any:
            try:
                while True:
                    yield b"tick"
                    await anyio.sleep(0.01)
            finally:
                closed.set()

        await anyio.sleep(0.12)
        return StreamingResponse(pieces())

    async with TestClient(app_with(stream)) as client:
        async with client.stream("GET", "/") as answer:
            async for part in answer.aiter_raw():
                assert part == b"tick"
                break
        with anyio.fail_after(10):
            await closed.wait()


async def test_a_callable_may_return_any_awaitable() -> None:
    class Soon:
        def __call__(self, request: Request) -> Any:
            return Later()

    class Later:
        def __await__(self) -> Any:
            yield from checkpoint().__await__()
            return JSONResponse({"later": True})

    exchange = await Exchange(EMPTY).run(app_with(Soon()), http_scope())
    assert exchange.body == b'{"later":true}'


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_cancellation_is_over_when_the_request_is(fails: bool) -> None:
    """So a wrapper around the app can still wait for something."""
    counts: list[int] = []

    async def handler(request: Request) -> Response:
        try:
            await asyncio.sleep(60)
        finally:
            if fails:
                raise LookupError("in its cleanup")
        raise AssertionError

    app = app_with(handler)

    def wrapper(inner: Any) -> Any:
        async def wrapped(scope: Any, receive: Any, send: Any) -> None:
            await inner(scope, receive, send)
            task = asyncio.current_task()
            assert task is not None
            counts.append(task.cancelling())

        return wrapped

    app.wrap(wrapper)
    await Exchange(EMPTY, hangs_up=True).run(app, http_scope())
    assert counts == [0]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_server_that_reports_disconnects_is_not_asked_for_them() -> None:
    exchange = Exchange(EMPTY)
    watched: list[bool] = []

    class Connection:
        receive = exchange.receive
        send = exchange.send
        direct_app = None
        gone = False
        cancel_when_gone = False

        def is_in_its_task(self) -> bool:
            return True

    connection = Connection()

    async def handler(request: Request) -> Response:
        watched.append(connection.cancel_when_gone)
        await asyncio.sleep(0.12)
        return Response("sent")

    async def send(message: Message) -> None:
        watched.append(connection.cancel_when_gone)
        await exchange.send(message)

    scope = http_scope(extensions={"jimsapi.connection": connection})
    await app_with(handler)(scope, exchange.receive, send)
    assert exchange.body == b"sent"
    assert exchange.asked == 0
    assert watched == [True, False, False]


def test_the_handler_keeps_its_name() -> None:
    async def named(request: Request) -> Response:
        """What it does."""
        raise ClientDisconnected

    app = app_with(named)
    assert app.openapi()["paths"]["/"]["get"]["summary"] == "What it does."
