"""The process's limit of open descriptors (files and connections), and the reserve for parts other than connections."""

import os
import resource
import sys
from contextlib import suppress

WANTED = 65_536
"""Descriptors that the process requests, if its hard limit allows as many."""


class Descriptors:
    """The process's limit of open descriptors.

    The kernel assigns the lowest free number to every new descriptor. So the number of a new connection shows how many
    descriptors are in use by connections, TLS handshakes, the store and the app together.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        reserve = max(8, min(256, limit // 8))
        self.full = limit - reserve
        """From this descriptor on, the server closes connections that wait for a request, to make room."""
        self.exhausted = limit - reserve // 2
        """From this descriptor on, the server rejects new connections except those of probes."""
        self.last = limit - reserve // 4
        """From this descriptor on, it rejects probes too. The rest is for the store and the app."""
        self._spare: int | None = _spare()

    def free_spare(self) -> bool:
        """Free the spare descriptor, to accept and reject a connection. Returns whether there was one."""
        if self._spare is None:
            return False
        os.close(self._spare)
        self._spare = None
        return True

    def reopen_spare(self) -> None:
        """Open the spare descriptor again."""
        if self._spare is None:
            self._spare = _spare()

    def close(self) -> None:
        """Free the spare descriptor."""
        self.free_spare()


def _spare() -> int | None:
    try:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None


def descriptor_limit() -> int:
    """Return how many descriptors the process may have open now."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def open_descriptors() -> int | str:
    """Return how many descriptors the process has open; "?" if the system does not show it."""
    try:
        return len(os.listdir("/dev/fd"))
    except OSError:
        return "?"


def raise_limit() -> int:
    """Raise the soft limit of open descriptors to the hard limit, at most to `WANTED`. Returns the new limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED if hard == resource.RLIM_INFINITY else min(WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # some systems have a lower limit than the hard one
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return descriptor_limit()
