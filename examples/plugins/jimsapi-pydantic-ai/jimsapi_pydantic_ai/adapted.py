"""The pipeline that answers with an agent."""

from typing import Any

from jimsapi import JimsApp, ThreadContext
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart, UserPromptPart


def adapt(agent: Agent[None, str]) -> JimsApp:
    """Return an app whose pipeline streams the agent's answers. Entering the agent opens what its tools need."""

    async def answer(ctx: ThreadContext) -> None:
        *earlier, newest = ctx.context()
        async with agent.run_stream(str(newest.get("content", "")), message_history=messages(earlier)) as run:
            async for piece in run.stream_text(delta=True):
                await ctx.stream(piece)

    return JimsApp(answer, name=agent.name or "pydantic-ai", lifespan=lambda: agent)


def messages(events: list[dict[str, Any]]) -> list[ModelMessage]:
    """Return the messages of a thread as PydanticAI's, oldest first."""
    found: list[ModelMessage] = []
    for event in events:
        role, content = event.get("role"), event.get("content")
        if not isinstance(content, str):
            continue
        if role == "user":
            found.append(ModelRequest(parts=[UserPromptPart(content)]))
        elif role == "assistant":
            found.append(ModelResponse(parts=[TextPart(content)]))
    return found
