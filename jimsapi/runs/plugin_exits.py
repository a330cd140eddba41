"""Exceptions other than `Exception` that the code of a plugin may raise when jimsapi awaits it."""

import asyncio

PLUGIN_EXITS = (SystemExit, asyncio.CancelledError)
"""If a plugin raises one and jimsapi does not catch it, it ends the server, or the task that awaits the plugin."""


def own_task_is_cancelled() -> bool:
    """Return whether the current task itself is being cancelled.

    If not, a `CancelledError` comes from a task that the plugin awaited.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
