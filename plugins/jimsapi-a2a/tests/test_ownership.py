"""Whose task and context it is: other callers get the same answers as for something that does not exist."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from a2a_calls import VERSION, call, error, result, send, state, text_message, texts

from jimsapi import ThreadContext, create_api
from jimsapi.asgi.testing import TestClient

pytestmark = pytest.mark.anyio

PERSON = "x-person"


async def pipeline(ctx: ThreadContext) -> None:
    said = str(ctx.get_last_user_message())
    if said == "refund":
        ctx.send_message("refund: " + await ctx.ask("refund", "Refund?", options=["yes", "no"]))
    elif said == "approve":
        answer = await ctx.ask("approve", "Approve?", answerable_by="scope:threads", stays_open=True)
        ctx.send_message(f"approved: {answer}")
    else:
        ctx.send_message(" ".join(str(one["content"]) for one in ctx.history))


@pytest.fixture
async def client(people: None) -> AsyncIterator[TestClient]:
    async with TestClient(create_api(pipeline, store="memory:", a2a_contact_header=PERSON)) as client:
        yield client


def user(name: str, **headers: str) -> dict[str, str]:
    return {"x_user": name, **headers}


OTHERS = ["bea", "talker", "blank"]


@pytest.mark.parametrize("other", OTHERS)
async def test_a_task_of_another_caller_is_not_found_by_any_method(client: TestClient, other: str) -> None:
    task = await send(client, "refund", headers=user("ann"))
    unknown = "01a22963-ad8a-76e8-9ceb-d1af8a66d99f"
    for method in ("GetTask", "CancelTask", "SubscribeToTask"):
        found = await error(client, method, {"id": task["id"]}, **user(other))
        as_unknown = await error(client, method, {"id": unknown}, **user(other))
        assert found["code"] == as_unknown["code"] == -32001
        assert found["message"].replace(task["id"], "") == as_unknown["message"].replace(unknown, "")
    answering = text_message("yes", taskId=task["id"])
    assert (await error(client, "SendMessage", answering, **user(other)))["code"] == -32001
    assert (await error(client, "SendStreamingMessage", answering, **user(other)))["code"] == -32001
    assert state(await result(client, "GetTask", {"id": task["id"]}, **user("ann"))) == "INPUT_REQUIRED"


@pytest.mark.parametrize("other", OTHERS)
async def test_a_task_of_another_caller_is_not_found_by_http(client: TestClient, other: str) -> None:
    task = await send(client, "refund", headers=user("ann"))
    headers = {**VERSION, "x-user": other}
    path = f"/a2a/tasks/{task['id']}"
    answers = [
        await client.get(path, headers=headers),
        await client.get(f"{path}:subscribe", headers=headers),
        await client.post(f"{path}:subscribe", headers=headers),
        await client.post(f"{path}:cancel", headers=headers),
    ]
    assert [answer.status_code for answer in answers] == [404] * 4
    assert {answer.json()["error"]["details"][0]["reason"] for answer in answers} == {"TASK_NOT_FOUND"}


@pytest.mark.parametrize("other", OTHERS)
async def test_a_context_of_another_caller_is_as_one_that_does_not_exist(client: TestClient, other: str) -> None:
    task = await send(client, "my secret", headers=user("ann"))
    context = task["contextId"]
    found = await error(client, "SendMessage", text_message("hi", contextId=context), **user(other))
    gone = "01a22963-ad8a-76e8-9ceb-d1af8a66d99f"
    unknown = await error(client, "SendMessage", text_message("hi", contextId=gone), **user(other))
    assert found["code"] == unknown["code"] == -32602
    assert found["message"].replace(context, "") == unknown["message"].replace(gone, "")
    assert (await result(client, "ListTasks", {"contextId": context}, **user(other)))["tasks"] == []
    assert texts(await send(client, "hi", contextId=context, headers=user("ann"))) == ["my secret my secret hi"]


async def test_equal_names_of_contexts_are_those_of_each_caller(client: TestClient) -> None:
    for name in ("ann", "bea", "talker", "root"):
        assert texts(await send(client, f"of {name}", contextId="c", headers=user(name))) == [f"of {name}"]
    for name in ("ann", "bea", "talker", "root"):
        listed = await result(client, "ListTasks", {"contextId": "c", "includeArtifacts": True}, **user(name))
        assert [texts(task) for task in listed["tasks"]] == [[f"of {name}"]]


async def test_equal_identifiers_of_messages_are_those_of_each_caller(client: TestClient) -> None:
    for name in ("ann", "bea", "talker"):
        for _ in range(2):
            assert texts(await send(client, f"of {name}", message_id="m", headers=user(name))) == [f"of {name}"]


async def test_an_identifier_of_a_message_may_occur_in_each_context_of_a_contact(client: TestClient) -> None:
    for headers in (user("ann"), user("talker", x_person="ann")):
        first, second = [
            await send(client, "of ann", message_id="m", contextId=name, headers=headers) for name in ("c", "d")
        ]
        assert (first["contextId"], second["contextId"]) == ("c", "d")
        asked = [await send(client, "refund", message_id="r", contextId=name, headers=headers) for name in ("c", "d")]
        for task, answer in zip(asked, ("yes", "no"), strict=True):
            done = await send(client, answer, message_id="a", taskId=task["id"], headers=headers)
            assert texts(done) == [f"refund: {answer}"]


async def test_people_behind_one_caller_have_contexts_of_their_own(client: TestClient) -> None:
    of_ann = user("talker", x_person="ann")
    of_bea = user("talker", x_person="bea")
    first = await send(client, "of ann", contextId="c", headers=of_ann)
    assert texts(await send(client, "of bea", contextId="c", headers=of_bea)) == ["of bea"]
    assert (await error(client, "GetTask", {"id": first["id"]}, **of_bea))["code"] == -32001
    assert len((await result(client, "ListTasks", {}, **of_bea))["tasks"]) == 1
    own = await send(client, "of ann too", headers=of_ann)
    refused = await error(client, "SendMessage", text_message("x", contextId=own["contextId"]), **of_bea)
    assert refused["code"] == -32602


async def test_a_list_has_the_tasks_that_the_caller_may_see(client: TestClient) -> None:
    ids = {name: (await send(client, f"of {name}", headers=user(name)))["id"] for name in ("ann", "bea", "talker")}
    for name, task_id in ids.items():
        listed = await result(client, "ListTasks", {}, **user(name))
        assert ([task["id"] for task in listed["tasks"]], listed["totalSize"]) == ([task_id], 1)
    of_root = await result(client, "ListTasks", {}, **user("root"))
    assert {task["id"] for task in of_root["tasks"]} == set(ids.values())


async def test_a_bound_caller_stays_bound_whatever_a_header_says(client: TestClient) -> None:
    task = await send(client, "of ann", headers=user("ann", x_person="bea"))
    threads = (await client.get("/api/v1/threads", params={"contact_id": "ann"}, headers={"x-user": "ann"})).json()
    assert [thread["thread_id"] for thread in threads["threads"]] == [task["contextId"]]


async def test_another_caller_with_the_right_answers_and_the_owner_reads_the_rest(client: TestClient) -> None:
    task = await send(client, "approve", headers=user("talker"))
    denied = await error(client, "SendMessage", text_message("yes", taskId=task["id"]), **user("talker"))
    assert denied["data"][0]["reason"] == "PERMISSION_DENIED"
    run = (await client.get(f"/api/v1/runs/{task['id']}", headers={"x-user": "talker"})).json()
    question = run["result"]["questions"][0]["question_id"]
    body = {"contact_id": "boss", "thread_id": run["thread_id"], "answers": {question: "yes"}}
    answered = await client.post("/api/v1/chat", json=body, headers={"x-user": "root"})
    assert answered.status_code == 200, answered.text
    done = await result(client, "GetTask", {"id": task["id"]}, **user("talker"))
    assert (state(done), texts(done)) == ("COMPLETED", ["approved: yes"])
    listed = await result(client, "ListTasks", {}, **user("talker"))
    assert [one["id"] for one in listed["tasks"]] == [task["id"]]
    assert (await error(client, "GetTask", {"id": answered.headers["x-run-id"]}, **user("bea")))["code"] == -32001


async def test_who_answers_a_question_does_not_see_the_task_of_another_caller(client: TestClient) -> None:
    task = await send(client, "refund", headers=user("ann"))
    run = (await client.get(f"/api/v1/runs/{task['id']}", headers={"x-user": "ann"})).json()
    question = run["result"]["questions"][0]["question_id"]
    body = {"contact_id": "ann", "thread_id": run["thread_id"], "answers": {question: "yes"}}
    answered = await client.post("/api/v1/chat", json=body, headers={"x-user": "talker"})
    assert answered.status_code == 200, answered.text
    for task_id in (task["id"], answered.headers["x-run-id"]):
        assert (await error(client, "GetTask", {"id": task_id}, **user("talker")))["code"] == -32001
    assert (await result(client, "ListTasks", {}, **user("talker")))["tasks"] == []
    assert state(await result(client, "GetTask", {"id": task["id"]}, **user("ann"))) == "COMPLETED"


CALLS: list[tuple[str, str, Any]] = [
    ("POST", "/a2a", {"jsonrpc": "2.0", "id": 1, "method": "GetTask", "params": {"id": "x"}}),
    ("POST", "/a2a/message:send", text_message("hi")),
    ("POST", "/a2a/message:stream", text_message("hi")),
    ("GET", "/a2a/tasks", None),
    ("GET", "/a2a/tasks/x", None),
    ("POST", "/a2a/tasks/x:cancel", None),
    ("POST", "/a2a/tasks/x:subscribe", None),
    ("GET", "/a2a/extendedAgentCard", None),
]


@pytest.mark.parametrize(("method", "path", "body"), CALLS)
async def test_who_may_not_chat_is_refused(client: TestClient, method: str, path: str, body: Any) -> None:
    async def status(**headers: str) -> httpx.Response:
        return await client.request(method, path, json=body, headers={**VERSION, **headers})

    for name, expected in (("reader", 403), ("nobody", 403), ("denied", 403), ("wrong", 401), ("down", 503)):
        assert (await status(**{"x-user": name})).status_code == expected
    unknown = await status()
    assert unknown.status_code == 401
    assert unknown.headers["www-authenticate"]
    error_of = unknown.json()["error"]
    assert error_of["message"]
    assert (error_of["code"] == -32000) if path == "/a2a" else (error_of["status"] == "UNAUTHENTICATED")


async def test_the_card_is_public(client: TestClient) -> None:
    assert (await client.get("/.well-known/agent-card.json")).status_code == 200
    assert (await call(client, "GetTask", {"id": "x"})).status_code == 401
