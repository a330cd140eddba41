"""Ours: a pipeline that says nothing for ever (`wait`), the same piece as often as its message says (`5`), or what the
time is (`1000 8 2`: 1,000 times a second for 8 seconds, after 2)."""

import asyncio
import time

from benchmarks.apps.peers import PIECE
from jimsapi import JimsApp, ThreadContext


async def streaming(ctx: ThreadContext) -> None:
    """Do what the message says."""
    message = ctx.get_last_user_message()
    if message == "wait":
        await asyncio.get_running_loop().create_future()
    if " " in message:
        await say_the_time(ctx, *map(int, message.split()))
        return
    for _ in range(int(message)):
        await ctx.stream(PIECE)


async def say_the_time(ctx: ThreadContext, rate: int, seconds: int, pause: int) -> None:
    """Say the time at which each piece is due, in nanoseconds of the machine's monotonic clock, `rate` times a second.

    A piece that is late is said at once. It still says when it was due, so that readers see how late it is.
    """
    begins = time.monotonic() + pause
    for number in range(rate * seconds):
        due = begins + number / rate
        if (early := due - time.monotonic()) > 0:
            await asyncio.sleep(early)
        await ctx.stream(f"{int(due * 1e9)} ")


app = JimsApp(streaming)
