"""The live stream of a run: its readers, its bounds, and what a run puts there."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest

from jimsapi import Inbound, JimsApp, StatusEvent, ThreadContext
from jimsapi.builtin.resolvers import DefaultResolver
from jimsapi.service.errors import PipelineFailed, RunCancelled
from jimsapi.service.identity import PUBLIC
from jimsapi.service.live import Stop
from jimsapi.service.run import RunService
from jimsapi.service.stream import MAX_BYTES, MAX_ITEMS, Gap, Item, Read, RunStarted, RunStream, Status, StatusRelay
from jimsapi.threads.errors import ThreadNotFound
from jimsapi.threads.memory import MemoryStore

pytestmark = pytest.mark.anyio


def status(text: str) -> Status:
    return Status(text, "test")


async def read_all(stream: RunStream, position: int = 0) -> list[Read]:
    """What follows on a position, up to the end."""
    found = []
    while (read := await stream.next(position)) is not None:
        position = read[0]
        found.append(read)
    return found


async def items(stream: RunStream) -> list[Item | Gap]:
    return [item for _, item in await read_all(stream)]


async def test_a_reader_gets_all_items_in_order_with_their_positions_and_then_the_end() -> None:
    stream = RunStream()
    stream.put(status("a"))
    stream.put(status("b"))
    stream.end()
    assert await read_all(stream) == [(1, status("a")), (2, status("b"))]
    assert await read_all(stream, 1) == [(2, status("b"))]
    assert await read_all(stream, 2) == []


async def test_readers_that_wait_each_get_every_item_as_it_comes() -> None:
    stream = RunStream()
    readers = [asyncio.create_task(stream.next(position)) for position in (0, 0, 1)]
    await asyncio.sleep(0)
    stream.put(status("a"))
    assert await readers[0] == await readers[1] == (1, status("a"))
    stream.put(status("b"))
    assert await readers[2] == (2, status("b"))
    last = asyncio.create_task(stream.next(2))
    await asyncio.sleep(0)
    stream.end()
    assert await last is None


async def test_a_reader_that_leaves_does_not_disturb_another() -> None:
    stream = RunStream()
    leaving, staying = (asyncio.create_task(stream.next()) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait([leaving])
    stream.put(status("a"))
    assert await staying == (1, status("a"))


async def test_a_reader_that_comes_late_is_told_what_it_missed() -> None:
    stream = RunStream()
    for number in range(MAX_ITEMS + 3):
        stream.put(status(str(number)))
    stream.end()
    late = await read_all(stream)
    assert late[:2] == [(3, Gap(3)), (4, status("3"))]
    assert late[-1] == (MAX_ITEMS + 3, status(str(MAX_ITEMS + 2)))
    assert len(late) == 1 + MAX_ITEMS
    assert (await read_all(stream, 1))[0] == (3, Gap(2))
    assert (await read_all(stream, 3))[0] == (4, status("3"))


async def test_it_keeps_no_more_bytes_than_it_may() -> None:
    stream = RunStream()
    for _ in range(100):
        stream.put(status("x"), MAX_BYTES // 10)
    stream.end()
    assert await items(stream) == [Gap(90)] + [status("x")] * 10


async def test_the_last_item_is_kept_however_large_it_is() -> None:
    stream = RunStream()
    stream.put(status("small"), 1)
    stream.put(status("large"), MAX_BYTES + 1)
    assert await stream.next(1) == (2, status("large"))
    stream.put(status("after"), 1)
    stream.end()
    assert await items(stream) == [Gap(2), status("after")]


async def test_what_is_put_after_the_end_is_dropped() -> None:
    stream = RunStream()
    stream.end()
    stream.put(status("late"))
    assert await read_all(stream) == []


class Loud(str):
    __slots__ = ()

    def __str__(self) -> str:
        return self.upper()


@pytest.mark.parametrize(
    ("told", "text", "kind"),
    [
        ("plainly", "plainly", "status"),
        (StatusEvent("Searching", "search"), "Searching", "search"),
        (StatusEvent(5, None), "5", "None"),  # type: ignore[arg-type] # nobody checks them before
        ("\ud800", "?", "status"),
        (Loud("quiet"), "quiet", "status"),
    ],
)
async def test_every_status_is_text_of_some_kind(told: Any, text: str, kind: str) -> None:
    stream = RunStream()
    await StatusRelay(stream).update_status(told)
    assert await stream.next() == (1, Status(text, kind))


class Teller:
    """Tells `count` statuses of `size` bytes, then does what its message says."""

    def __init__(self, count: int = 0, size: int = 1) -> None:
        self.count, self.text = count, "x" * size
        self.told, self.may_end = asyncio.Event(), asyncio.Event()
        self.updater: Any = None

    async def __call__(self, ctx: ThreadContext) -> None:
        self.updater = ctx.status_updater
        for _ in range(self.count):
            await ctx.update_agent_status(self.text)
        self.told.set()
        match ctx.get_last_user_message():
            case "hold":
                await self.may_end.wait()
            case "raise":
                raise RuntimeError("on purpose")


@asynccontextmanager
async def serving(pipeline: Any, **options: Any) -> AsyncIterator[RunService]:
    async with (
        MemoryStore() as store,
        RunService(JimsApp(pipeline, **options), store, [DefaultResolver()]) as service,
    ):
        yield service


def inbound(message: str = "hi", **fields: Any) -> Inbound:
    return Inbound(contact_id="ann", message=message, **fields)


async def test_a_run_tells_that_it_started_then_its_statuses_and_ends_with_its_answer() -> None:
    async with serving(Teller(2)) as service:
        stream = RunStream()
        run = service.begin(inbound(), PUBLIC, stream=stream)
        told = await items(stream)
        assert run.answer.done()
        result = run.answer.result()
    assert told == [RunStarted(run.run_id, result.thread_id, True), Status("x", "status"), Status("x", "status")]


async def test_a_run_that_fails_ends_its_stream() -> None:
    async with serving(Teller(1)) as service:
        stream = RunStream()
        run = service.begin(inbound("raise"), PUBLIC, stream=stream)
        assert len(await items(stream)) == 2
        assert isinstance(run.answer.exception(), PipelineFailed)


async def test_a_run_that_no_thread_takes_tells_nothing() -> None:
    async with serving(Teller(1)) as service:
        stream = RunStream()
        run = service.begin(inbound(thread_id=uuid4()), PUBLIC, stream=stream)
        assert await items(stream) == []
        assert isinstance(run.answer.exception(), ThreadNotFound)


async def test_a_conversation_start_tells_nothing_even_if_it_is_the_same_pipeline() -> None:
    teller = Teller(1)
    async with serving(teller, conversation_start_pipeline=teller) as service:
        stream = RunStream()
        service.begin(inbound(run_conversation_start_on_new_thread=True), PUBLIC, stream=stream)
        assert len(await items(stream)) == 2


async def test_a_run_that_nobody_watches_has_no_updater_and_no_stream() -> None:
    teller = Teller(1)
    async with serving(teller) as service:
        run = service.begin(inbound(), PUBLIC)
        await run.answer
    assert teller.updater is None
    assert run.stream is None


async def test_a_pipeline_goes_on_without_a_reader_and_what_it_told_is_bounded() -> None:
    teller = Teller(3 * MAX_ITEMS, size=1000)
    async with serving(teller) as service:
        stream = RunStream()
        run = service.begin(inbound(), PUBLIC, stream=stream)
        await run.answer
        told = await items(stream)
    assert isinstance(told[0], Gap)
    kept = [item for item in told if isinstance(item, Status)]
    assert 0 < sum(len(item.text) for item in kept) <= MAX_BYTES
    assert told[0].missed + len(kept) == 1 + teller.count


async def test_a_pipeline_in_a_hurry_does_not_outrun_its_reader() -> None:
    teller = Teller(5 * MAX_ITEMS)
    async with serving(teller) as service:
        stream = RunStream()
        service.begin(inbound(), PUBLIC, stream=stream)
        told = await items(stream)
    assert len(told) == 1 + teller.count


async def test_a_stopped_run_ends_its_stream_and_its_updater_is_deaf() -> None:
    teller = Teller(1)
    async with serving(teller) as service:
        stream = RunStream()
        run = service.begin(inbound("hold"), PUBLIC, stream=stream)
        await teller.told.wait()
        service.stop_runs([run.run_id], Stop.CANCELLED)
        before = await items(stream)
        await teller.updater.update_status("late")
        assert await items(stream) == before
        assert isinstance(run.answer.exception(), RunCancelled)


async def test_leaving_the_service_ends_the_streams_of_open_runs() -> None:
    teller = Teller(1)
    async with serving(teller) as service:
        stream = RunStream()
        service.begin(inbound("hold"), PUBLIC, stream=stream)
        await teller.told.wait()
    assert len(await items(stream)) == 2
