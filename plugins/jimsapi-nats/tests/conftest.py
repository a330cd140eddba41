"""NATS servers."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Tests are collected by path, so that a helper beside them has to be put within reach.
sys.path.insert(0, str(Path(__file__).parent))

from nats_server import NatsServer  # it is within reach only now


@pytest.fixture
def server() -> Iterator[NatsServer]:
    """A server that the test may stop. It has no stream."""
    with NatsServer() as running:
        yield running
