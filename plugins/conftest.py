"""What the tests of every plugin share."""

import os

import pytest

from tests.heap import pytest_collection_finish  # noqa: F401 # the hook of every suite

OUTSIDE = ("JIMS_", "OPENAI_", "OTEL_", "PG", "SENTRY_")
"""How variables begin that jimsapi, a plugin or what it is made with reads."""


@pytest.fixture
def anyio_backend() -> str:
    """The loop of async tests."""
    return "asyncio"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No option and no proxy comes from outside."""
    for variable in list(os.environ):
        if variable.startswith(OUTSIDE) or variable.lower().endswith("_proxy"):
            monkeypatch.delenv(variable)
