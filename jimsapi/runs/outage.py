"""The log lines of a store that fails: one when it begins, one when it is over."""

import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from jimsapi.threads.errors import StoreUnavailable

logger = logging.getLogger("jimsapi.store")

QUIET = 4.0
"""Seconds without a failure after which the store works again: on a full disk small writes succeed between large ones.
Less than the time between two heartbeats, which show that the store works when nobody else asks it."""
SIZE_MATTERS = ("disk full", "disk error")
"""Reasons after which the small write of a probe shows nothing: it may still fit where a message does not."""
CAUSES = 20
"""Causes of one outage that are logged; a store may word the same one differently each time."""


class OutageLog:
    """Logs each cause of an outage once, however often the store fails; and once that the outage is over."""

    def __init__(self) -> None:
        self._began = 0.0
        self._failed_at = 0.0
        self._refused_at = -math.inf
        self._refused_for = ""
        self._causes: set[str] = set()
        self.reason = ""
        """The reason of the last failure; empty if there is no outage, or its cause has no name."""

    def failed(self, error: StoreUnavailable) -> None:
        """The store could not do something."""
        self._failed_at = time.monotonic()
        self.reason = error.reason
        if not self._causes:
            self._began = self._failed_at
        cause = error.reason or str(error)
        if cause not in self._causes and len(self._causes) < CAUSES:
            self._causes.add(cause)
            logger.error("the store is unavailable: %s", error)

    def refused(self, error: StoreUnavailable) -> None:
        """The store could not do something that a request or a run needs."""
        self.failed(error)
        if error.reason in SIZE_MATTERS:
            self._refused_at, self._refused_for = self._failed_at, error.reason

    @property
    def unproven(self) -> str:
        """Why the store may not work yet although a probe says that it does; empty if the probe's answer counts."""
        return self._refused_for if time.monotonic() - self._refused_at < QUIET else ""

    def works(self) -> None:
        """The store has written something."""
        if not self._causes:
            return
        now = time.monotonic()
        if now - self._failed_at >= QUIET:
            self._causes.clear()
            self.reason = ""
            logger.warning("the store works again, after %.0f s", now - self._began)

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Log the `StoreUnavailable` that is raised within, and raise it on."""
        try:
            yield
        except StoreUnavailable as error:
            self.refused(error)
            raise
