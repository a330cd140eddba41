"""OpenAI's Agents SDK against a real server: its sessions, its streams, and approvals."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from agents import (
    Agent,
    HostedMCPTool,
    MCPToolApprovalFunctionResult,
    OpenAIConversationsSession,
    OpenAIResponsesModel,
    Runner,
    set_tracing_disabled,
)
from openai import AsyncOpenAI

from tests.serving import Served

pytestmark = pytest.mark.anyio

WORK = "think They ask; tool search; source https://example.org/q; use 7; send Hello"


@pytest.fixture(scope="module", autouse=True)
def no_tracing() -> None:
    """The SDK sends no traces to OpenAI."""
    set_tracing_disabled(True)


@pytest.fixture
async def client(served: Served, key: str) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{served.url}/v1", api_key=key, timeout=30) as client:
        yield client


def agent_of(client: AsyncOpenAI, **options: Any) -> Any:
    return Agent(name="support", model=OpenAIResponsesModel(model="scripted", openai_client=client), **options)


async def test_an_agent_gets_the_answer_and_what_the_server_did(client: AsyncOpenAI) -> None:
    result = await Runner.run(agent_of(client, instructions="Be kind."), WORK)
    assert result.final_output == "Hello"
    assert [item.type for item in result.new_items] == ["reasoning_item", "tool_call_item", "message_output_item"]
    assert result.context_wrapper.usage.input_tokens == 7


async def test_an_agent_streams(client: AsyncOpenAI) -> None:
    result = Runner.run_streamed(agent_of(client), "stream Hel; stream lo; tool search")
    deltas = [
        event.data.delta
        async for event in result.stream_events()
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta"
    ]
    assert (deltas, result.final_output) == (["Hel", "lo"], "Hello")


async def test_a_conversation_session_remembers_three_turns(client: AsyncOpenAI) -> None:
    session: Any = OpenAIConversationsSession(openai_client=client)
    agent = agent_of(client)
    await Runner.run(agent, "one", session=session)
    await Runner.run(agent, WORK, session=session)
    result = await Runner.run(agent, "see", session=session)
    assert result.final_output == f'["one", "{WORK}", "see"]'
    kinds = [item.get("type", item.get("role")) for item in await session.get_items()]
    assert kinds == ["message"] * 3 + ["reasoning", "mcp_call"] + ["message"] * 3
    assert [item["content"][0]["text"] for item in await session.get_items(2)] == ["see", result.final_output]
    await session.clear_session()


async def test_an_agent_continues_a_conversation_or_a_response(client: AsyncOpenAI) -> None:
    agent = agent_of(client)
    conversation = await client.conversations.create()
    await Runner.run(agent, "one", conversation_id=conversation.id)
    result = await Runner.run(agent, "see", conversation_id=conversation.id)
    assert result.final_output == '["one", "see"]'
    again = await Runner.run(agent, "see", previous_response_id=result.last_response_id)
    assert again.final_output == '["one", "see", "see"]'


async def test_the_history_that_an_agent_sends_is_what_the_pipeline_sees(client: AsyncOpenAI) -> None:
    agent = agent_of(client)
    first = await Runner.run(agent, "one")
    history: Any = [*first.to_input_list(), {"role": "user", "content": "see"}]
    assert (await Runner.run(agent, history)).final_output == '["one", "see"]'


@pytest.fixture
def asking(key: str, tmp_path: Path) -> Iterator[Served]:
    options = ("--app", "tests.apps.asking:app", "--api-key", key)
    with Served(*options, env={"PAID": str(tmp_path / "paid")}) as server:
        yield server


@pytest.mark.parametrize(("approve", "output"), [(True, "R-20: very"), (False, "not paid")])
async def test_an_agent_s_person_answers_questions(asking: Served, key: str, approve: bool, output: str) -> None:
    asked: list[str] = []

    def decide(request: Any) -> MCPToolApprovalFunctionResult:
        asked.append(request.data.name)
        if request.data.name == "happy":
            return {"approve": False, "reason": "very"}  # the SDK sends a reason only with a refusal
        return {"approve": approve}

    config: Any = {"type": "mcp", "server_label": "jimsapi", "server_url": "https://none.example"}
    tool = HostedMCPTool(tool_config=config, on_approval_request=decide)
    async with AsyncOpenAI(base_url=f"{asking.url}/v1", api_key=key, timeout=30) as client:
        result = await Runner.run(agent_of(client, tools=[tool]), "20")
    assert result.final_output == output
    assert asked == (["pay", "happy"] if approve else ["pay"])
