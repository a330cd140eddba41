"""Where the command listens: its port, and the address that people are told."""

import errno
import socket

from jimsapi.api.metrics import MetricsOptions
from jimsapi.cli.options import ServerOptions
from jimsapi.plugins.errors import StartError
from jimsapi.server.port import open_port


def bind(host: str, port: int) -> socket.socket:
    """Open the port before anything else is touched. Raises `StartError` that says why it cannot be."""
    try:
        # It listens from now on, so that a second start fails here, not after it has recovered this one's runs.
        return open_port(host, port)
    except OSError as error:
        raise StartError(cannot_listen(host, port, error)) from error


def cannot_listen(host: str, port: int, error: OSError) -> str:
    """Why the port of the API cannot be opened, for the operator."""
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is taken: stop what listens there, or give another --port"
    return f"cannot listen on {host}:{port}: {error.strerror or error}; give another --host or --port"


def refuse_shared_port(server: ServerOptions, metrics: MetricsOptions) -> None:
    """Raise `StartError` if the API and the metrics are to have one port of one address."""
    hosts = {server.host, metrics.host}
    if server.port and server.port == metrics.port and (len(hosts) == 1 or hosts & {"0.0.0.0", "::"}):
        raise StartError(
            f"--port and --metrics-port are both {server.port}: give another --metrics-port, or 0 for none"
        )


def address_of(server: ServerOptions, port: int) -> str:
    """The URL of the server itself: without `--root-path`, which a proxy takes away before it asks the server."""
    scheme = "https" if server.ssl_certfile else "http"
    host = f"[{server.host}]" if ":" in server.host else server.host
    return f"{scheme}://{host}:{port}"
