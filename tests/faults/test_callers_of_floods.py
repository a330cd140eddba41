"""The clients of floods see what a server does: it answers, refuses, ends a connection or stays silent."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.faults.callers import ClosedLoop, Crowd, OpenLoop

pytestmark = pytest.mark.anyio

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
REQUEST = b"GET / HTTP/1.1\r\n\r\n"

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """A server that does one thing to every connection; `connections` counts them."""

    def __init__(self, answer: Answer) -> None:
        self.connections = 0
        self.port = 0
        self._answer = answer

    async def __aenter__(self) -> "Server":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await self._answer(reader, writer)
        except (EOFError, OSError):
            pass
        finally:
            writer.close()


async def answer_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer every request, in two pieces."""
    while await reader.readuntil(b"\r\n\r\n"):
        writer.write(OK[:30])
        await asyncio.sleep(0.001)
        writer.write(OK[30:])


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")


async def stay_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def until_seen(crowd: Crowd, number: int) -> None:
    """Wait until so many answers or faults were seen."""
    async with asyncio.timeout(30):
        while crowd.tally.answers + crowd.tally.faults.total() < number:
            await asyncio.sleep(0.001)


async def test_answers_are_counted_and_connections_kept() -> None:
    async with Server(answer_all) as server:
        async with ClosedLoop(server.port, [REQUEST] * 3) as crowd:
            await until_seen(crowd, 30)
        assert crowd.tally.count(200) == crowd.tally.answers >= 30
        assert server.connections == 3
    assert not crowd.tally.faults
    assert not crowd.open


async def test_a_connection_that_ends_without_an_answer_is_a_fault() -> None:
    async with Server(hang_up) as server, ClosedLoop(server.port, [REQUEST]) as crowd:
        await until_seen(crowd, 2)
    assert crowd.tally.faults["closed without an answer"] >= 2
    assert crowd.tally.answers == 0


async def test_a_client_gives_up_a_request_that_is_not_answered() -> None:
    async with Server(stay_silent) as server, ClosedLoop(server.port, [REQUEST], patience=0.1) as crowd:
        await until_seen(crowd, 1)
    assert crowd.tally.faults["no answer within the patience"] >= 1


async def test_an_open_loop_goes_on_while_nothing_is_answered_and_says_what_it_could_not_send() -> None:
    async with Server(stay_silent) as server:
        async with OpenLoop(server.port, [REQUEST], rate=1000, limit=5, patience=0.1) as crowd:
            async with asyncio.timeout(30):
                while crowd.tally.unsent < 20:
                    await asyncio.sleep(0.001)
            assert len(crowd.open) <= 5
        assert crowd.tally.faults["no answer within the patience"] >= 1
