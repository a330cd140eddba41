"""Functions for the socket of a transport: unread data in the kernel, and ending the connection at once."""

import asyncio
import fcntl
import socket
import struct
import sys
import termios
from contextlib import suppress

UNIX_CLIENT = "unix", 0
"""The address of a client of a Unix socket. `--forwarded-allow-ips unix` trusts it."""
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


def unix_client(transport: asyncio.Transport) -> tuple[str, int] | None:
    """Return `UNIX_CLIENT` if the connection is one of a Unix socket; None for others, also if they have ended."""
    connection = transport.get_extra_info("socket")
    return UNIX_CLIENT if connection is not None and connection.family == socket.AF_UNIX else None
