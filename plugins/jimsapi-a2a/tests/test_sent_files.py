"""Files that the agent sends: artifacts with their content or their URL, the same by every method."""

import json
from base64 import b64decode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from a2a_calls import error, result, send, stream, text_message
from jimsapi_a2a.files import MAX_RAW

from jimsapi import JimsApp, ThreadContext, create_api
from jimsapi.asgi.testing import TestClient
from tests.runs.receiver import Receiver

pytestmark = pytest.mark.anyio

SMALL, LARGE = b"\x89PNG small", b"x" * (MAX_RAW + 1)
TALKER = {"x_user": "talker"}


async def pipeline(ctx: ThreadContext) -> None:
    text = str(ctx.get_last_user_message())
    if text == "again":
        ctx.send_message("", files=ctx.files)
        return
    if text == "ask":
        await ctx.ask("sure", "Sure?", options=["yes", "no"])
    small = await ctx.save_file("chart.png", SMALL)
    large = await ctx.save_file("report.csv", LARGE)
    await ctx.stream("Here ")
    ctx.send_message("Here they are", files=[small, large])


@pytest.fixture
async def client(people: None, tmp_path: Path) -> AsyncIterator[TestClient]:
    options: dict[str, Any] = {"files_store": f"file:{tmp_path}/files", "webhook_allow_private": True}
    async with TestClient(create_api(pipeline, store="memory:", **options)) as client:
        yield client


def files_of(artifacts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of the artifacts that are files."""
    return [artifact for artifact in artifacts if "filename" in artifact["parts"][0]]


async def read(client: httpx.AsyncClient, part: dict[str, Any], user: str) -> httpx.Response:
    assert part["url"].startswith("http://testserver/api/v1/files/")
    return await client.get(part["url"], headers={"x-user": user})


async def test_a_small_file_is_in_its_artifact_and_a_large_one_has_a_url_for_its_caller_alone(
    client: TestClient,
) -> None:
    task = await send(client, "go", headers=TALKER)
    assert [artifact["parts"][0].get("text") for artifact in task["artifacts"]] == ["Here they are", None, None]
    small, large = files_of(task["artifacts"])
    [part] = small["parts"]
    assert (small["name"], part["filename"], part["mediaType"]) == ("chart.png", "chart.png", "image/png")
    assert b64decode(part["raw"], validate=True) == SMALL
    [part] = large["parts"]
    assert (part["filename"], part["mediaType"], "raw" in part) == ("report.csv", "text/csv", False)
    statuses = {user: (await read(client, part, user)).status_code for user in ("talker", "ann", "ann-talks", "root")}
    assert statuses == {"talker": 200, "ann": 404, "ann-talks": 404, "root": 200}
    assert (await read(client, part, "talker")).content == LARGE
    for user in ("ann", "ann-talks"):
        assert (await error(client, "GetTask", {"id": task["id"]}, x_user=user))["code"] == -32001


async def test_a_bound_caller_reads_its_file_by_the_url(client: TestClient) -> None:
    task = await send(client, "go", headers={"x_user": "ann"})
    [part] = files_of(task["artifacts"])[1]["parts"]
    assert "?" not in part["url"]
    assert (await read(client, part, "ann")).content == LARGE
    assert (await read(client, part, "bea")).status_code == 404


async def test_every_method_shows_the_same_artifacts(client: TestClient) -> None:
    task = await send(client, "go", headers=TALKER)
    got = await result(client, "GetTask", {"id": task["id"]}, **TALKER)
    assert got["artifacts"] == task["artifacts"]
    listing = {"contextId": task["contextId"], "includeArtifacts": True}
    [listed] = (await result(client, "ListTasks", listing, **TALKER))["tasks"]
    assert listed["artifacts"] == task["artifacts"]
    [without] = (await result(client, "ListTasks", {"contextId": task["contextId"]}, **TALKER))["tasks"]
    assert "artifacts" not in without


async def test_a_page_of_tasks_has_the_content_of_few_files(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jimsapi_a2a.listing.MAX_RAW_OF_LIST", len(SMALL) + 1)
    first = await send(client, "go", headers=TALKER)
    second = await send(client, "go", contextId=first["contextId"], headers=TALKER)
    listing = {"contextId": first["contextId"], "includeArtifacts": True}
    newer, older = (await result(client, "ListTasks", listing, **TALKER))["tasks"]
    assert newer["artifacts"] == second["artifacts"]
    [part] = files_of(older["artifacts"])[0]["parts"]
    assert (await read(client, part, "talker")).content == SMALL


async def test_a_stream_has_the_artifacts_that_the_task_then_has(client: TestClient) -> None:
    events = await stream(client, "go", headers=TALKER)
    updates = [event["artifactUpdate"] for event in events if "artifactUpdate" in event]
    sent = [update for update in updates if "filename" in update["artifact"]["parts"][0]]
    assert [(update["append"], update["lastChunk"]) for update in sent] == [(False, True)] * 2
    got = await result(client, "GetTask", {"id": events[0]["task"]["id"]}, **TALKER)
    assert [update["artifact"] for update in sent] == files_of(got["artifacts"])
    assert "".join(one["artifact"]["parts"][0].get("text", "") for one in updates) == "Here they are"


async def test_a_push_notification_has_the_file(client: TestClient) -> None:
    async with Receiver() as receiver:
        params = text_message("go")
        params["configuration"] = {"taskPushNotificationConfig": {"url": receiver.url()}, "returnImmediately": True}
        task = (await result(client, "SendMessage", params, **TALKER))["task"]
        told = json.loads((await receiver.call()).body)["task"]
    got = await result(client, "GetTask", {"id": task["id"]}, **TALKER)
    [small, large], [got_small, got_large] = files_of(told["artifacts"]), files_of(got["artifacts"])
    assert small == got_small
    # The server does not know the host that the receiver would use, unless --a2a-url names it.
    assert "http://testserver" + large["parts"][0]["url"] == got_large["parts"][0]["url"]


async def test_the_url_of_an_artifact_names_the_file_in_the_next_message(client: TestClient) -> None:
    task = await send(client, "go", headers=TALKER)
    [part] = files_of(task["artifacts"])[1]["parts"]
    parts = [{"text": "again"}, {"url": part["url"]}]
    again = await send(client, "", parts=parts, contextId=task["contextId"], headers=TALKER)
    assert files_of(again["artifacts"])[0]["parts"] == [part]
    assert len(again["artifacts"]) == 1
    assert again["history"][0]["parts"][1]["url"] == part["url"]


async def test_the_answer_to_a_question_has_its_files(client: TestClient) -> None:
    asked = await send(client, "ask", headers=TALKER)
    assert files_of(asked["artifacts"]) == []
    task = await send(client, "yes", taskId=asked["id"], headers=TALKER)
    assert len(files_of(task["artifacts"])) == 2


async def test_a_file_that_was_deleted_is_still_named(client: TestClient) -> None:
    task = await send(client, "go", headers={"x_user": "ann"})
    for file in (await client.get("/api/v1/files", headers={"x-user": "ann"})).json()["files"]:
        await client.delete(f"/api/v1/files/{file['file_id']}", headers={"x-user": "ann"})
    got = await result(client, "GetTask", {"id": task["id"]}, x_user="ann")
    small = files_of(got["artifacts"])[0]["parts"][0]
    assert (small["filename"], (await read(client, small, "ann")).status_code) == ("chart.png", 404)


async def test_private_files_are_no_artifacts(tmp_path: Path) -> None:
    app = JimsApp(pipeline, private_events=("message.files",))
    async with TestClient(create_api(app, store="memory:", files_store=f"file:{tmp_path}")) as client:
        assert files_of((await send(client, "go"))["artifacts"]) == []
        assert "chart.png" not in str(await stream(client, "go"))
