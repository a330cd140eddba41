"""What awaiting a plugin's code may raise beside ordinary exceptions."""

import asyncio
from contextlib import suppress
from typing import Any

ENDINGS = (SystemExit, asyncio.CancelledError)
"""Raised by a plugin, they would end the server or the task that awaits the plugin, and with it the work of others."""


def being_cancelled() -> bool:
    """Whether the running task itself was told to end. If not, a `CancelledError` is that of a task of the plugin's."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def regain(task: asyncio.Task[Any]) -> None:
    """Make the running task, which was cancelled, one like any other again.

    The cancellation may have been delivered, and swallowed or not, or be due at the next `await` (a coroutine may
    cancel its own task and return): it comes here, if it still comes.
    """
    while task.uncancel():
        pass
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(0)
