"""WebSockets: who may open one, what comes over it, and how it ends."""

import asyncio
import json
import logging
import sys
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import pytest

from jimsapi.asgi import (
    CLIENT_GONE,
    App,
    Connection,
    HTTPError,
    JSONResponse,
    Request,
    Response,
    Route,
    RouteConflict,
    Router,
    ValidationError,
    WebSocket,
    WebSocketDisconnected,
    open_work,
)
from jimsapi.asgi import app as app_module
from jimsapi.asgi import websocket as module
from jimsapi.asgi.extension import EXTENSION
from jimsapi.asgi.routing import RouteTable
from jimsapi.asgi.testing import ClientWebSocket, HandshakeRefused, TestClient
from jimsapi.asgi.types import Message

from .driver import Exchange, http_scope, recorded

pytestmark = pytest.mark.anyio

ENCODED = urlsafe_b64encode("geheim ü/=".encode()).rstrip(b"=").decode()


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def admit(connection: Connection, route: Route) -> object:
    given = connection.headers.getlist("authorization")
    if len(given) > 1:
        raise HTTPError(400, "Send one Authorization header")
    if [value.strip() for value in given] == ["Bearer right"] or connection.headers.get("x-key") == "right":
        return "known"
    if given == ["Bearer denied"]:
        raise HTTPError(403, "Forbidden")
    if given and given[0].encode("latin-1") == "Bearer geheim ü/=".encode():
        return "encoded"
    raise HTTPError(401, "Unauthorized", {"www-authenticate": "Bearer"})


def serving(**options: Any) -> App:
    """Routes that tell how they were reached, then echo."""
    app = App(admit=admit, **options)

    async def echo(ws: WebSocket) -> None:
        await ws.accept()
        await ws.send_json([ws.admission, ws.subprotocol, ws.path_params])
        async for message in ws:
            await (ws.send_text(message) if isinstance(message, str) else ws.send_bytes(message))

    app.websocket("/public/{n:int}", public=True)(echo)
    app.websocket("/private", scope="chat", subprotocols=("jims.chat", "jims.old"))(echo)
    app.websocket("/frame", subprotocols=("jims.chat",), first_frame=True)(echo)
    app.websocket("/shop", public=True, origins=("https://shop.example",))(echo)
    return app


def app_of(handler: Any, **options: Any) -> App:
    """An app whose WebSocket at `/` has this handler."""
    app = App(**options)
    app.websocket("/")(handler)
    return app


@asynccontextmanager
async def opened(app: App, path: str, **options: Any) -> AsyncIterator[ClientWebSocket]:
    with anyio.fail_after(30):
        async with TestClient(app) as client, client.websocket(path, **options) as ws:
            yield ws


async def refused(app: App, path: str, **options: Any) -> httpx.Response:
    with pytest.raises(HandshakeRefused) as refusal:
        async with opened(app, path, **options):
            pass
    return refusal.value.response


async def closing(ws: ClientWebSocket) -> tuple[int, str]:
    """The code and reason with which the app closes, after whatever it still sends."""
    while True:
        try:
            await ws.receive()
        except WebSocketDisconnected as closed:
            return closed.code, closed.reason


# Messages.


async def test_text_and_bytes_go_both_ways_until_the_client_leaves() -> None:
    async with opened(serving(), "/public/7") as ws:
        assert await ws.receive_json() == [None, None, {"n": 7}]
        await ws.send_text("é")
        await ws.send_bytes(b"\xff")
        assert [await ws.receive(), await ws.receive()] == ["é", b"\xff"]
        assert ws.headers["x-request-id"]


async def handled(handler: Any, *messages: str | bytes, **options: Any) -> list[Any]:
    """All that a handler sends, and at last the code and reason of the close."""
    got: list[Any] = []
    async with opened(app_of(handler, **options), "/") as ws:
        for message in messages:
            await (ws.send_text(message) if isinstance(message, str) else ws.send_bytes(message))
        while True:
            try:
                got.append(await ws.receive())
            except WebSocketDisconnected as closed:
                return [*got, (closed.code, closed.reason)]


async def test_a_handler_that_returns_has_closed_its_websocket() -> None:
    async def handler(ws: WebSocket) -> None:
        await ws.accept()
        await ws.send_bytes(b"bye")

    assert await handled(handler) == [b"bye", (1000, "")]


async def test_the_handler_s_code_and_reason_are_told_and_nothing_can_be_sent_after_them() -> None:
    raised = []

    async def handler(ws: WebSocket) -> None:
        await ws.accept()
        await ws.close(4000, "é" * 100)
        await ws.close(1000)
        for act in (ws.send_text("late"), ws.receive()):
            with pytest.raises(WebSocketDisconnected) as error:
                await act
            raised.append(error.value.code)

    assert await handled(handler) == [(4000, "é" * 61)]
    assert raised == [4000, 4000]


async def test_json_is_bounded_and_a_faulty_message_is_the_handler_s_to_answer() -> None:
    async def handler(ws: WebSocket) -> None:
        await ws.accept()
        for _ in range(5):
            try:
                await ws.send_json({"got": await ws.receive_json()})
            except ValidationError as error:
                await ws.send_text(error.faults[0]["type"])
            except HTTPError as error:
                await ws.send_text(str(error.status))

    answers = await handled(handler, "{", "[" * 300 + "]" * 300, '{"n":123456789012345678901}', b"1", '{"a":[1]}')
    assert answers[:4] == ["json_invalid", "nesting_too_deep", "integer_out_of_range", "415"]
    assert json.loads(answers[4]) == {"got": {"a": [1]}}


@pytest.mark.parametrize(("message", "code"), [("{", 1007), (b"1", 1003), ("x" * 11, 1009), ("é" * 6, 1009)])
async def test_a_faulty_message_that_nobody_answers_closes_with_its_code(message: str | bytes, code: int) -> None:
    async def handler(ws: WebSocket) -> None:
        await ws.accept()
        await ws.receive_json()

    assert (await handled(handler, message, max_body=10))[0][0] == code


@pytest.mark.parametrize("message", ["x" * 10, "é" * 5, b"x" * 10])
async def test_a_message_of_just_the_limit_is_received(message: str | bytes) -> None:
    async def handler(ws: WebSocket) -> None:
        await ws.accept()
        ws.max_message = 10
        await ws.send_json(len(await ws.receive()))

    assert await handled(handler, message) == [str(len(message)), (1000, "")]


async def test_who_sends_or_receives_before_accepting_is_told_to_accept(caplog: pytest.LogCaptureFixture) -> None:
    for method in ("receive", "receive_json"):

        async def handler(ws: WebSocket, method: str = method) -> None:
            with pytest.raises(RuntimeError, match=r"await ws\.accept"):
                await getattr(ws, method)()
            with pytest.raises(RuntimeError, match=r"await ws\.accept"):
                await ws.send_text("x")

        assert (await refused(app_of(handler), "/")).status_code == 500  # it neither accepted nor closed
        assert "neither accepted nor closed" in caplog.text


async def test_headers_and_a_subprotocol_may_be_given_and_must_be_possible() -> None:
    async def handler(ws: WebSocket) -> None:
        with pytest.raises(ValueError, match="offer"):
            await ws.accept("c")
        with pytest.raises(ValueError, match="line break"):
            await ws.accept(headers={"x-a": "\n"})
        await ws.accept("b", {"x-a": "1"})
        await ws.accept("a")  # does nothing
        assert (ws.subprotocol, ws.subprotocols) == ("b", ("a", "b"))

    async with opened(app_of(handler), "/", subprotocols=("a", "b")) as ws:
        assert (ws.subprotocol, ws.headers["x-a"]) == ("b", "1")
        assert await closing(ws) == (1000, "")


# A handler that only sends.


def pushing(block: Callable[[WebSocket], Awaitable[object]]) -> tuple[App, list[object]]:
    """An app whose WebSocket `/` waits in `while_open` for what `block` does, and the log of how that ended."""
    app = App()
    log: list[object] = []

    @app.websocket("/")
    async def handler(ws: WebSocket) -> None:
        await ws.accept()
        async with ws.while_open():
            await block(ws)
            log.append("the block has ended by itself")
        log.append(ws.close_code)
        if ws.close_code is None:
            log.append(await ws.receive())

    return app, log


async def wait_forever(ws: WebSocket) -> None:
    await ws.send_text("first")
    await anyio.sleep_forever()


async def test_a_handler_that_only_sends_ends_when_its_client_leaves() -> None:
    app, log = pushing(wait_forever)
    async with opened(app, "/") as ws:
        await ws.send_text("is dropped")
        assert await ws.receive() == "first"
        await ws.close(4000)
    assert log == [4000]


async def test_a_handler_that_only_sends_ends_when_a_drain_begins() -> None:
    app, log = pushing(wait_forever)
    async with opened(app, "/") as ws:
        assert await ws.receive() == "first"
        await app.drain(30)
        assert log == [1012]
        assert await closing(ws) == (1012, "The server restarts")


async def test_a_drain_ends_a_handler_that_only_sends_also_if_the_client_does_not_answer_the_close(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(open_work, "END_WITHIN", 0.01)
    app, log = pushing(wait_forever)
    exchange = Exchange({"type": "websocket.connect"})

    async def send(message: Message) -> None:
        if message["type"] == "websocket.close":
            await anyio.sleep_forever()

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(app, http_scope(type="websocket"), exchange.receive, send)
            await anyio.wait_all_tasks_blocked()
            await app.drain(30)
    assert log == [1012]


async def test_a_block_that_only_sends_ends_by_itself_and_then_the_handler_may_receive() -> None:
    async def send(ws: WebSocket) -> None:
        await ws.send_text("all")

    app, log = pushing(send)
    async with opened(app, "/") as ws:
        assert await ws.receive() == "all"
        await anyio.wait_all_tasks_blocked()
        await ws.send_text("thanks")
        assert await closing(ws) == (1000, "")
    assert log == ["the block has ended by itself", None, "thanks"]


async def test_a_block_that_only_sends_ends_by_a_close_and_by_a_send_to_a_client_that_has_left() -> None:
    async def close(ws: WebSocket) -> None:
        await ws.close(4001)
        await anyio.sleep_forever()

    async def send_without_end(ws: WebSocket) -> None:
        while True:
            await ws.send_text("tick")

    app, log = pushing(close)
    async with opened(app, "/") as ws:
        assert await closing(ws) == (4001, "")
    assert log == [4001]
    app, log = pushing(send_without_end)
    async with opened(app, "/") as ws:
        assert await ws.receive() == "tick"
    assert log in ([1000], [1006])


async def left_at_the_first_send(app: App) -> None:
    """Run the app for a client whose leaving is seen by a send, before the disconnect is received."""
    exchange = Exchange({"type": "websocket.connect"})

    async def send(message: Message) -> None:
        if message["type"] == "websocket.send":
            raise OSError("the client has disconnected")

    await app(http_scope(type="websocket"), exchange.receive, send)


@pytest.mark.parametrize("fails", [False, True])
async def test_a_block_that_sends_in_tasks_ends_by_a_send_to_a_client_that_has_left(
    fails: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Another error of the tasks is raised."""

    async def send_in_a_task(ws: WebSocket) -> None:
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ws.send_text, "first")
        except ExceptionGroup as group:
            raise ExceptionGroup("of tasks", [*group.exceptions, *[LookupError("besides")] * fails]) from None

    app, log = pushing(send_in_a_task)
    await left_at_the_first_send(app)
    assert log == ([] if fails else [1006])
    assert ("LookupError: besides" in caplog.text) == fails


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_block_may_send_in_tasks_of_asyncio_and_is_cancelled_with_its_task(cancelled: bool) -> None:
    async def send_in_a_task(ws: WebSocket) -> None:
        task = asyncio.current_task()
        assert task is not None
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(ws.send_text("first"))
            if cancelled:
                task.cancel()

    app, log = pushing(send_in_a_task)
    app_task = asyncio.create_task(left_at_the_first_send(app))
    await asyncio.wait({app_task})
    goes_on = cancelled and sys.version_info >= (3, 13)  # the group of earlier versions loses the cancellation
    assert app_task.cancelled() == goes_on
    assert log == ([] if goes_on else [1006])


async def test_what_a_block_that_only_sends_raises_is_raised_as_it_is() -> None:
    async def deny(ws: WebSocket) -> None:
        raise HTTPError(403, "Denied")

    async def lose_another(ws: WebSocket) -> None:
        raise WebSocketDisconnected(1006)

    for block, code in ((deny, 1008), (lose_another, 1006)):
        app, log = pushing(block)
        async with opened(app, "/") as ws:
            assert (await closing(ws))[0] == code
        assert log == []


async def test_a_block_that_only_sends_must_not_receive_and_is_for_an_accepted_websocket(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def receive(ws: WebSocket) -> None:
        await ws.receive()

    async def not_accepted(ws: WebSocket) -> None:
        async with ws.while_open():
            raise AssertionError

    app, _ = pushing(receive)
    async with opened(app, "/") as ws:
        assert (await closing(ws))[0] == 1011
    assert "receive before it or after it" in str(caplog.records[-1].exc_info)
    assert (await refused(app_of(not_accepted), "/")).status_code == 500
    assert "Accept the WebSocket before" in str(caplog.records[-1].exc_info)


# Ends.


async def test_a_handler_learns_that_the_client_has_left() -> None:
    learned: list[Any] = []

    async def handler(ws: WebSocket) -> None:
        await ws.accept()
        try:
            await ws.receive()
        except WebSocketDisconnected as left:
            learned.append((left.code, left.reason, ws.close_code))
            raise

    async with opened(app_of(handler), "/") as ws:
        await ws.close(4001, "enough")
    assert learned == [(4001, "enough", 4001)]


async def test_an_unexpected_error_is_logged_once_and_not_told(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(ws: WebSocket) -> None:
        await ws.accept()
        raise LookupError("a secret detail")

    assert await handled(handler) == [(1011, "")]
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
        "A request failed: WEBSOCKET /"
    ]


async def test_a_close_that_the_server_rejects_is_an_error_and_closes_with_1011() -> None:
    """As uvicorn rejects the code 1005, which is only for the case that there is no code (RFC 6455, 7.4.1)."""
    exchange = Exchange({"type": "websocket.connect"})
    codes: list[int] = []

    async def send(message: Message) -> None:
        if message["type"] == "websocket.close":
            codes.append(message["code"])
            if message["code"] == 1005:
                raise ValueError("this code cannot be sent")

    async def handler(ws: WebSocket) -> None:
        await ws.accept()
        await ws.close(1005)

    await app_of(handler)(http_scope(type="websocket"), exchange.receive, send)
    assert codes == [1005, 1011]


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [(401, 1008, "Unauthorized"), (404, 1008, "Not Found"), (429, 1013, "Too Many Requests"), (500, 1011, "")],
)
async def test_an_http_error_is_a_close_code_once_the_handshake_is_accepted(
    status: int, code: int, reason: str
) -> None:
    async def handler(ws: WebSocket) -> None:
        await ws.accept()
        raise HTTPError(status, "a detail")

    assert await handled(handler) == [(code, reason)]


async def test_an_error_before_the_handshake_is_accepted_is_the_answer_of_a_request() -> None:
    class Gone(Exception):
        pass

    app = App()

    @app.exception_handler(Gone)
    def gone(connection: Connection, error: Gone) -> Response:
        return JSONResponse({"detail": connection.path}, 410)

    @app.websocket("/gone")
    async def raises_gone(ws: WebSocket) -> None:
        raise Gone

    @app.websocket("/http")
    async def raises_http(ws: WebSocket) -> None:
        raise HTTPError(409, "not now", {"retry-after": "1"})

    @app.websocket("/closed")
    async def closes(ws: WebSocket) -> None:
        await ws.close()

    assert (await refused(app, "/gone")).json() == {"detail": "/gone"}
    answer = await refused(app, "/http")
    assert (answer.status_code, answer.json(), answer.headers["retry-after"]) == (409, {"detail": "not now"}, "1")
    assert answer.headers["x-request-id"]
    assert (await refused(app, "/closed")).status_code == 403


async def test_a_server_that_can_send_no_answer_is_told_to_close() -> None:
    exchange = Exchange({"type": "websocket.connect"})
    await exchange.run(serving(), {"type": "websocket", "path": "/private", "headers": []})
    assert [message["type"] for message in exchange.sent] == ["websocket.close"]


async def test_a_client_that_does_not_read_is_cut_off_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "jimsapi.asgi")
    raised = []

    class Server(Exchange):
        aborted = 0

        def unread_bytes(self) -> int:
            return 0

        def abort(self) -> None:
            self.aborted += 1

        async def send(self, message: Any) -> None:
            await super().send(message)
            if message["type"] == "websocket.send":
                await anyio.sleep_forever()

    app = App()

    @app.websocket("/slow")
    async def handler(ws: WebSocket) -> None:
        await ws.accept()
        ws.send_timeout = 0.01
        for _ in range(2):
            with pytest.raises(WebSocketDisconnected) as error:
                await ws.send_text("x")
            raised.append(error.value.code)

    exchange = Server({"type": "websocket.connect"})
    extensions = {EXTENSION: exchange}
    await exchange.run(app, {"type": "websocket", "path": "/slow", "headers": [], "extensions": extensions})
    assert raised == [1006, 1006]
    assert [message["type"] for message in exchange.sent] == ["websocket.accept", "websocket.send"]
    assert exchange.aborted == 1
    assert caplog.text.count("slow client") == 1


# Admission.


@pytest.mark.parametrize(
    ("options", "admission"),
    [
        ({"headers": {"authorization": "Bearer right"}}, "known"),
        ({"headers": {"x-key": "right"}}, "known"),
        ({"subprotocols": ["jims.chat", "bearer.right"]}, "known"),
        ({"subprotocols": ["base64url.bearer." + ENCODED, "jims.old"]}, "encoded"),
    ],
)
async def test_credentials_come_by_header_or_as_a_subprotocol(options: Any, admission: str) -> None:
    async with opened(serving(), "/private", **options) as ws:
        offered = [name for name in options.get("subprotocols", ()) if name.startswith("jims")]
        assert await ws.receive_json() == [admission, offered[0] if offered else None, {}]
        assert ws.subprotocol == (offered[0] if offered else None)


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({}, 401),
        ({"headers": {"authorization": "Bearer wrong"}}, 401),
        ({"headers": {"authorization": "Bearer denied"}}, 403),
        ({"subprotocols": ["jims.chat", "bearer.wrong"]}, 401),
        ({"subprotocols": ["jims.chat", "bearer."]}, 401),
        ({"subprotocols": ["base64url.bearer.a!"]}, 401),
        ({"subprotocols": ["base64url.bearer._w"]}, 401),
        ({"subprotocols": ["base64url.bearer.Cg"]}, 401),
        ({"subprotocols": ["bearer.right", "bearer.right"]}, 400),
        ({"subprotocols": ["bearer.right"], "headers": {"authorization": "Bearer right"}}, 400),
    ],
)
@pytest.mark.parametrize("path", ["/private", "/private?token=right&access_token=right&authorization=Bearer%20right"])
async def test_who_is_not_known_is_refused_before_the_handshake(options: Any, status: int, path: str) -> None:
    assert (await refused(serving(), path, **options)).status_code == status


@pytest.mark.parametrize("query", ["token=right", "access_token=right", "authorization=Bearer%20right"])
async def test_a_query_string_never_admits_a_first_frame_is_waited_for(query: str) -> None:
    async with opened(serving(), f"/frame?{query}") as ws:
        await ws.send_json({"type": "auth", "token": "wrong"})
        assert await closing(ws) == (1008, "Unauthorized")


async def test_a_token_is_never_selected_as_the_subprotocol() -> None:
    async def handler(ws: WebSocket) -> None:
        assert ws.subprotocols == ("jims.chat",)
        with pytest.raises(ValueError, match="offer"):
            await ws.accept("bearer.right")
        await ws.accept()

    app = App()
    app.websocket("/", subprotocols=("bearer.right",))(handler)
    async with opened(app, "/", subprotocols=("bearer.right", "jims.chat")) as ws:
        assert ws.subprotocol is None


async def test_credentials_may_come_in_the_first_frame() -> None:
    async with opened(serving(), "/frame", subprotocols=["jims.chat"]) as ws:
        await ws.send_json({"type": "auth", "token": "right"})
        assert await ws.receive_json() == ["known", "jims.chat", {}]
        await ws.send_text("on")
        assert await ws.receive() == "on"


async def test_who_is_known_by_the_handshake_sends_no_first_frame() -> None:
    async with opened(serving(), "/frame", headers={"x-key": "right"}) as ws:
        assert await ws.receive_json() == ["known", None, {}]


async def test_wrong_credentials_in_the_handshake_are_refused_at_once() -> None:
    assert (await refused(serving(), "/frame", headers={"authorization": "Bearer wrong"})).status_code == 401


@pytest.mark.parametrize(
    "frame",
    [
        '{"type":"auth","token":"wrong"}',
        '{"type":"auth","token":"denied"}',
        '{"type":"auth","token":""}',
        '{"type":"auth","token":5}',
        '{"type":"auth","token":"right\\n"}',
        '{"type":"chat","token":"right"}',
        '["right"]',
        "{",
        b'{"type":"auth","token":"right"}',
    ],
)
async def test_a_first_frame_that_admits_nobody_closes(frame: str | bytes) -> None:
    async with opened(serving(), "/frame") as ws:
        await (ws.send_text(frame) if isinstance(frame, str) else ws.send_bytes(frame))
        code, reason = await closing(ws)
    assert (code, reason) == (1008, "Forbidden" if "denied" in str(frame) else "Unauthorized")


async def test_a_first_frame_is_bounded_in_size_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(serving(), "/frame") as ws:
        await ws.send_json({"type": "auth", "token": "x" * 20_000})
        assert (await closing(ws))[0] == 1009
    monkeypatch.setattr(module, "FIRST_FRAME_SECONDS", 0.01)
    async with opened(serving(), "/frame") as ws:
        assert await closing(ws) == (1008, "Unauthorized")


async def test_no_more_than_some_wait_for_a_first_frame_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_module, "MAX_AWAITING_FIRST_FRAME", 1)
    app = serving()
    async with opened(app, "/frame") as stranger:
        assert (await refused(app, "/frame")).status_code == 401
        async with opened(app, "/frame", headers={"authorization": "Bearer right"}):
            pass
        await stranger.send_json({"type": "auth", "token": "right"})
        await stranger.receive_json()
        async with opened(app, "/frame"):
            pass


async def test_who_was_admitted_may_be_asked_for_again() -> None:
    known = {"right": "first"}

    async def admit(connection: Connection, route: Route) -> object:
        try:
            return known[(connection.headers.get("authorization") or "").removeprefix("Bearer ")], route.path
        except KeyError:
            raise HTTPError(401, "Unauthorized") from None

    app = App(admit=admit)

    @app.websocket("/again", first_frame=True)
    async def again(ws: WebSocket) -> None:
        async for _ in ws:
            await ws.readmit()
            await ws.send_json(ws.admission)

    async with opened(app, "/again") as ws:
        await ws.send_json({"type": "auth", "token": "right"})
        await ws.send_text("")
        assert await ws.receive_json() == ["first", "/again"]
        known["right"] = "second"
        await ws.send_text("")
        assert await ws.receive_json() == ["second", "/again"]
        known.clear()
        await ws.send_text("")
        assert await closing(ws) == (1008, "Unauthorized")


async def test_what_is_presented_is_not_left_in_the_server_s_scope() -> None:
    """Wrappers hold the scope: a tracer must not find the token among the headers."""
    scope: dict[str, Any] = {"type": "websocket", "headers": [(b"x", b"1")]}
    connection = Connection(scope)
    assert connection.headers.get("authorization") is None
    connection.present("Bearer right")
    assert connection.headers.get("authorization") == "Bearer right"
    assert scope["headers"] == [(b"x", b"1")]


# Origins.


@pytest.mark.parametrize(
    ("path", "origin", "allowed"),
    [
        ("wss://testserver/public/1", "https://testserver", True),
        ("wss://testserver/public/1", "https://testserver:443", True),
        ("wss://testserver/public/1", "http://testserver", False),
        ("/public/1", None, True),
        ("/public/1", "http://testserver", True),
        ("/public/1", "https://TestServer", True),
        ("/public/1", "https://testserver:443", True),
        ("/public/1", "https://testserver:8443", False),
        ("/public/1", "https://evil.example", False),
        ("/public/1", "https://testserver.evil.example", False),
        ("/public/1", "https://evil.example/testserver", False),
        ("/public/1", "null", False),
        ("/public/1", "", False),
        ("/public/1", "file://", False),
        ("/public/1", "https://[", False),
        ("/public/1", "https://app.example", True),
        ("/public/1", "https://app.example:443", True),
        ("/public/1", "http://app.example", False),
        ("/public/1", "https://ann@testserver", False),
        ("/public/1", "https://testserver:80", False),
        ("/public/1", "http://", False),
        ("/public/1", "https://shop.example", False),
        ("/shop", "https://shop.example", True),
        ("/shop", "https://app.example", True),
    ],
)
async def test_a_page_of_another_origin_may_not_connect(path: str, origin: str | None, allowed: bool) -> None:
    app = serving(origins=["https://app.example/"])
    headers = {} if origin is None else {"origin": origin}
    if allowed:
        async with opened(app, path, headers=headers):
            pass
    else:
        answer = await refused(app, path, headers=headers)
        assert (answer.status_code, answer.json()) == (403, {"detail": "This origin may not connect"})


async def test_a_star_lets_pages_of_all_origins_connect() -> None:
    async with opened(serving(origins=["*"]), "/public/1", headers={"origin": "null"}):
        pass


async def test_two_origins_are_none() -> None:
    headers = httpx.Headers([("origin", "http://testserver")] * 2)
    assert (await refused(serving(), "/public/1", headers=headers)).status_code == 403


async def test_a_foreign_page_is_refused_before_anybody_is_asked_for_admission() -> None:
    answer = await refused(serving(), "/private", headers={"origin": "https://evil.example"})
    assert answer.status_code == 403


# Routes.


async def test_an_unknown_path_and_an_http_route_are_404_to_a_websocket() -> None:
    app = serving()

    @app.get("/page", public=True)
    async def page(request: Request) -> Response:
        return Response("page")

    for path in ("/nowhere", "/page", "/public/x", "/public/7/"):
        assert (await refused(app, path)).json() == {"detail": "Not Found"}


async def test_a_request_to_a_websocket_s_route_is_told_so(caplog: pytest.LogCaptureFixture) -> None:
    async with TestClient(serving()) as client:
        for method in ("GET", "POST", "WEBSOCKET"):
            answer = await client.request(method, "/public/7")
            assert (answer.status_code, answer.headers["upgrade"]) == (426, "websocket")
            assert answer.headers["connection"] == "upgrade"
        assert (await client.get("/public/7", headers={"upgrade": "WebSocket"})).status_code == 426
        assert not caplog.records
        missing = await client.get("/public/7", headers={"upgrade": "WebSocket", "connection": "keep-alive, Upgrade"})
        assert (missing.status_code, missing.json()) == (501, {"detail": "This server does not speak WebSocket"})
    assert "install" in caplog.text


async def test_a_path_may_have_a_websocket_beside_its_methods() -> None:
    app = serving()

    @app.post("/private", public=True)
    async def post(request: Request) -> Response:
        return Response("posted")

    async with TestClient(app) as client:
        assert (await client.post("/private")).text == "posted"
        wrong = await client.get("/private")
        assert (wrong.status_code, wrong.headers["allow"]) == (405, "OPTIONS, POST")
        async with client.websocket("/private", headers={"x-key": "right"}) as ws:
            assert (await ws.receive_json())[0] == "known"


async def test_a_router_s_websockets_are_included_and_a_path_is_claimed_once() -> None:
    async def handler(ws: WebSocket) -> None:
        await ws.accept()
        await ws.send_text(ws.path)

    router = Router()
    router.websocket("/{name}")(handler)
    app = App()
    app.include(router, "/rooms")
    with pytest.raises(RouteConflict, match=r"WebSocket /rooms/\{room\}"):
        app.websocket("/rooms/{room}")(handler)
    with pytest.raises(ValueError, match="async def"):
        app.websocket("/x")(lambda ws: None)  # type: ignore[type-var] # wrong on purpose
    for root in ("/api", "/rooms"):  # the second is no part of the path, though it looks so
        async with TestClient(app, root_path=root) as client, client.websocket("/rooms/a") as ws:
            assert str(await ws.receive()).endswith("/a")
    async with TestClient(app, root_path="/api") as client, client.websocket("/api/rooms/a") as ws:
        assert await ws.receive() == "/rooms/a"


async def test_the_document_shows_a_websocket_as_the_get_that_it_begins_with() -> None:
    app = serving()
    operation = app.openapi()["paths"]["/private"]["get"]
    assert set(operation["responses"]) == {"101", "426"}

    @app.get("/private")
    async def private(request: Request) -> Response:
        """The page."""
        return Response()

    assert app.openapi()["paths"]["/private"]["get"]["summary"] == "The page."


async def test_a_refusing_app_refuses_websockets_too() -> None:
    app = serving()
    app.refusal = JSONResponse({"detail": "draining"}, 503)
    assert (await refused(app, "/public/1")).status_code == 503


async def test_wrappers_see_websockets() -> None:
    app = serving()
    seen = []

    def wrapper(inner: Any) -> Any:
        async def wrapped(scope: Any, receive: Any, send: Any) -> None:
            seen.append(scope["type"])
            await inner(scope, receive, send)

        return wrapped

    app.wrap(wrapper)
    async with opened(app, "/public/1"):
        pass
    assert seen == ["websocket"]


# Observers.


async def test_observers_are_told_of_a_websocket_once_it_has_ended() -> None:
    app = serving()
    told = recorded(app)
    async with opened(app, "/public/7", headers={"x-request-id": "given"}) as ws:
        await ws.receive()
        assert not told
        await ws.close(1001)
    await refused(app, "/private")
    await refused(app, "/nowhere")
    await refused(app, "/shop", headers={"origin": "null"})
    assert [(record.method, record.route, record.status) for record in told] == [
        ("WEBSOCKET", "/public/{n:int}", 101),
        ("WEBSOCKET", "/private", 401),
        ("WEBSOCKET", "unmatched", 404),
        ("WEBSOCKET", "/shop", 403),
    ]
    assert (told[0].request_id, told[0].fields, told[0].probe) == ("given", {"close_code": 1001}, False)


async def test_a_client_that_leaves_before_the_handshake_is_accepted_is_told_of_as_gone() -> None:
    app = serving()
    told = recorded(app)

    async def send(message: Any) -> None:
        raise OSError("gone")

    exchange = Exchange({"type": "websocket.connect"})
    await app({"type": "websocket", "path": "/public/7", "headers": []}, exchange.receive, send)
    assert [record.status for record in told] == [CLIENT_GONE]


async def test_http_gets_no_slower_by_websockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their routes are in a tree of their own, which no request is looked up in unless nothing else fits."""
    app = serving()
    app.get("/private")(_plain)
    monkeypatch.setattr(RouteTable, "match_websocket", None)  # a call would fail
    assert (await Exchange().run(app, http_scope(path="/private", headers=[(b"x-key", b"right")]))).status == 200


async def _plain(request: Request) -> Response:
    return Response("plain")
