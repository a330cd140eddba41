"""What a drain of an app ends: its open streams, its WebSockets, and its background work."""

import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator
from functools import partial
from inspect import iscoroutine
from typing import Any, Protocol

import anyio
from anyio.lowlevel import checkpoint

from .tasks import spawn

logger = logging.getLogger("jimsapi.asgi")

END_WITHIN = 1.0
"""Seconds within which streams, WebSockets and background work have to end after a drain has stopped waiting."""
IDLE_FOR = 0.05
"""Seconds without work after which a drain closes a WebSocket. A handler may take up its next work in them."""
SHOWN = 50
"""The number of lines of each kind that `OpenWork.state` yields."""
_SERVICE_RESTART = 1012  # IANA's WebSocket Close Code Number Registry


class OpenStream(Protocol):
    """A streaming response that is being sent."""

    @property
    def path(self) -> str: ...
    @property
    def endless(self) -> bool: ...
    def complete(self) -> None: ...
    def hasten(self) -> None: ...
    def cut(self) -> None: ...


class OpenWebSocket(Protocol):
    """An accepted WebSocket whose handler has not returned. `on_idle` is called when the handler stops working."""

    on_idle: Callable[[], None] | None

    @property
    def is_working(self) -> bool: ...
    async def close(self, code: int, reason: str) -> None: ...


class Background:
    """One piece of background work: a coroutine, and the `starter`, such as a route. A drain ends `endless` work."""

    __slots__ = ("_coroutine", "_starter", "endless", "scope")

    def __init__(self, coroutine: Coroutine[Any, Any, object], starter: str, endless: bool) -> None:
        self._coroutine = coroutine
        self._starter = starter
        self.endless = endless
        self.scope = anyio.CancelScope()

    def __str__(self) -> str:
        """The coroutine's function, the line that it has reached, and the starter."""
        frame = self._coroutine.cr_frame if iscoroutine(self._coroutine) else None
        place = "" if frame is None else f" ({frame.f_code.co_filename}:{frame.f_lineno})"
        return f"{_name(self._coroutine)}{place}, which {self._starter} started"

    async def run(self) -> None:
        """Run the work. Logs a failure, with its traceback."""
        description = str(self)  # a coroutine that has ended no longer shows its file
        try:
            with self.scope:
                await self._coroutine
        except (Exception, SystemExit) as error:  # the latter would end the server
            logger.error("Background work failed: %s", description, exc_info=error)
        except anyio.get_cancelled_exc_class():
            logger.warning("Background work was cancelled: %s", description)
            raise


class OpenWork:
    """The open work of one app. It costs a request nothing: only streams, WebSockets and background work are in it.

    A drain calls `begin`, `wait` and `end`, and `close_websockets` when no WebSocket is to be opened any more.
    """

    def __init__(self) -> None:
        self.draining = False
        self._ended = False
        self._closes_websockets = False
        self._streams: set[OpenStream] = set()
        self._websockets: set[OpenWebSocket] = set()
        self._background: set[Background] = set()
        self._change: anyio.Event | None = None  # exists while a drain waits
        self._waits: set[anyio.CancelScope] = set()

    def __str__(self) -> str:
        counts = ("streams", self._streams), ("WebSockets", self._websockets), ("background tasks", self._background)
        return ", ".join(f"{len(works)} {name}" for name, works in counts)

    def state(self) -> Iterator[str]:
        """Yield a line for each route with open streams, and for each function that works in the background.

        Any thread may read them.
        """
        for path, count in Counter(stream.path for stream in tuple(self._streams)).most_common(SHOWN):
            yield f"{count} open streams of {path}"
        for work, count in Counter(str(work) for work in tuple(self._background)).most_common(SHOWN):
            yield f"{count} in the background: {work}"

    @property
    def stream_count(self) -> int:
        """The number of streams that are open."""
        return len(self._streams)

    @property
    def websocket_count(self) -> int:
        """The number of WebSockets that are open."""
        return len(self._websockets)

    def reset(self) -> None:
        """Begin anew, for another lifespan of the app."""
        self.draining = self._ended = self._closes_websockets = False

    # For the app, its streams and its handlers.

    def add_stream(self, stream: OpenStream) -> None:
        """Add a stream that begins."""
        self._streams.add(stream)
        if self.draining:
            _hasten(stream)

    def remove_stream(self, stream: OpenStream) -> None:
        """Remove a stream that has ended."""
        self._streams.discard(stream)
        self._note_change()

    def add_websocket(self, websocket: OpenWebSocket) -> None:
        """Add a WebSocket that was accepted."""
        self._websockets.add(websocket)
        if self._closes_websockets:
            self._close_when_idle(websocket)

    def remove_websocket(self, websocket: OpenWebSocket) -> None:
        """Remove a WebSocket whose handler has returned."""
        self._websockets.discard(websocket)
        self._note_change()

    def start(self, coroutine: Coroutine[Any, Any, object], starter: str, endless: bool = False) -> None:
        """Run a coroutine in the background. If it is `endless`, a drain cancels it when it begins.

        Raises `RuntimeError` if the app's drain has ended and in a thread without an event loop, and `TypeError` for
        anything but a coroutine.
        """
        if not isinstance(coroutine, Coroutine):
            raise TypeError(f"Background work is a coroutine, such as send_mail(address), not {coroutine!r}.")
        try:
            work = Background(coroutine, starter, endless)  # its cancel scope needs an event loop
        except RuntimeError:
            coroutine.close()
            text = "This thread has no event loop: call anyio.from_thread.run_sync(request.start_background, work())."
            raise RuntimeError(text) from None
        if self._ended:
            coroutine.close()
            raise RuntimeError(f"Background work cannot start, since the app has shut down: {work}")
        if endless and self.draining:
            work.scope.cancel()
        self._background.add(work)
        spawn(partial(self._run, work), f"background {_name(coroutine)}")

    async def _run(self, work: Background) -> None:
        try:
            await work.run()
        finally:
            self._background.discard(work)
            self._note_change()

    def _note_change(self) -> None:
        if self._change is not None:
            self._change.set()
            self._change = None

    # For a drain.

    def begin(self) -> None:
        """Complete the endless streams, hasten the others, and cancel endless background work.

        This includes those that begin from now on.
        """
        self.draining = True
        for work in self._background:
            if work.endless:
                work.scope.cancel()
        for stream in tuple(self._streams):
            _hasten(stream)

    def close_websockets(self) -> None:
        """Close every WebSocket with 1012 (service restart) as soon as its handler does not work for the client."""
        self._closes_websockets = True
        for websocket in tuple(self._websockets):
            self._close_when_idle(websocket)

    async def wait(self, seconds: float) -> None:
        """Wait up to `seconds` for streams and background work, and for the WebSockets that are being closed."""
        scope = anyio.move_on_after(seconds)
        self._waits.add(scope)
        try:
            with scope:
                await checkpoint()  # streams that have just begun are added in the next pass of the event loop
                while self._streams or self._background or (self._closes_websockets and self._websockets):
                    self._change = self._change or anyio.Event()
                    await self._change.wait()
        finally:
            self._waits.discard(scope)

    def interrupt(self) -> None:
        """Let `wait` return now."""
        for scope in self._waits:
            scope.cancel()

    async def end(self) -> None:
        """Cut the streams and cancel the background work that is left, and log both."""
        self._ended = True
        if self._streams:
            logger.warning("Streams were cut, since they did not end in time: %s", _count_by_path(self._streams))
        for stream in tuple(self._streams):
            stream.cut()
        for websocket in tuple(self._websockets):
            spawn(partial(_close, websocket), "close of a WebSocket")
        for work in tuple(self._background):
            logger.warning("Background work was cancelled, since it did not end in time: %s", str(work))
            work.scope.cancel()
        await self.wait(END_WITHIN)
        for work in self._background:
            logger.error("Background work does not end after its cancellation: %s", str(work))

    def _close_when_idle(self, websocket: OpenWebSocket) -> None:
        websocket.on_idle = None
        spawn(partial(self._close_if_idle, websocket), "close of a WebSocket")

    async def _close_if_idle(self, websocket: OpenWebSocket) -> None:
        await anyio.sleep(IDLE_FOR)
        if websocket.is_working:
            websocket.on_idle = partial(self._close_when_idle, websocket)
        else:
            await _close(websocket)


def _hasten(stream: OpenStream) -> None:
    if stream.endless:
        stream.complete()
    else:
        stream.hasten()


async def _close(websocket: OpenWebSocket) -> None:
    try:
        with anyio.move_on_after(END_WITHIN):
            await websocket.close(_SERVICE_RESTART, "The server restarts")
    except Exception as error:  # the WebSocket is closed already, by the client or by its handler
        logger.debug("A WebSocket could not be closed", exc_info=error)


def _name(coroutine: Coroutine[Any, Any, object]) -> str:
    return getattr(coroutine, "__qualname__", type(coroutine).__qualname__)


def _count_by_path(streams: Iterable[OpenStream]) -> str:
    counts = Counter(stream.path for stream in streams)
    return ", ".join(f"{count} of {path}" for path, count in sorted(counts.items()))
