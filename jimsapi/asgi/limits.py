"""Limits of single routes. A route without them costs nothing."""

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

from anyio import move_on_after

from .connection import Request
from .errors import HTTPError

Handler = Callable[[Request], Awaitable[Any]]


def limited(handler: Handler, max_body: int | None, time_limit: float | None) -> Handler:
    """Return the handler with its limits: `max_body` in bytes, `time_limit` in seconds.

    None means the app's limit for bodies, or no time limit. Raises `ValueError` for a limit that is not positive.
    """
    if max_body is None and time_limit is None:
        return handler
    for name, limit in (("max_body", max_body), ("time_limit", time_limit)):
        if limit is not None and not limit > 0:
            raise ValueError(f"{name} is {limit}: it must be positive.")

    @wraps(handler)
    async def limited_handler(request: Request) -> Any:
        if max_body is not None:
            request.max_body = max_body
        if time_limit is None:
            return await handler(request)
        with move_on_after(time_limit):
            return await handler(request)
        raise HTTPError(504, f"The request took longer than {time_limit:g} seconds")

    return limited_handler
