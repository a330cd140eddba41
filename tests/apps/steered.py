"""A bot that does what its message says, so that a test can hold, break and release runs over HTTP.

A message is a command and its argument: `hold x` waits until another conversation says `open x`; `reached x` is
answered once `hold x` has begun.
"""

import asyncio
import json
from collections import defaultdict

from jimsapi import Event, JimsApp, StatusEvent, ThreadContext

opened: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
reached: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)


def said(ctx: ThreadContext) -> str:
    """What the person said in the thread so far, and how often it was answered, as JSON."""
    asked = [message["content"] for message in ctx.history if message["role"] == "user"]
    return json.dumps({"asked": asked, "answered": len(ctx.history) - len(asked)})


async def steered(ctx: ThreadContext) -> None:
    """Do what the message says."""
    message: str = ctx.get_last_user_message() or ""
    command, _, argument = message.partition(" ")
    match command:
        case "see":
            ctx.send_message(said(ctx))
        case "open":
            opened[argument].set()
        case "reached":
            await reached[argument].wait()
        case "hold":
            reached[argument].set()
            await opened[argument].wait()
            ctx.send_message(said(ctx))
        case "raise":
            ctx.send_message("never stored")
            raise RuntimeError(argument)
        case "exit":
            raise SystemExit(argument)
        case "stubborn":
            while True:
                try:
                    await opened["never"].wait()
                except asyncio.CancelledError:
                    ctx.thread_config.clear()
        case "unstorable":
            ctx.send_message("never stored")
            ctx.send_event("rag.odd", {"what": object()})
        case "list":
            ctx.outgoing_events.append(Event(event_type="rag.list", event_data=[1, 2]))
        case "config":
            ctx.send_event("rag.config", ctx.thread_config)
        case "event":
            ctx.send_event(argument, {"seen": True})
        case "action":
            ctx.send_message(json.dumps(ctx.get_last_user_action()))
        case "count":
            number = (ctx.get_state("count") or {"n": 0})["n"] + 1
            ctx.set_state("count", {"n": number})
            ctx.send_message(str(number))
        case "stream":
            await ctx.update_agent_status(StatusEvent("Speaking", "speaking"))
            for word in argument.split():
                await ctx.stream(word)
        case "buttons":
            ctx.send_message_with_buttons("Choose", [{"text": "Yes"}])
        case _:
            ctx.send_message(f"You said: {message}")


async def greet(ctx: ThreadContext) -> None:
    """Begin a conversation as the thread's configuration says."""
    how = ctx.thread_config.get("greet")
    if how == "raise":
        ctx.send_message("never stored")
        raise RuntimeError("no greeting")
    if how == "hang":
        await opened["never"].wait()
    ctx.send_message("Welcome")


app = JimsApp(steered, conversation_start_pipeline=greet)
