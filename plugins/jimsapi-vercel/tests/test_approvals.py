"""Questions as approvals of a tool: the AI SDK's own chat in Node asks, and a person approves or denies."""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from jimsapi import ThreadContext, create_api
from jimsapi.asgi.testing import TestClient
from tests.node import run_node
from tests.serving import Served

APPROVE = Path(__file__).with_name("approve.mjs")
APPROVALS = {"x-tool-approvals": "true"}

BOT = """
from jimsapi import JimsApp


async def answer(ctx):
    text = str(ctx.get_last_user_message())
    if text.startswith("refund"):
        if not ctx.answered:
            ctx.send_message("One moment.")
        if await ctx.ask("refund", "Refund 20 EUR?", options=["yes", "no"]) == "no":
            ctx.send_message("No refund.")
        elif await ctx.ask("mail", "Write a mail?", schema={"type": "boolean"}):
            ctx.send_message("Refunded, and wrote a mail.")
        else:
            ctx.send_message("Refunded.")
    elif text == "colour":
        ctx.send_message(f"It is {await ctx.ask('colour', 'Which colour?', options=['red', 'blue'])}")
    elif text == "break" and await ctx.ask("break", "Break it?", options=["Yes", "No"]):
        raise RuntimeError("broken")
    else:
        ctx.send_message(f"You said {text}")


app = JimsApp(answer)
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("bot")
    (folder / "bot.py").write_text(BOT)
    with Served("--app", "bot:app", folder=folder) as server:
        yield server


def converse(served: Served, sdk: str, *steps: dict[str, Any]) -> Any:
    """What a page shows after each step."""
    chat = {"api": f"{served.url}/ai-sdk/chat", "id": f"ü/{uuid4()}"}
    return run_node(APPROVE, sdk=sdk, headers=APPROVALS, approves=True, steps=steps, **chat)


def shown(step: Any) -> list[list[str]]:
    """What each message shows: its texts, and each call with its state."""
    assert (step["status"], step["error"]) == ("ready", None)
    return [[seen for part in message["parts"] if (seen := _seen(part))] for message in step["messages"]]


def _seen(part: Any) -> str:
    if part["type"] == "dynamic-tool":
        return f"{part['toolName']} {part['state']}"
    return str(part["text"]) if part["type"] == "text" else ""


sdks = pytest.mark.parametrize("sdk", ["ai", "ai-6"])


@sdks
def test_a_person_approves_twice_in_one_message(served: Served, sdk: str) -> None:
    asked, approved, mailed, again = converse(
        served, sdk, {"say": "refund me"}, {"approve": True}, {"approve": True}, {"reload": True}
    )
    assert shown(asked) == [["refund me"], ["One moment.", "refund approval-requested"]]
    assert shown(approved) == [["refund me"], ["One moment.", "refund output-available", "mail approval-requested"]]
    calls = ["refund output-available", "mail output-available"]
    assert shown(mailed) == [["refund me"], ["One moment.", *calls, "Refunded, and wrote a mail."]]
    assert shown(again) == shown(mailed)
    assert [step["requests"] for step in (asked, approved, mailed)] == [1, 1, 1]
    parts = [part for part in mailed["messages"][-1]["parts"] if part["type"] == "dynamic-tool"]
    assert [part["output"] for part in parts] == ["yes", True]
    assert parts[0]["input"]["text"] == "Refund 20 EUR?"


@sdks
def test_a_person_denies(served: Served, sdk: str) -> None:
    _, denied, again = converse(served, sdk, {"say": "refund me"}, {"approve": False}, {"reload": True})
    assert shown(denied) == [["refund me"], ["One moment.", "refund output-denied", "No refund."]]
    assert shown(again) == shown(denied)
    assert denied["requests"] == 1


@sdks
def test_after_a_reload_an_open_approval_is_there_and_can_be_given(served: Served, sdk: str) -> None:
    asked, reloaded, denied, said = converse(
        served, sdk, {"say": "refund me"}, {"reload": True}, {"approve": False}, {"say": "thanks"}
    )
    assert shown(reloaded) == shown(asked)
    assert shown(denied) == [["refund me"], ["One moment.", "refund output-denied", "No refund."]]
    assert shown(said)[2:] == [["thanks"], ["You said thanks"]]


@sdks
def test_a_text_answers_an_approval_too_and_another_message_closes_it(served: Served, sdk: str) -> None:
    _, said, _, closed, again = converse(
        served, sdk, {"say": "refund me"}, {"say": "no"}, {"say": "refund me"}, {"say": "hello"}, {"reload": True}
    )
    assert shown(said)[-1] == ["No refund."]
    assert shown(closed)[-1] == ["You said hello"]
    as_text = "Refund 20 EUR?\n- yes\n- no"
    assert shown(again) == [
        ["refund me"], ["One moment.", as_text], ["no"], ["No refund."],
        ["refund me"], ["One moment.", as_text], ["hello"], ["You said hello"],
    ]  # fmt: skip


@sdks
def test_a_run_that_fails_after_an_approval_is_sent_once(served: Served, sdk: str) -> None:
    _, failed = converse(served, sdk, {"say": "break"}, {"approve": True})
    assert (failed["error"], failed["requests"]) == ("Pipeline error: broken", 1)


@sdks
def test_other_questions_are_texts(served: Served, sdk: str) -> None:
    asked, said = converse(served, sdk, {"say": "colour"}, {"say": "blue"})
    assert shown(asked)[-1] == ["Which colour?\n- red\n- blue"]
    assert shown(said)[-1] == ["It is blue"]


# On the wire.


async def refund(ctx: ThreadContext) -> None:
    ctx.send_message(str(await ctx.ask("refund", "Refund?", options=["No", "Yes"])))


@pytest.fixture
async def client() -> AsyncIterator[TestClient]:
    async with TestClient(create_api(refund, store="memory:")) as client:
        client.headers.update(APPROVALS)
        yield client


def chunks(answer: httpx.Response) -> list[Any]:
    assert answer.status_code == 200, answer.text
    return [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]


async def send(client: TestClient, *messages: dict[str, Any]) -> httpx.Response:
    return await client.post("/ai-sdk/chat", json={"id": "c", "messages": messages})


USER = {"id": "1", "role": "user", "parts": [{"type": "text", "text": "hi"}]}


def responded(chunk: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The message of the assistant with which a page answers the question in a chunk."""
    approval = {"id": chunk["toolCallId"], "approved": True, "reason": "fine"}
    part = {"type": "dynamic-tool", "state": "approval-responded", "input": chunk["input"], "approval": approval}
    return {"id": "2", "role": "assistant", "parts": [{"type": "step-start"}, {**part, **changes}]}


async def asked(client: TestClient) -> dict[str, Any]:
    [chunk] = [one for one in chunks(await send(client, USER)) if one["type"] == "tool-input-available"]
    found: dict[str, Any] = chunk
    return found


@pytest.mark.anyio
async def test_the_answer_continues_the_message_with_the_approval(client: TestClient) -> None:
    question = await asked(client)
    answered = chunks(await send(client, USER, responded(question)))
    assert [chunk["type"] for chunk in answered] == [
        "start", "start-step", "tool-output-available", "text-start", "text-delta", "text-end", "finish-step", "finish",
    ]  # fmt: skip
    assert answered[0]["messageId"] == "2"
    assert (answered[2]["toolCallId"], answered[2]["output"]) == (question["toolCallId"], "Yes")


@pytest.mark.anyio
async def test_a_page_that_does_not_show_approvals_gets_a_text(client: TestClient) -> None:
    del client.headers["x-tool-approvals"]
    types = {chunk["type"] for chunk in chunks(await send(client, USER))}
    assert "data-question" in types
    assert not {one for one in types if one.startswith("tool-")}
    [_, message] = (await client.get("/ai-sdk/chat/c/messages")).json()
    assert [part["type"] for part in message["parts"]] == ["text", "data-question"]


@pytest.mark.anyio
async def test_a_question_is_answered_once_and_only_by_its_own_chat(client: TestClient) -> None:
    question = await asked(client)
    elsewhere = {"id": "other", "messages": [USER, responded(question)]}
    assert (await client.post("/ai-sdk/chat", json=elsewhere)).status_code == 404
    assert (await send(client, USER, responded(question))).status_code == 200
    denial = {"id": question["toolCallId"], "approved": False}
    assert (await send(client, USER, responded(question, approval=denial))).status_code == 409
    assert (await send(client, USER, responded(question))).status_code == 409


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"input": {"options": ["red", "blue"]}}, 422),
        ({"input": None}, 422),
        ({"input": {"schema": {"type": "boolean"}}}, 422),  # not what the question was
        ({"approval": {"id": "?", "approved": True}}, 404),
        ({"approval": {"id": str(uuid4()), "approved": True}}, 404),
        ({"approval": {"id": "?"}}, 422),  # not answered: the message is the assistant's
        ({"state": "output-available"}, 422),
    ],
)
async def test_an_approval_that_answers_no_question_is_refused(
    client: TestClient, changes: dict[str, Any], status: int
) -> None:
    question = await asked(client)
    assert (await send(client, USER, responded(question, **changes))).status_code == status


@pytest.mark.anyio
async def test_an_approval_that_has_expired_is_shown_as_a_text() -> None:
    async def hurry(ctx: ThreadContext) -> None:
        await ctx.ask("hurry", "Now?", options=["yes", "no"], expires=0.01)

    async with TestClient(create_api(hurry, store="memory:")) as client:
        client.headers.update(APPROVALS)
        question = await asked(client)
        message: dict[str, Any] = {"parts": [{"type": "dynamic-tool"}]}
        while message["parts"][0]["type"] == "dynamic-tool":
            [_, message] = (await client.get("/ai-sdk/chat/c/messages")).json()
        assert message["parts"][0]["text"] == "Now?\n- yes\n- no"
        assert (await send(client, USER, responded(question))).status_code == 409
