"""An HTTP/1.1 connection: it reads requests, checks deadlines and closes the connection."""

import asyncio
import logging
import re
from contextvars import copy_context
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

import httptools

from jimsapi.asgi.app import App
from jimsapi.asgi.record import OTHER_METHOD, UNMATCHED, Observer, RequestRecord
from jimsapi.asgi.route import METHODS
from jimsapi.asgi.types import Scope
from jimsapi.server.backlog import SlowReader
from jimsapi.server.borrowed import (
    Config,
    ServerState,
    WebSocketsBroken,
    get_local_addr,
    get_remote_addr,
    is_ssl,
)
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
    encoded_path,
    fault_of,
    is_below,
    path_of,
    with_host,
)
from jimsapi.server.sockets import has_unread, reset, unix_client
from jimsapi.server.websocket import MAX_HANDSHAKE, WebSocketConnection, handshake_of

logger = logging.getLogger("uvicorn.error")

MAX_PIPELINED = 64
"""Maximum number of requests of a connection that wait behind the one that the app answers."""
HEAD_WITHIN = 10.0
"""Seconds in which a head must arrive, from its first line or, for a connection's first head, from the connect."""
MIN_RATE = 500
"""Bytes of a body that a client must send each second. A slow modem sends ten times as much."""
BODY_WITHIN = 30.0
"""Seconds that a client may fall behind `MIN_RATE` while it sends a body, and so how long it may pause."""
REST_WITHIN = 10.0
"""Seconds in which the rest of a body must arrive after the app answered without reading it."""
CHECK_EVERY = 5.0
"""Maximum seconds between two checks of a deadline. A connection is closed at most this long after its deadline."""
LINGER_FOR, MAX_LINGER = 2.0, 4_194_304
"""Seconds for which, and bytes up to which, the server reads on after the last response if the client still sends. If
the server closed the connection at once, the client might lose the response (RFC 9112, 9.6)."""
REQUEST_WITHIN, LINGER_AT_END = 0.5, 0.2
"""Seconds that a shutdown waits for a request to arrive whole, and seconds in place of `LINGER_FOR` in a shutdown. The
first holds for a request that has begun and for the first request of a connection. The sum is less than the time for
which uvicorn waits for connections."""
CHUNK_FRAMING = 16
"""Bytes of framing that a chunk may have, in addition to twice its size, without counting against `MAX_HEAD`."""

_SPACE = ord(" ")
_QUESTION_MARK, _PERCENT, _HASH = b"?%#"  # `in` with a number takes a tenth of the time of `in` with bytes
_ASGI = {"version": "3.0", "spec_version": "2.3"}


class Http1Protocol(asyncio.Protocol):
    """A connection. It reads requests, creates an `Exchange` for each, and answers them in order.

    `extensions` are added to the ASGI extensions of every scope of this connection, beside the exchange's own.
    `on_refusal` is called with the record of each request that the server rejects without calling the app.
    `root_path_kept`: paths may begin with the root path, because the proxy does not remove it.
    """

    __slots__ = (
        "_body_bytes",
        "_body_parts",
        "_context",
        "_counted_bytes",
        "_data",
        "_default_fields",
        "_default_headers",
        "_handshake",
        "_head_starts_packet",
        "_headers",
        "_host",
        "_line",
        "_no_request_yet",
        "_parser",
        "_paused",
        "_slow",
        "_timer",
        "_url",
        "_valid_host",
        "_waiting_since",
        "app",
        "app_state",
        "batch",
        "blocked",
        "client",
        "config",
        "direct_app",
        "ending",
        "exchange",
        "extensions",
        "failed",
        "loop",
        "on_refusal",
        "pipelined",
        "reading",
        "reading_stopped",
        "root_path",
        "root_path_kept",
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
        root_path_kept: bool = False,
    ) -> None:
        if not config.loaded:
            config.load()
        self.config = config
        self.app: Any = config.loaded_app
        # A subclass with a `__call__` of its own may run the app in another task.
        self.direct_app = self.app if type(self.app).__call__ is App.__call__ else None
        self.loop = _loop or asyncio.get_running_loop()
        self.state = server_state
        self.batch = batch_of(server_state, self.loop)
        self.app_state = app_state
        self.root_path = config.root_path
        self.root_path_kept = root_path_kept
        self.extensions: dict[object, object] | None = None
        self.on_refusal = on_refusal
        self.exchange: Exchange | None = None  # the one that the app answers
        self.reading: Exchange | None = None  # the one whose body has not arrived whole
        self.pipelined: list[Exchange] = []
        self.reading_stopped = False  # further bytes of the client are dropped
        self.ending = False  # the next request is the last one
        self.failed = False  # the last response was an error and no request has followed it
        self._no_request_yet = True
        self.transport: asyncio.Transport
        self.blocked: asyncio.Event | None = None  # exists while the write buffer is full; set when it has room again
        self._parser: Any = httptools.HttpRequestParser(self)
        self._url = b""  # these three belong to the head that is being read
        self._headers: list[tuple[bytes, bytes]] = []
        self._host: bytes | None = None
        # A handshake that waits for the responses before it: its target, its fields, and the bytes after it.
        self._handshake: tuple[bytes, list[tuple[bytes, bytes]], bytes] | None = None
        self._valid_host = b"\n"  # the last valid Host; until there is one, a value that no Host can have
        self._data = b""  # the packet that is being parsed
        self._head_starts_packet = False  # whether the packet begins with the head that is being read
        self._line: bytes | None = b""  # bytes from earlier packets of a head without a field; None after the check
        self._counted_bytes = 0  # of a head or of a body's framing, without the first packet; or after the last request
        self._body_bytes = self._body_parts = 0  # of a body in the packet
        self._paused = False
        self._timer: asyncio.TimerHandle | None = None
        self._waiting_since = 0.0
        self._slow: SlowReader | None = None
        self._default_headers: list[tuple[bytes, bytes]] | None = None
        self._default_fields = b"", 0

    # Calls of the transport.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in uvicorn
        self.transport = transport
        self.state.connections.add(self)  # type: ignore[arg-type] # uvicorn's type lists its own protocols
        self.server = get_local_addr(transport)
        self.client = get_remote_addr(transport) or unix_client(transport)
        self.scheme = "https" if is_ssl(transport) else "http"
        self._context = copy_context()  # it belongs to no request
        self._wait_from_now(HEAD_WITHIN)

    def data_received(self, data: bytes) -> None:
        if self.reading_stopped:
            self._drop(len(data))
            return
        reading = self.reading
        while data and not self.reading_stopped:
            self._data = data
            self._head_starts_packet = reading is None
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
                # The client offers another protocol. The server may ignore that (RFC 9110, 7.8), but the parser now
                # expects no body. So the parser reads the head again without the offer, which only the app receives.
                data = self._head(without=b"upgrade") + data
                self._headers = [field for field in self._headers if field[0] == b"upgrade"]
                self._url, self._host = b"", None
            except httptools.HttpParserError as error:
                self._refuse(*fault_of(error))
        if self.reading is not None:
            if not self.reading_stopped:
                self._measure_body(self.reading is reading)
        elif (self._url or self._head_starts_packet) and not self.reading_stopped:
            self._measure_head()
        self._data = b""

    def _measure_head(self) -> None:
        """Add a packet in which the head does not end to the size of the head."""
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
            else:  # the packet ends in a method, which is short, or in empty lines
                self._line = (self._line + self._data)[-64:]
        if not self._url:
            return
        if len(self._headers) > MAX_FIELDS:
            self._refuse(431, "too many header fields")
            return
        if not self._counted_bytes:  # the packet may contain other requests; `on_headers_complete` measures exactly
            self._counted_bytes = 1
            self._waiting_since = self.loop.time()
        else:
            self._counted_bytes += len(self._data)
            if self._counted_bytes > MAX_HEAD:
                self._refuse(431, "the head is too large")

    def _measure_body(self, began_before: bool) -> None:
        """Add a packet in which the body does not end to the size of the framing, and extend the client's deadline."""
        now = self.loop.time()
        if not began_before:
            self._waiting_since = now
        else:
            if self.exchange is not None:  # after the response the deadline stays as it is
                self._waiting_since = min(self._waiting_since + self._body_bytes / MIN_RATE, now)
            framing = len(self._data) - 3 * self._body_bytes - CHUNK_FRAMING * self._body_parts
            self._counted_bytes = max(self._counted_bytes + framing, 0)
            if self._counted_bytes > MAX_HEAD:
                self._refuse(431, "the chunks have too much framing")
        self._body_bytes = self._body_parts = 0

    def _drop(self, size: int) -> None:
        """Drop bytes that arrive after the last request, up to `MAX_LINGER`."""
        self._counted_bytes += size
        if self._counted_bytes > MAX_LINGER:
            if self.exchange is None:
                self.close()
            else:  # the last response is not complete yet
                self.pause_reading()

    def eof_received(self) -> None:
        """Close the connection when the client has closed it, wholly or only its sending side.

        The server still sends the data that was written. The app receives `http.disconnect`.
        """
        self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._release()
        for exchange in (self.exchange, self.reading, *self.pipelined):
            if exchange is not None:
                exchange.mark_disconnected()
        self.pipelined.clear()
        self.reading = None
        if self.exchange is not None and not self.exchange.scope:
            self.exchange = None  # its task never began, so nothing else breaks the reference cycle
        self.batch.heap.connection_ended(len(self.state.connections))

    def pause_writing(self) -> None:
        self.blocked = asyncio.Event()
        self._watch_reading()

    def resume_writing(self) -> None:
        self._unblock()
        if self.transport.is_closing():
            self._watch_reading()

    def shutdown(self) -> None:
        """Close the connection after the last response. uvicorn calls this when the server shuts down.

        The connection waits `REQUEST_WITHIN` for a request that is arriving: one whose head or body has begun, or the
        first of a connection. A drain does not wait for such a request, since it has no run yet.
        """
        self.ending = True
        last = self._end_after_last()
        if last is None and self.reading is not None:  # the app has answered it already
            self._linger()
        elif self.reading is not None or (
            last is None and (self._no_request_yet or self._url or has_unread(self.transport))
        ):
            self.loop.call_later(REQUEST_WITHIN, self._end_unless_whole)
        elif last is None:
            self.close()

    def _end_after_last(self) -> Exchange | None:
        """Close the connection after the response to the last request. Returns that exchange, if there is one."""
        last = self.pipelined[-1] if self.pipelined else self.exchange
        if last is not None:
            last.keep_alive = False
        return last

    def _end_unless_whole(self) -> None:
        """Reject a request that has not arrived whole since the shutdown began, and close the connection."""
        if self.reading_stopped:
            return
        if self.reading is not None:
            self._refuse(503, "the server shut down before the body arrived")
        elif self.exchange is None:
            self.close()

    def waiting_since(self) -> float | None:
        """Return the time, by the loop's clock in seconds, since which the connection waits for a request.

        Returns None while a request is in progress, and while the client has not read the last response.
        """
        if self.exchange is not None or self.reading_stopped or self.transport.get_write_buffer_size():
            return None
        return self._waiting_since

    @property
    def has_arrived(self) -> bool:
        """Whether bytes of the client have arrived that the server has not read."""
        return has_unread(self.transport)

    def evict(self) -> None:
        """Close the connection without waiting for the client to close TLS, which may take `TLS_CLOSE_WITHIN`."""
        self.close()
        self.loop.call_soon(self.transport.abort)

    # Calls of the parser.

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.reading is not None:  # a trailer (RFC 9110, 6.5) must not become a field of the next request
            return
        name = name.lower()
        if value and value[-1] <= _SPACE:  # the parser keeps tabs, and spaces at a packet's end (RFC 9110, 5.5)
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
        if (self._counted_bytes or len(data) > MAX_HEAD) and len(self._head()) > MAX_HEAD:
            raise Refused(431, "the head is too large")
        if len(headers) > MAX_FIELDS:
            raise Refused(431, "too many header fields")
        method: bytes = parser.get_method()
        # Most packets begin with the request. Then "HTTP/1.1" is at this position.
        position = len(method) + len(url) + 2
        if self._head_starts_packet and self._line == b"" and data[position : position + 8] == b"HTTP/1.1":
            version = "1.1"
        else:
            self._check_line()
            self._line = b""
            version = self._version()
        self._head_starts_packet = False
        if self._host != self._valid_host:
            self._check_host(version)
        if parser.should_upgrade():
            if method == b"CONNECT":
                raise Refused(400, "CONNECT is for proxies")
            return
        scope = self._scope(method, url, version, headers)
        if self.pipelined and len(self.pipelined) >= MAX_PIPELINED:
            raise Refused(400, "too many requests at once")
        self._url, self._headers, self._host, self._counted_bytes, self._no_request_yet = b"", [], None, 0, False
        keep_alive = version == "1.1" and parser.should_keep_alive() and not self.ending
        self.reading = exchange = Exchange(self, scope, keep_alive)
        if self.exchange is None:
            self._start(exchange)
        else:
            self.pipelined.append(exchange)
            self.pause_reading()

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        self._body_parts += 1
        if self.reading is not None and not self.reading.complete:
            self.reading.add_body(body)

    def on_message_complete(self) -> None:
        self._counted_bytes = 0
        if self.reading is not None:
            self.reading.end_body()
            self.reading = None

    # Checks of a head.

    def _check_line(self) -> None:
        """Reject request lines of RTSP and ICE, which the parser accepts as HTTP. Raises `Refused`.

        The position of the line is unknown if the line began in an earlier packet or follows another request. So the
        check searches all bytes that may contain it.
        """
        if self._line is None:
            return  # an earlier packet was checked
        if re.search(re.escape(self._url) + rb" +(?:RTSP|ICE)/[0-9.]+\r\n", self._line + self._data):
            raise Refused(400, "a request of another protocol")

    def _version(self) -> str:
        version: str = self._parser.get_http_version()
        if version == "0.9":  # the parser also returns it if the line has no version
            raise Refused(400, "a request line without a version, or with HTTP/0.9")  # (RFC 9112, 3)
        if version not in ("1.1", "1.0"):
            raise Refused(505, "another version of HTTP")
        if version == "1.0" and any(name == b"transfer-encoding" for name, _ in self._headers):  # (RFC 9112, 6.1)
            raise Refused(400, "a Transfer-Encoding in HTTP/1.0")
        return version

    def _check_host(self, version: str) -> None:
        """Reject a missing Host field, and one that is not a host with an optional port (RFC 9110, 7.2)."""
        host = self._host
        if host is None:
            if version == "1.1":
                raise Refused(400, "no Host field")
        elif len(host) > MAX_HOST or not HOST.fullmatch(host.rstrip()):
            raise Refused(400, "a Host field that is not a host and a port")
        else:
            self._valid_host = host

    # Calls of exchanges.

    def answered(self, exchange: Exchange) -> None:
        """Begin the next exchange, or wait for the next request, after the response of `exchange` is complete."""
        self.state.total_requests += 1
        if not exchange.keep_alive:
            still_sends = self.reading is not None or self.reading_stopped or self._handshake is not None
            self.exchange = None
            if still_sends:
                self._linger()
            else:
                self.close()
            return
        if self.pipelined:
            self._context.run(self._start, self.pipelined.pop(0))  # the current context is the last request's
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
            self._timer = self.loop.call_later(self.config.timeout_keep_alive, self._check_deadline)

    def pause_reading(self) -> None:
        """Stop reading the connection until `resume_reading`."""
        if not self._paused and not self.transport.is_closing():
            self._paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Read the connection again, unless requests or a handshake wait behind the current request."""
        if self._paused and not (
            self.pipelined or self._handshake or self.reading_stopped or self.transport.is_closing()
        ):
            self._paused = False
            self._waiting_since = self.loop.time()
            # asyncio keeps the context of this call for further reads, which must not be the request's.
            self._context.run(self.transport.resume_reading)

    def close(self) -> None:
        """Close the connection after the client has read what was written."""
        self.reading_stopped = True
        self.batch.flush()
        self.transport.close()
        if self.transport.get_write_buffer_size():
            self._watch_reading()

    def _linger(self) -> None:
        """Close the sending side of the connection. Close the connection when the client does so too, or after
        `LINGER_FOR` seconds."""
        self.reading_stopped = True
        self._counted_bytes = 0
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
        """Reset the connection, so that the client sees an error and not the end of a response."""
        self.reading_stopped = True
        self.batch.flush()
        if not self.transport.is_closing():
            self.drop()

    def drop(self) -> None:
        """Reset the connection without sending what is still to be written."""
        self.reading_stopped = True
        reset(self.transport)

    def write(self, data: bytes) -> None:
        """Write bytes to the client, at the end of this pass of the event loop."""
        self.batch.add_piece(self.transport, data)

    def default_fields(self) -> tuple[bytes, int]:
        """Return the header fields that every response has, and their number.

        They are encoded again only if uvicorn has created a new list, which it does each second.
        """
        headers = self.state.default_headers
        if headers is not self._default_headers:
            self._default_headers = headers
            self._default_fields = b"".join([begin_field(name)[0] + value for name, value in headers]), len(headers)
        return self._default_fields

    def _scope(self, method: bytes, url: bytes, version: str, headers: list[tuple[bytes, bytes]]) -> Scope:
        """Return the ASGI scope of a request. Raises `Refused` if the target is neither a path nor a URL."""
        raw_path, query = url, b""
        if url[:1] != b"/" or _QUESTION_MARK in url or _PERCENT in url or _HASH in url:
            if url[:1] != b"/" and not (url == b"*" and method == b"OPTIONS"):
                headers[:] = with_host(headers, authority(url))
            try:
                parsed = httptools.parse_url(url)
            except httptools.HttpParserError:
                raise Refused(400, "a target that is not a path") from None
            raw_path, query = parsed.path or b"/", parsed.query or b""
        path = raw_path.decode("ascii")
        if _PERCENT in raw_path:
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
        if self.root_path and not (self.root_path_kept and is_below(raw_path, self.root_path)):
            scope["path"] = self.root_path + path
            scope["raw_path"] = encoded_path(self.root_path) + raw_path
        return scope

    def _start(self, exchange: Exchange) -> None:
        self.exchange = exchange
        if self.failed or self.batch.scheduler.limited:
            self.batch.scheduler.add(exchange, exchange.scope["path"], after_error=self.failed)
            self.failed = False
        else:
            exchange.begin()

    def _is_handshake(self) -> bool:
        """Whether the head is a WebSocket handshake (RFC 6455, 4.2.1) and the server implements WebSockets."""
        if self.config.ws_protocol_class is None:
            return False
        if self._parser.get_method() != b"GET" or self._parser.get_http_version() != "1.1":
            return False
        return any(name == b"upgrade" and value.lower() == b"websocket" for name, value in self._headers)

    def _hold_handshake(self, early: bytes) -> None:
        """Store a handshake until the requests before it are answered.

        Pipelined requests are answered in order (RFC 9112, 9.3.2), and the bytes after the handshake are not HTTP.
        """
        self._handshake = self._url, self._headers, early
        self._url, self._headers, self._host, self._counted_bytes = b"", [], None, 0
        self.pause_reading()

    def _open_held(self) -> None:
        """Open the WebSocket whose handshake was stored, unless the client has disconnected."""
        handshake, self._handshake = self._handshake, None
        if handshake is None or self.transport.is_closing():
            return
        self._url, self._headers, early = handshake
        self._paused = False
        self.transport.resume_reading()
        self.upgrade_to_websocket(early)

    def upgrade_to_websocket(self, early: bytes) -> None:
        """Pass the connection to uvicorn's WebSocket protocol, which reads the handshake and the bytes after it.

        `early` is the data that arrived after the handshake.
        """
        self.batch.flush()
        if any(
            name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
            for name, value in self._headers
        ):
            self._refuse(400, "a WebSocket handshake with a body")  # the body would be read as frames
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
        try:
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
        except WebSocketsBroken as broken:
            logger.error("NO WEBSOCKET IS ACCEPTED: %s; install the package websockets again", broken)
            self._refuse(500, "the package for WebSockets cannot be imported")
            return
        try:
            connection.begin(handshake, early)
        except Exception:  # uvicorn's protocol cannot parse the head
            self.state.connections.discard(connection.inner)
            self.transport.set_protocol(self)
            self._refuse(400, "a faulty WebSocket handshake")
        else:
            self._release()

    def _head(self, without: bytes = b"") -> bytes:
        """Return the head that was read last, without the field `without`."""
        version = self._parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (self._parser.get_method(), self._url, version)]
        lines += [b"%b: %b" % field for field in self._headers if field[0] != without]
        return b"\r\n".join((*lines, b"", b""))

    def _refuse(self, status: int, reason: str) -> None:
        """Reject the request that is being read, and stop reading the connection.

        Earlier requests are answered first. `reason` is for the log.
        """
        self.reading_stopped = True
        faulty, self.reading = self.reading, None
        if faulty is None:
            self._report(status, reason)
        # The connection may stay open for a while, and must not keep this memory.
        self._parser, self._url, self._headers, self._line = None, b"", [], None
        if faulty is not None:  # the fault is in its body
            faulty.refused = status
            faulty.mark_disconnected()
            if faulty in self.pipelined:
                self.pipelined.remove(faulty)
            elif faulty.begun:  # a second response cannot be sent
                faulty.cut()
                return
            else:
                self.exchange = None
        if self.exchange is not None:
            self._end_after_last()
            return
        body = b'{"detail":"%b"}' % HTTPStatus(status).phrase.encode()
        head = b"%b%b\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        self.write(head % (STATUS_LINES[status], self.default_fields()[0], len(body)) + body)
        self._linger()

    def _report(self, status: int, reason: str) -> None:
        """Call `on_refusal` for a request that is rejected by its head."""
        if self.on_refusal is None:
            return
        method, path = OTHER_METHOD, ""
        if self._url and self._parser is not None:
            method = self._parser.get_method().decode()
            if method not in METHODS:
                method = OTHER_METHOD
        if self._url[:1] == b"/":  # a whole URL may contain a password, and so may a query
            path = path_of(self._url)
        duration = self.loop.time() - self._waiting_since if self._counted_bytes else 0.0
        self.on_refusal(RequestRecord(method, UNMATCHED, path, status, duration, "", False, {"reason": reason}))

    def _wait_from_now(self, seconds: float) -> None:
        self._waiting_since = self.loop.time()
        if self._timer is None:
            self._timer = self.loop.call_later(seconds, self._check_deadline)

    def stop_timer(self) -> None:
        """Stop the timer during a response that may take long, unless the request's body is still arriving."""
        if self._timer is not None and self.reading is None:
            self._timer.cancel()
            self._timer = None

    def _check_deadline(self) -> None:
        """Close the connection if its deadline has passed. No deadline runs while the app answers a whole request."""
        self._timer = None
        reason = ""
        if self.reading is not None:
            within, reason = BODY_WITHIN, "the body arrives too slowly"
            if self.exchange is not None:
                if self._paused or self.reading.awaits_continue:
                    self._waiting_since = self.loop.time()
            else:  # the app has answered it already
                within = REST_WITHIN
        elif self._url:
            within, reason = HEAD_WITHIN, "the head arrives too slowly"
        elif self.exchange is None:
            within = self.config.timeout_keep_alive
            if self.blocked is not None:  # the client still reads the last response
                self._waiting_since = self.loop.time()
        else:
            return
        left = self._waiting_since + within - self.loop.time()
        if left > 0:
            self._timer = self.loop.call_later(min(left, CHECK_EVERY), self._check_deadline)
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

    def _release(self) -> None:
        self.state.connections.discard(self)
        self._parser = None  # breaks a reference cycle
        self._unblock()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
