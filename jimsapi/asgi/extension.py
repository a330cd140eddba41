"""What a server offers an app beside ASGI's messages: an extension of the scope.

The server of the command puts an object into `scope["extensions"]["jimsapi.connection"]`: a `ServerExchange` for each
request, a `ServerWebSocket` for each WebSocket. It stands for that one only, however many requests the connection has
before and after. Wrappers and mounts pass it on with the scope. Apps work without it, as they do on other servers.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from .types import Receive, Scope, Send
from .uvicorn import uvicorn_connection

EXTENSION = "jimsapi.connection"


class ServerConnection(Protocol):
    """What the server knows of the client, and can do with its connection."""

    def unread_bytes(self) -> int:
        """Bytes that were sent to the client and that it has not read yet, as far as the system knows."""

    def abort(self) -> None:
        """Drop the connection without waiting for the client to read; ASGI has no message for it. Does nothing once
        the request is answered: the connection is then the next request's."""


class ServerExchange(ServerConnection, Protocol):
    """The connection while it serves one request."""

    @property
    def receive(self) -> Receive:
        """The server's own `receive`: an app that got another one is called by a wrapper that has replaced it."""

    @property
    def refused(self) -> int:
        """The status that the server has sent in place of the app's answer, since the body was faulty or slow; or 0."""

    def call_when_gone(self, callback: Callable[[], None] | None) -> None:
        """Call `callback`, in place of an earlier one, once when the client has left before it was answered; soon if it
        has left already. None: call nothing. An app that learns it so need not wait in `receive`."""


class ServerWebSocket(ServerConnection, Protocol):
    """The connection of a WebSocket."""

    def working(self) -> AbstractContextManager[None]:
        """A context in which the server does not close the WebSocket to make room for other connections."""


def exchange_of(scope: Scope) -> ServerExchange | None:
    """What the server offers for a request; None on other servers."""
    exchange: ServerExchange | None = _entry(scope)
    return exchange


def websocket_of(scope: Scope) -> ServerWebSocket | None:
    """What the server offers for a WebSocket; None on other servers."""
    websocket: ServerWebSocket | None = _entry(scope)
    return websocket


def connection_of(scope: Scope, send: Send) -> ServerConnection | None:
    """What the server offers for either, or what uvicorn's own protocols show; None on other servers."""
    connection: ServerConnection | None = _entry(scope)
    return uvicorn_connection(send) if connection is None else connection


def _entry(scope: Scope) -> Any:
    return (scope.get("extensions") or {}).get(EXTENSION)
