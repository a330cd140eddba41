"""What the clients of a server have not read yet, and the memory that they leave behind."""

import asyncio
import ctypes
import gc
import math
import sys
import threading
from typing import Protocol

MAX_UNREAD = 33_554_432
"""Bytes of answers that may wait for all slow clients together. What an app keeps until it may send more is not
counted: a stream writes only 64 KiB ahead of its client."""
FAR_ABOVE = 4
"""Above this many times `MAX_UNREAD` the server also drops connections whose reading speed it does not know yet."""
CHECK_EVERY = 2.0
"""Seconds between two checks, while anything waits. So a client has this long, at least, to read something."""
TRIM_EVERY = 5.0
"""Seconds between two calls that give free memory back to the system, at least."""
COLLECT_AFTER = 100
"""WebSockets whose memory may wait for the garbage collector: 38 KB each. A collection stops everything else."""
COLLECT_IN = 0.1
"""Seconds from the end of the last of them until the collection: their tasks have to end, too."""


class SlowReader(Protocol):
    """A connection whose client does not read as fast as the server sends."""

    @property
    def unread(self) -> int:
        """Bytes that wait for it."""

    def drop(self) -> None:
        """End the connection, and forget these bytes."""


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
    """Returns memory after connections have ended.

    The C library keeps what Python frees for the next allocation: after 1,000 connections with 60 KB each nearly all of
    it, without end. The call that returns it to the system works in a thread, without the GIL.

    What Python needs for a WebSocket are objects that refer to each other, in the libraries, too. Only a collection of
    all generations frees them, and Python makes one after millions of allocations.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._is_due = False
        self._websockets = 0
        """How many have ended since the last collection."""
        self._collects = False
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None

    def connection_ended(self) -> None:
        """Return memory, in a while."""
        if not self._is_due:
            self._is_due = True
            self._loop.call_later(TRIM_EVERY, self._return)

    def websocket_ended(self, still_open: int) -> None:
        """The same for a WebSocket, of a server that has so many other connections.

        A collection takes as long as the open connections and those that have ended are many. So it comes when half of
        them have ended: then each WebSocket costs the same, however many there are.
        """
        self._websockets += 1
        if self._websockets >= max(COLLECT_AFTER, still_open) and not self._collects:
            self._collects = True
            self._loop.call_later(COLLECT_IN, self._collect)
        self.connection_ended()

    def _collect(self) -> None:
        self._collects = False
        self._websockets = 0
        gc.collect()

    def _return(self) -> None:
        self._is_due = False
        if self._trim is not None:  # it is glibc
            threading.Thread(target=self._trim, args=(0,), name="heap trim", daemon=True).start()
