"""TLS with flow control for clients that read slowly.

An event loop's TLS transport encrypts all data at once and passes it to the TCP transport, which buffers the data that
the client has not read. The TLS transport does not count these bytes, does not pause the app, and discards them if the
client does not answer `close_notify` in time. `TlsTransport` behaves like a plain TCP transport instead.
"""

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, cast

_UNLIMITED = 2**30
"""The high-water mark of the TLS transport, in bytes. It is never reached: the limits of TCP apply."""
_PIECE = 65_536
"""Maximum number of bytes that are encrypted at once."""


async def open_tls(
    connection: socket.socket,
    make_protocol: Callable[[], asyncio.Protocol],
    context: ssl.SSLContext,
    *,
    handshake_within: float,
    close_within: float,
) -> None:
    """Do a TLS handshake on an accepted connection, then connect a new protocol to it.

    The client has `handshake_within` seconds for the handshake, and `close_within` seconds to answer `close_notify`
    after all other data was sent. Raises `OSError` if the handshake fails.
    """
    loop = asyncio.get_running_loop()
    tcp, early = await loop.connect_accepted_socket(_ReceiveBuffer, connection)
    received = _ReceiveBuffer()

    async def start() -> asyncio.Transport | None:
        if tcp.is_closing():  # a handshake would never end
            raise ConnectionResetError("the client disconnected before the TLS handshake")
        return await loop.start_tls(
            tcp,
            received,
            context,
            server_side=True,
            ssl_handshake_timeout=handshake_within,
            ssl_shutdown_timeout=close_within,
        )

    starting = loop.create_task(start())
    try:
        await asyncio.sleep(0)
        if early.data and not starting.done():
            # `start_tls` connects TLS in the next pass of the loop, and TLS first reads after that pass.
            loop.call_soon(_feed, cast(asyncio.BufferedProtocol, tcp.get_protocol()), bytes(early.data))
        tls = await starting
    except BaseException:
        starting.cancel()
        tcp.close()
        raise
    assert tls is not None  # it is None only if the transport is closing
    if tcp.get_protocol() is None:  # with asyncio, if the connection was lost after the handshake
        raise ConnectionResetError("the client disconnected after the TLS handshake")
    protocol = make_protocol()
    transport = TlsTransport(tls, tcp)
    tls.set_protocol(protocol)
    protocol.connection_made(cast(asyncio.Transport, transport))
    received.pass_on(protocol)


def _feed(tls: asyncio.BufferedProtocol, data: bytes) -> None:
    """Pass data to TLS that the client sent before TLS was connected."""
    while data:
        buffer = memoryview(tls.get_buffer(len(data)))
        size = min(len(buffer), len(data))
        buffer[:size] = data[:size]
        tls.buffer_updated(size)
        data = data[size:]


class _ReceiveBuffer(asyncio.Protocol):
    """Buffers the events of a connection until its protocol is connected."""

    def __init__(self) -> None:
        self.data = bytearray()
        self._ended = False
        self._lost: list[Exception | None] = []
        self._protocol: asyncio.Protocol | None = None

    def data_received(self, data: bytes) -> None:
        self.data += data

    def eof_received(self) -> None:
        self._ended = True

    def connection_lost(self, exc: Exception | None) -> None:
        if self._protocol is None:
            self._lost.append(exc)
        else:  # the loop had scheduled this call before `pass_on`
            self._protocol.connection_lost(exc)

    def pass_on(self, protocol: asyncio.Protocol) -> None:
        """Pass all events to `protocol`, which must be connected."""
        self._protocol = protocol
        if self.data:
            protocol.data_received(bytes(self.data))
        if self._ended:
            protocol.eof_received()
        for exc in self._lost:
            protocol.connection_lost(exc)


class TlsTransport:
    """A TLS transport that encrypts data only as fast as the TCP transport below it sends.

    It buffers the rest unencrypted: an encrypted copy would need the memory twice, and OpenSSL never shrinks its
    buffer. The protocol above is paused while TCP's buffer is full. `close` ends TLS when all data is sent; until then
    the protocol may still receive data.
    """

    def __init__(self, tls: asyncio.Transport, tcp: asyncio.Transport) -> None:
        self._tls = tls
        self._tcp = tcp
        self._queued: deque[memoryview] = deque()
        self._queued_size = 0
        self._closing = False
        self._tcp_paused = False
        self._paused = False
        self.set_write_buffer_limits = tcp.set_write_buffer_limits
        tls.set_write_buffer_limits(_UNLIMITED)
        tcp.set_protocol(_TcpProtocol(cast(asyncio.BufferedProtocol, tcp.get_protocol()), self))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tls, name)

    def write(self, data: bytes) -> None:
        """Send `data`, after all data that was written before."""
        if not self._tcp_paused and len(data) <= _PIECE:
            self._tls.write(data)
            return
        self._queued.append(memoryview(data))
        self._queued_size += len(data)
        if not self._tcp_paused:
            self._send_queued()

    def writelines(self, parts: Iterable[bytes]) -> None:
        """Send all `parts`, in order."""
        self.write(b"".join(parts))

    def get_write_buffer_size(self) -> int:
        """Return the number of bytes that the kernel has not accepted yet."""
        return self._queued_size + self._tls.get_write_buffer_size() + self._tcp.get_write_buffer_size()

    def is_closing(self) -> bool:
        """Return whether `close` was called or TLS has ended."""
        return self._closing or self._tls.is_closing()

    def close(self) -> None:
        """End TLS and the connection as soon as all data is sent."""
        if self.is_closing():
            return
        self._closing = True
        if self.get_write_buffer_size():
            self._tcp.set_write_buffer_limits(0)  # TCP then calls `resume_writing` when its buffer is empty
        else:
            self._tls.close()

    def on_tcp_paused(self) -> None:
        """Pause the protocol: TCP's buffer is full."""
        self._tcp_paused = True
        if not self._paused:
            self._paused = True
            cast(asyncio.Protocol, self._tls.get_protocol()).pause_writing()

    def on_tcp_resumed(self) -> None:
        """Send queued data, and resume the protocol: TCP's buffer has room."""
        self._tcp_paused = False
        self._send_queued()
        if self._tcp_paused:
            return
        if self._paused:
            self._paused = False
            cast(asyncio.Protocol, self._tls.get_protocol()).resume_writing()
        if self._closing:
            self._tls.close()

    def on_lost(self) -> None:
        """Discard the queued data: the connection has ended."""
        self._queued.clear()
        self._queued_size = 0

    def _send_queued(self) -> None:
        while self._queued and not self._tcp_paused:
            data = self._queued.popleft()
            if len(data) > _PIECE:
                self._queued.appendleft(data[_PIECE:])
                data = data[:_PIECE]
            self._queued_size -= len(data)
            self._tls.write(data)


class _TcpProtocol(asyncio.BufferedProtocol):
    """The protocol of the TCP transport. It passes events on to TLS, and flow control also to `TlsTransport`."""

    def __init__(self, tls: asyncio.BufferedProtocol, transport: TlsTransport) -> None:
        self._tls = tls
        self._transport = transport
        self._paused = False
        # TCP passes received data directly to TLS.
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
        self._tls.resume_writing()  # this writes encrypted data, which may pause TCP again
        if not self._paused:
            self._transport.on_tcp_resumed()
