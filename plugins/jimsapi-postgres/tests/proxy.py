"""A TCP proxy before PostgreSQL, which loses what a test wants lost."""

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Self


class Proxy:
    """Passes connections on to a port. Async context manager; `port` is where it listens.

    `lose_answer_to` names a text: when a client sends it, the server gets it, but its answer is lost with the
    connection, once. `silent` keeps all that the server says back.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self.port = 0
        self.lose_answer_to: bytes | None = None
        self.silent = False
        self.lost = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut_all(self) -> None:
        """Close every connection, as a network does; a server that works on something does not notice."""
        for task in self._tasks:
            task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with suppress(OSError, asyncio.CancelledError):
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._target)
            try:
                await _Pair(self, reader, writer, server_reader, server_writer).run()
            finally:
                writer.close()
                server_writer.close()


class _Pair:
    def __init__(
        self,
        proxy: Proxy,
        client: asyncio.StreamReader,
        to_client: asyncio.StreamWriter,
        server: asyncio.StreamReader,
        to_server: asyncio.StreamWriter,
    ) -> None:
        self._proxy = proxy
        self._client = client
        self._to_client = to_client
        self._server = server
        self._to_server = to_server
        self._losing = False
        # A statement that a client has prepared is named, not sent again.
        self._names: dict[bytes, bytes] = {}

    async def run(self) -> None:
        done, pending = await asyncio.wait(
            [asyncio.ensure_future(self._forward()), asyncio.ensure_future(self._back())],
            return_when=asyncio.FIRST_COMPLETED,
        )
        for task in (*done, *pending):
            task.cancel()
        await asyncio.gather(*done, *pending, return_exceptions=True)

    async def _forward(self) -> None:
        while data := await self._client.read(1 << 20):
            wanted = self._proxy.lose_answer_to
            self._learn(data)
            if wanted and data[:1] == b"B" and any(name in data for name, sql in self._names.items() if wanted in sql):
                self._proxy.lose_answer_to = None
                self._losing = True
            self._to_server.write(data)

    def _learn(self, data: bytes) -> None:
        if data[:1] == b"P":  # Parse: name, query
            name, _, rest = data[5:].partition(b"\0")
            self._names[name] = rest.partition(b"\0")[0]

    async def _back(self) -> None:
        while data := await self._server.read(1 << 20):
            if self._losing and data.endswith(b"Z\0\0\0\5I"):  # ReadyForQuery, idle: it is committed
                self._proxy.lost.set()
                return
            if not (self._losing or self._proxy.silent):
                self._to_client.write(data)
