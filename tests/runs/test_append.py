"""Events that are added to a thread outside of a run."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from jimsapi import Event
from jimsapi.runs.admission import PUBLIC
from jimsapi.runs.sinks import SinkQueue
from jimsapi.runs.threads import ThreadService
from jimsapi.threads.errors import EventNotFound, ThreadNotFound, UnstorableEvent
from jimsapi.threads.facts import Rating
from tests.apps.scripted import Scripted
from tests.runs.serving import STORES, caller, inbound, make_store, serving, texts

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("kind", STORES)
async def test_appended_events_are_in_the_thread_and_reach_sinks(kind: str, tmp_path: Path) -> None:
    delivered: list[Event] = []

    class Sink:
        name = "seen"

        async def deliver(self, events: Sequence[Event]) -> None:
            delivered.extend(events)

    async with serving(Scripted(), make_store(kind, tmp_path), sinks=[SinkQueue(Sink(), "seen")]) as service:
        thread_id = (await service.chat(inbound(), PUBLIC)).thread_id
        own = SimpleNamespace(event_type="job.noted", event_data={})
        ended = Event(event_type="job.ended", event_data={"n": 1})
        ids = await service.append(thread_id, [ended, own], PUBLIC)
        assert ids[0] == ended.event_id
        assert (await texts(service, thread_id))[-2:] == ["job.ended", "job.noted"]
        await service.drain(1)
    assert [(event.event_id, event.event_type) for event in delivered[-2:]] == [
        (ids[0], "job.ended"),
        (ids[1], "job.noted"),
    ]
    assert {event.thread_id for event in delivered} == {thread_id}


async def test_sinks_get_ratings_which_the_thread_does_not_have() -> None:
    delivered: list[Event] = []

    class Sink:
        name = "seen"

        async def deliver(self, events: Sequence[Event]) -> None:
            delivered.extend(events)

    async with serving(Scripted(), sinks=[SinkQueue(Sink(), "seen")]) as service:
        thread_id = (await service.chat(inbound(), PUBLIC)).thread_id
        before = await texts(service, thread_id)
        [*_, last] = (await service.store.events(thread_id, None, 10, None)).events
        threads = ThreadService(service)
        await threads.rate(PUBLIC.identity, thread_id, last.event_id, Rating(-1, "Too short"))
        await threads.rate(PUBLIC.identity, thread_id, last.event_id, None)
        with pytest.raises(EventNotFound):
            await threads.rate(PUBLIC.identity, thread_id, thread_id, Rating(1))
        assert await texts(service, thread_id) == before
        await service.drain(1)
    named = {"event_id": str(last.event_id)}
    assert [(event.thread_id, event.event_type, event.event_data) for event in delivered[-2:]] == [
        (thread_id, "thread.feedback", {**named, "rating": -1, "comment": "Too short"}),
        (thread_id, "thread.feedback", {**named, "rating": None}),
    ]


async def test_events_are_appended_while_a_run_works() -> None:
    bot = Scripted()
    async with serving(bot) as service:
        run = service.begin(inbound("hold on; send done"), PUBLIC)
        await bot.reached["on"].wait()
        assert run.thread_id is not None
        await service.append(run.thread_id, [Event(event_type="job.ended")], PUBLIC)
        bot.opened["on"].set()
        await run.answer
        assert await texts(service, run.thread_id) == ["user_message", "job.ended", "assistant_message"]


async def test_a_caller_that_is_bound_to_another_contact_appends_nothing() -> None:
    async with serving(Scripted()) as service:
        thread_id = (await service.chat(inbound(contact="ann"), PUBLIC)).thread_id
        with pytest.raises(ThreadNotFound):
            await service.append(thread_id, [Event(event_type="job.ended")], caller("bob", contact_id="bob"))
        await service.append(thread_id, [Event(event_type="job.ended")], caller("ann", contact_id="ann"))
        assert (await texts(service, thread_id)).count("job.ended") == 1


async def test_an_event_that_cannot_be_stored_keeps_all_out() -> None:
    async with serving(Scripted()) as service:
        thread_id = (await service.chat(inbound(), PUBLIC)).thread_id
        events = [Event(event_type="job.ended"), Event(event_type="job.broken", event_data={"what": object()})]
        with pytest.raises(UnstorableEvent, match=r"job\.broken"):
            await service.append(thread_id, events, PUBLIC)
        assert "job.ended" not in await texts(service, thread_id)
