"""Answers that are regenerated and messages that are edited: the chat goes on in a fork of its thread."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from jimsapi import ThreadContext, create_api
from jimsapi.asgi.testing import TestClient

pytestmark = pytest.mark.anyio

CHAT = "/ai-sdk/chat"


async def tell(ctx: ThreadContext) -> None:
    """Answer with all earlier messages of the user."""
    ctx.send_message(" ".join(str(said["content"]) for said in ctx.history if said["role"] == "user"))


@pytest.fixture
def settings() -> dict[str, Any]:
    return {}


@pytest.fixture
async def client(settings: dict[str, Any]) -> AsyncIterator[TestClient]:
    async with TestClient(create_api(tell, store="memory:", vercel_contact_header="x-person", **settings)) as client:
        client.headers["x-person"] = "ann"
        yield client


def message(role: str, text: str, message_id: str) -> dict[str, Any]:
    return {"id": message_id, "role": role, "parts": [{"type": "text", "text": text}]}


def conversation(*texts: str) -> list[dict[str, Any]]:
    """Messages of the user and the assistant in turn, with identifiers of the client's own."""
    return [message(("user", "assistant")[n % 2], text, f"m-{n}") for n, text in enumerate(texts)]


async def post(client: TestClient, messages: list[dict[str, Any]], **fields: Any) -> str:
    body = {"id": "c-1", "messages": messages, "trigger": "submit-message", **fields}
    answer = await client.post(CHAT, json=body)
    assert answer.status_code == 200, answer.text
    return answer.text


async def shown(client: TestClient) -> list[tuple[str, str]]:
    """What the chat has after a reload."""
    messages = (await client.get(f"{CHAT}/c-1/messages")).json()
    return [(one["role"], one["parts"][-1]["text"]) for one in messages]


async def say_three(client: TestClient) -> None:
    said: list[str] = []
    for text in ("one", "two", "three"):
        await post(client, conversation(*said, text))
        said += [text, "(answer)"]


async def threads(client: TestClient) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await client.get("/api/v1/threads", params={"contact_id": "ann"})).json()["threads"]
    return found


@pytest.mark.parametrize("message_id", [None, "m-4", "m-5"])
async def test_a_regenerated_answer_replaces_the_last_one(client: TestClient, message_id: str | None) -> None:
    await say_three(client)
    cut = conversation("one", "(answer)", "two", "(answer)", "three")
    assert "one two three" in await post(client, cut, trigger="regenerate-message", messageId=message_id)
    assert [text for role, text in await shown(client) if role == "user"] == ["one", "two", "three"]
    assert len(await shown(client)) == 6
    fork, parent = await threads(client)
    assert fork["parent"]["thread_id"] == parent["thread_id"]


async def test_an_earlier_answer_is_regenerated_without_what_followed(client: TestClient) -> None:
    await say_three(client)
    cut = conversation("one", "(answer)", "two")
    assert "one two" in await post(client, cut, trigger="regenerate-message", messageId="m-3")
    assert [text for role, text in await shown(client) if role == "user"] == ["one", "two"]
    await post(client, conversation("one", "(answer)", "two", "(answer)", "four"))
    assert [text for role, text in await shown(client) if role == "user"] == ["one", "two", "four"]
    assert len(await threads(client)) == 2


async def test_an_edited_message_replaces_the_old_one_and_what_followed(client: TestClient) -> None:
    await say_three(client)
    assert "one TWO" in await post(client, conversation("one", "(answer)", "TWO"), messageId="m-2")
    assert [text for role, text in await shown(client) if role == "user"] == ["one", "TWO"]


async def test_after_a_reload_messages_are_known_by_the_server_s_identifiers(client: TestClient) -> None:
    await say_three(client)
    loaded = (await client.get(f"{CHAT}/c-1/messages")).json()
    edited = message("user", "ONE", loaded[0]["id"])
    assert "ONE" in await post(client, [edited], messageId=edited["id"])
    assert [text for role, text in await shown(client) if role == "user"] == ["ONE"]


async def test_a_client_that_sends_its_newest_message_only_regenerates_the_last_answer(client: TestClient) -> None:
    await say_three(client)
    await post(client, [message("user", "three", "m-4")], trigger="regenerate-message")
    assert [text for role, text in await shown(client) if role == "user"] == ["one", "two", "three"]


async def test_a_message_that_the_thread_does_not_have_is_a_new_one(client: TestClient) -> None:
    await post(client, conversation("one"), trigger="regenerate-message")
    assert [text for role, text in await shown(client) if role == "user"] == ["one"]
    await post(client, conversation("one", "(answer)", "two"), messageId="m-2")
    assert [text for role, text in await shown(client) if role == "user"] == ["one", "two"]
    assert len(await threads(client)) == 1


async def test_metadata_of_a_replaced_message_does_not_stay(client: TestClient) -> None:
    said = {**message("user", "one", "m-0"), "metadata": {"mood": "calm"}}
    await post(client, [said])
    await post(client, [message("user", "ONE", "m-0")], messageId="m-0")
    fork, _ = await threads(client)
    events = (await client.get(f"/api/v1/threads/{fork['thread_id']}/events")).json()["events"]
    assert "message.metadata" not in [event["event_type"] for event in events]


async def test_another_contact_with_the_same_chat_forks_nothing_of_it(client: TestClient) -> None:
    await say_three(client)
    client.headers["x-person"] = "bob"
    await post(client, conversation("one", "(answer)", "TWO"), messageId="m-2")
    assert [text for role, text in await shown(client) if role == "user"] == ["TWO"]
    assert len(await threads(client)) == 1


@pytest.mark.parametrize("settings", [{"rate_limit": "3/day"}])
async def test_an_edit_that_a_limit_refuses_leaves_the_conversation_as_it_was(client: TestClient) -> None:
    await say_three(client)
    edit = {"id": "c-1", "messages": conversation("one", "(answer)", "TWO"), "messageId": "m-2"}
    assert (await client.post(CHAT, json=edit)).status_code == 429
    assert [text for role, text in await shown(client) if role == "user"] == ["one", "two", "three"]
    assert len(await threads(client)) == 1


async def test_an_edit_with_a_file_that_does_not_exist_leaves_the_conversation_as_it_was(client: TestClient) -> None:
    await say_three(client)
    edited = message("user", "TWO", "m-2")
    edited["parts"].append({"type": "file", "mediaType": "text/plain", "url": f"/api/v1/files/{'0' * 32}"})
    edit = {"id": "c-1", "messages": [*conversation("one", "(answer)"), edited], "messageId": "m-2"}
    assert (await client.post(CHAT, json=edit)).status_code in (404, 422)
    assert [text for role, text in await shown(client) if role == "user"] == ["one", "two", "three"]


async def test_an_edit_that_is_sent_twice_at_once_forks_once(client: TestClient) -> None:
    await say_three(client)
    edit = {"id": "c-1", "messages": conversation("one", "(answer)", "TWO"), "messageId": "m-2"}
    headers = {"idempotency-key": "k-1"}
    answers = await asyncio.gather(*(client.post(CHAT, json=edit, headers=headers) for _ in range(2)))
    assert [answer.status_code for answer in answers] == [200, 200]
    assert (await client.post(CHAT, json=edit, headers=headers)).status_code == 200
    assert [text for role, text in await shown(client) if role == "user"] == ["one", "TWO"]
    assert len(await threads(client)) == 2
