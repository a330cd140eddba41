"""Async context managers that stay entered while the server runs, each in a task of its own."""

import asyncio
import logging
from contextlib import AbstractAsyncContextManager
from typing import Any

from jimsapi.runs.tasks import ServiceTask

logger = logging.getLogger("jimsapi.plugins")

EXIT_WITHIN = 10.0
"""Seconds within which a context manager has to exit at shutdown."""


class Lifespans:
    """Async context managers that are entered at start and exited, in reverse order, at shutdown.

    Each one is entered in a task of its own, and once, even if several hooks return it. If the task group of one fails,
    the failure is logged and the others stay entered. If one raises while it is entered, `enter` raises that exception,
    not an exception group.
    """

    def __init__(self) -> None:
        self._lifespans: list[_Lifespan] = []

    async def enter(self, name: str, manager: AbstractAsyncContextManager[Any], within: float | None = None) -> Any:
        """Enter `manager`, and return the value of its `__aenter__`. `name` is for log messages.

        Raises the exception of `__aenter__`, or `TimeoutError` if that takes longer than `within` seconds.
        """
        for earlier in self._lifespans:
            if earlier.manager is manager:
                return earlier.entered.result()
        lifespan = _Lifespan(name, manager)
        self._lifespans.append(lifespan)
        try:
            return await lifespan.wait_entered(within)
        except BaseException:
            self._lifespans.remove(lifespan)
            lifespan.abandon()
            raise

    async def leave(self) -> None:
        """Exit all context managers, the last one first. One that fails or takes too long is logged."""
        while self._lifespans:
            await self._lifespans.pop().exit()


class _Lifespan:
    def __init__(self, name: str, manager: AbstractAsyncContextManager[Any]) -> None:
        self.name = name
        self.manager = manager
        self.entered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._exit_requested = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._task = ServiceTask.begin(self._run(manager), loop=loop, name=f"lifespan of {name}")

    async def _run(self, manager: AbstractAsyncContextManager[Any]) -> None:
        try:
            async with manager as value:
                self.entered.set_result(value)
                await self._exit_requested.wait()
        except BaseException as error:
            if not self.entered.done():
                self.entered.set_exception(_as_exception(error))
            elif self.entered.cancelled():
                logger.debug("%s was cancelled before it was entered", self.name)
            elif self._exit_requested.is_set():
                logger.error("%s failed on exit: %s: %s", self.name, type(error).__name__, error)
            else:
                logger.error("%s died: %s: %s", self.name, type(error).__name__, error)
            if isinstance(error, KeyboardInterrupt):
                raise  # a `SystemExit` of a plugin would end the server, as if the operator had stopped it

    async def wait_entered(self, within: float | None) -> Any:
        await asyncio.wait({self.entered}, timeout=within)
        if not self.entered.done():
            raise TimeoutError(f"{self.name} was not entered within {within:g} s")
        return self.entered.result()

    def abandon(self) -> None:
        """Cancel a context manager that could not be entered."""
        self.entered.cancel()
        self._task.end()

    async def exit(self) -> None:
        self._exit_requested.set()
        done, _ = await asyncio.wait({self._task}, timeout=EXIT_WITHIN)
        if not done:
            logger.error("%s did not exit within %g s", self.name, EXIT_WITHIN)
            self._task.end()


def _as_exception(error: BaseException) -> Exception:
    """The error itself, or a `RuntimeError` in place of a cancellation or exit, which would end more than the start."""
    return error if isinstance(error, Exception) else RuntimeError(f"it raised {type(error).__name__}")
