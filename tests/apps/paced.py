"""A bot that takes the time that its message asks for, so that a test can stop and break the server in mid-run.

A message is a label and a command: `a1 now`, `a1 wait 0.2` (seconds), `a1 until /a/file` (until it is there),
`a1 ask` (until a person approves), `a1 stubborn` (for ever, and deaf to cancellation), `a1 thread` (for ever in a
thread that nobody can stop) or `a1 block` (for ever, and nobody else gets a turn). The answer repeats the message.
`plain` is an app whose pipeline works in a thread.
"""

import asyncio
import time
from pathlib import Path

from jimsapi import JimsApp, ThreadContext

LOOK_EVERY = 0.005


async def paced(ctx: ThreadContext) -> None:
    """Do what the message says."""
    message: str = ctx.get_last_user_message() or ""
    _, command, *arguments = [*message.split(" "), "now"]
    if command == "wait":
        await asyncio.sleep(float(arguments[0]))
    elif command == "until":
        while not Path(arguments[0]).exists():
            await asyncio.sleep(LOOK_EVERY)
    elif command == "ask":
        await ctx.ask("approval", "Go on?", options=["yes", "no"])
        message = await ctx.once("message", str, message)
        await asyncio.sleep(LOOK_EVERY)  # a kill may come now
    elif command == "stubborn":
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                ctx.thread_config.clear()
    elif command == "thread":
        await asyncio.to_thread(time.sleep, 3600)
    elif command == "block":
        time.sleep(3600)  # noqa: ASYNC251 - the mistake that is to be survived
    ctx.send_message(message)


def sleeping(ctx: ThreadContext) -> None:
    """Answer at once, or never."""
    message: str = ctx.get_last_user_message() or ""
    if "block" in message:
        time.sleep(3600)
    ctx.send_message(message)


app = JimsApp(paced)
plain = JimsApp(sleeping)
