"""A bot that does to its event loop what no pipeline should.

A message is `cancel` (every task of the loop), `cancel later` (when the pipeline has ended), `exit` (in a task), `leak`
(tasks that swallow cancellation, and ones that never rest), or anything else, which is answered at once.
"""

import asyncio
import sys

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


async def leave() -> None:
    """End the process as a command would."""
    sys.exit(0)


def cancel_all() -> None:
    """Cancel every task of the loop."""
    for task in asyncio.all_tasks():
        task.cancel()


async def cancel_all_later(pipeline: "asyncio.Task[None] | None") -> None:
    """Cancel every task when the pipeline has ended."""
    while pipeline is not None and not pipeline.done():
        await asyncio.sleep(0)
    cancel_all()


async def unruly(ctx: ThreadContext) -> None:
    """Do what the message says."""
    match ctx.get_last_user_message():
        case "cancel":
            cancel_all()
        case "cancel later":
            _leaked.append(asyncio.create_task(cancel_all_later(asyncio.current_task())))
        case "exit":
            _leaked.append(asyncio.create_task(leave()))
        case "leak":
            _leaked.extend(asyncio.create_task(each()) for each in (deaf, deaf, restless))
    ctx.send_message("done")


app = JimsApp(unruly)
