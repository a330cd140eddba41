"""`ctx.ask` in a tool of a framework ends the run with the question, as docs/agents.md says."""

from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from pydantic_ai import Agent, RunContext
from pydantic_ai.models.test import TestModel

from jimsapi import ThreadContext, create_api
from jimsapi.asgi.testing import TestClient

CHAT = "/api/v1/chat"
QUESTION = "Refund 20 EUR?"


async def with_pydantic_ai(ctx: ThreadContext) -> None:
    agent = Agent(TestModel(), deps_type=ThreadContext)

    @agent.tool
    async def refund(run: RunContext[ThreadContext]) -> str:
        async with run.deps.tool("refund") as call:
            call.result = await run.deps.ask("refund", QUESTION, options=["yes", "no"])
        return str(call.result)

    result = await agent.run("refund", deps=ctx)
    ctx.send_message(result.output)


async def with_langgraph(ctx: ThreadContext) -> None:
    @tool
    async def refund() -> str:
        """Pay back."""
        async with ctx.tool("refund") as call:
            call.result = await ctx.ask("refund", QUESTION, options=["yes", "no"])
        return str(call.result)

    graph = StateGraph(MessagesState)
    graph.add_node("tools", ToolNode([refund]))
    graph.add_edge(START, "tools")
    call = {"name": "refund", "args": {}, "id": "call_1", "type": "tool_call"}
    state: Any = await graph.compile().ainvoke({"messages": [AIMessage("", tool_calls=[call])]})
    ctx.send_message(state["messages"][-1].text)


@pytest.mark.anyio
@pytest.mark.parametrize("pipeline", [with_pydantic_ai, with_langgraph])
async def test_a_tool_asks_and_gets_the_answer(pipeline: Any) -> None:
    async with TestClient(create_api(pipeline, store="memory:")) as client:
        asked = (await client.post(CHAT, json={"contact_id": "ann", "message": "my money back"})).json()
        [question] = asked["questions"]
        assert question["text"] == QUESTION
        assert [event["event_type"] for event in asked["events"]] == ["question.asked"]
        answers = {question["question_id"]: "yes"}
        answered = (await client.post(CHAT, json={"contact_id": "ann", "answers": answers})).json()
    assert [event["event_type"] for event in answered["events"]] == ["tool.call", "comm.assistant_message"]
    assert "yes" in answered["assistant_messages"][0]
