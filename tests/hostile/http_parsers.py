"""What three parsers take out of the same bytes: ours, h11 and llhttp. All run in process, without a socket."""

import asyncio
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import h11
import httptools
from uvicorn import Config
from uvicorn.server import ServerState

from jimsapi.asgi.types import Receive, Scope, Send

MAX_PASSES = 1000
"""Passes of the event loop after which a connection that still works is taken for one that hangs."""

_SPACES = re.compile(rb"\A([^ \r\n]+) +([^ \r\n]+) +(HTTP/)")
_AUTHORITY = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)")
NOT_SUPPORTED = (501, 505)
"""Statuses of 5xx that say what is wrong with a request: an unknown coding, another version (RFC 9112, 6.1 and 2.3)."""

Fields = tuple[tuple[bytes, bytes], ...]


@dataclass
class Taken:
    """A request as a parser hands it over. `fields` are sorted by name; `whole`: its body has ended."""

    method: bytes
    target: bytes
    fields: Fields
    body: bytes = b""
    whole: bool = False


@dataclass
class Reading:
    """All that a parser took from a connection.

    `ended`: it takes no more. `refusal` is the status with which the server refused what followed, or 0. `upgraded`:
    the last request offered an upgrade, and the parser does not know where its body ends. `faults` are things that no
    connection should do.
    """

    requests: list[Taken] = field(default_factory=list)
    ended: bool = False
    refusal: int = 0
    upgraded: bool = False
    faults: list[str] = field(default_factory=list)


class MemoryTransport(asyncio.Transport):
    """The far end of a connection: what the protocol writes is kept, and what it does to the connection."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self._loop = loop
        self._protocol: asyncio.BaseProtocol | None = None
        self.written = bytearray()
        self.paused = False
        self.closed = False
        self.ended = False  # the protocol has closed the connection, or its own half

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self._protocol is not None
        return self._protocol

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        if not self.closed:
            self.closed = self.ended = True
            self._loop.call_soon(self.get_protocol().connection_lost, None)

    def abort(self) -> None:
        self.close()


class _Errors(logging.Handler):
    """What is logged as an error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        cause = f": {record.exc_info[1]!r}" if record.exc_info and record.exc_info[1] else ""
        self.lines.append(record.getMessage().strip() + cause)


class AsgiReader:
    """A protocol of uvicorn's kind, ours or one of its own, below an app that writes down what it gets."""

    def __init__(self, protocol: type[asyncio.Protocol]) -> None:
        config = Config(self._app, http=protocol, ws="none", lifespan="off", log_config=None, interface="asgi3")
        config.load()
        self._protocol: Any = protocol
        self._config = config
        self._state = ServerState()
        self._reading = Reading()
        self._reads_bodies = True
        self._receiving = 0  # calls of the app that wait for more of a body
        self._errors = _Errors()
        logger = logging.getLogger("uvicorn.error")
        logger.propagate = False
        logger.addHandler(self._errors)
        logging.getLogger("uvicorn.access").disabled = True

    async def read(self, pieces: Iterable[bytes], reads_bodies: bool = True) -> Reading:
        """What the protocol takes from a connection that brings these pieces. If the app does not read bodies, it
        answers at once, and requests are without theirs."""
        loop = asyncio.get_running_loop()
        reading = self._reading = Reading()
        self._reads_bodies, self._receiving = reads_bodies, 0
        transport = MemoryTransport(loop)
        protocol = self._protocol(config=self._config, server_state=self._state, app_state={})
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        try:
            for piece in pieces:
                if transport.closed:
                    break
                protocol.data_received(piece)
                await self._settle(transport)
        except Exception as error:
            reading.faults.append(f"data_received raised {error!r}")
        reading.ended = transport.ended
        if not transport.closed:
            protocol.connection_lost(None)
        await self._settle(transport)
        self._conclude(reading, bytes(transport.written))
        return reading

    async def _settle(self, transport: MemoryTransport) -> None:
        """Run the loop until every call of the app has ended or waits for the client."""
        for _ in range(3):
            await asyncio.sleep(0)
        for _ in range(MAX_PASSES):
            if len(self._state.tasks) <= self._receiving:
                return
            await asyncio.sleep(0)
        self._reading.faults.append("it hangs")

    def _conclude(self, reading: Reading, written: bytes) -> None:
        if self._state.tasks or self._state.connections:
            reading.faults.append("a task or a connection was left behind")
            self._state.tasks.clear()
            self._state.connections.clear()
        if self._errors.lines:
            reading.faults += self._errors.lines
            self._errors.lines.clear()
        statuses = [int(line[9:12]) for line in written.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]
        refusals = [status for status in statuses if 400 <= status < 500 or status in NOT_SUPPORTED]
        reading.refusal = refusals[0] if refusals else 0
        if len(refusals) > 1:
            reading.faults.append("it refused twice")
        if any(status >= 500 and status not in NOT_SUPPORTED for status in statuses):
            reading.faults.append("it answered 5xx")
        missing = sum(request.whole for request in reading.requests) - statuses.count(200)
        if not 0 <= missing <= bool(reading.refusal):  # the request whose body cannot be read may go unanswered
            reading.faults.append("answers and requests differ in number")

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
        request = Taken(scope["method"].encode(), target, _sorted(target, scope["headers"]))
        self._reading.requests.append(request)
        while self._reads_bodies:
            self._receiving += 1
            try:
                message = await receive()
            finally:
                self._receiving -= 1
            if message["type"] == "http.disconnect":
                return
            request.body += message.get("body", b"")
            if not message.get("more_body"):
                break
        request.whole = True
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})


def read_with_h11(data: bytes) -> Reading:
    """What h11 takes. Each request gets a connection of its own, so that none waits for the answer before it.

    Two forms that h11 refuses are mended before it reads them, since llhttp and ours take them as RFC 9112 allows, and
    neither can hide a request:

    - Line breaks before a request (2.2: a server should ignore an empty line there, and may end a line at LF alone).
    - Several spaces in the request line (3: a recipient may split the line at any white space).
    """
    reading = Reading()
    while True:
        data = _SPACES.sub(rb"\1 \2 \3", data.lstrip(b"\r\n"), count=1)
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
        connection.receive_data(data)
        try:
            event = connection.next_event()
            if not isinstance(event, h11.Request):
                return reading
            request = Taken(event.method, event.target, _sorted(event.target, event.headers))
            reading.requests.append(request)
            while isinstance(event := connection.next_event(), h11.Data):
                request.body += event.data
            if not isinstance(event, h11.EndOfMessage):
                return reading
        except h11.RemoteProtocolError:
            reading.ended = True
            return reading
        request.whole = True
        if connection.their_state is h11.MUST_CLOSE:
            reading.ended = True
            return reading
        data = connection.trailing_data[0]


class _LlhttpReader:
    """httptools' parser as it is."""

    def __init__(self) -> None:
        self.reading = Reading()
        self._target = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._parser: Any = httptools.HttpRequestParser(self)
        self._in_body = False

    def feed(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._target, self._fields, self._in_body = b"", [], False

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_body:
            self._fields.append((name.lower(), value.rstrip(b"\t ")))  # it leaves tabs, against RFC 9110, 5.5

    def on_headers_complete(self) -> None:
        self._in_body = True
        self.reading.requests.append(
            Taken(self._parser.get_method(), self._target, _sorted(self._target, self._fields))
        )

    def on_body(self, body: bytes) -> None:
        self.reading.requests[-1].body += body

    def on_message_complete(self) -> None:
        self.reading.requests[-1].whole = True


def read_with_llhttp(data: bytes) -> Reading:
    """What llhttp takes, up to a request that offers an upgrade: it reads no further, and of that one no body."""
    reader = _LlhttpReader()
    try:
        reader.feed(data)
    except httptools.HttpParserUpgrade:
        reader.reading.upgraded = reader.reading.ended = True
    except httptools.HttpParserError:
        reader.reading.ended = True
    return reader.reading


def _sorted(target: bytes, fields: Iterable[tuple[bytes, bytes]]) -> Fields:
    """Fields by name; of one name in order, which alone has a meaning (RFC 9110, 5.3).

    Names of codings are in lower case, as h11 has them, which means nothing (RFC 9112, 7). If the target names a host,
    that replaces the field's (3.2.2).
    """
    named = _AUTHORITY.match(target)
    pairs = []
    for name, value in fields:
        if name == b"transfer-encoding":
            value = value.lower()
        elif name == b"host" and named is not None:
            value = named[1]
        pairs.append((name, value))
    return tuple(sorted(pairs, key=itemgetter(0)))
