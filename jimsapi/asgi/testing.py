"""A client for tests. It calls an app in the same process, and runs the app's lifespan."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Any, Self

import anyio
import httpx
import orjson
from anyio.lowlevel import checkpoint

from .errors import WebSocketDisconnected
from .tasks import spawn
from .types import ASGIApp, Message, Scope

LEAVE_WITHIN = 5.0
"""Seconds that an app may work on a request or a WebSocket after the client has disconnected."""
UNREAD_MESSAGES = 64
"""Messages that an app may send over a WebSocket before the test has received the first of them."""
_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


class TestClient(httpx.AsyncClient):
    """`httpx.AsyncClient` over an ASGI app, as an async context manager that runs the app's lifespan:

        async with TestClient(app) as client:
            answer = await client.get("/things/1")

    `app` is also an attribute. `base_url` is the address that the client seems to call. With
    `base_url="https://testserver"` the app sees requests over TLS: the scheme is `https`, or `wss` for WebSockets, and
    the client sends `Secure` cookies back, which it does not over `http`. `root_path` is the prefix under which the app
    is mounted. Other arguments are httpx's. An exception that the app does not answer itself, such as one of a wrapper
    or of a stream, is raised by the call, unless `raise_app_exceptions=False`. Entering the client raises
    `RuntimeError` if the app's start fails, and leaving it if the app's shutdown fails.

    `get`, `post` and the like return a response whole. `stream` returns the parts as the app sends them, also of an
    endless response; leaving the context disconnects the client:

        async with client.stream("GET", "/ticks") as answer:
            async for part in answer.aiter_raw():
                break

    WebSockets send and receive as usual. Their messages come as the app sends them, also without an end; leaving the
    context disconnects the client:

        async with client.websocket("/echo") as ws:
            await ws.send_text("hello")
            assert await ws.receive() == "you said hello"

    The client works in every test on asyncio or trio. It may be entered in one task and left in another, as the
    fixtures of pytest-asyncio are.
    """

    __test__ = False  # pytest would collect every class named Test…

    def __init__(
        self,
        app: ASGIApp,
        *,
        base_url: str = "http://testserver",
        root_path: str = "",
        raise_app_exceptions: bool = True,
        headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        state: dict[str, Any] = {}
        transport = _Transport(app, raise_app_exceptions, root_path, state)
        super().__init__(transport=transport, base_url=base_url, headers=headers, **options)
        self._lifespan = _LifespanRunner(app, state)
        self._scope_state = state
        self._requests = transport
        self.app: Any = app
        self._root_path = root_path

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        await self._lifespan.start()
        self._requests.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        try:
            await super().__aexit__(exc_type, exc_value, traceback)
        finally:
            try:
                await self._requests.stop()
            finally:
                await self._lifespan.stop()

    @asynccontextmanager
    async def websocket(
        self, path: str, *, subprotocols: Sequence[str] = (), headers: Mapping[str, str] | None = None
    ) -> AsyncIterator["ClientWebSocket"]:
        """Open a WebSocket. Leaving the context closes it with 1000, and waits for the app's handler to end.

        `headers` are added to the client's own.

        Raises `HandshakeRefused` if the app does not accept it.
        """
        request = self.build_request("GET", path, headers=headers)
        ws = ClientWebSocket(self.app, _websocket_scope(request, self._root_path, self._scope_state, subprotocols))
        spawn(ws.serve, "app of a WebSocket")
        try:
            await ws.wait_for_answer()
            yield ws
        finally:
            await ws.leave()
        if ws.app_failure is not None:
            raise ws.app_failure


class _Transport(httpx.AsyncBaseTransport):
    """Runs the app for each request in a task of its own, so that its response can be read while it is sent.

    Before it is started, it runs the app in the task of the request, and the response is complete.
    """

    def __init__(self, app: ASGIApp, raise_app_exceptions: bool, root_path: str, state: dict[str, Any]) -> None:
        self._app = app
        self._raises = raise_app_exceptions
        self._root_path = root_path
        self._state = state
        self._unstarted = httpx.ASGITransport(app, raise_app_exceptions, root_path)
        self._is_started = False
        self._open: set[_Exchange] = set()

    def start(self) -> None:
        self._is_started = True

    async def stop(self) -> None:
        """Disconnect the clients of responses that are still open, and wait until the app has ended them."""
        self._is_started = False
        async with anyio.create_task_group() as tasks:
            for exchange in self._open:
                tasks.start_soon(exchange.leave)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if not self._is_started:
            return await self._unstarted.handle_async_request(request)
        assert isinstance(request.stream, httpx.AsyncByteStream)
        scope = _http_scope(request, self._root_path, self._state)
        exchange = _Exchange(self._app, scope, aiter(request.stream), self._raises, self._open.discard)
        self._open.add(exchange)
        spawn(exchange.run, "app of a request")
        try:
            return await exchange.response()
        except BaseException:
            await exchange.cancel()
            raise


class _Exchange(httpx.AsyncByteStream):
    """One request and its response, whose parts an iteration returns as the app sends them."""

    def __init__(
        self,
        app: ASGIApp,
        scope: Scope,
        body: AsyncIterator[bytes],
        raises: bool,
        on_end: Callable[["_Exchange"], None],
    ) -> None:
        self._app = app
        self._scope = scope
        self._body = body
        self._raises = raises
        self._on_end = on_end
        self._request_complete = False
        self._response_complete = False
        self._start: Message | None = None
        self._started, self._left, self._ended = anyio.Event(), anyio.Event(), anyio.Event()
        self._cancellation = anyio.CancelScope()
        self._failure: BaseException | None = None
        # Without a buffer: the app waits until the client reads, as it does for a slow client.
        self._to_client, self._parts = anyio.create_memory_object_stream[bytes](0)

    async def run(self) -> None:
        """Run the app, as a server does."""
        try:
            with self._cancellation:
                await self._app(self._scope, self._receive, self._send)
        except anyio.get_cancelled_exc_class():
            # Raised here, it would cancel the task of the test.
            self._failure = RuntimeError("The app was cancelled.")
        except BaseException as error:
            self._failure = error
        finally:
            self._to_client.close()
            self._ended.set()
            self._started.set()
            self._left.set()
            self._on_end(self)

    async def response(self) -> httpx.Response:
        """Wait until the app begins its response. Raises what the app raises before that."""
        await self._started.wait()
        if self._start is None:
            self._raise_failure()
            if self._failure is None:
                raise RuntimeError("The app ended without a response.")
            return httpx.Response(500, stream=self)
        return httpx.Response(self._start["status"], headers=self._start.get("headers", []), stream=self)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._parts:
            yield part
        await self._ended.wait()
        self._raise_failure()
        if not self._response_complete and self._failure is None:
            raise RuntimeError("The app ended before its response was complete.")

    async def aclose(self) -> None:
        had_ended = self._ended.is_set()
        await self.leave()
        if had_ended:  # a later error may follow from the client's leaving
            self._raise_failure()

    async def leave(self) -> None:
        """Disconnect the client, and wait until the app has ended. An app that does not end in time is cancelled."""
        self._left.set()
        self._parts.close()
        with anyio.move_on_after(LEAVE_WITHIN, shield=True):
            await self._ended.wait()
        await self.cancel()

    async def cancel(self) -> None:
        """Cancel the app, and wait until it has ended."""
        self._parts.close()
        self._cancellation.cancel()
        with anyio.CancelScope(shield=True):
            await self._ended.wait()

    def _raise_failure(self) -> None:
        """Raise what the app has raised, once, unless the client has to return it as a 500."""
        failure = self._failure
        if failure is not None and (self._raises or not isinstance(failure, Exception)):
            self._raises = False
            raise failure

    async def _receive(self) -> Message:
        if self._left.is_set() or self._request_complete:
            await self._left.wait()
            return {"type": "http.disconnect"}
        try:
            part = await anext(self._body)
        except StopAsyncIteration:
            self._request_complete = True
            return {"type": "http.request", "body": b"", "more_body": False}
        return {"type": "http.request", "body": part, "more_body": True}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            if self._start is not None:
                raise RuntimeError("The app sent the start of a second response.")
            self._start = message
            self._started.set()
        elif message["type"] == "http.response.body":
            if self._start is None or self._response_complete:
                raise RuntimeError("The app sent a body outside of a response.")
            await self._send_part(message)

    async def _send_part(self, message: Message) -> None:
        if self._left.is_set():
            raise OSError("The client has disconnected.")
        part = b"" if self._scope["method"] == "HEAD" else message.get("body", b"")
        if part:
            try:
                await self._to_client.send(bytes(part))
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                raise OSError("The client has disconnected.") from None
        if not message.get("more_body"):
            self._response_complete = True
            self._to_client.close()
            self._left.set()


class HandshakeRefused(Exception):
    """The app rejected a WebSocket. `response` is its response to the handshake."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        super().__init__(f"{response.status_code} {response.text}".rstrip())


class ClientWebSocket:
    """The client's side of a WebSocket. The app selected `subprotocol`, and sent `headers` with its response."""

    def __init__(self, app: ASGIApp, scope: Scope) -> None:
        self.subprotocol: str | None = None
        self.headers = httpx.Headers()
        self.app_failure: BaseException | None = None
        self._served = anyio.Event()
        self._cancellation = anyio.CancelScope()
        self._app = app
        self._scope = scope
        self._to_app, self._app_inbox = anyio.create_memory_object_stream[Message](float("inf"))
        self._to_client, self._client_inbox = anyio.create_memory_object_stream[Message](UNREAD_MESSAGES)
        self._closed: WebSocketDisconnected | None = None

    async def send_text(self, text: str) -> None:
        """Send a text message."""
        self._put({"type": "websocket.receive", "text": text})

    async def send_bytes(self, data: bytes) -> None:
        """Send a binary message."""
        self._put({"type": "websocket.receive", "bytes": data})

    async def send_json(self, value: Any) -> None:
        """Send a value as JSON in a text message."""
        await self.send_text(orjson.dumps(value).decode())

    async def receive(self) -> str | bytes:
        """Return the next message. Raises `WebSocketDisconnected` with the app's code and reason if it has closed."""
        if self._closed is not None:
            raise self._closed
        try:
            message = await self._client_inbox.receive()
        except anyio.EndOfStream:  # the app ended without a close
            message = {"type": "websocket.close", "code": 1006}
        if message["type"] == "websocket.close":
            closed = WebSocketDisconnected(message.get("code", 1000), message.get("reason") or "")
            self._disconnect(closed)
            raise closed
        text: str | None = message.get("text")
        return bytes(message["bytes"]) if text is None else text

    async def receive_json(self) -> Any:
        """Return the JSON value of the next message. Raises as `receive` does, and `ValueError` if it is not JSON."""
        return orjson.loads(await self.receive())

    def __aiter__(self) -> "ClientWebSocket":
        return self

    async def __anext__(self) -> str | bytes:
        """Return the next message. The iteration ends when the WebSocket is closed."""
        try:
            return await self.receive()
        except WebSocketDisconnected:
            raise StopAsyncIteration from None

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the WebSocket, as the client. The app can send no more."""
        self._disconnect(WebSocketDisconnected(code, reason))

    async def leave(self) -> None:
        """Close the WebSocket, and wait until the app has ended. An app that does not end in time is cancelled."""
        await self.close()
        with anyio.move_on_after(LEAVE_WITHIN, shield=True):
            await self._served.wait()
        self._cancellation.cancel()
        with anyio.CancelScope(shield=True):
            await self._served.wait()
        self._to_app.close()

    def _disconnect(self, closed: WebSocketDisconnected) -> None:
        if self._closed is None:
            self._closed = closed
            self._put({"type": "websocket.disconnect", "code": closed.code, "reason": closed.reason})
            self._client_inbox.close()  # an app that sends, or waits for room, then gets an error

    def _put(self, message: Message) -> None:
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):  # the app has ended, or the client has
            self._to_app.send_nowait(message)

    async def serve(self) -> None:
        """Run the app, as a server does."""
        self._to_app.send_nowait({"type": "websocket.connect"})
        try:
            with self._cancellation:
                await self._app(self._scope, self._app_inbox.receive, self._send)
        except anyio.get_cancelled_exc_class():
            # Raised here, it would cancel the task of the test.
            self.app_failure = RuntimeError("The app was cancelled.")
        except BaseException as error:
            self.app_failure = error
        finally:
            self._to_client.close()
            self._app_inbox.close()
            self._served.set()

    async def _send(self, message: Message) -> None:
        try:
            await self._to_client.send(message)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            raise OSError("The client has disconnected.") from None
        if message["type"] == "websocket.close":  # a client answers it at once (RFC 6455, 5.5.1)
            self._put({"code": 1000, **message, "type": "websocket.disconnect"})
        await checkpoint()  # so that an app that sends without an end leaves time for the client

    async def wait_for_answer(self) -> None:
        """Wait for the app's response to the handshake. Raises `HandshakeRefused` unless the app accepts it."""
        try:
            answer = await self._client_inbox.receive()
            if answer["type"] == "websocket.http.response.start":
                body = (await self._client_inbox.receive())["body"]
                raise HandshakeRefused(httpx.Response(answer["status"], headers=answer["headers"], content=body))
        except anyio.EndOfStream:
            raise self.app_failure or RuntimeError("The app did not answer the handshake.") from None
        if answer["type"] != "websocket.accept":
            raise HandshakeRefused(httpx.Response(403))
        self.subprotocol = answer.get("subprotocol")
        self.headers = httpx.Headers(answer.get("headers") or [])


def _http_scope(request: httpx.Request, root_path: str, state: dict[str, Any]) -> Scope:
    """Return the scope that a server would create for this request."""
    url = request.url
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": url.scheme,
        "path": url.path,
        "raw_path": url.raw_path.partition(b"?")[0],
        "query_string": url.query,
        "root_path": root_path,
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
        "client": ("127.0.0.1", 123),
        "server": (url.host, url.port or _PORTS.get(url.scheme)),
        "state": state.copy(),
    }


def _websocket_scope(
    request: httpx.Request, root_path: str, state: dict[str, Any], subprotocols: Sequence[str]
) -> Scope:
    """Return the scope that a server would create for this request."""
    headers = [(name.lower(), value) for name, value in request.headers.raw]
    if subprotocols:
        headers.append((b"sec-websocket-protocol", ", ".join(subprotocols).encode()))
    url = request.url
    return {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "wss" if url.scheme in ("https", "wss") else "ws",
        "path": url.path,
        "raw_path": url.raw_path.partition(b"?")[0],
        "query_string": url.query,
        "root_path": root_path,
        "headers": headers,
        "client": ("127.0.0.1", 123),
        "server": (url.host, url.port or _PORTS.get(url.scheme)),
        "subprotocols": list(subprotocols),
        "state": state.copy(),
        "extensions": {"websocket.http.response": {}},
    }


class _LifespanRunner:
    """Runs the app's lifespan in another task, as a server does."""

    def __init__(self, app: ASGIApp, state: dict[str, Any]) -> None:
        self._app = app
        self._state = state
        self._is_started = False
        self._startup_sent = False
        self._ended = anyio.Event()
        self._answered = anyio.Event()
        self._stopping = anyio.Event()
        self._failure: str | None = None

    async def start(self) -> None:
        self._is_started = True
        spawn(self._run, "start and shutdown of the app")
        await self._answered.wait()
        if self._failure is not None:
            await self.stop()

    async def stop(self) -> None:
        self._stopping.set()
        if self._is_started:
            await self._ended.wait()
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise RuntimeError(failure)

    async def _run(self) -> None:
        try:
            scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": self._state}
            await self._app(scope, self._receive, self._send)
        except BaseException as error:
            self._failure = f"The app's lifespan failed: {error!r}"
        finally:
            self._answered.set()
            self._ended.set()

    async def _receive(self) -> Message:
        if not self._startup_sent:
            self._startup_sent = True
            return {"type": "lifespan.startup"}
        await self._stopping.wait()
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: Message) -> None:
        if message["type"].endswith(".failed"):
            phase = "start" if "startup" in message["type"] else "shutdown"
            self._failure = f"The app's {phase} failed: {message.get('message', '')}"
        self._answered.set()
