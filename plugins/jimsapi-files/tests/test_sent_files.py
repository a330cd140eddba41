"""Files that a pipeline sends: who may read them, what the thread holds of them, and what is refused."""

import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from filing import CHAT, PATH, kept, say, serving, upload
from jimsapi_files.deletion import DeletesFiles
from jimsapi_files.service import Files

from jimsapi import ThreadContext, create_api
from jimsapi.asgi.testing import TestClient
from jimsapi.stores.memory import MemoryStore
from jimsapi.threads import FileRefused, MessageFile, SentFile, StoredFile
from tests.waiting import PATIENCE

pytestmark = pytest.mark.anyio

CONTENT = b"a,b\n1,2\n"


def files_in(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """The data of the events `message.files` of an answer."""
    return [event["event_data"] for event in answer["events"] if event["event_type"] == "message.files"]


async def report(ctx: ThreadContext) -> None:
    file = await ctx.save_file("report.csv", CONTENT)
    ctx.send_message("Here it is.", files=[file])


def report_plainly(ctx: ThreadContext) -> None:
    """The same, in a plain function."""
    file = ctx.save_file("report.csv", CONTENT)
    assert file.read() == CONTENT
    ctx.send_message("Here it is.", files=[file])


@pytest.mark.parametrize("pipeline", [report, report_plainly])
async def test_a_pipeline_sends_a_file_which_its_contact_reads(pipeline: Any, folder: Path, people: None) -> None:
    async with serving(pipeline, folder) as client:
        answer = await say(client, user="ann")
        assert answer["assistant_messages"] == ["Here it is."]
        [sent] = files_in(answer)
        [file] = sent["files"]
        assert file == {"file_id": file["file_id"], "name": "report.csv", "type": "text/csv", "size": len(CONTENT)}
        statuses = {}
        for user in ("ann", "bea", "root"):
            read = await client.get(f"{PATH}/{file['file_id']}", headers={"x-user": user})
            statuses[user] = read.status_code
            assert (read.content == CONTENT) is (read.status_code == 200)
        assert statuses == {"ann": 200, "bea": 404, "root": 200}


async def test_the_thread_holds_the_files_beside_the_message_whose_data_stays_as_it_was(folder: Path) -> None:
    async with serving(report, folder) as client:
        thread_id = (await say(client))["thread_id"]
        events = (await client.get(f"/api/v1/threads/{thread_id}/events")).json()["events"]
        files, message = events[-2:]
        assert message["event_data"] == {"role": "assistant", "content": "Here it is."}
        assert files["event_type"] == "message.files"
        assert files["event_data"]["message_id"] == message["event_id"]
        fork = await client.post(f"/api/v1/threads/{thread_id}/fork", json={"at": message["event_id"]})
        copied = (await client.get(f"/api/v1/threads/{fork.json()['thread_id']}/events")).json()["events"]
        assert copied[-2:] == [{**event, "event_id": event["event_id"]} for event in events[-2:]]
        fork = await client.post(f"/api/v1/threads/{thread_id}/fork", json={"before": message["event_id"]})
        shorter = (await client.get(f"/api/v1/threads/{fork.json()['thread_id']}/events")).json()["events"]
        assert [event["event_id"] for event in shorter] == [event["event_id"] for event in events[:-2]]


@pytest.mark.parametrize("watched", [False, True])
async def test_a_streamed_message_and_one_with_buttons_have_files_too(folder: Path, watched: bool) -> None:
    async def pipeline(ctx: ThreadContext) -> None:
        one = await ctx.save_file("a.txt", b"1")
        await ctx.stream("Half")
        ctx.send_message("Half and half", files=[one, one])
        two = await ctx.save_file("b", b"2", "image/png")
        ctx.send_message_with_buttons("Choose", [{"text": "A"}], files=[two])
        ctx.send_message("", files=[one, two])

    async with serving(pipeline, folder) as client:
        if watched:
            lines = (await client.post(f"{CHAT}/stream", json={"contact_id": "ann", "message": "go"})).text
            assert lines.count("message.files") >= 3
        else:
            answer = await say(client)
            assert answer["assistant_messages"] == ["Half and half", ""]
            assert [[file["name"] for file in sent["files"]] for sent in files_in(answer)] == [
                ["a.txt"],
                ["b"],
                ["a.txt", "b"],
            ]
            assert files_in(answer)[1]["files"][0]["type"] == "image/png"


async def test_later_runs_find_the_files_that_the_pipeline_sent(folder: Path) -> None:
    async def pipeline(ctx: ThreadContext) -> None:
        sent = [file for event in ctx.events for file in ctx.files_of(event)]
        if not sent:
            await report(ctx)
            return
        ctx.send_message(f"{sent[0].name}: {(await sent[0].read()).decode()}", files=sent)

    async with serving(pipeline, folder) as client:
        first = await say(client)
        second = await say(client, "again")
        assert second["assistant_messages"] == [f"report.csv: {CONTENT.decode()}"]
        assert files_in(second)[0]["files"] == files_in(first)[0]["files"]
        assert len(kept(folder)) == 1


async def test_the_files_of_the_user_can_be_sent_back(folder: Path) -> None:
    async def pipeline(ctx: ThreadContext) -> None:
        ctx.send_message("Yours", files=ctx.files)

    async with serving(pipeline, folder) as client:
        file_id = (await upload(client)).json()["file_id"]
        assert files_in(await say(client, files=[file_id]))[0]["files"][0]["file_id"] == file_id


@pytest.mark.parametrize(
    ("name", "kind", "size", "fault"),
    [
        ("a.txt", "text/plain", 101, "too_large"),
        ("a.exe", None, 1, "invalid_type"),
        ("a.txt", "nonsense", 1, "invalid_type"),
        ("a\0.txt", None, 1, "invalid_name"),
        ("a\ud800.txt", None, 1, "invalid_name"),
    ],
)
async def test_a_file_that_the_server_does_not_accept_raises_what_the_author_can_catch(
    folder: Path, name: str, kind: str | None, size: int, fault: str
) -> None:
    async def pipeline(ctx: ThreadContext) -> None:
        with pytest.raises(FileRefused) as refused:
            await ctx.save_file(name, b"x" * size, kind)
        ctx.send_message(refused.value.kind)

    async with serving(pipeline, folder, files_max_size=100, files_types=["text/*"]) as client:
        assert (await say(client))["assistant_messages"] == [fault]
    assert kept(folder) == []


async def test_a_file_over_the_quota_of_the_contact_is_refused(folder: Path) -> None:
    async def pipeline(ctx: ThreadContext) -> None:
        await ctx.save_file("a.txt", b"1")
        with pytest.raises(FileRefused, match=r"b\.txt.*65536 bytes") as refused:
            await ctx.save_file("b.txt", b"2")
        ctx.send_message(refused.value.kind)

    async with serving(pipeline, folder, files_quota=65_536) as client:
        assert (await say(client))["assistant_messages"] == ["quota_exceeded"]


async def test_a_server_without_a_file_store_tells_the_author_what_to_do() -> None:
    async def pipeline(ctx: ThreadContext) -> None:
        with pytest.raises(FileRefused, match="--files-store") as refused:
            await ctx.save_file("a.txt", b"1")
        ctx.send_message(refused.value.kind)

    async with TestClient(create_api(pipeline, store="memory:")) as client:
        assert (await say(client))["assistant_messages"] == ["files_off"]


async def test_the_file_of_another_contact_cannot_be_sent(folder: Path) -> None:
    shared: list[MessageFile] = []

    async def pipeline(ctx: ThreadContext) -> None:
        if not shared:
            shared.append(await ctx.save_file("secret.txt", b"1"))
        with pytest.raises(ValueError, match="another contact"):
            ctx.send_message("x", files=shared)
        ctx.send_message("kept")

    async def first(ctx: ThreadContext) -> None:
        shared.append(await ctx.save_file("secret.txt", b"1"))

    async with serving(lambda ctx: pipeline(ctx) if shared else first(ctx), folder) as client:
        await say(client)
        answer = await say(client, contact_id="bea")
        assert (answer["assistant_messages"], files_in(answer)) == (["kept"], [])


async def test_wrong_arguments_send_nothing(folder: Path) -> None:
    async def pipeline(ctx: ThreadContext) -> None:
        file = await ctx.save_file("a.txt", bytearray(b"1"))
        wrong: tuple[Any, ...] = (file, ["a.txt"], [file, None], 5, (one for one in [file]))
        for files in wrong:
            with pytest.raises(TypeError, match="save_file"):
                ctx.send_message("x", files=files)
        with pytest.raises(ValueError, match="at most 100"):
            ctx.send_message("x", files=[file] * 101)
        for arguments in (("a.txt", "text"), (1, b""), ("a.txt", b"", 1)):
            with pytest.raises(TypeError):
                await ctx.save_file(*arguments)
        ctx.send_message("done")

    async with serving(pipeline, folder) as client:
        answer = await say(client)
        assert ([event["event_type"] for event in answer["events"]]) == ["comm.assistant_message"]


async def test_private_files_are_not_shown(folder: Path) -> None:
    async with serving(report, folder, private=("message.*",)) as client:
        answer = await say(client)
        assert (answer["assistant_messages"], files_in(answer)) == (["Here it is."], [])
        stream = await client.post(f"{CHAT}/stream", json={"contact_id": "ann", "message": "go"})
        assert "report.csv" not in stream.text
        body = {"id": "c", "messages": [{"id": "1", "role": "user", "parts": [{"type": "text", "text": "go"}]}]}
        await client.post("/ai-sdk/chat", json=body)
        assert "report.csv" not in (await client.get("/ai-sdk/chat/c/messages")).text


async def test_a_pipeline_that_runs_again_with_an_answer_stores_its_file_once(folder: Path) -> None:
    async def pipeline(ctx: ThreadContext) -> None:
        file = await ctx.save_file("draft.txt", b"draft")
        await ctx.ask("sure", "Sure?", options=["yes", "no"])
        ctx.send_message("Final", files=[file])

    async with serving(pipeline, folder) as client:
        asked = await say(client)
        answers = {asked["questions"][0]["question_id"]: "yes"}
        answer = await client.post(CHAT, json={"contact_id": "ann", "answers": answers})
        [sent] = files_in(answer.json())
        assert (await client.get(f"{PATH}/{sent['files'][0]['file_id']}?contact_id=ann")).content == b"draft"
    assert len(kept(folder)) == 1


async def test_a_run_that_fails_sends_no_file(folder: Path) -> None:
    async def pipeline(ctx: ThreadContext) -> None:
        await report(ctx)
        raise LookupError

    async with serving(pipeline, folder) as client:
        answer = await client.post(CHAT, json={"contact_id": "ann", "message": "go"})
        assert answer.status_code == 500
        thread = (await client.get("/api/v1/threads?contact_id=ann")).json()["threads"][0]["thread_id"]
        events = (await client.get(f"/api/v1/threads/{thread}/events")).json()["events"]
        assert "message.files" not in {event["event_type"] for event in events}


async def test_a_file_that_a_pipeline_saves_before_the_threads_of_its_contact_are_deleted_is_deleted(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    delete = MemoryStore.delete_contact
    begun, files_gone, saved = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def pipeline(ctx: ThreadContext) -> None:
        begun.set()
        await files_gone.wait()
        await ctx.save_file("report.csv", CONTENT)
        saved.set()

    async def delete_late(store: MemoryStore, contact_id: str) -> list[UUID]:
        files_gone.set()
        await saved.wait()
        return await delete(store, contact_id)

    monkeypatch.setattr(MemoryStore, "delete_contact", delete_late)
    async with serving(pipeline, folder) as client:
        run = asyncio.create_task(client.post(CHAT, json={"contact_id": "ann", "message": "go"}))
        await begun.wait()
        assert (await client.delete("/api/v1/contacts?contact_id=ann")).status_code == 204
        await run
    assert kept(folder) == []


async def test_a_file_that_a_pipeline_saves_after_its_contact_was_deleted_is_deleted(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    delete, keep = DeletesFiles.delete_contact, Files.keep
    saving, deleted, stored, released = (asyncio.Event() for _ in range(4))

    async def keep_late(files: Files, contact_id: str, file: SentFile) -> StoredFile:
        saving.set()
        await deleted.wait()
        found = await keep(files, contact_id, file)
        stored.set()
        await released.wait()
        return found

    async def delete_before(store: DeletesFiles, contact_id: str) -> list[UUID]:
        open_runs = await delete(store, contact_id)
        deleted.set()
        await stored.wait()
        return open_runs

    monkeypatch.setattr(Files, "keep", keep_late)
    monkeypatch.setattr(DeletesFiles, "delete_contact", delete_before)
    async with serving(report, folder) as client:
        run = asyncio.create_task(client.post(CHAT, json={"contact_id": "ann", "message": "go"}))
        await saving.wait()
        assert (await client.delete("/api/v1/contacts?contact_id=ann")).status_code == 204
        assert (await run).status_code == 404  # the deletion has stopped it
        assert len(kept(folder)) == 1
        released.set()
        async with asyncio.timeout(PATIENCE):
            while kept(folder):
                await asyncio.sleep(0.005)


async def test_a_run_outside_of_threads_keeps_its_files_in_memory(folder: Path) -> None:
    async def pipeline(ctx: ThreadContext) -> None:
        assert not ctx.has_thread
        file = await ctx.save_file("a.txt", b"1")
        with pytest.raises(FileRefused):
            await ctx.save_file("a.exe", b"1")
        ctx.send_message((await file.read()).decode(), files=[file, *ctx.files])
        ctx.send_message(" ".join([(await one.read()).decode() for one in [file, *ctx.files]]))

    async with serving(pipeline, folder, files_types=["text/*"]) as client:
        part = {"type": "file", "file": {"file_data": "data:text/plain;base64,Mg==", "filename": "b.txt"}}
        content = [{"type": "text", "text": "### Task:\nlook"}, part]
        body = {"model": "m", "user": "ann", "messages": [{"role": "user", "content": content}]}
        answer = await client.post("/v1/chat/completions", json=body, headers={"x-openwebui-user-id": "u"})
        assert answer.json()["choices"][0]["message"]["content"] == "1\n\n1 2"
    assert kept(folder) == []


def test_a_test_of_a_pipeline_reads_what_it_sent() -> None:
    context = ThreadContext.for_test("go")
    asyncio.run(report(context))
    files, message = context.outgoing_events
    assert files.event_data == {
        "message_id": str(message.event_id),
        "files": [{"file_id": "file-1", "name": "report.csv", "type": "text/csv", "size": len(CONTENT)}],
    }
    plain = ThreadContext.for_test("go")
    report_plainly(plain)
    assert [event.event_type for event in plain.outgoing_events] == ["message.files", "comm.assistant_message"]
