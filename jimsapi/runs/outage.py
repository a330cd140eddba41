"""Outages of the store: what the server logs, and how a run outlasts one."""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from jimsapi.threads.errors import StoreUnavailable

logger = logging.getLogger("jimsapi.store")

Result = TypeVar("Result")

RETRY_STORE_AFTER = (0.1, 0.2, 0.5, 1.0)
"""Seconds between attempts of a run that must not fail because of an outage. The last value repeats."""

QUIET = 4.0
"""Seconds without a failure after which an outage is over. On a full disk, small writes succeed between large ones.
It must be less than the time between two heartbeats: without requests, only heartbeats show that the store works."""
SIZE_MATTERS = ("disk full", "disk error")
"""Reasons after which a successful probe proves nothing: a message may be too large where its small write fits."""
CAUSES = 20
"""The number of causes of one outage that are logged. A store may word the same cause differently each time."""


class OutageLog:
    """Logs each cause of an outage once, however often the store fails, and logs once that the outage is over."""

    def __init__(self) -> None:
        self._began = 0.0
        self._failed_at = 0.0
        self._refused_at = -math.inf
        self._refused_for = ""
        self._causes: set[str] = set()
        self.reason = ""
        """The reason of the last failure; empty if there is no outage, or its cause has no name."""

    def failed(self, error: StoreUnavailable) -> None:
        """Record that an operation of the store failed."""
        self._failed_at = time.monotonic()
        self.reason = error.reason
        if not self._causes:
            self._began = self._failed_at
        cause = error.reason or str(error)
        if cause not in self._causes and len(self._causes) < CAUSES:
            self._causes.add(cause)
            logger.error("the store is unavailable: %s", error)

    def refused(self, error: StoreUnavailable) -> None:
        """Record that an operation failed that a request or a run needs."""
        self.failed(error)
        if error.reason in SIZE_MATTERS:
            self._refused_at, self._refused_for = self._failed_at, error.reason

    @property
    def unproven(self) -> str:
        """The reason why a successful probe does not yet prove that the store works; empty if it does."""
        return self._refused_for if time.monotonic() - self._refused_at < QUIET else ""

    def works(self) -> None:
        """Record that the store has committed a write."""
        if not self._causes:
            return
        now = time.monotonic()
        if now - self._failed_at >= QUIET:
            self._causes.clear()
            self.reason = ""
            logger.warning("the store works again, after %.0f s", now - self._began)

    async def outlast(self, operation: Callable[[], Awaitable[Result]]) -> Result:
        """Call `operation` until the store is available, and return its result.

        An attempt that failed may have stored what it was to store, so `operation` must be one that can be repeated.
        """
        attempt = 0
        while True:
            try:
                return await operation()
            except StoreUnavailable as error:
                self.refused(error)
            await asyncio.sleep(RETRY_STORE_AFTER[min(attempt, len(RETRY_STORE_AFTER) - 1)])
            attempt += 1

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Log a `StoreUnavailable` that is raised in the `with` block, and raise it again."""
        try:
            yield
        except StoreUnavailable as error:
            self.refused(error)
            raise
