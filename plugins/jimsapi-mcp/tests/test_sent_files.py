"""Files that the agent sends: in the result of a call as each version has them, and as resources of their owner."""

import asyncio
import json
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from jimsapi_mcp.files import MAX_EMBEDDED, MAX_READ, MAX_TEXT, READS_AT_ONCE, Files
from mcp_clients import CLIENTS, McpClient, converse
from mcp_wire import FORMS, PATH, TASKS, chat, error, events, legacy, modern, result, start_session, tool

from jimsapi import JimsApp, ThreadContext, create_api
from jimsapi.asgi.testing import TestClient
from jimsapi.threads import StoredFile
from tests.serving import Served

pytestmark = pytest.mark.anyio

PNG = b"\x89PNG\r\n\x1a\n"
APP = """
from jimsapi import JimsApp, ThreadContext

async def answer(ctx: ThreadContext) -> None:
    chart = await ctx.save_file("chart.png", bytes.fromhex("89504e47"))
    report = await ctx.save_file("report.pdf", b"%PDF")
    ctx.send_message("Here they are", files=[chart, report])

app = JimsApp(answer)
"""


async def bot(ctx: ThreadContext) -> None:
    """Send the files that the message describes: `name size`, in lines."""
    files = []
    for line in str(ctx.get_last_user_message()).splitlines():
        if line == "ask":
            await ctx.ask("sure", "Sure?", options=["yes", "no"])
            continue
        name, size = line.split()
        files.append(
            await ctx.save_file(name, (PNG * int(size))[: int(size)] if name.endswith("png") else b"x" * int(size))
        )
    ctx.send_message("Sent", files=files)


@pytest.fixture
async def client(people: None, tmp_path: Path) -> AsyncIterator[TestClient]:
    async with TestClient(create_api(JimsApp(bot), store="memory:", files_store=f"file://{tmp_path}/files")) as client:
        yield client


async def call(client: TestClient, message: str, user: str = "ann", **options: Any) -> Any:
    return result(await client.post(PATH, **modern("tools/call", chat(message), headers={"x-user": user}, **options)))


async def read(client: TestClient, uri: str, user: str) -> Any:
    return await client.post(PATH, **modern("resources/read", {"uri": uri}, headers={"x-user": user}))


async def test_images_audio_and_texts_are_in_the_result_and_other_files_are_links(client: TestClient) -> None:
    found = await call(client, "chart.png 8\nvoice.mp3 3\nnotes.txt 4\nreport.pdf 5")
    said, image, audio, text, link = found["content"]
    assert said == {"type": "text", "text": "Sent"}
    assert image == {"type": "image", "data": b64encode(PNG).decode(), "mimeType": "image/png"}
    assert audio == {"type": "audio", "data": b64encode(b"xxx").decode(), "mimeType": "audio/mpeg"}
    files = found["structuredContent"]["files"]
    assert text == {"type": "resource", "resource": {"uri": files[2]["uri"], "mimeType": "text/plain", "text": "xxxx"}}
    assert link == {
        "type": "resource_link",
        "uri": files[3]["uri"],
        "name": "report.pdf",
        "mimeType": "application/pdf",
        "size": 5,
    }
    tools = result(await client.post(PATH, **modern("tools/list", headers={"x-user": "ann"})))["tools"]
    jsonschema.validate(found["structuredContent"], tools[0]["outputSchema"])


async def test_a_result_has_no_more_content_than_a_model_can_read(client: TestClient) -> None:
    found = await call(client, f"a.png {MAX_EMBEDDED}\nb.png 1\nlong.txt {MAX_TEXT + 1}")
    assert [one["type"] for one in found["content"]] == ["text", "image", "resource_link", "resource_link"]


@pytest.mark.parametrize(
    ("version", "kinds"),
    [
        ("2025-11-25", ["text", "image", "audio", "resource_link"]),
        ("2025-06-18", ["text", "image", "audio", "resource_link"]),
        ("2025-03-26", ["text", "image", "text", "text"]),
        (None, ["text", "image", "text", "text"]),
    ],
)
async def test_earlier_versions_get_what_their_schema_has(
    client: TestClient, version: str | None, kinds: list[str]
) -> None:
    headers = {"x-user": "ann", **({} if version is None else {"mcp-protocol-version": version})}
    sent = chat("a.png 8\nb.mp3 3\nreport.pdf 5")
    found = result(await client.post(PATH, **legacy("tools/call", sent, headers=headers)))
    assert [one["type"] for one in found["content"]] == kinds
    uri = found["structuredContent"]["files"][2]["uri"]
    assert uri in json.dumps(found["content"][3])


async def test_a_file_is_a_resource_for_its_owner_alone(client: TestClient) -> None:
    found = await call(client, "report.pdf 5\nnotes.csv 2", user="ann-talks")
    pdf, notes = (file["uri"] for file in found["structuredContent"]["files"])
    for user in ("ann", "ann-talks", "root"):
        [content] = result(await read(client, pdf, user))["contents"]
        assert content == {"uri": pdf, "mimeType": "application/pdf", "blob": b64encode(b"xxxxx").decode()}
    assert result(await read(client, notes, "ann"))["contents"][0]["text"] == "xx"
    unknown = "jims://files/" + "f" * 64
    for user in ("bea", "talker"):
        refused, missing = error(await read(client, pdf, user), 400), error(await read(client, unknown, user), 400)
        assert (refused["code"], refused["message"]) == (missing["code"], missing["message"])


async def test_a_caller_without_a_contact_reads_the_files_that_its_own_calls_made(client: TestClient) -> None:
    found = await call(client, "report.pdf 5", user="talker")
    [file] = found["structuredContent"]["files"]
    assert "blob" in result(await read(client, file["uri"], "talker"))["contents"][0]
    assert error(await read(client, file["uri"], "ann"), 400)["code"] == -32602


@pytest.mark.parametrize("uri", ["jims://files/", "jims://files/../key", "jims://files/\0", "jims://files/ü\ud800"])
async def test_a_uri_of_no_file_is_not_found(client: TestClient, uri: str) -> None:
    answer = await client.post(
        PATH,
        content=json.dumps(legacy("resources/read", {"uri": uri})["json"]),
        headers={"x-user": "ann", "content-type": "application/json"},
    )
    assert answer.status_code < 500
    assert answer.json()["error"]["code"] in (-32002, -32602, -32700)


@pytest.mark.parametrize("user", ["ann", "talker", "root"])
async def test_a_file_that_is_too_large_for_a_resource_has_a_url(client: TestClient, user: str) -> None:
    found = await call(client, f"report.pdf {MAX_READ + 1}", user)
    uri = found["structuredContent"]["files"][0]["uri"]
    text = error(await read(client, uri, user), 400)["message"]
    answer = await client.get(text.rpartition(" ")[2], headers={"x-user": user})
    assert len(answer.content) == MAX_READ + 1


async def test_few_files_are_read_as_resources_at_once(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    found = await call(client, "report.pdf 5")
    uri = found["structuredContent"]["files"][0]["uri"]
    content, at_once = Files._content, [0]

    async def counted(files: Files, file: StoredFile) -> bytes:
        at_once.append(at_once[-1] + 1)
        try:
            await asyncio.sleep(0.01)
            return await content(files, file)
        finally:
            at_once.append(at_once[-1] - 1)

    monkeypatch.setattr(Files, "_content", counted)
    answers = await asyncio.gather(*[read(client, uri, "ann") for _ in range(3 * READS_AT_ONCE)])
    assert all("blob" in result(answer)["contents"][0] for answer in answers)
    assert max(at_once) == READS_AT_ONCE


async def test_a_conversation_names_its_files_and_the_templates_say_how_to_read_them(client: TestClient) -> None:
    found = await call(client, "report.pdf 5")
    thread = f"jims://threads/{found['structuredContent']['thread_id']}"
    [content] = result(await read(client, thread, "ann"))["contents"]
    assert json.loads(content["text"])["messages"][1] == {
        "role": "assistant",
        "text": "Sent",
        "files": found["structuredContent"]["files"],
    }
    listed = result(await client.post(PATH, **modern("resources/templates/list", headers={"x-user": "ann"})))
    assert [one["uriTemplate"] for one in listed["resourceTemplates"]] == ["jims://threads/{id}", "jims://files/{id}"]


async def test_a_task_has_the_files_in_its_result_and_so_has_chat_get(client: TestClient) -> None:
    created = await call(client, "chart.png 8", capabilities=TASKS)
    headers = {"x-user": "ann"}
    waited = tool("chat_get", run_id=created["taskId"], wait=10)
    got = result(await client.post(PATH, **modern("tools/call", waited, headers=headers)))
    named = {"taskId": created["taskId"]}
    task = result(await client.post(PATH, **modern("tasks/get", named, headers=headers, capabilities=TASKS)))
    assert task["result"]["content"] == got["content"]
    assert b64decode(got["content"][1]["data"]) == PNG


async def test_the_answer_to_a_question_has_its_files(client: TestClient) -> None:
    asked = (await call(client, "ask\nreport.pdf 5"))["structuredContent"]
    assert "files" not in asked
    arguments = tool("chat", message="yes", thread=asked["thread_id"])
    found = result(await client.post(PATH, **modern("tools/call", arguments, headers={"x-user": "ann"})))
    assert [one["type"] for one in found["content"]] == ["text", "resource_link"]


async def show_and_ask(ctx: ThreadContext) -> None:
    ctx.send_message("Look", files=[await ctx.save_file("chart.png", PNG)])
    await ctx.ask("sure", "Sure?")


@pytest.mark.parametrize("action", ["decline", "cancel"])
async def test_the_files_before_a_question_are_in_the_result_if_nobody_answers(tmp_path: Path, action: str) -> None:
    url = f"file://{tmp_path}/files"
    async with TestClient(create_api(show_and_ask, store="memory:", files_store=url, mcp_form_wait=0.01)) as client:
        asked = result(await client.post(PATH, **modern("tools/call", chat("hi"), capabilities=FORMS)))
        inputs = {key: {"action": action} for key in asked["inputRequests"]}
        params = {**chat("hi"), "inputResponses": inputs, "requestState": asked["requestState"]}
        found = [result(await client.post(PATH, **modern("tools/call", params, capabilities=FORMS)))]
        session = await start_session(client, FORMS)
        *_, last = events(await client.post(PATH, **legacy("tools/call", chat("hi"), session=session)))
        assert "has not answered within" in last["result"]["content"][0]["text"]
        found.append(last["result"])
    for one in found:
        assert [part["type"] for part in one["content"]] == ["text", "image"]


async def test_private_files_are_in_no_result(tmp_path: Path) -> None:
    app = JimsApp(bot, private_events=("message.files",))
    async with TestClient(create_api(app, store="memory:", files_store=f"file://{tmp_path}")) as client:
        found = result(await client.post(PATH, **modern("tools/call", chat("chart.png 8"))))
        assert [one["type"] for one in found["content"]] == ["text"]
        assert "files" not in found["structuredContent"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("sending")
    (folder / "sending.py").write_text(APP)
    with Served(
        "--app", "sending:app", "--api-key", "k", "--files-store", f"file://{folder}/files", folder=folder
    ) as one:
        yield one


@pytest.mark.parametrize("client_of", CLIENTS, ids=str)
def test_every_client_reads_the_files_of_a_result(served: Served, client_of: McpClient) -> None:
    call: Mapping[str, Any] = {"call": "chat", "arguments": {"message": "Hello"}}
    headers = {"authorization": "Bearer k"}
    talk = converse(client_of, f"{served.url}/mcp", {"list": "tools"}, call, {"read": "$uri"}, headers=headers)
    _, called, content = talk.results
    _, image, link = called["result"]["content"]
    assert (image["type"], b64decode(image["data"])) == ("image", bytes.fromhex("89504e47"))
    assert (link["type"], link["name"]) == ("resource_link", "report.pdf")
    assert b64decode(content["contents"][0]["blob"]) == bytes.fromhex("89504e47")
