"""Readers of a pipeline in a hurry: they are called for many deltas at once, and for what matters without delay."""

import asyncio
import time
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest

from jimsapi import ThreadContext
from jimsapi.runs import stream as module
from jimsapi.runs.errors import RunCancelled
from jimsapi.runs.stream import (
    MAX_ITEMS,
    THE_END,
    WAKE_BYTES,
    Delta,
    Ended,
    Gap,
    Read,
    Reader,
    RunStream,
    Status,
    Streams,
)
from tests.apps.scripted import Scripted
from tests.runs.serving import caller, inbound, serving

pytestmark = pytest.mark.anyio

MESSAGE = uuid4()
FAULT = RunCancelled()


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> RunStream:
    """A stream whose readers, once called for a delta, are not called for another one in a long time."""
    monkeypatch.setattr(module, "WAKE_EVERY", 3600.0)
    return Streams().open(uuid4())


def reading(stream: RunStream, after: int = 0) -> Reader:
    """A reader of a stream that is not released while it is read."""

    def resume(_: UUID, after: int) -> AsyncIterator[Read]:
        raise AssertionError(f"the stream was released before {after}")

    return Reader(stream, uuid4(), after, resume)


def delta(text: str) -> Delta:
    return Delta(MESSAGE, text)


async def waiting(stream: RunStream, after: int) -> asyncio.Task[module.Read | None]:
    """A reader that waits for what follows."""
    task = asyncio.create_task(stream.next(after))
    await asyncio.sleep(0)
    return task


async def turns() -> None:
    """Give everybody a few turns."""
    for _ in range(5):
        await asyncio.sleep(0)


async def hurried(stream: RunStream) -> asyncio.Task[module.Read | None]:
    """A reader that waits behind the first delta of a burst."""
    first = await waiting(stream, 0)
    stream.put(delta("a"))
    assert await first == (1, delta("a"))
    return await waiting(stream, 1)


async def test_after_a_silence_a_delta_is_heard_at_once_and_the_next_one_in_a_moment(stream: RunStream) -> None:
    reader = await hurried(stream)
    stream.put(delta("b"))
    await turns()
    assert not reader.done()


async def test_the_moment_ends_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAKE_EVERY", 0.001)
    reader = await hurried(stream := Streams().open(uuid4()))
    stream.put(delta("b"))
    assert await reader == (2, delta("b"))


async def test_much_that_gathers_is_heard_at_once(stream: RunStream) -> None:
    reader = await hurried(stream)
    stream.put(delta("b"), WAKE_BYTES)
    await turns()
    assert reader.done()


async def test_a_status_and_the_end_are_heard_at_once(stream: RunStream) -> None:
    reader = await hurried(stream)
    stream.put(delta("b"))
    stream.put(Status("Looking", "look"))
    await turns()
    assert reader.done()
    reader = await waiting(stream, 3)
    stream.put(delta("c"))
    stream.end(FAULT)
    await turns()
    assert reader.done()


async def test_a_reader_that_left_is_called_no_more_and_the_others_are(stream: RunStream) -> None:
    leaving, staying = await hurried(stream), await waiting(stream, 1)
    stream.put(delta("b"))
    leaving.cancel()
    await asyncio.wait([leaving])
    stream.end(FAULT)
    assert await staying == (2, delta("b"))


async def test_what_is_there_already_is_read_at_once_up_to_the_end_of_what_is_live(stream: RunStream) -> None:
    for text in "abc":
        stream.put(delta(text))
    reader = reading(stream)
    assert await anext(reader) == (1, delta("a"))
    assert reader.ready() == [(2, delta("b")), (3, delta("c"))]
    assert reader.ready() == []
    stream.end(FAULT)
    assert reader.ready() == []
    assert [read async for read in reader] == [(THE_END, Ended(FAULT))]
    assert reader.ready() == []


async def test_a_gap_is_told_before_what_is_there(stream: RunStream) -> None:
    for _ in range(MAX_ITEMS + 2):
        stream.put(delta("x"))
    reader = reading(stream, 1)
    assert reader.ready() == []
    assert await anext(reader) == (2, Gap(1))
    assert len(reader.ready()) == MAX_ITEMS


async def test_a_pipeline_that_holds_up_the_loop_is_heard_before_it_does() -> None:
    heard: list[str] = []
    heard_before: list[list[str]] = []

    class Blocking(Scripted):
        async def do(self, ctx: ThreadContext, command: str, argument: str) -> None:
            heard_before.append(heard.copy())
            time.sleep(2 * module.WAKE_EVERY)  # noqa: ASYNC251 - the mistake that is made
            await super().do(ctx, command, argument)

    async with serving(Blocking()) as service:
        run = service.begin(inbound("status Looking; stream a; stream b; stream c"), caller(), watched=True)
        assert run.stream is not None
        async for _, item in reading(run.stream):
            if isinstance(item, Delta | Status):
                heard.append(item.content if isinstance(item, Delta) else item.text)
    assert heard_before == [[], ["Looking"], ["Looking", "a"], ["Looking", "a", "b"]]
