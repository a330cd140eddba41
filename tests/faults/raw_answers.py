"""The least that a server can do: the same answer to whatever comes. Its rate shows what a load generator can ask.

`python -m tests.faults.raw_answers` prints its port, and serves until its standard input ends.
"""

import asyncio
import sys

import uvloop

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 300\r\ncontent-type: application/json\r\n\r\n" + b"x" * 300


class RawAnswers(asyncio.Protocol):
    """A connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment] # that of a socket

    def data_received(self, data: bytes) -> None:
        self.transport.write(ANSWER)


async def _main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(RawAnswers, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    stop = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), stop.set)
    await stop.wait()


if __name__ == "__main__":
    uvloop.run(_main())
