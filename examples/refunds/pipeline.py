"""The loop of the agent: the model replies, the agent calls its tools, and the model reads what they return."""

from dataclasses import asdict

from jimsapi import ThreadContext

from .conversation import call_messages, conversation
from .model import Call, Message, Usage
from .tools import ASKING, use_tool

MOST_REPLIES = 10
"""How many replies of the model an answer may take, so that no model calls tools for ever."""


async def answer(ctx: ThreadContext) -> None:
    """Answer the newest message."""
    messages = conversation(ctx.events)
    calls = waiting_calls(ctx)
    for _ in range(MOST_REPLIES):
        for call in calls:
            result = await use_tool(ctx, call)
            messages += call_messages(call.id, call.name, call.arguments, result)
        calls = await reply(ctx, messages)
        if not calls:
            return
        if any(call.name in ASKING for call in calls):
            ctx.set_state("waiting", {"calls": [asdict(call) for call in calls]})
    ctx.send_message("I have not found an answer. Please ask the shop: help@shop.example.")


async def reply(ctx: ThreadContext, messages: list[Message]) -> list[Call]:
    """Stream the model's next reply. Returns the tool calls that it wants; none if the answer is complete."""
    text, calls = "", []
    async for part in ctx.resources.reply(messages):
        if isinstance(part, str):
            text += part
            await ctx.stream(part)
        elif isinstance(part, Usage):
            ctx.usage(**asdict(part))
        else:
            calls.append(part)
    if text:
        # This ends the message. Otherwise the text after a tool call would be a part of it.
        ctx.send_message(text)
        messages.append({"role": "assistant", "content": text})
    return calls


def waiting_calls(ctx: ThreadContext) -> list[Call]:
    """Return the calls that wait for the answer which began this run; none if a message began it.

    The run that asked has stored them with its question, so the model is not called again for what it has said. The
    calls that had ended before the question are events of the thread already.
    """
    if not ctx.answered:
        return []
    ended = {event.event_data["id"] for event in ctx.events if event.event_type == "tool.call"}
    waiting = [Call(**call) for call in ctx.get_state("waiting")["calls"]]
    return [call for call in waiting if call.id not in ended]
