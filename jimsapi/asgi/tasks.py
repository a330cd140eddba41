"""Tasks that belong to no task group, on asyncio and on trio."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import Any

_running: set[asyncio.Task[Any]] = set()
"""The event loop keeps only weak references to tasks."""


def spawn(work: Callable[[], Awaitable[None]], name: str) -> None:
    """Run `work` in a task of its own, with a copy of the caller's context variables.

    A task group must be left in the task that entered it. This task may be started in one task and awaited in another,
    as tests do whose fixtures have tasks of their own. `work` must not raise an `Exception`.

    Raises `RuntimeError` in a thread without an event loop.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        trio = sys.modules.get("trio")
        if trio is None or not trio.lowlevel.in_trio_run():
            raise RuntimeError("This thread has no event loop.") from None
        trio.lowlevel.spawn_system_task(work, name=name, context=copy_context())
    else:
        task = loop.create_task(_coroutine(work), name=name)
        _running.add(task)
        task.add_done_callback(_running.discard)


async def _coroutine(work: Callable[[], Awaitable[None]]) -> None:
    await work()
