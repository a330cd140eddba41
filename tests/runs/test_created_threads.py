"""Threads that begin without a run."""

from collections.abc import Sequence
from pathlib import Path

import orjson
import pytest

from jimsapi import Event
from jimsapi.runs.admission import PUBLIC
from jimsapi.runs.errors import ContactForbidden, ServerDraining
from jimsapi.runs.sinks import SinkQueue
from jimsapi.threads.errors import InputRefused, UnstorableEvent
from jimsapi.threads.ids import derived_id
from tests.apps.scripted import Scripted
from tests.runs.serving import STORES, caller, inbound, make_store, serving, texts

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("kind", STORES)
async def test_a_thread_is_created_with_events_that_reach_sinks(kind: str, tmp_path: Path) -> None:
    delivered: list[Event] = []

    class Sink:
        name = "seen"

        async def deliver(self, events: Sequence[Event]) -> None:
            delivered.extend(events)

    said = Event(event_type="comm.user_message", event_data={"role": "user", "content": "before"})
    async with serving(Scripted(), make_store(kind, tmp_path), sinks=[SinkQueue(Sink(), "seen")]) as service:
        thread = await service.create_thread(
            "ann", PUBLIC, thread_config={"a": 1}, metadata={"b": 2}, events=[said, Event(event_type="job.ended")]
        )
        assert (thread.contact_id, orjson.loads(thread.thread_config)) == ("ann", {"a": 1})
        [summary] = await service.store.summaries([thread.thread_id])
        assert orjson.loads(summary.facts.metadata) == {"b": 2}
        result = await service.chat(inbound("see"), PUBLIC)
        assert (result.thread_id, result.assistant_messages) == (thread.thread_id, ['["before", "see"]'])
        await service.drain(1)
    types = [event.event_type for event in delivered]
    assert types[:3] == ["jims.lifecycle.thread_created", "comm.user_message", "job.ended"]


async def test_a_thread_with_an_identifier_is_created_once() -> None:
    async with serving(Scripted()) as service:
        thread_id = derived_id("once")
        first = await service.create_thread("ann", PUBLIC, thread_id=thread_id, events=[Event(event_type="job.ended")])
        again = await service.create_thread("ann", PUBLIC, thread_id=thread_id, events=[Event(event_type="job.ended")])
        assert first == again
        assert (await texts(service, thread_id)).count("job.ended") == 1


async def test_a_thread_that_cannot_be_created_is_refused() -> None:
    async with serving(Scripted()) as service:
        with pytest.raises(ContactForbidden):
            await service.create_thread("ann", caller("bob", contact_id="bob"))
        for field in ("thread_config", "metadata"):
            with pytest.raises(InputRefused, match=field):
                await service.create_thread("ann", PUBLIC, **{field: {"x": "\0"}})  # type: ignore[arg-type]
        with pytest.raises(InputRefused):
            await service.create_thread("x" * 3000, PUBLIC)
        with pytest.raises(UnstorableEvent):
            await service.create_thread("ann", PUBLIC, events=[Event(event_type="job", event_data={"x": "\0"})])
        assert (await service.store.threads("ann", 10, None)).threads == []
        await service.drain(0)
        with pytest.raises(ServerDraining):
            await service.create_thread("ann", PUBLIC)
