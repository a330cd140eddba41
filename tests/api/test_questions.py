"""Questions over HTTP: their form in an answer, a run, a stream and a WebSocket, and the ways to answer them."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from jimsapi import Inbound, ThreadContext, create_api
from jimsapi.asgi.testing import TestClient
from jimsapi.runs.admission import PUBLIC
from jimsapi.runs.errors import PipelineFailed
from tests.api.conversation import CHAT, RUNS, STREAM, body, parse

pytestmark = pytest.mark.anyio

SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="


async def approve(ctx: ThreadContext) -> None:
    """Ask whether to go on, unless the message is plain."""
    if ctx.get_last_user_message() == "plain":
        ctx.send_message("fine")
    else:
        ctx.send_message(f"you said {await ctx.ask('go', 'Go on?', options=['yes', 'no'])}")


def answers(question: dict[str, Any], value: Any = "yes", **fields: Any) -> dict[str, Any]:
    return {"contact_id": "ann", "answers": {question["question_id"]: value}, **fields}


async def test_an_answer_has_its_questions_and_without_questions_it_is_as_before() -> None:
    async with TestClient(create_api(approve, store="memory:")) as client:
        plain = (await client.post(CHAT, json=body("plain"))).json()
        assert plain.keys() == {"thread_id", "created_new_thread", "assistant_messages", "events"}
        asked = await client.post(CHAT, json=body("do it"))
        [question] = asked.json()["questions"]
        assert question == {
            "question_id": question["question_id"],
            "key": "go",
            "text": "Go on?",
            "options": ["yes", "no"],
            "schema": None,
            "expires_at": None,
        }
        run = (await client.get(f"{RUNS}/{asked.headers['x-run-id']}")).json()
        assert run["status"] == "completed"
        assert run["result"] == asked.json()
        answered = (await client.post(CHAT, json=answers(question))).json()
        assert answered["assistant_messages"] == ["you said yes"]
        assert "questions" not in answered


async def test_a_stream_ends_with_the_question_and_answers_an_answer() -> None:
    async with TestClient(create_api(approve, store="memory:")) as client:
        told = parse((await client.post(STREAM, json=body("do it"))).text)
        assert [event.data["event_type"] for event in told if event.name == "event"] == ["question.asked"]
        [question] = told[-1].data["questions"]
        answered = parse((await client.post(STREAM, json=answers(question, "no"))).text)
        assert answered[-1].data["assistant_messages"] == ["you said no"]


@pytest.mark.parametrize(
    ("sent", "status", "loc"),
    [
        ({"answers": {}}, 422, ["body", "message"]),
        ({"answers": None}, 422, ["body", "message"]),
        ({"answers": []}, 422, ["body", "message"]),
        ({"answers": ["x"]}, 422, ["body", "answers"]),
        ({"answers": {"no id": "yes"}}, 404, None),
        ({"answers": {str(uuid4()): "yes"}}, 404, None),
        ({"answers": {str(uuid4()): "\0"}}, 422, None),
    ],
)
async def test_answers_to_nothing_are_refused(sent: dict[str, Any], status: int, loc: list[str] | None) -> None:
    async with TestClient(create_api(approve, store="memory:")) as client:
        await client.post(CHAT, json=body("plain"))
        refused = await client.post(CHAT, json={"contact_id": "ann", **sent})
        assert refused.status_code == status, refused.text
        if loc is not None:
            assert loc in [fault["loc"] for fault in refused.json()["detail"]]


async def test_a_value_that_is_no_answer_is_refused_by_its_place() -> None:
    async with TestClient(create_api(approve, store="memory:")) as client:
        [question] = (await client.post(CHAT, json=body("do it"))).json()["questions"]
        refused = await client.post(CHAT, json=answers(question, "maybe"))
        [fault] = refused.json()["detail"]
        assert (refused.status_code, fault["loc"]) == (422, ["body", "answers", question["question_id"]])
        assert "yes" in fault["msg"]
        assert (await client.post(CHAT, json=answers(question))).status_code == 200
        closed = await client.post(CHAT, json=answers(question))
        assert (closed.status_code, "answered" in closed.json()["detail"]) == (409, True)


@pytest.mark.parametrize("event_type", ["message.answers", "message.metadata", "question.answered", "once.result"])
async def test_a_message_cannot_have_the_type_of_what_the_server_alone_stores(event_type: str) -> None:
    async with TestClient(create_api(approve, store="memory:")) as client:
        refused = await client.post(CHAT, json={**body("plain"), "event_type": event_type})
        assert (refused.status_code, refused.json()["detail"][0]["loc"]) == (422, ["body", "event_type"])


async def test_a_message_outside_of_a_thread_cannot_ask() -> None:
    api = create_api(approve, store="memory:")
    async with TestClient(api):
        assert api.service is not None
        run = api.service.answer_once(Inbound(contact_id="ann", message="do it"), PUBLIC)
        with pytest.raises(PipelineFailed, match="no thread"):
            await run.wait_for_answer()


async def test_another_contact_that_answers_has_no_webhook_called_with_the_answer(tmp_path: Path) -> None:
    async def named(ctx: ThreadContext) -> None:
        ctx.send_message(f"ann's secret: {await ctx.ask('go', 'Go on?', answerable_by='contact:boss')}")

    keys = [
        {
            "name": name,
            "sha256": sha256(name.encode()).hexdigest(),
            "created": "2026-11-25T12:00:00Z",
            "contact_id": name,
        }
        for name in ("ann", "boss")
    ]
    (tmp_path / "keys.json").write_text(json.dumps({"version": 1, "keys": keys}))
    settings: dict[str, Any] = {"store": "memory:", "keys_file": str(tmp_path / "keys.json"), "webhook_secret": SECRET}
    async with TestClient(create_api(named, **settings)) as client:
        ann, boss = ({"authorization": f"Bearer {name}"} for name in ("ann", "boss"))
        asked = (await client.post(CHAT, json=body("do it"), headers=ann)).json()
        sent = {**answers(asked["questions"][0]), "contact_id": "boss", "thread_id": asked["thread_id"]}
        told = await client.post(CHAT, json={**sent, "webhook_url": "https://example.com/"}, headers=boss)
        assert (told.status_code, told.json()["detail"][0]["loc"]) == (422, ["body", "webhook_url"])
        answered = await client.post(CHAT, json=sent, headers=boss)
        assert (answered.status_code, answered.json()["assistant_messages"]) == (200, [])
