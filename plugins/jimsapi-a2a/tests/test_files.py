"""Files of messages: in the message, by a URL of this server, and in the history of a task."""

from base64 import b64encode, urlsafe_b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from a2a_calls import error, result, send, text_message, texts

from jimsapi import ThreadContext, create_api
from jimsapi.asgi.testing import TestClient

pytestmark = pytest.mark.anyio

CONTENT = b"\xfb\xff\xfe content"


async def pipeline(ctx: ThreadContext) -> None:
    for file in ctx.files:
        ctx.send_message(f"{file.name} {file.type} {await file.read()!r}")
    ctx.send_message(f"said {ctx.get_last_user_message()!r}")


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[TestClient]:
    options: dict[str, Any] = {"files_store": f"file:{tmp_path}", "files_types": ["text/*", "image/png"]}
    async with TestClient(create_api(pipeline, store="memory:", **options)) as client:
        yield client


@pytest.mark.parametrize(
    "content",
    [
        {"raw": b64encode(CONTENT).decode()},
        {"raw": urlsafe_b64encode(CONTENT).decode().rstrip("=")},
        {"url": f"data:text/plain;base64,{b64encode(CONTENT).decode()}"},
    ],
)
async def test_the_pipeline_reads_a_file_of_a_message(client: TestClient, content: dict[str, str]) -> None:
    parts = [{"text": "look"}, {**content, "filename": "a.txt", "mediaType": "text/plain"}]
    task = await send(client, "", parts=parts)
    assert texts(task) == [f"a.txt text/plain {CONTENT!r}", "said 'look'"]
    text, file = task["history"][0]["parts"]
    assert text == {"text": "look"}
    assert (file["filename"], file["mediaType"]) == ("a.txt", "text/plain")
    assert file["url"].startswith("http://testserver/api/v1/files/")
    contact = (await client.get(f"/api/v1/threads/{task['contextId']}")).json()["contact_id"]
    assert (await client.get(file["url"], params={"contact_id": contact})).content == CONTENT
    again = await send(client, "", parts=[{"url": file["url"]}], contextId=task["contextId"])
    assert texts(again) == [f"a.txt text/plain {CONTENT!r}", "said ''"]


@pytest.mark.parametrize(
    ("part", "code"),
    [
        ({"url": "https://pictures.example/1.png"}, -32005),
        ({"url": "file:///etc/passwd"}, -32005),
        ({"raw": "?"}, -32602),
        ({"raw": "aGk=", "mediaType": "application/x-msdownload"}, -32005),
        ({"url": "http://testserver/api/v1/files/unknown"}, -32602),
    ],
)
async def test_a_file_that_the_server_cannot_take_refuses_the_message(
    client: TestClient, part: dict[str, str], code: int
) -> None:
    found = await error(client, "SendMessage", text_message("", parts=[{"text": "look"}, part], contextId="c"))
    assert found["code"] == code
    assert found["data"][1]["fieldViolations"][0]["field"].startswith("message.parts")
    assert (await result(client, "ListTasks", {"contextId": "c"}))["tasks"] == []


async def test_a_server_without_files_says_so() -> None:
    async with TestClient(create_api(pipeline, store="memory:")) as client:
        found = await error(client, "SendMessage", text_message("", parts=[{"raw": "aGk="}]))
        assert (found["code"], "--files-store" in found["message"]) == (-32005, True)
        card = (await client.get("/.well-known/agent-card.json")).json()
        assert card["defaultInputModes"] == ["text/plain", "application/json"]


async def test_the_card_says_that_the_agent_takes_files(client: TestClient) -> None:
    assert "*/*" in (await client.get("/.well-known/agent-card.json")).json()["defaultInputModes"]
