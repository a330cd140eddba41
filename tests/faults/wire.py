"""HTTP spoken by hand over one connection, so that a cut answer and one that never began can be told apart."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any

PATIENCE = 40.0
"""Seconds after which a server that says nothing fails the test."""


class NoAnswer(Exception):
    """The connection was refused, or ended before the first byte of an answer."""


class CutAnswer(Exception):
    """The connection ended within an answer."""


@dataclass(frozen=True)
class Answer:
    """A whole answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def closes(self) -> bool:
        """Whether it says that the connection ends with it."""
        return self.headers.get("connection") == "close"

    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


class Wire:
    """One keep-alive connection."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def chat(self, contact: str, message: str) -> Answer:
        """Send a message and wait for the answer. Raises `NoAnswer`, `CutAnswer`."""
        await self.send_chat(contact, message)
        return await self.answer()

    async def send_chat(self, contact: str, message: str, *, keep_back: int = 0) -> None:
        """Send a message, but for the last `keep_back` bytes of its body."""
        data = post("/api/v1/chat", {"contact_id": contact, "message": message})
        await self.send(data[: len(data) - keep_back])

    async def post(self, path: str, body: Any, *headers: str) -> Answer:
        """Send JSON with further header lines, and wait for the answer. Raises `NoAnswer`, `CutAnswer`."""
        await self.send(post(path, body, *headers))
        return await self.answer()

    async def get(self, path: str) -> Answer:
        """Ask for a path. Raises `NoAnswer`, `CutAnswer`."""
        await self.send(f"GET {path} HTTP/1.1\r\nhost: test\r\n\r\n".encode())
        return await self.answer()

    async def send(self, data: bytes) -> None:
        """Send bytes, over a new connection if there is none."""
        try:
            if self._writer is None:
                self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
            self._writer.write(data)
            await self._writer.drain()
        except OSError as error:
            raise NoAnswer from error

    async def answer(self) -> Answer:
        """Read one answer to its end. Raises `NoAnswer`, `CutAnswer`."""
        assert self._reader is not None
        async with asyncio.timeout(PATIENCE):
            try:
                head = await self._reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError as error:
                raise (CutAnswer if error.partial else NoAnswer) from error
            except OSError as error:
                raise NoAnswer from error
            status_line, *lines = head.decode().rstrip().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            try:
                body = await self._reader.readexactly(int(headers.get("content-length", 0)))
            except (asyncio.IncompleteReadError, OSError) as error:
                raise CutAnswer from error
        if headers.get("connection") == "close":
            self.close()
        return Answer(int(status_line.split(" ")[1]), headers, body)

    async def read_to_end(self) -> tuple[int, bytes]:
        """Read until the server closes; returns the status and all bytes. Raises `NoAnswer`, `CutAnswer`."""
        assert self._reader is not None
        async with asyncio.timeout(PATIENCE):
            try:
                read = await self._reader.read()
            except OSError as error:
                raise CutAnswer from error
        self.close()
        if not read:
            raise NoAnswer
        return int(read.split(b" ", 2)[1]), read

    def hang_up(self) -> None:
        """End the connection at once, by a reset."""
        if self._writer is not None:
            self._writer.transport.abort()
        self._reader = self._writer = None

    def close(self) -> None:
        """End the connection."""
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None


def post(path: str, body: Any, *headers: str) -> bytes:
    """The bytes of a POST of JSON; `headers` are whole lines."""
    return request("POST", path, json.dumps(body).encode(), "content-type: application/json", *headers)


def request(method: str, path: str, body: bytes = b"", *headers: str) -> bytes:
    """The bytes of a request; `headers` are whole lines."""
    fixed = ("host: test", f"content-length: {len(body)}")
    return "\r\n".join((f"{method} {path} HTTP/1.1", *fixed, *headers, "", "")).encode() + body


async def once(port: int, path: str) -> Answer:
    """Ask for a path over a connection of its own. Raises `NoAnswer`, `CutAnswer`."""
    wire = Wire(port)
    try:
        return await wire.get(path)
    finally:
        wire.close()
