"""Opens TCP ports, or takes one over from the service manager."""

import errno
import os
import socket

BACKLOG = 4096
"""Connections that may wait in the kernel until the server accepts them. The kernel also limits them by
`net.core.somaxconn`."""


_INHERITED = 3  # SD_LISTEN_FDS_START of sd_listen_fds(3)


def inherited_port() -> socket.socket | None:
    """Return the listening socket that the service manager has opened for this process; None if there is none.

    systemd describes the protocol in sd_listen_fds(3). Raises `ValueError` for anything but one TCP socket.
    """
    if os.environ.pop("LISTEN_PID", None) != str(os.getpid()):
        return None
    count = os.environ.pop("LISTEN_FDS", "0")
    os.environ.pop("LISTEN_FDNAMES", None)
    if count != "1":
        raise ValueError(f"the service manager passes {count} sockets (LISTEN_FDS); pass one, on which the API listens")
    passed = socket.socket(fileno=_INHERITED)
    if passed.family not in (socket.AF_INET, socket.AF_INET6) or passed.type != socket.SOCK_STREAM:
        raise ValueError("the socket of the service manager is not a TCP socket; use ListenStream= with a port")
    if not passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise ValueError("the socket of the service manager does not listen; use Accept=no, systemd's default")
    passed.set_inheritable(False)
    return passed


def open_port(host: str, port: int) -> socket.socket:
    """Return a socket that listens on an address of this machine. Port 0 means any free port. Raises `OSError`."""
    bound = bind_port(host, port)
    try:
        bound.listen(BACKLOG)
    except OSError:
        bound.close()
        raise
    return bound


def bind_port(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to an address and does not listen. Raises as `open_port` does."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except ValueError:  # a part of the name is empty or too long, or the name contains a NUL
        raise OSError(errno.EINVAL, "this is not the name of a host") from None
    # If a name has IPv4 and IPv6 addresses, use the IPv4 one, as earlier versions did.
    family, _, _, _, address = min(found, key=lambda one: one[0] is not socket.AF_INET)
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound
