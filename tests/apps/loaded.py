"""A bot for load: it repeats its message, or answers at the length and in the time that the message asks for.

`wait 0.1` answers after so many seconds, `give 5000000` with so many characters, `pieces 20 1000` with so many pieces
of so many characters, which are streamed. Anything else is repeated.

The metrics `loaded_tasks` and `loaded_blocks` show the event loop's tasks and Python's allocated memory blocks.
"""

import asyncio
import sys

from prometheus_client import Gauge

from jimsapi import JimsApp, ThreadContext

_loops: list[asyncio.AbstractEventLoop] = []

Gauge("loaded_blocks", "Memory blocks that Python has allocated.").set_function(sys.getallocatedblocks)
Gauge("loaded_tasks", "Tasks of the event loop.").set_function(
    lambda: len(asyncio.all_tasks(_loops[0])) if _loops else 0
)


async def loaded(ctx: ThreadContext) -> None:
    """Do what the message says."""
    if not _loops:
        _loops.append(asyncio.get_running_loop())
    message: str = ctx.get_last_user_message() or ""
    match message.split(" "):
        case ["wait", seconds]:
            await asyncio.sleep(float(seconds))
            ctx.send_message(message)
        case ["give", size]:
            ctx.send_message("x" * int(size))
        case ["pieces", count, size]:
            for _ in range(int(count)):
                await ctx.stream("x" * int(size))
                await asyncio.sleep(0)
        case _:
            ctx.send_message(message)


app = JimsApp(loaded)
