"""Requests begin at once, but in small numbers while the server is overloaded."""

import asyncio
import socket
from contextlib import closing
from functools import partial

import pytest

from jimsapi.server import starts as module
from jimsapi.server.starts import STARTED_AT_ONCE, Starts
from tests.raw import read_answer, request
from tests.serving import Served

pytestmark = pytest.mark.anyio


async def test_few_requests_begin_in_a_pass_of_the_event_loop_and_probes_overtake_the_others() -> None:
    begun: list[str] = []
    starts = Starts(asyncio.get_running_loop())
    starts.first = frozenset({"/healthz"})
    for number in range(3 * STARTED_AT_ONCE):
        starts.add(partial(begun.append, f"/{number}"), f"/{number}")
    starts.add(partial(begun.append, "/healthz"), "/healthz")
    assert begun == []
    await asyncio.sleep(0)
    assert begun == ["/healthz", *(f"/{number}" for number in range(STARTED_AT_ONCE - 1))]
    while len(begun) <= 3 * STARTED_AT_ONCE:
        before = len(begun)
        await asyncio.sleep(0)
        assert len(begun) - before <= STARTED_AT_ONCE
    assert begun[1:] == [f"/{number}" for number in range(3 * STARTED_AT_ONCE)]


async def test_requests_begin_at_once_again_some_time_after_the_last_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OVERLOADED_FOR", 0.05)
    starts = Starts(asyncio.get_running_loop())
    starts.overloaded()
    assert starts.limited
    async with asyncio.timeout(10):
        while starts.limited:
            await asyncio.sleep(0.01)


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
