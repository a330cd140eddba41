"""What the suites share: the Sentry that gets the reports, and an environment that is the tests' own."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Tests are collected by path, so that a helper beside them has to be put within reach.
sys.path.insert(0, str(Path(__file__).parent))

from fake_sentry import FakeSentry  # it is within reach only now


@pytest.fixture
def sentry() -> Iterator[FakeSentry]:
    server = FakeSentry()
    yield server
    server.close()
