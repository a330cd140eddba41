"""TLS over a TCP connection whose client may read slowly.

An event loop's TLS transport encrypts everything at once and passes it on to the TCP transport below it, which keeps
what the client has not read. It neither counts these bytes nor pauses the app because of them, and it drops them if the
client has not answered the end of TLS in time. `TlsTransport` behaves as a plain TCP transport.
"""

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, cast

_UNLIMITED = 2**30
"""Bytes above which TLS itself pauses the app. TCP's limits rule."""
_PIECE = 65_536
"""Bytes that are encrypted at once."""


async def open_tls(
    connection: socket.socket,
    make_protocol: Callable[[], asyncio.Protocol],
    context: ssl.SSLContext,
    *,
    handshake_within: float,
    close_within: float,
) -> None:
    """Begin TLS on an accepted connection, then connect a new protocol to it.

    `handshake_within` and `close_within` are the seconds that the client has for the handshake, and to answer the end
    of TLS once everything else was sent. Raises `OSError` if the handshake fails.
    """
    loop = asyncio.get_running_loop()
    tcp, before = await loop.connect_accepted_socket(_Received, connection)
    above = _Received()

    async def start() -> asyncio.Transport | None:
        if tcp.is_closing():  # no handshake on it would end
            raise ConnectionResetError("the client has left before the TLS handshake")
        return await loop.start_tls(
            tcp,
            above,
            context,
            server_side=True,
            ssl_handshake_timeout=handshake_within,
            ssl_shutdown_timeout=close_within,
        )

    starting = loop.create_task(start())
    try:
        await asyncio.sleep(0)
        if before.data and not starting.done():
            # TLS is connected in the next pass of the loop, and reads for the first time after that pass.
            loop.call_soon(_feed, cast(asyncio.BufferedProtocol, tcp.get_protocol()), bytes(before.data))
        tls = await starting
    except BaseException:
        starting.cancel()
        tcp.close()
        raise
    assert tls is not None  # only a transport that is closing has none
    if tcp.get_protocol() is None:  # asyncio: the connection was lost since the handshake ended
        raise ConnectionResetError("the client has left after the TLS handshake")
    protocol = make_protocol()
    transport = TlsTransport(tls, tcp)
    tls.set_protocol(protocol)
    protocol.connection_made(cast(asyncio.Transport, transport))
    above.pass_on(protocol)


def _feed(tls: asyncio.BufferedProtocol, data: bytes) -> None:
    """Give TLS what the client has sent before it began."""
    while data:
        buffer = memoryview(tls.get_buffer(len(data)))
        size = min(len(buffer), len(data))
        buffer[:size] = data[:size]
        tls.buffer_updated(size)
        data = data[size:]


class _Received(asyncio.Protocol):
    """Keeps what a connection receives until its protocol is there."""

    def __init__(self) -> None:
        self.data = bytearray()
        self._ended = False
        self._lost: list[Exception | None] = []
        self._next: asyncio.Protocol | None = None

    def data_received(self, data: bytes) -> None:
        self.data += data

    def eof_received(self) -> None:
        self._ended = True

    def connection_lost(self, exc: Exception | None) -> None:
        if self._next is None:
            self._lost.append(exc)
        else:  # the loop had scheduled the call before
            self._next.connection_lost(exc)

    def pass_on(self, protocol: asyncio.Protocol) -> None:
        """Pass everything on to `protocol`, which is connected."""
        self._next = protocol
        if self.data:
            protocol.data_received(bytes(self.data))
        if self._ended:
            protocol.eof_received()
        for exc in self._lost:
            protocol.connection_lost(exc)


class TlsTransport:
    """A TLS transport that writes only as fast as the TCP transport below it sends.

    It keeps the rest as it is: encrypted, it would be there a second time, and OpenSSL keeps the largest buffer that it
    ever needed. The protocol above is paused while TCP's buffer is full, and `close` ends TLS when all is sent. Until
    then the protocol may still receive data.
    """

    def __init__(self, tls: asyncio.Transport, tcp: asyncio.Transport) -> None:
        self._tls = tls
        self._tcp = tcp
        self._kept: deque[memoryview] = deque()
        self._kept_size = 0
        self._closing = False
        self._tcp_paused = False
        self._paused = False
        self.set_write_buffer_limits = tcp.set_write_buffer_limits
        tls.set_write_buffer_limits(_UNLIMITED)
        tcp.set_protocol(_Below(cast(asyncio.BufferedProtocol, tcp.get_protocol()), self))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tls, name)

    def write(self, data: bytes) -> None:
        """Send `data`, after all that was written before it."""
        if not self._tcp_paused and len(data) <= _PIECE:
            self._tls.write(data)
            return
        self._kept.append(memoryview(data))
        self._kept_size += len(data)
        if not self._tcp_paused:
            self._send_kept()

    def writelines(self, parts: Iterable[bytes]) -> None:
        """Send these, in order."""
        self.write(b"".join(parts))

    def get_write_buffer_size(self) -> int:
        """Bytes that the kernel has not accepted yet."""
        return self._kept_size + self._tls.get_write_buffer_size() + self._tcp.get_write_buffer_size()

    def is_closing(self) -> bool:
        """Whether `close` was called, or TLS has ended."""
        return self._closing or self._tls.is_closing()

    def close(self) -> None:
        """End TLS, and then the connection, as soon as everything is sent."""
        if self.is_closing():
            return
        self._closing = True
        if self.get_write_buffer_size():
            self._tcp.set_write_buffer_limits(0)  # so that it resumes when it is empty
        else:
            self._tls.close()

    def on_tcp_paused(self) -> None:
        """TCP's buffer is full."""
        self._tcp_paused = True
        if not self._paused:
            self._paused = True
            cast(asyncio.Protocol, self._tls.get_protocol()).pause_writing()

    def on_tcp_resumed(self) -> None:
        """TCP's buffer has room."""
        self._tcp_paused = False
        self._send_kept()
        if self._tcp_paused:
            return
        if self._paused:
            self._paused = False
            cast(asyncio.Protocol, self._tls.get_protocol()).resume_writing()
        if self._closing:
            self._tls.close()

    def on_lost(self) -> None:
        """The connection has ended."""
        self._kept.clear()
        self._kept_size = 0

    def _send_kept(self) -> None:
        while self._kept and not self._tcp_paused:
            data = self._kept.popleft()
            if len(data) > _PIECE:
                self._kept.appendleft(data[_PIECE:])
                data = data[:_PIECE]
            self._kept_size -= len(data)
            self._tls.write(data)


class _Below(asyncio.BufferedProtocol):
    """What TCP is connected to: TLS, and `TlsTransport` for the flow of what is written."""

    def __init__(self, tls: asyncio.BufferedProtocol, transport: TlsTransport) -> None:
        self._tls = tls
        self._transport = transport
        self._paused = False
        # TCP calls TLS itself with what it reads.
        self.get_buffer = tls.get_buffer  # type: ignore[method-assign]
        self.buffer_updated = tls.buffer_updated  # type: ignore[method-assign]
        self.eof_received = tls.eof_received  # type: ignore[method-assign]

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport.on_lost()
        self._tls.connection_lost(exc)

    def pause_writing(self) -> None:
        self._paused = True
        self._tls.pause_writing()
        self._transport.on_tcp_paused()

    def resume_writing(self) -> None:
        self._paused = False
        self._tls.resume_writing()  # writes what it has encrypted, which may pause again
        if not self._paused:
            self._transport.on_tcp_resumed()
