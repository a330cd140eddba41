"""Streaming responses, and how their chunks are sent to the client.

The request's own task reads the content. While it waits, another task watches for the client's disconnect, unless the
server reports it by a callback. One timer checks whether a ping is due or a send takes too long; chunks have no timers
of their own. There is no timeout around the content, since cancelling an async generator at any point is unsafe
(PEP 789).
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Coroutine, Mapping
from math import inf
from time import monotonic
from types import AsyncGeneratorType
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from .connection import Connection, Request
from .errors import ClientDisconnected
from .extension import ServerConnection, ServerExchange, connection_of, exchange_of
from .open_work import OpenWork
from .response import Response, encoded, header
from .stall import Stall
from .types import Receive, Send

logger = logging.getLogger("jimsapi.asgi")

SEND_TIMEOUT = 30.0
"""The default for how many seconds a client may read nothing while data waits to be sent."""
DRAIN_SEND_TIMEOUT = 2.0
"""The same during a drain, so that a client that reads nothing does not hold up the shutdown."""
CHECKS_PER_TIMEOUT = 4
"""How many times within its timeout a waiting send is checked for whether the client reads."""

_CLOSE_SECONDS = 5.0
_TURN_SECONDS = 0.001
_TURN_CHUNKS = 1000
_TICK_SECONDS = 60.0
_BETWEEN_CHUNKS = 0.01


class StreamingResponse(Response):
    """A response whose chunks come from an async iterable, as bytes or as text (sent as UTF-8).

    - If the client disconnects, the iterable is cancelled. If its cleanup awaits anything, it needs a shield, as in all
      anyio code.
    - If the iterable raises, the connection is cut, so that the client does not treat the response as complete.
    - In each case, and at the end, the iterable is closed.
    - For HEAD it is not iterated.
    - A handler that reads the request's body has to do so before the first chunk.

    If `endless` is true, the content does not end by itself, so a drain of the app completes the response at once. A
    drain waits for other streams, and cuts them at the end of the drain time.

    A client that reads nothing for `send_timeout` seconds while a chunk waits is disconnected, which is logged at INFO.
    If the server does not show whether the client reads, this is the limit for sending one chunk. The attribute may be
    set. During a drain it is at most `DRAIN_SEND_TIMEOUT`.
    """

    __slots__ = ("content", "endless", "send_timeout")

    keepalive: float | None = None  # seconds without a chunk after which `ping` is sent
    ping = b""

    def __init__(
        self,
        content: AsyncIterable[Any],
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        content_type: str | None = "application/octet-stream",
        *,
        endless: bool = False,
    ) -> None:
        self.status = status
        self.names_connection = False
        self.raw_headers = [] if content_type is None else [header("content-type", content_type)]
        self.body = None
        self.content = content
        self.endless = endless
        self.send_timeout = SEND_TIMEOUT
        if headers:
            self._add(headers)

    def encode(self, item: Any) -> bytes:
        """Return the bytes of one item of the content."""
        return item.encode() if isinstance(item, str) else encoded(item)

    def stream(self, request: Request, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        """Send the chunks. The app has already sent the start of the response.

        Raises `ClientDisconnected`, or what the content raises. Works on asyncio and on trio.
        """
        return deliver(self, request, receive, send)

    async def discard(self) -> None:
        """Close the content without iterating it."""
        await close(self.content)


def deliver(response: StreamingResponse, request: Request, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
    """Send all chunks of a response after its start. Raises `ClientDisconnected`, or what the content raises."""
    try:
        request_task = asyncio.current_task()
    except RuntimeError:
        request_task = None
    if request_task is None:
        return _OnTrio(response, request, receive, send).run()
    return _OnAsyncio(response, request, receive, send).run(request_task)


async def close(content: object) -> None:
    """Close a generator now, instead of when it is collected. Gives up after `_CLOSE_SECONDS`."""
    if isinstance(content, AsyncGeneratorType) and content.ag_frame is None:
        return  # nearly all have ended by now, and a cancel scope costs as much as some chunks
    if isinstance(content, AsyncGenerator):
        with anyio.move_on_after(_CLOSE_SECONDS, shield=True):
            await content.aclose()


def cut_off(request: Connection, waited: float, connection: ServerConnection | None) -> None:
    """Drop the connection of a client that has read nothing for `waited` seconds, and log this.

    A close is not enough, since the server would first wait until the client has read everything. If the server does
    not offer its `connection`, the connection stays open.
    """
    logger.info(
        "A slow client was cut off, since it read nothing for %g seconds: %s %s",
        waited,
        request.method,
        _path(request),
        extra={"request_id": request.request_id},
    )
    if connection is not None:
        connection.abort()


def _path(request: Connection) -> str:
    return "unmatched" if request.route is None else request.route.path


class _Completed(Exception):
    """A drain has ended an endless stream, whose response is to be completed."""


class _Delivery:
    """The part of sending that is the same on asyncio and trio. `failure` is the error that ended the stream early."""

    __slots__ = ("connection", "failure", "finishing", "items", "last_sent", "pinging", "receive", "request",
                 "response", "send", "sending_since", "stall", "watching")  # fmt: skip

    def __init__(self, response: StreamingResponse, request: Request, receive: Receive, send: Send) -> None:
        self.response = response
        self.request = request
        self.receive = receive
        self.send = send
        self.connection = connection_of(request.scope, send)
        self.items = aiter(response.content)
        self.watching = False
        self.finishing = False
        self.last_sent = monotonic()
        self.sending_since: float | None = None
        self.stall: Stall | None = None
        self.pinging: anyio.Event | None = None
        self.failure: Exception | None = None

    def start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run `work` in a task beside the content."""
        raise NotImplementedError

    def interrupt(self) -> None:
        """Cancel the content."""
        raise NotImplementedError

    async def pump(self) -> None:
        """Send all chunks, and the end of the response."""
        encode = self.response.encode
        yielded, left = monotonic(), _TURN_CHUNKS
        if not self.watching and not self.request.unread:
            self.watch()
        async for item in self.items:
            await self.send_chunk(encode(item), True)
            # uvicorn's send does not suspend: content that never awaits would delay every other request. The chunks are
            # counted, too, since the clock of a virtual machine may stand still or step back.
            left -= 1
            if not left or self.last_sent - yielded > _TURN_SECONDS:
                await checkpoint()
                yielded, left = monotonic(), _TURN_CHUNKS
            if not self.watching and not self.request.claimed:
                self.watch()
        self.finishing = True
        await self.send_chunk(b"", False)

    async def send_chunk(self, chunk: bytes, more: bool) -> None:
        if self.pinging is not None:  # a ping must not come between the halves of an event
            await self.pinging.wait()
        if self.failure is not None:  # the content has suppressed its cancellation
            raise self.failure
        self.sending_since = monotonic()
        try:
            await self.send({"type": "http.response.body", "body": chunk, "more_body": more})
        except OSError as error:  # ASGI: the client has disconnected
            raise ClientDisconnected from error
        self.last_sent = monotonic()
        self.sending_since = None

    def watch(self) -> None:
        """Begin to watch for the client's disconnect. Before that, the content may still read the body."""
        self.watching = True
        self.start(self.watch_receive)

    async def watch_receive(self) -> None:
        # This is the only caller of receive(). No server cancels a handler whose client has disconnected.
        try:
            while (await self.receive())["type"] != "http.disconnect":
                pass
        except Exception as error:
            self.stop(error)
        else:
            self.stop_on_disconnect()

    def stop_on_disconnect(self) -> None:
        """Stop the stream, since the client has disconnected."""
        if not self.finishing:  # after the last chunk a disconnect only means that all is sent
            self.stop(ClientDisconnected())

    @property
    def open_work(self) -> OpenWork | None:
        """The open work of the app, through which a drain finds this stream."""
        route = self.request.route
        return None if route is None or route.app is None else route.app.open_work

    async def finish_early(self, failure: Exception) -> None:
        """Raise the error that ended the stream early. After `complete`, send the end of the response instead."""
        if not isinstance(failure, _Completed):
            raise failure
        try:
            await self.send({"type": "http.response.body", "body": b"", "more_body": False})
        except OSError as error:
            raise ClientDisconnected from error

    # The methods of `OpenStream`.

    @property
    def path(self) -> str:
        return _path(self.request)

    @property
    def endless(self) -> bool:
        return self.response.endless

    def complete(self) -> None:
        """End the content, and complete the response."""
        self.start(self._complete)

    async def _complete(self) -> None:
        # The content must not be cancelled within a chunk. An event for this would cost something for every chunk.
        while self.sending_since is not None:  # noqa: ASYNC110
            await anyio.sleep(_BETWEEN_CHUNKS)
        if not self.finishing:
            self.stop(_Completed())

    def hasten(self) -> None:
        """Disconnect the client sooner if it reads nothing."""
        self.response.send_timeout = min(self.response.send_timeout, DRAIN_SEND_TIMEOUT)

    def cut(self) -> None:
        """End the content, and the connection."""
        if self.connection is not None:
            self.connection.abort()
        self.stop(ClientDisconnected())

    def tick(self) -> float:
        """Send a ping or end a send that takes too long, if one is due. Returns the seconds until the next call."""
        now = monotonic()
        timeout, keepalive = self.response.send_timeout, self.response.keepalive
        longest = min(timeout / CHECKS_PER_TIMEOUT, _TICK_SECONDS, inf if keepalive is None else keepalive)
        if self.sending_since is not None:
            if self.stall is None or self.stall.began != self.sending_since:
                self.stall = Stall(self.connection, self.sending_since)
            else:
                self.stall.update()
            due = self.stall.since + timeout
        elif keepalive is not None and not self.finishing:
            due = self.last_sent + keepalive
        else:
            return longest
        if now < due:
            return min(due - now, longest)
        if self.sending_since is not None:
            cut_off(self.request, timeout, self.connection)
            self.stop(ClientDisconnected())
        else:
            self.pinging = anyio.Event()
            self.start(self.ping)
        return longest

    async def ping(self) -> None:
        assert self.pinging is not None
        self.sending_since = monotonic()
        try:
            await self.send({"type": "http.response.body", "body": self.response.ping, "more_body": True})
        except OSError:
            self.stop(ClientDisconnected())
        except Exception as error:
            self.stop(error)
        self.last_sent = monotonic()
        self.sending_since = None
        self.pinging.set()
        self.pinging = None

    def stop(self, error: Exception) -> None:
        """End the stream with `error`, unless it has ended with another."""
        if self.failure is None:
            self.failure = error
            self.interrupt()


class _OnAsyncio(_Delivery):
    """Sends on asyncio without anyio, whose task groups and cancel scopes add half to the memory of an idle stream.

    To interrupt the content, it cancels the request's task and then uncancels it, as `asyncio.timeout` does. The timer
    and the tasks begin in the next pass of the event loop, and a drain finds the stream from then on. So a stream that
    is sent without a wait needs none of them.
    """

    __slots__ = ("exchange", "interrupted", "request_task", "tasks", "timer", "unstarted")

    def __init__(self, response: StreamingResponse, request: Request, receive: Receive, send: Send) -> None:
        super().__init__(response, request, receive, send)
        self.interrupted = False
        self.exchange: ServerExchange | None = None  # the one with our callback for the client's disconnect
        self.unstarted: list[Callable[[], Coroutine[Any, Any, None]]] | None = []  # to start in the next pass
        self.tasks: tuple[asyncio.Task[None], ...] = ()

    async def run(self, request_task: asyncio.Task[Any]) -> None:
        self.request_task = request_task
        cancelling = request_task.cancelling()
        self.timer: asyncio.Handle = asyncio.get_running_loop().call_soon(self._start_tasks)
        self._watch_by_callback()
        try:
            try:
                await self.pump()
            except Exception as error:
                self.failure = self.failure or error
        except asyncio.CancelledError:
            if not self.interrupted or request_task.uncancel() > cancelling:
                raise
        else:
            if self.interrupted:
                request_task.uncancel()
        finally:
            self.finishing = True
            if self.exchange is not None:
                self.exchange.call_when_gone(None)
            self.timer.cancel()
            for task in self.tasks:
                task.cancel()
            try:
                await close(self.items)
            finally:
                if self.unstarted is None and self.open_work is not None:
                    self.open_work.remove_stream(self)
        if self.failure is not None:
            await self.finish_early(self.failure)

    def _watch_by_callback(self) -> None:
        """Register a callback for the client's disconnect if the server has them. This needs no task and reads no body.

        If a wrapper has replaced `receive`, a task has to call it, since only the wrapper may receive the disconnect.
        """
        exchange = exchange_of(self.request.scope)
        if exchange is not None and self.receive == exchange.receive:
            self.watching = True
            self.exchange = exchange
            exchange.call_when_gone(self.stop_on_disconnect)

    def start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if self.unstarted is not None:
            self.unstarted.append(work)
            return
        running = [task for task in self.tasks if not task.done()]
        self.tasks = (*running, asyncio.create_task(work()))

    def hasten(self) -> None:
        super().hasten()
        if self.unstarted is None and not self.timer.cancelled():
            self.timer.cancel()
            self._run_timer()

    def interrupt(self) -> None:
        self.interrupted = True
        self.request_task.cancel()

    def _start_tasks(self) -> None:
        unstarted, self.unstarted = self.unstarted, None
        if self.open_work is not None:
            self.open_work.add_stream(self)
        for work in unstarted or ():
            self.start(work)
        self._run_timer()

    def _run_timer(self) -> None:
        self.timer = asyncio.get_running_loop().call_later(self.tick(), self._run_timer)


class _OnTrio(_Delivery):
    __slots__ = ("group",)

    async def run(self) -> None:
        open_work = self.open_work
        async with anyio.create_task_group() as self.group:
            if open_work is not None:
                open_work.add_stream(self)
            self.group.start_soon(self._run_timer)
            try:
                await self.pump()
            except Exception as error:  # the task group would wrap it
                self.failure = self.failure or error
            finally:
                try:
                    await close(self.items)
                finally:
                    if open_work is not None:
                        open_work.remove_stream(self)
            self.group.cancel_scope.cancel()
        if self.failure is not None:
            await self.finish_early(self.failure)

    def start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self.group.start_soon(work)

    def interrupt(self) -> None:
        self.group.cancel_scope.cancel()

    async def _run_timer(self) -> None:
        while True:
            pause = self.tick()
            await anyio.sleep(pause)
