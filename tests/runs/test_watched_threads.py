"""Tasks that wait for an event of a thread, and are called when this process stores one."""

import asyncio

import pytest

from jimsapi import Event
from jimsapi.runs.admission import PUBLIC
from jimsapi.runs.live import LiveRun
from jimsapi.runs.service import RunService
from tests.apps.scripted import Scripted
from tests.runs.serving import ended, inbound, serving, taken

pytestmark = pytest.mark.anyio


async def held(service: RunService, contact: str) -> LiveRun:
    return await taken(service.begin(inbound("hold on; send done", contact), PUBLIC))


async def test_a_watcher_is_called_for_the_events_of_its_thread_alone() -> None:
    bot = Scripted()
    async with serving(bot) as service:
        run, other = await held(service, "ann"), await held(service, "bea")
        assert run.thread_id is not None
        assert other.thread_id is not None
        calls: list[str] = []
        note = Event(event_type="note", event_data={})
        with (
            service.watch_thread(run.thread_id, lambda: calls.append("one")),
            service.watch_thread(run.thread_id, lambda: calls.append("two")),
        ):
            await service.append(other.thread_id, [note], PUBLIC)
            assert calls == []
            await service.append(run.thread_id, [note], PUBLIC)
            assert calls == ["one", "two"]
        await service.append(run.thread_id, [note], PUBLIC)
        assert calls == ["one", "two"]
        bot.opened["on"].set()


async def test_a_watcher_is_called_when_a_run_of_its_thread_ends_without_an_event() -> None:
    bot = Scripted()
    async with serving(bot) as service:
        first = await held(service, "ann")
        waits = await taken(service.begin(inbound("second"), PUBLIC, watched=True))
        assert waits.thread_id is not None
        assert waits.thread_id == first.thread_id
        called = asyncio.Event()
        with service.watch_thread(waits.thread_id, called.set):
            await service.cancel(waits.run_id)
            async with asyncio.timeout(10):
                await called.wait()
        bot.opened["on"].set()
        await ended(service)
