"""SIGTERM under load, many times: every stop is clean for the process and for every client.

python -m tests.faults.stop --times 100
"""

import argparse
import asyncio
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Coroutine
from itertools import count
from pathlib import Path
from random import Random, randrange
from typing import Any

from tests.faults.places import SQLitePlace
from tests.faults.report import Figures, show
from tests.faults.verify import said
from tests.faults.wire import post

CHAT, STREAM = "/api/v1/chat", "/api/v1/chat/stream"
DRAIN_TIME = 3.0
EXITS_WITHIN = DRAIN_TIME + 2.0
LOAD_BEFORE_STOP = (0.1, 0.4)
"""Seconds of load before the signal."""
PATIENCE = 20.0

PROMISED_NONE = (
    "exit statuses other than 0",
    "acknowledged and lost",
    "resets before a request",
    "resets with a request sent",
    "answers cut",
    "streams without an end",
    "unexpected answers",
)


class Clients:
    """Clients of every kind, each until the server refuses or closes their connections."""

    def __init__(self, port: int, random: Random, numbers: "count[int]") -> None:
        self.figures: Counter[str] = Counter()
        self.acknowledged: set[str] = set()
        self._port = port
        self._random = random
        self._numbers = numbers
        kinds: list[Callable[[], Coroutine[Any, Any, None]]] = [
            *[self._keep_alive] * 8,
            *[self._fresh] * 4,
            *[self._late] * 4,
            self._silent,
            *[lambda: self._stream("wait 0.2")] * 3,
            *[lambda: self._stream("wait 3600")] * 3,
        ]
        self._tasks = [asyncio.create_task(kind()) for kind in kinds]
        self._waiting: set[asyncio.Task[None]] = set()

    async def end(self) -> None:
        """Wait until the server has ended every connection."""
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*self._tasks)
            await asyncio.gather(*self._waiting)

    async def _keep_alive(self) -> None:
        """Send one message after another over one connection."""
        connection = await self._connect()
        while connection is not None and await self._ask(connection, kept=True):
            pass

    async def _fresh(self) -> None:
        """Send each message over a connection of its own."""
        while (connection := await self._connect()) is not None:
            await self._ask(connection, kept=False)
            connection[1].close()

    async def _late(self) -> None:
        """Open connections, and send a message over each some time later."""
        while (connection := await self._connect()) is not None:
            await asyncio.sleep(self._random.uniform(0, 0.3))
            await self._ask(connection, kept=False)
            connection[1].close()

    async def _silent(self) -> None:
        """Open connections, and send nothing over them."""
        while (connection := await self._connect()) is not None:
            task = asyncio.create_task(self._see_closed(connection))
            self._waiting.add(task)
            await asyncio.sleep(0.01)

    async def _see_closed(self, connection: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
        try:
            read = await connection[0].read()
            self.figures["unexpected answers"] += bool(read) and not read.startswith(b"HTTP/1.1 408")
            self.figures["closes before a request"] += not read
        except OSError:
            self.figures["resets before a request"] += 1
        connection[1].close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        try:
            return await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:  # the port is closed
            return None

    async def _ask(self, connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], *, kept: bool) -> bool:
        """Send a message, and note what becomes of it. Returns whether the connection stays open."""
        reader, writer = connection
        message = f"{next(self._numbers)} wait 0.02"
        read = b""
        try:
            if reader.at_eof():
                self.figures["closes before a request"] += 1
                return False
            writer.write(post(CHAT, {"contact_id": message, "message": message}))
            await writer.drain()
            read = await reader.readuntil(b"\r\n\r\n")
            length = int(read.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            body = await reader.readexactly(length)
        except asyncio.IncompleteReadError as error:
            of = "kept" if kept else "new"
            cut = bool(read or error.partial)
            self.figures["answers cut" if cut else f"closes of {of} connections with a request sent"] += 1
            return False
        except OSError:
            self.figures["answers cut" if read else "resets with a request sent"] += 1
            return False
        status = int(read.split(b" ", 2)[1])
        if status == 200 and f'["{message}"]'.encode() in body:
            self.acknowledged.add(message)
        elif status == 503:
            self.figures["refusals"] += 1
        else:
            self.figures["unexpected answers"] += 1
        return b"\r\nconnection: close\r\n" not in read.lower()

    async def _stream(self, command: str) -> None:
        """Read streams to their ends; after the signal there is no further one."""
        while (connection := await self._connect()) is not None:
            message = f"{next(self._numbers)} {command}"
            connection[1].write(post(STREAM, {"contact_id": message, "message": message}, "connection: close"))
            try:
                read = await connection[0].read()
            except OSError:
                read = b""
            connection[1].close()
            if read.startswith(b"HTTP/1.1 200"):
                ended = (b"event: result" in read or b"event: error" in read) and read.endswith(b"0\r\n\r\n")
                self.figures["streams"] += 1
                self.figures["streams without an end"] += not ended
            elif read:
                self.figures["refusals"] += 1
            else:
                self.figures["streams that were refused by a close"] += 1


async def stop_servers(times: int, random: Random) -> Figures:
    """Start, load and stop a server many times on one SQLite file."""
    figures: Counter[str] = Counter(dict.fromkeys(("stops", "acknowledged", *PROMISED_NONE), 0))
    acknowledged: set[str] = set()
    numbers = count()
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        place = SQLitePlace(Path(folder).resolve())
        for _ in range(times):
            served = place.served("--drain-time", f"{DRAIN_TIME:g}")
            with served:
                assert served.process is not None
                clients = Clients(served.port, Random(random.getrandbits(64)), numbers)
                await asyncio.sleep(random.uniform(*LOAD_BEFORE_STOP))
                served.process.send_signal(signal.SIGTERM)
                status = await asyncio.to_thread(served.process.wait, EXITS_WITHIN)
                await clients.end()
            figures.update(clients.figures)
            figures["stops"] += 1
            figures["exit statuses other than 0"] += status != 0
            acknowledged |= clients.acknowledged
        answered = said(place, "assistant")
    figures["acknowledged"] = len(acknowledged)
    figures["acknowledged and lost"] = len(acknowledged - answered.keys())
    return dict(figures)


def main() -> int:
    parser = argparse.ArgumentParser(description="Stop servers under load, and count what their clients see.")
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--seed", type=int, default=randrange(2**32))
    given = parser.parse_args()
    figures = asyncio.run(stop_servers(given.times, Random(given.seed)))
    return 0 if show(f"SIGTERM under load, seed {given.seed}", figures, PROMISED_NONE) else 1


if __name__ == "__main__":
    sys.exit(main())
