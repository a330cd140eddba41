"""Context managers that live as long as the server, each in a task of its own."""

import asyncio
import logging
from contextlib import AbstractAsyncContextManager
from typing import Any

from jimsapi.runs.tasks import ServiceTask

logger = logging.getLogger("jimsapi.plugins")

LEAVE_WITHIN = 10.0
"""Seconds that a context manager has to leave at shutdown."""


class Residents:
    """What was entered at start and is left, in reverse order, at shutdown.

    Each lives in its own small task: one whose task group dies is reported and does not unwind the others, and what it
    raises on entering stays the plain exception that it was.
    """

    def __init__(self) -> None:
        self._residents: list[_Resident] = []

    async def enter(self, name: str, manager: AbstractAsyncContextManager[Any], within: float | None = None) -> Any:
        """Enter `manager`, and return what it gives.

        Raises what entering raises, or `TimeoutError` if it takes longer than `within` seconds.
        """
        resident = _Resident(name, manager)
        self._residents.append(resident)
        try:
            return await resident.wait_entered(within)
        except BaseException:
            self._residents.remove(resident)
            resident.abandon()
            raise

    async def leave(self) -> None:
        """Leave all that were entered, the last one first; one that fails or takes too long is logged."""
        while self._residents:
            await self._residents.pop().leave()


class _Resident:
    def __init__(self, name: str, manager: AbstractAsyncContextManager[Any]) -> None:
        self.name = name
        self.entered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._leaving = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._task = ServiceTask.begin(self._live(manager), loop=loop, name=f"resident {name}")

    async def _live(self, manager: AbstractAsyncContextManager[Any]) -> None:
        try:
            async with manager as value:
                self.entered.set_result(value)
                await self._leaving.wait()
        except BaseException as error:
            if not self.entered.done():
                self.entered.set_exception(_plain(error))
            elif self.entered.cancelled():
                logger.debug("%s was given up", self.name)
            elif self._leaving.is_set():
                logger.error("%s failed while it was left: %s: %s", self.name, type(error).__name__, error)
            else:
                logger.error("%s died: %s: %s", self.name, type(error).__name__, error)
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise

    async def wait_entered(self, within: float | None) -> Any:
        await asyncio.wait({self.entered}, timeout=within)
        if not self.entered.done():
            raise TimeoutError(f"{self.name} was not entered within {within:g} s")
        return self.entered.result()

    def abandon(self) -> None:
        """Give up on a manager that could not be entered."""
        self.entered.cancel()
        self._task.end()

    async def leave(self) -> None:
        self._leaving.set()
        done, _ = await asyncio.wait({self._task}, timeout=LEAVE_WITHIN)
        if not done:
            logger.error("%s did not leave within %g s", self.name, LEAVE_WITHIN)
            self._task.end()


def _plain(error: BaseException) -> Exception:
    """A cancellation or an exit of the manager's own, as an error that stops the start and nothing else."""
    return error if isinstance(error, Exception) else RuntimeError(f"it raised {type(error).__name__}")
