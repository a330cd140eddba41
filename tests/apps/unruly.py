"""A bot that does to its event loop what no pipeline should.

A message is `cancel` (every task of the loop), `leak` (tasks that swallow cancellation, and ones that never rest), or
anything else, which is answered at once.
"""

import asyncio

from jimsapi import JimsApp, ThreadContext

_leaked: list[asyncio.Task[None]] = []


async def deaf() -> None:
    """Swallow every cancellation."""
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            continue


async def restless() -> None:
    """Ask for another turn again and again."""
    while True:
        await asyncio.sleep(0)


async def unruly(ctx: ThreadContext) -> None:
    """Do what the message says."""
    match ctx.get_last_user_message():
        case "cancel":
            for task in asyncio.all_tasks():
                task.cancel()
        case "leak":
            _leaked.extend(asyncio.create_task(each()) for each in (deaf, deaf, restless))
    ctx.send_message("done")


app = JimsApp(unruly)
