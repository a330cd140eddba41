"""A WebSocket's client is there if it reads, or if it has read the ping and answers it."""

import asyncio
from typing import Any, cast

import pytest

from jimsapi.server.pings import Pings

pytestmark = pytest.mark.anyio

INTERVAL = 0.05


class _Transport:
    """A network that brings nothing to the client before the test says so."""

    def __init__(self) -> None:
        self.unread = 0
        self.pinged = asyncio.Event()
        self.ended = asyncio.Event()

    def write(self, data: bytes) -> None:
        self.unread += len(data)
        (self.pinged if data == b"\x89\x00" else self.ended).set()

    def get_write_buffer_size(self) -> int:
        return self.unread

    def get_extra_info(self, name: str) -> Any:
        return None

    def is_closing(self) -> bool:
        return self.ended.is_set()

    def close(self) -> None:
        self.ended.set()

    abort = close


async def pinged() -> tuple[_Transport, Pings]:
    """A client that has got its first ping."""
    transport = _Transport()
    pings = Pings(cast(asyncio.Transport, transport), INTERVAL, INTERVAL)
    await transport.pinged.wait()
    transport.pinged.clear()
    transport.unread = 0
    return transport, pings


async def test_a_client_that_has_answered_stays_though_the_next_message_is_still_on_its_way() -> None:
    transport, pings = await pinged()
    pings.received()
    transport.unread = 100
    pings.wrote(100)
    await asyncio.wait_for(transport.pinged.wait(), 30)
    pings.stop()
    assert not transport.ended.is_set()


async def test_a_client_that_sends_and_has_not_read_the_ping_is_dropped_though_more_is_written() -> None:
    transport = _Transport()
    pings = Pings(cast(asyncio.Transport, transport), INTERVAL, INTERVAL)
    transport.unread = 10_000
    pings.wrote(10_000)
    await transport.pinged.wait()
    transport.pinged.clear()
    async with asyncio.timeout(30):
        while not transport.ended.is_set():
            assert not transport.pinged.is_set()
            pings.received()
            transport.unread += 100
            pings.wrote(100)
            await asyncio.sleep(INTERVAL / 10)


@pytest.mark.parametrize("answers", [True, False])
async def test_a_client_that_reads_nothing_more_is_dropped(answers: bool) -> None:
    transport, pings = await pinged()
    transport.unread = 100
    pings.wrote(100)
    if answers:  # and then reads nothing: the next ping finds that
        pings.received()
    await asyncio.wait_for(transport.ended.wait(), 30)


async def test_a_client_that_reads_and_does_not_answer_is_closed() -> None:
    transport, _ = await pinged()
    await asyncio.wait_for(transport.ended.wait(), 30)
