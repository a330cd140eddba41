"""The contract of adapters, and that an agent sees the thread."""

from collections.abc import AsyncIterator, Callable

import pytest
from jimsapi.asgi.testing import TestClient
from jimsapi.testing import AppAdapterContract
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.models.test import TestModel


class TestPydanticAi(AppAdapterContract):
    distribution = "jimsapi-pydantic-ai"
    apps = (Agent(TestModel(custom_output_text="Hello Ann!")),)
    message = "hi"
    answers = ("Hello Ann!",)


@pytest.mark.anyio
async def test_the_agent_sees_the_earlier_messages_of_the_thread(jimsapi_client: Callable[..., TestClient]) -> None:
    async def recite(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str]:
        yield " | ".join(str(getattr(part, "content", "")) for message in messages for part in message.parts)

    async with jimsapi_client(Agent(FunctionModel(stream_function=recite))) as client:
        answers = [
            (await client.post("/api/v1/chat", json={"contact_id": "ann", "message": text})).json()
            for text in ("one", "two")
        ]
    assert [answer["assistant_messages"] for answer in answers] == [["one"], ["one | one | two"]]
