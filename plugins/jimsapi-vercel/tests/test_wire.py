"""What goes over the wire: shapes and order of the chunks, whose chat it is, and what is refused."""

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
from jimsapi.threads.run import Outcome, Settled
from tests.plugins.distributions import install
from tests.serving import ROOT

pytestmark = pytest.mark.anyio

CHAT = "/ai-sdk/chat"
Pipeline = Callable[[ThreadContext], Awaitable[None]]
Chunks = list[dict[str, Any]]


async def tell(ctx: ThreadContext) -> None:
    """Answer with all earlier messages."""
    ctx.send_message(" ".join(str(said["content"]) for said in ctx.history))


class Held:
    """A pipeline that sends one word, and then waits until the test releases it."""

    def __init__(self) -> None:
        self.reached, self.release = asyncio.Event(), asyncio.Event()

    async def __call__(self, ctx: ThreadContext) -> None:
        await ctx.stream("Hel")
        self.reached.set()
        await self.release.wait()
        await ctx.stream("lo")


@pytest.fixture
async def client() -> AsyncIterator[TestClient]:
    async with TestClient(create_api(tell, store="memory:", vercel_contact_header="x-person")) as client:
        yield client


def body(*texts: str, chat: str = "c-1") -> dict[str, Any]:
    """The body of `useChat` after the messages `texts`, alternately of the user and the assistant."""
    said = [
        {"id": str(n), "role": ("user", "assistant")[n % 2], "parts": [{"type": "text", "text": text, "state": "done"}]}
        for n, text in enumerate(texts)
    ]
    return {"id": chat, "messages": said, "trigger": "submit-message"}


def chunks(answer: httpx.Response) -> Chunks:
    """The chunks of an answer, of which there is nothing but lines with data; the mark of the end is left out."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-vercel-ai-ui-message-stream"] == "v1"
    *blocks, mark, rest = answer.text.split("\n\n")
    assert (mark, rest) == ("data: [DONE]", "")
    assert all(block.startswith("data: {") and "\n" not in block for block in blocks)
    return [json.loads(block.removeprefix("data: ")) for block in blocks]


async def say(client: httpx.AsyncClient, *texts: str, chat: str = "c-1", **headers: str) -> Chunks:
    return chunks(await client.post(CHAT, json=body(*texts, chat=chat), headers=dashed(headers)))


async def threads(client: httpx.AsyncClient, contact: str, **headers: str) -> int:
    """How many threads a contact has."""
    listed = await client.get("/api/v1/threads", params={"contact_id": contact}, headers=dashed(headers))
    return len(listed.json()["threads"])


def dashed(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


async def answered(pipeline: Pipeline, **settings: Any) -> Chunks:
    """The chunks that a client receives for one run of a pipeline."""
    async with TestClient(create_api(pipeline, store="memory:", **settings)) as client:
        return await say(client, "hi")


def text(told: Chunks) -> str:
    return "".join(chunk.get("delta", "") for chunk in told)


def kinds(told: Chunks) -> list[str]:
    return [chunk["type"] for chunk in told]


# Shapes and order.


async def test_a_run_is_told_chunk_by_chunk() -> None:
    async def everything(ctx: ThreadContext) -> None:
        await ctx.update_agent_status(StatusEvent("Looking it up", "search"))
        await ctx.stream("Hel")
        await ctx.update_agent_status("Writing")
        await ctx.stream("lo")
        ctx.send_message("Hello, you")
        ctx.send_event("rag.query_processed", {"hits": 2, "text": "ü\u2028"})
        ctx.send_message("Bye")

    told = await answered(everything)
    first, second = (chunk["id"] for chunk in told if chunk["type"] == "text-start")
    assert UUID(first) != UUID(second)
    custom = next(chunk["id"] for chunk in told if chunk["type"] == "data-rag.query_processed")
    assert told == [
        {"type": "start", "messageId": told[0]["messageId"]},
        {"type": "start-step"},
        {"type": "data-status", "data": {"status": "Looking it up", "type": "search"}, "transient": True},
        {"type": "text-start", "id": first},
        {"type": "text-delta", "id": first, "delta": "Hel"},
        {"type": "data-status", "data": {"status": "Writing", "type": "status"}, "transient": True},
        {"type": "text-delta", "id": first, "delta": "lo"},
        {"type": "text-delta", "id": first, "delta": ", you"},
        {"type": "text-end", "id": first},
        {"type": "text-start", "id": second},
        {"type": "text-delta", "id": second, "delta": "Bye"},
        {"type": "text-end", "id": second},
        {"type": "data-rag.query_processed", "id": custom, "data": {"hits": 2, "text": "ü\u2028"}},
        {"type": "finish-step"},
        {"type": "finish", "finishReason": "stop"},
    ]


async def test_an_answer_is_named_as_its_run_is(client: TestClient) -> None:
    answer = await client.post(CHAT, json=body("hi"))
    assert chunks(answer)[0]["messageId"] == answer.headers["x-run-id"]


async def test_no_answer_has_the_name_of_another(client: TestClient) -> None:
    assert len({(await say(client, "hi"))[0]["messageId"] for _ in range(3)}) == 3


# Faults.


async def test_a_fault_in_the_middle_closes_the_text_and_is_the_last_that_is_told() -> None:
    async def breaking(ctx: ThreadContext) -> None:
        await ctx.stream("Hel")
        raise RuntimeError("ü")

    told = await answered(breaking)
    assert kinds(told) == ["start", "start-step", "text-start", "text-delta", "text-end", "error"]
    assert told[-1] == {"type": "error", "errorText": "Pipeline error: ü"}
    [*_, hidden] = await answered(breaking, hide_errors=True)
    assert re.fullmatch(r"Pipeline error: reference [0-9a-f-]{36}", hidden["errorText"])


async def test_a_pipeline_that_takes_too_long_is_an_error() -> None:
    told = await answered(Held(), run_timeout=0.1)
    assert told[-1] == {"type": "error", "errorText": "The pipeline did not answer within 0.1 seconds"}


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
    assert told[-1] == {"type": "error", "errorText": "The store is not available; try again later"}
    assert text(told) == "hi"


# Whose chat it is.


async def test_only_the_newest_message_is_stored(client: TestClient) -> None:
    assert text(await say(client, "one")) == "one"
    assert text(await say(client, "forged", "forged too", "two")) == "one one two"


async def test_people_behind_one_key_never_share_a_thread(client: TestClient) -> None:
    assert text(await say(client, "of ann", x_person="ann")) == "of ann"
    assert text(await say(client, "of bea", x_person="bea")) == "of bea"
    assert text(await say(client, "of nobody")) == "of nobody"
    assert text(await say(client, "again", x_person="ann")) == "of ann of ann again"
    assert [await threads(client, contact) for contact in ("ann", "bea", "c-1")] == [1, 1, 1]


async def test_a_name_of_a_thread_of_ours_opens_nothing(client: TestClient) -> None:
    chatted = await client.post("/api/v1/chat", json={"contact_id": "ann", "message": "secret"})
    assert text(await say(client, "hi", chat=chatted.json()["thread_id"], x_person="ann")) == "hi"


def serve_users(site: Path, monkeypatch: pytest.MonkeyPatch, pipeline: Pipeline) -> TestClient:
    """A client of a server that knows a few people, each by the header `x-user`."""
    monkeypatch.syspath_prepend(str(site))
    install(site, "jimsapi-users", (ROOT / "tests" / "apps" / "jimsapi_users.py").read_text())
    return TestClient(create_api(pipeline, store="memory:", vercel_contact_header="x-person"))


async def test_a_bound_caller_speaks_for_its_own_contact_whatever_a_header_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve_users(tmp_path, monkeypatch, tell) as users:
        assert text(await say(users, "of ann", x_user="ann", x_person="bea")) == "of ann"
        assert text(await say(users, "of bea", x_user="bea", x_person="ann")) == "of bea"
        assert text(await say(users, "of root", x_user="root", x_person="ann")) == "of root"
        assert text(await say(users, "again", x_user="ann")) == "of ann of ann again"
        assert await threads(users, "ann", x_user="ann") == 2  # her own messages, and those that root sent for her


async def test_who_may_not_chat_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve_users(tmp_path, monkeypatch, tell) as users:
        for user, status in (("reader", 403), ("denied", 403), ("wrong", 401), ("down", 503)):
            assert (await users.post(CHAT, json=body("hi"), headers={"x-user": user})).status_code == status
            assert (await users.get(f"{CHAT}/c-1/stream", headers={"x-user": user})).status_code == status
        assert (await users.get(f"{CHAT}/c-1/stream")).status_code == 401


@pytest.mark.parametrize("name", ["x" * 10_000, "ü😀/?#\n", "' OR 1=1", " ", "🙂" * 2_500], ids=len)
async def test_a_chat_may_have_any_name(client: TestClient, name: str) -> None:
    assert text(await say(client, "one", chat=name)) == "one"
    assert text(await say(client, "two", chat=name)) == "one one two"
    assert text(await say(client, "other", chat=name + "x")) == "other"


async def test_a_message_that_is_sent_twice_with_one_key_is_answered_once(client: TestClient) -> None:
    key = {"idempotency_key": str(uuid4())}
    first, second = [await say(client, "hi", **key) for _ in range(2)]
    assert first == second
    assert text(await say(client, "more")) == "hi hi more"


# What is refused.


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"id": "a\0b"}, ["body", "id"]),
        ({"id": ""}, ["body", "id"]),
        ({"id": None}, ["body", "id"]),
        ({"messages": "hi"}, ["body", "messages"]),
        ({"messages": []}, ["body", "messages"]),
        ({"messages": [{"parts": []}]}, ["body", "messages", 0, "role"]),
        ({"messages": [{"role": "user"}]}, ["body", "messages", 0, "parts"]),
        ({"messages": [{"role": "user", "parts": [{"type": "file"}]}]}, ["body", "messages", 0, "parts"]),
        ({"messages": body("hi", "answered")["messages"]}, ["body", "messages"]),
        ({"messages": body("a\0b")["messages"]}, ["body", "messages", 0, "parts", 0, "text"]),
    ],
)
async def test_a_faulty_body_is_refused_by_the_field_at_fault(
    client: TestClient, changes: dict[str, Any], place: list[Any]
) -> None:
    answer = await client.post(CHAT, json={**body("hi"), **changes})
    assert answer.status_code == 422
    assert [fault["loc"] for fault in answer.json()["detail"]] == [place]
    assert await threads(client, "c-1") == 0


async def test_of_a_message_in_parts_the_texts_are_taken(client: TestClient) -> None:
    asked = body("")
    own = {"type": "data-page", "data": {"page": 1}}
    asked["messages"][0]["parts"] = [own, {"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    assert text(chunks(await client.post(CHAT, json=asked))) == "one\ntwo"


async def test_a_file_beside_a_text_is_refused_and_stores_nothing(client: TestClient) -> None:
    asked = body("")
    file = {"type": "file", "mediaType": "image/png", "url": "https://pictures.example/1.png"}
    asked["messages"][0]["parts"] = [{"type": "text", "text": "What is this?"}, file]
    answer = await client.post(CHAT, json=asked)
    assert answer.status_code == 422
    assert "files" in answer.json()["detail"][0]["msg"]
    assert await threads(client, "c-1") == 0


async def test_the_pipeline_reads_the_metadata_of_the_newest_message() -> None:
    seen: list[Any] = []

    async def note(ctx: ThreadContext) -> None:
        seen.append(ctx.metadata)

    asked = body("one", "answered", "two")
    asked["messages"][0]["metadata"] = {"n": 1}
    async with TestClient(create_api(note, store="memory:")) as client:
        for metadata in ({"n": 3}, None, "text"):
            asked["messages"][2]["metadata"] = metadata
            assert (await client.post(CHAT, json=asked)).status_code == 200
    assert seen == [{"n": 3}, {}, {}]


async def test_a_body_over_the_limit_is_refused() -> None:
    async with TestClient(create_api(tell, store="memory:", max_body=1000)) as client:
        answer = await client.post(CHAT, json=body("x" * 1000))
    assert answer.status_code == 413


async def test_who_asks_too_often_is_refused() -> None:
    async with TestClient(create_api(tell, store="memory:", rate_limit="1/min")) as client:
        answers = [await client.post(CHAT, json=body("hi")) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 429]
    assert "retry-after" in answers[1].headers
    assert "ratelimit" in answers[0].headers


async def test_a_busy_thread_refuses_with_a_status_of_its_own() -> None:
    held = Held()
    async with TestClient(create_api(held, store="memory:", thread_busy="reject")) as client:
        first = asyncio.create_task(say(client, "hi"))
        await held.reached.wait()
        answer = await client.post(CHAT, json=body("hi"))
        held.release.set()
        assert answer.status_code == 409
        assert answer.json()["detail"] == "The thread is busy with an earlier message; send this one again later"
        assert text(await first) == "Hello"


async def test_it_is_in_the_description_of_the_api(client: TestClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    described = paths[CHAT]["post"]["responses"]
    assert "text/event-stream" in described["200"]["content"]
    assert {"401", "403", "409", "413", "422", "429", "503"} <= set(described)
    assert "204" in paths[f"{CHAT}/{{id}}/stream"]["get"]["responses"]
