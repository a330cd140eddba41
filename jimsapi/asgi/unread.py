"""What a client has not read yet, as far as the server's transport and the kernel know."""

import asyncio
import sys
from time import monotonic
from typing import Any

from .types import Send

if sys.platform != "win32":
    import fcntl
    import termios


def unread_bytes(transport: asyncio.Transport) -> int:
    """Bytes that were written and that the client's side has not acknowledged.

    Without the kernel's part, which may be megabytes, a slow client would seem to read nothing for minutes: the kernel
    accepts more only when a third of its buffer is free.
    """
    return transport.get_write_buffer_size() + _unacknowledged(transport)


def unread_of(send: Send) -> int | None:
    """The same for the connection behind ASGI's `send`; None if this server does not show it."""
    server = getattr(send, "__self__", None)
    transport: Any = getattr(server, "transport", None)
    return unread_bytes(transport) if hasattr(transport, "get_write_buffer_size") else None


class Stall:
    """Since when the client has read nothing, while one `send` waits: `since`, by the clock `monotonic`."""

    __slots__ = ("_send", "_unread", "began", "since")

    def __init__(self, send: Send, began: float) -> None:
        self.began = began
        self._send = send
        self._unread = unread_of(send)
        # What the client read before this moment is not known.
        self.since = began if self._unread is None else monotonic()

    def update(self) -> None:
        """Look again. It has to be called several times within the time that matters."""
        unread = unread_of(self._send)
        if unread is not None and self._unread is not None and unread < self._unread:
            self.since = monotonic()
        self._unread = unread


def _unacknowledged(transport: asyncio.Transport) -> int:
    """Bytes that the kernel keeps for the client (tcp(7), SIOCOUTQ); 0 where it does not say."""
    connection = transport.get_extra_info("socket")
    if connection is None or sys.platform == "win32":
        return 0
    try:
        return int.from_bytes(fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except (OSError, ValueError):  # it is closed, or not TCP
        return 0
