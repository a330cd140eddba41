"""Private events: stored and given to sinks and to holders of `threads`, and in no answer of a chat caller."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from jimsapi import Event, JimsApp, create_api
from jimsapi.asgi.testing import TestClient
from jimsapi.builtin.resolvers import DefaultResolver
from jimsapi.runs.admission import PUBLIC
from jimsapi.runs.service import RunService
from jimsapi.runs.sinks import SinkQueue
from jimsapi.stores.memory import MemoryStore
from tests.api.conversation import CHAT, RUNS, STREAM, body, names, parse
from tests.apps.scripted import Scripted
from tests.runs.receiver import SECRET, Receiver
from tests.runs.serving import inbound

pytestmark = pytest.mark.anyio

PRIVATE = ("tool.*", "model.reasoning", "rag.*")
MESSAGE = "think hidden; tool hidden; event hidden; source Known; send done"
ALL_TYPES = ["model.reasoning", "tool.call", "rag.step", "answer.source", "comm.assistant_message"]
PUBLIC_TYPES = ["answer.source", "comm.assistant_message"]


@asynccontextmanager
async def serving(store: str = "memory:", **settings: Any) -> AsyncIterator[TestClient]:
    app = JimsApp(Scripted(), private_events=PRIVATE)
    async with TestClient(create_api(app, store=store, **settings)) as client:
        yield client


def discreet(answer: Any) -> None:
    """Check that an answer holds nothing of a private event. The message itself, which callers may read, does."""
    shown = answer.text.replace(MESSAGE, "")
    assert not any(secret in shown for secret in ("tool.call", "model.reasoning", "rag.step", "hidden")), shown


async def test_answers_and_streams_do_not_have_them() -> None:
    async with serving() as client:
        chat = await client.post(CHAT, json=body(MESSAGE))
        assert [event["event_type"] for event in chat.json()["events"]] == PUBLIC_TYPES
        stream = await client.post(STREAM, json=body(MESSAGE))
        assert names(parse(stream.text)) == ["started", "activity", "delta", "event", "event", "result"]
        for answer in (chat, stream):
            discreet(answer)


@pytest.mark.parametrize("store", ["memory:", "sqlite"])
async def test_runs_and_repeated_messages_do_not_have_them(store: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/jims.db" if store == "sqlite" else store
    headers = {"idempotency-key": "k"}
    async with serving(url) as client:
        first = await client.post(CHAT, json=body(MESSAGE), headers=headers)
        run = f"{RUNS}/{first.headers['x-run-id']}"
        again = await client.post(CHAT, json=body(MESSAGE), headers=headers)
        assert again.json() == first.json()
        for answer in (again, await client.get(run), await client.get(f"{run}/stream")):
            discreet(answer)


async def test_webhooks_do_not_have_them() -> None:
    async with Receiver() as receiver, serving(webhook_secret=SECRET, webhook_allow_private=True) as client:
        await client.post(CHAT, json=body(MESSAGE, webhook_url=receiver.url()))
        result = (await receiver.call()).verified()["data"]["result"]
        assert [event["event_type"] for event in result["events"]] == PUBLIC_TYPES


async def test_the_thread_has_them_for_callers_with_the_scope() -> None:
    async with serving() as client:
        thread_id = (await client.post(CHAT, json=body(MESSAGE))).json()["thread_id"]
        page = (await client.get(f"/api/v1/threads/{thread_id}/events")).json()
        assert [event["event_type"] for event in page["events"]][2:] == ALL_TYPES


async def test_sinks_get_them() -> None:
    types: list[str] = []

    class Sink:
        name = "seen"

        async def deliver(self, events: Sequence[Event]) -> None:
            types.extend(event.event_type for event in events)

    app = JimsApp(Scripted(), private_events=PRIVATE)
    async with (
        MemoryStore() as store,
        RunService(app, store, [DefaultResolver()], sinks=[SinkQueue(Sink(), "seen")]) as service,
    ):
        result = await service.chat(inbound(MESSAGE), PUBLIC)
        assert [event.event_type for event in result.events] == PUBLIC_TYPES
        await service.drain(1)
    assert types[2:] == ALL_TYPES


async def test_without_private_events_callers_get_all() -> None:
    async with TestClient(create_api(JimsApp(Scripted()), store="memory:")) as client:
        answer = (await client.post(CHAT, json=body(MESSAGE))).json()
        assert [event["event_type"] for event in answer["events"]] == ALL_TYPES


@pytest.mark.parametrize("pattern", ["comm.*", "*", "comm.assistant_message", "c*", "comm.anything"])
def test_messages_cannot_be_private(pattern: str) -> None:
    with pytest.raises(ValueError, match="messages"):
        JimsApp(Scripted(), private_events=(pattern,))


def test_a_single_text_is_no_list_of_patterns() -> None:
    with pytest.raises(TypeError, match="sequence"):
        JimsApp(Scripted(), private_events="state.*")
