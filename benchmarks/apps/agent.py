"""Ours: a pipeline that asks, calls tools and keeps results for some messages, and for others says what it was told.

None of the benchmark's messages is one of them, so a chat has all of this beside it and uses nothing of it.
"""

from jimsapi import JimsApp, ThreadContext


async def agent(ctx: ThreadContext) -> None:
    """Answer with the person's last message, unless it begins a task."""
    message = ctx.get_last_user_message()
    if message.startswith("/do"):
        async with ctx.tool("look", {"for": message}) as call:
            call.result = [await file.read() for file in ctx.files]
        if await ctx.ask("go", "Go on?", options=["yes", "no"]) == "yes":
            await ctx.once("done", str, message)
        ctx.usage(model="none", input_tokens=1, output_tokens=1)
    ctx.send_message(message)


app = JimsApp(agent, private_events=("state.*",))
