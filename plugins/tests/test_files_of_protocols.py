"""The files of messages in each protocol: the pipeline reads them, and the thread holds them."""

import json
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from jimsapi import ThreadContext, create_api
from jimsapi.asgi.testing import TestClient

pytestmark = pytest.mark.anyio

PNG = b"\x89PNG\r\n\x1a\n"
BASE64 = b64encode(PNG).decode()
URL = f"data:image/png;base64,{BASE64}"


async def describe(ctx: ThreadContext) -> None:
    found = [f"{file.name} {file.type} {(await file.read())!r}" for file in ctx.files]
    ctx.send_message("; ".join([str(ctx.get_last_user_message()), *found]))


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[TestClient]:
    options: dict[str, Any] = {"files_store": f"file://{tmp_path}/files", "files_types": ("image/*", "audio/*")}
    async with TestClient(create_api(describe, store="memory:", **options)) as client:
        yield client


async def completion(client: TestClient, part: Any, **fields: Any) -> httpx.Response:
    content = [{"type": "text", "text": "look"}, part]
    body = {"model": "m", "user": "ann", "messages": [{"role": "user", "content": content}], **fields}
    return await client.post("/v1/chat/completions", json=body)


async def response(client: TestClient, part: Any) -> httpx.Response:
    content = [{"type": "input_text", "text": "look"}, part]
    body = {"model": "m", "user": "ann", "input": [{"role": "user", "content": content}]}
    return await client.post("/v1/responses", json=body)


async def ag_ui(client: TestClient, part: Any) -> httpx.Response:
    content = [{"type": "text", "text": "look"}, part]
    messages = [{"id": "1", "role": "user", "content": content}]
    body = {"threadId": "t", "runId": "r", "messages": messages, "tools": [], "context": [], "state": {}}
    return await client.post("/ag-ui", json={**body, "forwardedProps": {}})


async def vercel(client: TestClient, part: Any) -> httpx.Response:
    parts = [{"type": "text", "text": "look"}, part]
    return await client.post(
        "/ai-sdk/chat", json={"id": "c", "messages": [{"id": "1", "role": "user", "parts": parts}]}
    )


async def deep_chat(client: TestClient, files: Any, *texts: str) -> httpx.Response:
    fields = {f"message{number}": json.dumps({"role": "user", "text": text}) for number, text in enumerate(texts, 1)}
    return await client.post("/deep-chat", data={**fields, "contact_id": "ann"}, files=files)


IMAGE = {"type": "image_url", "image_url": {"url": URL, "detail": "low"}}
AUDIO = {"type": "input_audio", "input_audio": {"data": BASE64, "format": "wav"}}
DOCUMENT = {"type": "file", "file": {"filename": "cat.png", "file_data": URL}}
SEEN = repr(PNG).replace("\\", "\\\\")


@pytest.mark.parametrize(
    ("ask", "part", "described"),
    [
        (completion, IMAGE, f"file.png image/png {SEEN}"),
        (completion, AUDIO, f"audio.wav audio/wav {SEEN}"),
        (completion, DOCUMENT, f"cat.png image/png {SEEN}"),
        (response, {"type": "input_image", "image_url": URL, "detail": "low"}, f"file.png image/png {SEEN}"),
        (response, {"type": "input_file", "filename": "cat.png", "file_data": URL}, f"cat.png image/png {SEEN}"),
        (response, AUDIO, f"audio.wav audio/wav {SEEN}"),
        (ag_ui, {"type": "image", "source": {"type": "data", "value": BASE64, "mimeType": "image/png"}}, "file.png"),
        (ag_ui, {"type": "image", "source": {"type": "url", "value": URL, "mimeType": "image/png"}}, "file.png"),
        (ag_ui, {"type": "binary", "data": BASE64, "mimeType": "image/png", "filename": "cat.png"}, "cat.png"),
        (vercel, {"type": "file", "mediaType": "image/png", "filename": "cat.png", "url": URL}, "cat.png"),
        (deep_chat, [("files", ("cat.png", PNG, "image/png")), ("files", ("b.png", b"b", "image/png"))], "b.png"),
    ],
)
async def test_a_pipeline_reads_the_files_of_a_message_and_the_thread_holds_them(
    client: TestClient, ask: Any, part: Any, described: str
) -> None:
    answer = await ask(client, part, *(["look"] if ask is deep_chat else []))
    assert answer.status_code == 200, answer.text
    assert "look" in answer.text
    assert described in answer.text
    assert "PNG" in answer.text
    threads = (await client.get("/api/v1/threads?contact_id=ann")).json()["threads"]
    threads += (await client.get("/api/v1/threads?contact_id=t")).json()["threads"]
    threads += (await client.get("/api/v1/threads?contact_id=c")).json()["threads"]
    [thread] = threads
    events = (await client.get(f"/api/v1/threads/{thread['thread_id']}/events")).json()["events"]
    [named] = [event["event_data"]["files"] for event in events if event["event_type"] == "message.files"]
    read = await client.get(f"/api/v1/files/{named[0]['file_id']}")
    assert read.content == PNG


@pytest.mark.parametrize(
    ("ask", "part"),
    [
        (completion, {"type": "image_url", "image_url": {"url": "https://pictures.example/1.png"}}),
        (completion, {"type": "file", "file": {"file_id": "file-1"}}),
        (completion, {"type": "image_url"}),
        (completion, {"type": "input_audio", "input_audio": {"data": "?", "format": "wav"}}),
        (completion, {"type": "image_url", "image_url": {"url": "data:text/html,<p>"}}),
        (response, {"type": "input_image", "image_url": "https://pictures.example/1.png"}),
        (response, {"type": "input_file", "file_url": "https://pictures.example/1.png"}),
        (response, {"type": "input_image", "image_url": "data:text/html,<p>"}),
        (response, {"type": "input_image"}),
        (ag_ui, {"type": "image", "source": {"type": "url", "value": "http://127.0.0.1/"}}),
        (vercel, {"type": "file", "mediaType": "image/png", "url": "https://pictures.example/1.png"}),
        (vercel, {"type": "file", "mediaType": "text/html", "url": "data:text/html,x"}),
        (deep_chat, [("files", ("a.html", b"x", "text/html"))]),
    ],
)
async def test_a_file_that_the_server_does_not_take_refuses_the_message(
    client: TestClient, ask: Any, part: Any
) -> None:
    answer = await ask(client, part)
    assert answer.status_code == 422, answer.text
    for contact in ("ann", "t", "c"):
        assert (await client.get(f"/api/v1/threads?contact_id={contact}")).json()["threads"] == []
        assert (await client.get(f"/api/v1/files?contact_id={contact}")).json()["files"] == []


async def test_a_message_of_deep_chat_may_have_a_file_and_no_text(client: TestClient) -> None:
    answer = await deep_chat(client, [("files", ("cat.png", PNG, "image/png"))])
    assert answer.json() == {"text": f"; cat.png image/png {PNG!r}"}


async def test_a_file_with_a_text_or_alone_may_be_the_answer_to_a_question(tmp_path: Path) -> None:
    async def pipeline(ctx: ThreadContext) -> None:
        text = await ctx.ask("photo", "Send a photo of it, please.")
        ctx.send_message(f"{text!r} {[file.name for file in ctx.files]}")

    async def complete(client: TestClient, *parts: Any) -> str:
        body = {"model": "m", "user": "ann", "messages": [{"role": "user", "content": parts}]}
        answer = await client.post("/v1/chat/completions", json=body)
        return str(answer.json()["choices"][0]["message"]["content"])

    photo = {"type": "file", "file": {"filename": "it.png", "file_data": URL}}
    async with TestClient(create_api(pipeline, store="memory:", files_store=f"file://{tmp_path}/files")) as client:
        await complete(client, {"type": "text", "text": "broken"})
        assert await complete(client, {"type": "text", "text": "here"}, photo) == "'here' ['it.png']"
        await complete(client, {"type": "text", "text": "broken"})
        assert await complete(client, photo) == "'' ['it.png']"


async def test_a_page_that_was_loaded_again_sends_the_file_that_the_server_has(client: TestClient) -> None:
    await vercel(client, {"type": "file", "mediaType": "image/png", "filename": "cat.png", "url": URL})
    [asked, _] = (await client.get("/ai-sdk/chat/c/messages")).json()
    for url in (asked["parts"][0]["url"], "https://chat.example" + asked["parts"][0]["url"]):
        parts = [{**asked["parts"][0], "url": url}, asked["parts"][1]]
        body = {"id": "c", "messages": [{**asked, "parts": parts}], "trigger": "regenerate-message"}
        assert "cat.png image/png" in (await client.post("/ai-sdk/chat", json=body)).text
        source = {"type": "url", "value": url, "mimeType": "image/png"}
        assert (await ag_ui(client, {"type": "image", "source": source})).status_code == 422  # of another contact
    foreign = {"type": "file", "mediaType": "image/png", "url": "/api/v1/files/" + "f" * 64}
    assert (await vercel(client, foreign)).status_code == 422


@pytest.mark.parametrize("kind", ["text/html", "image/png; x"])
async def test_a_prompt_outside_of_every_thread_keeps_the_rules_for_files(client: TestClient, kind: str) -> None:
    part = {"type": "image_url", "image_url": {"url": f"data:{kind};base64,aGk="}}
    content = [{"type": "text", "text": "### Task:\nlook"}, part]
    body = {"model": "m", "user": "ann", "messages": [{"role": "user", "content": content}]}
    answer = await client.post("/v1/chat/completions", json=body, headers={"x-openwebui-user-id": "u"})
    assert answer.status_code == (422 if kind == "text/html" else 200)
    async with TestClient(create_api(describe, store="memory:")) as without:
        refused = await without.post("/v1/chat/completions", json=body, headers={"x-openwebui-user-id": "u"})
        assert refused.status_code == 422


async def test_the_items_of_a_response_name_its_files_and_a_message_may_name_them(client: TestClient) -> None:
    answer = (await response(client, {"type": "input_image", "image_url": URL})).json()
    [item] = (await client.get(f"/v1/responses/{answer['id']}/input_items")).json()["data"]
    image = item["content"][1]
    assert (image["type"], (await client.get(image["image_url"])).content) == ("input_image", PNG)
    listed = (await client.get(f"/v1/conversations/{answer['conversation']['id']}/items?limit=1&order=asc")).json()
    assert listed["data"] == [item]
    file_id = image["image_url"].rpartition("/")[2]
    for part in (image, {"type": "input_image", "file_id": file_id}):
        again = await response(client, part)
        assert (again.status_code, "file.png image/png" in again.text) == (200, True)
    unknown = await response(client, {"type": "input_file", "file_id": "f" * 64})
    assert unknown.status_code == 422


async def test_nothing_is_stored_if_one_file_of_a_message_is_refused(client: TestClient) -> None:
    files = [("files", ("a.png", b"x", "image/png")), ("files", ("b.html", b"x", "text/html"))]
    assert (await deep_chat(client, files, "look")).status_code == 422
    assert (await client.get("/api/v1/files?contact_id=ann")).json()["files"] == []


@pytest.mark.parametrize(("length", "status"), [(65_000, 200), (70_000, 422)])
async def test_a_long_content_must_be_base64(client: TestClient, length: int, status: int) -> None:
    part = {"type": "image_url", "image_url": {"url": "data:image/png," + "%41" * (length // 3)}}
    assert (await completion(client, part)).status_code == status
    escaped = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "%2B%2f8%3D" * 1}}
    assert (await completion(client, escaped)).status_code == 200
