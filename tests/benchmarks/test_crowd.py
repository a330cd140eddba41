"""What the suite `crowd` asks of a server, with the Python of the tests."""

import platform
import sys
from collections.abc import Iterator

import pytest

from benchmarks import pythons
from benchmarks.serving import KEY, Server, free_ports
from benchmarks.suites import crowd
from benchmarks.suites.crowd import COST, LAG50, LAG99, begun, connect, followed, opened, read_all


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    port, metrics_port = free_ports(2)
    command = [sys.executable, "-m", "jimsapi", "--app", "benchmarks.apps.streaming", "--store", "memory:"]
    where = ["--port", str(port), "--metrics-port", str(metrics_port), "--api-key", KEY]
    with Server([*command, *where], port) as server:
        yield server


def test_readers_of_a_run_read_every_delta_beside_streams_that_wait(server: Server) -> None:
    with opened(server, 20):
        found = followed(server, 5, 1)
    assert 0 < found[LAG50] <= found[LAG99]
    assert found[COST] > 0


def test_a_reader_that_misses_a_delta_is_reported(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowd, "RATE", 100)
    monkeypatch.setattr(crowd, "begun", lambda server, message: begun(server, "99 1 1"))
    with pytest.raises(RuntimeError, match="readers of 100 deltas have 99 to 99"):
        followed(server, 2, 1)


def test_a_stream_that_is_refused_is_reported(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowd, "STREAM", "/nowhere")
    with pytest.raises(RuntimeError, match="stream 0 did not begin"), opened(server, 1):
        pass


def test_connections_come_from_several_addresses(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with connect(server, 3) as connection:
        assert connection.getsockname()[0] == "127.0.0.3"
    monkeypatch.setattr(crowd, "STREAMS_OF_ADDRESS", 2)
    with opened(server, 5):
        pass


def test_readers_that_read_nothing_more_are_reported(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowd, "PATIENCE", 0.05)
    with connect(server) as connection, pytest.raises(RuntimeError, match="1 of 1 readers read nothing more"):
        read_all([connection])


def test_the_python_of_the_tests_is_found() -> None:
    version = ".".join(platform.python_version_tuple()[:2])
    assert version in {each.rstrip("t") for each in pythons.found()}
    assert list(pythons.found()) == sorted(pythons.found(), key=pythons.VERSIONS.index)
