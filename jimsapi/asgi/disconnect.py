"""Cancels a handler whose client has disconnected. Routes that do not ask for it pay nothing.

The jimsapi server itself cancels the task of the request. On other servers, and within some wrappers, a task has to
call `receive`. It starts when the handler has run for `WATCH_AFTER` seconds, so that quick requests do not pay for it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

import anyio

from .connection import Request
from .errors import ClientDisconnected
from .extension import EXTENSION, ServerExchange

Handler = Callable[[Request], Awaitable[Any]]

WATCH_AFTER = 0.05
"""Seconds for which a handler has run when a task begins to watch for the disconnect of its client. If the body is
unread by then, the app looks again after the same time."""


def cancelled_on_disconnect(handler: Handler) -> Handler:
    """Return the handler, cancelled if the client disconnects. `ClientDisconnected` is raised then.

    What the handler raises while it is cancelled takes precedence.
    """

    @wraps(handler)
    async def watched_handler(request: Request) -> Any:
        try:
            exchange: ServerExchange = request.scope["extensions"][EXTENSION]  # cheaper than `exchange_of`
        except (KeyError, TypeError):
            return await _watched_by_task(handler, request)
        app = None if request.route is None else request.route.app
        if request.receive != exchange.receive or (
            (app is None or app is not exchange.direct_app or app.wrapped is not None) and not exchange.is_in_its_task()
        ):
            # If a wrapper has replaced `receive`, only the wrapper may receive the disconnect. If a wrapper runs the
            # app in another task, the server would cancel the wrapper. To look for the task takes longest, so it is
            # left out if the server itself has called this app.
            return await _watched_by_task(handler, request)
        if exchange.gone:
            raise ClientDisconnected
        exchange.cancel_when_gone = True
        try:
            response = await handler(request)
        except asyncio.CancelledError:
            if exchange.end_cancelling():
                raise ClientDisconnected from None
            raise
        except BaseException:
            exchange.end_cancelling()
            raise
        if exchange.gone and exchange.end_cancelling():  # type: ignore[unreachable] # mypy: `gone` is still false
            raise ClientDisconnected  # the handler has suppressed its cancellation
        exchange.cancel_when_gone = False
        return response

    return watched_handler


async def _watched_by_task(handler: Handler, request: Request) -> Any:
    """Run the handler while a task waits for the client's disconnect.

    To interrupt the handler, its task is cancelled and then uncancelled, as `asyncio.timeout` does.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return await _on_trio(handler, request)
    watch = _Watch(request)
    try:
        response = await handler(request)
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


class _Watch:
    """Watches for the client's disconnect while a handler of the current task runs."""

    __slots__ = ("_cancelling", "_failure", "_request", "_task", "_timer", "_watcher")

    def __init__(self, request: Request) -> None:
        """Begin the watch: by a timer that starts a task later."""
        task = asyncio.current_task()
        assert task is not None
        self._task: asyncio.Task[Any] | None = task
        self._cancelling = task.cancelling()
        self._failure: Exception | None = None
        self._request = request
        self._watcher: asyncio.Task[None] | None = None
        self._wait()

    def end(self) -> Exception | None:
        """End the watch. Returns the reason for which the handler was cancelled; None if something else has done so."""
        task, self._task = self._task, None
        assert task is not None
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
            self._interrupt(ClientDisconnected())

    def _interrupt(self, reason: Exception) -> None:
        if self._task is not None:
            self._failure = reason
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
