"""TLS: what the URL demands of the server's certificate is demanded."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Self

import pytest
import trustme
from database import Postgres
from jimsapi_postgres.store import PostgresStore

from jimsapi.testing.store import make_plan
from jimsapi.threads.errors import StoreUnusable

pytestmark = pytest.mark.anyio

SSL_REQUEST = bytes.fromhex("0000000804d2162f")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


class TLS:
    """Speaks TLS as PostgreSQL does, for a server that was built without it, and counts who came by it."""

    def __init__(self, context: ssl.SSLContext, target: int) -> None:
        self._context = context
        self._target = target
        self.encrypted = self.plain = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "localhost", 0, family=socket.AF_INET)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            if await reader.readexactly(8) != SSL_REQUEST:
                self.plain += 1
                writer.close()
                return
            writer.write(b"S")
            await writer.start_tls(self._context)
            self.encrypted += 1
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._target)
            await asyncio.gather(_copy(reader, server_writer), _copy(server_reader, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
    writer.close()


@pytest.fixture
async def secured(authority: trustme.CA, postgres: Postgres) -> AsyncIterator[TLS]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    async with TLS(context, postgres.port) as server:
        yield server


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


def _url(server: TLS, database: str, host: str, parameters: str) -> str:
    return f"postgresql://postgres@{host}:{server.port}/{database}?{parameters}"


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
async def test_a_trusted_server_is_served_from_over_tls(secured: TLS, database: str, ca_file: Path, mode: str) -> None:
    async with PostgresStore(_url(secured, database, "localhost", f"sslmode={mode}&sslrootcert={ca_file}")) as store:
        await store.ping()
        assert (await store.accept(make_plan())).created_new_thread
    assert secured.encrypted
    assert not secured.plain


@pytest.mark.parametrize(
    ("host", "mode", "trusted"),
    [("127.0.0.1", "verify-full", True), ("localhost", "verify-full", False), ("localhost", "verify-ca", False)],
)
async def test_a_server_that_is_not_the_demanded_one_is_refused(
    secured: TLS, database: str, ca_file: Path, host: str, mode: str, trusted: bool
) -> None:
    if not trusted:
        trustme.CA().cert_pem.write_to_path(str(ca_file))
    with pytest.raises(StoreUnusable, match="ertificate"):
        await PostgresStore(_url(secured, database, host, f"sslmode={mode}&sslrootcert={ca_file}")).__aenter__()


async def test_a_server_without_tls_is_refused_where_tls_is_demanded(postgres: Postgres) -> None:
    with pytest.raises(StoreUnusable):
        await PostgresStore(postgres.url() + "?sslmode=require").__aenter__()
