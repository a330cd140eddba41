"""What a run has used of models stays in its thread, however the run ends: it was paid for."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from jimsapi import Event, JimsApp, ThreadContext
from jimsapi.builtin.resolvers import DefaultResolver
from jimsapi.runs.admission import PUBLIC
from jimsapi.runs.errors import PipelineFailed, RunCancelled, RunInterrupted, RunTimedOut
from jimsapi.runs.limits import RunLimits
from jimsapi.runs.lookup import Runs
from jimsapi.runs.service import RunService
from jimsapi.runs.sinks import SinkQueue
from jimsapi.runs.threads import ThreadService
from jimsapi.stores.memory import MemoryStore
from jimsapi.threads.errors import StoreUnavailable, ThreadNotFound
from tests.apps.scripted import Scripted
from tests.runs.serving import STORES, ended, inbound, make_store, serving, stored, texts

pytestmark = pytest.mark.anyio


async def used(service: RunService, thread_id: UUID | None) -> list[int]:
    """The input tokens of each usage in a thread. Nothing else of the run may be there but its message."""
    assert thread_id is not None
    events = (await service.store.events(thread_id, None, 1000, None)).events
    assert {event.event_type for event in events[2:]} <= {"model.usage"}
    return [json.loads(event.event_data or b"")["input_tokens"] for event in events[2:]]


@pytest.mark.parametrize("kind", STORES)
async def test_a_failed_run_leaves_its_usage_and_no_other_event(kind: str, tmp_path: Path) -> None:
    async with serving(Scripted(), make_store(kind, tmp_path)) as service:
        for number, last in enumerate(("raise no", "unstorable")):
            run = service.begin(inbound(f"use 1; send a; use 2; {last}", contact=last), PUBLIC, watched=True)
            with pytest.raises(PipelineFailed):
                await run.answer
            assert await used(service, run.thread_id) == [1, 2], number
            assert (await stored(service, run.run_id)).events == []


@pytest.mark.parametrize("kind", STORES)
async def test_a_cancelled_run_leaves_its_usage(kind: str, tmp_path: Path) -> None:
    bot = Scripted()
    async with serving(bot, make_store(kind, tmp_path)) as service:
        run = service.begin(inbound("use 1; send a; use 2; hold on"), PUBLIC)
        await bot.reached["on"].wait()
        await Runs(service).cancel(PUBLIC, run.run_id)
        with pytest.raises(RunCancelled):
            await run.answer
        assert await used(service, run.thread_id) == [1, 2]
        assert (await stored(service, run.run_id)).events == []


async def test_a_run_that_exceeds_its_time_leaves_its_usage() -> None:
    async with serving(Scripted(), limits=RunLimits(run_timeout=0.5)) as service:
        run = service.begin(inbound("use 7; hold on"), PUBLIC)
        with pytest.raises(RunTimedOut):
            await run.answer
        assert await used(service, run.thread_id) == [7]


async def test_a_run_that_a_drain_interrupts_leaves_its_usage() -> None:
    bot = Scripted()
    async with serving(bot) as service:
        run = service.begin(inbound("use 7; hold on"), PUBLIC)
        await bot.reached["on"].wait()
        await service.drain(0)
        with pytest.raises(RunInterrupted):
            await run.answer
        assert await used(service, run.thread_id) == [7]


async def test_a_conversation_start_that_fails_or_is_cancelled_leaves_its_usage() -> None:
    bot = Scripted()
    async with serving(bot) as service:
        for last, error in (("raise no", PipelineFailed), ("hold on", RunCancelled)):
            fields: dict[str, Any] = {"contact": last, "thread_config": {"greet": f"use 7; {last}"}}
            run = service.begin(inbound(run_conversation_start_on_new_thread=True, **fields), PUBLIC)
            if error is RunCancelled:
                await bot.reached["on"].wait()
                await Runs(service).cancel(PUBLIC, run.run_id)
            with pytest.raises(error):
                await run.answer
            await ended(service)
            assert run.thread_id is not None
            assert "model.usage" in await texts(service, run.thread_id)


async def test_usage_that_cannot_be_stored_does_not_keep_a_run_from_ending() -> None:
    async def pipeline(ctx: ThreadContext) -> None:
        taken = ctx.events[-1].event_id
        ctx.outgoing_events.append(Event(event_type="model.usage", event_data={"input_tokens": 0}, event_id=taken))
        ctx.outgoing_events.append(Event(event_type="model.usage", event_data={"what": object()}))
        ctx.outgoing_events.append(object())
        ctx.usage(model="m", input_tokens=3, output_tokens=0)
        raise RuntimeError("no")

    async with MemoryStore() as store, RunService(JimsApp(pipeline), store, [DefaultResolver()]) as service:
        run = service.begin(inbound(), PUBLIC)
        with pytest.raises(PipelineFailed):
            await run.answer
        assert await used(service, run.thread_id) == [3]


async def test_usage_of_a_cancelled_run_waits_for_a_store_that_is_unavailable() -> None:
    bot = Scripted()
    async with serving(bot, Unsteady()) as service:
        run = service.begin(inbound("use 7; hold on"), PUBLIC)
        await bot.reached["on"].wait()
        await Runs(service).cancel(PUBLIC, run.run_id)
        with pytest.raises(StoreUnavailable):  # the caller does not wait for the retries
            await run.answer
        await ended(service)
        assert await used(service, run.thread_id) == [7]


class Unsteady(MemoryStore):
    """A store whose `append` fails once."""

    failed = False

    async def append(self, *arguments: Any) -> Any:
        if not self.failed:
            self.failed = True
            raise StoreUnavailable("the disk is full")
        return await super().append(*arguments)


async def test_a_deleted_thread_gets_no_usage() -> None:
    bot = Scripted()
    async with serving(bot) as service:
        run = service.begin(inbound("use 7; hold on"), PUBLIC)
        await bot.reached["on"].wait()
        assert run.thread_id is not None
        await ThreadService(service).delete_thread(PUBLIC.identity, run.thread_id)
        with pytest.raises(ThreadNotFound):
            await run.answer
        await ended(service)


async def test_sinks_get_the_usage_of_a_cancelled_run() -> None:
    seen: list[str] = []

    class Sink:
        name = "seen"

        async def deliver(self, events: Sequence[Event]) -> None:
            seen.extend(event.event_type for event in events)

    bot = Scripted()
    async with serving(bot, sinks=[SinkQueue(Sink(), "seen")]) as service:
        run = service.begin(inbound("use 7; hold on"), PUBLIC)
        await bot.reached["on"].wait()
        await Runs(service).cancel(PUBLIC, run.run_id)
        with pytest.raises(RunCancelled):
            await run.answer
        await service.drain(1)
    assert seen.count("model.usage") == 1
