"""What clients have not read yet is bounded for all connections together."""

import asyncio

import pytest

from jimsapi.server import backlog as module
from jimsapi.server.backlog import FAR_ABOVE, MAX_UNREAD, Backlog

pytestmark = pytest.mark.anyio

MEBIBYTE = 1024 * 1024


class _Reader:
    def __init__(self, unread: int) -> None:
        self.unread = unread
        self.dropped = False

    def drop(self) -> None:
        self.dropped = True


async def check(backlog: Backlog, times: int) -> None:
    """Let the backlog check its connections."""
    for _ in range(times):
        checked = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(module.CHECK_EVERY, checked.set_result, None)
        await checked


@pytest.fixture(autouse=True)
def haste(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHECK_EVERY", 0.01)


async def test_connections_that_are_new_are_spared_unless_there_is_far_too_much() -> None:
    for total, dropped in ((MAX_UNREAD + MEBIBYTE, False), (FAR_ABOVE * MAX_UNREAD + MEBIBYTE, True)):
        backlog = Backlog(asyncio.get_running_loop())
        readers = [_Reader(MEBIBYTE) for _ in range(total // MEBIBYTE)]
        for reader in readers:
            backlog.add(reader)
        await check(backlog, 1)
        assert any(reader.dropped for reader in readers) is dropped
        for reader in readers:
            backlog.discard(reader)


async def test_the_connections_that_read_least_are_dropped_until_the_rest_is_within_the_bound() -> None:
    backlog = Backlog(asyncio.get_running_loop())
    slow, fast = _Reader(MAX_UNREAD // 2), _Reader(MAX_UNREAD)
    for reader in (fast, slow):
        backlog.add(reader)
    await check(backlog, 1)
    fast.unread -= MEBIBYTE
    async with asyncio.timeout(10):
        while not slow.dropped:
            await asyncio.sleep(0.01)
            fast.unread -= 1
    assert not fast.dropped
    for reader in (fast, slow):
        backlog.discard(reader)
