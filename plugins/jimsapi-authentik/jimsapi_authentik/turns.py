"""Turns to ask Authentik: how many checks run at a time, and how many wait for that."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class NoTurn(Exception):
    """There is no turn to be had in time."""


class Turns:
    """Turns for `limit` checks at a time. At most `most_waiting` wait for one, each for `patience` seconds."""

    def __init__(self, limit: int, most_waiting: int, patience: float) -> None:
        self._free = asyncio.Semaphore(limit)
        self._most_waiting = most_waiting
        self._patience = patience
        self._waiting = 0

    @property
    def all_taken(self) -> bool:
        """Whether the next one would have to wait."""
        return self._free.locked()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[bool]:
        """Have a turn; gives whether it had to be waited for. Raises `NoTurn`."""
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
            async with asyncio.timeout(self._patience):
                await self._free.acquire()
        except TimeoutError:
            raise NoTurn from None
        finally:
            self._waiting -= 1
