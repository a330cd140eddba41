"""What clients have not read yet is bounded for all connections together."""

import asyncio

import pytest
import uvloop

from jimsapi.server import backlog as module
from jimsapi.server.backlog import FAR_ABOVE, MAX_UNREAD, Backlog

pytestmark = pytest.mark.anyio

MEBIBYTE = 1024 * 1024


class _Reader:
    def __init__(self, unread: int) -> None:
        self.unread = unread
        self.in_kernel = MEBIBYTE
        self.dropped_at: float | None = None

    @property
    def unacknowledged(self) -> int:
        return self.unread + self.in_kernel

    def drop(self) -> None:
        assert self.dropped_at is None
        self.dropped_at = asyncio.get_running_loop().time()


@pytest.fixture(autouse=True)
def no_other_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHECK_EVERY", 600.0)


async def until_dropped(*readers: _Reader, count: int = 1) -> None:
    """Wait until so many of these are."""
    async with asyncio.timeout(30):
        while sum(reader.dropped_at is not None for reader in readers) < count:
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("far_above", [False, True])
async def test_too_much_is_dropped_as_soon_as_its_clients_had_the_time_to_read(
    monkeypatch: pytest.MonkeyPatch, far_above: bool
) -> None:
    total, observed_for = MAX_UNREAD + MEBIBYTE, module.OBSERVED_FOR
    if far_above:
        total, observed_for = FAR_ABOVE * MAX_UNREAD + MEBIBYTE, module.BRIEFLY_OBSERVED_FOR
        monkeypatch.setattr(module, "OBSERVED_FOR", 600.0)
    backlog = Backlog(asyncio.get_running_loop())
    began = asyncio.get_running_loop().time()
    readers = [_Reader(MEBIBYTE) for _ in range(total // MEBIBYTE)]
    for reader in readers:
        backlog.add(reader)
    await until_dropped(*readers, count=1 if far_above else (total - MAX_UNREAD) // MEBIBYTE)
    dropped = [reader.dropped_at - began for reader in readers if reader.dropped_at is not None]
    assert observed_for <= min(dropped)
    assert len(dropped) <= (total - MAX_UNREAD) // MEBIBYTE


async def test_the_connections_that_read_least_are_dropped_until_the_rest_is_within_the_bound() -> None:
    backlog = Backlog(asyncio.get_running_loop())
    slow, fast = _Reader(MAX_UNREAD // 2), _Reader(MAX_UNREAD)
    for reader in (fast, slow):
        backlog.add(reader)
    fast.unread -= MEBIBYTE
    await until_dropped(fast, slow)
    assert slow.dropped_at
    assert not fast.dropped_at
    backlog.discard(fast)


async def test_a_client_reads_if_what_the_kernel_keeps_for_it_becomes_less() -> None:
    backlog = Backlog(asyncio.get_running_loop())
    slow, fast = _Reader(MAX_UNREAD), _Reader(MAX_UNREAD)
    for reader in (fast, slow):
        backlog.add(reader)
    fast.in_kernel -= 1
    await until_dropped(fast, slow)
    assert slow.dropped_at
    assert not fast.dropped_at
    backlog.discard(fast)


async def test_a_client_that_reads_is_not_dropped_before_others_are_known() -> None:
    backlog = Backlog(asyncio.get_running_loop())
    fast, slow = _Reader(MAX_UNREAD), _Reader(MAX_UNREAD)
    backlog.add(fast)
    fast.unread -= MEBIBYTE
    await asyncio.sleep(module.OBSERVED_FOR / 2)
    backlog.add(slow)
    await until_dropped(fast, slow)
    assert slow.dropped_at
    assert not fast.dropped_at
    backlog.discard(fast)


def test_on_uvloop_a_check_that_is_due_at_once_may_be_asked_for_again() -> None:
    async def run() -> None:
        backlog = Backlog(asyncio.get_running_loop())
        readers = [_Reader(MEBIBYTE), _Reader(MAX_UNREAD), _Reader(MAX_UNREAD)]
        backlog.add(readers[0])
        await asyncio.sleep(2 * module.CHECK_AGAIN_AFTER)
        for reader in readers[1:]:
            backlog.add(reader)
        await until_dropped(*readers)
        for reader in readers:
            backlog.discard(reader)

    uvloop.run(run())
