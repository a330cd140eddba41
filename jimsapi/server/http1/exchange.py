"""A request and its answer, as the app sees them."""

import asyncio
import logging
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
    """What an exchange has of its connection.

    `blocked` is set while the client does not take what was written, and `failed` after an answer that is an error.
    """

    app: Any
    batch: Batch
    blocked: asyncio.Event | None
    extensions: dict[object, object] | None
    failed: bool
    loop: asyncio.AbstractEventLoop
    state: ServerState
    transport: asyncio.Transport

    def answered(self, exchange: "Exchange") -> None: ...
    def close(self) -> None: ...
    def fields(self) -> tuple[bytes, int]: ...
    def pause_reading(self) -> None: ...
    def reset(self) -> None: ...
    def rest(self) -> None: ...
    def resume_reading(self) -> None: ...
    def write(self, data: bytes) -> None: ...


class Exchange:
    """A request and its answer (RFC 9110, 3.4): the two callables that an ASGI app gets, and what they have in common.

    `complete`: the answer is sent. `gone`: nobody waits for it any more. `task` is the one in which the app answers.
    While the app answers, the `scope` holds the exchange, as a `ServerExchange`, and the exchange holds the scope.
    """

    __slots__ = (
        "_bodiless",
        "_chunked",
        "_chunks",
        "_connection",
        "_ended",
        "_head",
        "_invited",
        "_left",
        "_on_gone",
        "_size",
        "_told",
        "_waiting",
        "complete",
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
        self.refused = 0
        self._on_gone: Callable[[], None] | None = None
        self._connection = connection
        self._chunks: list[bytes] | None = None  # what came of the body and was not received yet
        self._size = 0
        self._ended = False
        self._told = False  # the app knows that the body has ended
        self._invited = False
        self._waiting: list[asyncio.Future[None]] | None = None  # for what `receive` has to tell
        self._head: bytes | None = None  # an answer's, until the body comes, whose length it tells
        self._left: int | None = 0  # bytes of the answer's body; None if nobody knows
        self._chunked = False
        self._bodiless = False

    @property
    def begun(self) -> bool:
        """Whether the client has something of the answer."""
        return self.started and self._head is None

    def begin(self) -> None:
        """Let the app answer."""
        connection = self._connection
        offered: ServerExchange = self
        others = connection.extensions
        # A new dictionary for each request: middleware may write into it.
        self.scope["extensions"] = {EXTENSION: offered} if others is None else {**others, EXTENSION: offered}
        self.task = task = connection.loop.create_task(self.run(connection.app))
        connection.state.tasks.add(task)

    async def run(self, app: ASGIApp) -> None:
        """Let the app answer, in a task of its own, and end what it leaves open."""
        try:
            await app(self.scope, self.receive, self.send)
            if not self.complete and not self.gone:
                logger.error("The ASGI app returned before its answer was complete.")
        except asyncio.CancelledError:
            pass  # whoever cancelled tells why
        except (Exception, SystemExit, KeyboardInterrupt) as error:  # the last two would end the server
            logger.error("Exception in ASGI application\n", exc_info=error)
        if not self.complete and not self.gone:
            self._give_up()
        self.scope = {}  # it refers to this exchange
        self._connection.state.tasks.discard(self.task)

    def _give_up(self) -> None:
        """Answer 500, or cut an answer of which the client has something."""
        if self.begun:
            self.cut()
            return
        self._begin(500, ((b"content-length", b"21"), (b"content-type", b"text/plain"), (b"connection", b"close")))
        self._go_on(b"Internal Server Error", False)

    def cut(self) -> None:
        """End the connection in the middle of the answer, which must not look whole."""
        if self._left is None:
            self._connection.reset()
        else:
            self._connection.close()

    # What the app is offered beside ASGI's messages.

    def unread_bytes(self) -> int:
        return unread_bytes(self._connection.transport)

    def abort(self) -> None:
        if not self.complete:
            self._connection.reset()

    def call_when_gone(self, callback: Callable[[], None] | None) -> None:
        self._on_gone = callback
        if callback is not None and self.gone:
            self._connection.loop.call_soon(callback)

    # The request.

    def take(self, body: bytes) -> None:
        """Keep a part of the body for the app."""
        if self._chunks is None:
            self._chunks = [body]
        else:
            self._chunks.append(body)
        self._size += len(body)
        if self._size > HIGH_WATER:
            self._connection.pause_reading()
        self._wake()

    def end_body(self) -> None:
        """The body has come whole."""
        self._ended = True
        if self._waiting is not None:
            self._wake()

    def lose(self) -> None:
        """The client is gone, or will not be heard any more."""
        self.gone = True
        if self._connection.batch.starts.discard(self):
            self.scope, self._chunks = {}, None  # what refers to it may stay for a while
        else:
            self._connection.batch.heap.request_cut()
        self._wake()
        if self._on_gone is not None:
            self._on_gone()

    def _wake(self) -> None:
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            for change in waiting:
                if not change.done():
                    change.set_result(None)

    async def receive(self) -> dict[str, Any]:
        """ASGI's `receive`: the body, part by part; then, once there is one, the end of the exchange."""
        while True:
            if self.gone or self.complete:
                return {"type": "http.disconnect"}
            if self._chunks is not None or (self._ended and not self._told):
                body = b"" if self._chunks is None else b"".join(self._chunks)
                self._chunks, self._size = None, 0
                self._told = self._ended
                if not self._ended:
                    self._connection.resume_reading()
                return {"type": "http.request", "body": body, "more_body": not self._ended}
            if not self._ended and not self._invited:
                self._invite()
            await self._change()

    async def _change(self) -> None:
        """Wait until there is something to tell. An `asyncio.Event` would take five times the memory."""
        change = self._connection.loop.create_future()
        self._waiting = [*[other for other in self._waiting or () if not other.done()], change]
        await change

    @property
    def uninvited(self) -> bool:
        """Whether the client waits to be asked for the body (RFC 9110, 10.1.1)."""
        if self._invited or self.begun or self.scope["http_version"] != "1.1":
            return False
        return any(name == b"expect" and value.lower() == b"100-continue" for name, value in self.scope["headers"])

    def _invite(self) -> None:
        if self.uninvited:
            self._connection.write(_CONTINUE)
        self._invited = True

    # The answer.

    async def send(self, message: Any) -> None:
        """ASGI's `send`. After the client has gone it does nothing, as ASGI 2.3 has it.

        Raises `RuntimeError` for what is not to be sent now, and for an answer that HTTP cannot carry.
        """
        while (blocked := self._connection.blocked) is not None and not self.gone:
            await blocked.wait()
        if self.gone:
            return
        kind = message["type"]
        if not self.started and kind == "http.response.start":
            self._begin(message["status"], message.get("headers", ()))
        elif self.started and not self.complete and kind == "http.response.body":
            more = message.get("more_body", False)
            self._go_on(message.get("body", b""), more)
            while more and (blocked := self._connection.blocked) is not None and not self.gone:
                await blocked.wait()  # so that the app makes the next part when there is room for it
        else:
            where = "after the end" if self.complete else "in the middle" if self.started else "before the start"
            raise RuntimeError(f"{kind!r} cannot be sent {where} of an answer")

    def _begin(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        length: int | None = None
        says_close = False
        common, breaks = self._connection.fields()
        head = [STATUS_LINES.get(status) or status_line(status), common]
        for name, value in headers:
            field, framing = begin_field(name)
            if framing:
                if framing == b"content-length":
                    if length is not None or not value.isdigit():
                        raise RuntimeError("an answer has one content-length, and that is a number")
                    length = int(value)
                elif framing == b"transfer-encoding":
                    continue  # how the body is sent is for us to say
                elif b"close" in value.lower():
                    says_close = True
                    self.keep_alive = False
            head.append(field)
            head.append(value)
        text = b"".join(head)
        # A value that ended its line would forge a field, or an answer. The whole is looked at: a third of the time.
        breaks += len(head) // 2 - 1
        if text.count(b"\n") != breaks or text.count(b"\r") != breaks or b"\0" in text:
            raise RuntimeError("a header holds a line break or NUL")
        self._bodiless = status in (204, 304) or self.scope["method"] == "HEAD"
        if length is None:
            text += self._frame()
        if not self.keep_alive and not says_close:
            text += b"\r\nconnection: close"
        text += b"\r\n\r\n"
        if status >= 400:
            self._connection.failed = True
            if status == 503:
                self._connection.batch.starts.overloaded()
        self.started = True
        if length is None:
            self._connection.rest()
            self._connection.write(text)  # of a stream: its first part may be long in coming
        else:
            self._left, self._head = length, text

    def _frame(self) -> bytes:
        """Settle how the end of a body is told whose length is not known (RFC 9112, 6). Returns a field, or nothing."""
        if self._bodiless:
            return b""
        if self.scope["http_version"] == "1.0":
            self.keep_alive = False  # by the end of the connection
            self._left = None
            return b""
        self._chunked = True
        return b"\r\ntransfer-encoding: chunked"

    def _go_on(self, body: bytes, more: bool) -> None:
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
        elif self._left is not None:
            self._left -= len(body)
            if self._left < 0 or (self._left and not more):
                raise RuntimeError("the answer is not as long as its content-length says")
        self._write(body)
        if not more:
            self.complete = True
            if not self._ended:  # the rest of the body may be long in coming
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
