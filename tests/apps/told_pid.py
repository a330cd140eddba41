"""A pipeline that says which process answers."""

import os

from jimsapi import JimsApp, ThreadContext


async def told_pid(ctx: ThreadContext) -> None:
    """Answer with the process."""
    ctx.send_message(str(os.getpid()))


app = JimsApp(told_pid)
