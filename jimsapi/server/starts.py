"""When requests begin: at once, unless the server is overloaded."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from time import process_time
from typing import Protocol

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
FORGOTTEN_AFTER = 1.0
"""Seconds without a pass of this kind after which the last pause says nothing any more."""


class Request(Protocol):
    """What begins in its turn."""

    def begin(self) -> None:
        """Let the app answer."""


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

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._first = _Queue(loop, lambda: 0.0)
        self._others = _Queue(loop, self._pause_after_refusals)
        self._after_errors = _Queue(loop, self._adapted_pause)
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

    def add(self, request: Request, path: str, *, after_error: bool = False) -> None:
        """Begin a request of `path` in its turn; `after_error` if the last answer on its connection was one."""
        if path in self.first:
            self._first.add(request)
        elif after_error and not self.limited:
            self._after_errors.add(request)
        else:
            self._others.add(request)

    def discard(self, request: Request) -> bool:
        """Forget a request for which nobody waits any more. Returns whether it was waiting for its turn."""
        return any(queue.discard(request) for queue in (self._first, self._others, self._after_errors))

    def _pause_after_refusals(self) -> float:
        if not self._refused:
            return 0.0
        self._refused = False
        return self._adapted_pause()

    def _adapted_pause(self) -> float:
        now = self._loop.time()
        lasted = now - self._measured_at
        if lasted < MEASURED_FOR:
            return self._pause
        used = process_time() + _waited()
        busy = (used - self._used) / lasted
        self._measured_at, self._used = now, used
        if lasted > FORGOTTEN_AFTER:
            self._pause = 0.0
        elif busy > BUSY:
            self._pause = min(LONGEST_PAUSE, max(SHORTEST_PAUSE, 2 * self._pause))
        else:
            self._pause = self._pause / 2 if self._pause > SHORTEST_PAUSE else 0.0
        return self._pause

    def _look(self) -> None:
        left = self._until - self._loop.time()
        if left > 0 or self._others or self._first:
            self._loop.call_later(max(left, 0.01), self._look)
        else:
            self.limited = False


class _Queue:
    """Requests that begin in the order in which they came, a few in each pass of the loop; before each pass there may
    be a pause."""

    def __init__(self, loop: asyncio.AbstractEventLoop, pause: Callable[[], float]) -> None:
        self._loop = loop
        self._pause = pause
        self._waiting: OrderedDict[Request, None] = OrderedDict()
        self._is_due = False

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, request: Request) -> None:
        self._waiting[request] = None
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._next_pass)

    def discard(self, request: Request) -> bool:
        found = request in self._waiting
        if found:
            del self._waiting[request]
        return found

    def _next_pass(self) -> None:
        if pause := self._pause():
            self._loop.call_later(pause, self._begin_some)
        else:
            self._begin_some()

    def _begin_some(self) -> None:
        for _ in range(min(STARTED_AT_ONCE, len(self._waiting))):
            request, _ = self._waiting.popitem(last=False)
            request.begin()
        self._is_due = bool(self._waiting)
        if self._is_due:
            self._loop.call_soon(self._next_pass)


def _waited() -> float:
    """Seconds that this thread could have worked and had no processor, since other programs had them, or since the
    process may use no more. 0 where the system does not say."""
    try:
        with open("/proc/thread-self/schedstat") as file:
            return int(file.read().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0
