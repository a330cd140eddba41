"""Waiting for what a server does meanwhile."""

import time
from collections.abc import Callable

PATIENCE = 30.0


def eventually(holds: Callable[[], object], within: float = PATIENCE) -> None:
    """Wait until something holds. Raises `AssertionError` if it does not `within` so many seconds."""
    until = time.monotonic() + within
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.005)
