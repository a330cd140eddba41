"""Questions in protocols that have no place for them: the text of an answer has them, and the next message answers."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from jimsapi import ThreadContext, create_api
from jimsapi.asgi.testing import TestClient

pytestmark = pytest.mark.anyio

BUTTON = '<button class="deep-chat-button deep-chat-suggestion-button">'
ASKED = "One moment.\n\nRefund 20 EUR?\n- yes\n- no"


async def refund(ctx: ThreadContext) -> None:
    if not ctx.answered:
        ctx.send_message("One moment.")
    if await ctx.ask("refund", "Refund 20 EUR?", options=["yes", "no"]) == "yes":
        ctx.send_message(f"Refunded: {ctx.get_last_user_message()}")
    else:
        ctx.send_message("No refund.")


@pytest.fixture
async def client() -> AsyncIterator[TestClient]:
    async with TestClient(create_api(refund, store="memory:")) as client:
        yield client


def chunks(answer: httpx.Response) -> list[Any]:
    assert answer.status_code == 200, answer.text
    return [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]


async def completion(client: TestClient, text: str) -> str:
    body = {"model": "m", "user": "ann", "messages": [{"role": "user", "content": text}]}
    answer = await client.post("/v1/chat/completions", json=body)
    return str(answer.json()["choices"][0]["message"]["content"])


async def streamed_completion(client: TestClient, text: str) -> str:
    body = {"model": "m", "user": "ann", "messages": [{"role": "user", "content": text}], "stream": True}
    found = chunks(await client.post("/v1/chat/completions", json=body))
    return "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in found)


async def deep_chat(client: TestClient, text: str) -> str:
    body = {"messages": [{"role": "user", "text": text}], "contact_id": "ann"}
    answer = (await client.post("/deep-chat", json=body)).json()
    options = [part.partition("<")[0] for part in answer.get("html", "").split(BUTTON)[1:]]
    return "\n- ".join([answer["text"], *options])


async def streamed_deep_chat(client: TestClient, text: str) -> str:
    body = {"messages": [{"role": "user", "text": text}], "contact_id": "ann", "stream": True}
    return "".join(chunk["text"] for chunk in chunks(await client.post("/deep-chat", json=body)))


async def vercel(client: TestClient, text: str) -> str:
    messages = [{"id": "1", "role": "user", "parts": [{"type": "text", "text": text}]}]
    found = chunks(await client.post("/ai-sdk/chat", json={"id": "c", "messages": messages}))
    parts: dict[str, str] = {}
    for chunk in found:
        if chunk["type"] == "text-delta":
            parts[chunk["id"]] = parts.get(chunk["id"], "") + chunk["delta"]
    return "\n\n".join(parts.values())


PROTOCOLS = [completion, streamed_completion, deep_chat, streamed_deep_chat, vercel]


@pytest.mark.parametrize("say", PROTOCOLS)
async def test_the_next_message_answers_the_question(client: TestClient, say: Any) -> None:
    assert await say(client, "my shoes") == ASKED
    assert await say(client, "Yes") == "Refunded: my shoes"
    assert await say(client, "my hat") == ASKED
    assert await say(client, "what?") == ASKED
    assert await say(client, "no") == "No refund."


async def test_a_question_of_one_protocol_is_answered_by_another(client: TestClient) -> None:
    await completion(client, "my shoes")
    assert await deep_chat(client, "yes") == "Refunded: my shoes"
    asked = await client.post("/api/v1/chat", json={"contact_id": "ann", "message": "my hat"})
    assert asked.json()["questions"][0]["key"] == "refund"
    assert await completion(client, "yes") == "Refunded: my hat"


async def test_the_ai_sdk_has_the_question_as_data_too(client: TestClient) -> None:
    messages = [{"id": "1", "role": "user", "parts": [{"type": "text", "text": "my shoes"}]}]
    found = chunks(await client.post("/ai-sdk/chat", json={"id": "c", "messages": messages}))
    [question] = [chunk["data"] for chunk in found if chunk["type"] == "data-question"]
    assert (question["key"], question["options"]) == ("refund", ["yes", "no"])
    assert question.keys() == {"question_id", "key", "text", "options", "schema", "expires_at"}


async def test_ag_ui_has_the_question_once(client: TestClient) -> None:
    messages = [{"id": "1", "role": "user", "content": "my shoes"}]
    body = {"threadId": "t", "runId": "r", "messages": messages, "tools": [], "context": [], "state": {}}
    answer = await client.post("/ag-ui", json={**body, "forwardedProps": {}})
    assert answer.text.count("Refund 20 EUR?") == 1
    assert chunks(answer)[-1]["outcome"]["type"] == "interrupt"


async def test_asking_for_another_answer_answers_no_question() -> None:
    async def paint(ctx: ThreadContext) -> None:
        ctx.send_message(f"{await ctx.ask('colour', 'Which colour?')}: {ctx.get_last_user_message()}")

    async with TestClient(create_api(paint, store="memory:")) as client:
        messages = [{"id": "1", "role": "user", "parts": [{"type": "text", "text": "paint my house"}]}]
        body = {"id": "c", "messages": messages}
        for trigger in ("submit-message", "regenerate-message", "regenerate-message"):
            answer = await client.post("/ai-sdk/chat", json={**body, "trigger": trigger})
            assert "Which colour?" in answer.text
        assert await vercel(client, "red") == "red: paint my house"
