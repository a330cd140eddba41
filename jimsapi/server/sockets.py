"""What the kernel knows of a connection, and how it is ended at once."""

import asyncio
import fcntl
import socket
import struct
import sys
import termios
from contextlib import suppress

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def has_unread(transport: asyncio.Transport) -> bool:
    """Whether the kernel has bytes of the client that were not read: closing would then reset the connection."""
    connection = transport.get_extra_info("socket")
    if connection is None:  # TLS has ended already
        return False
    try:
        return int.from_bytes(fcntl.ioctl(connection.fileno(), termios.FIONREAD, bytes(4)), sys.byteorder) > 0
    except (OSError, ValueError):  # it is closed
        return False


def reset(transport: asyncio.Transport) -> None:
    """End a connection at once, and drop what waits to be sent."""
    connection = transport.get_extra_info("socket")
    if connection is not None:
        with suppress(OSError, ValueError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    transport.abort()
