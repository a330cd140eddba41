"""Questions of the pipeline: as requests for input, in texts for clients without forms, and in earlier versions."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from jimsapi_mcp.asking import Asking
from jimsapi_mcp.streams import CallStream
from jimsapi_mcp.waiting import WaitingCalls
from mcp_wire import FORMS, PATH, chat, error, events, legacy, modern, result, start_session, text, tool

from jimsapi import ThreadContext, create_api
from jimsapi.asgi.testing import TestClient
from jimsapi.stores.memory import MemoryStore
from tests.plugins.distributions import install
from tests.waiting import PATIENCE

pytestmark = pytest.mark.anyio

FORM = {
    "$ref": "#/$defs/Trip",
    "$defs": {
        "Trip": {
            "type": "object",
            "title": "Trip",
            "properties": {
                "city": {"type": "string", "minLength": 2, "pattern": "x"},
                "days": {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}], "default": None},
                "class": {"$ref": "#/$defs/Class"},
                "meals": {"type": "array", "items": {"enum": ["none", "all"]}},
                "price": {"type": "number", "default": 1.5},
                "sure": {"type": "boolean", "description": "Really?"},
            },
            "required": ["city", "sure"],
        },
        "Class": {"enum": ["first", "second"]},
    },
}
NESTED = {"type": "object", "properties": {"legs": {"type": "array", "items": {"type": "object"}}}}

QUESTIONS: dict[str, dict[str, Any]] = {
    "text": {},
    "options": {"options": ["yes", "no"]},
    "boolean": {"schema": {"type": "boolean"}},
    "form": {"schema": FORM},
    "nested": {"schema": NESTED},
    "short": {"options": ["yes"], "expires": 0.5},
    "boss": {"answerable_by": "contact:boss"},
    "admin": {"answerable_by": "scope:admin"},
}


async def bot(ctx: ThreadContext) -> None:
    """Ask what the message names, or say the message."""
    said = str(ctx.get_last_user_message())
    if said == "twice":
        first = await ctx.ask("first", "First?")
        second = await ctx.ask("second", "Second?")
        ctx.send_message(f"{first} {second}")
    elif said == "both":
        name, city = await asyncio.gather(ctx.ask("name", "Your name?"), ctx.ask("city", "Your city?"))
        ctx.send_message(f"{name} of {city}")
    elif said == "busy":
        for key in ("first", "second"):
            await ctx.update_agent_status(f"Asking the {key}")
            await ctx.ask(key, f"{key}?")
        ctx.send_message("done")
    elif said == "hold":
        await ctx.update_agent_status("Holding")
        await asyncio.Event().wait()
    elif said in QUESTIONS:
        answer: Any = await ctx.ask(said, f"What about {said}?", **QUESTIONS[said])
        ctx.send_message(f"{said}: {answer!r}")
    else:
        ctx.send_message(f"heard {said}")


@pytest.fixture
async def client() -> AsyncIterator[TestClient]:
    async with TestClient(create_api(bot, store="memory:")) as client:
        yield client


async def call(client: TestClient, params: Mapping[str, Any], **options: Any) -> Any:
    return result(await client.post(PATH, **modern("tools/call", params, capabilities=FORMS, **options)))


async def ask(client: TestClient, question: str) -> Any:
    """Call with a message that makes the pipeline ask. Returns the result."""
    found = await call(client, chat(question))
    assert found["resultType"] == "input_required", found
    return found


def key_of(asked: Any) -> str:
    [key] = asked["inputRequests"]
    return str(key)


def params_of(asked: Any) -> Any:
    [request] = asked["inputRequests"].values()
    assert request["method"] == "elicitation/create"
    return request["params"]


def again(question: str, asked: Any, response: Any) -> dict[str, Any]:
    """The parameters of the call that is repeated with a response."""
    return {**chat(question), "inputResponses": {key_of(asked): response}, "requestState": asked["requestState"]}


def accepted(**content: Any) -> dict[str, Any]:
    return {"action": "accept", "content": content}


@pytest.mark.parametrize("accept", ["application/json, text/event-stream", "application/json"])
@pytest.mark.parametrize(
    ("question", "content", "value"),
    [
        ("text", {"answer": "red"}, "'red'"),
        ("options", {"answer": "no"}, "'no'"),
        ("boolean", {"answer": True}, "True"),
        ("form", {"city": "Perth", "sure": True, "days": 3}, "{'city': 'Perth', 'sure': True, 'days': 3}"),
        ("form", {"city": "Perth", "sure": False, "days": None}, "{'city': 'Perth', 'sure': False}"),
        ("nested", {"answer": '{"legs": [{}]}'}, "{'legs': [{}]}"),
    ],
)
async def test_a_question_is_a_form_whose_content_is_the_answer(
    client: TestClient, question: str, content: dict[str, Any], value: str, accept: str
) -> None:
    asked = await ask(client, question)
    assert (params_of(asked)["mode"], params_of(asked)["message"]) == ("form", f"What about {question}?")
    found = await call(client, again(question, asked, accepted(**content)), accept=accept)
    assert (text(found), found["isError"]) == (f"{question}: {value}", False)


async def test_a_form_has_only_fields_that_clients_know(client: TestClient) -> None:
    assert params_of(await ask(client, "form"))["requestedSchema"] == {
        "type": "object",
        "properties": {
            "city": {"type": "string", "minLength": 2},
            "days": {"type": "integer", "minimum": 1},
            "class": {"type": "string", "enum": ["first", "second"]},
            "meals": {"type": "array", "items": {"type": "string", "enum": ["none", "all"]}},
            "price": {"type": "number", "default": 1.5},
            "sure": {"type": "boolean", "description": "Really?"},
        },
        "required": ["city", "sure"],
    }
    assert params_of(await ask(client, "text"))["requestedSchema"]["properties"] == {"answer": {"type": "string"}}
    nested = params_of(await ask(client, "nested"))["requestedSchema"]["properties"]["answer"]
    assert (nested["type"], json.dumps(NESTED, separators=(",", ":")) in nested["description"]) == ("string", True)


@pytest.mark.parametrize(
    "response",
    [
        accepted(answer="perhaps"),
        accepted(),
        accepted(answer=None),
        accepted(answer=["yes"]),
        {"action": "accept"},
        {"action": "accept", "content": 5},
        {"action": "unheard-of"},
        {"action": ["accept"]},
        {},
        None,
        "accept",
        7,
    ],
)
async def test_a_response_that_is_no_answer_is_asked_for_again(client: TestClient, response: Any) -> None:
    asked = await ask(client, "options")
    repeated = await call(client, again("options", asked, response))
    assert repeated["resultType"] == "input_required"
    assert key_of(repeated) == key_of(asked)
    found = await call(client, again("options", repeated, accepted(answer="yes")))
    assert text(found) == "options: 'yes'"


async def test_a_response_to_another_question_is_ignored(client: TestClient) -> None:
    asked = await ask(client, "text")
    params = {**again("text", asked, accepted(answer="red")), "inputResponses": {"other": accepted(answer="red")}}
    assert (await call(client, params))["resultType"] == "input_required"


@pytest.mark.parametrize("responses", [{}, {"other": accepted(answer="red")}])
async def test_responses_without_a_state_are_ignored(client: TestClient, responses: Any) -> None:
    assert (await call(client, {**chat("text"), "inputResponses": responses}))["resultType"] == "input_required"
    assert text(await call(client, {**chat("hi"), "inputResponses": responses})) == "heard hi"


async def test_one_call_may_ask_several_questions(client: TestClient) -> None:
    first = await ask(client, "twice")
    second = await call(client, again("twice", first, accepted(answer="a")))
    assert (params_of(second)["message"], key_of(second) == key_of(first)) == ("Second?", False)
    found = await call(client, again("twice", second, accepted(answer="b")))
    assert text(found) == "a b"


async def test_two_questions_at_once_are_two_forms(client: TestClient) -> None:
    asked = await ask(client, "both")
    by_text = {request["params"]["message"]: key for key, request in asked["inputRequests"].items()}
    assert set(by_text) == {"Your name?", "Your city?"}
    params = {**chat("both"), "requestState": asked["requestState"]}
    name, city = {by_text["Your name?"]: accepted(answer="Ann")}, {by_text["Your city?"]: accepted(answer="Perth")}
    again_asked = await call(client, {**params, "inputResponses": name})
    assert set(again_asked["inputRequests"]) == set(by_text.values())
    assert text(await call(client, {**params, "inputResponses": {**name, **city}})) == "Ann of Perth"


async def test_an_earlier_client_is_asked_two_questions_one_after_the_other(talk: "Talk") -> None:
    async with talk.call(chat("both")) as messages:
        for answer in ("a", "b"):
            asked = await anext(messages)
            assert (await talk.respond(asked["id"], accepted(answer=answer))).status_code == 202
        assert text((await anext(messages))["result"]) in ("a of b", "b of a")


async def test_the_numbers_of_progress_rise_when_a_call_is_repeated(client: TestClient) -> None:
    told: list[int] = []
    params: Any = chat("busy")
    for answer in ("a", "b", None):
        request = modern("tools/call", params, capabilities=FORMS, meta={"progressToken": "t"})
        *notified, last = events(await client.post(PATH, **request))
        told += [one["params"]["progress"] for one in notified]
        if answer is not None:
            params = again("busy", last["result"], accepted(answer=answer))
    assert told == sorted(set(told))
    assert len(told) >= 3


@pytest.mark.parametrize("accept", ["application/json, text/event-stream", "application/json"])
async def test_a_repeated_response_waits_for_the_answer_of_the_first(accept: str) -> None:
    begun, released = asyncio.Event(), asyncio.Event()

    async def slow(ctx: ThreadContext) -> None:
        answer = await ctx.ask("colour", "Which colour?")
        begun.set()
        await released.wait()
        ctx.send_message(f"So {answer}")

    async with TestClient(create_api(slow, store="memory:")) as client:
        asked = await ask(client, "hi")
        params = again("hi", asked, accepted(answer="red"))
        first = asyncio.create_task(call(client, params, accept=accept))
        await begun.wait()
        second = asyncio.create_task(call(client, params, accept=accept))
        asyncio.get_running_loop().call_later(0.1, released.set)
        assert (text(await first), text(await second)) == ("So red", "So red")


@pytest.mark.parametrize("accept", ["application/json, text/event-stream", "application/json"])
@pytest.mark.parametrize("leaves_first", [0, 1])
async def test_a_run_is_cancelled_when_the_last_of_the_requests_that_wait_for_it_has_left(
    accept: str, leaves_first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = asyncio.Event()
    steps: asyncio.Queue[str] = asyncio.Queue()

    async def endless(ctx: ThreadContext) -> None:
        await ctx.ask("colour", "Which colour?")
        begun.set()
        await asyncio.Event().wait()

    for name in ("join", "leave"):
        step = getattr(WaitingCalls, name)

        def noted(*arguments: Any, name: str = name, step: Any = step) -> Any:
            steps.put_nowait(name)
            return step(*arguments)

        monkeypatch.setattr(WaitingCalls, name, noted)
    async with TestClient(create_api(endless, store="memory:")) as client:
        asked = await ask(client, "hi")
        thread = (await client.get(f"/api/v1/runs/{run_of(asked)}")).json()["thread_id"]
        params = again("hi", asked, accepted(answer="red"))
        calls = [asyncio.create_task(call(client, params, accept=accept))]
        await begun.wait()
        calls.append(asyncio.create_task(call(client, params, accept=accept)))
        assert await steps.get() == "join"

        async def status() -> str:
            return str((await client.get(f"/api/v1/runs?thread_id={thread}")).json()["runs"][0]["status"])

        calls[leaves_first].cancel()
        assert await steps.get() == "leave"
        assert [await status() for _ in range(5)] == ["running"] * 5
        calls[1 - leaves_first].cancel()
        async with asyncio.timeout(PATIENCE):
            while await status() != "cancelled":
                await asyncio.sleep(0.005)


async def test_a_repeated_response_gets_the_same_answer_and_runs_nothing_again(client: TestClient) -> None:
    asked = await ask(client, "text")
    params = again("text", asked, accepted(answer="red"))
    first, second = await asyncio.gather(call(client, params), call(client, params))
    third = await call(client, again("text", asked, accepted(answer="blue")))
    assert {text(one) for one in (first, second, third)} == {"text: 'red'"}
    assert len({one["structuredContent"]["run_id"] for one in (first, second, third)}) == 1
    thread = first["structuredContent"]["thread_id"]
    assert len((await client.get(f"/api/v1/runs?thread_id={thread}")).json()["runs"]) == 2


@pytest.mark.parametrize(("action", "stays_open"), [("decline", False), ("cancel", True)])
async def test_a_person_may_decline_or_put_it_off(client: TestClient, action: str, stays_open: bool) -> None:
    asked = await ask(client, "text")
    found = await call(client, again("text", asked, {"action": action}))
    structured = found["structuredContent"]
    assert (found["resultType"], bool(structured["questions"])) == ("complete", stays_open)
    assert ("declined" in text(found)) is not stays_open
    once_more = await call(client, again("text", asked, accepted(answer="red")))
    assert ("text: 'red'" in text(once_more)) is stays_open
    assert once_more["resultType"] == "complete"


async def test_a_question_that_another_message_closed_is_not_asked_again(client: TestClient) -> None:
    asked = await ask(client, "options")
    run = await call(client, tool("chat_get", run_id=run_of(asked)))
    assert run["resultType"] == "input_required"
    thread = (await client.get(f"/api/v1/runs/{run_of(asked)}")).json()["thread_id"]
    await call(client, {"name": "chat", "arguments": {"message": "never mind, do this", "thread": thread}})
    for response in (accepted(answer="yes"), None):
        found = await call(client, again("options", asked, response))
        assert found["resultType"] == "complete"
        assert found["structuredContent"]["questions"] == []
    found = await call(client, tool("chat_get", run_id=run_of(asked)))
    assert (found["resultType"], found["structuredContent"]["questions"]) == ("complete", [])


def run_of(asked: Any) -> str:
    """The run that has asked, as the state has it."""
    digits = asked["requestState"].partition(".")[0]
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


async def test_a_question_that_has_expired_is_not_asked_again(client: TestClient) -> None:
    asked = await ask(client, "short")
    await asyncio.sleep(0.6)
    found = await call(client, again("short", asked, accepted(answer="yes")))
    assert (found["resultType"], found["structuredContent"]["questions"]) == ("complete", [])


async def test_an_answer_by_another_protocol_ends_the_call(client: TestClient) -> None:
    asked = await ask(client, "text")
    run = (await client.get(f"/api/v1/runs/{run_of(asked)}")).json()
    body = {"contact_id": "x", "answers": {key_of(asked): "green"}, "thread_id": run["thread_id"], "message": ""}
    assert (await client.post("/api/v1/chat", json=body)).status_code == 200
    assert text(await call(client, again("text", asked, accepted(answer="red")))) == "text: 'green'"


# The state.


async def test_a_state_that_was_changed_is_refused(client: TestClient) -> None:
    asked = await ask(client, "text")
    state = asked["requestState"]
    run, expires, notified, signature = state.split(".")
    other = (await ask(client, "text"))["requestState"].split(".")[0]
    for changed in (
        f"{run}.{int(expires) + 1}.{notified}.{signature}",
        f"{run}.{expires}.7.{signature}",
        f"{other}.{expires}.{notified}.{signature}",
        f"{run}.{expires}.{notified}.{'0' * 64}",
        f"{run}.{expires}",
        f"{state}x",
        f" {state}",
        "",
        7,
    ):
        params = {**again("text", asked, accepted(answer="red")), "requestState": changed}
        answer = await client.post(PATH, **modern("tools/call", params, capabilities=FORMS))
        assert error(answer, 400)["code"] == -32602


async def test_a_state_belongs_to_one_call(client: TestClient) -> None:
    asked = await ask(client, "text")
    other = {**again("text", asked, accepted(answer="red")), "arguments": {"message": "text", "thread": "another"}}
    answer = await client.post(PATH, **modern("tools/call", other, capabilities=FORMS))
    assert error(answer, 400)["code"] == -32602


async def test_a_state_expires(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jimsapi_mcp.states.VALID_FOR", 0)
    params = again("text", await ask(client, "text"), accepted(answer="red"))
    answer = await client.post(PATH, **modern("tools/call", params, capabilities=FORMS))
    assert error(answer, 400)["code"] == -32602


async def test_a_state_of_a_server_with_another_secret_is_refused(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/jims.db"
    async with TestClient(create_api(bot, store=store, mcp_secret="one")) as client:
        asked = await ask(client, "text")
    params = again("text", asked, accepted(answer="red"))
    async with TestClient(create_api(bot, store=store, mcp_secret="two")) as client:
        answer = await client.post(PATH, **modern("tools/call", params, capabilities=FORMS))
        assert error(answer, 400)["code"] == -32602
    async with TestClient(create_api(bot, store=store, mcp_secret="one")) as client:  # after a restart
        assert text(await call(client, params)) == "text: 'red'"


# Clients that show no forms.


@pytest.mark.parametrize("capabilities", [{}, {"elicitation": {"url": {}}}, {"elicitation": None}, {"sampling": {}}])
async def test_without_forms_the_question_is_in_the_result_and_the_next_message_answers_it(
    client: TestClient, capabilities: dict[str, Any]
) -> None:
    found = result(await client.post(PATH, **modern("tools/call", chat("options"), capabilities=capabilities)))
    assert (found["resultType"], found["isError"]) == ("complete", False)
    assert text(found).startswith("What about options?\n- yes\n- no\n")
    [question] = found["structuredContent"]["questions"]
    assert (question["text"], question["options"]) == ("What about options?", ["yes", "no"])
    thread = found["structuredContent"]["thread_id"]
    assert thread in text(found)
    answered = result(await client.post(PATH, **modern("tools/call", chat("NO", thread=thread))))
    assert text(answered) == "options: 'no'"


async def test_answers_may_be_named_by_their_questions(client: TestClient) -> None:
    found = result(await client.post(PATH, **modern("tools/call", chat("form"))))["structuredContent"]
    answer = {found["questions"][0]["question_id"]: {"city": "Perth", "sure": True}}
    params = {"name": "chat", "arguments": {"thread": found["thread_id"], "answers": answer}}
    assert (
        text(result(await client.post(PATH, **modern("tools/call", params)))) == "form: {'city': 'Perth', 'sure': True}"
    )
    twice = result(await client.post(PATH, **modern("tools/call", params)))
    assert twice["isError"]
    assert "closed" in text(twice)


NOT_FOR_ANN = {"boss": "another contact", "admin": "a caller with the scope 'admin'"}


@pytest.mark.parametrize("question", NOT_FOR_ANN)
@pytest.mark.usefixtures("people")
async def test_a_question_that_the_caller_may_not_answer_is_shown_and_not_asked(
    client: TestClient, question: str
) -> None:
    headers = {"x-user": "ann-talks"}
    found = await call(client, chat(question), headers=headers)
    assert found["resultType"] == "complete"
    assert len(found["structuredContent"]["questions"]) == 1
    assert f"somebody else: {NOT_FOR_ANN[question]}." in text(found)
    run = found["structuredContent"]["run_id"]
    assert f"Call chat_get with run_id {run}" in text(found)
    assert text(await call(client, tool("chat_get", run_id=run), headers=headers)) == text(found)


@pytest.mark.usefixtures("people")
async def test_a_look_at_a_call_waits_for_the_answer_of_somebody_else(client: TestClient) -> None:
    headers = {"x-user": "ann-talks"}
    asked = (await call(client, chat("boss"), headers=headers))["structuredContent"]
    waits = asyncio.create_task(call(client, tool("chat_get", run_id=asked["run_id"], wait=50), headers=headers))
    once = await call(client, tool("chat_get", run_id=asked["run_id"], wait=1), headers=headers)
    assert "another contact" in text(once)
    answers = {asked["questions"][0]["question_id"]: "yes"}
    body = {"contact_id": "boss", "thread_id": asked["thread_id"], "answers": answers}
    assert (await client.post("/api/v1/chat", json=body, headers={"x-user": "root"})).status_code == 200
    assert text(await waits) == "boss: 'yes'"


@pytest.mark.usefixtures("people")
async def test_a_look_at_a_call_notices_an_answer_that_comes_before_it_waits(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = {"x-user": "ann-talks"}
    asked = (await call(client, chat("boss"), headers=headers))["structuredContent"]
    answers = {asked["questions"][0]["question_id"]: "yes"}
    body = {"contact_id": "boss", "thread_id": asked["thread_id"], "answers": answers}
    settled = Asking.settled

    async def answered(*arguments: Any) -> None:
        assert (await client.post("/api/v1/chat", json=body, headers={"x-user": "root"})).status_code == 200
        await settled(*arguments)

    monkeypatch.setattr(Asking, "settled", answered)
    async with asyncio.timeout(PATIENCE):
        looked = await call(client, tool("chat_get", run_id=asked["run_id"], wait=50), headers=headers)
    assert text(looked) == "boss: 'yes'"


# Earlier versions: the server sends the request, and the call goes on.


class Talk:
    """A call of an earlier client, whose events arrive one after another."""

    def __init__(self, client: TestClient, session: str, path: str = PATH) -> None:
        self.client = client
        self.session = session
        self.path = path

    @asynccontextmanager
    async def call(self, params: Mapping[str, Any], id: int = 1) -> AsyncIterator[AsyncIterator[Any]]:
        request = legacy("tools/call", params, id=id, session=self.session)
        async with asyncio.timeout(PATIENCE), self.client.stream("POST", self.path, **request) as answer:
            assert answer.status_code == 200
            yield self.messages(answer)

    async def messages(self, answer: Any) -> AsyncIterator[Any]:
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                yield json.loads(line.removeprefix("data: "))

    async def respond(self, id: Any, response: Any, path: str | None = None, **headers: str) -> Any:
        sent = legacy("x", session=self.session, headers=headers)["headers"]
        body = {"jsonrpc": "2.0", "id": id, "result": response}
        return await self.client.post(path or self.path, json=body, headers=sent)


@pytest.fixture
async def talk(client: TestClient) -> Talk:
    return Talk(client, await start_session(client, FORMS))


def elicited(message: Any) -> Any:
    assert message["method"] == "elicitation/create", message
    return message["params"]


async def test_an_earlier_client_is_asked_while_its_call_waits(talk: Talk) -> None:
    async with talk.call(chat("twice")) as messages:
        for question, answer in (("First?", "a"), ("Second?", "b")):
            asked = await anext(messages)
            assert elicited(asked)["message"] == question
            assert elicited(asked)["requestedSchema"]["required"] == ["answer"]
            assert (await talk.respond(asked["id"], accepted(answer=answer))).status_code == 202
        last = await anext(messages)
    assert (last["id"], text(last["result"])) == (1, "a b")


async def test_an_earlier_client_without_forms_gets_the_question_as_text(client: TestClient) -> None:
    session = await start_session(client)
    found = result(await client.post(PATH, **legacy("tools/call", chat("text"), session=session)))
    assert text(found).startswith("What about text?")
    assert len(found["structuredContent"]["questions"]) == 1


async def test_a_wrong_answer_is_asked_for_again_in_the_same_call(talk: Talk) -> None:
    async with talk.call(chat("options")) as messages:
        asked = await anext(messages)
        await talk.respond(asked["id"], accepted(answer="perhaps"))
        repeated = await anext(messages)
        assert elicited(repeated)["message"].startswith("What about options?\n\nAnswer with one of")
        assert repeated["id"] != asked["id"]
        await talk.respond(repeated["id"], accepted(answer="yes"))
        assert text((await anext(messages))["result"]) == "options: 'yes'"


@pytest.mark.parametrize(
    ("response", "stays_open"), [({"action": "decline"}, False), ({"action": "cancel"}, True), (None, True)]
)
async def test_an_earlier_client_may_decline_or_put_it_off(talk: Talk, response: Any, stays_open: bool) -> None:
    async with talk.call(chat("text")) as messages:
        asked = await anext(messages)
        await talk.respond(asked["id"], response)
        last = (await anext(messages))["result"]
    assert bool(last["structuredContent"]["questions"]) is stays_open
    assert ("declined" in text(last)) is not stays_open


async def test_two_calls_that_wait_for_one_person_both_end(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jimsapi_mcp.waiting.TICK", 0.01)
    async with talk.call(chat("text"), id=1) as first, talk.call(chat("options"), id=2) as second:
        ids = [(await anext(first))["id"], (await anext(second))["id"]]
        await talk.respond(ids[1], accepted(answer="yes"))
        assert text((await anext(second))["result"]) == "options: 'yes'"
        await talk.respond(ids[0], accepted(answer="red"))
        assert text((await anext(first))["result"]) == "text: 'red'"


async def test_a_call_whose_question_another_message_closes_ends(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jimsapi_mcp.waiting.TICK", 0.01)
    async with talk.call(chat("options", thread="t")) as messages:
        asked = await anext(messages)
        async with talk.call(chat("never mind", thread="t"), id=2) as others:
            assert text((await anext(others))["result"]) == "heard never mind"
        withdrawn = await anext(messages)
        assert (withdrawn["method"], withdrawn["params"]["requestId"]) == ("notifications/cancelled", asked["id"])
        last = (await anext(messages))["result"]
    assert last["structuredContent"]["questions"] == []
    assert "closed" in text(last)
    assert (await talk.respond(asked["id"], accepted(answer="yes"))).status_code == 202


async def test_an_answer_by_another_protocol_ends_an_earlier_clients_call(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jimsapi_mcp.waiting.TICK", 0.01)
    async with talk.call(chat("text", thread="t")) as messages:
        await anext(messages)
        answer = await talk.client.post(PATH, **modern("tools/call", chat("blue", thread="t")))
        assert text(result(answer)) == "text: 'blue'"
        assert (await anext(messages))["method"] == "notifications/cancelled"
        assert text((await anext(messages))["result"]) == "text: 'blue'"


async def test_an_answer_that_comes_before_a_call_waits_ends_an_earlier_clients_call(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait = CallStream._wait

    async def answered(*arguments: Any) -> AsyncIterator[bytes]:
        answer = await talk.client.post(PATH, **modern("tools/call", chat("blue", thread="t")))
        assert text(result(answer)) == "text: 'blue'"
        async for heartbeat in wait(*arguments):
            yield heartbeat

    monkeypatch.setattr(CallStream, "_wait", answered)
    async with talk.call(chat("text", thread="t")) as messages:
        await anext(messages)
        assert (await anext(messages))["method"] == "notifications/cancelled"
        assert text((await anext(messages))["result"]) == "text: 'blue'"


@pytest.mark.parametrize("user", ["bea", "talker", "root"])
@pytest.mark.usefixtures("people")
async def test_a_form_of_another_caller_cannot_be_answered(client: TestClient, user: str) -> None:
    talk = Talk(client, await start_session(client, FORMS, x_user="ann"))
    request = legacy("tools/call", chat("text"), session=talk.session, headers={"x-user": "ann"})
    async with client.stream("POST", PATH, **request) as answer:
        messages = talk.messages(answer)
        form = (await anext(messages))["id"]
        refused = await talk.respond(form, accepted(answer="red"), **{"x-user": user})
        assert error(refused, 400)["code"] == -32600
        changed = f"{form[:-1]}{'0' if form[-1] != '0' else '1'}"
        assert error(await talk.respond(changed, accepted(answer="red"), **{"x-user": "ann"}), 400)["code"] == -32600
        assert (await talk.respond(form, accepted(answer="red"), **{"x-user": "ann"})).status_code == 202
        assert text((await anext(messages))["result"]) == "text: 'red'"


SECOND = """
    from jimsapi import hookimpl

    @hookimpl
    def jimsapi_routes(router, service, settings):
        from jimsapi_mcp import McpOptions
        from jimsapi_mcp.routes import add_routes

        add_routes(router, service, McpOptions(path="/second"), ())
"""


@pytest.fixture
async def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Talk]:
    """A client whose server has a second one beside it, at `/second`.

    That one has the same store and no open calls, as another process has.
    """
    install(tmp_path, "second-mcp", SECOND)
    monkeypatch.syspath_prepend(str(tmp_path))
    async with TestClient(create_api(bot, store="memory:", rate_limit="3/h")) as client:
        yield Talk(client, await start_session(client, FORMS))


@pytest.mark.parametrize(
    ("response", "ending"),
    [(accepted(answer="yes"), "options: 'yes'"), ({"action": "decline"}, "The person declined to answer.")],
)
async def test_the_response_may_reach_a_process_in_which_no_call_waits(
    elsewhere: Talk, response: Any, ending: str
) -> None:
    async with elsewhere.call(chat("options")) as messages:
        asked = await anext(messages)
        assert (await elsewhere.respond(asked["id"], response, path="/second")).status_code == 202
        assert (await anext(messages))["method"] == "notifications/cancelled"
        assert text((await anext(messages))["result"]).endswith(ending)


async def test_a_wrong_answer_that_reaches_another_process_is_asked_for_again(elsewhere: Talk) -> None:
    async with elsewhere.call(chat("options")) as messages:
        asked = await anext(messages)
        for _ in range(2):
            response = accepted(answer="perhaps")
            assert (await elsewhere.respond(asked["id"], response, path="/second")).status_code == 202
            assert (await elsewhere.respond(asked["id"], response, path="/second")).status_code == 202  # it is repeated
            before, asked = asked, await anext(messages)
            assert elicited(asked)["message"].startswith("What about options?\n\nAnswer with one of")
            assert asked["id"] != before["id"]
        assert (await elsewhere.respond(asked["id"], accepted(answer="yes"), path="/second")).status_code == 202
        assert (await anext(messages))["method"] == "notifications/cancelled"
        assert text((await anext(messages))["result"]) == "options: 'yes'"


async def test_a_form_that_is_put_off_in_another_process_leaves_the_question_open(elsewhere: Talk) -> None:
    async with elsewhere.call(chat("options", thread="t")) as messages:
        asked = await anext(messages)
        assert (await elsewhere.respond(asked["id"], {"action": "cancel"}, path="/second")).status_code == 202
        last = (await anext(messages))["result"]
    assert "The person has not answered yet." in text(last)
    assert len(last["structuredContent"]["questions"]) == 1
    answer = await elsewhere.client.post(PATH, **modern("tools/call", chat("yes", thread="t")))
    assert text(result(answer)) == "options: 'yes'"


async def test_an_answer_that_another_process_refuses_is_an_error_of_the_tool(elsewhere: Talk) -> None:
    for _ in range(2):
        await elsewhere.client.post(PATH, **modern("tools/call", chat("hi", thread="t")))
    async with elsewhere.call(chat("options", thread="t")) as messages:
        asked = await anext(messages)
        assert (await elsewhere.respond(asked["id"], accepted(answer="yes"), path="/second")).status_code == 202
        last = (await anext(messages))["result"]
    assert last["isError"]
    assert len(last["structuredContent"]["questions"]) == 1


# How long, and how many.


async def test_a_form_waits_for_a_limited_time_and_its_question_longer() -> None:
    async with TestClient(create_api(bot, store="memory:", mcp_form_wait=0.05)) as client:
        talk = Talk(client, await start_session(client, FORMS))
        async with talk.call(chat("options")) as messages:
            asked = await anext(messages)
            withdrawn = await anext(messages)
            assert (withdrawn["method"], withdrawn["params"]["requestId"]) == ("notifications/cancelled", asked["id"])
            last = (await anext(messages))["result"]
        assert "The person has not answered within 0.05 seconds." in text(last)
        assert len(last["structuredContent"]["questions"]) == 1
        assert last["structuredContent"]["thread_id"] in text(last)
        assert (await talk.respond(asked["id"], accepted(answer="yes"))).status_code == 202  # the person was late
        run = last["structuredContent"]["run_id"]
        found = result(await client.post(PATH, **legacy("tools/call", tool("chat_get", run_id=run, wait=20))))
        assert text(found) == "options: 'yes'"


async def test_a_form_waits_no_longer_than_its_question_is_open(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jimsapi_mcp.waiting.READ_AFTER", 2 * PATIENCE)
    async with talk.call(chat("short")) as messages:
        await anext(messages)
        assert (await anext(messages))["method"] == "notifications/cancelled"
        last = (await anext(messages))["result"]
    assert last["structuredContent"]["questions"] == []
    assert "closed" in text(last)


@pytest.mark.parametrize(("of_a_person", "of_all"), [(1, 1000), (20, 1)])
async def test_a_person_and_a_process_have_a_limited_number_of_forms(
    monkeypatch: pytest.MonkeyPatch, of_a_person: int, of_all: int
) -> None:
    monkeypatch.setattr("jimsapi_mcp.sessions.FORMS_OF_A_PERSON", of_a_person)
    async with TestClient(create_api(bot, store="memory:", max_runs=of_all)) as client:
        talk, other = [Talk(client, await start_session(client, FORMS)) for _ in range(2)]
        async with talk.call(chat("options")) as messages:
            asked = await anext(messages)
            async with (talk if of_all > 1 else other).call(chat("text", thread="t"), id=2) as refused:
                last = (await anext(refused))["result"]
            assert (last["isError"], "too many forms" in text(last)) == (True, True)
            assert [one["text"] for one in last["structuredContent"]["questions"]] == ["What about text?"]
            if of_all > 1:
                async with other.call(chat("text")) as messages_of_another:
                    assert elicited(await anext(messages_of_another))
            await talk.respond(asked["id"], accepted(answer="yes"))
            assert text((await anext(messages))["result"]) == "options: 'yes'"
        async with talk.call(chat("text"), id=3) as messages:
            assert elicited(await anext(messages))


async def test_a_call_that_waits_reads_the_store_only_if_its_thread_changes(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[UUID] = []
    read = MemoryStore.events_by_id

    async def counted(store: MemoryStore, thread_id: UUID, event_ids: Any) -> Any:
        reads.append(thread_id)
        return await read(store, thread_id, event_ids)

    monkeypatch.setattr("jimsapi_mcp.waiting.READ_AFTER", PATIENCE)
    monkeypatch.setattr("jimsapi_mcp.waiting.TICK", 0.001)
    monkeypatch.setattr("jimsapi_mcp.streams.HEARTBEAT", 0.002)
    monkeypatch.setattr(MemoryStore, "events_by_id", counted)
    async with talk.call({**chat("options", thread="t"), "_meta": {"progressToken": "t"}}) as messages:
        await anext(messages)
        await anext(messages)
        begun = len(reads)
        for _ in range(20):
            assert (await anext(messages))["method"] == "notifications/progress"
        assert len(reads) == begun
        answer = await talk.client.post(PATH, **modern("tools/call", chat("yes", thread="t")))
        assert text(result(answer)) == "options: 'yes'"
        assert text([one async for one in messages][-1]["result"]) == "options: 'yes'"


@pytest.mark.usefixtures("people")
async def test_a_cancellation_may_reach_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "second-mcp", SECOND)
    monkeypatch.syspath_prepend(str(tmp_path))
    async with TestClient(create_api(bot, store="memory:")) as client:
        headers = {"x-user": "talker"}
        talk = Talk(client, await start_session(client, FORMS, x_user="talker"))
        meta = {"_meta": {"progressToken": "t"}}
        request = legacy("tools/call", {**chat("hold"), **meta}, session=talk.session, headers=headers)
        async with client.stream("POST", PATH, **request) as answer:
            messages = talk.messages(answer)
            assert (await anext(messages))["params"]["message"] == "Holding"
            for session in (await start_session(client, FORMS, x_user="talker"), talk.session):
                notice = legacy("notifications/cancelled", {"requestId": 1}, id=None, session=session, headers=headers)
                assert (await client.post("/second", **notice)).status_code == 202
                run = (await client.get(f"/api/v1/runs/{answer.headers['x-run-id']}", headers=headers)).json()
                assert run["status"] == ("running" if session != talk.session else "cancelled")


async def test_a_call_that_waits_gives_signs_of_life(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jimsapi_mcp.waiting.TICK", 0.01)
    monkeypatch.setattr("jimsapi_mcp.streams.HEARTBEAT", 0.02)
    async with talk.call({**chat("text"), "_meta": {"progressToken": "t"}}) as messages:
        asked = await anext(messages)
        heard = [await anext(messages) for _ in range(2)]
        assert [one["method"] for one in heard] == ["notifications/progress"] * 2
        assert heard[0]["params"]["progress"] < heard[1]["params"]["progress"]
        await talk.respond(asked["id"], accepted(answer="red"))
        assert "text: 'red'" in [text(one["result"]) async for one in messages if "result" in one]


async def test_an_answer_that_is_refused_is_an_error_of_the_tool(client: TestClient) -> None:
    async with TestClient(create_api(bot, store="memory:", rate_limit="1/h")) as limited:
        talk = Talk(limited, await start_session(limited, FORMS))
        async with talk.call(chat("text", thread="t")) as messages:
            asked = await anext(messages)
            assert (await talk.respond(asked["id"], accepted(answer="red"))).status_code == 202
            last = (await anext(messages))["result"]
    assert last["isError"]
    assert len(last["structuredContent"]["questions"]) == 1


async def test_events_of_a_call_are_the_same_without_questions(client: TestClient) -> None:
    session = await start_session(client, FORMS)
    found = events(await client.post(PATH, **legacy("tools/call", chat("hi"), session=session)))
    assert [one.get("id") for one in found] == [1]
