"""A receiver of webhooks: a real server on a port of the loopback, with or without TLS, that answers as a test says."""

import asyncio
import base64
import ssl
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import msgspec
import orjson
from standardwebhooks import Webhook

KEY = b"a signing key of thirty-two byte"
SECRET = "whsec_" + base64.b64encode(KEY).decode()
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def answer(status: int, *headers: str) -> bytes:
    """An answer without a body."""
    return "\r\n".join([f"HTTP/1.1 {status} Told", *headers, "content-length: 0", "", ""]).encode()


class Call(msgspec.Struct):
    """A call as it came. `server_name` is what TLS asked for."""

    target: str
    headers: dict[str, str]
    body: bytes
    server_name: str | None

    def verified(self, secret: str = SECRET) -> Any:
        """What it says; the specification's own library has verified who says it."""
        Webhook(secret).verify(self.body, self.headers)
        return orjson.loads(self.body)


class Receiver:
    """Answers calls with `answers`, one after another, and then with the last of them. None is no answer.

    `calls` are those that came. `cut` is set once a caller has hung up on an answer that had no end; such a one is
    asked for by `endless`, which is sent again and again after the answer.
    """

    def __init__(
        self,
        *answers: bytes | None,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        endless: bytes = b"",
    ) -> None:
        self.calls: asyncio.Queue[Call] = asyncio.Queue()
        self.cut = asyncio.Event()
        self.host = host
        self.port = port
        self._answers = list(answers or (OK,))
        self._tls = tls
        self._endless = endless
        self._server_name: str | None = None
        if tls is not None:
            tls.sni_callback = self._note_name

    def _note_name(self, _socket: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
        self._server_name = name

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, self.host, self.port, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        self._open: set[asyncio.StreamWriter] = set()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.close()
        for writer in self._open:
            writer.transport.abort()

    async def call(self) -> Call:
        """The next call."""
        async with asyncio.timeout(30):
            return await self.calls.get()

    def hang_up(self) -> None:
        """Close the connections of calls that have no answer."""
        for writer in self._open:
            writer.transport.abort()

    def url(self, host: str = "127.0.0.1", target: str = "/hook") -> str:
        """Where to call it, by the name of `host`."""
        return f"{'https' if self._tls else 'http'}://{host}:{self.port}{target}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
            body = await reader.readexactly(int(headers["content-length"]))
            self.calls.put_nowait(Call(head[0].split(" ")[1], headers, body, self._server_name))
            said = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
            if said is None:
                await reader.read()
            else:
                writer.write(said)
                await writer.drain()
        try:
            while self._endless:
                writer.write(self._endless)
                await writer.drain()
        except ConnectionError:
            self.cut.set()
        self._open.discard(writer)
        writer.close()
