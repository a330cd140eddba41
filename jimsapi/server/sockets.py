"""Functions for the socket of a transport: unread data in the kernel, and ending the connection at once."""

import asyncio
import fcntl
import socket
import struct
import sys
import termios
from contextlib import suppress

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def has_unread(transport: asyncio.Transport) -> bool:
    """Return whether the kernel has data from the client that was not read. A close would then reset the connection."""
    connection = transport.get_extra_info("socket")
    if connection is None:  # TLS has ended already
        return False
    try:
        return int.from_bytes(fcntl.ioctl(connection.fileno(), termios.FIONREAD, bytes(4)), sys.byteorder) > 0
    except (OSError, ValueError):  # the socket is closed
        return False


def reset(transport: asyncio.Transport) -> None:
    """End a connection at once with a TCP reset, and discard the data that waits to be sent."""
    connection = transport.get_extra_info("socket")
    if connection is not None:
        with suppress(OSError, ValueError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    transport.abort()
