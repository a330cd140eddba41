"""What awaiting a plugin's code may raise beside ordinary exceptions."""

import asyncio

ENDINGS = (SystemExit, asyncio.CancelledError)
"""Raised by a plugin, they would end the server or the task that awaits the plugin, and with it the work of others."""


def being_cancelled() -> bool:
    """Whether the running task itself was told to end. If not, a `CancelledError` is that of a task of the plugin's."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
