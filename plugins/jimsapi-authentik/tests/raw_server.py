"""A server that sends exactly the bytes that a test gives it."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import orjson

Connected = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

ALLOWED = b'{"passing":true,"messages":[],"log_messages":[]}'


class RawServer:
    """Answers each connection by `connected(reader, writer)`, on a free port of 127.0.0.1."""

    def __init__(self, connected: Connected) -> None:
        self.connections = 0
        self.port = 0
        self.scheme = "http"
        self._connected = connected
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"{self.scheme}://127.0.0.1:{self.port}"

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer a connection, and close it."""
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._connected(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.close()

    def stop(self) -> None:
        """Close all connections."""
        for task in list(self._tasks):
            task.cancel()


@asynccontextmanager
async def serving(connected: Connected, tls: ssl.SSLContext | None = None) -> AsyncIterator[RawServer]:
    """A `RawServer` that listens."""
    raw = RawServer(connected)
    server = await asyncio.start_server(raw.handle, "127.0.0.1", 0, ssl=tls)
    raw.port = server.sockets[0].getsockname()[1]
    raw.scheme = "https" if tls else "http"
    try:
        yield raw
    finally:
        server.close()
        raw.stop()


def answer(status: str = "200 OK", body: bytes = ALLOWED, *headers: str, length: int | None = None) -> bytes:
    """An answer's bytes; `length` is the one declared, if it is to be another than the body's."""
    declared = len(body) if length is None else length
    lines = [f"HTTP/1.1 {status}", "content-type: application/json", f"content-length: {declared}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def always(said: bytes) -> Connected:
    """Sends the same bytes after each request of a connection, until the client closes it."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(said)
            await writer.drain()

    return connected


def once(said: bytes) -> Connected:
    """Sends the bytes after the first request, and closes the connection."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        await writer.drain()

    return connected


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reads requests and never answers."""
    while await reader.read(65536):
        pass


def allowing(*, passing: object) -> bytes:
    """A 200 whose `passing` is this."""
    return answer(body=orjson.dumps({"passing": passing, "messages": [], "log_messages": []}))
