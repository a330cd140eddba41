"""Files of messages: who may name which file, what the thread holds of them, and how a pipeline reads them."""

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from filing import CHAT, PATH, kept, say, serving, stored

from jimsapi import ThreadContext, create_api
from jimsapi.asgi.testing import TestClient
from jimsapi.client import AsyncClient, Client, File, Unauthorized
from jimsapi.threads import Event, StoredFileNotFound
from tests.docs.snippets import blocks, modules
from tests.serving import Served

pytestmark = pytest.mark.anyio

PNG = b"\x89PNG\r\n\x1a\n"


async def describe(ctx: ThreadContext) -> None:
    """Say what the files of the message are, and what they hold."""
    for file in ctx.files:
        ctx.send_message(f"{file.name} {file.type} {file.size} {(await file.read())!r}")


def describe_plainly(ctx: ThreadContext) -> None:
    """The same, in a plain function."""
    for file in ctx.files:
        ctx.send_message(f"{file.name} {file.type} {file.size} {file.read()!r}")


@pytest.mark.parametrize("pipeline", [describe, describe_plainly])
async def test_a_pipeline_reads_the_files_of_the_message(pipeline: Any, folder: Path) -> None:
    async with serving(pipeline, folder) as client:
        text = await stored(client, b"hello")
        picture = await stored(client, PNG, name="cat.png", kind="image/png")
        answer = await say(client, "look", text, picture)
        assert answer["assistant_messages"] == [
            f"a.txt text/plain 5 {b'hello'!r}",
            f"cat.png image/png {len(PNG)} {PNG!r}",
        ]


async def test_a_file_is_a_data_url_and_a_path_too(folder: Path) -> None:
    paths: list[Path] = []

    async def pipeline(ctx: ThreadContext) -> None:
        [file] = ctx.files
        ctx.send_message(await file.data_url())
        async with file.copy() as path:
            paths.append(path)
            ctx.send_message(f"{path.suffix} {path.read_bytes()!r}")

    async with serving(pipeline, folder) as client:
        answer = await say(client, "look", await stored(client, PNG, name="cat.png", kind="image/png"))
    assert answer["assistant_messages"] == ["data:image/png;base64,iVBORw0KGgo=", f".png {PNG!r}"]
    assert not paths[0].parent.exists()


async def test_an_async_function_that_copies_without_await_is_told_what_to_do(folder: Path) -> None:
    async def pipeline(ctx: ThreadContext) -> None:
        with pytest.raises(TypeError, match="async with"), ctx.files[0].copy():
            raise AssertionError
        ctx.send_message("told")

    async with serving(pipeline, folder) as client:
        assert (await say(client, "look", await stored(client, b"hi")))["assistant_messages"] == ["told"]


async def test_a_plain_function_has_the_path_of_a_file(folder: Path) -> None:
    paths: list[Path] = []

    def pipeline(ctx: ThreadContext) -> None:
        with ctx.files[0].copy() as path:
            paths.append(path)
            ctx.send_message(f"{path.read_bytes()!r} {ctx.files[0].data_url()}")

    async with serving(pipeline, folder) as client:
        answer = await say(client, "look", await stored(client, b"hi"))
    assert answer["assistant_messages"] == [f"{b'hi'!r} data:text/plain;base64,aGk="]
    assert not paths[0].parent.exists()


async def test_the_thread_holds_the_files_beside_the_message_whose_data_stays_as_it_was(folder: Path) -> None:
    async with serving(describe, folder) as client:
        file_id = await stored(client, b"hello")
        thread_id = (await say(client, "look", file_id))["thread_id"]
        events = (await client.get(f"/api/v1/threads/{thread_id}/events")).json()["events"]
    by_type = {event["event_type"]: event for event in events}
    message = by_type["comm.user_message"]
    assert message["event_data"] == {"role": "user", "content": "look"}
    assert by_type["message.files"]["event_data"] == {
        "message_id": message["event_id"],
        "files": [{"file_id": file_id, "name": "a.txt", "type": "text/plain", "size": 5}],
    }


async def test_a_pipeline_finds_the_files_of_earlier_messages(folder: Path) -> None:
    async def pipeline(ctx: ThreadContext) -> None:
        def names(event: Event) -> str:
            return ",".join(file.name for file in ctx.files_of(event))

        asked = [event for event in ctx.events if event.event_type == "comm.user_message"]
        ctx.send_message(" ".join(f"{event.event_data['content']}:{names(event)}" for event in asked))
        ctx.send_message(f"now {len(ctx.files)}")

    async with serving(pipeline, folder) as client:
        first = await stored(client, b"1", name="one.txt")
        second = await stored(client, b"2", name="two.txt")
        await say(client, "a", first, second)
        await say(client, "b")
        answer = await say(client, "c", second, metadata={"n": 1})
    assert answer["assistant_messages"] == ["a:one.txt,two.txt b: c:two.txt", "now 1"]


async def test_a_run_that_an_answer_begins_has_the_files_of_the_message_that_led_to_the_question(folder: Path) -> None:
    async def pipeline(ctx: ThreadContext) -> None:
        await ctx.ask("sure", "Sure?", options=["yes", "no"])
        ctx.send_message(" ".join([(await file.read()).decode() for file in ctx.files]))

    async with serving(pipeline, folder) as client:
        asked = await say(client, "look", await stored(client, b"hello"))
        answers = {asked["questions"][0]["question_id"]: "yes"}
        other = await stored(client, b"other", name="b.txt")
        answer = await client.post(CHAT, json={"contact_id": "ann", "answers": answers, "files": [other]})
    assert answer.json()["assistant_messages"] == ["hello other"]


async def test_a_server_whose_file_store_fails_is_ready_for_messages_without_files(folder: Path) -> None:
    async with serving(describe, folder) as client:
        file_id = await stored(client)
        [shard] = {content.parents[2] for content in kept(folder)}
        shard.rename(folder / "aside")
        shard.write_text("in the way")
        answer = await client.post(CHAT, json={"contact_id": "ann", "message": "look", "files": [file_id]})
        assert answer.status_code == 503
        assert (await client.get("/readyz")).status_code == 200
        await say(client, "without files")


@pytest.mark.parametrize(
    ("files", "kind"),
    [(["nonsense"], "file_not_found"), (["../../key"], "file_not_found"), (["f" * 64], "file_not_found")],
)
async def test_a_file_that_is_not_there_refuses_the_message(folder: Path, files: list[str], kind: str) -> None:
    async with serving(describe, folder) as client:
        answer = await client.post(CHAT, json={"contact_id": "ann", "message": "look", "files": files})
        assert answer.status_code == 422
        assert answer.json()["detail"][0]["type"] == kind
        assert (await client.get("/api/v1/threads?contact_id=ann")).json()["threads"] == []


async def test_a_message_with_too_many_files_is_refused_and_the_same_file_counts_once(folder: Path) -> None:
    async with serving(describe, folder) as client:
        file_id = await stored(client, b"hello")
        assert len((await say(client, "look", file_id, file_id))["assistant_messages"]) == 1
        body = {"contact_id": "ann", "message": "look", "files": [f"{number}" for number in range(101)]}
        answer = await client.post(CHAT, json=body)
        assert (answer.status_code, answer.json()["detail"][0]["type"]) == (422, "too_long")


async def test_a_repeat_under_its_key_has_one_run_and_other_files_are_another_request(folder: Path) -> None:
    async with serving(describe, folder) as client:
        one, two = await stored(client, b"1"), await stored(client, b"2")
        key = {"idempotency-key": "k"}
        body = {"contact_id": "ann", "message": "look", "files": [one]}
        first = await client.post(CHAT, json=body, headers=key)
        assert (await client.post(CHAT, json=body, headers=key)).json() == first.json()
        assert (await client.post(CHAT, json={**body, "files": [two]}, headers=key)).status_code == 422


async def test_a_file_that_was_deleted_is_still_named_and_cannot_be_read(folder: Path) -> None:
    async def pipeline(ctx: ThreadContext) -> None:
        for event in ctx.events:
            for file in ctx.files_of(event):
                try:
                    ctx.send_message((await file.read()).decode())
                except StoredFileNotFound:
                    ctx.send_message(f"{file.name} is gone")

    async with serving(pipeline, folder) as client:
        file_id = await stored(client, b"hello")
        assert (await say(client, "look", file_id))["assistant_messages"] == ["hello"]
        assert (await client.delete(f"{PATH}/{file_id}")).status_code == 204
        assert (await say(client, "again"))["assistant_messages"] == ["a.txt is gone"]


async def test_a_server_without_a_file_store_refuses_files_and_says_what_to_do() -> None:
    async with TestClient(create_api(describe, store="memory:")) as client:
        answer = await client.post(CHAT, json={"contact_id": "ann", "message": "look", "files": ["x"]})
        assert answer.status_code == 422
        assert "--files-store" in answer.json()["detail"][0]["msg"]
        empty = await client.post(CHAT, json={"contact_id": "ann", "message": "look", "files": []})
        assert empty.status_code == 200


async def test_messages_of_a_stream_have_files(folder: Path) -> None:
    async with serving(describe, folder) as client:
        body = {"contact_id": "ann", "message": "look", "files": [await stored(client, b"hello")]}
        answer = await client.post(f"{CHAT}/stream", json=body)
        assert "a.txt text/plain 5" in answer.text
        run = await client.post("/api/v1/runs", json=body)
        assert run.status_code == 202


async def test_a_client_cannot_store_an_event_that_looks_like_files(folder: Path) -> None:
    async with serving(describe, folder) as client:
        body = {"contact_id": "ann", "message": "x", "event_type": "message.files"}
        assert (await client.post(CHAT, json=body)).status_code == 422


def test_the_commands_of_the_page_on_agents_send_a_file(tmp_path: Path) -> None:
    (tmp_path / "looking.py").write_text(modules("docs/agents.md")["looking.py"])
    (tmp_path / "cat.png").write_bytes(PNG)
    [command] = [block for block in blocks("docs/agents.md", "sh") if "api/v1/files" in block]
    with Served("--app", "looking:app", "--files-store", f"file://{tmp_path}/files", folder=tmp_path) as served:
        command = command.replace("http://localhost:8080", served.url)
        done = subprocess.run(["bash", "-euc", command], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["assistant_messages"] == ["cat.png is image/png, and has 8 bytes."]


def test_a_test_of_a_pipeline_gives_it_files() -> None:
    context = ThreadContext.for_test("look", files={"cat.png": PNG, "a.txt": b"hello"})
    asyncio.run(describe(context))
    assert [event.event_data["content"] for event in context.outgoing_events] == [
        f"cat.png image/png {len(PNG)} {PNG!r}",
        f"a.txt text/plain 5 {b'hello'!r}",
    ]
    plain = ThreadContext.for_test("look", files={"a.txt": b"hello"})
    describe_plainly(plain)
    assert len(plain.outgoing_events) == 1


def test_the_client_uploads_files_and_names_them(tmp_path: Path) -> None:
    (tmp_path / "looking.py").write_text(modules("docs/agents.md")["looking.py"])
    store = f"file://{tmp_path}/files"
    with Served("--app", "looking:app", "--files-store", store, "--api-key", "k", folder=tmp_path) as served:
        with Client(served.url, api_key="k") as jims:
            file = jims.upload(PNG, "kätzchen & co.png", contact_id="me")
            assert (file.name, file.type, file.size) == ("kätzchen & co.png", "image/png", 8)
            assert jims.upload(PNG, "kätzchen & co.png", contact_id="me") == file
            answer = jims.chat("look", contact_id="me", files=[file.file_id])
        assert answer.assistant_messages == ["kätzchen & co.png is image/png, and has 8 bytes."]

        async def upload() -> File:
            async with AsyncClient(served.url, api_key="k") as client:
                return await client.upload(b"hello", "a.bin", type="text/plain", contact_id="me")

        assert asyncio.run(upload()).type == "text/plain"
        with Client(served.url, api_key="wrong") as stranger, pytest.raises(Unauthorized):
            stranger.upload(PNG, "a.png", contact_id="me")
