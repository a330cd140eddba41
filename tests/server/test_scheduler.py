"""Requests begin at once, but in small numbers while the server is overloaded."""

import asyncio
import math
import socket
import weakref
from collections.abc import Callable
from contextlib import closing
from functools import partial

import pytest

from jimsapi.server import scheduler as module
from jimsapi.server.scheduler import STARTED_AT_ONCE, RequestScheduler
from tests.raw import read_answer, request
from tests.server.busy import always_busy
from tests.serving import Served

pytestmark = pytest.mark.anyio


class Request:
    """What calls a function in its turn."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function

    def begin(self) -> None:
        self._function()


@pytest.fixture(autouse=True)
def measured_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """How busy the process is counts from the first pass on."""
    monkeypatch.setattr(module, "PAUSE_EXPIRES_AFTER", math.inf)


def scheduler_with(requests: int, begin: Callable[[int], None]) -> RequestScheduler:
    scheduler = RequestScheduler(asyncio.get_running_loop())
    scheduler.first = frozenset({"/healthz"})
    for number in range(requests):
        scheduler.add(Request(partial(begin, number)), f"/{number}")
    return scheduler


async def until(holds: Callable[[], bool], pause: float = 0.001) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(pause)


async def test_few_requests_begin_in_a_pass_of_the_event_loop() -> None:
    begun: list[int] = []
    scheduler_with(3 * STARTED_AT_ONCE, begun.append)
    assert begun == []
    for passes in (1, 2, 3):
        await asyncio.sleep(0)
        assert begun == list(range(passes * STARTED_AT_ONCE))


async def test_probes_overtake_the_others() -> None:
    begun: list[int | str] = []
    scheduler = scheduler_with(3 * STARTED_AT_ONCE, begun.append)
    scheduler.add(Request(partial(begun.append, "probe")), "/healthz")
    await asyncio.sleep(0)
    assert "probe" in begun
    assert len(begun) == STARTED_AT_ONCE + 1


async def test_refusals_wait_while_the_process_is_busy_and_probes_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUSY_SHARE", 0.0)
    monkeypatch.setattr(module, "SHORTEST_PAUSE", 60.0)
    monkeypatch.setattr(module, "LONGEST_PAUSE", 60.0)
    begun: list[int | str] = []

    def refuse(number: int) -> None:
        begun.append(number)
        scheduler.note_overload()

    scheduler = scheduler_with(3 * STARTED_AT_ONCE, refuse)
    for _ in range(10):
        await asyncio.sleep(0)
    assert begun == list(range(STARTED_AT_ONCE))
    scheduler.add(Request(partial(begun.append, "probe")), "/healthz")
    await asyncio.sleep(0)
    assert begun[-1] == "probe"


async def test_refusals_go_on_as_soon_as_the_process_has_time_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MEASURED_FOR", 0.0)
    monkeypatch.setattr(module, "BUSY_SHARE", 0.0)
    begun: list[int] = []

    def refuse(number: int) -> None:
        begun.append(number)
        scheduler.note_overload()

    scheduler = scheduler_with(8 * STARTED_AT_ONCE, refuse)
    await until(lambda: len(begun) >= 2 * STARTED_AT_ONCE)
    monkeypatch.setattr(module, "BUSY_SHARE", math.inf)
    await until(lambda: len(begun) >= 8 * STARTED_AT_ONCE)
    assert begun == list(range(8 * STARTED_AT_ONCE))


async def test_what_follows_an_error_waits_while_the_process_is_busy_and_holds_up_nobody_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    always_busy(monkeypatch, 0.2)
    begun: list[str] = []
    scheduler = RequestScheduler(asyncio.get_running_loop())
    scheduler.first = frozenset({"/healthz"})
    for _ in range(STARTED_AT_ONCE + 1):
        scheduler.add(Request(partial(begun.append, "after an error")), "/", after_error=True)
    scheduler.add(Request(partial(begun.append, "another")), "/")
    scheduler.add(Request(partial(begun.append, "probe")), "/healthz", after_error=True)
    await asyncio.sleep(0)
    assert sorted(begun) == ["another", "probe"]
    async with asyncio.timeout(30):
        while len(begun) < STARTED_AT_ONCE + 3:
            await asyncio.sleep(0.001)
            assert len(begun) in (2, STARTED_AT_ONCE + 2, STARTED_AT_ONCE + 3)


async def test_requests_whose_clients_have_left_are_forgotten_and_hold_up_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun: list[str] = []
    scheduler = RequestScheduler(asyncio.get_running_loop())
    left = [Request(partial(begun.append, "left")) for _ in range(10 * STARTED_AT_ONCE)]
    for each in left:
        scheduler.add(each, "/", after_error=True)
    scheduler.add(Request(partial(begun.append, "stays")), "/", after_error=True)
    assert all(scheduler.discard(each) for each in left)
    assert not any(scheduler.discard(each) for each in left)
    kept = [weakref.ref(each) for each in left]
    del left, each
    assert {reference() for reference in kept} == {None}
    await asyncio.sleep(0)
    assert begun == ["stays"]


async def test_a_queue_that_became_empty_and_is_filled_again_is_as_slow_as_before() -> None:
    begun: list[int] = []
    scheduler = RequestScheduler(asyncio.get_running_loop())
    for _ in range(5):
        leaves = Request(partial(begun.append, -1))
        scheduler.add(leaves, "/")
        scheduler.discard(leaves)
    for number in range(3 * STARTED_AT_ONCE):
        scheduler.add(Request(partial(begun.append, number)), "/")
    await asyncio.sleep(0)
    assert begun == list(range(STARTED_AT_ONCE))


async def test_a_pause_is_forgotten_after_a_quiet_time(monkeypatch: pytest.MonkeyPatch) -> None:
    always_busy(monkeypatch, 0.05)
    begun: list[int] = []
    scheduler = RequestScheduler(asyncio.get_running_loop())
    scheduler.add(Request(partial(begun.append, 1)), "/", after_error=True)
    await asyncio.sleep(0)
    assert begun == []
    await until(lambda: bool(begun))
    monkeypatch.setattr(module, "PAUSE_EXPIRES_AFTER", 0.0)
    scheduler.add(Request(partial(begun.append, 2)), "/", after_error=True)
    await asyncio.sleep(0)
    assert begun == [1, 2]


async def test_requests_begin_though_probes_are_refused_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUSY_SHARE", 0.0)
    begun: list[int] = []
    scheduler = scheduler_with(8 * STARTED_AT_ONCE, begun.append)
    async with asyncio.timeout(30):
        while len(begun) < 8 * STARTED_AT_ONCE:
            scheduler.note_overload()
            await asyncio.sleep(0)


async def test_requests_begin_at_once_again_some_time_after_the_last_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OVERLOADED_FOR", 0.05)
    scheduler = RequestScheduler(asyncio.get_running_loop())
    scheduler.note_overload()
    assert scheduler.limited
    await until(lambda: not scheduler.limited)


def test_all_requests_are_answered_while_the_server_is_overloaded() -> None:
    clients = 60
    with Served("--max-runs", "1") as served:
        body = b'{"contact_id": "a", "message": "hello"}'
        sent = request(
            "POST", "/api/v1/chat", "content-type: application/json", f"content-length: {len(body)}", body=body
        )
        connections = [socket.create_connection(("127.0.0.1", served.port), timeout=20) for _ in range(clients)]
        for connection in connections:
            connection.sendall(sent)
        statuses = []
        for connection in connections:
            with closing(connection):
                status, headers, _ = read_answer(connection)
                statuses.append(status)
                assert status == 200 or headers["connection"] == "close"
        assert set(statuses) == {200, 503}
        assert len(statuses) == clients
        with served.client() as client:
            assert client.get("/healthz").status_code == 200
