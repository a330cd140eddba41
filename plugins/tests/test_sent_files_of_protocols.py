"""Files that a pipeline sends, in each protocol that has a form for them: live, and when a page is loaded again."""

import json
from base64 import b64encode
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from jimsapi import ThreadContext, create_api
from jimsapi.asgi.testing import TestClient
from tests.apps.scripted import Scripted

pytestmark = pytest.mark.anyio

PNG = b"\x89PNG"


async def pipeline(ctx: ThreadContext) -> None:
    chart = await ctx.save_file("chart.png", PNG)
    if ctx.get_last_user_message() == "only":
        ctx.send_message("", files=[chart])
        return
    if ctx.get_last_user_message() == "buttons":
        ctx.send_message_with_buttons("Choose", [{"text": "A"}], files=[chart])
        return
    if ctx.get_last_user_message() == "by hand":
        ctx.send_event("message.files", {"files": "none"})
        return
    await ctx.stream("Here ")
    ctx.send_message("Here it is", files=[chart])
    ctx.send_message("Done")


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[TestClient]:
    async with TestClient(create_api(pipeline, store="memory:", files_store=f"file://{tmp_path}/files")) as client:
        yield client


def lines(text: str) -> list[Any]:
    """The data of the events of a stream."""
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]


async def is_chart(client: TestClient, url: str) -> bool:
    return (await client.get(url)).content == PNG


async def test_use_chat_gets_a_file_part_live_and_in_its_messages(client: TestClient) -> None:
    message = {"id": "1", "role": "user", "parts": [{"type": "text", "text": "go"}]}
    stream = await client.post("/ai-sdk/chat", json={"id": "c", "messages": [message]})
    chunks = lines(stream.text)
    [file] = [chunk for chunk in chunks if chunk["type"] == "file"]
    assert file.keys() == {"type", "url", "mediaType", "providerMetadata"}
    assert (file["mediaType"], await is_chart(client, file["url"])) == ("image/png", True)
    texts = [chunk["type"] for chunk in chunks if chunk["type"].startswith("text-")]
    assert texts == ["text-start", "text-delta", "text-delta", "text-end", "text-start", "text-delta", "text-end"]
    _, answer = (await client.get("/ai-sdk/chat/c/messages")).json()
    assert [part["type"] for part in answer["parts"]] == ["text", "file", "text"]
    assert answer["parts"][1] == {
        "type": "file",
        "mediaType": "image/png",
        "filename": "chart.png",
        "url": file["url"],
    }
    again = {"id": "2", "role": "user", "parts": [{"type": "text", "text": "go"}]}
    body = {"id": "c", "messages": [message, answer, again]}
    assert (await client.post("/ai-sdk/chat", json=body)).status_code == 200


@pytest.mark.usefixtures("people")
async def test_a_caller_of_any_contact_reads_files_at_the_urls_of_a_stream_that_it_resumes(tmp_path: Path) -> None:
    bot, headers = Scripted(), {"x-user": "talker"}
    message = {"id": "1", "role": "user", "parts": [{"type": "text", "text": "hold a; file made"}]}
    async with TestClient(create_api(bot, store="memory:", files_store=f"file://{tmp_path}/files")) as client:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(
                partial(client.post, "/ai-sdk/chat", json={"id": "c", "messages": [message]}, headers=headers)
            )
            await bot.reached["a"].wait()
            async with client.stream("GET", "/ai-sdk/chat/c/stream", headers=headers) as resumed:
                bot.opened["a"].set()
                chunks = lines((await resumed.aread()).decode())
        [file] = [chunk for chunk in chunks if chunk["type"] == "file"]
        assert (await client.get(file["url"], headers=headers)).content == b"made"


@pytest.mark.usefixtures("people")
async def test_a_caller_of_any_contact_reads_files_at_the_urls_of_the_items_of_a_response(tmp_path: Path) -> None:
    headers = {"x-user": "talker"}
    image = {"type": "input_image", "image_url": f"data:image/png;base64,{b64encode(PNG).decode()}"}
    body = {"input": [{"role": "user", "content": [{"type": "input_text", "text": "see"}, image]}]}
    async with TestClient(create_api(pipeline, store="memory:", files_store=f"file://{tmp_path}/files")) as client:
        answer = (await client.post("/v1/responses", json=body, headers=headers)).json()
        items = await client.get(f"/v1/responses/{answer['id']}/input_items", headers=headers)
        [url] = [part["image_url"] for part in items.json()["data"][0]["content"] if "image_url" in part]
        assert (await client.get(url, headers=headers)).content == PNG


@pytest.mark.parametrize("text", ["go", "only"])
async def test_deep_chat_gets_files_live_and_in_its_history(client: TestClient, text: str) -> None:
    body = {"messages": [{"role": "user", "text": text}], "chat_id": "d", "contact_id": "ann"}
    answer = (await client.post("/deep-chat", json=body)).json()
    [file] = answer["files"]
    assert ("text" in answer) is (text == "go")
    assert (file["name"], file["type"], await is_chart(client, file["src"] + "?contact_id=ann")) == (
        "chart.png",
        "image",
        True,
    )
    events = lines((await client.post("/deep-chat", json={**body, "stream": True})).text)
    assert [event["files"] for event in events if "files" in event] == [[file]]
    assert "".join(event.get("text", "") for event in events) == ("Here it is\n\nDone" if text == "go" else "")
    shown = (await client.get("/deep-chat/history?chat_id=d&contact_id=ann")).json()
    assert shown[1]["files"] == [file]
    assert shown[1].get("text") == ("Here it is\n\nDone" if text == "go" else None)


async def test_ag_ui_gets_an_event_of_the_files(client: TestClient) -> None:
    messages = [{"id": "1", "role": "user", "content": "go"}]
    body = {"threadId": "t", "runId": "r", "messages": messages, "tools": [], "context": [], "state": {}}
    events = lines((await client.post("/ag-ui", json={**body, "forwardedProps": {}})).text)
    [custom] = [event for event in events if event["type"] == "CUSTOM"]
    assert custom["name"] == "message.files"
    [file] = custom["value"]["files"]
    assert await is_chart(client, file["url"])
    assert custom["value"]["message_id"] in {event.get("messageId") for event in events}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_message_with_buttons_and_files_keeps_its_buttons(client: TestClient, stream: bool) -> None:
    body = {"model": "m", "user": "ann", "messages": [{"role": "user", "content": "buttons"}], "stream": stream}
    completion = await client.post("/v1/chat/completions", json=body)
    response = await client.post("/v1/responses", json={"model": "m", "input": "buttons", "stream": stream})
    for answer in (completion, response):
        assert "Choose" in answer.text
        assert "- A" in answer.text


@pytest.mark.parametrize("stream", [False, True])
async def test_protocols_without_a_form_for_files_show_the_messages(client: TestClient, stream: bool) -> None:
    body = {"model": "m", "user": "ann", "messages": [{"role": "user", "content": "go"}], "stream": stream}
    completion = await client.post("/v1/chat/completions", json=body)
    response = await client.post("/v1/responses", json={"model": "m", "input": "go", "stream": stream})
    for answer in (completion, response):
        assert answer.status_code == 200
        assert "Done" in answer.text
        assert "chart.png" not in answer.text


async def test_an_answer_of_nothing_but_invalid_data_of_files_says_nothing_in_a_history(client: TestClient) -> None:
    message = {"id": "1", "role": "user", "parts": [{"type": "text", "text": "by hand"}]}
    assert (await client.post("/ai-sdk/chat", json={"id": "c", "messages": [message]})).status_code == 200
    shown = await client.get("/ai-sdk/chat/c/messages")
    assert (shown.status_code, [one["role"] for one in shown.json()]) == (200, ["user"])
