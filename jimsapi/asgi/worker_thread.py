"""Handlers that are plain functions, and run in worker threads so that they may block."""

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

from anyio import to_thread

from .connection import Request


def in_worker_thread(handler: Callable[[Request], Any]) -> Callable[[Request], Awaitable[Any]]:
    """Return an async handler that calls the plain function `handler` in a thread of anyio's pool."""

    @wraps(handler)
    async def threaded_handler(request: Request) -> Any:
        return await to_thread.run_sync(handler, request)

    return threaded_handler
