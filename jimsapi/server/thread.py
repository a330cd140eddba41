"""Serves a small ASGI app beside the main one, on its own port, in a thread with its own event loop.

The thread also answers while the main event loop is blocked. It uses `Http1Protocol`, with all its timeouts.
"""

import asyncio
import errno
import logging
import math
import threading
import time
from contextlib import suppress
from email.utils import formatdate
from typing import Any

from jimsapi.asgi.types import ASGIApp, Receive, Scope, Send
from jimsapi.server.borrowed import Config, ServerState
from jimsapi.server.descriptors import descriptor_limit
from jimsapi.server.eviction import longest_waiting
from jimsapi.server.http1 import Http1Protocol
from jimsapi.server.port import BACKLOG, open_port

MAX_CONNECTIONS = 500
"""Maximum number of connections, if the process may open at least `SHARE` times as many descriptors. Another connection
closes the one that has been idle longest, because the main app needs descriptors too."""
SHARE = 8
"""The connections may use one eighth of the process's descriptors."""
ACCEPTED_AT_ONCE = 8
"""Connections that are accepted in one pass of the loop. They may exceed the limit during that pass."""
LOG_EVERY = 60.0
"""Seconds between two log lines about connections that cannot be accepted."""
CLOSE_WITHIN = 2.0
"""Seconds within which answers have to be complete when the port closes."""

_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

logger = logging.getLogger("jimsapi.server")


class ServerThread:
    """Serves `app` until `close`. The app gets no lifespan and no WebSockets. `name` is the port's name in log lines.

    Raises `OSError` if the port cannot be opened.
    """

    def __init__(self, app: ASGIApp, host: str, port: int, name: str) -> None:
        self._app = app
        self._name = name
        self._loop = asyncio.SelectorEventLoop()
        try:
            self._socket = open_port(host, port)
        except OSError:
            self._loop.close()
            raise
        self.port: int = self._socket.getsockname()[1]
        self._state = ServerState()
        self._config = Config(
            self._answer,
            interface="asgi3",
            lifespan="off",
            ws="none",
            http=Http1Protocol,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
        )
        self._config.load()
        self._logged_at = -LOG_EVERY
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Close the port and all connections. Waits up to `CLOSE_WITHIN` seconds for answers that are being sent."""
        with suppress(RuntimeError):  # the loop has already ended
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(2 * CLOSE_WITHIN)  # do not wait longer if the app blocks

    def _run(self) -> None:
        with self._socket:
            try:
                self._loop.run_until_complete(self._serve())
            finally:
                self._loop.close()

    async def _serve(self) -> None:
        self._loop.set_exception_handler(self._on_loop_error)
        server = await self._loop.create_server(self._protocol, sock=self._socket, backlog=ACCEPTED_AT_ONCE)
        self._socket.listen(BACKLOG)  # `create_server` has set the kernel's backlog to `ACCEPTED_AT_ONCE`
        await self._stopping.wait()
        server.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        if self._state.tasks:
            await asyncio.wait(self._state.tasks, timeout=CLOSE_WITHIN)
        for connection in list(self._state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)  # transports close in the next pass of the loop

    def _protocol(self) -> asyncio.Protocol:
        self._set_date()
        return _Connection(self._config, self._state, {}, self._loop)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._set_date()
        await self._app(scope, receive, send)

    def _set_date(self) -> None:
        """Set the `Date` header (RFC 9110, 6.6.1). uvicorn's server has a timer for this; this thread does not."""
        self._state.default_headers = [(b"date", formatdate(usegmt=True).encode())]

    def _on_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log an error of the loop. After a failed `accept`, asyncio waits a second and tries again by itself."""
        error = context.get("exception")
        if not (isinstance(error, OSError) and error.errno in _EXHAUSTED):
            loop.default_exception_handler(context)
        elif time.monotonic() - self._logged_at >= LOG_EVERY:
            self._logged_at = time.monotonic()
            logger.error(
                "the %s accepts no connections now and tries again each second: %s; raise the limit of the process "
                "(ulimit -n, LimitNOFILE)",
                self._name,
                error.strerror,
            )


class _Connection(Http1Protocol):
    """One of a bounded number of connections."""

    __slots__ = ()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in uvicorn
        super().connection_made(transport)
        connections: set[Any] = self.state.connections
        excess = len(connections) - min(MAX_CONNECTIONS, descriptor_limit() // SHARE)
        if excess > 0:
            # The new connection also counts as waiting. If the server is busy with all others, it closes the new one.
            for connection in longest_waiting(connections, excess, math.inf):
                connection.evict()
