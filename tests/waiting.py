"""Waiting for what a server or a store does meanwhile."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from jimsapi.threads.errors import StoreUnavailable

PATIENCE = 30.0

T = TypeVar("T")


def eventually(holds: Callable[[], T | None], within: float = PATIENCE) -> T:
    """Wait until something holds, and return it. Raises `AssertionError` if it does not `within` so many seconds."""
    until = time.monotonic() + within
    while not (found := holds()):
        assert time.monotonic() < until
        time.sleep(0.005)
    return found


async def insist(call: Callable[[], Awaitable[T]]) -> T:
    """Ask again while the store is unavailable, as the run service does. Raises `TimeoutError` at last."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return await call()
            except StoreUnavailable:
                await asyncio.sleep(0.02)
