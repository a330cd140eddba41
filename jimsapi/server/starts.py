"""When requests begin: at once, unless the server is overloaded."""

import asyncio
from collections import deque
from collections.abc import Callable
from time import process_time

STARTED_AT_ONCE = 4
"""Requests that begin in one pass of the event loop while they are limited."""
OVERLOADED_FOR = 1.0
"""Seconds for which the server counts as overloaded after an answer with status 503."""
BUSY = 0.9
"""The share of the time for which the process works or waits for a processor. Above it refusals wait."""
MEASURED_FOR = 0.02
"""Seconds over which that share is measured, at least."""
SHORTEST_PAUSE = 0.0005
LONGEST_PAUSE = 0.016
"""Seconds between the refusals of two passes, if the process has nothing left for more."""


class Starts:
    """Begins requests, a few in each pass of the event loop while the server is overloaded.

    An answer takes many passes. If thousands of requests that can only be refused began in each pass, the accepted ones
    would take many times as long, and the server would answer a fraction of what it can. A refusal with its new
    connection costs about as much as an answer, so a crowd could use up the processor with refusals alone. So after a
    pass whose requests were refused there is a pause while the process is busy; the longer, the busier it has been.

    Other errors are cheaper, but a few connections that send nothing but wrong keys or unknown paths, without pause,
    would take half of the processor. So what follows an error on its connection waits like a refusal, in a queue of
    its own: it holds up nobody else.
    """

    __slots__ = (
        "_after_error",
        "_first",
        "_loop",
        "_measured_at",
        "_pause",
        "_refused",
        "_until",
        "_used",
        "_waiting",
        "first",
        "limited",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[Callable[[], None]] = deque()
        self._first: deque[Callable[[], None]] = deque()
        self._after_error: deque[Callable[[], None]] = deque()
        self._until = 0.0
        self._refused = False
        self._pause = 0.0
        self._measured_at = 0.0
        self._used = 0.0
        self.limited = False
        """Whether requests have to be added here."""
        self.first: frozenset[str] = frozenset()
        """Paths of requests that overtake others, such as those of probes."""

    def overloaded(self) -> None:
        """The server has refused a request for want of room."""
        self._until = self._loop.time() + OVERLOADED_FOR
        self._refused = True
        if not self.limited:
            self.limited = True
            self._loop.call_later(OVERLOADED_FOR, self._look)

    def add(self, begin: Callable[[], None], path: str) -> None:
        """Call `begin` in its turn. It begins a request of `path`."""
        waiting, begin_some = (
            (self._first, self._begin_first) if path in self.first else (self._waiting, self._begin_others)
        )
        if not waiting:
            self._loop.call_soon(begin_some)
        waiting.append(begin)

    def add_after_error(self, begin: Callable[[], None]) -> None:
        """Call `begin` in its turn. It begins a request of a connection whose last answer was an error."""
        if not self._after_error:
            self._loop.call_soon(self._pause_after_error)
        self._after_error.append(begin)

    def _pause_after_error(self) -> None:
        self._adapt_pause()
        if self._pause:
            self._loop.call_later(self._pause, self._begin_after_error)
        else:
            self._begin_after_error()

    def _begin_after_error(self) -> None:
        _begin_some(self._after_error)
        if self._after_error:
            self._loop.call_soon(self._pause_after_error)

    def _begin_first(self) -> None:
        _begin_some(self._first)
        if self._first:
            self._loop.call_soon(self._begin_first)

    def _begin_others(self) -> None:
        if self._refused:
            self._refused = False
            self._adapt_pause()
            if self._pause:
                self._loop.call_later(self._pause, self._begin_next)
                return
        self._begin_next()

    def _begin_next(self) -> None:
        _begin_some(self._waiting)
        if self._waiting:
            self._loop.call_soon(self._begin_others)

    def _adapt_pause(self) -> None:
        now = self._loop.time()
        lasted = now - self._measured_at
        if lasted < MEASURED_FOR:
            return
        used = process_time() + _waited()
        busy = (used - self._used) / lasted
        self._measured_at, self._used = now, used
        if busy > BUSY:
            self._pause = min(LONGEST_PAUSE, max(SHORTEST_PAUSE, 2 * self._pause))
        else:
            self._pause = self._pause / 2 if self._pause > SHORTEST_PAUSE else 0.0

    def _look(self) -> None:
        left = self._until - self._loop.time()
        if left > 0 or self._waiting or self._first:
            self._loop.call_later(max(left, 0.01), self._look)
        else:
            self.limited = False


def _waited() -> float:
    """Seconds that this thread could have worked and had no processor, since other programs had them, or since the
    process may use no more. 0 where the system does not say."""
    try:
        with open("/proc/thread-self/schedstat") as file:
            return int(file.read().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


def _begin_some(waiting: deque[Callable[[], None]]) -> None:
    for _ in range(min(STARTED_AT_ONCE, len(waiting))):
        waiting.popleft()()
