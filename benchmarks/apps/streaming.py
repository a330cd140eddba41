"""Ours: a pipeline that says nothing for ever (`wait`), the same piece as often as its message says (`5`), or the
times at which its pieces are due (`1000 8 2`: 1,000 a second for 8 seconds, after 2)."""

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
        await say_due_times(ctx, *map(int, message.split()))
        return
    for _ in range(int(message)):
        await ctx.stream(PIECE)


async def say_due_times(ctx: ThreadContext, rate: int, seconds: int, pause: int) -> None:
    """Stream `rate` pieces a second. Each is the time at which it is due, in nanoseconds of the monotonic clock.

    A late piece is sent at once. It still has the time at which it was due, so that readers see how late it is.
    """
    begins = time.monotonic() + pause
    for number in range(rate * seconds):
        due = begins + number / rate
        if (early := due - time.monotonic()) > 0:
            await asyncio.sleep(early)
        await ctx.stream(f"{int(due * 1e9)} ")


app = JimsApp(streaming)
