"""Measures the bytes that a client has not read, as far as the server's transport and the kernel know."""

import asyncio
import sys

if sys.platform != "win32":
    import fcntl
    import termios


def unread_bytes(transport: asyncio.Transport) -> int:
    """Return the number of bytes that were written and that the client's system has not acknowledged.

    It includes the bytes in the kernel's buffer, which may be megabytes. Without them a slow client would seem to read
    nothing for minutes, since the kernel accepts more bytes only when a third of its buffer is free.
    """
    return transport.get_write_buffer_size() + _unacknowledged(transport)


def _unacknowledged(transport: asyncio.Transport) -> int:
    """Return the bytes in the kernel's send buffer (tcp(7), SIOCOUTQ); 0 if the kernel does not report it."""
    connection = transport.get_extra_info("socket")
    if connection is None or sys.platform == "win32":
        return 0
    try:
        return int.from_bytes(fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except (OSError, ValueError):  # the socket is closed, or not TCP
        return 0
