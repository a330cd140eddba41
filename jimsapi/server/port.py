"""Opening a TCP port."""

import errno
import socket

BACKLOG = 2048
"""Connections that the system accepts for us before we do."""


def open_port(host: str, port: int) -> socket.socket:
    """A socket that listens on an address of this machine. Port 0 is any free one. Raises `OSError`."""
    bound = bind_port(host, port)
    try:
        bound.listen(BACKLOG)
    except OSError:
        bound.close()
        raise
    return bound


def bind_port(host: str, port: int) -> socket.socket:
    """A socket that holds an address, but does not listen: clients do not see it. Raises as `open_port` does."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except ValueError:  # a part of a name that is empty or too long, or NUL
        raise OSError(errno.EINVAL, "this is not the name of a host") from None
    # A name that has addresses of both kinds means the IPv4 one, as it always has.
    family, _, _, _, address = min(found, key=lambda one: one[0] is not socket.AF_INET)
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound
