"""uvicorn's server, with a different way of accepting connections and of shutting down."""

import asyncio
import logging
import socket
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from types import FrameType
from typing import Any, Protocol

from jimsapi.server.acceptor import Acceptor
from jimsapi.server.borrowed import Config, UvicornServer, create_ssl_context
from jimsapi.server.descriptors import Descriptors, descriptor_limit, open_descriptors, raise_limit
from jimsapi.server.eviction import Evictable
from jimsapi.server.http1.batch import batch_of
from jimsapi.server.http1.connection import REQUEST_WITHIN

END_WITHIN = 0.5
"""Seconds within which the app's remaining tasks have to end after they are cancelled."""
NO_PASSPHRASE = "-"
"""OpenSSL would ask for a passphrase at the terminal, and the server would wait for an answer."""
_STARTUP_FAILED = 3

logger = logging.getLogger("jimsapi")


class OtherApp(Protocol):
    """An app that is served in place of one that cannot start. `on_started` is called when it has started."""

    @property
    def config(self) -> Config: ...
    def on_started(self) -> None: ...


async def end_other_tasks() -> Collection[asyncio.Task[Any]]:
    """Cancel all tasks but the current one. Returns those that have not ended after `END_WITHIN` seconds."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    return (await asyncio.wait(others, timeout=END_WITHIN))[1] if others else ()


class Server(UvicornServer):
    """Serves the sockets that are passed to `run`.

    If many connections wait, those that request one of the paths `first` overtake others. The server calls
    `on_cancelled` if something cancels its own task; it ignores the cancellation. At the end it calls `on_leaked` with
    the tasks that do not end after they are cancelled.

    With `stays_open`, the service manager keeps the sockets open after the end.

    If the app cannot start, the server calls `instead`. If that returns another app, the server starts it in place of
    the first, in the same event loop.
    """

    def __init__(
        self,
        config: Config,
        *,
        first: Sequence[str],
        on_cancelled: Callable[[], None],
        on_leaked: Callable[[Collection[asyncio.Task[Any]]], None],
        instead: Callable[[], OtherApp | None] = lambda: None,
        stays_open: bool = False,
    ) -> None:
        super().__init__(config)
        self._stays_open = stays_open
        self._on_cancelled = on_cancelled
        self._on_leaked = on_leaked
        self._instead = instead
        self._first = tuple(first)
        self.acceptors: list[Acceptor] = []
        self._retiring = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the app, then accept connections. Raises `SystemExit` if the app cannot start."""
        await self.lifespan.startup()
        other = self._instead() if self.lifespan.should_exit else None
        if other is not None:
            self.config = other.config
            self.lifespan = other.config.lifespan_class(other.config)
            await self.lifespan.startup()
        if self.lifespan.should_exit:
            sys.exit(_STARTUP_FAILED)
        if other is not None:
            other.on_started()
        batch_of(self.server_state, asyncio.get_running_loop()).scheduler.first = frozenset(
            self.config.root_path + path for path in self._first
        )
        descriptors = Descriptors(raise_limit())
        lines = tuple(f"GET {path}".encode() for path in self._first)
        self.servers = []
        self.acceptors = [
            Acceptor(
                listening,
                self._protocol,
                self.config.ssl,
                descriptors,
                self._evictable,
                lines,
                stays_open=self._stays_open,
            )
            for listening in sockets or ()
        ]
        if not self._retiring:
            for acceptor in self.acceptors:
                acceptor.start()
        self.started = True

    async def main_loop(self) -> None:
        """Serve until a signal stops the server. Ignore cancellations of the task."""
        while True:
            try:
                return await super().main_loop()
            except asyncio.CancelledError:
                task = asyncio.current_task()
                assert task is not None  # this code runs in the cancelled task
                task.uncancel()
                self._on_cancelled()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop the server. Another signal cuts the requests that are still answered, and the app stops as usual."""
        if not self.should_exit:
            return super().handle_exit(sig, frame)
        tasks = tuple(self.server_state.tasks)
        logger.warning("another signal has come: %d requests that were still answered are cut", len(tasks))
        for task in tasks:
            task.cancel()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the port, end connections, stop the app, and cancel its remaining tasks."""
        await asyncio.gather(*(acceptor.finish(REQUEST_WITHIN) for acceptor in self.acceptors))
        await super().shutdown(sockets)
        if leaked := await end_other_tasks():
            self._on_leaked(leaked)

    async def retire(self) -> None:
        """Leave new connections to the other processes that share the port, and end each open one after its next
        response. Returns when those that are idle have had their time.
        """
        self._retiring = True
        for acceptor in self.acceptors:
            acceptor.close()
        connections: set[Any] = self.server_state.connections
        for connection in connections:
            if hasattr(connection, "ending"):  # a WebSocket has no next response
                connection.ending = True
        await asyncio.sleep(self.config.timeout_keep_alive)

    def reread_certificates(self) -> None:
        """Use the certificate, its key and the authorities of clients for new connections as their files now are.

        The server must have started with a certificate. Raises `OSError` or `ValueError` if the files cannot be used;
        nothing has changed then. Any thread may call it.
        """
        config = self.config
        assert config.ssl_certfile is not None
        config.ssl = create_ssl_context(
            certfile=config.ssl_certfile,
            keyfile=config.ssl_keyfile,
            password=config.ssl_keyfile_password or NO_PASSPHRASE,
            ssl_version=config.ssl_version,
            cert_reqs=config.ssl_cert_reqs,
            ca_certs=config.ssl_ca_certs,
            ciphers=config.ssl_ciphers,
        )
        for acceptor in self.acceptors:
            acceptor.tls = config.ssl

    def state(self) -> Iterator[str]:
        """Yield how much of the server's resources is in use, in lines for an operator. Any thread may read them."""
        connections, tasks = len(self.server_state.connections), len(self.server_state.tasks)
        yield f"{connections} connections are open, {tasks} requests are being answered"
        yield f"descriptors: {open_descriptors()} of {descriptor_limit()} are open"

    def _protocol(self) -> Any:
        protocol_class: Any = self.config.http_protocol_class
        protocol: Any = protocol_class(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        protocol.ending = self._retiring
        return protocol

    def _evictable(self) -> Iterator[list[Evictable]]:
        """Yield the connections that may be closed to make room, in groups.

        Idle connections come first, because clients replace them silently. Users notice the end of a WebSocket.
        """
        connections: set[Any] = self.server_state.connections
        yield [connection for connection in connections if hasattr(connection, "waiting_since")]
        websockets = batch_of(self.server_state, asyncio.get_running_loop()).websockets
        yield [websocket for websocket in websockets if not websocket.has_sent]
        yield [websocket for websocket in websockets if websocket.has_sent]
