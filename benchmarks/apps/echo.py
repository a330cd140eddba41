"""Ours: a pipeline that says what it was told."""

from jimsapi import JimsApp, ThreadContext


async def echo(ctx: ThreadContext) -> None:
    """Answer with the person's last message."""
    ctx.send_message(ctx.get_last_user_message())


app = JimsApp(echo)
