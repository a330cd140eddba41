"""Opens TCP ports and Unix sockets, or takes one over from the service manager."""

import errno
import fcntl
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

BACKLOG = 4096
"""Connections that may wait in the kernel until the server accepts them. The kernel also limits them by
`net.core.somaxconn`."""


LOCKED_WITHIN = 2.0
"""Seconds within which another server has to have opened or removed its socket in the same folder."""
MAX_UNIX_PATH = 107
"""Bytes of a path (unix(7))."""
_INHERITED = 3  # SD_LISTEN_FDS_START of sd_listen_fds(3)


def inherited_port() -> socket.socket | None:
    """Return the listening socket that the service manager has opened for this process; None if there is none.

    systemd describes the protocol in sd_listen_fds(3). Raises `ValueError` for anything but one socket of streams.
    """
    if os.environ.pop("LISTEN_PID", None) != str(os.getpid()):
        return None
    count = os.environ.pop("LISTEN_FDS", "0")
    os.environ.pop("LISTEN_FDNAMES", None)
    if count != "1":
        raise ValueError(f"the service manager passes {count} sockets (LISTEN_FDS); pass one, on which the API listens")
    passed = socket.socket(fileno=_INHERITED)
    if passed.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX) or passed.type != socket.SOCK_STREAM:
        raise ValueError("it is neither a TCP socket nor a Unix socket of streams; use ListenStream=")
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
    # If a name has IPv4 and IPv6 addresses, use the IPv4 one.
    family, _, _, _, address = min(found, key=lambda one: one[0] is not socket.AF_INET)
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound


def open_unix_socket(path: Path, mode: int) -> socket.socket:
    """Return a socket that listens at a path. `mode` are its permissions; users with write permission may connect.

    A socket that a dead process has left at the path is replaced. Raises `OSError`, with `EADDRINUSE` if another
    process listens there, and with `EEXIST` if something else is at the path.
    """
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _locked_folder(path):
            remove_unused(path)
            bound.bind(str(path))
            os.chmod(path, mode)  # before anybody can connect
            bound.listen(BACKLOG)
    except OSError:
        bound.close()
        raise
    return bound


def close_unix_socket(path: Path) -> None:
    """Remove the socket of a server that has ended, unless another one already listens at the path."""
    with suppress(OSError), _locked_folder(path):
        remove_unused(path)


def remove_unused(path: Path) -> None:
    """Remove the socket at a path if no process listens there. Raises `OSError` as `open_unix_socket` does."""
    check_unused(path)
    path.unlink(missing_ok=True)


def check_unused(path: Path) -> None:
    """Raise `OSError` if no socket can be opened at a path: something else is there, or a process listens there."""
    if len(os.fsencode(path)) > MAX_UNIX_PATH:
        raise OSError(errno.ENAMETOOLONG, f"the path of a Unix socket has at most {MAX_UNIX_PATH} bytes")
    path.parent.stat()
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))
    try:
        is_socket = stat.S_ISSOCK(path.lstat().st_mode)
    except FileNotFoundError:
        return
    if not is_socket:
        raise OSError(errno.EEXIST, "it is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.setblocking(False)  # the backlog of a busy server may be full
        refused = client.connect_ex(str(path))
    if refused == errno.EACCES:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))
    if refused not in (errno.ECONNREFUSED, errno.ENOENT):
        raise OSError(errno.EADDRINUSE, "another process listens there")


def _lock(descriptor: int, folder: Path) -> None:
    """Lock a folder. Raises `OSError` if another process keeps it locked: a server needs it for an instant."""
    end = time.monotonic() + LOCKED_WITHIN
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise OSError(errno.EAGAIN, f"another process keeps {folder} locked (see `lslocks`)") from None
            time.sleep(0.02)


@contextmanager
def _locked_folder(path: Path) -> Iterator[None]:
    """Hold a lock on the folder of a socket, so that of two servers that start at once only one gets the path."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _lock(folder, path.parent)
        yield
    finally:
        os.close(folder)
