"""Ours: a pipeline that says what it was told."""

import asyncio

from benchmarks.apps.peers import PAUSE
from jimsapi import JimsApp, ThreadContext


async def echo(ctx: ThreadContext) -> None:
    """Answer with the person's last message."""
    if PAUSE:
        await asyncio.sleep(PAUSE)
    ctx.send_message(ctx.get_last_user_message())


app = JimsApp(echo)
