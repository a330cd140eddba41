"""The memory of connections that have ended is returned."""

import asyncio
import gc
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from jimsapi.server import memory
from jimsapi.server.memory import COLLECT_AFTER, COLLECT_IN, TRIM_EVERY, TRIM_FOR, Heap


class Loop:
    """An event loop whose time passes when the test says so."""

    def __init__(self) -> None:
        self._now = 0.0
        self._timers: list[tuple[float, Callable[[], object]]] = []

    def time(self) -> float:
        return self._now

    def call_at(self, when: float, call: Callable[[], object]) -> None:
        self._timers.append((when, call))

    def call_later(self, delay: float, call: Callable[[], object]) -> None:
        self.call_at(self._now + delay, call)

    def pass_by(self, seconds: float) -> None:
        """Let so much time pass, and call what is due."""
        until = self._now + seconds
        while due := [timer for timer in self._timers if timer[0] <= until]:
            timer = min(due, key=lambda each: each[0])
            self._timers.remove(timer)
            self._now = max(self._now, timer[0])
            timer[1]()
        self._now = until


class Left:
    """What a WebSocket leaves: it refers to itself."""

    def __init__(self) -> None:
        self.itself = self


class Freed:
    """A WebSocket that leaves nothing."""


@pytest.fixture(autouse=True)
def no_other_collections() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    # A collection takes no time of this loop, however many objects the tests before have left.
    monkeypatch.setattr(memory, "perf_counter", lambda: 0.0)
    return Loop()


@pytest.fixture
def heap(loop: Loop, trims: list[int]) -> Heap:
    heap = Heap(cast(asyncio.AbstractEventLoop, loop))
    heap._trim = trims.append  # it is called in a thread
    return heap


@pytest.fixture
def trims() -> list[int]:
    return []


def end(heap: Heap, *websockets: object) -> None:
    """Tell of the end of WebSockets."""
    for websocket in websockets:
        heap.websocket_ended(websocket, 0)


def joined() -> None:
    for thread in threading.enumerate():
        if thread.name == "heap trim":
            thread.join()


def test_what_many_websockets_leave_is_collected_also_if_connections_go_on_to_end(loop: Loop, heap: Heap) -> None:
    left = weakref.ref(Left())
    end(heap, *(Left() for _ in range(COLLECT_AFTER)))
    loop.pass_by(TRIM_EVERY / 2)
    assert left() is None


def test_websockets_that_leave_nothing_cause_no_collection(loop: Loop, heap: Heap) -> None:
    other = weakref.ref(Left())
    end(heap, *(Freed() for _ in range(2 * COLLECT_AFTER)))
    loop.pass_by(TRIM_EVERY / 2)
    assert other() is not None


def test_websockets_that_are_freed_a_moment_after_their_end_cause_no_collection(loop: Loop, heap: Heap) -> None:
    other = weakref.ref(Left())
    still_held = [Freed() for _ in range(2 * COLLECT_AFTER)]
    end(heap, *still_held)
    loop.pass_by(1.5 * COLLECT_IN)
    del still_held
    loop.pass_by(TRIM_EVERY / 2)
    assert other() is not None


def test_websockets_that_something_keeps_cause_one_collection_and_no_more(loop: Loop, heap: Heap) -> None:
    kept = [Freed() for _ in range(COLLECT_AFTER)]
    end(heap, *kept)
    loop.pass_by(TRIM_EVERY / 2)
    other = weakref.ref(Left())
    heap.websocket_ended(Freed(), 0)
    loop.pass_by(TRIM_EVERY / 2)
    assert other() is not None


def test_what_ends_after_many_that_something_kept_is_collected_as_soon(loop: Loop, heap: Heap) -> None:
    kept = [Freed() for _ in range(10 * COLLECT_AFTER)]
    end(heap, *kept)
    loop.pass_by(TRIM_EVERY / 2)
    del kept
    left = weakref.ref(Left())
    end(heap, *(Left() for _ in range(COLLECT_AFTER)))
    loop.pass_by(TRIM_EVERY / 4)
    assert left() is None


def test_too_few_to_be_collected_count_with_those_that_end_later(loop: Loop, heap: Heap) -> None:
    left = weakref.ref(Left())
    still_held = [Freed() for _ in range(COLLECT_AFTER // 2)]
    end(heap, *still_held, *(Left() for _ in range(COLLECT_AFTER // 2)))
    loop.pass_by(1.5 * COLLECT_IN)
    del still_held
    loop.pass_by(COLLECT_IN)
    assert left() is not None
    end(heap, *(Left() for _ in range(COLLECT_AFTER // 2)))
    loop.pass_by(TRIM_EVERY / 4)
    assert left() is None


def test_what_an_app_leaves_beside_its_websockets_is_collected_in_a_quiet_moment(loop: Loop, heap: Heap) -> None:
    other = weakref.ref(Left())
    heap.websocket_ended(Freed(), 0)
    loop.pass_by(3 * TRIM_EVERY)
    assert other() is None


def test_what_a_single_websocket_leaves_is_collected_in_a_quiet_moment(loop: Loop, heap: Heap) -> None:
    left = weakref.ref(Left())
    heap.websocket_ended(Left(), 0)
    for _ in range(10):
        loop.pass_by(TRIM_EVERY / 2)
        assert left() is not None
        heap.connection_ended(0)
    loop.pass_by(3 * TRIM_EVERY)
    assert left() is None


def test_what_a_cut_request_left_is_collected_in_a_quiet_moment(loop: Loop, heap: Heap) -> None:
    left = weakref.ref(Left())
    heap.connection_ended(0)
    loop.pass_by(TRIM_FOR)
    assert left() is not None
    heap.request_cut()
    heap.connection_ended(0)
    loop.pass_by(3 * TRIM_EVERY)
    assert left() is None


def test_what_ended_while_a_collection_was_under_way_is_collected_later(loop: Loop, heap: Heap) -> None:
    end(heap, *(Left() for _ in range(COLLECT_AFTER)))
    kept = Left()  # by a task that goes on
    heap.websocket_ended(kept, 0)
    loop.pass_by(TRIM_EVERY / 2)
    left = weakref.ref(kept)
    del kept
    loop.pass_by(3 * TRIM_EVERY)
    assert left() is None


def test_a_few_websockets_beside_many_open_ones_are_not_worth_a_collection(loop: Loop, heap: Heap) -> None:
    left = weakref.ref(Left())
    for _ in range(10):
        heap.websocket_ended(Left(), 100)
    loop.pass_by(TRIM_FOR)
    assert left() is not None
    heap.websocket_ended(Left(), 100)
    loop.pass_by(3 * TRIM_EVERY)
    assert left() is None


def test_memory_is_trimmed_right_after_a_collection(loop: Loop, heap: Heap, trims: list[int]) -> None:
    end(heap, *(Left() for _ in range(COLLECT_AFTER)))
    loop.pass_by(TRIM_EVERY / 2)
    joined()
    assert len(trims) == 1


def test_names_that_c_code_looked_up_are_not_kept(loop: Loop, heap: Heap) -> None:
    name = f"name {id(loop)}"  # nobody else has this string
    before = sys.getrefcount(name)
    assert getattr(Left, name, None) is None
    assert sys.getrefcount(name) > before
    heap.websocket_ended(Left(), 0)
    loop.pass_by(3 * TRIM_EVERY)
    assert sys.getrefcount(name) == before


def test_memory_is_trimmed_until_streams_that_had_ended_are_gone(loop: Loop, heap: Heap, trims: list[int]) -> None:
    heap.connection_ended(0)
    loop.pass_by(TRIM_FOR)
    joined()
    assert len(trims) == TRIM_FOR / TRIM_EVERY
    loop.pass_by(TRIM_FOR)
    joined()
    assert len(trims) <= TRIM_FOR / TRIM_EVERY + 1
    heap.connection_ended(0)
    loop.pass_by(TRIM_EVERY)
    joined()
    assert len(trims) > TRIM_FOR / TRIM_EVERY


def test_memory_is_trimmed_again_after_no_thread_could_be_started(
    loop: Loop, heap: Heap, trims: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(thread: Any) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", fail)
        heap.connection_ended(0)
        loop.pass_by(TRIM_EVERY)
    heap.connection_ended(0)
    loop.pass_by(2 * TRIM_EVERY)
    joined()
    assert trims
