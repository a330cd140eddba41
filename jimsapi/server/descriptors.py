"""How many files and connections the process may have open, and what it keeps free for others than callers."""

import os
import resource
import sys
from contextlib import suppress

WANTED = 65_536
"""Descriptors that the process asks for, if its hard limit allows as many."""


class Descriptors:
    """The process's limit of open descriptors.

    The kernel gives every new descriptor the lowest number that is free. So the number of a new connection says how
    many descriptors are taken, whoever took them: connections, TLS handshakes, the store, the app.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        reserve = max(8, min(256, limit // 8))
        self.full = limit - reserve
        """The descriptor from which on connections that wait for a request are closed to make room."""
        self.exhausted = limit - reserve // 2
        """The descriptor from which on new connections are refused, but for those of probes."""
        self.last = limit - reserve // 4
        """The descriptor from which on these are refused too: the rest is for the store and the app."""
        self._spare: int | None = _spare()

    def give_spare(self) -> bool:
        """Free one descriptor, so that a connection can be accepted and refused. Returns whether there was one."""
        if self._spare is None:
            return False
        os.close(self._spare)
        self._spare = None
        return True

    def take_spare(self) -> None:
        """Take it back."""
        if self._spare is None:
            self._spare = _spare()

    def close(self) -> None:
        """Give it up for good."""
        self.give_spare()


def _spare() -> int | None:
    try:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None


def descriptor_limit() -> int:
    """How many descriptors the process may have open now."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def raise_limit() -> int:
    """Raise the soft limit of open descriptors to the hard one, at most to `WANTED`. Returns the limit that holds."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED if hard == resource.RLIM_INFINITY else min(WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # some systems have a lower bound of their own
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return descriptor_limit()
