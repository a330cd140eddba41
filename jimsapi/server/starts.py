"""When requests begin: at once, unless the server is overloaded."""

import asyncio
from collections import deque
from collections.abc import Callable

STARTED_AT_ONCE = 4
"""Requests that begin in one pass of the event loop while the server is overloaded."""
OVERLOADED_FOR = 1.0
"""Seconds for which the server counts as overloaded after an answer with status 503."""


class Starts:
    """Begins requests, a few in each pass of the event loop while the server is overloaded.

    An answer takes many passes. If thousands of requests that can only be refused began in each pass, the accepted ones
    would take many times as long, and the server would answer a fraction of what it can.
    """

    __slots__ = ("_first", "_loop", "_until", "_waiting", "first", "limited")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[Callable[[], None]] = deque()
        self._first: deque[Callable[[], None]] = deque()
        self._until = 0.0
        self.limited = False
        """Whether requests have to be added here."""
        self.first: frozenset[str] = frozenset()
        """Paths of requests that overtake others, such as those of probes."""

    def overloaded(self) -> None:
        """The server has refused a request for want of room."""
        self._until = self._loop.time() + OVERLOADED_FOR
        if not self.limited:
            self.limited = True
            self._loop.call_later(OVERLOADED_FOR, self._look)

    def add(self, begin: Callable[[], None], path: str) -> None:
        """Call `begin` in its turn. It begins a request of `path`."""
        if not self._waiting and not self._first:
            self._loop.call_soon(self._begin_some)
        waiting = self._first if path in self.first else self._waiting
        waiting.append(begin)

    def _begin_some(self) -> None:
        for _ in range(min(STARTED_AT_ONCE, len(self._first) + len(self._waiting))):
            begin = (self._first or self._waiting).popleft()
            begin()
        if self._waiting or self._first:
            self._loop.call_soon(self._begin_some)

    def _look(self) -> None:
        left = self._until - self._loop.time()
        if left > 0 or self._waiting or self._first:
            self._loop.call_later(max(left, 0.01), self._look)
        else:
            self.limited = False
