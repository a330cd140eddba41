"""Earlier messages in each protocol's own form, for a page that was loaded again."""

import json
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from jimsapi import JimsApp, ThreadContext, create_api
from jimsapi.asgi.testing import TestClient
from jimsapi.threads import EventRow, uuid7
from jimsapi.wire import Answered
from jimsapi.wire.history import said

pytestmark = pytest.mark.anyio

URL = "data:image/png;base64,aGk="


async def agent(ctx: ThreadContext) -> None:
    text = str(ctx.get_last_user_message())
    if text == "refund":
        sure = await ctx.ask("refund", "Refund?", options=["yes", "no"])
        ctx.send_message(f"You said {sure}")
        return
    ctx.reasoning("Hmm. ")
    async with ctx.tool("search", {"q": text}) as call:
        call.result = {"found": 1}
    ctx.source(url="https://animals.example/", title="Animals")
    ctx.usage(model="m", input_tokens=3, output_tokens=2)
    ctx.set_state("secret", {"x": 1})
    ctx.send_message(f"One about {text}")
    ctx.send_message("Two")


app = JimsApp(agent, private_events=("state.*",))


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[TestClient]:
    async with TestClient(create_api(app, store="memory:", files_store=f"file://{tmp_path}/files")) as client:
        yield client


async def vercel(client: TestClient, *parts: Any, **headers: str) -> None:
    messages = [{"id": "1", "role": "user", "parts": parts}]
    answer = await client.post("/ai-sdk/chat", json={"id": "c", "messages": messages}, headers=headers)
    assert answer.status_code == 200, answer.text


async def ag_ui(client: TestClient, *messages: Any, **headers: str) -> list[Any]:
    body = {"threadId": "t", "runId": "r", "messages": messages, "tools": [], "context": [], "state": {}}
    answer = await client.post("/ag-ui", json={**body, "forwardedProps": {}}, headers=headers)
    assert answer.status_code == 200, answer.text
    return [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]


async def deep_chat(client: TestClient, text: str) -> None:
    body = {"messages": [{"role": "user", "text": text}], "chat_id": "d", "contact_id": "ann"}
    assert (await client.post("/deep-chat", json=body)).status_code == 200


def without_ids(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_ids(one) for key, one in value.items() if key not in ("id", "toolCallId", "sourceId")}
    return [without_ids(one) for one in value] if isinstance(value, list) else value


async def test_use_chat_gets_its_messages(client: TestClient) -> None:
    file = {"type": "file", "mediaType": "image/png", "filename": "cat.png", "url": URL}
    await vercel(client, {"type": "text", "text": "cats"}, file)
    await vercel(client, {"type": "text", "text": "refund"})
    await vercel(client, {"type": "text", "text": "yes"})
    shown = (await client.get("/ai-sdk/chat/c/messages")).json()
    assert [message["role"] for message in shown] == ["user", "assistant"] * 3
    [sent_file, sent_text] = shown[0]["parts"]
    assert (sent_file["filename"], sent_text["text"]) == ("cat.png", "cats")
    assert (await client.get(sent_file["url"])).content == b"hi"
    assert without_ids(shown[1]["parts"]) == [
        {"type": "reasoning", "text": "Hmm. ", "state": "done"},
        {
            "type": "dynamic-tool",
            "toolName": "search",
            "providerExecuted": True,
            "input": {"q": "cats"},
            "state": "output-available",
            "output": {"found": 1},
        },
        {"type": "source-url", "url": "https://animals.example/", "title": "Animals"},
        {"type": "text", "text": "One about cats", "state": "done"},
        {"type": "text", "text": "Two", "state": "done"},
    ]
    assert shown[1]["metadata"]["usage"]["totalTokens"] == 5
    assert [part["type"] for part in shown[3]["parts"]] == ["text", "data-question"]
    assert [part["text"] for message in shown[4:] for part in message["parts"]] == ["yes", "You said yes"]


async def test_an_ag_ui_client_gets_a_snapshot(client: TestClient) -> None:
    await ag_ui(client, {"id": "1", "role": "user", "content": "cats"})
    asked = await ag_ui(client, {"id": "2", "role": "user", "content": "refund"})
    started, snapshot, finished = await ag_ui(client)
    assert started["type"] == "RUN_STARTED"
    assert snapshot["type"] == "MESSAGES_SNAPSHOT"
    roles = ["user", "reasoning", "assistant", "tool", "assistant", "assistant", "user"]
    assert [message["role"] for message in snapshot["messages"]] == roles
    call, result = snapshot["messages"][2:4]
    assert json.loads(call["toolCalls"][0]["function"]["arguments"]) == {"q": "cats"}
    assert result["toolCallId"] == call["toolCalls"][0]["id"]
    assert finished["outcome"] == asked[-1]["outcome"]
    live = {event["messageId"] for event in asked if "messageId" in event}
    assert live <= {message["id"] for message in snapshot["messages"]}

    interrupt = asked[-1]["outcome"]["interrupts"][0]["id"]
    body = {"threadId": "t", "runId": "r", "messages": [], "tools": [], "context": [], "state": {}}
    resume = [{"interruptId": interrupt, "status": "resolved", "payload": "no"}]
    await client.post("/ag-ui", json={**body, "forwardedProps": {}, "resume": resume})
    _, snapshot, finished = await ag_ui(client)
    assert [message["content"] for message in snapshot["messages"][-2:]] == ["no", "You said no"]
    assert finished["outcome"] == {"type": "success"}


async def test_deep_chat_gets_its_history(client: TestClient) -> None:
    await deep_chat(client, "cats")
    await deep_chat(client, "refund")
    await deep_chat(client, "yes")
    shown = (await client.get("/deep-chat/history?chat_id=d&contact_id=ann")).json()
    assert shown == [
        {"role": "user", "text": "cats"},
        {"role": "ai", "text": "One about cats\n\nTwo"},
        {"role": "user", "text": "refund"},
        {"role": "ai", "text": "Refund?\n- yes\n- no"},
        {"role": "user", "text": "yes"},
        {"role": "ai", "text": "You said yes"},
    ]
    assert (await client.get("/deep-chat/history?contact_id=ann")).json() == shown  # the newest thread


async def test_what_other_programs_stored_is_shown_as_far_as_json_can(client: TestClient) -> None:
    """jims-core stores NaN, and a pipeline may send events of any type."""

    async def odd(ctx: ThreadContext) -> None:
        ctx.send_event("own.note", {"x": 1})
        ctx.send_event("question.answered", {"score": 1})
        ctx.send_message_with_buttons("Choose", [{"text": "A"}])
        ctx.send_message("Then")

    async with TestClient(create_api(odd, store="memory:")) as client:
        await deep_chat(client, "hi")
        shown = (await client.get("/deep-chat/history?chat_id=d&contact_id=ann")).json()
        assert shown[1]["text"] == "Choose\n- A\n\nThen"
    row = EventRow(uuid7(), datetime.now(), "comm.assistant_message", '{"role":"assistant","content":"x","score":NaN}')
    [answered] = said([row])
    assert isinstance(answered, Answered)


async def test_a_message_that_came_with_an_answer_is_shown_once(client: TestClient) -> None:
    await deep_chat(client, "refund")
    threads = (await client.get("/api/v1/threads?contact_id=ann")).json()["threads"]
    events = (await client.get(f"/api/v1/threads/{threads[0]['thread_id']}/events")).json()["events"]
    [question] = [event["event_data"]["question_id"] for event in events if event["event_type"] == "question.asked"]
    body = {"contact_id": "ann", "message": "sure thing", "answers": {question: "yes"}}
    assert (await client.post("/api/v1/chat", json=body)).status_code == 200
    shown = (await client.get("/deep-chat/history?chat_id=d&contact_id=ann")).json()
    assert [one["text"] for one in shown if one["role"] == "user"] == ["refund", "sure thing"]


async def test_a_conversation_that_has_not_begun_is_empty_and_nothing_is_stored(client: TestClient) -> None:
    assert (await client.get("/ai-sdk/chat/c/messages")).json() == []
    assert (await client.get("/deep-chat/history?chat_id=d&contact_id=ann")).json() == []
    assert (await client.get("/deep-chat/history")).json() == []
    assert (await ag_ui(client))[1]["messages"] == []
    for contact in ("c", "ann", "t"):
        assert (await client.get(f"/api/v1/threads?contact_id={contact}")).json()["threads"] == []


async def test_a_history_has_no_private_events(client: TestClient) -> None:
    await vercel(client, {"type": "text", "text": "cats"})
    await ag_ui(client, {"id": "1", "role": "user", "content": "cats"})
    await deep_chat(client, "cats")
    for path in ("/ai-sdk/chat/c/messages", "/deep-chat/history?chat_id=d&contact_id=ann"):
        assert "secret" not in (await client.get(path)).text
    assert "secret" not in json.dumps(await ag_ui(client))


async def answers(client: TestClient, user: str) -> list[httpx.Response]:
    body = {"threadId": "c", "runId": "r", "messages": [], "tools": [], "context": [], "state": {}}
    headers = {"x-user": user}
    return [
        await client.get("/ai-sdk/chat/c/messages", headers=headers),
        await client.get("/deep-chat/history?chat_id=c", headers=headers),
        await client.get("/deep-chat/history", headers=headers),
        await client.get("/deep-chat/history?chat_id=c&contact_id=ann", headers=headers),
        await client.post("/ag-ui", json={**body, "forwardedProps": {}}, headers=headers),
    ]


async def test_a_history_is_for_its_own_caller(people: None, tmp_path: Path) -> None:
    async with TestClient(create_api(app, store="memory:")) as client:
        headers = {"x-user": "ann"}
        await vercel(client, {"type": "text", "text": "cats"}, **headers)
        message = {"messages": [{"role": "user", "text": "cats"}], "chat_id": "c"}
        await client.post("/deep-chat", json=message, headers=headers)
        body = {"threadId": "c", "runId": "r", "tools": [], "context": [], "state": {}, "forwardedProps": {}}
        asked = {**body, "messages": [{"id": "1", "role": "user", "content": "cats"}]}
        await client.post("/ag-ui", json=asked, headers=headers)
        assert all("One about cats" in answer.text for answer in await answers(client, "ann"))
        for user in ("bea", "root", "talker", "blank", "reader"):
            told = await answers(client, user)
            if user == "root":  # it may read every thread
                told = [*told[:3], told[4]]
            for answer in told:
                assert "One about cats" not in answer.text, (user, answer.text)
        assert {answer.status_code for answer in await answers(client, "talker")} == {403}
