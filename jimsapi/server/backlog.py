"""What the clients of a server have not read yet."""

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
"""Bytes of answers that may wait for all slow clients together. What an app keeps until it may send more is not
counted: a stream writes only 64 KiB ahead of its client."""
CHECK_EVERY = 2.0
"""Seconds between two checks of that bound, while anything waits."""
CHECK_AGAIN_AFTER = 0.1
"""Seconds between two checks while the bound is exceeded."""
OBSERVED_FOR = 0.5
"""Seconds for which the server observes how fast a client reads, before it may drop the client for the bound."""
FAR_ABOVE, BRIEFLY_OBSERVED_FOR = 4, 0.1
"""Above so many times the bound the server observes for these seconds only."""


class Reader(Protocol):
    """A connection whose client has not read all that was written."""

    @property
    def unread(self) -> int:
        """Bytes that wait in this process."""

    @property
    def unacknowledged(self) -> int:
        """Bytes that wait in this process and in the kernel. They become fewer as the client reads."""

    def drop(self) -> None:
        """End the connection, and forget these bytes."""


class Backlog:
    """The connections of a server that wait for their clients. Above `MAX_UNREAD` bytes the slowest are dropped."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: dict[Reader, tuple[float, int]] = {}  # since when it is observed, and what it had to read then
        self._unread = 0  # at least what waits now: what was read since the last check is still in it
        self._checked_at = 0.0
        self._timer: asyncio.Handle | None = None
        self._due = 0.0  # when it calls; a timer of uvloop that is due at once does not know it

    def add(self, reader: Reader) -> None:
        """Count a connection until it is discarded."""
        now = self._loop.time()
        self._waiting[reader] = now, reader.unacknowledged
        self._unread += reader.unread
        if self._timer is None:
            self._checked_at = now
            self._check_later(CHECK_EVERY)
        if self._unread > MAX_UNREAD:
            self._check_later(CHECK_AGAIN_AFTER)

    def discard(self, reader: Reader) -> None:
        """Count a connection no longer."""
        self._waiting.pop(reader, None)

    def _check_later(self, seconds: float) -> None:
        """Check so many seconds after the last check, or now if that is later."""
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
            # Others may read even more slowly; unless there is far too much, they are observed first.
            spared = len(rates) < len(unread) and self._unread <= FAR_ABOVE * MAX_UNREAD
            for reader in sorted(rates, key=lambda one: (rates[one], -unread[one])):
                if self._unread <= MAX_UNREAD or (spared and rates[reader] >= MIN_READ_RATE):
                    break
                self._unread -= unread[reader]
                self.discard(reader)
                reader.drop()
        if self._waiting:
            self._check_later(CHECK_AGAIN_AFTER if self._unread > MAX_UNREAD else CHECK_EVERY)

    def _rates(self, now: float) -> dict[Reader, float]:
        """How many bytes a second each client reads which was observed for long enough. It is observed anew."""
        enough = BRIEFLY_OBSERVED_FOR if self._unread > FAR_ABOVE * MAX_UNREAD else OBSERVED_FOR
        rates = {}
        for reader, (since, before) in self._waiting.items():
            seconds = now - since
            if seconds >= enough:
                after = reader.unacknowledged
                rates[reader] = (before - after) / seconds
                if seconds >= OBSERVED_FOR:
                    self._waiting[reader] = now, after
        return rates


class SlowReader:
    """A connection whose client reads slower than the server sends. It begins when the connection's buffer is full, and
    lasts until `stop`.

    `drop` is called if the client reads less than `MIN_READ_RATE`, or if it is among the slowest when the backlog is
    above its bound: it ends the connection, and forgets what was not read.
    """

    def __init__(self, transport: asyncio.Transport, backlog: Backlog, drop: Callable[[], None]) -> None:
        self._transport = transport
        self._backlog = backlog
        self._drop = drop
        self._before = self.unacknowledged
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
        """The client has read what made it slow, or the connection has ended."""
        self._timer.cancel()
        self._backlog.discard(self)

    def _check(self) -> None:
        before, self._before = self._before, self.unacknowledged
        if before - self._before < MIN_READ_RATE * CHECK_RATE_EVERY:
            self.drop()
        else:
            self._timer = asyncio.get_running_loop().call_later(CHECK_RATE_EVERY, self._check)
