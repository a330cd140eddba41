"""Clients that are slow on purpose, each kind in its own way. They are plain sockets, driven from one thread."""

import secrets
import socket
import ssl
import time
from base64 import b64encode
from dataclasses import dataclass

from tests.faults.measured import KEY, get

CONNECT_WITHIN = 10.0
RECEIVE_BUFFER = 4096
"""Bytes that the kernel keeps for a client that does not read: few, so that the rest stays with the server."""
NUMBER = b"NUMBER"
"""Stands for the client's number in what it sends."""
_ESTABLISHED = 1  # of the states in `struct tcp_info`


@dataclass(frozen=True)
class Kind:
    """How a client is slow.

    It sends `first`; after that, each `every` seconds, it sends `then` or, if it `reads`, reads a byte. If `every` is 0
    it does nothing. With `handshake` it waits for the first answer before. If it is `prompt` it reads all that comes at
    once: it is not slow, and shows what its requests cost. `opened_each_second` keeps the work of answering them all
    from being what is measured.
    """

    first: bytes = b""
    then: bytes = b"x"
    every: float = 0.0
    reads: bool = False
    handshake: bool = False
    prompt: bool = False
    on_metrics_port: bool = False
    tls: bool = False
    opened_each_second: float = 200.0


class SlowClient:
    """One client, connected.

    Raises `OSError` if it cannot connect.
    """

    def __init__(self, port: int, kind: Kind, number: int) -> None:
        self.closed_after: float | None = None
        """Seconds after which the server had closed the connection; None while it is open."""
        self._kind = kind
        self._then = kind.then.replace(NUMBER, b"%06d" % number)
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.settimeout(CONNECT_WITHIN)
        self._socket.connect(("127.0.0.1", port))
        self._socket.sendall(kind.first.replace(NUMBER, b"%06d" % number))
        self._socket.setblocking(False)
        self._ready = not kind.handshake
        self._opened_at = time.monotonic()
        self._due_at = self._opened_at + kind.every

    def step(self) -> None:
        """Do what is due."""
        if not self._kind.every or self.closed_after is not None:
            return
        try:
            if self._kind.prompt and self._ready:
                self._read_all()
            if not self._ready:  # a server that is busy accepts the connection later
                self._ready = bool(self._socket.recv(RECEIVE_BUFFER))
            elif time.monotonic() >= self._due_at:
                self._due_at += self._kind.every
                if self._kind.reads:
                    self._socket.recv(1)
                else:
                    self._socket.send(self._then)
        except BlockingIOError:
            pass
        except OSError:
            self._mark_closed()

    def _read_all(self) -> None:
        try:
            while self._socket.recv(RECEIVE_BUFFER):
                pass
        except BlockingIOError:
            pass

    def look(self) -> None:
        """Notice whether the server has closed the connection, without reading from it."""
        if self.closed_after is None and not is_open(self._socket):
            self._mark_closed()

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def _mark_closed(self) -> None:
        self.closed_after = time.monotonic() - self._opened_at


def is_open(connection: socket.socket) -> bool:
    """Whether neither side has closed a connection, as far as the kernel has seen it. Takes no byte from it."""
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _ESTABLISHED


def post_head(key: str, length: int) -> bytes:
    """The head of a chat whose body has so many bytes."""
    lines = ["POST /api/v1/chat HTTP/1.1", "host: test", "content-type: application/json"]
    return "\r\n".join([*lines, f"authorization: Bearer {key}", f"content-length: {length}", "", ""]).encode()


def handshake(*, key: bool = True) -> bytes:
    """A WebSocket's handshake, with the key or without."""
    nonce = b64encode(secrets.token_bytes(16)).decode()
    lines = ["GET /api/v1/chat/ws HTTP/1.1", "host: test", "upgrade: websocket", "connection: upgrade"]
    lines += [f"sec-websocket-key: {nonce}", "sec-websocket-version: 13"]
    if key:
        lines.append(f"authorization: Bearer {KEY}")
    return "\r\n".join([*lines, "", ""]).encode()


def frame(contact: bytes, message: bytes) -> bytes:
    """A chat as a client sends it over a WebSocket (RFC 6455, 5.2). The mask is 0; `contact` may be `NUMBER`, which
    every number takes the place of that has as many digits."""
    text = b'{"type":"chat","contact_id":"%b","message":"%b"}' % (contact, message)
    assert len(text) < 126
    return bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text


def client_hello() -> bytes:
    """How a TLS handshake begins."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise RuntimeError("a handshake ended without its server")


EVENTS = "/api/v1/threads/{thread}/events"
KINDS = {
    "head": Kind(get("/healthz")[:-2] + b"x-slow: ", every=1.0),
    "body": Kind(post_head(KEY, 60_000) + b'{"contact_id":"NUMBER","message":"', every=1.0),
    "reader": Kind(get(EVENTS), opened_each_second=20.0),
    "reader-byte": Kind(get(EVENTS), every=1.0, reads=True, opened_each_second=20.0),
    "idle": Kind(),
    "websocket": Kind(handshake()),
    "websocket-reader": Kind(
        handshake(), then=frame(NUMBER, b"give 100000"), every=20.0, handshake=True, opened_each_second=50.0
    ),
    "tls": Kind(client_hello()[:100], tls=True),
    "linger": Kind(post_head("wrong", 60_000), every=10.0),
    "metrics": Kind(on_metrics_port=True),
}
"""All kinds by name. `{thread}` stands for a thread with a large message."""
