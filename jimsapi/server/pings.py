"""Pings of a WebSocket (RFC 6455, 5.5.2), which detect clients that are gone.

uvicorn closes a connection if the pong is late. But the client receives a ping only after all earlier data, so a client
that reads slowly also answers late. Here a client counts as present if it has read the ping and has sent something
since, or if it continues to read.
"""

import asyncio
import struct

from jimsapi.asgi.unread import unread_bytes
from jimsapi.server.sockets import reset

_RECORD, _RECORD_ADDS = 16_384, 64
"""Bytes of a TLS record, and an upper bound for the bytes that TLS adds to each."""

_PING = b"\x89\x00"
_REASON = b"keepalive ping timeout"
_CLOSE = bytes([0x88, 2 + len(_REASON)]) + struct.pack(">H", 1011) + _REASON


class Pings:
    """Pings the client every `interval` seconds, and ends the connection if the client is not present `timeout` seconds
    after a ping.

    The connection calls `received` and `wrote` when it receives or writes data.
    """

    __slots__ = (
        "_acknowledged",
        "_has_received",
        "_interval",
        "_since_ping",
        "_timeout",
        "_timer",
        "_transport",
        "_written",
    )

    def __init__(self, transport: asyncio.Transport, interval: float, timeout: float) -> None:
        self._transport = transport
        self._interval = interval
        self._timeout = timeout
        self._has_received = False
        self._acknowledged = 0
        self._written = 0
        self._since_ping = 0  # bytes written since the last ping, including those that TLS may add
        self._timer = asyncio.get_running_loop().call_later(interval, self._ping)

    def received(self) -> None:
        """Note that the client has sent something."""
        self._has_received = True

    def wrote(self, size: int) -> None:
        """Note that the connection has written `size` bytes."""
        self._written += size
        self._since_ping += size + (size // _RECORD + 1) * _RECORD_ADDS

    def stop(self) -> None:
        """Stop pinging."""
        self._timer.cancel()

    def _ping(self) -> None:
        if self._transport.is_closing():
            return
        self._transport.write(_PING)
        self._written += len(_PING)
        self._since_ping = 0
        self._has_received = False
        # The client's kernel acknowledges the ping even if the client has stopped reading, so count it as read.
        self._acknowledged = self._written - unread_bytes(self._transport) + len(_PING)
        self._timer = asyncio.get_running_loop().call_later(self._timeout, self._check)

    def _check(self) -> None:
        if self._transport.is_closing():
            return
        unread = unread_bytes(self._transport)
        before, self._acknowledged = self._acknowledged, self._written - unread
        reads = self._acknowledged > before
        if self._has_received and (reads or unread <= self._since_ping):  # later data may still be in transit
            wait = max(self._interval - self._timeout, 0.0)
            self._timer = asyncio.get_running_loop().call_later(wait, self._ping)
        elif reads:  # the client may not have reached the ping yet
            self._timer = asyncio.get_running_loop().call_later(self._timeout, self._check)
        elif unread:
            reset(self._transport)
        else:
            self._transport.write(_CLOSE)
            self._transport.close()
