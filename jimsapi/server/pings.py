"""Pings of a WebSocket (RFC 6455, 5.5.2): whether its client is still there.

uvicorn closes a connection whose pong is late. But a ping waits behind all that the client has not read yet, so a
client that reads slowly is late too. Here a client is present if it has sent something since
the ping and read the ping, or if it goes on reading.
"""

import asyncio
import struct

from jimsapi.asgi.unread import unread_bytes
from jimsapi.server.sockets import reset

_RECORD, _RECORD_ADDS = 16_384, 64
"""Bytes of a TLS record, and more than what TLS adds to each."""

_PING = b"\x89\x00"
_REASON = b"keepalive ping timeout"
_CLOSE = bytes([0x88, 2 + len(_REASON)]) + struct.pack(">H", 1011) + _REASON


class Pings:
    """Pings the client every `interval` seconds, and ends the connection if it is not present within `timeout` seconds
    after that.

    The connection reports what it receives and how many bytes it writes.
    """

    __slots__ = ("_acknowledged", "_interval", "_seen", "_since_ping", "_timeout", "_timer", "_transport", "_written")

    def __init__(self, transport: asyncio.Transport, interval: float, timeout: float) -> None:
        self._transport = transport
        self._interval = interval
        self._timeout = timeout
        self._seen = False
        self._acknowledged = 0
        self._written = 0
        self._since_ping = 0  # bytes written since then, with what TLS may add to them
        self._timer = asyncio.get_running_loop().call_later(interval, self._ping)

    def received(self) -> None:
        """The client has sent something."""
        self._seen = True

    def wrote(self, size: int) -> None:
        """The connection has written so many bytes."""
        self._written += size
        self._since_ping += size + (size // _RECORD + 1) * _RECORD_ADDS

    def stop(self) -> None:
        """Ping no more."""
        self._timer.cancel()

    def _ping(self) -> None:
        if self._transport.is_closing():
            return
        self._transport.write(_PING)
        self._written += len(_PING)
        self._since_ping = 0
        self._seen = False
        # The kernel acknowledges the ping itself also for a client that has stopped.
        self._acknowledged = self._written - unread_bytes(self._transport) + len(_PING)
        self._timer = asyncio.get_running_loop().call_later(self._timeout, self._check)

    def _check(self) -> None:
        if self._transport.is_closing():
            return
        unread = unread_bytes(self._transport)
        before, self._acknowledged = self._acknowledged, self._written - unread
        reads = self._acknowledged > before
        if self._seen and (reads or unread <= self._since_ping):  # what was written since then may be on its way
            wait = max(self._interval - self._timeout, 0.0)
            self._timer = asyncio.get_running_loop().call_later(wait, self._ping)
        elif reads:  # the ping may not have arrived
            self._timer = asyncio.get_running_loop().call_later(self._timeout, self._check)
        elif unread:
            reset(self._transport)
        else:
            self._transport.write(_CLOSE)
            self._transport.close()
