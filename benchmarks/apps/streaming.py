"""Ours: a pipeline that says nothing for ever (`wait`), or the same piece as often as its message says."""

import asyncio

from benchmarks.apps.peers import PIECE
from jimsapi import JimsApp, ThreadContext


async def streaming(ctx: ThreadContext) -> None:
    """Do what the message says."""
    message = ctx.get_last_user_message()
    if message == "wait":
        await asyncio.get_running_loop().create_future()
    for _ in range(int(message)):
        await ctx.stream(PIECE)


app = JimsApp(streaming)
