"""Tasks: calls of clients that declare the extension, which ask for the state of their call."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from mcp_wire import FORMS, PATH, TASKS, chat, error, modern, result, text, tool

from jimsapi import JimsApp, ThreadContext, create_api
from jimsapi.asgi.testing import TestClient

pytestmark = pytest.mark.anyio

BOTH = {**TASKS, **FORMS}
OTHERS = {"admin": "scope:admin", "boss": "contact:the-boss"}


async def bot(ctx: ThreadContext) -> None:
    """Ask, wait, fail, or say the message."""
    said = str(ctx.get_last_user_message())
    if said == "twice":
        first = await ctx.ask("first", "First?", options=["a", "b"])
        second = await ctx.ask("second", "Second?")
        ctx.send_message(f"{first} {second}")
    elif said == "stay":
        ctx.send_message(f"So {await ctx.ask('stay', 'Still there?', stays_open=True)}")
    elif said in OTHERS:
        ctx.send_message(f"So {await ctx.ask(said, 'May I?', answerable_by=OTHERS[said])}")
    elif said == "wait":
        await asyncio.Event().wait()
    elif said == "fail":
        raise RuntimeError("no")
    else:
        ctx.send_message(f"heard {said}")


@pytest.fixture
async def client() -> AsyncIterator[TestClient]:
    async with TestClient(create_api(bot, store="memory:")) as client:
        yield client


async def begin(client: TestClient, message: str, capabilities: Mapping[str, Any] = BOTH, **options: Any) -> Any:
    call = modern("tools/call", chat(message), capabilities=capabilities, **options)
    task = result(await client.post(PATH, **call))
    assert task["resultType"] == "task", task
    return task


async def ask(client: TestClient, method: str, task: Any, capabilities: Mapping[str, Any] = BOTH, **params: Any) -> Any:
    call = modern(f"tasks/{method}", {"taskId": task["taskId"], **params}, capabilities=capabilities)
    return result(await client.post(PATH, **call))


async def settled(client: TestClient, task: Any, capabilities: Mapping[str, Any] = BOTH) -> Any:
    """The task, once nothing works on it."""
    async with asyncio.timeout(20):
        while (found := await ask(client, "get", task, capabilities))["status"] == "working":
            await asyncio.sleep(0.005)
    return found


def accepted(answer: Any) -> dict[str, Any]:
    return {"action": "accept", "content": {"answer": answer}}


async def test_a_call_of_a_client_with_tasks_is_a_task_at_once(client: TestClient) -> None:
    task = await begin(client, "wait")
    assert (task["status"], task["pollIntervalMs"] > 0, task["ttlMs"] > 0) == ("working", True, True)
    assert task["createdAt"].endswith("Z")
    run = (await client.get(f"/api/v1/runs/{task['taskId']}")).json()
    assert run["status"] in ("queued", "running")
    assert (await ask(client, "get", task))["status"] == "working"
    await ask(client, "cancel", task)


async def test_a_task_ends_with_the_result_of_the_call(client: TestClient) -> None:
    task = await begin(client, "hi")
    done = await settled(client, task)
    assert (done["resultType"], done["status"], done["taskId"]) == ("complete", "completed", task["taskId"])
    assert (text(done["result"]), done["result"]["isError"]) == ("heard hi", False)
    assert done["result"]["structuredContent"]["run_id"] == task["taskId"]


async def test_a_task_whose_pipeline_failed_is_completed_with_an_error_of_the_tool(client: TestClient) -> None:
    done = await settled(client, await begin(client, "fail"))
    assert (done["status"], done["result"]["isError"]) == ("completed", True)
    assert text(done["result"]) == "Pipeline error: no"


async def test_a_task_is_cancelled(client: TestClient) -> None:
    task = await begin(client, "wait")
    assert set(await ask(client, "cancel", task)) == {"resultType", "_meta"}
    assert (await settled(client, task))["status"] == "cancelled"
    assert (await ask(client, "cancel", task))["resultType"] == "complete"  # a second time


async def test_a_task_never_goes_back_to_a_question_that_has_its_answer(client: TestClient) -> None:
    task = await begin(client, "twice")
    first = await settled(client, task)
    assert first["status"] == "input_required"
    [first_key] = first["inputRequests"]
    assert first["inputRequests"][first_key]["params"]["message"] == "First?"
    await ask(client, "update", task, inputResponses={first_key: accepted("a")})
    second = await settled(client, task)
    [second_key] = second["inputRequests"]
    assert (second["status"], second_key == first_key) == ("input_required", False)
    assert (await ask(client, "update", task, inputResponses={first_key: accepted("b")}))["resultType"] == "complete"
    assert list((await ask(client, "get", task))["inputRequests"]) == [second_key]
    await ask(client, "update", task, inputResponses={second_key: accepted("c")})
    done = await settled(client, task)
    assert (done["status"], done["taskId"], text(done["result"])) == ("completed", task["taskId"], "a c")


async def test_a_question_is_not_asked_again_while_its_answer_waits_behind_another_message(client: TestClient) -> None:
    task = await begin(client, "stay")
    [key] = (await settled(client, task))["inputRequests"]
    thread = (await client.get(f"/api/v1/runs/{task['taskId']}")).json()["thread_id"]
    body = {"contact_id": "x", "message": "wait", "thread_id": thread}
    other = (await client.post("/api/v1/runs", json=body)).json()["run_id"]
    await ask(client, "update", task, inputResponses={key: accepted("yes")})
    assert (await ask(client, "get", task))["status"] == "working"
    await client.post(f"/api/v1/runs/{other}/cancel")
    done = await settled(client, task)
    assert (done["status"], text(done["result"])) == ("completed", "So yes")


@pytest.mark.parametrize("action", ["decline", "cancel"])
async def test_a_question_that_a_person_did_not_answer_ends_the_task(client: TestClient, action: str) -> None:
    task = await begin(client, "twice")
    [key] = (await settled(client, task))["inputRequests"]
    await ask(client, "update", task, inputResponses={key: {"action": action}})
    done = await settled(client, task)
    assert (done["status"], done["result"]["structuredContent"]["questions"]) == ("completed", [])


async def test_a_task_that_asks_is_cancelled(client: TestClient) -> None:
    task = await begin(client, "twice")
    await settled(client, task)
    await ask(client, "cancel", task)
    assert (await settled(client, task))["status"] == "cancelled"


async def test_an_answer_that_does_not_fit_is_refused_and_the_question_stays(client: TestClient) -> None:
    task = await begin(client, "twice")
    [key] = (await settled(client, task))["inputRequests"]
    for response in (accepted("z"), {"action": "accept"}, {}, "a"):
        params = {"taskId": task["taskId"], "inputResponses": {key: response}}
        assert (
            error(await client.post(PATH, **modern("tasks/update", params, capabilities=BOTH)), 400)["code"] == -32602
        )
    assert list((await ask(client, "get", task))["inputRequests"]) == [key]


@pytest.mark.parametrize("responses", [None, [], "x"])
async def test_an_update_needs_responses(client: TestClient, responses: Any) -> None:
    task = await begin(client, "twice")
    params = {"taskId": task["taskId"], "inputResponses": responses}
    assert error(await client.post(PATH, **modern("tasks/update", params, capabilities=BOTH)), 400)["code"] == -32602


async def test_responses_to_no_open_question_are_ignored(client: TestClient) -> None:
    task = await begin(client, "hi")
    await settled(client, task)
    assert (await ask(client, "update", task, inputResponses={"x": accepted("a")}))["resultType"] == "complete"


async def test_a_client_without_forms_gets_the_question_in_the_result(client: TestClient) -> None:
    done = await settled(client, await begin(client, "twice", TASKS), TASKS)
    assert done["status"] == "completed"
    assert len(done["result"]["structuredContent"]["questions"]) == 1
    assert text(done["result"]).startswith("First?")


async def ended(client: TestClient, run_id: str, headers: Mapping[str, str]) -> None:
    """Wait until a run has ended."""
    async with asyncio.timeout(20):
        while (await client.get(f"/api/v1/runs/{run_id}", headers=headers)).json()["status"] in ("queued", "running"):
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    ("question", "somebody"), [("admin", "a caller with the scope 'admin'"), ("boss", "another contact")]
)
@pytest.mark.parametrize("capabilities", [BOTH, TASKS])
@pytest.mark.usefixtures("people")
async def test_a_task_whose_question_is_for_somebody_else_works_until_that_one_answers(
    client: TestClient, question: str, somebody: str, capabilities: Mapping[str, Any]
) -> None:
    mine, others = {"x-user": "talker"}, {"x-user": "root"}
    named = {"taskId": (await begin(client, question, capabilities, headers=mine))["taskId"]}
    get = modern("tasks/get", named, capabilities=capabilities, headers=mine)
    await ended(client, named["taskId"], mine)
    waits = result(await client.post(PATH, **get))
    assert (waits["status"], "result" in waits, "inputRequests" in waits) == ("working", False, False)
    assert waits["statusMessage"] == f"The agent waits for the answer of somebody else: {somebody}."
    look = modern("tools/call", tool("chat_get", run_id=named["taskId"]), headers=others)
    seen = result(await client.post(PATH, **look))["structuredContent"]
    answers = {seen["questions"][0]["question_id"]: "yes"}
    body = {"contact_id": "the-boss", "thread_id": seen["thread_id"], "answers": answers}
    assert (await client.post("/api/v1/chat", json=body, headers=others)).status_code == 200
    async with asyncio.timeout(20):
        while (done := result(await client.post(PATH, **get)))["status"] == "working":
            await asyncio.sleep(0.005)
    assert (done["status"], text(done["result"])) == ("completed", "So yes")


@pytest.mark.usefixtures("people")
async def test_a_task_asks_the_one_who_may_answer_its_question(client: TestClient) -> None:
    mine, admins = {"x-user": "talker"}, {"x-user": "root"}
    named = {"taskId": (await begin(client, "admin", headers=mine))["taskId"]}
    await ended(client, named["taskId"], mine)
    asked = result(await client.post(PATH, **modern("tasks/get", named, capabilities=BOTH, headers=admins)))
    [key] = asked["inputRequests"]
    assert asked["status"] == "input_required"
    for headers, status in ((mine, "working"), (admins, "completed")):  # what others send is ignored
        update = {**named, "inputResponses": {key: accepted("yes")}}
        result(await client.post(PATH, **modern("tasks/update", update, capabilities=BOTH, headers=headers)))
        get = modern("tools/call", tool("chat_get", run_id=named["taskId"], wait=int(headers is admins)), headers=mine)
        result(await client.post(PATH, **get))
        found = result(await client.post(PATH, **modern("tasks/get", named, capabilities=BOTH, headers=mine)))
        assert found["status"] == status


@pytest.mark.parametrize("method", ["tasks/get", "tasks/update", "tasks/cancel"])
async def test_a_client_that_does_not_declare_tasks_gets_none(client: TestClient, method: str) -> None:
    params = {"taskId": str(uuid4()), "inputResponses": {}}
    found = error(await client.post(PATH, **modern(method, params)), 400)
    assert found["code"] == -32021
    assert found["data"] == {"requiredCapabilities": TASKS}
    assert result(await client.post(PATH, **modern("tools/call", chat("hi"))))["resultType"] == "complete"


@pytest.mark.parametrize("task_id", [str(uuid4()), "x", "", 5, None])
@pytest.mark.parametrize("method", ["tasks/get", "tasks/update", "tasks/cancel"])
async def test_a_task_that_does_not_exist_is_not_found(client: TestClient, method: str, task_id: Any) -> None:
    headers = {} if isinstance(task_id, str) else {"mcp-name": None}
    params = {"taskId": task_id, "inputResponses": {}}
    found = error(await client.post(PATH, **modern(method, params, capabilities=TASKS, headers=headers)), 400)
    assert (found["code"], found["message"]) == (-32602, "Task not found")


async def test_a_task_outlives_the_server_that_began_it(tmp_path: Path) -> None:
    app, store = JimsApp(bot), f"sqlite:///{tmp_path}/jims.db"
    async with TestClient(create_api(app, store=store)) as client:
        asked = await begin(client, "twice")
        [key] = (await settled(client, asked))["inputRequests"]
    async with TestClient(create_api(app, store=store)) as client:
        assert list((await settled(client, asked))["inputRequests"]) == [key]
        await ask(client, "update", asked, inputResponses={key: accepted("a")})
        assert (await settled(client, asked))["status"] == "input_required"


async def test_a_task_whose_server_stopped_has_failed(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/jims.db"
    async with TestClient(create_api(bot, store=store, drain_time=2)) as client:
        task = await begin(client, "wait")
        async with asyncio.timeout(20):
            while (await client.get(f"/api/v1/runs/{task['taskId']}")).json()["status"] != "running":
                await asyncio.sleep(0.005)
    async with TestClient(create_api(bot, store=store)) as client:
        done = await settled(client, task)
        assert (done["status"], done["error"]["code"]) == ("failed", -32603)
        assert done["statusMessage"] == done["error"]["message"]


async def test_the_answer_to_a_question_continues_the_trace_of_its_request() -> None:
    traces: list[str | None] = []

    async def traced(ctx: ThreadContext) -> None:
        traces.append(ctx.trace_context.traceparent if ctx.trace_context else None)
        ctx.send_message(f"So {await ctx.ask('colour', 'Which colour?')}")

    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    async with TestClient(create_api(traced, store="memory:")) as client:
        task = await begin(client, "hi")
        [question] = (await settled(client, task))["inputRequests"]
        responses = {question: {"action": "accept", "content": {"answer": "red"}}}
        params = {"taskId": task["taskId"], "inputResponses": responses}
        update = modern("tasks/update", params, capabilities=BOTH, meta={"traceparent": trace})
        result(await client.post(PATH, **update))
        assert text((await settled(client, task))["result"]) == "So red"
    assert traces == [None, trace]
