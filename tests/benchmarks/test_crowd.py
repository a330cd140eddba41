"""What the suite `crowd` asks of a server, with the Python of the tests."""

import socket
import sys
import time
from collections.abc import Iterator

import pytest

from benchmarks.serving import KEY, Server, free_ports
from benchmarks.sheet import DELTAS
from benchmarks.suites import crowd, streams
from benchmarks.suites.crowd import COST, LAG50, LAG99, begun, followed, read_all
from benchmarks.suites.streams import STREAM, connect, opened

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


def test_a_reader_that_misses_a_delta_is_reported(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowd, "RATE", 100)
    monkeypatch.setattr(crowd, "begun", lambda server, message: begun(server, "99 1 1"))
    with pytest.raises(RuntimeError, match="readers of 100 deltas have 99 to 99"):
        followed(server, 2, 1)


def test_connections_come_from_several_addresses(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with connect(server, 3) as connection:
        assert connection.getsockname()[0] == "127.0.0.3"
    monkeypatch.setattr(streams, "STREAMS_OF_ADDRESS", 2)
    with opened(server, STREAM, 5):
        pass
