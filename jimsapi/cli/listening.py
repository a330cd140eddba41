"""The port or Unix socket on which the command listens, and the URL that it prints."""

import errno
import socket
from pathlib import Path

import msgspec

from jimsapi.api.metrics import MetricsOptions
from jimsapi.cli.options import ServerOptions
from jimsapi.plugins.errors import StartError
from jimsapi.server.port import inherited_port, open_port, open_unix_socket


class Port(msgspec.Struct, frozen=True):
    """The socket that the command listens on.

    `own_path`: its path, if it is a Unix socket that the command has opened itself. `is_inherited`: the service manager
    has opened it, and keeps it open.
    """

    listening: socket.socket
    own_path: Path | None = None
    is_inherited: bool = False


def bind(server: ServerOptions) -> Port:
    """Open the port or the Unix socket, or take it over from the service manager. The command calls this first.

    Raises `StartError` with the reason if there is nothing to listen on.
    """
    try:
        if (inherited := inherited_port()) is not None:
            return Port(inherited, is_inherited=True)
    except (ValueError, OSError) as error:
        raise StartError(f"cannot use the socket of the service manager: {error}") from error
    try:
        # The port is open from now on. A second server then fails here, before it ends the runs of this one.
        if server.uds is not None:
            return Port(open_unix_socket(server.uds, int(server.uds_mode, 8)), own_path=server.uds)
        return Port(open_port(server.host, server.port))
    except OSError as error:
        raise StartError(cannot_listen(server, error)) from error


def cannot_listen(server: ServerOptions, error: OSError) -> str:
    """Return the reason why the port of the API, or its Unix socket, cannot be opened, for the operator."""
    if server.uds is not None:
        folder = server.uds.parent
        advice = {
            errno.EADDRINUSE: "stop that program, or use another path",
            errno.ENOENT: f"create the folder {folder}, or use another path",
            errno.EACCES: f"let this user write into the folder {folder}, or use another path",
        }
        text = advice.get(error.errno or 0, "use another path")
        return f"cannot listen on --uds {server.uds}: {error.strerror or error}; {text}"
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {server.port} on {server.host} is in use: stop the program that listens there, or use another --port"
        )
    return f"cannot listen on {server.host}:{server.port}: {error.strerror or error}; use another --host or --port"


def refuse_shared_port(server: ServerOptions, metrics: MetricsOptions) -> None:
    """Raise `StartError` if `--port` and `--metrics-port` are the same port of the same address."""
    if server.uds is not None:
        return
    hosts = {server.host, metrics.host}
    if server.port and server.port == metrics.port and (len(hosts) == 1 or hosts & {"0.0.0.0", "::"}):
        raise StartError(
            f"--port and --metrics-port are both {server.port}: use another --metrics-port, or 0 to turn metrics off"
        )


def address_of(server: ServerOptions, listening: socket.socket | None = None) -> str:
    """Return the URL of the server, or the path of its Unix socket after `unix:`. It has no `--root-path`.

    `listening` is its socket, which the service manager may have opened on another address than `--host`.
    """
    host, port = server.host, server.port
    if listening is None and server.uds is not None:
        return f"unix:{server.uds}"
    if listening is not None:
        if listening.family == socket.AF_UNIX:
            return f"unix:{listening.getsockname()}"
        bound, port = listening.getsockname()[:2]
        if server.port not in (0, port):
            host = bound
    scheme = "https" if server.ssl_certfile else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
