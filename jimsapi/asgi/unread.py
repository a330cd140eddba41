"""What a client has not read yet, as far as the server's transport and the kernel know."""

import asyncio
import sys

if sys.platform != "win32":
    import fcntl
    import termios


def unread_bytes(transport: asyncio.Transport) -> int:
    """Bytes that were written and that the client's side has not acknowledged.

    Without the kernel's part, which may be megabytes, a slow client would seem to read nothing for minutes: the kernel
    accepts more only when a third of its buffer is free.
    """
    return transport.get_write_buffer_size() + _unacknowledged(transport)


def _unacknowledged(transport: asyncio.Transport) -> int:
    """Bytes that the kernel keeps for the client (tcp(7), SIOCOUTQ); 0 where it does not say."""
    connection = transport.get_extra_info("socket")
    if connection is None or sys.platform == "win32":
        return 0
    try:
        return int.from_bytes(fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except (OSError, ValueError):  # it is closed, or not TCP
        return 0
