"""What the clients of a server have not read yet, and the memory that they leave behind."""

import asyncio
import ctypes
import math
import sys
import threading
from collections.abc import Callable

from jimsapi.asgi.unread import unread_bytes

MIN_READ_RATE = 500
"""Bytes a second that a client has to read while its connection's buffer is full. A slow modem reads ten times as
many."""
CHECK_RATE_EVERY = 60.0
"""Seconds between two checks of that rate."""
MAX_UNREAD = 33_554_432
"""Bytes of answers that may wait for all slow clients together. What an app keeps until it may send more is not
counted: a stream writes only 64 KiB ahead of its client."""
FAR_ABOVE = 4
"""Above this many times `MAX_UNREAD` the server also drops connections whose reading speed it does not know yet."""
CHECK_EVERY = 2.0
"""Seconds between two checks, while anything waits. So a client has this long, at least, to read something."""
TRIM_EVERY = 5.0
"""Seconds between two calls that give free memory back to the system, at least."""


class SlowReader:
    """A connection whose client reads slower than the server sends. It begins when the connection's buffer is full, and
    lasts until `stop`.

    `drop` is called, once, if the client reads less than `MIN_READ_RATE`, or if it is among the slowest when the
    backlog is above its bound: it ends the connection, and forgets what was not read.
    """

    def __init__(self, transport: asyncio.Transport, backlog: "Backlog", drop: Callable[[], None]) -> None:
        self.drop = drop
        self._transport = transport
        self._backlog = backlog
        self._left = unread_bytes(transport)
        self._timer = asyncio.get_running_loop().call_later(CHECK_RATE_EVERY, self._check)
        backlog.add(self)

    @property
    def unread(self) -> int:
        """Bytes that wait in this process."""
        return self._transport.get_write_buffer_size()

    def stop(self) -> None:
        """The client has read what made it slow, or the connection has ended."""
        self._timer.cancel()
        self._backlog.discard(self)

    def _check(self) -> None:
        before, self._left = self._left, unread_bytes(self._transport)
        if before - self._left < MIN_READ_RATE * CHECK_RATE_EVERY:
            self.drop()
        else:
            self._timer = asyncio.get_running_loop().call_later(CHECK_RATE_EVERY, self._check)


class Backlog:
    """The connections of a server that wait for their clients. Above `MAX_UNREAD` bytes the slowest are dropped."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: dict[SlowReader, int | None] = {}  # with what was unread at the last check
        self._timer: asyncio.TimerHandle | None = None

    def add(self, connection: SlowReader) -> None:
        """Count a connection until it is discarded."""
        self._waiting[connection] = None
        if self._timer is None:
            self._timer = self._loop.call_later(CHECK_EVERY, self._check)

    def discard(self, connection: SlowReader) -> None:
        """Count a connection no longer."""
        self._waiting.pop(connection, None)

    def _check(self) -> None:
        self._timer = None
        unread = {connection: connection.unread for connection in self._waiting}
        total = sum(unread.values())
        if total > MAX_UNREAD:
            # What those have read that came since the last check is not known. They go last, if there is far too much.
            read = {
                one: math.inf if before is None else before - unread[one]
                for one, before in self._waiting.items()
                if before is not None or total > FAR_ABOVE * MAX_UNREAD
            }
            for connection in sorted(read, key=read.__getitem__):
                total -= unread[connection]
                connection.drop()
                if total <= MAX_UNREAD:
                    break
        self._waiting = {one: unread[one] for one in self._waiting}
        if self._waiting:
            self._timer = self._loop.call_later(CHECK_EVERY, self._check)


class Heap:
    """Gives memory back to the system after connections have ended.

    The C library keeps what Python frees for the next allocation: after 1,000 connections with 60 KB each nearly all of
    it, without end. The call works in a thread, without the GIL.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._is_due = False
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None

    def connection_ended(self) -> None:
        """Give memory back, in a while, if that is possible here (glibc)."""
        if self._trim is not None and not self._is_due:
            self._is_due = True
            self._loop.call_later(TRIM_EVERY, self._give_back)

    def _give_back(self) -> None:
        self._is_due = False
        threading.Thread(target=self._trim, args=(0,), name="heap trim", daemon=True).start()
