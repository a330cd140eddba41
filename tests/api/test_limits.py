"""What is refused when there is too much to do, and what becomes of the message then."""

import asyncio
from collections import defaultdict
from typing import Any

import httpx
import pytest

from jimsapi import JimsApp, ThreadContext, create_api
from jimsapi.api.app import Api
from jimsapi.asgi.testing import TestClient

pytestmark = pytest.mark.anyio

CHAT = "/api/v1/chat"


class Held:
    """An API whose pipeline answers when it is let: `begun` and `may_end` are by message."""

    def __init__(self, store: str = "memory:", **settings: Any) -> None:
        self.begun: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.may_end: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.api: Api = create_api(JimsApp(self.answer), store=store, **settings)

    async def answer(self, ctx: ThreadContext) -> None:
        message: str = ctx.get_last_user_message()
        self.begun[message].set()
        if message.startswith("hold"):
            await self.may_end[message].wait()
        ctx.send_message(f"answered {message}")

    async def waiting(self, count: int) -> None:
        """Come back once that many runs wait for their turn in the store's queue."""
        assert self.api.service is not None
        while self.api.service.waiting_runs != count or self.api.service.open_runs != count + 1:
            await asyncio.sleep(0.001)


def say(client: httpx.AsyncClient, contact: str, message: str) -> "asyncio.Task[httpx.Response]":
    return asyncio.create_task(client.post(CHAT, json={"contact_id": contact, "message": message}))


async def contents(client: httpx.AsyncClient, contact: str) -> list[str]:
    """What is in the only thread of a contact."""
    [thread] = (await client.get("/api/v1/threads", params={"contact_id": contact})).json()["threads"]
    events = (await client.get(f"/api/v1/threads/{thread['thread_id']}/events")).json()["events"]
    return [event["event_data"]["content"] for event in events if event["event_type"].startswith("comm.")]


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Any) -> str:
    return "memory:" if request.param == "memory" else f"sqlite:///{tmp_path / 'limits.db'}"


async def test_a_full_queue_of_a_thread_is_429_and_its_message_is_not_stored(store: str) -> None:
    held = Held(store, thread_queue=2)
    async with TestClient(held.api) as client:
        first = say(client, "ann", "hold")
        await held.begun["hold"].wait()
        second = say(client, "ann", "two")
        await held.waiting(1)
        third = say(client, "ann", "three")
        await held.waiting(2)
        refused = await say(client, "ann", "four")
        other = await say(client, "bea", "hi")
        held.may_end["hold"].set()
        assert [(await task).status_code for task in (first, second, third)] == [200, 200, 200]
        assert (await say(client, "ann", "five")).status_code == 200
        stored = await contents(client, "ann")
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert refused.json() == {"detail": "2 messages wait in this thread already; send this one again later"}
    assert other.status_code == 200
    assert [text for text in stored if not text.startswith("answered")] == ["hold", "two", "three", "five"]


async def test_a_message_that_waited_too_long_is_503_and_does_not_enter_the_thread(store: str) -> None:
    held = Held(store, queue_timeout=0.05)
    async with TestClient(held.api) as client:
        first = say(client, "ann", "hold")
        await held.begun["hold"].wait()
        late = await say(client, "ann", "late")
        assert not first.done()
        held.may_end["hold"].set()
        await first
        await say(client, "ann", "after")
        stored = await contents(client, "ann")
    assert (late.status_code, late.headers["retry-after"]) == (503, "1")
    assert late.json() == {
        "detail": "Earlier messages of this thread took longer than 0.05 seconds; send this one again"
    }
    assert stored == ["hold", "answered hold", "after", "answered after"]
    assert not held.begun["late"].is_set()


async def test_more_runs_than_the_process_may_have_are_503_with_retry_after() -> None:
    held = Held(max_runs=2)
    async with TestClient(held.api) as client:
        tasks = [say(client, contact, f"hold {contact}") for contact in ("ann", "bea")]
        for contact in ("ann", "bea"):
            await held.begun[f"hold {contact}"].wait()
        refused = await say(client, "cem", "hi")
        probe = await client.get("/readyz")
        for contact in ("ann", "bea"):
            held.may_end[f"hold {contact}"].set()
        assert [(await task).status_code for task in tasks] == [200, 200]
        assert (await say(client, "cem", "hi")).status_code == 200
    assert (refused.status_code, refused.headers["retry-after"], refused.headers["connection"]) == (503, "1", "close")
    assert refused.json() == {"detail": "The server works on 2 messages already; try again later"}
    assert "x-run-id" not in refused.headers
    assert probe.status_code == 200


async def test_a_pipeline_that_hangs_is_504_and_its_thread_goes_on(store: str) -> None:
    held = Held(store, run_timeout=0.5)
    async with TestClient(held.api) as client:
        hung = say(client, "ann", "hold")
        await held.begun["hold"].wait()
        waiting = say(client, "ann", "next")
        answers = [await hung, await waiting]
        stored = await contents(client, "ann")
    assert [answer.status_code for answer in answers] == [504, 200]
    assert answers[0].json() == {"detail": "The pipeline did not answer within 0.5 seconds"}
    assert answers[0].headers["x-run-id"]
    assert stored == ["hold", "next", "answered next"]


async def test_a_draining_server_takes_nothing_new_and_ends_what_it_took() -> None:
    held = Held()
    async with TestClient(held.api) as client:
        first = say(client, "ann", "hold")
        await held.begun["hold"].wait()
        waiting = say(client, "ann", "next")
        await held.waiting(1)
        assert held.api.service is not None
        drained = asyncio.create_task(held.api.service.drain(10))
        await asyncio.sleep(0)
        refused = await say(client, "bea", "hi")
        probes = [await client.get(path) for path in ("/healthz", "/readyz")]
        held.may_end["hold"].set()
        assert [(await task).status_code for task in (first, waiting)] == [200, 200]
        await drained
    assert (refused.status_code, refused.headers["connection"]) == (503, "close")
    assert [probe.status_code for probe in probes] == [200, 503]
