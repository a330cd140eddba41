"""Fixtures of all tests."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """The backend of async tests. The server uses asyncio too."""
    return "asyncio"
