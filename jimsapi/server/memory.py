"""Returns freed memory to the system."""

import asyncio
import ctypes
import gc
import sys
import threading
import weakref
from contextlib import suppress
from functools import partial
from time import perf_counter

TRIM_EVERY = 5.0
"""Seconds between two calls of `malloc_trim`."""
TRIM_FOR = 90.0
"""Seconds from the end of a connection until the last of these calls. The run's stream is freed after 60 seconds."""
COLLECT_AFTER = 100
"""Ended WebSockets that may wait for a garbage collection. Each holds 38 KB. A collection stops everything else: for
0.25 seconds with 1,000 WebSockets."""
WORTH_A_COLLECTION = 0.1
"""The number of ended connections, as a share of the open ones, that causes a collection when no connection ends."""
COLLECT_IN = 0.1
"""Seconds from the end of a WebSocket until the collection: its tasks have to end first."""
COLLECT_SHARE = 0.05
"""The share of the time that collections may take. Each takes longer if the app has many objects."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_LARGE = 128 * 1024


def return_freed_memory() -> None:
    """Make glibc return large blocks to the system when they are freed. Does nothing with other C libraries.

    By default, glibc raises its threshold when a large block is freed, up to 32 MiB, and keeps blocks below it. After a
    burst of long answers the process would keep their memory until `Heap` trims it, and the next burst would add to it:
    423 MB instead of 182 MB for 40 unread answers of 3 MB. `Heap` returns the small blocks: 31 MB after 600 request
    heads of 60 KB.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(_M_MMAP_THRESHOLD, _LARGE)
            mallopt(_M_TRIM_THRESHOLD, _LARGE)


class Heap:
    """Returns memory to the system after connections have ended.

    The C library keeps memory that Python frees: after 1,000 connections with 60 KB each, nearly all of it, for an
    unlimited time. `malloc_trim` returns it to the system. It runs in a thread, without the GIL.

    Most WebSockets are freed when they end. The objects of some refer to each other, inside a library or an app, and
    those of a task that an app has cancelled do so too. Only a garbage collection of all generations frees them, and
    Python does one only after millions of allocations.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._trim_scheduled = False
        self._ended_at = 0.0
        """The loop's time when the last connection ended."""
        self._ended: weakref.WeakSet[object] = weakref.WeakSet()
        """The WebSockets that have ended, are still in memory, and were not there at the last collection."""
        self._uncollected = 0
        """WebSockets and cut requests since the last collection at a quiet time. Other collections do not reset it: the
        tasks may not have ended then."""
        self._open_connections = 0
        """The number of open connections when the last one ended."""
        self._collection_scheduled = False
        self._collect_at = 0.0
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None

    def connection_ended(self, still_open: int) -> None:
        """Schedule the return of memory. `still_open` is the number of open connections."""
        self._open_connections = still_open
        self._ended_at = self._loop.time()
        if not self._trim_scheduled:
            self._trim_scheduled = True
            self._loop.call_later(TRIM_EVERY, self._return_memory)

    def websocket_ended(self, websocket: object, still_open: int) -> None:
        """Schedule the return of memory after `websocket` has ended.

        The time of a garbage collection is proportional to the number of open and ended connections. So a collection is
        due when as many wait for it as are open: the cost of each WebSocket is then constant. If fewer wait, the
        collection waits until no more connections end, and until `WORTH_A_COLLECTION` is reached.
        """
        self._ended.add(websocket)
        if len(self._ended) >= max(COLLECT_AFTER, still_open) and not self._collection_scheduled:
            self._collection_scheduled = True
            self._loop.call_at(max(self._loop.time() + COLLECT_IN, self._collect_at), self._look_at_ended)
        self._uncollected += 1
        self.connection_ended(still_open)

    def request_cut(self) -> None:
        """Count a request that ended before its answer. The exceptions that it raised in the app keep its objects."""
        self._uncollected += 1

    def _look_at_ended(self) -> None:
        """Collect what has ended by now, unless it is freed without a collection in the next passes of the loop."""
        ended, self._ended = self._ended, weakref.WeakSet()
        self._loop.call_later(COLLECT_IN, partial(self._collect_many, ended))

    def _collect_many(self, ended: weakref.WeakSet[object]) -> None:
        self._collection_scheduled = False
        if len(ended) >= max(COLLECT_AFTER, self._open_connections):
            self._collect()
        else:
            self._ended.update(ended)

    def _collect(self) -> None:
        began = perf_counter()
        gc.collect()
        _clear_type_cache()
        self._collect_at = self._loop.time() + (perf_counter() - began) / COLLECT_SHARE
        self._start_trim()

    def _return_memory(self) -> None:
        """Return memory now, and repeatedly for `TRIM_FOR` seconds."""
        quiet_for = self._loop.time() - self._ended_at
        self._trim_scheduled = quiet_for < TRIM_FOR
        if self._trim_scheduled:
            self._loop.call_later(TRIM_EVERY, self._return_memory)
        if quiet_for >= TRIM_EVERY and self._uncollected > WORTH_A_COLLECTION * self._open_connections:
            self._uncollected = 0
            self._loop.call_later(COLLECT_IN, self._collect)
        self._start_trim()

    def _start_trim(self) -> None:
        if self._trim is not None:  # only glibc has it
            with suppress(RuntimeError):  # the system cannot start another thread now
                threading.Thread(target=self._trim, args=(0,), name="heap trim", daemon=True).start()


def _clear_type_cache() -> None:
    """Clear the interpreter's type cache, which holds the name of each attribute that C code has looked up.

    Every WebSocket handshake calls `datetime.timetuple()` for its date, which creates such a name. Each one can keep a
    megabyte of Python's heap allocated: 35 MB after 1,000 WebSockets. The interpreter fills the cache again.
    """
    clear = getattr(sys, "_clear_internal_caches", None) or getattr(sys, "_clear_type_cache", None)
    if clear is not None:
        clear()
