"""A bot whose answers are long: a message is the length of its answer in bytes."""

from jimsapi import JimsApp, ThreadContext


async def wordy(ctx: ThreadContext) -> None:
    """Answer at length."""
    ctx.send_message("x" * int(ctx.get_last_user_message() or "0"))


app = JimsApp(wordy)
