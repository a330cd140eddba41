"""The state that the connections of a server share, and their common buffer for writing."""

import asyncio
from weakref import WeakKeyDictionary

from jimsapi.server.backlog import Backlog
from jimsapi.server.borrowed import ServerState
from jimsapi.server.memory import Heap
from jimsapi.server.scheduler import RequestScheduler
from jimsapi.server.websocket import WebSocketConnection

HIGH_WATER = 65_536
"""Bytes of a body that are buffered for an app that does not read. After these, the server stops reading."""
MAX_JOINED = 65_536
"""Bytes that are joined for one write, such as a head and its body. Copying more takes longer than a second write."""


class Batch:
    """Collects what connections write in one pass of the event loop, and writes it at the end of the pass.

    A reader on the same machine, such as a proxy, then wakes once for many responses. Waking it for each response would
    take longer than all other work.

    The batch also holds the server's `backlog`, `heap`, `scheduler` and open `websockets`.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.backlog = Backlog(loop)
        self.heap = Heap(loop)
        self.scheduler = RequestScheduler(loop)
        self.websockets: set[WebSocketConnection] = set()
        self._loop = loop
        self._writes: list[tuple[asyncio.Transport, bytes]] = []
        self._in_pieces = False
        self._size = 0

    def add(self, transport: asyncio.Transport, data: bytes) -> None:
        """Write `data` to the transport, after all data that was added before."""
        if not self._writes:
            self._loop.call_soon(self.flush)
        self._writes.append((transport, data))
        self._size += len(data)
        if self._size > HIGH_WATER:
            self.flush()  # else the transport would not pause an app that writes without end

    def add_piece(self, transport: asyncio.Transport, data: bytes) -> None:
        """Write a part of a response. `flush` joins the parts of each connection for one write."""
        self._in_pieces = True
        self.add(transport, data)

    def flush(self) -> None:
        """Pass all data to the transports now."""
        writes, self._writes, self._size = self._writes, [], 0
        if self._in_pieces:
            self._in_pieces = False
            self._write_joined(writes)
            return
        for transport, data in writes:
            if not transport.is_closing():
                transport.write(data)

    def _write_joined(self, writes: list[tuple[asyncio.Transport, bytes]]) -> None:
        by_transport: dict[asyncio.Transport, list[bytes]] = {}
        for transport, data in writes:
            by_transport.setdefault(transport, []).append(data)
        for transport, pieces in by_transport.items():
            if transport.is_closing():
                continue
            if sum(map(len, pieces)) <= MAX_JOINED:
                pieces = [b"".join(pieces)]
            for piece in pieces:  # `writelines` does not pause the writer on Python 3.13.0 (CVE-2024-12254)
                transport.write(piece)


_batches: WeakKeyDictionary[ServerState, Batch] = WeakKeyDictionary()
"""The batch of each server."""


def batch_of(server_state: ServerState, loop: asyncio.AbstractEventLoop) -> Batch:
    """Return the batch of a server. The first call creates it."""
    batch = _batches.get(server_state)
    if batch is None:
        batch = _batches[server_state] = Batch(loop)
    return batch
