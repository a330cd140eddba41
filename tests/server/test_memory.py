"""The memory of connections that have ended is returned."""

import asyncio
import gc
import sys
import weakref
from collections.abc import Iterator

import pytest

from jimsapi.server import memory as module
from jimsapi.server.memory import COLLECT_AFTER, Heap

pytestmark = pytest.mark.anyio


class _Left:
    """What a WebSocket leaves: it refers to itself."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def no_other_collections() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


async def until_collected(left: weakref.ref[_Left]) -> None:
    async with asyncio.timeout(30):
        while left() is not None:
            await asyncio.sleep(0.01)


async def test_what_many_websockets_leave_is_collected_also_if_connections_go_on_to_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "TRIM_EVERY", 600.0)
    heap = Heap(asyncio.get_running_loop())
    left = weakref.ref(_Left())
    for _ in range(COLLECT_AFTER):
        heap.websocket_ended(0)
    await until_collected(left)


async def test_what_a_single_websocket_leaves_is_collected_in_a_quiet_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TRIM_EVERY", 0.3)
    heap = Heap(asyncio.get_running_loop())
    left = weakref.ref(_Left())
    heap.websocket_ended(0)
    for _ in range(10):
        await asyncio.sleep(0.1)
        heap.connection_ended()
    assert left() is not None
    await until_collected(left)


async def test_names_that_c_code_looked_up_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TRIM_EVERY", 0.01)
    name = f"name {id(monkeypatch)}"  # nobody else has this string
    before = sys.getrefcount(name)
    assert getattr(_Left, name, None) is None
    assert sys.getrefcount(name) > before
    Heap(asyncio.get_running_loop()).websocket_ended(0)
    async with asyncio.timeout(30):
        while sys.getrefcount(name) > before:
            await asyncio.sleep(0.01)


async def test_memory_is_trimmed_until_streams_that_had_ended_are_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    trims: list[int] = []
    monkeypatch.setattr(module, "TRIM_EVERY", 0.01)
    monkeypatch.setattr(module, "TRIM_FOR", 0.1)
    heap = Heap(asyncio.get_running_loop())
    monkeypatch.setattr(heap, "_trim", trims.append)
    heap.connection_ended()
    await asyncio.sleep(0.3)
    assert len(trims) > 1
    number = len(trims)
    await asyncio.sleep(0.2)
    assert len(trims) == number
