"""What the suites share: the collector that gets the spans, and an environment that is the tests' own."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Tests are collected by path, so that a helper beside them has to be put within reach.
sys.path.insert(0, str(Path(__file__).parent))

from otlp_collector import Collector  # it is within reach only now


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector for a process that the test starts."""
    server = Collector()
    yield server
    server.close()


@pytest.fixture(scope="session")
def _shared_collector() -> Iterator[Collector]:
    server = Collector()
    yield server
    server.close()


@pytest.fixture
def shared_collector(_shared_collector: Collector, monkeypatch: pytest.MonkeyPatch) -> Collector:
    """The one collector of this process, which OpenTelemetry allows one exporter; the variables name it."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", _shared_collector.url)
    _shared_collector.clear()
    return _shared_collector
