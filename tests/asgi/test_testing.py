"""The client for tests."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

import anyio
import anyio.lowlevel
import pytest

from jimsapi.asgi import App, Request, Response, StreamingResponse, WebSocket, WebSocketDisconnected, testing
from jimsapi.asgi.testing import HandshakeRefused, TestClient
from jimsapi.asgi.types import ASGIApp, Receive, Scope, Send

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


async def test_over_https_the_client_returns_secure_cookies_and_the_app_sees_the_scheme_and_the_port() -> None:
    app = App()

    @app.get("/sign-in")
    async def sign_in(request: Request) -> Response:
        answer = Response(str([request.scope["scheme"], request.scope["server"]]))
        answer.set_cookie("session", "abc123")
        return answer

    @app.get("/session")
    async def session(request: Request) -> dict[str, str]:
        return request.cookies

    @app.websocket("/ws")
    async def ws_session(ws: WebSocket) -> None:
        await ws.accept()
        await ws.send_json([ws.scope["scheme"], ws.scope["server"], ws.cookies])

    secure = {"session": "abc123"}
    for base_url, schemes, port, cookies in (
        ("https://testserver", ["https", "wss"], 443, secure),
        ("https://testserver:8443", ["https", "wss"], 8443, secure),
        ("http://testserver", ["http", "ws"], 80, {}),
    ):
        async with TestClient(app, base_url=base_url) as client:
            assert (await client.get("/sign-in")).text == str([schemes[0], ("testserver", port)])
            assert (await client.get("/session")).json() == cookies
            for url in ("/ws", f"{schemes[1]}{base_url.removeprefix(schemes[0])}/ws"):
                async with client.websocket(url) as ws:
                    assert await ws.receive_json() == [schemes[1], ["testserver", port], cookies]


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


def ticking(log: list[str]) -> App:
    app = App()

    @app.get("/ticks")
    async def ticks(request: Request) -> Response:
        async def forever() -> AsyncIterator[bytes]:
            try:
                for number in count():
                    log.append(f"tick {number}")
                    yield b"%d;" % number
            finally:
                log.append("stopped")

        return StreamingResponse(forever())

    @app.get("/breaks")
    async def breaks(request: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"one"
            raise LookupError("no more pieces")

        return StreamingResponse(pieces())

    @app.post("/echo")
    async def echo(request: Request) -> Response:
        return Response(await request.body())

    return app


async def test_a_stream_without_end_is_read_as_it_comes_and_left_in_the_middle() -> None:
    log: list[str] = []
    async with TestClient(ticking(log)) as client:
        async with client.stream("GET", "/ticks") as answer:
            parts = []
            async for part in answer.aiter_raw():
                parts.append(part)
                if len(parts) == 3:
                    break
            assert parts == [b"0;", b"1;", b"2;"]
            assert "stopped" not in log
            assert (await client.post("/echo", content=b"beside")).content == b"beside"
        assert log[-1] == "stopped"
        assert len(log) < 20, "the app went on although nobody read"


async def test_leaving_the_client_ends_a_stream_that_nobody_closed() -> None:
    log: list[str] = []
    async with TestClient(ticking(log)) as client:
        answer = await client.send(client.build_request("GET", "/ticks"), stream=True)
        assert answer.status_code == 200
    assert log[-1] == "stopped"


async def test_an_error_in_the_middle_of_a_stream_is_raised_where_it_is_read() -> None:
    async with TestClient(ticking([])) as client:
        with pytest.raises(LookupError, match="no more pieces"):
            await client.get("/breaks")
        async with client.stream("GET", "/breaks") as answer:
            parts = answer.aiter_raw()
            assert await anext(parts) == b"one"
            with pytest.raises(LookupError, match="no more pieces"):
                await anext(parts)


async def test_an_app_that_does_not_end_after_its_client_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(testing, "LEAVE_WITHIN", 0.05)
    ended = anyio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            return
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            await anyio.sleep_forever()
        finally:
            ended.set()

    async with TestClient(app) as client, client.stream("GET", "/") as answer:
        assert await anext(answer.aiter_raw()) == b"x"
    assert ended.is_set()


async def test_a_client_that_is_not_entered_runs_no_lifespan_and_returns_whole_responses() -> None:
    client = TestClient(ticking([]))
    assert (await client.post("/echo", content=b"hello")).content == b"hello"


@pytest.mark.parametrize(
    "messages",
    [
        [{"type": "http.response.body", "body": b"x"}],
        [{"type": "http.response.start", "status": 200}] * 2,
        [{"type": "http.response.start", "status": 200}, *[{"type": "http.response.body", "body": b"x"}] * 2],
    ],
)
async def test_an_app_that_breaks_the_protocol_raises(messages: list[dict[str, object]]) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await serve_lifespan(receive, send)
            return
        for message in messages:
            await send(message)

    async with TestClient(app) as client:
        with pytest.raises(RuntimeError, match="The app sent"):
            await client.get("/")


async def serve_lifespan(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def test_a_request_that_is_cancelled_cancels_the_app_at_once_and_nothing_else() -> None:
    log: list[str] = []
    app = ticking(log)

    @app.get("/hangs")
    async def hangs(request: Request) -> Response:
        try:
            await anyio.sleep_forever()
        finally:
            log.append("ended")
        raise AssertionError

    async with TestClient(app) as client:
        with anyio.fail_after(testing.LEAVE_WITHIN / 2):
            with anyio.move_on_after(0.05):
                await client.get("/hangs")
        assert log == ["ended"]
        assert (await client.post("/echo", content=b"after")).content == b"after"


async def test_an_app_that_is_cancelled_by_itself_does_not_cancel_the_test() -> None:
    app = App()

    @app.get("/")
    async def handler(request: Request) -> Response:
        with anyio.CancelScope() as scope:
            scope.cancel()
            try:
                await anyio.sleep(1)
            except anyio.get_cancelled_exc_class():
                pass
        raise SystemExit("the handler exits")

    async with TestClient(app) as client:
        with pytest.raises(SystemExit, match="the handler exits"):
            await client.get("/")
        await anyio.lowlevel.checkpoint()


def counting(log: list[str]) -> App:
    app = App()

    @app.websocket("/numbers")
    async def numbers(ws: WebSocket) -> None:
        await ws.accept()
        try:
            for number in count():
                await ws.send_text(str(number))
                log.append(f"sent {number}")
        finally:
            log.append("ended")

    @app.websocket("/three")
    async def three(ws: WebSocket) -> None:
        await ws.accept()
        for number in range(3):
            await ws.send_text(str(number))

    return app


async def test_an_endless_websocket_is_read_as_it_comes_and_left_in_the_middle() -> None:
    log: list[str] = []
    async with TestClient(counting(log)) as client:
        async with client.websocket("/numbers") as ws:
            messages = []
            async for message in ws:
                messages.append(message)
                if len(messages) == 3:
                    break
            assert messages == ["0", "1", "2"]
            assert "ended" not in log
        assert log[-1] == "ended"
        assert len(log) < 200, "the app went on although nobody read"


async def test_an_endless_websocket_waits_for_its_client_to_read() -> None:
    log: list[str] = []
    async with TestClient(counting(log)) as client, client.websocket("/numbers") as ws:
        for _ in range(3 * testing.UNREAD_MESSAGES):
            await anyio.lowlevel.checkpoint()
        assert len(log) == testing.UNREAD_MESSAGES
        assert await ws.receive() == "0"


async def test_the_messages_of_a_websocket_end_with_its_close() -> None:
    async with TestClient(counting([])) as client, client.websocket("/three") as ws:
        assert [message async for message in ws] == ["0", "1", "2"]


async def test_an_app_that_sends_after_the_client_s_close_gets_an_error() -> None:
    log: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await serve_lifespan(receive, send)
            return
        await receive()
        await send({"type": "websocket.accept"})
        assert (await receive())["type"] == "websocket.disconnect"
        with pytest.raises(OSError, match="disconnected"):
            await send({"type": "websocket.send", "text": "too late"})
        log.append("refused")

    async with TestClient(app) as client:
        async with client.websocket("/") as ws:
            await ws.close()
        assert log == ["refused"]


async def test_the_state_of_the_lifespan_is_in_each_request() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            scope["state"]["greeting"] = b"hello"
            await serve_lifespan(receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["state"]["greeting"]})

    async with TestClient(app) as client:
        assert (await client.get("/")).content == b"hello"


async def test_an_error_of_a_handler_is_its_500_and_an_error_of_a_wrapper_is_raised() -> None:
    app = App()

    @app.get("/")
    async def broken(request: Request) -> Response:
        raise LookupError("of the handler")

    async with TestClient(app) as client:
        assert (await client.get("/")).status_code == 500

    def wrapper(inner: ASGIApp) -> ASGIApp:
        async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
            raise LookupError("of the wrapper")

        return wrapped

    other = App()
    other.wrap(wrapper)
    async with TestClient(other) as client:
        with pytest.raises(LookupError, match="of the wrapper"):
            await client.get("/")
    async with TestClient(other, raise_app_exceptions=False) as client:
        assert (await client.get("/")).status_code == 500
