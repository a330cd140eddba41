"""A bot that tells what it does: it reads, then does what its message says, and, if that is no word of its own, what
`steered` would do.

`api` is for servers other than the command.
"""

from contextlib import suppress

from jimsapi import JimsApp, StatusEvent, ThreadContext, create_api
from tests.apps.steered import steered

READING = StatusEvent("Reading", "reading")
ODD_TEXT = 'a\nb\r\n\u2028c\u2029\u0085\0"\ud800é'
"""What a line of an event stream, a line of Python's or UTF-8 cannot hold."""


async def watched(ctx: ThreadContext) -> None:
    """Do what the message says, and tell of it."""
    await ctx.update_agent_status(READING)
    message: str = ctx.get_last_user_message() or ""
    command, _, argument = message.partition(" ")
    match command:
        case "plainly":
            await ctx.update_agent_status("Thinking hard")
            await ctx.update_agent_status(StatusEvent("Searching", "search"))
        case "oddly":
            await ctx.update_agent_status(ODD_TEXT)
            await ctx.update_agent_status(5)  # type: ignore[arg-type] # what a careless pipeline does
            ctx.send_message(ODD_TEXT.replace("\ud800", "").replace("\0", ""))
        case "flood":
            for number in range(int(argument)):
                await ctx.update_agent_status(StatusEvent(f"{number} {'x' * 10_000}", "flood"))
            ctx.send_message("Done")
        case "work":
            await work(ctx)
        case _:
            await steered(ctx)


async def work(ctx: ThreadContext) -> None:
    """Do all that an agent can do."""
    ctx.reasoning("They ")
    ctx.reasoning("ask.")
    async with ctx.tool("search", {"q": "quokka"}, id="call_1") as call:
        call.result = {"found": 1}
    with suppress(LookupError):
        async with ctx.tool("broken", id="call_2"):
            raise LookupError("no index")
    ctx.source(url="https://example.org/q", title="Quokkas")
    ctx.source(title="The handbook")
    ctx.usage(model="m", input_tokens=812, output_tokens=44, cached_tokens=800)
    ctx.usage(model="m", input_tokens=8, output_tokens=6)
    ctx.send_message("Quokkas are happy.")


async def greet(ctx: ThreadContext) -> None:
    """Begin a conversation, and tell of it."""
    await ctx.update_agent_status("Greeting")
    if ctx.thread_config.get("greet") == "raise":
        raise RuntimeError("no greeting")
    ctx.send_message("Welcome")


app = JimsApp(watched, conversation_start_pipeline=greet)
api = create_api(app, store="memory:")
