"""The port on which the command listens, and the URL that it prints."""

import errno
import socket

from jimsapi.api.metrics import MetricsOptions
from jimsapi.cli.options import ServerOptions
from jimsapi.plugins.errors import StartError
from jimsapi.server.port import inherited_port, open_port


def bind(host: str, port: int) -> socket.socket:
    """Open the port, or take it over from the service manager. The command calls this first.

    Raises `StartError` with the reason if there is no port to listen on.
    """
    try:
        if (inherited := inherited_port()) is not None:
            return inherited
    except (ValueError, OSError) as error:
        raise StartError(f"cannot use the socket of the service manager: {error}") from error
    try:
        # The port is open from now on. A second server then fails here, before it ends the runs of this one.
        return open_port(host, port)
    except OSError as error:
        raise StartError(cannot_listen(host, port, error)) from error


def cannot_listen(host: str, port: int, error: OSError) -> str:
    """Return the reason why the port of the API cannot be opened, for the operator."""
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use: stop the program that listens there, or use another --port"
    return f"cannot listen on {host}:{port}: {error.strerror or error}; use another --host or --port"


def refuse_shared_port(server: ServerOptions, metrics: MetricsOptions) -> None:
    """Raise `StartError` if `--port` and `--metrics-port` are the same port of the same address."""
    hosts = {server.host, metrics.host}
    if server.port and server.port == metrics.port and (len(hosts) == 1 or hosts & {"0.0.0.0", "::"}):
        raise StartError(
            f"--port and --metrics-port are both {server.port}: use another --metrics-port, or 0 to turn metrics off"
        )


def address_of(server: ServerOptions, listening: socket.socket | None = None) -> str:
    """Return the URL of the server. It does not include `--root-path`, which a proxy removes from the path.

    `listening` is its socket, which the service manager may have opened on another address than `--host`.
    """
    host, port = server.host, server.port
    if listening is not None:
        bound, port = listening.getsockname()[:2]
        if server.port not in (0, port):
            host = bound
    scheme = "https" if server.ssl_certfile else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
