"""What goes over the wire: tasks, their streams, and whose answer a repeated message gets."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import httpx
import pytest
from a2a_calls import VERSION, call, error, events, result, send, state, stream, summary, text_message, texts

from jimsapi import create_api
from jimsapi.asgi.testing import TestClient
from tests.apps.scripted import Scripted

pytestmark = pytest.mark.anyio


@pytest.fixture
def bot() -> Scripted:
    return Scripted()


@pytest.fixture
async def client(bot: Scripted) -> AsyncIterator[TestClient]:
    async with TestClient(create_api(bot, store="memory:")) as client:
        yield client


async def test_a_message_is_answered_by_a_task_with_artifacts(client: TestClient) -> None:
    task = await send(client, 'send Hello; source https://a.example; own report.made {"n": 1}', message_id="m-1")
    assert UUID(task["id"]) != UUID(task["contextId"])
    assert state(task) == "COMPLETED"
    assert task["status"]["timestamp"].endswith("Z")
    assert [artifact.get("name") for artifact in task["artifacts"]] == [None, "answer.source", "report.made"]
    assert [artifact["parts"] for artifact in task["artifacts"]] == [
        [{"text": "Hello"}],
        [{"data": {"url": "https://a.example", "title": None}, "mediaType": "application/json"}],
        [{"data": {"n": 1}, "mediaType": "application/json"}],
    ]
    named = {"taskId": task["id"], "contextId": task["contextId"]}
    [said] = task["history"]
    assert said == {"messageId": "m-1", "role": "ROLE_USER", "parts": said["parts"], **named}
    assert await result(client, "GetTask", {"id": task["id"]}) == task


async def test_thoughts_tools_and_state_are_not_shown_but_usage_is(client: TestClient) -> None:
    task = await send(client, "think Hm; tool search; own state.set.x; use 7; buttons Well?")
    assert [artifact["parts"] for artifact in task["artifacts"]] == [
        [{"text": "Well?"}],
        [{"data": {"buttons": ["Yes"]}, "mediaType": "application/json"}],
    ]
    assert task["metadata"] == {"usage": [{"model": "m", "inputTokens": 7, "outputTokens": 1}]}


async def test_a_stream_begins_with_the_task_and_ends_with_its_last_state(client: TestClient) -> None:
    found = await stream(client, "status Looking; stream Hel; stream lo; send Bye; event 1")
    assert summary(found) == [
        "task WORKING",
        "statusUpdate WORKING Looking",
        "Hel",
        "+lo",
        "+.",
        "Bye",
        "+.",
        ".{'text': '1'}",
        "statusUpdate COMPLETED",
    ]
    task = await result(client, "GetTask", {"id": found[0]["task"]["id"]})
    assert texts(task) == ["Hello", "Bye"]
    streamed = {event["artifactUpdate"]["artifact"]["artifactId"] for event in found if "artifactUpdate" in event}
    assert streamed == {artifact["artifactId"] for artifact in task["artifacts"]}


async def test_a_context_continues_a_thread(client: TestClient) -> None:
    first = await send(client, "send one")
    second = await send(client, "see", contextId=first["contextId"])
    assert second["contextId"] == first["contextId"]
    assert texts(second) == ['["send one", "see"]']
    other = await send(client, "see")
    assert texts(other) == ['["see"]']
    assert other["contextId"] != first["contextId"]


@pytest.mark.parametrize("name", ["ctx", "ü ☕ / ? #", "x" * 255, "11111111-2222-4333-8444-555555555555"])
async def test_a_name_that_the_client_gives_a_context_is_kept(client: TestClient, name: str) -> None:
    assert (await send(client, "send one", contextId=name))["contextId"] == name
    second = await send(client, "see", contextId=name)
    assert (second["contextId"], texts(second)) == (name, ['["send one", "see"]'])
    assert (await result(client, "GetTask", {"id": second["id"]}))["contextId"] == name
    found = await stream(client, "send x", contextId=name)
    assert {next(iter(event.values()))["contextId"] for event in found} == {name}
    listed = await result(client, "ListTasks", {"contextId": name})
    assert {task["contextId"] for task in listed["tasks"]} == {name}
    assert listed["totalSize"] == 3


async def test_an_unknown_context_of_this_server_is_refused_and_not_replaced(client: TestClient) -> None:
    first = await send(client, "send one")
    gone = first["contextId"]
    assert (await client.delete(f"/api/v1/threads/{gone}")).status_code < 300
    refused = await error(client, "SendMessage", text_message("see", contextId=gone))
    assert (refused["code"], refused["data"][1]["fieldViolations"][0]["field"]) == (-32602, "message.contextId")


async def test_a_repeated_message_is_answered_once(client: TestClient, bot: Scripted) -> None:
    first = await send(client, "send one", message_id="once")
    assert await send(client, "send one", message_id="once") == first
    assert [event["task"] for event in await stream(client, "send one", message_id="once")] == [first]
    assert bot.texts == ["send one"]
    await send(client, "send two", message_id="in context", contextId="c")
    changed = await error(client, "SendMessage", text_message("send three", message_id="in context", contextId="c"))
    assert changed["code"] == -32602
    assert bot.texts == ["send one", "send two"]


@pytest.mark.parametrize(
    "changed",
    [
        {"parts": [{"text": "send other"}]},
        {"parts": [{"text": "send one"}, {"data": 1}]},
        {"metadata": {"a": 2}},
        {"contextId": "c"},
    ],
)
async def test_a_message_without_a_context_is_repeated_only_with_its_whole_content(
    client: TestClient, changed: dict[str, Any]
) -> None:
    message: dict[str, Any] = {"message_id": "1", "metadata": {"a": 1}}
    first = await send(client, "send one", **message)
    other = await send(client, "send one", **{**message, **changed})
    assert (other["id"] != first["id"], other["contextId"] != first["contextId"]) == (True, True)
    assert await send(client, "send one", configuration={"historyLength": 5}, **message) == first
    assert await send(client, "send one", **{**message, **changed}) == other


async def test_an_identifier_of_a_message_is_unique_within_its_context(client: TestClient) -> None:
    tasks = [await send(client, f"send {name}", message_id="1", contextId=name) for name in ("c", "d")]
    assert [texts(task) for task in tasks] == [["c"], ["d"]]
    by_identifier = await send(client, "send e")
    again = await send(client, "send f", message_id="1", contextId=by_identifier["contextId"])
    refused = await error(client, "SendMessage", text_message("g", message_id="1", contextId=again["contextId"]))
    assert refused["code"] == -32602
    assert refused["message"].startswith("message.messageId: ")


async def test_requests_at_once_with_one_message_are_one_task(client: TestClient, bot: Scripted) -> None:
    sending = [asyncio.create_task(send(client, "hold door; send done", message_id="m")) for _ in range(10)]
    streaming = [asyncio.create_task(stream(client, "hold door; send done", message_id="m")) for _ in range(5)]
    await bot.reached["door"].wait()
    bot.opened["door"].set()
    tasks = [await one for one in sending]
    assert all(task == tasks[0] for task in tasks)
    assert {summary(await one)[-1] for one in streaming} <= {"statusUpdate COMPLETED", "task COMPLETED"}
    assert bot.texts == ["hold door; send done"]


async def test_an_answer_at_once_is_a_task_that_goes_on(client: TestClient, bot: Scripted) -> None:
    task = await send(client, "hold door; send done", configuration={"returnImmediately": True})
    assert state(task) in ("SUBMITTED", "WORKING")
    await bot.reached["door"].wait()
    assert state(await result(client, "GetTask", {"id": task["id"]})) == "WORKING"
    bot.opened["door"].set()
    waiting = await call(client, "SubscribeToTask", {"id": task["id"]})
    if "error" not in waiting.text:
        assert summary(events(waiting))[-1] == "statusUpdate COMPLETED"
    assert texts(await result(client, "GetTask", {"id": task["id"]})) == ["done"]


async def test_a_message_behind_another_is_submitted_and_then_worked_on(client: TestClient, bot: Scripted) -> None:
    first = await send(client, "hold door", contextId="c", configuration={"returnImmediately": True})
    await bot.reached["door"].wait()
    second = await send(client, "send two", contextId="c", configuration={"returnImmediately": True})
    assert [state(first) != "SUBMITTED", state(second)] == [True, "SUBMITTED"]
    watching = asyncio.create_task(call(client, "SubscribeToTask", {"id": second["id"]}))
    bot.opened["door"].set()
    assert summary(events(await watching)) == [
        "task SUBMITTED",
        "statusUpdate WORKING",
        "two",
        "+.",
        "statusUpdate COMPLETED",
    ]


async def test_subscribing_shows_a_task_from_its_beginning(client: TestClient, bot: Scripted) -> None:
    sending = asyncio.create_task(stream(client, "stream Hel; hold door; stream lo", contextId="c"))
    await bot.reached["door"].wait()
    [task] = (await result(client, "ListTasks", {"contextId": "c"}))["tasks"]
    watching = asyncio.create_task(call(client, "SubscribeToTask", {"id": task["id"]}))
    while not watching.done() and len(bot.opened) < 2:
        bot.opened["door"].set()
        await asyncio.sleep(0)
    assert summary(await sending) == summary(events(await watching)) == [
        "task WORKING", "Hel", "+lo", "+.", "statusUpdate COMPLETED",
    ]  # fmt: skip
    refused = await error(client, "SubscribeToTask", {"id": task["id"]})
    assert refused["code"] == -32004


async def test_a_task_is_cancelled_once(client: TestClient, bot: Scripted) -> None:
    sending = asyncio.create_task(send(client, "send never stored; hold door", contextId="c"))
    await bot.reached["door"].wait()
    [task] = (await result(client, "ListTasks", {"contextId": "c"}))["tasks"]
    cancelled = await result(client, "CancelTask", {"id": task["id"]})
    assert (state(cancelled), cancelled["artifacts"]) == ("CANCELED", [])
    assert state(await sending) == "CANCELED"
    assert (await error(client, "CancelTask", {"id": task["id"]}))["code"] == -32002


async def test_a_task_that_waits_is_cancelled_without_entering_the_thread(client: TestClient, bot: Scripted) -> None:
    await send(client, "hold door", contextId="c", configuration={"returnImmediately": True})
    await bot.reached["door"].wait()
    waiting = await send(client, "send two", contextId="c", configuration={"returnImmediately": True})
    assert state(await result(client, "CancelTask", {"id": waiting["id"]})) == "CANCELED"
    bot.opened["door"].set()
    assert texts(await send(client, "see", contextId="c")) == ['["hold door", "see"]']


async def test_a_failed_task_says_why(client: TestClient) -> None:
    task = await send(client, "send never stored; raise oh")
    assert (state(task), task["artifacts"]) == ("FAILED", [])
    assert task["status"]["message"]["parts"] == [{"text": "Pipeline error: oh"}]
    assert task["status"]["message"]["role"] == "ROLE_AGENT"
    found = await stream(client, "stream Hel; raise oh")
    assert summary(found)[-1] == "statusUpdate FAILED Pipeline error: oh"


async def test_a_message_to_a_task_that_has_ended_is_refused(client: TestClient) -> None:
    task = await send(client, "send one")
    refused = await error(client, "SendMessage", text_message("send two", taskId=task["id"]))
    assert refused["code"] == -32004
    assert task["contextId"] in refused["message"] or "contextId" in refused["message"]


async def test_a_message_to_a_task_that_is_worked_on_is_refused(client: TestClient, bot: Scripted) -> None:
    task = await send(client, "hold door", configuration={"returnImmediately": True})
    assert (await error(client, "SendMessage", text_message("x", taskId=task["id"])))["code"] == -32004
    bot.opened["door"].set()


@pytest.mark.parametrize("task_id", ["", "x", "01a22963-ad8a-76e8-9ceb-d1af8a66d99f", "x" * 5000, "🙂", "../../etc"])
async def test_an_unknown_task_is_not_found(client: TestClient, task_id: str) -> None:
    for method in ("GetTask", "CancelTask", "SubscribeToTask"):
        found = await error(client, method, {"id": task_id})
        assert (found["code"], found["data"][0]["reason"]) == (-32001, "TASK_NOT_FOUND")
        assert len(found["message"]) < 300
    if task_id:
        assert (await error(client, "SendMessage", text_message("x", taskId=task_id)))["code"] == -32001


async def test_the_history_is_as_long_as_the_client_wants(client: TestClient) -> None:
    task = await send(client, "send one", configuration={"historyLength": 0})
    assert "history" not in task
    for length, count in ((None, 1), (0, 0), (1, 1), (5, 1)):
        shown = await result(client, "GetTask", {"id": task["id"], "historyLength": length})
        assert len(shown.get("history", [])) == count
    begun = events(await call(client, "SendStreamingMessage", {
        **text_message("send x"), "configuration": {"historyLength": 0},
    }))  # fmt: skip
    assert "history" not in begun[0]["task"]
    assert (await error(client, "GetTask", {"id": task["id"], "historyLength": -1}))["code"] == -32602


async def test_the_pipeline_reads_metadata_and_data(client: TestClient) -> None:
    parts = [{"text": "metadata"}]
    sent = text_message("", parts=parts, metadata={"a": 1}, extensions=["https://x.example/1"], referenceTaskIds=["t"])
    sent["metadata"] = {"a": 0, "b": 2}
    sent["configuration"] = {"acceptedOutputModes": ["text/plain"]}
    [seen] = texts((await result(client, "SendMessage", sent))["task"])
    assert json.loads(seen) == {
        "metadata": {"a": 1, "b": 2},
        "extensions": ["https://x.example/1"],
        "referenceTaskIds": ["t"],
        "acceptedOutputModes": ["text/plain"],
    }


async def test_data_is_a_text_for_models_too(client: TestClient, bot: Scripted) -> None:
    task = await send(client, "", parts=[{"text": "send ok"}, {"data": {"n": [1, None]}}, {"data": None}])
    assert bot.texts == ['send ok\n{"n":[1,null]}\nnull']
    assert state(task) == "COMPLETED"


async def test_a_busy_context_is_a_conflict(bot: Scripted) -> None:
    async with TestClient(create_api(bot, store="memory:", thread_busy="reject")) as client:
        held = asyncio.create_task(send(client, "hold door", contextId="c"))
        await bot.reached["door"].wait()
        refused = await error(client, "SendMessage", text_message("x", contextId="c"))
        assert (refused["code"], refused["data"][0]["reason"]) == (-32000, "CONTEXT_BUSY")
        by_http = await client.post("/a2a/message:send", json=text_message("x", contextId="c"), headers=VERSION)
        assert (by_http.status_code, by_http.json()["error"]["status"]) == (409, "ABORTED")
        assert by_http.headers["retry-after"] == "1"
        bot.opened["door"].set()
        await held


async def test_a_message_that_waits_too_long_is_rejected(bot: Scripted) -> None:
    async with TestClient(create_api(bot, store="memory:", queue_timeout=0.05)) as client:
        held = asyncio.create_task(send(client, "hold door", contextId="c"))
        await bot.reached["door"].wait()
        waited = await send(client, "send two", contextId="c", message_id="late")
        streamed = await stream(client, "send three", contextId="c")
        bot.opened["door"].set()
        await held
        assert state(waited) == "REJECTED"
        assert "send this one again" in waited["status"]["message"]["parts"][0]["text"]
        assert summary(streamed)[-1].startswith("statusUpdate REJECTED")
        assert texts(await send(client, "send two", contextId="c", message_id="late")) == ["two"]


async def test_a_limit_is_answered_with_the_time_to_wait(bot: Scripted) -> None:
    async with TestClient(create_api(bot, store="memory:", rate_limit="1/min")) as client:
        assert "ratelimit" in (await call(client, "SendMessage", text_message("send x", contextId="c"))).headers
        response = await call(client, "SendMessage", text_message("send x", contextId="c"))
        assert (response.status_code, response.json()["error"]["data"][0]["reason"]) == (200, "RATE_LIMITED")
        assert int(response.headers["retry-after"]) > 0
        by_http = await client.post("/a2a/message:send", json=text_message("x", contextId="c"), headers=VERSION)
        assert (by_http.status_code, by_http.json()["error"]["status"]) == (429, "RESOURCE_EXHAUSTED")


@pytest.mark.parametrize("by_http", [False, True])
async def test_each_new_receiver_of_a_task_that_has_ended_counts_as_a_message(bot: Scripted, by_http: bool) -> None:
    async def create(task_id: str) -> httpx.Response:
        config = {"id": "r", "url": "http://127.0.0.1:1/"}
        if by_http:
            return await served.post(f"/a2a/tasks/{task_id}/pushNotificationConfigs", json=config, headers=VERSION)
        return await call(served, "CreateTaskPushNotificationConfig", {"taskId": task_id, **config})

    limits: dict[str, Any] = {"rate_limit": "3/day", "contact_runs": 1, "webhook_allow_private": True}
    async with TestClient(create_api(bot, store="memory:", **limits)) as served:
        task = await send(served, "send x", contextId="c")
        named = {"taskId": task["id"], "id": "r"}
        for _ in range(2):
            assert "error" not in (await create(task["id"])).json()
            assert (await result(served, "GetTaskPushNotificationConfig", named))["id"] == "r"
            await result(served, "DeleteTaskPushNotificationConfig", named)
        refused = await create(task["id"])
        assert (refused.status_code, refused.json()["error"]["code"]) == ((429, 429) if by_http else (200, -32000))
        assert int(refused.headers["retry-after"]) > 0
        assert (await result(served, "ListTaskPushNotificationConfigs", {"taskId": task["id"]}))["configs"] == []
        assert (await error(served, "SendMessage", text_message("send y", contextId="c")))["code"] == -32000
        other = await send(served, "send z", contextId="d")
        assert state(other) == "COMPLETED"


async def test_a_receiver_can_be_added_while_the_only_run_of_a_contact_is_open(bot: Scripted) -> None:
    async with TestClient(create_api(bot, store="memory:", contact_runs=1, webhook_allow_private=True)) as client:
        at_once = {"returnImmediately": True}
        task = await send(client, "hold door; send done", contextId="c", configuration=at_once)
        await bot.reached["door"].wait()
        config = {"taskId": task["id"], "url": "http://127.0.0.1:1/"}
        assert (await result(client, "CreateTaskPushNotificationConfig", config))["taskId"] == task["id"]
        bot.opened["door"].set()


async def test_a_run_of_the_chat_api_is_a_task_too(client: TestClient) -> None:
    answer = await client.post("/api/v1/chat", json={"contact_id": "ann", "message": "send Hello"})
    run_id, thread_id = answer.headers["x-run-id"], answer.json()["thread_id"]
    task = await result(client, "GetTask", {"id": run_id})
    assert (task["contextId"], texts(task)) == (thread_id, ["Hello"])
    assert texts(await send(client, "see", contextId=thread_id)) == ['["send Hello", "see"]']


async def test_private_events_are_not_shown(bot: Scripted) -> None:
    from jimsapi import JimsApp

    async with TestClient(create_api(JimsApp(bot, private_events=("report.*",)), store="memory:")) as client:
        task = await send(client, "own report.made; send ok")
        assert texts(task) == ["ok"]
        assert len(task["artifacts"]) == 1


def pages(found: Any) -> list[str]:
    """The first texts of the tasks of a page."""
    return [task["history"][0]["parts"][0]["text"] for task in found["tasks"]]


async def test_tasks_are_listed_in_pages_newest_first(client: TestClient) -> None:
    for number in range(5):
        await send(client, f"send {number}", contextId="c")
    await send(client, "send other", contextId="d")
    first = await result(client, "ListTasks", {"contextId": "c", "pageSize": 2})
    assert (pages(first), first["pageSize"], first["totalSize"]) == (["send 4", "send 3"], 2, 5)
    assert all("artifacts" not in task for task in first["tasks"])
    second = await result(
        client,
        "ListTasks",
        {"contextId": "c", "pageSize": 2, "pageToken": first["nextPageToken"], "includeArtifacts": True},
    )
    assert [texts(task) for task in second["tasks"]] == [["2"], ["1"]]
    third = await result(client, "ListTasks", {"contextId": "c", "pageSize": 2, "pageToken": second["nextPageToken"]})
    assert (pages(third), third["nextPageToken"], third["totalSize"]) == (["send 0"], "", 5)
    unknown = await result(client, "ListTasks", {"contextId": "unknown"})
    assert unknown == {"tasks": [], "nextPageToken": "", "pageSize": 50, "totalSize": 0}


async def test_tasks_are_listed_by_state_and_time(client: TestClient, bot: Scripted) -> None:
    done = await send(client, "send done", contextId="c")
    failed = await send(client, "raise oh", contextId="c")
    held = await send(client, "hold door", contextId="c", configuration={"returnImmediately": True})
    await bot.reached["door"].wait()
    waits = await send(client, "send later", contextId="c", configuration={"returnImmediately": True})
    by_state = {
        name: [task["id"] for task in (await result(client, "ListTasks", {"contextId": "c", "status": name}))["tasks"]]
        for name in (
            "TASK_STATE_COMPLETED", "TASK_STATE_FAILED", "TASK_STATE_WORKING", "TASK_STATE_SUBMITTED",
            "TASK_STATE_CANCELED", "TASK_STATE_INPUT_REQUIRED", "TASK_STATE_REJECTED", "TASK_STATE_AUTH_REQUIRED",
        )
    }  # fmt: skip
    assert list(by_state.values()) == [[done["id"]], [failed["id"]], [held["id"]], [waits["id"]], [], [], [], []]
    since = {"contextId": "c", "statusTimestampAfter": failed["status"]["timestamp"]}
    listed = {task["id"] for task in (await result(client, "ListTasks", since))["tasks"]}
    assert {failed["id"], held["id"], waits["id"]} <= listed
    assert (await result(client, "ListTasks", {"contextId": "c", "statusTimestampAfter": "2999-01-01T00:00:00Z"}))[
        "tasks"
    ] == []
    bot.opened["door"].set()


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"pageSize": 0}, "pageSize"),
        ({"pageSize": 101}, "pageSize"),
        ({"pageSize": "many"}, "pageSize"),
        ({"historyLength": -5}, "historyLength"),
        ({"status": "TASK_STATE_RUNNING"}, "status"),
        ({"statusTimestampAfter": "yesterday"}, "statusTimestampAfter"),
        ({"pageToken": "x"}, "pageToken"),
        ({"pageToken": "1.x"}, "pageToken"),
        ({"contextId": 1}, "contextId"),
    ],
)
async def test_a_faulty_list_names_its_fault(client: TestClient, params: dict[str, Any], field: str) -> None:
    await send(client, "send x", contextId="c")
    found = await error(client, "ListTasks", {"contextId": "c", **params})
    assert found["code"] == -32602
    assert [fault["field"] for fault in found["data"][1]["fieldViolations"]] == [field]


async def test_an_open_server_lists_no_tasks_of_all_contexts(client: TestClient) -> None:
    assert (await error(client, "ListTasks", {}))["code"] == -32602
