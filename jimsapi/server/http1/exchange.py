"""A request and its response, with the ASGI callables `receive` and `send` for the app."""

import asyncio
import logging
from asyncio import current_task
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from jimsapi.asgi.extension import EXTENSION, ServerExchange
from jimsapi.asgi.types import ASGIApp, Scope
from jimsapi.asgi.unread import unread_bytes
from jimsapi.server.borrowed import ServerState
from jimsapi.server.http1.answer import STATUS_LINES, begin_field, status_line
from jimsapi.server.http1.batch import HIGH_WATER, MAX_JOINED, Batch

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

logger = logging.getLogger("uvicorn.error")


class Connection(Protocol):
    """The part of a connection that an exchange uses.

    `direct_app` is `app` if it is an `App`, else None. `blocked` is an event while the write buffer is full, else None.
    `failed` is true after a response with an error.
    """

    app: Any
    batch: Batch
    blocked: asyncio.Event | None
    direct_app: object | None
    extensions: dict[object, object] | None
    failed: bool
    loop: asyncio.AbstractEventLoop
    state: ServerState
    transport: asyncio.Transport

    def answered(self, exchange: "Exchange") -> None: ...
    def close(self) -> None: ...
    def default_fields(self) -> tuple[bytes, int]: ...
    def pause_reading(self) -> None: ...
    def reset(self) -> None: ...
    def stop_timer(self) -> None: ...
    def resume_reading(self) -> None: ...
    def write(self, data: bytes) -> None: ...


class Exchange:
    """A request and its response (RFC 9110, 3.4): the state behind the two callables that an ASGI app receives.

    `complete`: the response is sent. `gone`: the client has disconnected or the server no longer reads it. `refused`:
    the status with which the server rejected the body, or 0. `task` runs the app. While the app runs, the `scope` and
    the exchange refer to each other, since the scope holds the exchange as a `ServerExchange`.
    """

    __slots__ = (
        "_bodiless",
        "_body_requested",
        "_chunked",
        "_chunks",
        "_connection",
        "_end_received",
        "_ended",
        "_head",
        "_on_gone",
        "_remaining",
        "_size",
        "_waiting",
        "cancel_when_gone",
        "complete",
        "direct_app",
        "gone",
        "keep_alive",
        "refused",
        "scope",
        "started",
        "task",
    )

    task: asyncio.Task[None]

    def __init__(self, connection: Connection, scope: Scope, keep_alive: bool) -> None:
        self.scope = scope
        self.keep_alive = keep_alive
        self.started = False
        self.complete = False
        self.gone = False
        self.direct_app = connection.direct_app
        self.cancel_when_gone = False
        self.refused = 0
        self._on_gone: Callable[[], None] | None = None
        self._connection = connection
        self._chunks: list[bytes] | None = None  # parts of the body that the app has not received
        self._size = 0
        self._ended = False
        self._end_received = False  # whether the app has received the end of the body
        self._body_requested = False
        self._waiting: list[asyncio.Future[None]] | None = None  # calls of `receive` that wait
        self._head: bytes | None = None  # of a response with a length, until its body is sent
        self._remaining: int | None = 0  # bytes of the response's body; None if the end of the connection ends it
        self._chunked = False
        self._bodiless = False

    def __deepcopy__(self, memo: object) -> "Exchange":
        return self  # a copied scope belongs to the same request

    @property
    def transport(self) -> asyncio.Transport:
        """The transport of the connection, for an app whose scope no longer contains the extension."""
        return self._connection.transport

    @property
    def begun(self) -> bool:
        """Whether a part of the response was written."""
        return self.started and self._head is None

    def begin(self) -> None:
        """Start the task that runs the app."""
        connection = self._connection
        exchange: ServerExchange = self
        others = connection.extensions
        # A new dictionary for each request: middleware may write into it.
        self.scope["extensions"] = {EXTENSION: exchange} if others is None else {**others, EXTENSION: exchange}
        self.task = task = connection.loop.create_task(self.run(connection.app))
        connection.state.tasks.add(task)

    async def run(self, app: ASGIApp) -> None:
        """Run the app, and end the response if the app has not."""
        try:
            await app(self.scope, self.receive, self.send)
            if not self.complete and not self.gone:
                logger.error("The ASGI app returned before its answer was complete.")
        except asyncio.CancelledError:
            pass  # the code that cancels the task logs why
        except GeneratorExit:  # the loop has ended, and the garbage collector closes the task
            raise
        except BaseException as error:  # some would end the server; others, such as a panic in Rust, only this task
            logger.error("Exception in ASGI application\n", exc_info=error)
        if not self.complete and not self.gone:
            self._give_up()
        self.scope = {}  # breaks a reference cycle
        self._connection.state.tasks.discard(self.task)

    def _give_up(self) -> None:
        """Send a response with the status 500, or cut the response if a part of it was written."""
        if self.begun:
            self.cut()
            return
        self._send_start(500, ((b"content-length", b"21"), (b"content-type", b"text/plain"), (b"connection", b"close")))
        self._send_body(b"Internal Server Error", False)

    def cut(self) -> None:
        """End the connection in the middle of the response, so that the client does not treat it as complete."""
        if self._remaining is None:
            self._connection.reset()
        else:
            self._connection.close()

    # The methods of `ServerExchange`.

    def unread_bytes(self) -> int:
        return unread_bytes(self._connection.transport)

    def abort(self) -> None:
        if not self.complete:
            self._connection.reset()

    async def respond(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
        while (blocked := self._connection.blocked) is not None and not self.gone:
            await blocked.wait()
        if self.gone:
            return
        if self.started:
            raise RuntimeError("the request has an answer already")
        self._send_start(status, headers)
        self._send_body(body, False)

    def call_when_gone(self, callback: Callable[[], None] | None) -> None:
        self._on_gone = callback
        if callback is not None and self.gone:
            self._connection.loop.call_soon(callback)

    def is_in_its_task(self) -> bool:
        return current_task(self._connection.loop) is self.task  # without the loop, Python 3.11 is slow

    def end_cancelling(self) -> bool:
        if self.cancel_when_gone:
            self.cancel_when_gone = False
            return False
        return self.task.uncancel() == 0

    # The request.

    def add_body(self, body: bytes) -> None:
        """Buffer a part of the body for the app."""
        if self._chunks is None:
            self._chunks = [body]
        else:
            self._chunks.append(body)
        self._size += len(body)
        if self._size > HIGH_WATER:
            self._connection.pause_reading()
        if self._waiting is not None:
            self._wake()

    def end_body(self) -> None:
        """Note that the body has arrived whole."""
        self._ended = True
        if self._waiting is not None:
            self._wake()

    def mark_disconnected(self) -> None:
        """Note that the client has disconnected, or that the server no longer reads it."""
        self.gone = True
        if self._connection.batch.scheduler.discard(self):
            self.scope, self._chunks = {}, None  # other objects may refer to the exchange for a while
        else:
            self._connection.batch.heap.request_cut()
        self._wake()
        if self.cancel_when_gone:
            self.cancel_when_gone = False
            self.task.cancel()
        callback, self._on_gone = self._on_gone, None
        if callback is not None:
            callback()

    def _wake(self) -> None:
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            for change in waiting:
                if not change.done():
                    change.set_result(None)

    async def receive(self) -> dict[str, Any]:
        """ASGI's `receive`: returns the parts of the body, then `http.disconnect` when the exchange has ended."""
        while True:
            if self.gone or self.complete:
                return {"type": "http.disconnect"}
            if self._chunks is not None or (self._ended and not self._end_received):
                body = b"" if self._chunks is None else b"".join(self._chunks)
                if not self._ended or self._size > HIGH_WATER:  # also after the end, to notice a disconnect
                    self._connection.resume_reading()
                self._chunks, self._size = None, 0
                self._end_received = self._ended
                return {"type": "http.request", "body": body, "more_body": not self._ended}
            if not self._ended and not self._body_requested:
                self._request_body()
            await self._wait_for_change()

    async def _wait_for_change(self) -> None:
        """Wait until the state that `receive` reports has changed. An `asyncio.Event` needs five times the memory."""
        change = self._connection.loop.create_future()
        self._waiting = [*[other for other in self._waiting or () if not other.done()], change]
        await change

    @property
    def awaits_continue(self) -> bool:
        """Whether the client waits for `100 Continue` before it sends the body (RFC 9110, 10.1.1)."""
        if self._body_requested or self.begun or self.scope["http_version"] != "1.1":
            return False
        return any(name == b"expect" and value.lower() == b"100-continue" for name, value in self.scope["headers"])

    def _request_body(self) -> None:
        if self.awaits_continue:
            self._connection.write(_CONTINUE)
        self._body_requested = True

    # The response.

    async def send(self, message: Any) -> None:
        """ASGI's `send`. It waits while the write buffer is full.

        After the client has disconnected it does nothing, as ASGI 2.3 says. Raises `RuntimeError` for a message out of
        order, and for a response that HTTP cannot transport.
        """
        while (blocked := self._connection.blocked) is not None and not self.gone:
            await blocked.wait()
        if self.gone:
            return
        kind = message["type"]
        if not self.started and kind == "http.response.start":
            self._send_start(message["status"], message.get("headers", ()))
        elif self.started and not self.complete and kind == "http.response.body":
            more = message.get("more_body", False)
            self._send_body(message.get("body", b""), more)
            while more and (blocked := self._connection.blocked) is not None and not self.gone:
                await blocked.wait()  # so that the app creates the next part only when the buffer has room for it
        else:
            where = "after the end" if self.complete else "in the middle" if self.started else "before the start"
            raise RuntimeError(f"{kind!r} cannot be sent {where} of an answer")

    def _send_start(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        length: int | None = None
        has_close = False
        common, line_breaks = self._connection.default_fields()
        head = [STATUS_LINES.get(status) or status_line(status), common]
        for name, value in headers:
            field, framing = begin_field(name)
            if framing:
                if framing == b"content-length":
                    if length is not None or not value.isdigit():
                        raise RuntimeError("the answer must have at most one content-length, a number")
                    length = int(value)
                elif framing == b"transfer-encoding":
                    continue  # the server decides how it sends the body
                elif b"close" in value.lower():
                    has_close = True
                    self.keep_alive = False
            head.append(field)
            head.append(value)
        text = b"".join(head)
        # A line break in a value could forge a field or a response. One check of the whole head takes a third of the
        # time of a check of each value. `in` with a number takes a tenth of the time of `in` with bytes.
        line_breaks += len(head) // 2 - 1
        if text.count(b"\n") != line_breaks or text.count(b"\r") != line_breaks or 0 in text:
            raise RuntimeError("a header contains a line break or NUL")
        self._bodiless = status in (204, 304) or self.scope["method"] == "HEAD"
        if length is None:
            text += self._frame()
        if not self.keep_alive and not has_close:
            text += b"\r\nconnection: close"
        text += b"\r\n\r\n"
        if status >= 400:
            self._connection.failed = True
            if status == 503:
                self._connection.batch.scheduler.note_overload()
        self.started = True
        if length is None:
            self._connection.stop_timer()
            self._connection.write(text)  # the first part of a stream may take long
        else:
            self._remaining, self._head = length, text

    def _frame(self) -> bytes:
        """Choose how a body of unknown length ends (RFC 9112, 6). Returns the header field for it, or nothing."""
        if self._bodiless:
            return b""
        if self.scope["http_version"] == "1.0":
            self.keep_alive = False  # the end of the connection ends the body
            self._remaining = None
            return b""
        self._chunked = True
        return b"\r\ntransfer-encoding: chunked"

    def _send_body(self, body: bytes, more: bool) -> None:
        if type(body) is not bytes:
            body = bytes(memoryview(body))
        if self._bodiless:
            body = b""
        elif self._chunked:
            if len(body) > MAX_JOINED:
                self._write(b"%x\r\n" % len(body))
                self._write(body)
                body = b"\r\n"
            elif body:
                body = b"%x\r\n%b\r\n" % (len(body), body)
            if not more:
                body += b"0\r\n\r\n"
        elif self._remaining is not None:
            self._remaining -= len(body)
            if self._remaining < 0 or (self._remaining and not more):
                raise RuntimeError("the length of the answer differs from its content-length")
        self._write(body)
        if not more:
            self.complete = True
            if not self._ended:  # the rest of the request's body may take long, and this memory is no longer needed
                self._chunks = None
                self.scope = {}
            if self._waiting is not None:
                self._wake()
            self._connection.answered(self)

    def _write(self, body: bytes) -> None:
        connection = self._connection
        head, self._head = self._head, None
        if head is not None and len(body) <= MAX_JOINED:
            connection.batch.add(connection.transport, head + body)
            return
        if head is not None:
            connection.write(head)
        if body:
            connection.write(body)
