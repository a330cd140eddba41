"""What the suite `crowd` asks of a server, with the Python of the tests."""

import asyncio
import importlib
import platform
import socket
import sys
import time
from collections.abc import Iterator
from typing import cast

import pytest

from benchmarks import pythons
from benchmarks.serving import KEY, Server, free_ports
from benchmarks.sheet import DELTAS
from benchmarks.suites import crowd, streams
from benchmarks.suites.crowd import COST, LAG50, LAG99, begun, followed, read_all
from benchmarks.suites.streams import STREAM, connect, opened
from jimsapi import ThreadContext

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    port, metrics_port = free_ports(2)
    command = [sys.executable, "-m", "jimsapi", "--app", "benchmarks.apps.streaming", "--store", "memory:"]
    where = ["--port", str(port), "--metrics-port", str(metrics_port), "--api-key", KEY]
    with Server([*command, *where], port) as server:
        yield server


def test_readers_of_a_run_read_every_delta_beside_streams_that_wait(server: Server) -> None:
    with opened(server, STREAM, 20):
        found = followed(server, 5, 1)
    assert 0 < found[LAG50] <= found[LAG99]
    assert found[COST] > 0
    assert found[DELTAS] > 0  # over the rate if the harness itself was late


def test_each_delta_counts_that_waited_also_if_one_read_brings_many() -> None:
    now = time.monotonic_ns()
    late, soon = now - 60_000_000_000, now
    events = [b'event: delta\ndata: {"content":"%d "}\n\n' % due for due in [late] * 25 + [soon] * 75]
    whole = b'event: event\ndata: {"content":"%d %d "}\n\nevent: result\ndata: {}\n\n' % (late, soon)
    sender, reader = socket.socketpair()
    with sender, reader:
        sender.sendall(b"".join(events) + whole)
        lags, counts = read_all([reader])
    assert counts == [100]
    assert sum(lag >= 30_000 for lag in lags) == 25


async def test_a_piece_that_is_late_says_when_it_was_due(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCHMARK_KEY", KEY)
    streaming = importlib.import_module("benchmarks.apps.streaming")
    said: list[int] = []

    class Slow:
        async def stream(self, piece: str) -> None:
            said.append(int(piece))
            await asyncio.sleep(0.002)

    await streaming.say_due_times(cast(ThreadContext, Slow()), 1_000, 1, 0)
    assert said[-1] - said[0] == pytest.approx(999_000_000, abs=1_000)


def test_a_reader_that_misses_a_delta_is_reported(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowd, "RATE", 100)
    monkeypatch.setattr(crowd, "begun", lambda server, message: begun(server, "99 1 1"))
    with pytest.raises(RuntimeError, match="readers of 100 deltas have 99 to 99"):
        followed(server, 2, 1)


def test_a_stream_that_is_refused_is_reported(server: Server) -> None:
    with pytest.raises(RuntimeError, match="stream 0 did not begin"), opened(server, "/nowhere", 1):
        pass


def test_connections_come_from_several_addresses(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with connect(server, 3) as connection:
        assert connection.getsockname()[0] == "127.0.0.3"
    monkeypatch.setattr(streams, "STREAMS_OF_ADDRESS", 2)
    with opened(server, STREAM, 5):
        pass


def test_readers_that_read_nothing_more_are_reported(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowd, "PATIENCE", 0.05)
    with connect(server) as connection, pytest.raises(RuntimeError, match="1 of 1 readers read nothing more"):
        read_all([connection])


def test_the_python_of_the_tests_is_found() -> None:
    version = ".".join(platform.python_version_tuple()[:2])
    assert version in {each.rstrip("t") for each in pythons.found()}
