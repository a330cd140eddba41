"""WebSocket connections (RFC 6455): a protocol in front of uvicorn's, with additional limits.

uvicorn has several WebSocket protocols, and selects one by its own version and by the installed packages. None of them
accepts data from the client before the answer to the handshake. None of them disconnects a client that reads nothing
while the connection closes. One of them logs every rejected handshake as an error of the app. `WebSocketConnection` is
the transport's protocol in place of these, and passes on the data that they can handle. It uses only the interface that
all of them have: ASGI, and the methods of `asyncio.Protocol`.
"""

import asyncio
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any, cast

from jimsapi.asgi.extension import EXTENSION, ServerWebSocket
from jimsapi.asgi.types import Message, Receive, Scope, Send
from jimsapi.asgi.unread import unread_bytes
from jimsapi.server.backlog import Backlog, SlowReader
from jimsapi.server.borrowed import PARSES_LATER, SANS_IO, Config, ServerState
from jimsapi.server.memory import Heap
from jimsapi.server.pings import Pings
from jimsapi.server.sockets import has_unread, reset

MAX_EARLY = 65_536
"""Bytes that are buffered before the answer to the handshake. If the client sends more, the server stops reading."""
MAX_HANDSHAKE = 8192
"""Maximum number of bytes of the handshake's headers. The libraries accept no longer line."""

_HANDSHAKE_FIELDS = {b"host", b"connection", b"upgrade"} | {
    b"sec-websocket-" + name for name in (b"key", b"version", b"protocol", b"extensions")
}
_FROM_REQUEST = ("path", "raw_path", "query_string", "headers", "client")
"""Parts of a WebSocket's scope that are copied from the scope of the HTTP request."""
_ACCEPTED = b"HTTP/1.1 101 "


class WebSocketConnection(asyncio.Protocol):
    """A protocol between a transport and `inner`, uvicorn's WebSocket protocol.

    `request` is the scope of the handshake as an HTTP request. The connection is in `open_websockets` from the answer
    101 to its end. A client must not send frames before the answer to the handshake (RFC 6455, 4.1), but a proxy may
    deliver both at once. Such frames are buffered, and handled after the answer.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        config: Config,
        state: ServerState,
        app_state: dict[str, Any],
        backlog: Backlog,
        heap: Heap,
        open_websockets: "set[WebSocketConnection]",
        request: Scope,
    ) -> None:
        self.transport = transport
        self._loop = asyncio.get_running_loop()
        self._app: Any = config.loaded_app
        self._request = request
        self._tasks = state.tasks
        self._connections = state.connections
        self._backlog = backlog
        self._heap = heap
        self._open_websockets = open_websockets
        self._early: list[bytes] | None = []
        self._early_size = 0
        self._disconnected = self._loop.create_future()
        self._slow_reader: SlowReader | None = None
        self._ping_times = config.ws_ping_interval, config.ws_ping_timeout
        self.pings: Pings | None = None
        inner_config = copy(config)
        inner_config.loaded_app = self._run
        inner_config.ws_ping_interval = None
        protocol_class: Any = config.ws_protocol_class
        self.inner: asyncio.Protocol = protocol_class(config=inner_config, server_state=state, app_state=app_state)
        self.accepted = False
        self.answered = False
        self.has_sent = False
        """Whether the client has sent a message."""
        self._working = 0
        self._active_at = 0.0
        self._app_is_running = False
        self._receive: Receive
        self._send: Send

    def __deepcopy__(self, memo: object) -> "WebSocketConnection":
        return self  # a copied scope belongs to the same WebSocket

    def begin(self, head: bytes, early: bytes) -> None:
        """Pass a handshake of `handshake_of` to `inner`. `early` is the data that arrived after it.

        Raises `ValueError`, or an exception of `inner`, if `inner` cannot parse the handshake.
        """
        self.transport.set_protocol(self)
        self.inner.connection_made(cast(asyncio.Transport, _WatchedTransport(self, self.transport)))
        tasks = len(self._tasks)
        self.inner.data_received(head)
        if len(self._tasks) == tasks and not self.answered and not hasattr(self.inner, PARSES_LATER):
            raise ValueError("uvicorn's protocol neither calls the app nor answers")
        if early:
            self.data_received(early)

    def on_answer(self, data: bytes) -> None:
        """Note the answer, whose first bytes `inner` is about to write."""
        self.answered = True
        self.accepted = data.startswith(_ACCEPTED)
        if self.accepted:
            self._active_at = self._loop.time()
            self._open_websockets.add(self)
            interval, timeout = self._ping_times
            if interval and timeout:
                self.pings = Pings(self.transport, interval, timeout)
        self._loop.call_soon(self._pass_on_early)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():  # over TLS data may still arrive
            return
        if self.pings is not None:
            self.pings.received()
        if self._early is None:
            self.inner.data_received(data)
            return
        self._early.append(data)
        self._early_size += len(data)
        if self._early_size > MAX_EARLY:
            self.transport.pause_reading()

    def _pass_on_early(self) -> None:
        early, self._early = b"".join(self._early or ()), None
        if not self.accepted or self._disconnected.done():
            return
        if self._early_size > MAX_EARLY:
            self.transport.resume_reading()
        if early:
            self.inner.data_received(early)

    def eof_received(self) -> bool | None:
        return self.inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_watching()
        self._open_websockets.discard(self)
        if self.pings is not None:
            self.pings.stop()
        try:
            self.inner.connection_lost(exc)
        finally:
            self._heap.connection_ended(len(self._connections))
            if not self._disconnected.done():
                self._disconnected.set_result(None)
            if not self._app_is_running:
                self._forget_inner()

    def _forget_inner(self) -> None:
        """The connection and its app have ended: drop all references to `inner`, which refers to this connection, and
        break the reference cycle of `inner` itself. Both are then freed without a garbage collection."""
        parser = getattr(getattr(self.inner, SANS_IO, None), "parser", None)
        if isinstance(parser, Generator):
            parser.close()
        self.inner = asyncio.Protocol()
        self._receive, self._send = _receive_after_end, _send_after_end
        self._heap.websocket_ended(self, len(self._connections))

    def pause_writing(self) -> None:
        self.watch_reading()
        self.inner.pause_writing()

    def resume_writing(self) -> None:
        self._stop_watching()
        self.inner.resume_writing()
        if self.transport.is_closing():
            self.watch_reading()

    def watch_reading(self) -> None:
        """Disconnect the client if it reads too slowly from now on."""
        if self._slow_reader is None and self.transport.get_write_buffer_size():
            self._slow_reader = SlowReader(self.transport, self._backlog, self.drop)

    def _stop_watching(self) -> None:
        if self._slow_reader is not None:
            self._slow_reader.stop()
            self._slow_reader = None

    def drop(self) -> None:
        """End the connection, and discard the data that the client has not read."""
        reset(self.transport)

    def waiting_since(self) -> float | None:
        """Return the loop's time of the last message from or to the client, without pings.

        Returns None if the app works for the client, or if the client has not read all messages.
        """
        if self._working or self.transport.is_closing() or self.transport.get_write_buffer_size():
            return None
        return self._active_at

    @property
    def has_arrived(self) -> bool:
        """Whether the kernel has data of the client that was not read yet."""
        return has_unread(self.transport)

    def evict(self) -> None:
        """Close the WebSocket with 1012, so that the client connects again. Do not wait for the closing handshake."""
        inner: Any = self.inner
        inner.shutdown()
        self._loop.call_soon(self.transport.abort)

    # The interface for the app (`ServerWebSocket`).

    def unread_bytes(self) -> int:
        return unread_bytes(self.transport)

    def abort(self) -> None:
        self.transport.abort()

    @contextmanager
    def working(self) -> Iterator[None]:
        """Context manager: the app works for the client while it is entered."""
        self._working += 1
        try:
            yield
        finally:
            self._working -= 1
            self._active_at = self._loop.time()

    async def receive(self) -> Message:
        """ASGI's `receive`."""
        message = await self._receive()
        self._active_at = self._loop.time()
        if message["type"] == "websocket.receive":
            self.has_sent = True
        return message

    async def send(self, message: Message) -> None:
        """ASGI's `send`."""
        await self._send(message)
        self._active_at = self._loop.time()

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the app. After a rejected handshake, wait until the connection is closed: otherwise uvicorn would log an
        error, because it checks too early whether the app has completed the handshake."""
        for key in _FROM_REQUEST:  # change the scope itself, because `inner` logs the path from it
            scope[key] = self._request[key]
        connection: ServerWebSocket = self
        scope["extensions"] = {
            **scope.get("extensions", {}),
            **self._request["extensions"],
            EXTENSION: connection,
        }
        self._receive, self._send = receive, send
        self._app_is_running = True
        try:
            await self._app(scope, self.receive, self.send)
            if self.answered and not self.accepted:
                await asyncio.wait([self._disconnected])
        finally:
            self._app_is_running = False
            if self._disconnected.done():
                self._forget_inner()


async def _receive_after_end() -> Message:
    await asyncio.sleep(0)  # a task that receives in a loop must not stop the server
    return {"type": "websocket.disconnect", "code": 1006}


async def _send_after_end(message: Message) -> None:
    raise OSError("The WebSocket has ended.")


def handshake_of(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return a request head with only the headers of a handshake (RFC 6455, 4.2.1), repeated ones combined into a list
    (RFC 9110, 5.3).

    The libraries allow fewer and shorter headers than the server does. The app receives the target and the other
    headers, such as cookies, from the server.
    """
    fields: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _HANDSHAKE_FIELDS:
            fields[name] = value if name not in fields else fields[name] + b", " + value
    return b"\r\n".join((b"GET / HTTP/1.1", *(b"%b: %b" % field for field in fields.items()), b"", b""))


class _WatchedTransport:
    """The transport for `inner`. It calls `on_answer` before the first write, counts the bytes that are written, and
    watches the client after `close`."""

    def __init__(self, connection: WebSocketConnection, transport: asyncio.Transport) -> None:
        self._connection = connection
        self._transport = transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._connection.answered:
            self._connection.on_answer(data)
        self._transport.write(data)
        if self._connection.pings is not None:
            self._connection.pings.wrote(len(data))

    def close(self) -> None:
        self._transport.close()
        self._connection.watch_reading()
