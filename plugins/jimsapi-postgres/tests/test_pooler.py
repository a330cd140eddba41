"""A pooler that shares sessions between connections, as PgBouncer does with `pool_mode = transaction`."""

import asyncio
import struct
from collections.abc import AsyncIterator

import pytest
from database import Postgres
from jimsapi_postgres.schema import prepare
from jimsapi_postgres.url import parse_url

from jimsapi.threads.errors import StoreUnusable

pytestmark = pytest.mark.anyio

SSL_REQUEST = 80877103
READY = b"Z\0\0\0\5I"


class SharedSession:
    """One session of PostgreSQL behind every connection that is made to `port`; one of them speaks at a time."""

    def __init__(self, target: int, database: str) -> None:
        self._target = target
        self._database = database
        self._speaker: asyncio.StreamWriter | None = None

    async def __aenter__(self) -> "SharedSession":
        self._from_session, self._to_session = await asyncio.open_connection("127.0.0.1", self._target)
        startup = f"\0\3\0\0user\0postgres\0database\0{self._database}\0\0".encode()
        self._to_session.write(struct.pack("!i", len(startup) + 4) + startup)
        self._greeting = b""
        while not self._greeting.endswith(READY):
            self._greeting += await self._from_session.read(65536)
        self._answers = asyncio.ensure_future(self._answer())
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self._answers.cancel()
        self._to_session.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            length, code = struct.unpack("!ii", await reader.readexactly(8))
            await reader.readexactly(length - 8)
            if code != SSL_REQUEST:
                break
            writer.write(b"N")
        # The key for cancelling is the pooler's own, as PgBouncer's is.
        place = self._greeting.index(b"K\0\0\0")
        writer.write(self._greeting[: place + 5] + struct.pack("!i", 7) + self._greeting[place + 9 :])
        while (data := await reader.read(65536)) and data[:1] != b"X":
            self._speaker = writer
            self._to_session.write(data)
        writer.close()

    async def _answer(self) -> None:
        while data := await self._from_session.read(65536):
            if self._speaker is not None:
                self._speaker.write(data)


@pytest.fixture
async def pooler(postgres: Postgres, database: str) -> AsyncIterator[SharedSession]:
    async with SharedSession(postgres.port, database) as pooler:
        yield pooler


async def test_a_pooler_that_shares_sessions_is_refused_before_anything_is_made(
    pooler: SharedSession, postgres: Postgres, database: str
) -> None:
    with pytest.raises(StoreUnusable, match="pool_mode = session"):
        await prepare(parse_url(f"postgresql://postgres@127.0.0.1:{pooler.port}/{database}?sslmode=disable"), wait=0)
    assert postgres.psql("SELECT count(*) FROM pg_class WHERE relname LIKE '%thread%'", database) == "0"
