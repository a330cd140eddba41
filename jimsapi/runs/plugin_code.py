"""What happens in the code of a plugin that jimsapi calls: exceptions that end tasks, and where it raised."""

import asyncio
import sys
import traceback

PLUGIN_EXITS = (SystemExit, asyncio.CancelledError)
"""If a plugin raises one and jimsapi does not catch it, it ends the server, or the task that awaits the plugin."""


def own_task_is_cancelled() -> bool:
    """Return whether the current task itself is being cancelled.

    If not, a `CancelledError` comes from a task that the plugin awaited.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def raised_at(error: BaseException) -> str:
    """Return where the code of a plugin raised `error`, as `file:line`; empty if no code outside of jimsapi did.

    If the plugin called a library, it is the line of the call.
    """
    package, place = None, ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        name = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if package is None and name != "jimsapi" and name not in sys.stdlib_module_names:
            package = name
        if name == package:
            place = f"{frame.f_code.co_filename}:{line}"
    return place
