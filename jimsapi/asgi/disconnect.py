"""Cancels a handler whose client has disconnected. Routes that do not ask for it pay nothing.

A handler that never waits cannot be cancelled, so the watch begins when the handler waits for the first time. Most
requests are answered before that. The jimsapi server then reports a disconnect by a callback. On other servers a task
has to call `receive`. It starts `WATCH_AFTER` seconds later, so that quick requests do not pay for a task.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from functools import wraps
from inspect import iscoroutinefunction
from types import coroutine
from typing import Any

import anyio

from .connection import Request
from .errors import ClientDisconnected
from .extension import exchange_of

Handler = Callable[[Request], Awaitable[Any]]

WATCH_AFTER = 0.05
"""Seconds for which a handler has waited when a task begins to watch for the disconnect of its client. If the body is
unread by then, the app looks again after the same time."""


def cancelled_on_disconnect(handler: Handler) -> Handler:
    """Return the handler, cancelled if the client disconnects. `ClientDisconnected` is raised then.

    What the handler raises while it is cancelled takes precedence.
    """

    begin: Callable[[Request], Any] = handler if iscoroutinefunction(handler) else _as_coroutine(handler)

    @wraps(handler)
    async def watched_handler(request: Request) -> Any:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return await _on_trio(handler, request)
        work = begin(request)
        try:
            waiting = work.send(None)
        except StopIteration as done:
            return done.value
        return await _on_asyncio(request, work, waiting)

    return watched_handler


def _as_coroutine(handler: Handler) -> Callable[[Request], Coroutine[Any, Any, Any]]:
    """Return an object with `__call__`, which may return any awaitable, as a coroutine function."""

    async def wait(request: Request) -> Any:
        return await handler(request)

    return wait


@coroutine
def _on_asyncio(request: Request, work: Coroutine[Any, Any, Any], waiting: Any) -> Generator[Any, Any, Any]:
    """Continue a handler that has yielded `waiting` to the event loop, and watch for the client's disconnect.

    To interrupt the handler, its task is cancelled and then uncancelled, as `asyncio.timeout` does.
    """
    watch = _Watch(request)
    try:
        try:
            yield waiting
        except BaseException as error:  # such as a cancellation: it belongs to the handler
            response = yield from _throw(work, error)
        else:
            response = yield from work
    except asyncio.CancelledError:
        failure = watch.end()
        if failure is None:
            raise
        raise failure from None
    except BaseException:
        watch.end()
        raise
    failure = watch.end()
    if failure is not None:  # the handler has suppressed its cancellation
        raise failure
    return response


@coroutine
def _throw(work: Coroutine[Any, Any, Any], error: BaseException) -> Generator[Any, Any, Any]:
    """Raise an error within a coroutine that waits, and return what the coroutine returns."""
    while True:
        try:
            waiting = work.throw(error)
        except StopIteration as done:
            return done.value
        try:
            yield waiting
        except BaseException as another:
            error = another
        else:
            return (yield from work)


class _Watch:
    """Watches for the client's disconnect while a handler of the current task runs."""

    __slots__ = ("_cancelling", "_exchange", "_failure", "_request", "_task", "_timer", "_watcher")

    def __init__(self, request: Request) -> None:
        """Begin the watch: by a callback, or by a timer that starts a task later.

        If a wrapper has replaced `receive`, a task has to call it, since only the wrapper may receive the disconnect.
        """
        task = asyncio.current_task()
        assert task is not None
        self._task: asyncio.Task[Any] | None = task
        self._cancelling = task.cancelling()
        self._failure: Exception | None = None
        self._exchange = exchange = exchange_of(request.scope)
        if exchange is not None and request.receive == exchange.receive:
            exchange.call_when_gone(self._interrupt)
        else:
            self._exchange = None
            self._request = request
            self._watcher: asyncio.Task[None] | None = None
            self._wait()

    def end(self) -> Exception | None:
        """End the watch. Returns the reason for which the handler was cancelled; None if something else has done so."""
        task, self._task = self._task, None
        assert task is not None
        if self._exchange is not None:
            self._exchange.call_when_gone(None)
        else:
            self._timer.cancel()
            if self._watcher is not None:
                self._watcher.cancel()
        if self._failure is None or task.uncancel() > self._cancelling:
            return None
        return self._failure

    def _wait(self) -> None:
        self._timer: asyncio.TimerHandle = asyncio.get_running_loop().call_later(WATCH_AFTER, self._look)

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
        if self._task is not None and self._failure is None:
            self._failure = reason or ClientDisconnected()
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
