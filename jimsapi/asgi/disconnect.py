"""Cancels a handler whose client has disconnected. Routes that do not ask for it pay nothing.

A handler that never waits cannot be cancelled, so the watch begins when the handler waits for the first time. Most
requests are answered before that. The jimsapi server then reports a disconnect by a callback. On other servers a task
has to call `receive`. It starts `WATCH_AFTER` seconds later, so that quick requests do not pay for a task.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from functools import wraps
from types import coroutine
from typing import Any

import anyio

from .connection import Request
from .errors import ClientDisconnected
from .extension import ServerExchange, exchange_of

Handler = Callable[[Request], Awaitable[Any]]

WATCH_AFTER = 0.05
"""Seconds for which a handler has waited when a task begins to watch for the disconnect of its client. If the body is
unread by then, the app looks again after the same time."""


def cancelled_on_disconnect(handler: Handler) -> Handler:
    """Return the handler, cancelled if the client disconnects. `ClientDisconnected` is raised then.

    What the handler raises while it is cancelled takes precedence.
    """

    @wraps(handler)
    async def watched_handler(request: Request) -> Any:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return await _on_trio(handler, request)
        work = _as_coroutine(handler(request))
        try:
            waiting = work.send(None)
        except StopIteration as done:
            return done.value
        return await _on_asyncio(request, work, waiting)

    return watched_handler


def _as_coroutine(awaitable: Awaitable[Any]) -> Coroutine[Any, Any, Any]:
    """Return an awaitable as a coroutine; an object with `__call__` may return another kind."""
    if isinstance(awaitable, Coroutine):
        return awaitable

    async def wait() -> Any:
        return await awaitable

    return wait()


@coroutine
def _continue(work: Coroutine[Any, Any, Any], waiting: Any) -> Generator[Any, Any, Any]:
    """Await a coroutine that has begun. `waiting` is what it has yielded to the event loop."""
    while True:
        try:
            yield waiting
        except BaseException as error:  # such as a cancellation: it belongs to the coroutine
            try:
                waiting = work.throw(error)
            except StopIteration as done:
                return done.value
        else:
            return (yield from work)


async def _on_asyncio(request: Request, work: Coroutine[Any, Any, Any], waiting: Any) -> Any:
    """Continue the handler. To interrupt it, its task is cancelled and then uncancelled, as `asyncio.timeout` does."""
    task = asyncio.current_task()
    assert task is not None
    cancelling = task.cancelling()
    watch = _Watch(request, task)
    watch.start()
    try:
        response = await _continue(work, waiting)
    except asyncio.CancelledError:
        if watch.failure is None or task.uncancel() > cancelling:
            raise
        raise watch.failure from None
    except BaseException:
        if watch.failure is not None:
            task.uncancel()
        raise
    finally:
        watch.stop()
    if watch.failure is not None:  # the handler has suppressed its cancellation
        task.uncancel()
        raise watch.failure
    return response


class _Watch:
    """Watches for the client's disconnect while a handler runs. `failure` is the reason for which it was cancelled."""

    __slots__ = ("_exchange", "_request", "_task", "_timer", "_watcher", "failure")

    def __init__(self, request: Request, task: asyncio.Task[Any]) -> None:
        self.failure: Exception | None = None
        self._request = request
        self._task: asyncio.Task[Any] | None = task
        self._exchange: ServerExchange | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._watcher: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin the watch: by a callback, or by a timer that starts a task later.

        If a wrapper has replaced `receive`, a task has to call it, since only the wrapper may receive the disconnect.
        """
        exchange = exchange_of(self._request.scope)
        if exchange is not None and self._request.receive == exchange.receive:
            self._exchange = exchange
            exchange.call_when_gone(self._interrupt)
        else:
            self._wait()

    def stop(self) -> None:
        """End the watch."""
        self._task = None
        if self._exchange is not None:
            self._exchange.call_when_gone(None)
        if self._timer is not None:
            self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(WATCH_AFTER, self._look)

    def _look(self) -> None:
        if self._request.ended():
            self._watcher = asyncio.create_task(self._receive())
        else:  # the handler may still read the body
            self._wait()

    async def _receive(self) -> None:
        try:
            await _disconnect(self._request)
        except Exception as error:
            self._interrupt(error)
        else:
            self._interrupt()

    def _interrupt(self, reason: Exception | None = None) -> None:
        if self._task is not None and self.failure is None:
            self.failure = reason or ClientDisconnected()
            self._task.cancel()


async def _on_trio(handler: Handler, request: Request) -> Any:
    response: Any = None
    failure: Exception | None = None

    async def watch() -> None:
        nonlocal failure
        await anyio.sleep(WATCH_AFTER)
        while not request.ended():  # noqa: ASYNC110 - nothing reports that the handler has read the body
            await anyio.sleep(WATCH_AFTER)
        try:
            await _disconnect(request)
            failure = ClientDisconnected()
        except Exception as error:
            failure = error
        tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        try:
            response = await handler(request)
        except Exception as error:  # the task group would wrap it
            failure = error
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return response


async def _disconnect(request: Request) -> None:
    """Return when the client has disconnected."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
