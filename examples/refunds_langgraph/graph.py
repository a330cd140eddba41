"""The graph: a node for the model, and a node for its tools, which interrupts for an approval."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, SystemMessage, ToolCall, ToolMessage
from langchain_core.tools import BaseTool, tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, ToolRuntime
from langgraph.prebuilt.tool_node import ToolCallRequest
from langgraph.types import Command, Send, interrupt

from examples.refunds.model import api_key, is_configured, model_name
from examples.refunds.orders import ORDERS, OrderNotFound
from examples.refunds.tools import ASKING, INSTRUCTIONS, REFUSED, refund_question
from jimsapi import ThreadContext


@dataclass(frozen=True)
class Caller:
    """The context of the graph, in LangGraph's words: what its nodes and tools have beside the state."""

    ctx: ThreadContext


RefundGraph = StateGraph[MessagesState, Caller]


@tool
async def find_order(number: int) -> dict[str, Any]:
    """Find an order: its item, its price in euros, and whether it was refunded."""
    return ORDERS.find(number)


@tool
async def refund(number: int, runtime: ToolRuntime[Caller, MessagesState]) -> dict[str, Any]:
    """Pay the price of an order back. The customer is asked first."""
    ctx, key = runtime.context.ctx, f"refund {runtime.tool_call_id}"
    receipt: dict[str, Any] = await ctx.once(key, ORDERS.refund, number, f"{ctx.turn_id}:{key}")
    return receipt


TOOLS: list[BaseTool] = [find_order, refund]


async def record(
    request: ToolCallRequest, execute: Callable[[ToolCallRequest], Awaitable[ToolMessage | Command[Any]]]
) -> ToolMessage | Command[Any]:
    """Call a tool and record it."""
    runtime: ToolRuntime[Any, Any] = request.runtime
    ctx: ThreadContext = runtime.context.ctx
    call = request.tool_call
    # The interrupt comes before the block: it is an exception, and a call that waits is not a call that has failed.
    asked = question(call)
    refused = asked is not None and interrupt(asked) != "yes"
    async with ctx.tool(call["name"], call["args"], id=call["id"]) as recorded:
        if refused:
            recorded.result = {"refused": REFUSED}
            return ToolMessage(json.dumps(recorded.result), tool_call_id=call["id"], name=call["name"])
        message = await execute(request)
        assert isinstance(message, ToolMessage)  # no tool here returns a `Command`
        data = json.loads(message.text)
        recorded.result, recorded.error = data, data.get("error")
        return message


def question(call: ToolCall) -> dict[str, Any] | None:
    """Return the value of the interrupt for a call: the arguments of `ctx.ask`. None if it needs no approval."""
    number = call["args"].get("number")
    if call["name"] not in ASKING or number not in ORDERS.items:
        return None
    return {"key": f"approve {call['id']}", "text": refund_question(ORDERS.find(number)), "options": ["yes", "no"]}


def explain(error: OrderNotFound) -> str:
    """Return what the model reads if a tool fails in this way. Other errors end the run."""
    return json.dumps({"error": str(error)})


def make_graph(model: BaseChatModel) -> RefundGraph:
    """Return the graph. It begins with the tools if the last message has calls that wait."""
    bound = model.bind_tools(TOOLS)

    async def reply(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await bound.ainvoke([SystemMessage(INSTRUCTIONS), *state["messages"]])]}

    graph = RefundGraph(MessagesState, context_schema=Caller)
    graph.add_node("model", reply)
    graph.add_node("tools", ToolNode(TOOLS, handle_tool_errors=explain, awrap_tool_call=record))
    graph.add_conditional_edges(START, lambda state: calls(state) or "model")
    graph.add_conditional_edges("model", lambda state: calls(state) or END)
    graph.add_edge("tools", "model")
    return graph


def calls(state: MessagesState) -> list[Send]:
    """Return a task for each call of the newest message. In one task, an interrupt would leave the others half done."""
    newest = state["messages"][-1]
    return [Send("tools", [call]) for call in newest.tool_calls] if isinstance(newest, AIMessage) else []


def make_model() -> BaseChatModel:
    """Return the model of `OPENAI_BASE_URL`, `OPENAI_API_KEY` and `OPENAI_MODEL`, else one that follows a script."""
    if not is_configured():
        from .scripted import ScriptedChatModel

        return ScriptedChatModel()
    from langchain_openai import ChatOpenAI
    from pydantic import SecretStr

    return ChatOpenAI(model=model_name(), api_key=SecretStr(api_key()), stream_usage=True)
