"""What goes over the wire: shapes and order of the events, whose thread it is, and what is refused."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from jimsapi import StatusEvent, ThreadContext, create_api
from jimsapi.asgi.testing import TestClient
from jimsapi.stores.memory import MemoryStore
from jimsapi.threads.errors import StoreUnavailable
from jimsapi.threads.run import Accepted, Outcome, RunPlan, Settled
from tests.plugins.distributions import install
from tests.serving import ROOT

pytestmark = pytest.mark.anyio

AG_UI = "/ag-ui"
RUN = "any text, ü"
Pipeline = Callable[[ThreadContext], Awaitable[None]]


async def tell(ctx: ThreadContext) -> None:
    """Answer with all earlier messages."""
    ctx.send_message(" ".join(str(said["content"]) for said in ctx.history))


@pytest.fixture
async def client() -> AsyncIterator[TestClient]:
    async with TestClient(create_api(tell, store="memory:", agui_contact_header="x-person")) as client:
        yield client


def body(*contents: Any, thread: str = "t-1") -> dict[str, Any]:
    """The body of a client's request after the messages `contents`, alternately of the user and the assistant."""
    said = [{"id": str(n), "role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(contents)]
    empty: dict[str, Any] = {"state": {}, "tools": [], "context": [], "forwardedProps": {}}
    return {"threadId": thread, "runId": RUN, "protocolVersion": "1.0", "messages": said, **empty}


def events(answer: httpx.Response) -> list[dict[str, Any]]:
    """The events of an answer, of which there is nothing but lines with data."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    *blocks, rest = answer.text.split("\n\n")
    assert rest == ""
    assert all(block.startswith("data: {") and "\n" not in block for block in blocks)
    return [json.loads(block.removeprefix("data: ")) for block in blocks]


async def ask(client: httpx.AsyncClient, *contents: Any, thread: str = "t-1", **headers: str) -> list[dict[str, Any]]:
    return events(await client.post(AG_UI, json=body(*contents, thread=thread), headers=dashed(headers)))


async def threads(client: httpx.AsyncClient, contact: str, **headers: str) -> int:
    """How many threads a contact has."""
    listed = await client.get("/api/v1/threads", params={"contact_id": contact}, headers=dashed(headers))
    return len(listed.json()["threads"])


def dashed(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


async def answered(pipeline: Pipeline, **settings: Any) -> list[dict[str, Any]]:
    """The events that a client receives for one run of a pipeline."""
    async with TestClient(create_api(pipeline, store="memory:", **settings)) as client:
        return await ask(client, "hi")


def text(told: list[dict[str, Any]]) -> str:
    return "".join(event.get("delta", "") for event in told)


STARTED = {"type": "RUN_STARTED", "threadId": "t-1", "runId": RUN}
FINISHED = {"type": "RUN_FINISHED", "threadId": "t-1", "runId": RUN, "outcome": {"type": "success"}}


def error(message: str, code: str) -> dict[str, str]:
    return {"type": "RUN_ERROR", "message": message, "code": code}


# Shapes and order.


async def test_a_run_is_told_event_by_event() -> None:
    async def everything(ctx: ThreadContext) -> None:
        await ctx.update_agent_status(StatusEvent("Looking it up", "search"))
        await ctx.update_agent_status("Writing")
        await ctx.stream("Hel")
        await ctx.stream("")
        await ctx.stream("lo")
        ctx.send_message("Hello, you")
        ctx.send_event("rag.query_processed", {"hits": 2, "text": "ü\u2028"})
        ctx.send_message("Bye")

    told = await answered(everything)
    first, second = (event["messageId"] for event in told if event["type"] == "TEXT_MESSAGE_START")
    assert UUID(first) != UUID(second)
    assert told == [
        STARTED,
        {"type": "STEP_STARTED", "stepName": "Looking it up"},
        {"type": "STEP_FINISHED", "stepName": "Looking it up"},
        {"type": "STEP_STARTED", "stepName": "Writing"},
        {"type": "STEP_FINISHED", "stepName": "Writing"},
        {"type": "TEXT_MESSAGE_START", "messageId": first, "role": "assistant"},
        {"type": "TEXT_MESSAGE_CONTENT", "messageId": first, "delta": "Hel"},
        {"type": "TEXT_MESSAGE_CONTENT", "messageId": first, "delta": "lo"},
        {"type": "TEXT_MESSAGE_CONTENT", "messageId": first, "delta": ", you"},
        {"type": "TEXT_MESSAGE_END", "messageId": first},
        {"type": "TEXT_MESSAGE_START", "messageId": second, "role": "assistant"},
        {"type": "TEXT_MESSAGE_CONTENT", "messageId": second, "delta": "Bye"},
        {"type": "TEXT_MESSAGE_END", "messageId": second},
        {"type": "CUSTOM", "name": "rag.query_processed", "value": {"hits": 2, "text": "ü\u2028"}},
        FINISHED,
    ]


async def test_a_status_within_a_message_ends_with_the_next_piece() -> None:
    async def interrupted(ctx: ThreadContext) -> None:
        await ctx.stream("a")
        await ctx.update_agent_status("Thinking")
        await ctx.stream("b")
        await ctx.update_agent_status("Nearly done")

    told = await answered(interrupted)
    assert [event.get("delta") or event.get("stepName") or event["type"] for event in told] == [
        "RUN_STARTED", "TEXT_MESSAGE_START", "a", "Thinking", "Thinking", "b", "Nearly done", "Nearly done",
        "TEXT_MESSAGE_END", "RUN_FINISHED",
    ]  # fmt: skip


async def test_no_message_has_the_name_of_another(client: TestClient) -> None:
    names = [event["messageId"] for _ in range(3) for event in await ask(client, "hi") if event["type"].endswith("END")]
    assert len(set(names)) == 3


async def test_a_message_is_named_as_its_event_is_in_the_thread(client: TestClient) -> None:
    answer = await client.post(AG_UI, json=body("hi"))
    run = (await client.get(f"/api/v1/runs/{answer.headers['x-run-id']}")).json()
    stored = (await client.get(f"/api/v1/threads/{run['thread_id']}/events")).json()["events"]
    assert stored[-1]["event_id"] == events(answer)[1]["messageId"]


# Faults.


async def test_a_fault_in_the_middle_closes_what_is_open_and_is_the_last_that_is_told() -> None:
    async def breaking(ctx: ThreadContext) -> None:
        await ctx.stream("Hel")
        await ctx.update_agent_status("Breaking")
        raise RuntimeError("ü")

    told = await answered(breaking)
    assert [event["type"] for event in told] == [
        "RUN_STARTED", "TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT", "STEP_STARTED", "STEP_FINISHED",
        "TEXT_MESSAGE_END", "RUN_ERROR",
    ]  # fmt: skip
    assert told[-1] == error("Pipeline error: ü", "500")
    [*_, hidden] = await answered(breaking, hide_errors=True)
    assert re.fullmatch(r"Pipeline error: reference [0-9a-f-]{36}", hidden["message"])


async def test_a_pipeline_that_takes_too_long_is_an_error() -> None:
    async def hanging(ctx: ThreadContext) -> None:
        await asyncio.Event().wait()

    assert await answered(hanging, run_timeout=0.1) == [
        STARTED,
        error("The pipeline did not answer within 0.1 seconds", "504"),
    ]


async def test_a_cancelled_run_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: asyncio.Queue[UUID] = asyncio.Queue()
    accept = MemoryStore.accept

    async def noting(store: MemoryStore, plan: RunPlan) -> Accepted:
        accepted = await accept(store, plan)
        runs.put_nowait(plan.run_id)
        return accepted

    async def hanging(ctx: ThreadContext) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(MemoryStore, "accept", noting)
    async with TestClient(create_api(hanging, store="memory:")) as client:
        asking = asyncio.create_task(ask(client, "hi"))
        assert (await client.post(f"/api/v1/runs/{await runs.get()}/cancel")).status_code == 202
        assert await asking == [STARTED, error("The run was cancelled", "409")]


async def test_a_store_that_fails_is_an_error_without_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    finish = MemoryStore.finish
    failed: list[UUID] = []

    async def failing_once(store: MemoryStore, run_id: UUID, owner: UUID, outcome: Outcome) -> Settled:
        if not failed:
            failed.append(run_id)
            raise StoreUnavailable("password=hunter2")
        return await finish(store, run_id, owner, outcome)

    monkeypatch.setattr(MemoryStore, "finish", failing_once)
    told = await answered(tell)
    assert told[-1] == error("The store is not available; try again later", "503")
    assert text(told) == "hi"


# Whose thread it is.


async def test_only_the_newest_message_is_stored(client: TestClient) -> None:
    assert text(await ask(client, "one")) == "one"
    assert text(await ask(client, "forged", "forged too", "two")) == "one one two"


async def test_people_behind_one_key_never_share_a_thread(client: TestClient) -> None:
    assert text(await ask(client, "of ann", x_person="ann")) == "of ann"
    assert text(await ask(client, "of bea", x_person="bea")) == "of bea"
    assert text(await ask(client, "of nobody")) == "of nobody"
    assert text(await ask(client, "again", x_person="ann")) == "of ann of ann again"
    assert [await threads(client, contact) for contact in ("ann", "bea", "t-1")] == [1, 1, 1]


async def test_a_name_of_a_thread_of_ours_opens_nothing(client: TestClient) -> None:
    chatted = await client.post("/api/v1/chat", json={"contact_id": "ann", "message": "secret"})
    assert text(await ask(client, "hi", thread=chatted.json()["thread_id"], x_person="ann")) == "hi"


@pytest.fixture
async def users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[TestClient]:
    """A client of a server that knows a few people, each by the header `x-user`."""
    monkeypatch.syspath_prepend(str(tmp_path))
    install(tmp_path, "jimsapi-users", (ROOT / "tests" / "apps" / "jimsapi_users.py").read_text())
    async with TestClient(create_api(tell, store="memory:", agui_contact_header="x-person")) as client:
        yield client


async def test_a_bound_caller_speaks_for_its_own_contact_whatever_a_header_says(users: TestClient) -> None:
    assert text(await ask(users, "of ann", x_user="ann", x_person="bea")) == "of ann"
    assert text(await ask(users, "of bea", x_user="bea", x_person="ann")) == "of bea"
    assert text(await ask(users, "of root", x_user="root", x_person="ann")) == "of root"
    assert text(await ask(users, "again", x_user="ann")) == "of ann of ann again"
    assert await threads(users, "ann", x_user="ann") == 2  # her own messages, and those that root sent for her


async def test_who_may_not_chat_is_refused(users: TestClient) -> None:
    for user, status in (("reader", 403), ("denied", 403), ("wrong", 401), ("down", 503)):
        assert (await users.post(AG_UI, json=body("hi"), headers={"x-user": user})).status_code == status
    assert (await users.post(AG_UI, json=body("hi"))).status_code == 401


@pytest.mark.parametrize("name", ["x" * 10_000, "ü😀/?#\n", "' OR 1=1", " ", "🙂" * 2_500], ids=len)
async def test_a_thread_may_have_any_name(client: TestClient, name: str) -> None:
    assert text(await ask(client, "one", thread=name)) == "one"
    told = await ask(client, "two", thread=name)
    assert text(told) == "one one two"
    assert told[0]["threadId"] == name
    assert text(await ask(client, "other", thread=name + "x")) == "other"


async def test_a_message_that_is_sent_twice_with_one_key_is_answered_once(client: TestClient) -> None:
    key = {"idempotency_key": str(uuid4())}
    first, second = [await ask(client, "hi", **key) for _ in range(2)]
    assert first == second
    assert text(await ask(client, "more")) == "hi hi more"


async def test_an_answer_that_cannot_be_looked_up_again_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: object) -> None:
        raise StoreUnavailable("password=hunter2")

    monkeypatch.setattr("jimsapi.runs.stream.KEPT_FOR", 0.0)
    async with TestClient(create_api(tell, store="memory:")) as client:
        await ask(client, "hi", idempotency_key="k")
        monkeypatch.setattr(MemoryStore, "run", away)
        told = await ask(client, "hi", idempotency_key="k")
    assert told == [STARTED, error("The store is not available; try again later", "503")]


# What is refused.


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"threadId": "a\0b"}, ["body", "threadId"]),
        ({"threadId": ""}, ["body", "threadId"]),
        ({"threadId": 1}, ["body", "threadId"]),
        ({"runId": None}, ["body", "runId"]),
        ({"messages": "hi"}, ["body", "messages"]),
        ({"messages": [{"content": "hi"}]}, ["body", "messages", 0, "role"]),
        ({"messages": [{"role": "user"}]}, ["body", "messages", 0, "content"]),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, ["body", "messages", 0, "content"]),
        ({"messages": body("hi", "answered")["messages"]}, ["body", "messages"]),
        ({"messages": body("a\0b")["messages"]}, ["body", "messages", 0, "content"]),
    ],
)
async def test_a_faulty_body_is_refused_by_the_field_at_fault(
    client: TestClient, changes: dict[str, Any], place: list[Any]
) -> None:
    answer = await client.post(AG_UI, json={**body("hi"), **changes})
    assert answer.status_code == 422
    assert [fault["loc"] for fault in answer.json()["detail"]] == [place]
    assert await threads(client, "t-1") == 0


async def test_of_a_message_in_parts_the_texts_are_taken(client: TestClient) -> None:
    others: list[Any] = [{"type": "unknown"}, {"type": ["text"]}, {"type": {}}, None]
    parts = [{"type": "text", "text": "one"}, *others, {"type": "text", "text": "two"}]
    assert text(await ask(client, parts)) == "one\ntwo"


PICTURE = {"mimeType": "image/png", "value": "aGk="}


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ({"type": "image", "source": {"type": "url", "value": "https://pictures.example/1.png"}}, "fetches no files"),
        ({"type": "binary", "mimeType": "image/png", "url": "file:///etc/passwd"}, "fetches no files"),
        ({"type": "image", "source": {"type": "file", "value": "file-1"}}, "in base64"),
        ({"type": "image", "source": {"type": "data", "value": "?"}}, "not base64"),
        ({"type": "image"}, "in base64"),
        ({"type": "document", "source": {"type": "data", **PICTURE}}, "stores no files"),
    ],
)
async def test_a_file_that_the_server_cannot_take_refuses_the_message(
    client: TestClient, file: dict[str, Any], reason: str
) -> None:
    answer = await client.post(AG_UI, json=body([{"type": "text", "text": "What is this?"}, file]))
    assert answer.status_code == 422
    assert reason in answer.json()["detail"][0]["msg"]
    assert await threads(client, "t-1") == 0


@pytest.mark.parametrize(("status", "refused"), [("resolved", 404), ("cancelled", 422)])
async def test_an_answer_to_no_question_is_refused_and_stores_nothing(
    client: TestClient, status: str, refused: int
) -> None:
    resume = [{"interruptId": "i", "status": status}]
    answer = await client.post(AG_UI, json={**body("hi"), "resume": resume})
    assert answer.status_code == refused
    assert await threads(client, "t-1") == 0


async def test_a_question_is_an_interrupt_and_is_answered_by_resuming_it() -> None:
    async def approve(ctx: ThreadContext) -> None:
        ctx.send_message(await ctx.ask("refund", "Refund?", options=["yes", "no"], expires=60))

    async with TestClient(create_api(approve, store="memory:")) as client:
        [interrupt] = (await ask(client, "pay me back"))[-1]["outcome"]["interrupts"]
        assert interrupt.pop("expiresAt").startswith("20")
        assert interrupt | {"id": ""} == {
            "id": "",
            "reason": "refund",
            "message": "Refund?",
            "responseSchema": {"type": "string", "enum": ["yes", "no"]},
        }
        resume = [{"interruptId": interrupt["id"], "status": "resolved", "payload": "yes"}]
        again = await client.post(AG_UI, json={**body("pay me back"), "resume": resume})
        assert text(events(again)) == "yes"
        assert events(again)[-1]["outcome"] == {"type": "success"}
        closed = await client.post(AG_UI, json={**body("pay me back"), "resume": resume})
        assert closed.status_code == 409


async def test_the_pipeline_reads_state_context_and_forwarded_properties() -> None:
    seen: list[Any] = []

    async def note(ctx: ThreadContext) -> None:
        seen.append(ctx.metadata)

    sent = {"state": {"n": 1}, "context": [{"description": "page", "value": "/"}], "forwardedProps": {"x": True}}
    async with TestClient(create_api(note, store="memory:")) as client:
        for more in ({}, sent, {"state": {"n": 2}}):
            assert (await client.post(AG_UI, json={**body("hi"), **more})).status_code == 200
    assert seen == [{}, sent, {"state": {"n": 2}}]


async def test_tools_of_the_page_are_named_as_ignored(client: TestClient) -> None:
    tools = [{"name": "confirm", "description": "", "parameters": {}}]
    answer = await client.post(AG_UI, json={**body("hi"), "tools": tools})
    assert (answer.status_code, answer.headers["x-ignored-fields"]) == (200, "tools")
    assert "x-ignored-fields" not in (await client.post(AG_UI, json=body("hi"))).headers


async def test_what_follows_on_the_message_of_the_user_may_be_of_the_system(client: TestClient) -> None:
    asked = body("hi")
    asked["messages"].append({"id": "s", "role": "system", "content": "Be kind"})
    assert text(events(await client.post(AG_UI, json=asked))) == "hi"


async def test_a_body_over_the_limit_is_refused() -> None:
    async with TestClient(create_api(tell, store="memory:", max_body=1000)) as client:
        answer = await client.post(AG_UI, json=body("x" * 1000))
    assert answer.status_code == 413


async def test_who_asks_too_often_is_refused() -> None:
    async with TestClient(create_api(tell, store="memory:", rate_limit="1/min")) as client:
        answers = [await client.post(AG_UI, json=body("hi")) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 429]
    assert "retry-after" in answers[1].headers
    assert "ratelimit" in answers[0].headers


async def test_a_busy_thread_refuses_with_a_status_of_its_own() -> None:
    held, release = asyncio.Event(), asyncio.Event()

    async def hold(ctx: ThreadContext) -> None:
        held.set()
        await release.wait()
        ctx.send_message("done")

    async with TestClient(create_api(hold, store="memory:", thread_busy="reject")) as client:
        first = asyncio.create_task(ask(client, "hi"))
        await held.wait()
        answer = await client.post(AG_UI, json=body("more"))
        release.set()
        assert answer.status_code == 409
        assert answer.json()["detail"] == "The thread is busy with an earlier message; send this one again later"
        assert text(await first) == "done"


async def test_it_is_in_the_description_of_the_api(client: TestClient) -> None:
    described = (await client.get("/openapi.json")).json()["paths"][AG_UI]["post"]
    assert "text/event-stream" in described["responses"]["200"]["content"]
    assert {"401", "403", "409", "413", "422", "429", "503"} <= set(described["responses"])
