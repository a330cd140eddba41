"""What the connections of a server have in common: what they write goes out together."""

import asyncio
from weakref import WeakKeyDictionary

from jimsapi.server.backlog import Backlog
from jimsapi.server.borrowed import ServerState
from jimsapi.server.memory import Heap
from jimsapi.server.starts import Starts
from jimsapi.server.websocket import WebSocketConnection

HIGH_WATER = 65_536
"""Bytes of a body that are kept for an app that does not read; then no more is taken from the connection."""
MAX_JOINED = 65_536
"""Bytes that are written together, such as a body with its head; copying more costs more than a second write."""


class Batch:
    """What connections write in one pass of the event loop. It goes out at the end of the pass: whoever reads on the
    same machine, a proxy say, is woken once and not by each answer, which would take longer than all the rest.

    `backlog`, `heap`, `starts` and the open `websockets` are the server's, too.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.backlog = Backlog(loop)
        self.heap = Heap(loop)
        self.starts = Starts(loop)
        self.websockets: set[WebSocketConnection] = set()
        self._loop = loop
        self._writes: list[tuple[asyncio.Transport, bytes]] = []
        self._in_pieces = False
        self._size = 0

    def add(self, transport: asyncio.Transport, data: bytes) -> None:
        """Write `data`, after all that was added before it."""
        if not self._writes:
            self._loop.call_soon(self.flush)
        self._writes.append((transport, data))
        self._size += len(data)
        if self._size > HIGH_WATER:
            self.flush()  # so that an app which writes without end is held up in time

    def add_piece(self, transport: asyncio.Transport, data: bytes) -> None:
        """The same for a part of an answer: all parts of a connection are handed over with one call."""
        self._in_pieces = True
        self.add(transport, data)

    def flush(self) -> None:
        """Hand all over to the transports."""
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
            for piece in pieces:  # not by `writelines`, which on Python 3.13.0 never pauses who writes (CVE-2024-12254)
                transport.write(piece)


_batches: WeakKeyDictionary[ServerState, Batch] = WeakKeyDictionary()
"""One for each server."""


def batch_of(server_state: ServerState, loop: asyncio.AbstractEventLoop) -> Batch:
    """The batch of a server."""
    batch = _batches.get(server_state)
    if batch is None:
        batch = _batches[server_state] = Batch(loop)
    return batch
