"""Ours: a pipeline that says what it was told, after it has computed for two milliseconds of processor time."""

from time import thread_time

from jimsapi import JimsApp, ThreadContext

COMPUTES = 0.002


async def computing(ctx: ThreadContext) -> None:
    """Answer with the person's last message."""
    end = thread_time() + COMPUTES
    while thread_time() < end:
        pass
    ctx.send_message(ctx.get_last_user_message())


app = JimsApp(computing)
