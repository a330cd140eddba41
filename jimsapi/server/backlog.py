"""Limits for clients that read slowly: a rate for each client, and a bound for the unread bytes of all."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from jimsapi.asgi.unread import unread_bytes

MIN_READ_RATE = 500
"""Bytes a second that a client has to read while its connection's buffer is full. A slow modem reads ten times as
many."""
CHECK_RATE_EVERY = 60.0
"""Seconds between two checks of that rate."""
MAX_UNREAD = 33_554_432
"""Bytes of answers that may wait for all slow clients together. The bound does not include data that an app keeps until
it may send more: a stream is at most 64 KiB ahead of its client."""
CHECK_EVERY = 2.0
"""Seconds between two checks of that bound, while a client has unread bytes."""
CHECK_AGAIN_AFTER = 0.1
"""Seconds between two checks while the bound is exceeded."""
OBSERVED_FOR = 0.5
"""Seconds for which the server measures how fast a client reads, before the bound may disconnect the client."""
FAR_ABOVE, BRIEFLY_OBSERVED_FOR = 4, 0.1
"""If the unread bytes exceed the bound this many times, the server measures only for this many seconds."""


class Reader(Protocol):
    """A connection whose client has not read all that was written."""

    @property
    def unread(self) -> int:
        """Bytes that wait in this process."""

    @property
    def unacknowledged(self) -> int:
        """Bytes that wait in this process and in the kernel. The number decreases as the client reads."""

    def drop(self) -> None:
        """End the connection, and discard these bytes."""


class Backlog:
    """The connections of a server with unread bytes. Above `MAX_UNREAD` bytes the slowest connections are dropped."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: dict[Reader, tuple[float, int]] = {}  # the start of the measurement, and the unread bytes then
        self._unread = 0  # an upper bound: bytes that were read since the last check are still included
        self._checked_at = 0.0
        self._timer: asyncio.Handle | None = None
        self._due = 0.0  # the time of the next check; uvloop's handle of a check that is due at once does not have it

    def add(self, reader: Reader) -> None:
        """Count a connection until `discard`."""
        now = self._loop.time()
        self._waiting[reader] = now, reader.unacknowledged
        self._unread += reader.unread
        if self._timer is None:
            self._checked_at = now
            self._check_later(CHECK_EVERY)
        if self._unread > MAX_UNREAD:
            self._check_later(CHECK_AGAIN_AFTER)

    def discard(self, reader: Reader) -> None:
        """Stop counting a connection."""
        self._waiting.pop(reader, None)

    def _check_later(self, seconds: float) -> None:
        """Schedule a check `seconds` after the last one, or at once if that time has passed."""
        due = max(self._checked_at + seconds, self._loop.time())
        if self._timer is None or due < self._due:
            if self._timer is not None:
                self._timer.cancel()
            self._timer, self._due = self._loop.call_at(due, self._check), due

    def _check(self) -> None:
        self._timer = None
        now = self._checked_at = self._loop.time()
        unread = {reader: reader.unread for reader in self._waiting}
        self._unread = sum(unread.values())
        rates = self._rates(now)
        if self._unread > MAX_UNREAD:
            # Clients that were not measured yet may be slower, so measure them first, unless the bound is far exceeded.
            wait_for_others = len(rates) < len(unread) and self._unread <= FAR_ABOVE * MAX_UNREAD
            for reader in sorted(rates, key=lambda one: (rates[one], -unread[one])):
                if self._unread <= MAX_UNREAD or (wait_for_others and rates[reader] >= MIN_READ_RATE):
                    break
                self._unread -= unread[reader]
                self.discard(reader)
                reader.drop()
        if self._waiting:
            self._check_later(CHECK_AGAIN_AFTER if self._unread > MAX_UNREAD else CHECK_EVERY)

    def _rates(self, now: float) -> dict[Reader, float]:
        """Return the bytes a second of each client that was measured for long enough, and begin to measure it again."""
        min_seconds = BRIEFLY_OBSERVED_FOR if self._unread > FAR_ABOVE * MAX_UNREAD else OBSERVED_FOR
        rates = {}
        for reader, (since, before) in self._waiting.items():
            seconds = now - since
            if seconds >= min_seconds:
                after = reader.unacknowledged
                rates[reader] = (before - after) / seconds
                if seconds >= OBSERVED_FOR:
                    self._waiting[reader] = now, after
        return rates


class SlowReader:
    """Watches a client that reads more slowly than the server sends, from the time its buffer is full until `stop`.

    It calls `drop` if the client reads fewer bytes a second than `MIN_READ_RATE`, or if it is one of the slowest when
    the backlog exceeds its bound. `drop` must end the connection and discard the unread bytes.
    """

    def __init__(self, transport: asyncio.Transport, backlog: Backlog, drop: Callable[[], None]) -> None:
        self._transport = transport
        self._backlog = backlog
        self._drop = drop
        self._last_unacknowledged = self.unacknowledged
        self._timer = asyncio.get_running_loop().call_later(CHECK_RATE_EVERY, self._check)
        backlog.add(self)

    @property
    def unread(self) -> int:
        """Bytes that wait in this process."""
        return self._transport.get_write_buffer_size()

    @property
    def unacknowledged(self) -> int:
        """Bytes that wait in this process and in the kernel."""
        return unread_bytes(self._transport)

    def drop(self) -> None:
        """End the connection."""
        self._drop()

    def stop(self) -> None:
        """Stop watching: the client has caught up, or the connection has ended."""
        self._timer.cancel()
        self._backlog.discard(self)

    def _check(self) -> None:
        before, self._last_unacknowledged = self._last_unacknowledged, self.unacknowledged
        if before - self._last_unacknowledged < MIN_READ_RATE * CHECK_RATE_EVERY:
            self.drop()
        else:
            self._timer = asyncio.get_running_loop().call_later(CHECK_RATE_EVERY, self._check)
