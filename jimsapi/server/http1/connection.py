"""A connection of HTTP/1.1: its requests, its deadlines and its end."""

import asyncio
import re
from contextvars import copy_context
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

import httptools

from jimsapi.asgi.record import OTHER_METHOD, UNMATCHED, Observer, RequestRecord
from jimsapi.asgi.route import METHODS
from jimsapi.asgi.types import Scope
from jimsapi.server.backlog import SlowReader
from jimsapi.server.borrowed import Config, ServerState, get_local_addr, get_remote_addr, is_ssl
from jimsapi.server.http1.answer import STATUS_LINES, begin_field
from jimsapi.server.http1.batch import batch_of
from jimsapi.server.http1.exchange import Exchange
from jimsapi.server.http1.head import (
    HOST,
    MAX_FIELDS,
    MAX_HEAD,
    MAX_HOST,
    Refused,
    authority,
    check_coding,
    fault_of,
    path_of,
    with_host,
)
from jimsapi.server.sockets import has_unread, reset
from jimsapi.server.websocket import MAX_HANDSHAKE, WebSocketConnection, handshake_of

MAX_PIPELINED = 64
"""Requests of a connection that wait behind the one that is answered."""
HEAD_WITHIN = 10.0
"""Seconds within which a head has to come, from its first line or, for a connection's first, from the connection."""
MIN_RATE = 500
"""Bytes a second that a client has to send of a body. A slow modem does ten times as much."""
BODY_WITHIN = 30.0
"""Seconds that a client may fall behind `MIN_RATE` while it sends a body, so also how long it may pause."""
REST_WITHIN = 10.0
"""Seconds within which the rest of a body has to arrive once the request has been answered without it."""
LOOK_EVERY = 5.0
"""Seconds between two checks of a deadline, at most: a connection is closed no later than this after its deadline."""
LINGER_FOR, MAX_LINGER = 2.0, 4_194_304
"""Seconds for which, and bytes of which, a client that still sends is heard after the last answer: were the connection
closed at once, it might lose that."""
REQUEST_WITHIN, LINGER_AT_END = 0.5, 0.2
"""Seconds that a client has when the server ends: for a request that has begun, also for its body, and for a
connection's first; and seconds in place of `LINGER_FOR`. Both together are less than uvicorn waits for connections."""
CHUNK_FRAMING = 16
"""Bytes of framing that a chunk may have beside twice its size, before the rest counts against `MAX_HEAD`."""

_SPACE = ord(" ")
_ASGI = {"version": "3.0", "spec_version": "2.3"}


class Http1Protocol(asyncio.Protocol):
    """A connection: what is read of it becomes exchanges, which are answered one after another.

    `extensions` are those of all scopes of this connection, beside the exchange's own. `on_refusal` is called for each
    request that is refused before the app sees it.
    """

    __slots__ = (
        "_context",
        "_data",
        "_default_fields",
        "_default_headers",
        "_fed",
        "_fresh",
        "_good_host",
        "_handshake",
        "_headers",
        "_host",
        "_is_first",
        "_line",
        "_parser",
        "_parts",
        "_paused",
        "_slow",
        "_taken",
        "_timer",
        "_url",
        "_waiting_since",
        "app",
        "app_state",
        "batch",
        "blocked",
        "client",
        "config",
        "deaf",
        "ending",
        "exchange",
        "extensions",
        "failed",
        "loop",
        "on_refusal",
        "pipelined",
        "reading",
        "root_path",
        "scheme",
        "server",
        "state",
        "transport",
    )

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        on_refusal: Observer | None = None,
    ) -> None:
        if not config.loaded:
            config.load()
        self.config = config
        self.app: Any = config.loaded_app
        self.loop = _loop or asyncio.get_running_loop()
        self.state = server_state
        self.batch = batch_of(server_state, self.loop)
        self.app_state = app_state
        self.root_path = config.root_path
        self.extensions: dict[object, object] | None = None
        self.on_refusal = on_refusal
        self.exchange: Exchange | None = None  # the one that is answered
        self.reading: Exchange | None = None  # the one whose body is not here yet
        self.pipelined: list[Exchange] = []
        self.deaf = False  # what comes from now on is not for us
        self.ending = False  # the next request is the last one
        self.failed = False  # whether the last answer was an error and nothing has followed it yet
        self._fresh = True  # no request has come yet
        self.transport: asyncio.Transport
        self.blocked: asyncio.Event | None = None  # while the client does not take what was written; set when it does
        self._parser: Any = httptools.HttpRequestParser(self)
        self._url = b""  # with the fields, of a head that is not here whole
        self._headers: list[tuple[bytes, bytes]] = []
        self._host: bytes | None = None  # its Host
        # A handshake that waits for the answers before it: its target, its fields, and the bytes that came behind it.
        self._handshake: tuple[bytes, list[tuple[bytes, bytes]], bytes] | None = None
        self._good_host = b"\n"  # one that was checked, or one that cannot be
        self._data = b""  # what is parsed now
        self._is_first = False  # whether it begins with the head that is read
        self._line: bytes | None = b""  # what came before it of a head that has no field yet; None after the check
        self._fed = 0  # bytes of a head or of a body's framing, except for the first packet's
        self._taken = self._parts = 0  # bytes and parts of a body in it
        self._paused = False
        self._timer: asyncio.TimerHandle | None = None
        self._waiting_since = 0.0
        self._slow: SlowReader | None = None
        self._default_headers: list[tuple[bytes, bytes]] | None = None
        self._default_fields = b"", 0

    # What the transport tells.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        self.transport = transport
        self.state.connections.add(self)  # type: ignore[arg-type] # it lists its own protocols
        self.server = get_local_addr(transport)
        self.client = get_remote_addr(transport)
        self.scheme = "https" if is_ssl(transport) else "http"
        self._context = copy_context()  # of no request
        self._wait_from_now(HEAD_WITHIN)

    def data_received(self, data: bytes) -> None:
        if self.deaf:
            self._drop(len(data))
            return
        reading = self.reading
        while data and not self.deaf:
            self._data = data
            self._is_first = reading is None
            try:
                self._parser.feed_data(data)
                break
            except httptools.HttpParserUpgrade as upgrade:
                data = data[upgrade.args[0] :]
                if self._is_handshake():
                    if self.exchange is None:
                        self.upgrade_to_websocket(data)
                        return
                    self._hold_handshake(data)
                    break
                # Another protocol was offered. HTTP/1.1 goes on, as it may (RFC 9110, 7.8), but the parser does not
                # know of a body now. So it reads the head again, without the offer, which is for the app alone.
                data = self._head(without=b"upgrade") + data
                self._headers = [field for field in self._headers if field[0] == b"upgrade"]
                self._url, self._host = b"", None
            except httptools.HttpParserError as error:
                self._refuse(*fault_of(error))
        if self.reading is not None:
            if not self.deaf:
                self._measure_body(self.reading is reading)
        elif (self._url or self._is_first) and not self.deaf:
            self._measure_head()
        self._data = b""

    def _measure_head(self) -> None:
        """Count a packet in which a head does not end."""
        if self._line is not None:
            if self._headers:  # so the request line is whole
                try:
                    self._check_line()
                except Refused as refused:
                    self._refuse(refused.status, str(refused))
                    return
                self._line = None
            elif self._url:
                self._line += self._data
            else:  # it ends in a method, which is short, or in empty lines
                self._line = (self._line + self._data)[-64:]
        if not self._url:
            return
        if len(self._headers) > MAX_FIELDS:
            self._refuse(431, "too many header fields")
            return
        if not self._fed:  # what else is in the packet is not known: a head is measured when it is whole
            self._fed = 1
            self._waiting_since = self.loop.time()
        else:
            self._fed += len(self._data)
            if self._fed > MAX_HEAD:
                self._refuse(431, "the head is too large")

    def _measure_body(self, began_before: bool) -> None:
        """Count a packet in which a body does not end, and grant the client the time that it has earned by it."""
        now = self.loop.time()
        if not began_before:
            self._waiting_since = now
        else:
            if self.exchange is not None:  # else the request is answered, and more of its body gains no time
                self._waiting_since = min(self._waiting_since + self._taken / MIN_RATE, now)
            framing = len(self._data) - 3 * self._taken - CHUNK_FRAMING * self._parts
            self._fed = max(self._fed + framing, 0)
            if self._fed > MAX_HEAD:
                self._refuse(431, "the chunks have too much framing")
        self._taken = self._parts = 0

    def _drop(self, size: int) -> None:
        """Read bytes that nobody wants, up to `MAX_LINGER`."""
        self._fed += size
        if self._fed > MAX_LINGER:
            if self.exchange is None:
                self.close()
            else:  # the last answer is not complete yet
                self.pause_reading()

    def eof_received(self) -> None:
        """The client is gone, or hears only. It gets what was written, and the app is told that nobody waits."""
        self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        for exchange in (self.exchange, self.reading, *self.pipelined):
            if exchange is not None:
                exchange.lose()
        self.pipelined.clear()
        self.reading = None
        if self.exchange is not None and not self.exchange.scope:
            self.exchange = None  # it never began, so nothing else would end the cycle of references
        self.batch.heap.connection_ended(len(self.state.connections))

    def pause_writing(self) -> None:
        self.blocked = asyncio.Event()
        self._watch_reading()

    def resume_writing(self) -> None:
        self._unblock()
        if self.transport.is_closing():
            self._watch_reading()

    def shutdown(self) -> None:
        """Close the connection when all that was asked is answered. uvicorn calls this when the server is to end.

        A request that is on its way is waited for: one whose head or body has begun, or the first of a connection. A
        drain waits for runs, and a request without its whole body has none.
        """
        self.ending = True
        last = self._end_after_last()
        if last is None and self.reading is not None:  # it is answered already
            self._linger()
        elif self.reading is not None or (last is None and (self._fresh or self._url or has_unread(self.transport))):
            self.loop.call_later(REQUEST_WITHIN, self._end_unless_whole)
        elif last is None:
            self.close()

    def _end_after_last(self) -> Exchange | None:
        """Close the connection after the last answer to what was asked; returns that exchange, if there is one."""
        last = self.pipelined[-1] if self.pipelined else self.exchange
        if last is not None:
            last.keep_alive = False
        return last

    def _end_unless_whole(self) -> None:
        """Refuse a request that has not come whole since the server was to end, and close the connection."""
        if self.deaf:
            return
        if self.reading is not None:
            self._refuse(503, "the server ended before the body had come")
        elif self.exchange is None:
            self.close()

    def waiting_since(self) -> float | None:
        """The loop's time since when the connection waits for a request; None if it works on one, or if the client has
        not read the last answer yet."""
        if self.exchange is not None or self.deaf or self.transport.get_write_buffer_size():
            return None
        return self._waiting_since

    @property
    def has_arrived(self) -> bool:
        """Whether something of the client has arrived that was not read yet."""
        return has_unread(self.transport)

    def evict(self) -> None:
        """Close the connection, and do not wait for the client to end TLS, which may take `TLS_CLOSE_WITHIN`."""
        self.close()
        self.loop.call_soon(self.transport.abort)

    # What the parser tells.

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.reading is not None:  # it trails a body (RFC 9110, 6.5), and must not pass for the next request's
            return
        name = name.lower()
        if value and value[-1] <= _SPACE:  # the parser leaves tabs, and spaces that end a packet (RFC 9110, 5.5)
            value = value.rstrip(b" \t")
        if name == b"host":
            if self._host is not None:
                raise Refused(400, "two Host fields")
            self._host = value
        elif name == b"transfer-encoding":
            check_coding(value)
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        parser, url, headers, data = self._parser, self._url, self._headers, self._data
        if (self._fed or len(data) > MAX_HEAD) and len(self._head()) > MAX_HEAD:
            raise Refused(431, "the head is too large")
        if len(headers) > MAX_FIELDS:
            raise Refused(431, "too many header fields")
        method: bytes = parser.get_method()
        # As a rule the packet begins with the request: then the name and version of HTTP are at this place.
        place = len(method) + len(url) + 2
        if self._is_first and self._line == b"" and data[place : place + 8] == b"HTTP/1.1":
            version = "1.1"
        else:
            self._check_line()
            self._line = b""
            version = self._version()
        self._is_first = False
        if self._host != self._good_host:
            self._check_host(version)
        if parser.should_upgrade():
            if method == b"CONNECT":
                raise Refused(400, "CONNECT is for proxies")
            return
        scope = self._scope(method, url, version, headers)
        if self.pipelined and len(self.pipelined) >= MAX_PIPELINED:
            raise Refused(400, "too many requests at once")
        self._url, self._headers, self._host, self._fed, self._fresh = b"", [], None, 0, False
        keep_alive = version == "1.1" and parser.should_keep_alive() and not self.ending
        self.reading = exchange = Exchange(self, scope, keep_alive)
        if self.exchange is None:
            self._start(exchange)
        else:
            self.pipelined.append(exchange)
            self.pause_reading()

    def on_body(self, body: bytes) -> None:
        self._taken += len(body)
        self._parts += 1
        if self.reading is not None and not self.reading.complete:
            self.reading.take(body)

    def on_message_complete(self) -> None:
        self._fed = 0
        if self.reading is not None:
            self.reading.end_body()
            self.reading = None

    # What a head may be.

    def _check_line(self) -> None:
        """Refuse what the parser reads as HTTP's: lines of RTSP and ICE.

        If the line began in an earlier packet, or behind another request, its place is not known. So it is searched for
        in all bytes that may hold it.
        """
        if self._line is None:
            return  # it was checked when an earlier packet came
        if re.search(re.escape(self._url) + rb" +(?:RTSP|ICE)/[0-9.]+\r\n", self._line + self._data):
            raise Refused(400, "a request of another protocol")

    def _version(self) -> str:
        version: str = self._parser.get_http_version()
        if version == "0.9":  # what the parser says, too, if there is none
            raise Refused(400, "a request line without a version, or with HTTP/0.9")  # (RFC 9112, 3)
        if version not in ("1.1", "1.0"):
            raise Refused(505, "another version of HTTP")
        if version == "1.0" and any(name == b"transfer-encoding" for name, _ in self._headers):  # (RFC 9112, 6.1)
            raise Refused(400, "a Transfer-Encoding in HTTP/1.0")
        return version

    def _check_host(self, version: str) -> None:
        """Refuse a Host field that is not a host, perhaps with a port (RFC 9110, 7.2), or is not there."""
        host = self._host
        if host is None:
            if version == "1.1":
                raise Refused(400, "no Host field")
        elif len(host) > MAX_HOST or not HOST.fullmatch(host.rstrip()):
            raise Refused(400, "a Host field that is not a host and a port")
        else:
            self._good_host = host

    # What exchanges tell.

    def answered(self, exchange: Exchange) -> None:
        """Go on to the next request; without one, wait for it."""
        self.state.total_requests += 1
        if not exchange.keep_alive:
            still_sends = self.reading is not None or self.deaf or self._handshake is not None
            self.exchange = None
            if still_sends:
                self._linger()
            else:
                self.close()
            return
        if self.pipelined:
            self._context.run(self._start, self.pipelined.pop(0))  # not in that of the request before
        else:
            self.exchange = None
        if self._paused:
            if self._handshake is not None and self.exchange is None:
                self._context.run(self._open_held)
                return
            self.resume_reading()
        if self.reading is exchange or (self.reading is None and not self._url):
            self._waiting_since = self.loop.time()
        if self._timer is None:
            self._timer = self.loop.call_later(self.config.timeout_keep_alive, self._look)

    def pause_reading(self) -> None:
        """Take no more from the connection for now."""
        if not self._paused and not self.transport.is_closing():
            self._paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Take more, unless requests or a handshake wait behind the one that is answered."""
        if self._paused and not (self.pipelined or self._handshake or self.deaf or self.transport.is_closing()):
            self._paused = False
            self._waiting_since = self.loop.time()
            # asyncio reads on in the context in which it is told to: not in that of this request.
            self._context.run(self.transport.resume_reading)

    def close(self) -> None:
        """Close the connection, once the client has what was written."""
        self.deaf = True
        self.batch.flush()
        self.transport.close()
        if self.transport.get_write_buffer_size():
            self._watch_reading()

    def _linger(self) -> None:
        """End our side of the connection, and close it when the client has done so too, or `LINGER_FOR` later."""
        self.deaf = True
        self._fed = 0
        self.batch.flush()
        if self.transport.is_closing():
            return
        if self.transport.can_write_eof():
            self.transport.write_eof()
        if self._paused:
            self.transport.resume_reading()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(LINGER_AT_END if self.ending else LINGER_FOR, self.close)

    def reset(self) -> None:
        """Close the connection so that the client sees a fault, and no end."""
        self.deaf = True
        self.batch.flush()
        if not self.transport.is_closing():
            self.drop()

    def drop(self) -> None:
        """End the connection, and forget what the client has not read."""
        self.deaf = True
        reset(self.transport)

    def write(self, data: bytes) -> None:
        """Send bytes to the client."""
        self.batch.add_piece(self.transport, data)

    def fields(self) -> tuple[bytes, int]:
        """The header fields of every answer, and their number: uvicorn makes a new list of them each second."""
        headers = self.state.default_headers
        if headers is not self._default_headers:
            self._default_headers = headers
            self._default_fields = b"".join([begin_field(name)[0] + value for name, value in headers]), len(headers)
        return self._default_fields

    def _scope(self, method: bytes, url: bytes, version: str, headers: list[tuple[bytes, bytes]]) -> Scope:
        """What the app is told of a request. Raises `Refused` for a target that is no path and no URL."""
        raw_path, query = url, b""
        if url[:1] != b"/" or b"?" in url or b"%" in url or b"#" in url:
            if url[:1] != b"/" and not (url == b"*" and method == b"OPTIONS"):
                headers[:] = with_host(headers, authority(url))
            try:
                parsed = httptools.parse_url(url)
            except httptools.HttpParserError:
                raise Refused(400, "a target that is not a path") from None
            raw_path, query = parsed.path or b"/", parsed.query or b""
        path = raw_path.decode("ascii")
        if b"%" in raw_path:
            path = unquote(path)
        scope: Scope = {
            "type": "http",
            "asgi": _ASGI,
            "http_version": version,
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "root_path": self.root_path,
            "method": method.decode(),
            "path": path,
            "raw_path": raw_path,
            "query_string": query,
            "headers": headers,
            "state": self.app_state.copy(),
        }
        if self.root_path:
            scope["path"] = self.root_path + path
            scope["raw_path"] = self.root_path.encode() + raw_path
        return scope

    def _start(self, exchange: Exchange) -> None:
        self.exchange = exchange
        if self.failed or self.batch.starts.limited:
            self.batch.starts.add(exchange, exchange.scope["path"], after_error=self.failed)
            self.failed = False
        else:
            exchange.begin()

    def _is_handshake(self) -> bool:
        """Whether a head asks for a WebSocket (RFC 6455, 4.2.1), and the server has an implementation of them."""
        if self.config.ws_protocol_class is None:
            return False
        if self._parser.get_method() != b"GET" or self._parser.get_http_version() != "1.1":
            return False
        return any(name == b"upgrade" and value.lower() == b"websocket" for name, value in self._headers)

    def _hold_handshake(self, rest: bytes) -> None:
        """Keep a handshake until the requests before it are answered: pipelined requests are answered in order
        (RFC 9112, 9.3.2), and what follows the handshake is not HTTP."""
        self._handshake = self._url, self._headers, rest
        self._url, self._headers, self._host, self._fed = b"", [], None, 0
        self.pause_reading()

    def _open_held(self) -> None:
        """Open the WebSocket whose handshake was kept, unless the client has gone meanwhile."""
        held, self._handshake = self._handshake, None
        if held is None or self.transport.is_closing():
            return
        self._url, self._headers, rest = held
        self._paused = False
        self.transport.resume_reading()
        self.upgrade_to_websocket(rest)

    def upgrade_to_websocket(self, rest: bytes) -> None:
        """Hand the connection over to uvicorn's protocol of WebSockets, which reads the handshake, and the `rest`."""
        self.batch.flush()
        if any(
            name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
            for name, value in self._headers
        ):
            self._refuse(400, "a WebSocket handshake with a body")  # it would be taken for frames
            return
        try:
            scope = self._scope(b"GET", self._url, "1.1", self._headers)
        except Refused as refused:
            self._refuse(refused.status, str(refused))
            return
        scope["extensions"] = self.extensions or {}
        handshake = handshake_of(self._headers)
        if len(handshake) > MAX_HANDSHAKE:
            self._refuse(431, "the WebSocket fields are too large")
            return
        connection = WebSocketConnection(
            self.transport,
            self.config,
            self.state,
            self.app_state,
            self.batch.backlog,
            self.batch.heap,
            self.batch.websockets,
            scope,
        )
        try:
            connection.begin(handshake, rest)
        except Exception:  # it cannot read the head
            self.state.connections.discard(connection.inner)
            self.transport.set_protocol(self)
            self._refuse(400, "a faulty WebSocket handshake")
        else:
            self._leave()

    def _head(self, without: bytes = b"") -> bytes:
        """The head that was read last, but for one field."""
        version = self._parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (self._parser.get_method(), self._url, version)]
        lines += [b"%b: %b" % field for field in self._headers if field[0] != without]
        return b"\r\n".join((*lines, b"", b""))

    def _refuse(self, status: int, reason: str) -> None:
        """Take no more from a connection that cannot be understood. What was asked before is answered first."""
        self.deaf = True
        faulty, self.reading = self.reading, None
        if faulty is None:
            self._report(status, reason)
        # A client that stays for a while must not keep memory.
        self._parser, self._url, self._headers, self._line = None, b"", [], None
        if faulty is not None:  # its body is what is wrong
            faulty.refused = status
            faulty.lose()
            if faulty in self.pipelined:
                self.pipelined.remove(faulty)
            elif faulty.begun:  # and has no second answer
                faulty.cut()
                return
            else:
                self.exchange = None
        if self.exchange is not None:
            self._end_after_last()
            return
        body = b'{"detail":"%b"}' % HTTPStatus(status).phrase.encode()
        head = b"%b%b\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        self.write(head % (STATUS_LINES[status], self.fields()[0], len(body)) + body)
        self._linger()

    def _report(self, status: int, reason: str) -> None:
        """Tell `on_refusal` of a request of which there is no more than the head."""
        if self.on_refusal is None:
            return
        method, path = OTHER_METHOD, ""
        if self._url and self._parser is not None:
            method = self._parser.get_method().decode()
            if method not in METHODS:
                method = OTHER_METHOD
        if self._url[:1] == b"/":  # a URL may hold a password, and a query may
            path = path_of(self._url)
        duration = self.loop.time() - self._waiting_since if self._fed else 0.0
        self.on_refusal(RequestRecord(method, UNMATCHED, path, status, duration, "", False, {"reason": reason}))

    def _wait_from_now(self, seconds: float) -> None:
        self._waiting_since = self.loop.time()
        if self._timer is None:
            self._timer = self.loop.call_later(seconds, self._look)

    def rest(self) -> None:
        """Do without a timer during an answer that may be long, unless the request's body is still waited for."""
        if self._timer is not None and self.reading is None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        """Close a connection of which nothing came in time. While an answer is under way there is no timer."""
        self._timer = None
        reason = ""
        if self.reading is not None:
            within, reason = BODY_WITHIN, "the body arrives too slowly"
            if self.exchange is not None:
                if self._paused or self.reading.uninvited:
                    self._waiting_since = self.loop.time()
            else:  # it is answered already
                within = REST_WITHIN
        elif self._url:
            within, reason = HEAD_WITHIN, "the head arrives too slowly"
        elif self.exchange is None:
            within = self.config.timeout_keep_alive
            if self.blocked is not None:  # the client still takes the last answer
                self._waiting_since = self.loop.time()
        else:
            return
        left = self._waiting_since + within - self.loop.time()
        if left > 0:
            self._timer = self.loop.call_later(min(left, LOOK_EVERY), self._look)
        elif reason:
            self._refuse(408, reason)
        else:
            self.close()

    def _watch_reading(self) -> None:
        """Drop the client if it reads too slowly from now on."""
        if self._slow is None:
            self._slow = SlowReader(self.transport, self.batch.backlog, self.drop)

    def _unblock(self) -> None:
        if self.blocked is not None:
            self.blocked.set()
            self.blocked = None
        if self._slow is not None:
            self._slow.stop()
            self._slow = None

    def _leave(self) -> None:
        self.state.connections.discard(self)
        self._parser = None  # they refer to each other
        self._unblock()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
