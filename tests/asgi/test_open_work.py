"""Background work, and the drain that waits for it, for open streams and for WebSockets."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from starlette.applications import Starlette
from starlette.routing import Mount

from jimsapi.asgi import (
    App,
    Connection,
    EventStreamResponse,
    HTTPError,
    JSONResponse,
    Request,
    Response,
    Router,
    ServerSentEvent,
    StreamingResponse,
    WebSocket,
    WebSocketDisconnected,
)
from jimsapi.asgi.testing import HandshakeRefused, TestClient

pytestmark = pytest.mark.anyio

FOREVER = 3600.0


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def take_a_while() -> None:
    """Take many more passes of the event loop than a shutdown without a drain."""
    for _ in range(500):
        await checkpoint()


class Shop:
    """An app whose routes start work that `go_on` lets end."""

    def __init__(self, **options: Any) -> None:
        self.app = App(**options)
        self.log: list[str] = []
        self.go_on = anyio.Event()
        self.started = anyio.Event()
        router = Router()

        @router.post("/orders/{name}")
        async def order(request: Request) -> Response:
            request.start_background(self.deliver(request.path_params["name"]))
            return Response(status=202)

        @router.get("/endless")
        async def endless(request: Request) -> Response:
            return EventStreamResponse(self.ticks(), endless=True)

        @router.get("/report")
        async def report(request: Request) -> Response:
            return StreamingResponse(self.pages())

        @router.websocket("/chat")
        async def chat(ws: WebSocket) -> None:
            await ws.accept()
            async for message in ws:
                with ws.working():
                    self.started.set()
                    await self.go_on.wait()
                    await ws.send_text(f"you said {message!r}")
            self.log.append(f"left with {ws.close_code}")

        @router.get("/readyz", probe=True)
        async def ready(request: Request) -> Response:
            return JSONResponse({"draining": self.app.draining}, 503 if self.app.draining else 200)

        self.app.include(router, "/shop")

    async def deliver(self, name: str) -> None:
        if name == "nowhere":
            raise LookupError("there is no such address")
        self.log.append(f"{name} leaves")
        self.started.set()
        try:
            await self.go_on.wait()
        except anyio.get_cancelled_exc_class():
            self.log.append(f"{name} is cancelled")
            raise
        await take_a_while()
        self.log.append(f"{name} arrives")

    async def ticks(self) -> AsyncIterator[ServerSentEvent]:
        try:
            for number in count():
                yield ServerSentEvent(str(number), id=str(number))
                await anyio.sleep(FOREVER if number == 2 else 0)
        finally:
            self.log.append("no more ticks")

    async def pages(self) -> AsyncIterator[str]:
        yield "one,"
        self.started.set()
        await self.go_on.wait()
        yield "two"


async def test_background_work_outlives_its_answer_and_the_shutdown_waits_for_it() -> None:
    shop = Shop()
    async with TestClient(shop.app) as client:
        assert (await client.post("/shop/orders/tea")).status_code == 202
        await shop.started.wait()
        assert shop.log == ["tea leaves"]
        shop.go_on.set()
    assert shop.log == ["tea leaves", "tea arrives"]


async def test_background_work_that_takes_too_long_is_cancelled_and_logged_with_its_route_and_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    shop = Shop(drain_time=0.01)
    async with TestClient(shop.app) as client:
        await client.post("/shop/orders/tea")
        await shop.started.wait()
    assert shop.log == ["tea leaves", "tea is cancelled"]
    [line] = caplog.messages
    assert "Shop.deliver" in line
    assert f"{__file__}:" in line
    assert "POST /shop/orders/{name} started" in line
    assert "did not end in time" in line


async def test_background_work_that_fails_is_logged_with_its_route_and_its_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with TestClient(Shop().app) as client:
        assert (await client.post("/shop/orders/nowhere")).status_code == 202
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert "POST /shop/orders/{name} started" in record.message
    assert record.exc_info is not None
    assert "there is no such address" in str(record.exc_info[1])


async def test_background_work_that_ignores_its_cancellation_does_not_hold_up_the_shutdown(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jimsapi.asgi.open_work.END_WITHIN", 0.01)
    app = App(drain_time=0.01)
    end = anyio.Event()

    async def stubborn() -> None:
        with anyio.CancelScope(shield=True):
            await end.wait()

    async with app.lifespan():
        app.start_background(stubborn())
        await checkpoint()
    assert "does not end after its cancellation" in caplog.messages[-1]
    assert "the app 'API' started" in caplog.messages[-1]
    end.set()
    await checkpoint()


async def test_background_work_of_the_lifespan_ends_before_the_lifespan_closes_what_it_uses() -> None:
    log: list[str] = []

    async def work() -> None:
        await take_a_while()
        log.append("worked")

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        app.start_background(work())
        yield
        log.append("closed")

    async with TestClient(App(lifespan=lifespan)):
        pass
    assert log == ["worked", "closed"]


async def test_a_drain_cancels_endless_background_work_at_once(caplog: pytest.LogCaptureFixture) -> None:
    log: list[str] = []

    async def clean_up_every_night() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            log.append("no more clean-ups")

    async def begin_more_during_the_drain() -> None:
        while not app.draining:
            await checkpoint()
        app.start_background(clean_up_every_night(), endless=True)

    app = App(drain_time=FOREVER)
    with anyio.fail_after(10):
        async with app.lifespan():
            app.start_background(clean_up_every_night(), endless=True)
            app.start_background(begin_more_during_the_drain())
            await checkpoint()
    assert log[:1] == ["no more clean-ups"]
    assert "cancelled" not in caplog.text


async def test_a_websocket_s_handler_starts_background_work() -> None:
    app = App()
    done = anyio.Event()

    async def work() -> None:
        done.set()

    @app.websocket("/")
    async def handler(ws: WebSocket) -> None:
        ws.start_background(work())
        await ws.accept()

    async with TestClient(app) as client, client.websocket("/"):
        await done.wait()


async def test_background_work_is_refused_after_the_drain_and_outside_of_an_app() -> None:
    shop = Shop()
    async with shop.app.lifespan():
        pass
    with pytest.raises(RuntimeError, match="the app has shut down"):
        shop.app.start_background(shop.deliver("tea"))
    with pytest.raises(RuntimeError, match="needs a route of an app"):
        Connection({"type": "http", "headers": []}).start_background(shop.deliver("tea"))
    with pytest.raises(TypeError, match="is a coroutine, such as"):
        shop.app.start_background(shop.deliver)  # type: ignore[arg-type] # the mistake that the test is about
    assert shop.log == []


async def test_a_thread_starts_background_work_by_way_of_the_event_loop() -> None:
    shop = Shop()
    shop.go_on.set()

    def work_in_a_thread() -> None:
        with pytest.raises(RuntimeError, match=r"anyio\.from_thread\.run_sync"):
            shop.app.start_background(shop.deliver("coffee"))
        anyio.from_thread.run_sync(shop.app.start_background, shop.deliver("tea"))

    async with shop.app.lifespan():
        await anyio.to_thread.run_sync(work_in_a_thread)
    assert shop.log == ["tea leaves", "tea arrives"]


async def test_a_drain_completes_an_endless_stream_between_two_events() -> None:
    shop = Shop()
    async with (
        TestClient(shop.app) as client,
        client.stream("GET", "/shop/endless") as answer,
        anyio.create_task_group() as tasks,
    ):
        events = answer.aiter_lines()
        assert await anext(events) == "id: 0"
        tasks.start_soon(shop.app.drain, FOREVER)
        rest = [line async for line in events]
    assert rest[-1] == ""
    assert [line for line in rest if line.startswith("data")] == [f"data: {n}" for n in range(len(rest) // 3 + 1)]
    assert shop.log == ["no more ticks"]


async def test_an_endless_stream_that_begins_during_a_drain_is_completed() -> None:
    app = App()
    draining = anyio.Event()

    async def forever() -> AsyncIterator[bytes]:
        while True:
            await anyio.sleep(FOREVER)
            yield b"x"

    @app.get("/")
    async def late(request: Request) -> Response:
        draining.set()
        while not app.draining:
            await checkpoint()
        return StreamingResponse(forever(), endless=True)

    async with TestClient(app) as client, anyio.create_task_group() as tasks:

        async def drain() -> None:
            await draining.wait()
            await app.drain(FOREVER)

        tasks.start_soon(drain)
        answer = await client.get("/")
    assert (answer.status_code, answer.content) == (200, b"")


async def test_a_drain_waits_for_a_stream_that_ends() -> None:
    shop = Shop()
    async with (
        TestClient(shop.app) as client,
        client.stream("GET", "/shop/report") as answer,
        anyio.create_task_group() as tasks,
    ):
        pages = answer.aiter_text()
        assert await anext(pages) == "one,"
        tasks.start_soon(shop.app.drain, FOREVER)
        await shop.started.wait()
        while not shop.app.draining:
            await checkpoint()
        shop.go_on.set()
        assert [page async for page in pages] == ["two"]


async def test_a_stream_that_does_not_end_in_time_is_cut_and_not_completed(caplog: pytest.LogCaptureFixture) -> None:
    shop = Shop()
    async with TestClient(shop.app) as client, client.stream("GET", "/shop/report") as answer:
        pages = answer.aiter_text()
        assert await anext(pages) == "one,"
        await shop.app.drain(0.01)
        with pytest.raises(RuntimeError, match="before its response was complete"):
            await anext(pages)
    assert "1 of /shop/report" in caplog.text


async def test_a_drain_closes_idle_websockets_at_once_and_others_after_their_work() -> None:
    shop = Shop()
    async with (
        TestClient(shop.app) as client,
        client.websocket("/shop/chat") as idle,
        client.websocket("/shop/chat") as busy,
        anyio.create_task_group() as tasks,
    ):
        await busy.send_text("hi")
        await shop.started.wait()
        tasks.start_soon(shop.app.drain, FOREVER)
        with pytest.raises(WebSocketDisconnected, match="1012 The server restarts"):
            await idle.receive()
        shop.go_on.set()
        assert await busy.receive() == "you said 'hi'"
        with pytest.raises(WebSocketDisconnected, match="1012"):
            await busy.receive()
    assert shop.log == ["left with 1012", "left with 1012"]


async def test_during_a_drain_requests_and_websockets_get_503_and_probes_an_answer() -> None:
    shop = Shop()
    async with TestClient(shop.app) as client, anyio.create_task_group() as tasks:
        assert (await client.get("/shop/readyz")).status_code == 200
        await client.post("/shop/orders/tea")
        tasks.start_soon(shop.app.drain, FOREVER)
        while not shop.app.draining:
            await checkpoint()
        refused = await client.post("/shop/orders/coffee")
        with pytest.raises(HandshakeRefused, match="503"):
            async with client.websocket("/shop/chat"):
                raise AssertionError("opened")
        probe = await client.get("/shop/readyz")
        shop.go_on.set()
    assert (refused.status_code, refused.headers["connection"]) == (503, "close")
    assert refused.headers["retry-after"]
    assert (probe.status_code, probe.json()) == (503, {"draining": True})


async def test_an_interrupt_ends_the_wait_of_a_drain() -> None:
    shop = Shop()
    async with TestClient(shop.app) as client:
        await client.post("/shop/orders/tea")
        await shop.started.wait()
        assert "1 background tasks" in shop.app.work_text
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(shop.app.drain, FOREVER)
            while not shop.app.draining:
                await checkpoint()
            shop.app.interrupt()
    assert shop.log[-1] == "tea is cancelled"


async def test_an_app_that_has_drained_serves_again_in_its_next_lifespan() -> None:
    shop = Shop()
    shop.go_on.set()
    for _ in range(2):
        async with TestClient(shop.app) as client:
            assert (await client.post("/shop/orders/tea")).status_code == 202
    assert shop.log == ["tea leaves", "tea arrives"] * 2


async def test_of_two_clients_of_one_app_the_last_to_leave_drains_it() -> None:
    shop = Shop()
    async with TestClient(shop.app) as client:
        async with TestClient(shop.app) as other:
            await other.post("/shop/orders/tea")
            await shop.started.wait()
        assert shop.log == ["tea leaves"]
        assert (await client.get("/shop/readyz")).status_code == 200
        shop.go_on.set()
    assert shop.log == ["tea leaves", "tea arrives"]


async def test_a_host_that_enters_the_lifespan_drains_the_mounted_app() -> None:
    shop = Shop()

    @asynccontextmanager
    async def lifespan(host: Any) -> AsyncIterator[None]:
        async with shop.app.lifespan():
            yield

    host = Starlette(lifespan=lifespan, routes=[Mount("/mounted", shop.app)])
    async with TestClient(host) as client:
        assert (await client.post("/mounted/shop/orders/tea")).status_code == 202
        await shop.started.wait()
        shop.go_on.set()
    assert shop.log == ["tea leaves", "tea arrives"]


@pytest.mark.parametrize("options", [{"public": True}, {"scope": "orders"}])
async def test_without_admit_rules_of_access_are_said_to_be_void(
    options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    async def admit(connection: Connection, route: Any) -> None:
        raise HTTPError(401)

    for given, warnings in ((None, 1), (admit, 0)):
        caplog.clear()
        app = App(admit=given)
        app.docs()  # its own routes are public, and mean no rule of the author

        @app.get("/hello", **options)
        async def hello(request: Request) -> Response:
            return Response("hello")

        async with TestClient(app):
            pass
        assert len(caplog.messages) == warnings
    app = App()
    app.docs()
    async with TestClient(app):
        assert caplog.messages == []


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_client_that_reads_nothing_does_not_hold_up_a_drain(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jimsapi.asgi.streaming.DRAIN_SEND_TIMEOUT", 0.01)
    caplog.set_level(logging.INFO)
    app = App()

    @app.get("/")
    async def pages(request: Request) -> Response:
        async def content() -> AsyncIterator[bytes]:
            yield b"one"

        return StreamingResponse(content())

    async with TestClient(app) as client, client.stream("GET", "/") as answer:
        await app.drain(FOREVER)
        with pytest.raises(RuntimeError, match="before its response was complete"):
            await answer.aread()
    assert "it read nothing for 0.01 seconds" in caplog.text
