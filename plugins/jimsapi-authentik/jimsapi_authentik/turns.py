"""Limits for checks: how many run at the same time, and how many wait for their turn."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class NoTurn(Exception):
    """No turn was available in time."""


class Turns:
    """Allows `limit` checks at the same time. At most `most_waiting` others wait, each for up to `timeout` seconds."""

    def __init__(self, limit: int, most_waiting: int, timeout: float) -> None:
        self._free = asyncio.Semaphore(limit)
        self._most_waiting = most_waiting
        self._timeout = timeout
        self._waiting = 0

    @property
    def all_taken(self) -> bool:
        """Whether the next check would have to wait."""
        return self._free.locked()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[bool]:
        """Context manager: wait for a turn. Its value is whether there was a wait. Raises `NoTurn`."""
        waited = self.all_taken
        if waited:
            await self._wait()
        else:
            await self._free.acquire()
        try:
            yield waited
        finally:
            self._free.release()

    async def _wait(self) -> None:
        if self._waiting >= self._most_waiting:
            raise NoTurn
        self._waiting += 1
        try:
            async with asyncio.timeout(self._timeout):
                await self._free.acquire()
        except TimeoutError:
            raise NoTurn from None
        finally:
            self._waiting -= 1
