"""A TCP proxy that cuts every connection after a random number of bytes."""

import asyncio
import random
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self


class Cutter:
    """A proxy on a free port of 127.0.0.1 for the server at `target`, in a thread of its own.

    Each connection passes at most `longest` bytes in both directions together, by a random number that begins with
    `seed`, and then is closed or reset. `cuts` counts those.
    """

    def __init__(self, target: int, longest: int, seed: int) -> None:
        self.port = 0
        self.cuts = 0
        self._target = target
        self._longest = longest
        self._random = random.Random(seed)
        self._listening = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._listening.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(10)
        self._loop.close()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    async def _serve(self) -> None:
        self._stopped = asyncio.Event()
        self._open: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._accept, "127.0.0.1")
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        await self._stopped.wait()
        server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
            left = [self._random.randint(1, self._longest)]
            async with asyncio.TaskGroup() as group:
                ways = [
                    group.create_task(self._pass(reader, far_writer, left)),
                    group.create_task(self._pass(far_reader, writer, left)),
                ]
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                for way in ways:
                    way.cancel()
            if left[0] == 0:
                self.cuts += 1
                if self._random.random() < 0.5:
                    await writer.drain()
                else:
                    writer.transport.abort()
        finally:
            self._open.discard(task)
            for end in (writer, far_writer):
                end.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, left: list[int]) -> None:
        with suppress(ConnectionError):
            while left[0] and (data := await reader.read(min(left[0], 4096))):
                data = data[: left[0]]  # the other way may have taken some meanwhile
                left[0] -= len(data)
                writer.write(data)
                await writer.drain()
