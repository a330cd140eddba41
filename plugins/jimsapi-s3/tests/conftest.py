"""A real S3 server for the tests: SeaweedFS from its wheel, one process for the whole run."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Tests are collected by path, so that a helper beside them has to be put within reach.
sys.path.insert(0, str(Path(__file__).parent))

from seaweed import Seaweed


@pytest.fixture(scope="session")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """The server. Each test gets a bucket of its own from it."""
    with Seaweed(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


@pytest.fixture
def bucket(storage: Seaweed, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new bucket, whose credentials are in the environment."""
    for name, value in storage.env.items():
        monkeypatch.setenv(name, value)
    return storage.new_bucket()
