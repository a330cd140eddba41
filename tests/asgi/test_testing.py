"""The client for tests."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from jimsapi.asgi import App, Request, Response, WebSocket, WebSocketDisconnected, testing
from jimsapi.asgi.testing import HandshakeRefused, TestClient
from jimsapi.asgi.types import Receive, Scope, Send

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def failing(at: str) -> App:
    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        if at == "start":
            raise LookupError("no store")
        yield
        raise LookupError("not closed")

    return App(lifespan=lifespan)


async def test_it_runs_the_lifespan_around_its_requests() -> None:
    log: list[str] = []

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        log.append("up")
        yield
        log.append("down")

    app = App(lifespan=lifespan)

    @app.get("/")
    async def handler(request: Request) -> Response:
        log.append("asked")
        return Response("hello", headers={"x-root": request.scope["root_path"]})

    async with TestClient(app, root_path="/api", headers={"x-all": "1"}) as client:
        answer = await client.get("/api/")
    assert (answer.text, answer.headers["x-root"]) == ("hello", "/api")
    assert log == ["up", "asked", "down"]


async def test_a_start_that_fails_is_raised_on_entering() -> None:
    with pytest.raises(RuntimeError, match="start failed: no store"):
        async with TestClient(failing("start")):
            raise AssertionError("entered")


async def test_a_shutdown_that_fails_is_raised_on_leaving() -> None:
    with pytest.raises(RuntimeError, match="shutdown failed: not closed"):
        async with TestClient(failing("stop")):
            pass


async def test_an_app_that_breaks_in_its_lifespan_is_said_to() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise LookupError("no lifespan here")

    with pytest.raises(RuntimeError, match="no lifespan here"):
        async with TestClient(app):
            raise AssertionError("entered")


def answering() -> App:
    app = App()

    @app.websocket("/{name}", subprotocols=("b", "a"))
    async def handler(ws: WebSocket) -> None:
        scope = ws.scope
        await ws.accept(headers={"x-root": scope["root_path"]})
        seen = [ws.path, scope["scheme"], ws.query.get("q"), ws.headers.get("x-all"), scope["raw_path"].decode()]
        await ws.send_json(seen)
        await ws.send_bytes(bytes(await ws.receive_json()))
        await ws.close(4000, "done")

    return app


async def test_a_websocket_goes_both_ways_and_says_how_it_ended() -> None:
    async with (
        TestClient(answering(), root_path="/api", headers={"x-all": "1"}) as client,
        client.websocket("/api/é?q=2", subprotocols=["a", "b"]) as ws,
    ):
        assert (ws.subprotocol, ws.headers["x-root"]) == ("b", "/api")
        assert await ws.receive_json() == ["/é", "ws", "2", "1", "/api/%C3%A9"]
        await ws.send_json([104, 105])
        assert await ws.receive() == b"hi"
        for _ in range(2):
            with pytest.raises(WebSocketDisconnected, match="4000 done"):
                await ws.receive()
        await ws.send_text("into the void")


async def test_a_websocket_that_is_refused_raises_the_answer() -> None:
    async with TestClient(answering()) as client:
        with pytest.raises(HandshakeRefused, match="404") as refused:
            async with client.websocket("/a/b"):
                raise AssertionError("opened")
    assert refused.value.response.json() == {"detail": "Not Found"}


async def test_an_error_in_a_websocket_s_block_comes_out_plain_and_the_handler_ends() -> None:
    ended = []
    app = App()

    @app.websocket("/")
    async def handler(ws: WebSocket) -> None:
        await ws.accept()
        async for _ in ws:
            pass
        ended.append(ws.close_code)

    async with TestClient(app) as client:
        with pytest.raises(ZeroDivisionError):
            async with client.websocket("/"):
                raise ZeroDivisionError
        assert ended == [1000]


async def test_an_app_that_breaks_in_a_websocket_raises_out_of_the_block() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return
        await receive()
        if scope["path"] == "/late":
            await send({"type": "websocket.accept"})
        raise LookupError("broken")

    async with TestClient(app) as client:
        with pytest.raises(LookupError, match="broken"):
            async with client.websocket("/early"):
                raise AssertionError("opened")
        with pytest.raises(LookupError, match="broken"):
            async with client.websocket("/late"):
                pass


async def test_a_websocket_s_handler_that_does_not_end_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    cancelled = []
    app = App()

    @app.websocket("/")
    async def handler(ws: WebSocket) -> None:
        await ws.accept()
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.append(True)

    monkeypatch.setattr(testing, "LEAVE_WITHIN", 0.01)
    async with TestClient(app) as client, client.websocket("/"):
        pass
    assert cancelled == [True]


async def test_the_block_s_own_error_comes_out_and_the_lifespan_is_left() -> None:
    log = []

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        yield
        log.append("down")

    with pytest.raises(ZeroDivisionError):
        async with TestClient(App(lifespan=lifespan)):
            raise ZeroDivisionError
    assert log == ["down"]
