"""Streams whose client may disconnect: whoever waits for that is called, whenever it happens."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from jimsapi.runs.admission import PUBLIC
from jimsapi.runs.service import RunService
from jimsapi.wire.leaving import watch_leaving
from tests.apps.scripted import Scripted
from tests.runs.serving import inbound, serving, taken

pytestmark = pytest.mark.anyio


class Chunks:
    """Yields two chunks, and then fails or waits."""

    def __init__(self, fails: bool = False) -> None:
        self.fails = fails
        self.reached = asyncio.Event()

    async def __call__(self) -> AsyncGenerator[bytes, None]:
        yield b"one"
        yield b"two"
        self.reached.set()
        if self.fails:
            raise RuntimeError("the store is away")
        await asyncio.Event().wait()


async def left_after(service: RunService, chunks: int) -> int:
    """How often the function is called if a stream is closed after some chunks, while its run is open."""
    run = await taken(service.begin(inbound("hold on; send done"), PUBLIC))
    left: list[int] = []
    watched = watch_leaving(Chunks()(), run, lambda: left.append(1))
    for _ in range(chunks):
        await anext(watched)
    await watched.aclose()
    await watched.aclose()
    return len(left)


@pytest.mark.parametrize("chunks", [0, 1, 2])
async def test_a_stream_that_is_closed_early_says_once_that_its_client_has_left(chunks: int) -> None:
    async with serving(Scripted()) as service:
        assert await left_after(service, chunks) == 1


async def test_a_stream_that_is_cancelled_says_that_its_client_has_left() -> None:
    async with serving(Scripted()) as service:
        run = await taken(service.begin(inbound("hold on; send done"), PUBLIC))
        left: list[int] = []
        chunks = Chunks()

        async def read() -> None:
            async with aclosing(watch_leaving(chunks(), run, lambda: left.append(1))) as watched:
                async for _ in watched:
                    pass

        reading = asyncio.create_task(read())
        await chunks.reached.wait()
        reading.cancel()
        await asyncio.wait((reading,))
        assert (reading.cancelled(), left) == (True, [1])


async def test_a_stream_that_ends_or_fails_by_itself_has_not_been_left() -> None:
    async with serving(Scripted()) as service:
        run = await taken(service.begin(inbound("hold on; send done"), PUBLIC))
        left: list[int] = []

        async def short() -> AsyncGenerator[bytes, None]:
            yield b"one"

        async with aclosing(watch_leaving(short(), run, lambda: left.append(1))) as watched:
            assert [chunk async for chunk in watched] == [b"one"]
        async with aclosing(watch_leaving(Chunks(fails=True)(), run, lambda: left.append(1))) as watched:
            with pytest.raises(RuntimeError, match="away"):
                _ = [chunk async for chunk in watched]
        assert left == []


async def test_a_stream_that_is_closed_after_the_end_of_its_run_has_not_been_left() -> None:
    async with serving(Scripted()) as service:
        run = service.begin(inbound(), PUBLIC)
        await run.wait_for_answer()
        left: list[int] = []
        await watch_leaving(Chunks()(), run, lambda: left.append(1)).aclose()
        assert left == []
