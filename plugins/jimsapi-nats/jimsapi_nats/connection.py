"""A connection to a NATS server, which is opened again whenever it ends."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import unquote, urlsplit

import msgspec
import nats.errors
from nats.aio.client import Client

from jimsapi import Secret
from jimsapi.plugins import StartError, redact

logger = logging.getLogger("jimsapi_nats")

CONNECT_WITHIN = 5.0
"""Seconds for one attempt to connect."""
CONNECT_AGAIN_AFTER = 0.5
"""Seconds between two attempts."""
OPEN_WITHIN = 3.0
"""Seconds for which a call waits for a connection, so that a short interruption does not make it fail."""
CLOSE_WITHIN = 1.0
PING_EVERY = 5
"""Seconds. A server that does not answer two pings in succession is gone."""

T = TypeVar("T")


class Servers(msgspec.Struct, frozen=True):
    """The addresses of the servers of a cluster, and how the client authenticates. `repr` shows no secret."""

    addresses: tuple[str, ...]
    user: str | None = None
    password: Secret | None = None
    token: Secret | None = None


class NotConnected(ConnectionError):
    """There is no connection to the NATS server, or it ended before the answer."""


def servers_of(url: Secret) -> Servers:
    """Return the servers of the option `--nats-url`. Raises `StartError`, which shows no part of the URL."""
    try:
        parts = [urlsplit(one.strip()) for one in url.reveal().split(",")]
        valid = all(part.scheme in ("nats", "tls") and part.hostname and part.port != 0 for part in parts)
        logins = {(part.username, part.password) for part in parts if part.username is not None}
    except ValueError:
        valid = False
    if not valid:
        raise StartError("--nats-url is not a URL such as nats://host:4222 or tls://host:4222")
    if len(logins) > 1:
        raise StartError("--nats-url has several users or passwords; give the same one for all servers, or only once")
    addresses = tuple(f"{part.scheme}://{part.netloc.rpartition('@')[2]}" for part in parts)
    for user, password in logins:
        if password is None:
            return Servers(addresses, token=Secret(unquote(user or "")))
        return Servers(addresses, unquote(user or ""), Secret(unquote(password)))
    return Servers(addresses)


class Connection:
    """A connection that is opened again whenever it ends.

    The client library can do this too. But it gives up if the server rejects its user once, which also happens while an
    operator changes a password. And it sends what was published meanwhile, although the caller has given up by then.

    `on_open` is called with the client of each new connection, for example to subscribe.
    """

    def __init__(self, servers: Servers, name: str, on_open: Callable[[Client], Awaitable[None]] | None = None) -> None:
        self._servers = servers
        self._name = name
        self._on_open = on_open
        self._client: Client | None = None
        self._opened = asyncio.Event()
        self._attempted = asyncio.Event()
        self._closed: asyncio.Future[None] | None = None
        self._error: BaseException | None = None
        self._logged: str | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Connect. If the server cannot be reached, it is tried again. Raises `StartError` if it rejects the user."""
        self._task = asyncio.create_task(self._keep_open(), name=f"connection to NATS of {self._name}")
        await self._attempted.wait()
        if _is_rejection(self._error):
            await self._stop()
            raise StartError("--nats-url: the NATS server rejects the user, the password or the token")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stop()

    @property
    def is_open(self) -> bool:
        return self._opened.is_set()

    async def call(self, make: Callable[[Client], Awaitable[T]]) -> T:
        """Return what `make(client)` returns. Raises `NotConnected` if there is no connection, or if it ends."""
        try:
            async with asyncio.timeout(OPEN_WITHIN):
                await self._opened.wait()
        except TimeoutError:
            raise NotConnected(f"the NATS server cannot be reached: {self._reason}") from None
        assert self._client is not None
        assert self._closed is not None
        calling = asyncio.ensure_future(make(self._client))
        try:
            either: list[asyncio.Future[Any]] = [calling, self._closed]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not calling.done():
                raise NotConnected("the connection to the NATS server has ended")
            return calling.result()
        except nats.errors.ConnectionClosedError:
            raise NotConnected("the connection to the NATS server has ended") from None
        finally:
            calling.cancel()

    @property
    def _reason(self) -> str:
        if self._error is None:
            return "it does not answer"
        return "it rejects the user" if _is_rejection(self._error) else _kind(self._error)

    async def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _keep_open(self) -> None:
        while True:
            client = Client()
            try:
                await self._open(client)
                assert self._closed is not None
                await self._closed
                logger.warning("%s: the connection to the NATS server has ended, and is opened again", self._name)
            except (OSError, nats.errors.Error, TimeoutError) as error:
                self._error = error
                self._log(self._reason)
            finally:
                self._opened.clear()
                self._attempted.set()
                await _close(client)
            await asyncio.sleep(CONNECT_AGAIN_AFTER)

    async def _open(self, client: Client) -> None:
        closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def on_closed() -> None:
            if not closed.done():
                closed.set_result(None)

        servers = self._servers
        async with asyncio.timeout(CONNECT_WITHIN):
            await client.connect(
                list(servers.addresses),
                name=self._name,
                user=servers.user,
                password=None if servers.password is None else servers.password.reveal(),
                token=None if servers.token is None else servers.token.reveal(),
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                connect_timeout=2,
                ping_interval=PING_EVERY,
                no_echo=True,
                error_cb=self._on_error,
                closed_cb=on_closed,
            )
            if self._on_open is not None:
                await self._on_open(client)
        self._client, self._closed, self._error, self._logged = client, closed, None, None
        self._opened.set()
        self._attempted.set()
        logger.info("%s: connected to the NATS server", self._name)

    async def _on_error(self, error: Exception) -> None:
        """Keep an error of the client library. It reports each failed attempt, and what the server forbids."""
        self._error = error
        # An error while the connection is open is about a message, and has no URL. The end of it has a log line anyway.
        if self.is_open and not isinstance(error, nats.errors.UnexpectedEOF):
            self._log(redact(str(error)))

    def _log(self, text: str) -> None:
        """Log an error, unless it is the same as the one before: an outage may take hours."""
        if text != self._logged:
            logger.warning("%s: the connection to the NATS server failed: %s", self._name, text)
        self._logged = text


def _is_rejection(error: BaseException | None) -> bool:
    """Whether the server does not know the user or the password. The client library has no type for it everywhere."""
    return isinstance(error, nats.errors.Error) and "authorization" in str(error).lower()


def _kind(error: BaseException) -> str:
    """The kind of an error of the client library. Its text may have the URL."""
    return type(error).__name__


async def _close(client: Client) -> None:
    """Close a client. It may be half open, or its server may not answer."""
    with suppress(OSError, nats.errors.Error, TimeoutError):
        async with asyncio.timeout(CLOSE_WITHIN):
            await client.close()
