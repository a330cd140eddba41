"""Serving a small ASGI app beside the main one: on a port of its own, in one thread with an event loop of its own.

The thread answers also while the main loop is blocked. It speaks HTTP/1.1 by `Http1Protocol`, with all its deadlines.
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
"""Connections at once, if the process may open `SHARE` times as many descriptors. A further one closes the one that is
idle longest: each takes a descriptor, and the main app needs those, too."""
SHARE = 8
"""The part of the process's descriptors that connections may take is one in so many."""
ACCEPTED_AT_ONCE = 8
"""Connections that are accepted in one pass of the loop, and may for that long exceed the limit."""
COMPLAIN_EVERY = 60.0
"""Seconds between log lines about connections that cannot be accepted."""
CLOSE_WITHIN = 2.0
"""Seconds that answers may take when the port closes."""

_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

logger = logging.getLogger("jimsapi.server")


class ServerThread:
    """Serves `app`, which has no lifespan and no WebSockets, from its making until `close`.

    `name` is how log lines call the port. Raises `OSError` if the port cannot be opened.
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
        self._complained_at = -COMPLAIN_EVERY
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Close the port and all connections; what is being answered has `CLOSE_WITHIN` seconds."""
        with suppress(RuntimeError):  # the loop has ended by itself
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(2 * CLOSE_WITHIN)  # an app that blocks does not hold up the process

    def _run(self) -> None:
        with self._socket:
            try:
                self._loop.run_until_complete(self._serve())
            finally:
                self._loop.close()

    async def _serve(self) -> None:
        self._loop.set_exception_handler(self._complain)
        server = await self._loop.create_server(self._protocol, sock=self._socket, backlog=ACCEPTED_AT_ONCE)
        self._socket.listen(BACKLOG)  # asyncio has given the kernel that number, too
        await self._stopping.wait()
        server.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        if self._state.tasks:
            await asyncio.wait(self._state.tasks, timeout=CLOSE_WITHIN)
        for connection in list(self._state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)  # transports close in the loop's next pass

    def _protocol(self) -> asyncio.Protocol:
        self._set_date()
        return _Connection(self._config, self._state, {}, self._loop)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._set_date()
        await self._app(scope, receive, send)

    def _set_date(self) -> None:
        """uvicorn's server does this each second (RFC 9110, 6.6.1); this thread has no such timer."""
        self._state.default_headers = [(b"date", formatdate(usegmt=True).encode())]

    def _complain(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log what went wrong in the loop. After a failed `accept` asyncio itself waits a second and tries again."""
        error = context.get("exception")
        if not (isinstance(error, OSError) and error.errno in _EXHAUSTED):
            loop.default_exception_handler(context)
        elif time.monotonic() - self._complained_at >= COMPLAIN_EVERY:
            self._complained_at = time.monotonic()
            logger.error(
                "the %s accepts no connections now and tries again each second: %s; raise the limit of the process "
                "(ulimit -n, LimitNOFILE)",
                self._name,
                error.strerror,
            )


class _Connection(Http1Protocol):
    """One of a bounded number of connections."""

    __slots__ = ()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        super().connection_made(transport)
        connections: set[Any] = self.state.connections
        beyond = len(connections) - min(MAX_CONNECTIONS, descriptor_limit() // SHARE)
        if beyond > 0:
            # The new one waits, too: if the server works on all others, it is the one that is closed.
            for connection in longest_waiting(connections, beyond, math.inf):
                connection.evict()
