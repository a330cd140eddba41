"""Schedules the start of requests: at once, or a few at a time while the server is overloaded."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from time import process_time
from typing import Protocol

STARTED_AT_ONCE = 4
"""Requests that begin in one pass of the event loop while the server is overloaded."""
OVERLOADED_FOR = 1.0
"""Seconds for which the server counts as overloaded after an answer with status 503."""
BUSY_SHARE = 0.9
"""The share of the time in which the process works or waits for a processor. Above it, errors cause pauses."""
MEASURED_FOR = 0.02
"""Minimum number of seconds over which that share is measured."""
SHORTEST_PAUSE = 0.0005
LONGEST_PAUSE = 0.016
"""Seconds of a pause between two passes whose requests were rejected, while the process is busy."""
PAUSE_EXPIRES_AFTER = 1.0
"""Seconds without such a pass after which the next one begins without a pause."""


class Request(Protocol):
    """A request that waits for its start."""

    def begin(self) -> None:
        """Call the app."""


class RequestScheduler:
    """Begins requests, a few in each pass of the event loop while the server is overloaded.

    An answer takes many passes. If thousands of requests began in each pass and were rejected, the accepted ones would
    take many times as long. A rejected request with its new connection costs about as much as an answer, so a flood
    could use the whole processor for rejections. So after a pass with a rejected request there is a pause if the
    process is busy. The pause grows while the process stays busy.

    Other errors cost less. But a few connections that send only wrong keys or unknown paths would use half of the
    processor. So a request after an error on the same connection waits for such a pause too, in a queue of its own, so
    that other requests are not delayed.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._first = _Queue(loop, lambda: 0.0)
        self._others = _Queue(loop, self._pause_after_refusals)
        self._after_errors = _Queue(loop, self._adapted_pause)
        self._overloaded_until = 0.0
        self._refused = False
        self._pause = 0.0
        self._measured_at = 0.0
        self._used_seconds = 0.0
        self.limited = False
        """Whether requests have to wait in these queues."""
        self.first: frozenset[str] = frozenset()
        """Paths of requests that overtake others, such as those of probes."""

    def note_overload(self) -> None:
        """Note that the server has rejected a request because it is overloaded."""
        self._overloaded_until = self._loop.time() + OVERLOADED_FOR
        self._refused = True
        if not self.limited:
            self.limited = True
            self._loop.call_later(OVERLOADED_FOR, self._check_overload)

    def add(self, request: Request, path: str, *, after_error: bool = False) -> None:
        """Queue a request for `path`. `after_error` means that the last answer on its connection was an error."""
        if path in self.first:
            self._first.add(request)
        elif after_error and not self.limited:
            self._after_errors.add(request)
        else:
            self._others.add(request)

    def discard(self, request: Request) -> bool:
        """Remove a request whose client has disconnected. Returns whether it was still in a queue."""
        return any(queue.discard(request) for queue in (self._first, self._others, self._after_errors))

    def _pause_after_refusals(self) -> float:
        if not self._refused:
            return 0.0
        self._refused = False
        return self._adapted_pause()

    def _adapted_pause(self) -> float:
        now = self._loop.time()
        elapsed = now - self._measured_at
        if elapsed < MEASURED_FOR:
            return self._pause
        used_seconds = process_time() + _processor_wait()
        busy_share = (used_seconds - self._used_seconds) / elapsed
        self._measured_at, self._used_seconds = now, used_seconds
        if elapsed > PAUSE_EXPIRES_AFTER:
            self._pause = 0.0
        elif busy_share > BUSY_SHARE:
            self._pause = min(LONGEST_PAUSE, max(SHORTEST_PAUSE, 2 * self._pause))
        else:
            self._pause = self._pause / 2 if self._pause > SHORTEST_PAUSE else 0.0
        return self._pause

    def _check_overload(self) -> None:
        left = self._overloaded_until - self._loop.time()
        if left > 0 or self._others or self._first:
            self._loop.call_later(max(left, 0.01), self._check_overload)
        else:
            self.limited = False


class _Queue:
    """A queue of requests. A few begin in each pass of the loop, in order of arrival, after the seconds that `pause`
    returns."""

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


def _processor_wait() -> float:
    """Return the seconds for which this thread was ready to run but had no processor, because of other programs or the
    process's quota. Returns 0 if the system does not report it."""
    try:
        with open("/proc/thread-self/schedstat") as file:
            return int(file.read().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0
