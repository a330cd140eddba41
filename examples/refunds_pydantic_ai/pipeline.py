"""The pipeline: it runs the agent on the thread's messages, streams what it says, and asks what needs an approval."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from pydantic_ai import (
    AgentRunResultEvent,
    DeferredToolRequests,
    DeferredToolResults,
    ModelResponse,
    PartDeltaEvent,
    PartEndEvent,
    PartStartEvent,
    ToolApproved,
    ToolDenied,
)
from pydantic_ai.messages import TextPart, TextPartDelta, ThinkingPart, ThinkingPartDelta, ToolCallPart

from examples.refunds.orders import ORDERS
from examples.refunds.tools import REFUSED, refund_question
from jimsapi import ThreadContext

from .agent import RefundAgent, make_agent
from .history import history


@asynccontextmanager
async def open_agent() -> AsyncIterator[RefundAgent]:
    """Open the agent, with what its tools and its model keep open. It is `ctx.resources`."""
    async with make_agent() as agent:
        yield agent


async def answer(ctx: ThreadContext) -> None:
    """Answer the newest message."""
    messages = history(ctx.events)
    waiting = waiting_calls(ctx)
    results = None
    if waiting:
        # The run that asked ended here. The model has said this already, so it is not called again for it.
        messages.append(ModelResponse(waiting))
        results = DeferredToolResults(approvals=await approvals(ctx, waiting))
    agent: RefundAgent = ctx.resources
    async with agent.run_stream_events(message_history=messages, deferred_tool_results=results, deps=ctx) as events:
        async for event in events:
            await show(ctx, event)
            if isinstance(event, AgentRunResultEvent) and isinstance(event.result.output, DeferredToolRequests):
                calls = event.result.output.approvals
                ctx.set_state("waiting", {"calls": [describe(call) for call in calls]})
                await approvals(ctx, calls)  # ends the run with the first question


async def show(ctx: ThreadContext, event: Any) -> None:
    """Stream what the model says and thinks."""
    if isinstance(event, PartStartEvent) and isinstance(event.part, TextPart):
        if event.part.content:  # some models begin with nothing
            await ctx.stream(event.part.content)
    elif isinstance(event, PartDeltaEvent) and isinstance(event.delta, TextPartDelta):
        await ctx.stream(event.delta.content_delta)
    elif isinstance(event, PartEndEvent) and isinstance(event.part, TextPart) and event.part.content:
        # This ends the message. Otherwise the text after a tool call would be a part of it.
        ctx.send_message(event.part.content)
    elif isinstance(event, PartStartEvent) and isinstance(event.part, ThinkingPart):
        ctx.reasoning(event.part.content)
    elif isinstance(event, PartDeltaEvent) and isinstance(event.delta, ThinkingPartDelta):
        ctx.reasoning(event.delta.content_delta or "")


async def approvals(ctx: ThreadContext, calls: Sequence[ToolCallPart]) -> dict[str, bool | ToolApproved | ToolDenied]:
    """Ask about each call, and return the answers by the identifier of the call."""
    answers: dict[str, str] = {}
    for call in calls:
        question = refund_question(ORDERS.find(call.args_as_dict()["number"]))
        answers[call.tool_call_id] = await ctx.ask(f"approve {call.tool_call_id}", question, options=["yes", "no"])
    # Nothing is recorded before the last answer: until then each answer begins this function again.
    return {call.tool_call_id: answers[call.tool_call_id] == "yes" or await refused(ctx, call) for call in calls}


async def refused(ctx: ThreadContext, call: ToolCallPart) -> ToolDenied:
    """Record that a call was refused, so that later turns know it, and return what the model reads."""
    async with ctx.tool(call.tool_name, call.args_as_dict(), id=call.tool_call_id) as tool:
        tool.result = {"refused": REFUSED}
    return ToolDenied(REFUSED)


def waiting_calls(ctx: ThreadContext) -> list[ToolCallPart]:
    """Return the calls that wait for the answer which began this run; none if a message began it."""
    if not ctx.answered:
        return []
    calls = ctx.get_state("waiting")["calls"]
    return [ToolCallPart(call["name"], call["arguments"], tool_call_id=call["id"]) for call in calls]


def describe(call: ToolCallPart) -> dict[str, Any]:
    """Return what the thread keeps of a call that waits."""
    return {"id": call.tool_call_id, "name": call.tool_name, "arguments": call.args_as_dict()}
