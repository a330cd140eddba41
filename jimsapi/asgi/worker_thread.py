"""Worker threads: for handlers that are plain functions, so that they may block, and for reading and writing files."""

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, TypeVar, TypeVarTuple

from anyio import CapacityLimiter, to_thread
from anyio.lowlevel import RunVar

from .connection import Request

FILE_THREADS = 40
"""How many threads may read and write files, those of forms and static ones, at once."""

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")
_file_threads: RunVar[CapacityLimiter] = RunVar("jimsapi.asgi.files")


def in_worker_thread(handler: Callable[[Request], Any]) -> Callable[[Request], Awaitable[Any]]:
    """Return an async handler that calls the plain function `handler` in a thread of anyio's pool."""

    @wraps(handler)
    async def threaded_handler(request: Request) -> Any:
        return await to_thread.run_sync(handler, request)

    return threaded_handler


async def in_file_thread(function: Callable[[*Arguments], T], *arguments: *Arguments) -> T:
    """Call a function that reads or writes a file, in a thread.

    The threads are not those of handlers with `worker_thread`. Such handlers may block for long, and may wait for this
    call: static files would wait for them, and a handler that reads a form would wait forever.
    """
    limiter = _file_threads.get(None)
    if limiter is None:
        limiter = CapacityLimiter(FILE_THREADS)
        _file_threads.set(limiter)
    return await to_thread.run_sync(function, *arguments, limiter=limiter)
