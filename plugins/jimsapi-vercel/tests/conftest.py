"""What the suites share."""

import os

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """The loop of async tests."""
    return "asyncio"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No option comes from outside."""
    for variable in list(os.environ):
        if variable.startswith("JIMS_"):
            monkeypatch.delenv(variable)
