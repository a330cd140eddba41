"""What every suite shares."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """The loop of async tests; a suite that runs on others too overrides it."""
    return "asyncio"
