"""The app of the image. Put your own pipeline in its place."""

from jimsapi import JimsApp, ThreadContext


async def answer(ctx: ThreadContext) -> None:
    """Repeat the newest message."""
    ctx.send_message(f"You said: {ctx.get_last_user_message()}")


app = JimsApp(answer)
