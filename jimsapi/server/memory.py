"""Memory that the process has freed, given back to the system."""

import asyncio
import ctypes
import gc
import sys
import threading
from contextlib import suppress
from time import perf_counter

TRIM_EVERY = 5.0
"""Seconds between two calls that give free memory back to the system."""
TRIM_FOR = 90.0
"""Seconds from the end of a connection until the last of these calls: what is kept of a stream is freed after 60."""
COLLECT_AFTER = 100
"""WebSockets whose memory may wait for the garbage collector: 38 KB each. A collection stops everything else."""
WORTH_A_COLLECTION = 0.1
"""The share of the open connections that have to have ended for a collection in a quiet moment."""
COLLECT_IN = 0.1
"""Seconds from the end of the last of them until the collection: their tasks have to end, too."""
COLLECT_SHARE = 0.05
"""The share of the time that collections may take: the app's own objects make each longer."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_LARGE = 128 * 1024


def return_freed_memory() -> None:
    """Have glibc return large blocks to the system when they are freed.

    By default it raises the size of what it returns with the first large block that is freed, up to 32 MiB. After one
    burst of long answers the process would then keep their memory until `Heap` trims it, and the next burst would add
    to it: 423 MB instead of 182 for 40 unread answers of 3 MB. What `Heap` returns are small blocks: 31 MB after 600
    heads of 60 KB. Elsewhere nothing is done.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(_M_MMAP_THRESHOLD, _LARGE)
            mallopt(_M_TRIM_THRESHOLD, _LARGE)


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
        self._ended_at = 0.0
        """When the last connection did."""
        self._websockets = 0
        """How many have ended since the last collection."""
        self._left = 0
        """WebSockets and cut requests since the last collection in a quiet moment: the tasks of many take a while to
        end, and another collection may come before."""
        self._still_open = 0
        """How many others there were when the last one ended."""
        self._collects = False
        self._collect_at = 0.0
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None

    def connection_ended(self, still_open: int) -> None:
        """Return memory, in a while. `still_open` is how many other connections the server has."""
        self._still_open = still_open
        self._ended_at = self._loop.time()
        if not self._is_due:
            self._is_due = True
            self._loop.call_later(TRIM_EVERY, self._return)

    def websocket_ended(self, still_open: int) -> None:
        """The same for a WebSocket.

        A collection takes as long as the open connections and those that have ended are many. So it comes when half of
        them have ended: then each WebSocket costs the same, however many there are. What is left waits for a moment
        in which no connection ends, and until it is worth a collection beside those that are open.
        """
        self._websockets += 1
        if self._websockets >= max(COLLECT_AFTER, still_open):
            self._collect_soon()
        self._left += 1
        self.connection_ended(still_open)

    def request_cut(self) -> None:
        """A request has ended before its answer. The exceptions that told it to the app refer to what they met."""
        self._left += 1

    def _collect_soon(self) -> None:
        if not self._collects:
            self._collects = True
            self._loop.call_at(max(self._loop.time() + COLLECT_IN, self._collect_at), self._collect)

    def _collect(self) -> None:
        self._collects = False
        self._websockets = 0
        began = perf_counter()
        gc.collect()
        _clear_type_cache()
        self._collect_at = self._loop.time() + (perf_counter() - began) / COLLECT_SHARE
        self._start_trim()

    def _return(self) -> None:
        """Return memory now, and again for `TRIM_FOR` seconds."""
        quiet_for = self._loop.time() - self._ended_at
        self._is_due = quiet_for < TRIM_FOR
        if self._is_due:
            self._loop.call_later(TRIM_EVERY, self._return)
        if quiet_for >= TRIM_EVERY and self._left > WORTH_A_COLLECTION * self._still_open:
            self._left = 0
            self._collect_soon()
        self._start_trim()

    def _start_trim(self) -> None:
        if self._trim is not None:  # it is glibc
            with suppress(RuntimeError):  # the system starts no further thread now
                threading.Thread(target=self._trim, args=(0,), name="heap trim", daemon=True).start()


def _clear_type_cache() -> None:
    """Empty the interpreter's cache of attributes, which keeps the string of each name that C code looked up.

    `datetime.timetuple()`, which every handshake calls for its date, makes such a string. These pin a megabyte of
    Python's heap each: after 1,000 WebSockets 35 MB. Calls fill the cache again.
    """
    clear = getattr(sys, "_clear_internal_caches", None) or getattr(sys, "_clear_type_cache", None)
    if clear is not None:
        clear()
