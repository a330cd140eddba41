"""The pipeline: it runs the graph on the thread's messages, streams what it says, and asks what it interrupts for."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, AnyMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, Interrupt

from jimsapi import ThreadContext

from .graph import Caller, RefundGraph, make_graph, make_model
from .messages import messages


@asynccontextmanager
async def open_graph() -> AsyncIterator[RefundGraph]:
    """Make the graph once. It is `ctx.resources`."""
    yield make_graph(make_model())


async def answer(ctx: ThreadContext) -> None:
    """Answer the newest message."""
    # The checkpoints live as long as the run. What outlives it is in the thread: messages, calls, and what waits.
    builder: RefundGraph = ctx.resources
    graph = builder.compile(checkpointer=InMemorySaver())
    config: RunnableConfig = {"configurable": {"thread_id": str(ctx.run_id)}}
    given: Any = {"messages": [*messages(ctx.events), *waiting(ctx)]}
    while given is not None:
        interrupts: list[Interrupt] = []
        items: AsyncIterator[Any] = graph.astream(
            given, config, context=Caller(ctx), stream_mode=["messages", "updates"]
        )
        async for mode, data in items:
            if mode == "messages":
                await stream(ctx, data[0])
            elif "__interrupt__" in data:
                interrupts += data["__interrupt__"]
            else:
                finish(ctx, data.get("model"))
        given = None
        if interrupts:
            state = await graph.aget_state(config)
            [*_, newest] = [message for message in state.values["messages"] if isinstance(message, AIMessage)]
            ctx.set_state("waiting", {"calls": newest.tool_calls})
            given = Command(resume={one.id: await ctx.ask(**one.value) for one in interrupts})


async def stream(ctx: ThreadContext, message: AnyMessage) -> None:
    """Stream a piece of what the model says."""
    if isinstance(message, AIMessageChunk) and message.text:
        await ctx.stream(message.text)


def finish(ctx: ThreadContext, update: dict[str, Any] | None) -> None:
    """End the message of the model's node, and record its usage; None is an update of another node."""
    for message in update["messages"] if update else ():
        if message.text:
            # This ends the message. Otherwise the text after a tool call would be a part of it.
            ctx.send_message(message.text)
        if used := message.usage_metadata:
            ctx.usage(
                model=message.response_metadata.get("model_name", "scripted"),
                input_tokens=used["input_tokens"],
                output_tokens=used["output_tokens"],
                cached_tokens=used.get("input_token_details", {}).get("cache_read", 0),
            )


def waiting(ctx: ThreadContext) -> list[AnyMessage]:
    """Return the model's message with the calls that wait for the answer which began this run; none without one.

    The run that asked has stored them with its question, so the model is not called again for what it has said. The
    calls that had ended before the question are events of the thread already.
    """
    if not ctx.answered:
        return []
    ended = {event.event_data["id"] for event in ctx.events if event.event_type == "tool.call"}
    calls = [call for call in ctx.get_state("waiting")["calls"] if call["id"] not in ended]
    return [AIMessage("", tool_calls=calls)]
