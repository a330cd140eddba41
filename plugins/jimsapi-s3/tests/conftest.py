"""A real S3 server for the tests: SeaweedFS from its wheel, one process for the whole run."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Tests are collected by path, so that a helper beside them has to be put within reach.
sys.path.insert(0, str(Path(__file__).parent))

from seaweed import BUCKET, Seaweed


@pytest.fixture(scope="session")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """The server. A test that kills it starts it again."""
    with Seaweed(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


@pytest.fixture
def bucket(storage: Seaweed, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty bucket, whose credentials are in the environment. The first file of a new bucket would take a second."""
    for name, value in storage.env.items():
        monkeypatch.setenv(name, value)
    if storage.process is None:  # the test that killed it has failed
        storage.start()
    storage.empty(BUCKET)
    return BUCKET
