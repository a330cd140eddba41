"""Pipelines that fail: the caller is told, the message stays, and nothing of the failed answer is stored."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from jimsapi import Event, JimsApp, ThreadContext, create_api
from jimsapi.asgi.testing import TestClient
from jimsapi.plugins.protocols import CommitRecord
from tests.apps.steered import greet, steered

pytestmark = pytest.mark.anyio

CHAT = "/api/v1/chat"
USER = "comm.user_message"
CREATED = "jims.lifecycle.thread_created"


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "failures.db"


def serve(database: Path, pipeline: Any = steered, **settings: Any) -> TestClient:
    app = JimsApp(pipeline, conversation_start_pipeline=greet)
    return TestClient(create_api(app, store=f"sqlite:///{database}", **settings))


async def chat(client: httpx.AsyncClient, message: str, **fields: Any) -> httpx.Response:
    return await client.post(CHAT, json={"contact_id": "ann", "message": message} | fields)


async def events(client: httpx.AsyncClient) -> list[tuple[str, Any]]:
    """Type and data of all events in the newest thread."""
    threads = (await client.get("/api/v1/threads?contact_id=ann")).json()["threads"]
    listed = (await client.get(f"/api/v1/threads/{threads[0]['thread_id']}/events")).json()["events"]
    return [(event["event_type"], event["event_data"].get("content")) for event in listed]


def runs(database: Path) -> list[tuple[str, str | None]]:
    """Status and error of the stored runs, as they arrived."""
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute("SELECT status, error FROM jimsapi_runs ORDER BY run_id").fetchall()


async def test_one_that_raises_is_500_and_its_run_failed(database: Path) -> None:
    async with serve(database) as client:
        answer = await chat(client, "raise the roof")
        stored = await events(client)
        after = await chat(client, "see")
    assert (answer.status_code, answer.text) == (500, '{"detail":"Pipeline error: the roof"}')
    assert answer.headers["x-run-id"]
    assert stored == [(CREATED, None), (USER, "raise the roof")]
    assert after.json()["assistant_messages"] == ['{"asked": ["raise the roof", "see"], "answered": 0}']
    assert [status for status, _ in runs(database)] == ["failed", "completed"]


@pytest.mark.parametrize("command", ["exit now", "unstorable"])
async def test_one_that_exits_or_sends_no_json_does_not_harm_the_server(database: Path, command: str) -> None:
    async with serve(database) as client:
        answer = await chat(client, command)
        stored = await events(client)
        assert (await chat(client, "hi")).status_code == 200
    assert answer.status_code == 500
    assert ("rag.odd" if command == "unstorable" else "SystemExit") in answer.json()["detail"]
    assert stored == [(CREATED, None), (USER, command)]
    assert [status for status, _ in runs(database)] == ["failed", "completed"]


class Quiet(Exception):
    def __str__(self) -> str:
        raise ValueError


UNSTORABLE: list[tuple[str, Any]] = [
    ("rag.nul", {"text": "a\0b"}),
    ("rag.surrogate", {"text": "\ud800"}),
    ("rag.big", {"n": 2**64}),
    ("rag.set", {"s": {1, 2}}),
    ("rag.bytes", {"b": b"x"}),
    ("t" * 256, {}),
    ("rag.deep", None),
]


@pytest.mark.parametrize(("event_type", "data"), UNSTORABLE, ids=[kind[:12] for kind, _ in UNSTORABLE])
async def test_what_cannot_be_stored_is_500_that_names_the_event_type(
    database: Path, event_type: str, data: Any
) -> None:
    if data is None:
        data = {}
        for _ in range(201):
            data = {"a": data}

    async def answer(ctx: ThreadContext) -> None:
        ctx.send_message("before")
        ctx.send_event(event_type, data)

    async with serve(database, answer) as client:
        answered = await chat(client, "hi")
        stored = await events(client)
    assert answered.status_code == 500
    assert answered.json()["detail"].startswith("Pipeline error: ")
    assert event_type[:255] in answered.json()["detail"]
    assert stored == [(CREATED, None), (USER, "hi")]


async def test_an_event_that_is_in_the_thread_already_is_refused(database: Path) -> None:
    async def answer(ctx: ThreadContext) -> None:
        ctx.outgoing_events.append(ctx.events[-1])

    async with serve(database, answer) as client:
        answered = await chat(client, "hi")
    assert (answered.status_code, USER in answered.json()["detail"]) == (500, True)


@pytest.mark.parametrize("outgoing", ["text", 5, None, {"event_type": "rag.dict"}])
async def test_what_is_no_event_among_the_outgoing_is_refused(database: Path, outgoing: Any) -> None:
    async def answer(ctx: ThreadContext) -> None:
        ctx.outgoing_events.append(outgoing)

    async with serve(database, answer) as client:
        assert (await chat(client, "hi")).status_code == 500
        assert (await events(client)) == [(CREATED, None), (USER, "hi")]


@pytest.mark.parametrize("outgoing", [None, 5])
async def test_outgoing_events_that_are_no_list_fail_the_run_at_once(database: Path, outgoing: Any) -> None:
    async def answer(ctx: ThreadContext) -> None:
        if ctx.get_last_user_message() == "break":
            ctx.outgoing_events = outgoing

    async with serve(database, answer) as client:
        answered = await chat(client, "break")
        assert (await chat(client, "hi")).status_code == 200
    assert answered.status_code == 500
    assert answered.json()["detail"].startswith("Pipeline error: ")
    assert [status for status, _ in runs(database)] == ["failed", "completed"]


@pytest.mark.parametrize(
    "error", [Quiet(), RuntimeError("\ud800"), RuntimeError(), asyncio.CancelledError(), KeyError("k")]
)
async def test_an_exception_of_any_kind_is_told(database: Path, error: BaseException) -> None:
    async def answer(ctx: ThreadContext) -> None:
        raise error

    async with serve(database, answer) as client:
        answered = await chat(client, "hi")
        assert (await client.get("/readyz")).status_code == 200
    assert answered.status_code == 500
    assert answered.json()["detail"].startswith("Pipeline error: ")


async def test_a_conversation_start_is_stored_before_the_message_and_not_in_the_answer(database: Path) -> None:
    async with serve(database) as client:
        answer = await chat(client, "see", run_conversation_start_on_new_thread=True)
        again = await chat(client, "see", run_conversation_start_on_new_thread=True)
        stored = await events(client)
    assert answer.json()["created_new_thread"]
    assert answer.json()["assistant_messages"] == ['{"asked": ["see"], "answered": 1}']
    assert len(answer.json()["events"]) == 1
    assert again.json()["assistant_messages"] == ['{"asked": ["see", "see"], "answered": 2}']
    assert stored[:3] == [(CREATED, None), ("comm.assistant_message", "Welcome"), (USER, "see")]


async def test_without_being_asked_for_or_without_one_there_is_no_conversation_start(database: Path) -> None:
    async with serve(database) as client:
        assert (await chat(client, "see")).json()["assistant_messages"] == ['{"asked": ["see"], "answered": 0}']
    api = create_api(JimsApp(steered), store="memory:")
    async with TestClient(api) as client:
        answer = await chat(client, "see", run_conversation_start_on_new_thread=True)
    assert answer.json()["assistant_messages"] == ['{"asked": ["see"], "answered": 0}']


async def test_a_conversation_start_that_raises_is_500_and_the_message_is_stored(database: Path) -> None:
    config = {"greet": "raise"}
    async with serve(database) as client:
        answer = await chat(client, "hi", run_conversation_start_on_new_thread=True, thread_config=config)
        stored = await events(client)
        after = await chat(client, "see", run_conversation_start_on_new_thread=True)
    assert (answer.status_code, answer.json()) == (500, {"detail": "Pipeline error: no greeting"})
    assert stored == [(CREATED, None), (USER, "hi")]
    assert after.json()["assistant_messages"] == ['{"asked": ["hi", "see"], "answered": 0}']
    assert [status for status, _ in runs(database)] == ["failed", "completed"]


async def test_the_time_limit_of_a_run_covers_its_conversation_start(database: Path) -> None:
    config = {"greet": "hang"}
    async with serve(database, run_timeout=0.5) as client:
        answer = await chat(client, "hi", run_conversation_start_on_new_thread=True, thread_config=config)
        stored = await events(client)
        assert (await chat(client, "see")).status_code == 200
    assert answer.status_code == 504
    assert stored == [(CREATED, None), (USER, "hi")]


async def test_concurrent_first_messages_are_greeted_once(database: Path) -> None:
    async with serve(database) as client:
        sent = [chat(client, f"see {n}", run_conversation_start_on_new_thread=True) for n in range(10)]
        answers = await asyncio.gather(*sent)
        stored = await events(client)
    assert [answer.status_code for answer in answers] == [200] * 10
    assert sum(answer.json()["created_new_thread"] for answer in answers) == 1
    assert [content for _, content in stored].count("Welcome") == 1
    assert stored[1] == ("comm.assistant_message", "Welcome")


async def test_an_event_made_by_hand_is_stored_as_it_is(database: Path) -> None:
    async def answer(ctx: ThreadContext) -> None:
        ctx.outgoing_events.extend(
            [Event(event_type="rag.list", event_data=[1]), Event(event_type="rag.null", event_data=None)]
        )

    async with serve(database, answer) as client:
        answered = await chat(client, "hi")
        threads = (await client.get("/api/v1/threads?contact_id=ann")).json()["threads"]
        listed = (await client.get(f"/api/v1/threads/{threads[0]['thread_id']}/events")).json()["events"]
    assert answered.json()["events"] == [
        {"event_type": "rag.list", "event_data": {}},
        {"event_type": "rag.null", "event_data": {}},
    ]
    assert [event["event_data"] for event in listed[-2:]] == [[1], None]


async def test_a_turn_is_two_durable_transactions(database: Path) -> None:
    api = create_api(JimsApp(steered), store=f"sqlite:///{database}")
    commits: list[CommitRecord] = []
    async with TestClient(api) as client:
        assert api.service is not None
        api.service.store.on_commit = commits.append

        async def turn(contact: str, thread_id: str | None = None) -> tuple[str, int]:
            before = len(commits)
            body = {"contact_id": contact, "message": "hi", "thread_id": thread_id}
            answer = await client.post(CHAT, json=body)
            return answer.json()["thread_id"], len(commits) - before

        begun = [await turn(f"new {number}") for number in range(5)]
        continued = [await turn(f"new {number}", thread_id) for number, (thread_id, _) in enumerate(begun)]
    # The heartbeat, and what a start does in the background, commit between others now and then.
    assert min(count for _, count in begun) == 2
    assert min(count for _, count in continued) == 2
    assert {commit.failed for commit in commits} == {False}
