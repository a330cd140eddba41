"""Questions of a pipeline: tasks that wait for input, and go on with the answer, by whatever protocol it comes."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from a2a_calls import call, error, events, result, send, state, stream, summary, text_message, texts

from jimsapi import JimsApp, ThreadContext, create_api
from jimsapi.asgi.testing import TestClient
from jimsapi.wire import turn_runs

pytestmark = pytest.mark.anyio

FORM = {
    "type": "object",
    "properties": {"iban": {"type": "string"}, "cents": {"type": "integer"}},
    "required": ["iban"],
}


class Clerk:
    """A pipeline that asks before it acts. `hold` waits until `opened` is set."""

    def __init__(self) -> None:
        self.reached, self.opened = asyncio.Event(), asyncio.Event()

    async def __call__(self, ctx: ThreadContext) -> None:
        said = str(ctx.get_last_user_message())
        match said.split():
            case ["refund", *_]:
                answer = await ctx.ask("refund", "Refund 20 EUR?", options=["yes", "no"])
                if answer == "yes" and await ctx.ask("sure", "Are you sure?", options=["yes", "no"]) == "no":
                    answer = "no, after all"
                ctx.send_message(f"refund: {answer}")
            case ["name"]:
                ctx.send_message(f"hello {await ctx.ask('name', 'Who are you?')}")
            case ["pay"]:
                form = await ctx.ask("account", "Which account?", schema=FORM)
                ctx.send_message(f"paid to {form['iban']}")
            case ["open"]:
                ctx.send_message(f"approved: {await ctx.ask('approve', 'Approve?', stays_open=True)}")
            case ["soon"]:
                ctx.send_message(await ctx.ask("soon", "Soon?", expires=0.05))
            case ["file"]:
                await ctx.ask("receipt", "Send the receipt")
                ctx.send_message(", ".join(file.name for file in ctx.files))
            case ["rounds", rounds]:
                for number in range(int(rounds)):
                    await ctx.ask(str(number), f"Number {number}?")
                ctx.send_message("done")
            case ["hold"]:
                self.reached.set()
                await self.opened.wait()
                ctx.send_message("held")
            case _:
                ctx.send_message(f"You said: {said}")


def make_app() -> JimsApp:
    return JimsApp(Clerk())


@pytest.fixture
def clerk() -> Clerk:
    return Clerk()


@pytest.fixture
async def client(clerk: Clerk) -> AsyncIterator[TestClient]:
    async with TestClient(create_api(clerk, store="memory:")) as client:
        yield client


async def get(client: TestClient, task: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = await result(client, "GetTask", {"id": task["id"]})
    return found


async def listed(client: TestClient, context_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await result(client, "ListTasks", {"contextId": context_id}))["tasks"]
    return found


async def test_a_question_is_a_task_that_needs_input(client: TestClient) -> None:
    task = await send(client, "refund", contextId="c")
    assert state(task) == "INPUT_REQUIRED"
    asked = task["status"]["message"]
    assert (asked["role"], asked["taskId"], asked["contextId"]) == ("ROLE_AGENT", task["id"], "c")
    text, form = asked["parts"]
    assert text == {"text": "Refund 20 EUR?\n- yes\n- no"}
    assert form["data"]["key"] == "refund"
    assert form["data"]["options"] == ["yes", "no"]
    assert await get(client, task) == task
    assert [event["task"] for event in events(await call(client, "SubscribeToTask", {"id": task["id"]}))] == [task]


async def test_the_answer_continues_the_same_task(client: TestClient) -> None:
    task = await send(client, "refund", message_id="m-1", contextId="c")
    again = await send(client, "Yes", message_id="m-2", taskId=task["id"], contextId="c")
    assert (again["id"], state(again)) == (task["id"], "INPUT_REQUIRED")
    assert again["status"]["message"]["parts"][0]["text"].startswith("Are you sure?")
    done = await send(client, "no", message_id="m-3", taskId=task["id"])
    assert (done["id"], done["contextId"], state(done)) == (task["id"], "c", "COMPLETED")
    assert texts(done) == ["refund: no, after all"]
    assert [said["messageId"] for said in done["history"] if said["role"] == "ROLE_USER"] == ["m-1", "m-2", "m-3"]
    assert [said["parts"][0]["text"] for said in done["history"]] == [
        "refund", "Refund 20 EUR?\n- yes\n- no", "yes", "Are you sure?\n- yes\n- no", "no",
    ]  # fmt: skip
    assert await get(client, task) == done
    assert [one["id"] for one in await listed(client, "c")] == [task["id"]]


async def test_a_list_reads_the_runs_of_a_task_once_however_many_questions_it_had(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rounds = 12
    reads = 0

    async def pipeline(ctx: ThreadContext) -> None:
        for number in range(rounds):
            await ctx.ask(f"q{number}", "And then?")
        ctx.send_message("done")

    api = create_api(pipeline, store="memory:")
    async with TestClient(api) as client:
        task = await send(client, "begin", contextId="c")
        for _ in range(rounds):
            task = await send(client, "that", taskId=task["id"])
        assert state(task) == "COMPLETED"
        assert api.service is not None
        read = api.service.store.events_by_id

        async def counted(*arguments: Any) -> Any:
            nonlocal reads
            reads += 1
            return await read(*arguments)

        monkeypatch.setattr(api.service.store, "events_by_id", counted)
        assert [one["id"] for one in await listed(client, "c")] == [task["id"]]
    assert 0 < reads < 10 * rounds


async def test_a_task_with_more_answers_than_are_read_completes(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turn_runs, "MOST_RUNS", 4)
    rounds = 13
    task = await send(client, f"rounds {rounds}", contextId="c")
    for number in range(rounds):
        assert state(task) == "INPUT_REQUIRED"
        task = await send(client, f"answer {number}", taskId=task["id"], configuration={"historyLength": 2})
    assert state(task) == "COMPLETED"
    assert texts(task) == ["done"]
    assert [said["parts"][0]["text"] for said in task["history"]] == [f"Number {rounds - 1}?", f"answer {rounds - 1}"]
    whole = await get(client, task)
    assert (whole["id"], state(whole)) == (task["id"], "COMPLETED")
    assert whole["history"][0]["parts"] == [{"text": f"rounds {rounds}"}]
    assert [one["id"] for one in await listed(client, "c")] == [task["id"]]


async def test_an_answer_is_streamed_as_updates_of_the_same_task(client: TestClient) -> None:
    begun = await stream(client, "name")
    assert summary(begun) == ["task WORKING", "statusUpdate INPUT_REQUIRED Who are you?"]
    task = begun[0]["task"]
    found = await stream(client, "Ann", taskId=task["id"])
    assert [event for event in summary(found) if event != "task WORKING"] in (
        ["hello Ann", "+.", "statusUpdate COMPLETED"],
        ["task COMPLETED"],
    )
    named = {next(iter(event.values())).get("taskId", task["id"]) for event in found}
    assert named == {task["id"]}


async def test_a_text_that_is_no_answer_is_refused_and_the_question_stays(client: TestClient) -> None:
    task = await send(client, "refund")
    refused = await error(client, "SendMessage", text_message("maybe", taskId=task["id"]))
    assert refused["code"] == -32602
    assert '["yes","no"]' in refused["message"]
    assert await get(client, task) == task
    assert state(await send(client, "no", taskId=task["id"])) == "COMPLETED"


async def test_a_form_is_answered_by_data(client: TestClient) -> None:
    task = await send(client, "pay")
    assert task["status"]["message"]["parts"][1]["data"]["schema"] == FORM
    refused = await error(client, "SendMessage", text_message("", parts=[{"data": {"cents": "x"}}], taskId=task["id"]))
    assert refused["code"] == -32602
    done = await send(client, "", parts=[{"data": {"iban": "DE1", "cents": 5}}], taskId=task["id"])
    assert texts(done) == ["paid to DE1"]
    by_key = await send(client, "pay")
    done = await send(client, "", parts=[{"data": {"account": {"iban": "DE2"}}}], taskId=by_key["id"])
    assert texts(done) == ["paid to DE2"]
    as_text = await send(client, "pay")
    assert texts(await send(client, '{"iban": "DE3"}', taskId=as_text["id"])) == ["paid to DE3"]


async def test_a_repeated_answer_begins_nothing(client: TestClient) -> None:
    task = await send(client, "refund")
    first = await send(client, "no", message_id="answer", taskId=task["id"])
    assert await send(client, "no", message_id="answer", taskId=task["id"]) == first
    other = await error(client, "SendMessage", text_message("no", taskId=task["id"]))
    assert other["code"] == -32004


async def test_an_answer_by_the_chat_api_continues_the_task(client: TestClient) -> None:
    task = await send(client, "refund", contextId="c")
    question = task["status"]["message"]["parts"][1]["data"]["questionId"]
    [thread] = (await client.get("/api/v1/runs", params={"thread_id": await thread_of(client, task)})).json()["runs"]
    body = {"contact_id": thread["contact_id"], "thread_id": thread["thread_id"], "answers": {question: "no"}}
    assert (await client.post("/api/v1/chat", json=body)).status_code == 200
    done = await get(client, task)
    assert (done["id"], state(done), texts(done)) == (task["id"], "COMPLETED", ["refund: no"])
    assert [one["id"] for one in await listed(client, "c")] == [task["id"]]


async def thread_of(client: TestClient, task: dict[str, Any]) -> str:
    run = (await client.get(f"/api/v1/runs/{task['id']}")).json()
    return str(run["thread_id"])


async def test_an_answer_in_text_by_another_protocol_is_no_task_of_its_own(client: TestClient) -> None:
    headers = {"x-openwebui-chat-id": "talk", "x-openwebui-user-id": "ann"}
    asked = {"model": "m", "messages": [{"role": "user", "content": "refund"}]}
    first = await client.post("/v1/chat/completions", json=asked, headers=headers)
    run_id = first.headers["x-run-id"]
    task = await result(client, "GetTask", {"id": run_id})
    assert state(task) == "INPUT_REQUIRED"
    answered = {"model": "m", "messages": [{"role": "user", "content": "no"}]}
    second = await client.post("/v1/chat/completions", json=answered, headers=headers)
    assert second.json()["choices"][0]["message"]["content"] == "refund: no"
    done = await result(client, "GetTask", {"id": run_id})
    assert (state(done), texts(done)) == ("COMPLETED", ["refund: no"])
    assert [one["id"] for one in await listed(client, task["contextId"])] == [run_id]
    assert (await result(client, "GetTask", {"id": second.headers["x-run-id"]}))["id"] == run_id
    for number in range(3):
        await send(client, f"later {number}", contextId=task["contextId"])
    assert len(await listed(client, task["contextId"])) == 4
    assert await result(client, "GetTask", {"id": run_id}) == done


async def test_a_task_does_not_go_back_to_its_question_while_its_answer_waits(client: TestClient, clerk: Clerk) -> None:
    task = await send(client, "open", contextId="c")
    at_once = {"returnImmediately": True}
    await send(client, "hold", contextId="c", configuration=at_once)
    await clerk.reached.wait()
    answered = await send(client, "fine", taskId=task["id"], configuration=at_once)
    assert (answered["id"], state(answered)) == (task["id"], "WORKING")
    assert state(await get(client, task)) == "WORKING"
    assert len(await listed(client, "c")) == 2
    clerk.opened.set()
    watched = events(await call(client, "SubscribeToTask", {"id": task["id"]}))
    assert summary(watched)[-1] in ("statusUpdate COMPLETED", "task COMPLETED")
    assert texts(await get(client, task)) == ["approved: fine"]


async def test_another_message_closes_the_question_and_cancels_its_task(client: TestClient) -> None:
    task = await send(client, "refund", contextId="c")
    assert texts(await send(client, "yes", contextId="c")) == ["You said: yes"]
    closed = await get(client, task)
    assert state(closed) == "CANCELED"
    assert (await error(client, "SendMessage", text_message("yes", taskId=task["id"])))["code"] == -32004


async def test_a_cancelled_question_cannot_be_answered(client: TestClient) -> None:
    task = await send(client, "open", contextId="c")
    assert state(await result(client, "CancelTask", {"id": task["id"]})) == "CANCELED"
    assert (await error(client, "SendMessage", text_message("fine", taskId=task["id"])))["code"] == -32004
    assert (await error(client, "CancelTask", {"id": task["id"]}))["code"] == -32002
    assert texts(await send(client, "hi", contextId="c")) == ["You said: hi"]


async def test_a_task_whose_answer_waits_is_cancelled_with_its_question(client: TestClient, clerk: Clerk) -> None:
    task = await send(client, "open", contextId="c")
    at_once = {"returnImmediately": True}
    await send(client, "hold", contextId="c", configuration=at_once)
    await clerk.reached.wait()
    await send(client, "fine", taskId=task["id"], configuration=at_once)
    assert state(await result(client, "CancelTask", {"id": task["id"]})) == "CANCELED"
    clerk.opened.set()
    assert state(await get(client, task)) == "CANCELED"


async def test_a_question_that_nobody_answered_in_time_fails_its_task(client: TestClient) -> None:
    task = await send(client, "soon")
    while state(task := await get(client, task)) == "INPUT_REQUIRED":
        await asyncio.sleep(0.01)
    assert state(task) == "FAILED"
    assert (await error(client, "SendMessage", text_message("x", taskId=task["id"])))["code"] == -32004


async def test_an_answer_must_be_in_the_context_of_its_task(client: TestClient) -> None:
    task = await send(client, "refund", contextId="c")
    refused = await error(client, "SendMessage", text_message("yes", taskId=task["id"], contextId="d"))
    assert refused["code"] == -32602
    assert await get(client, task) == task


async def test_tasks_that_need_input_are_listed_by_their_state(client: TestClient) -> None:
    task = await send(client, "refund", contextId="c")
    await send(client, "refund again", contextId="d")
    query = {"contextId": "c", "status": "TASK_STATE_INPUT_REQUIRED"}
    assert [one["id"] for one in (await result(client, "ListTasks", query))["tasks"]] == [task["id"]]
    await send(client, "no", taskId=task["id"])
    assert (await result(client, "ListTasks", query))["tasks"] == []
    done = {"contextId": "c", "status": "TASK_STATE_COMPLETED"}
    assert [one["id"] for one in (await result(client, "ListTasks", done))["tasks"]] == [task["id"]]
