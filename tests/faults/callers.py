"""Clients of a flood: cheap ones, since they share the machine with the server that they load.

They speak HTTP/1.1 in protocols of asyncio, send bytes that were made before, and read of an answer only its status,
its length and whether the server closes the connection.
"""

import asyncio
import gc
import time
from array import array
from collections import Counter, defaultdict
from collections.abc import Coroutine, Sequence
from types import TracebackType
from typing import Any, Self

from tests.faults.figures import percentile

PATIENCE = 10.0
"""Seconds after which a client gives up its request and hangs up."""
AFTER_FAULT = 0.05
"""Seconds that a client waits after a connection that failed: without this pause, a server that has died is asked
without end."""
LOOK_EVERY = 0.5
TICK = 0.005
"""Seconds between two looks at which arrivals of an open loop are due."""


class Tally:
    """What clients saw."""

    def __init__(self) -> None:
        self.seconds: defaultdict[int, array[float]] = defaultdict(lambda: array("d"))
        """How long each answer took, by its status. For the first request of a connection that includes connecting."""
        self.faults: Counter[str] = Counter()
        """Requests without an answer, by what happened."""
        self.unsent = 0
        """Arrivals of an open loop for which no connection was left."""

    def add(self, other: "Tally") -> None:
        """Count what other clients saw, too."""
        for status, seconds in other.seconds.items():
            self.seconds[status].extend(seconds)
        self.faults.update(other.faults)
        self.unsent += other.unsent

    def count(self, status: int) -> int:
        """How many answers had a status."""
        return len(self.seconds[status]) if status in self.seconds else 0

    @property
    def answers(self) -> int:
        """How many answers there were."""
        return sum(map(len, self.seconds.values()))

    def percentile(self, status: int, share: float) -> float:
        """A percentile of the seconds that the answers with a status took."""
        return percentile(self.seconds[status], share) if status in self.seconds else 0.0


class Connection(asyncio.Protocol):
    """One connection of a crowd."""

    __slots__ = ("_partial", "asked_at", "connected", "crowd", "request", "transport")

    def __init__(self, crowd: "Crowd", request: bytes) -> None:
        self.crowd = crowd
        self.request = request
        self.asked_at = 0.0  # while no answer is awaited
        self.transport: asyncio.Transport
        self.connected = False
        self._partial = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment] # that of a socket
        self.connected = True
        self.transport.write(self.request)

    def ask(self) -> None:
        """Send the request once more."""
        self.asked_at = time.perf_counter()
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        if self._partial:
            data = self._partial + data
        end = data.find(b"\r\n\r\n")
        at = data.find(b"content-length: ", 0, end)
        if end < 0 or len(data) < end + 4 + int(data[at + 16 : data.index(b"\r", at)]):
            self._partial = data
            return
        self._partial = b""
        if not self.asked_at:
            return  # the server closes an idle connection and says why
        seconds = time.perf_counter() - self.asked_at
        self.asked_at = 0.0
        self.crowd.tally.seconds[int(data[9:12])].append(seconds)
        self.crowd.answered(self, data.find(b"connection: close", 0, end) < 0)

    def connection_lost(self, error: Exception | None) -> None:
        self.crowd.open.discard(self)
        if self.asked_at:
            self.asked_at = 0.0
            self.crowd.tally.faults["reset" if error is not None else "closed without an answer"] += 1
            self.crowd.lost(self)


class Crowd:
    """Clients of a server, from entering to leaving; leaving waits for what they still await."""

    def __init__(self, port: int, patience: float = PATIENCE) -> None:
        self.tally = Tally()
        """What was seen; may be replaced at any time."""
        self.open: set[Connection] = set()
        """Connections that are open, or that are being opened."""
        self.left_unanswered = 0
        """How many requests had no answer when all was over."""
        self._port = port
        self._patience = patience
        self._stopping = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._collected_at = gc.get_threshold()

    async def __aenter__(self) -> Self:
        gc.set_threshold(100_000, 50, 1000)  # collecting stops the load for milliseconds
        self._begin(self._watch_patience())
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopping = True
        gc.set_threshold(*self._collected_at)
        end = time.perf_counter() + self._patience + 2 * LOOK_EVERY
        while time.perf_counter() < end and any(connection.asked_at for connection in self.open):
            await asyncio.sleep(0.02)
        self.left_unanswered = sum(1 for connection in self.open if connection.asked_at)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.open = {connection for connection in self.open if connection.connected}
        for connection in tuple(self.open):
            connection.asked_at = 0.0
            connection.transport.close()
        while self.open:
            await asyncio.sleep(0.01)

    def start(self) -> None:
        """Send the first requests."""
        raise NotImplementedError

    def answered(self, connection: Connection, kept: bool) -> None:
        """React to an answer. `kept`: the server keeps the connection."""
        raise NotImplementedError

    def lost(self, connection: Connection) -> None:
        """React to a connection that ended before its answer."""
        raise NotImplementedError

    def connect(self, request: bytes, *, after: float = 0.0) -> None:
        """Send a request over a new connection."""
        if not self._stopping:
            connection = Connection(self, request)
            self.open.add(connection)
            self._begin(self._connect(connection, after))

    async def _connect(self, connection: Connection, after: float) -> None:
        if after:
            await asyncio.sleep(after)
        connection.asked_at = time.perf_counter()
        try:
            async with asyncio.timeout(self._patience):
                await asyncio.get_running_loop().create_connection(lambda: connection, "127.0.0.1", self._port)
        except (OSError, TimeoutError) as error:
            self.open.discard(connection)
            self.tally.faults[f"not connected: {type(error).__name__}"] += 1
            self.lost(connection)

    def _begin(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _watch_patience(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY)
            since = time.perf_counter() - self._patience
            for connection in [each for each in self.open if 0 < each.asked_at < since and each.connected]:
                connection.asked_at = 0.0
                self.tally.faults["no answer within the patience"] += 1
                connection.transport.abort()
                self.lost(connection)


class ClosedLoop(Crowd):
    """Clients that each ask again as soon as they are answered, over the same connection if the server keeps it."""

    def __init__(self, port: int, requests: Sequence[bytes], patience: float = PATIENCE) -> None:
        super().__init__(port, patience)
        self._requests = requests

    def start(self) -> None:
        for request in self._requests:
            self.connect(request)

    def answered(self, connection: Connection, kept: bool) -> None:
        if not kept:
            connection.transport.close()
            self.connect(connection.request)
        elif not self._stopping:
            connection.ask()

    def lost(self, connection: Connection) -> None:
        self.connect(connection.request, after=AFTER_FAULT)


class OpenLoop(Crowd):
    """Clients that arrive at a fixed rate, whatever becomes of those before them.

    A client takes a connection that is idle, or opens one while fewer than `limit` are open.
    """

    def __init__(
        self, port: int, requests: Sequence[bytes], *, rate: float, limit: int, patience: float = PATIENCE
    ) -> None:
        super().__init__(port, patience)
        self._requests = requests
        self._rate = rate
        self._limit = limit
        self._idle: list[Connection] = []

    def start(self) -> None:
        self._begin(self._arrive())

    async def _arrive(self) -> None:
        began, arrived = time.perf_counter(), 0
        while not self._stopping:
            due = int((time.perf_counter() - began) * self._rate)
            for number in range(arrived, due):
                self._send(self._requests[number % len(self._requests)])
            arrived = due
            await asyncio.sleep(TICK)

    def _send(self, request: bytes) -> None:
        while self._idle:
            connection = self._idle.pop()
            if not connection.transport.is_closing():
                connection.request = request
                connection.ask()
                return
        if len(self.open) < self._limit:
            self.connect(request)
        else:
            self.tally.unsent += 1

    def answered(self, connection: Connection, kept: bool) -> None:
        if kept:
            self._idle.append(connection)
        else:
            connection.transport.close()

    def lost(self, connection: Connection) -> None:
        pass  # the next arrival takes another one
