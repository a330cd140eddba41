"""Ports of 127.0.0.1 for servers that a test starts."""

import random
import socket
from contextlib import suppress

NOT_FOR_CLIENTS = range(20_000, 32_000)
"""Ports below those that Linux gives to clients by default (net.ipv4.ip_local_port_range)."""


def free_port() -> int:
    """A port that nothing listens on now.

    It is none of those that the system gives to clients: until the server opens it, one of them could take it.
    """
    while True:
        port = random.choice(NOT_FOR_CLIENTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def listens(port: int) -> bool:
    """Whether a connection to a port is accepted."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
