"""An extension of the ASGI scope, with which the app can observe and drop a connection.

The server of the command puts an object into `scope["extensions"]["jimsapi.connection"]`: a `ServerExchange` for each
request, or a `ServerWebSocket` for each WebSocket. The object is valid for that request or WebSocket only, not for
others of the connection. Wrappers and mounts pass it on with the scope. Apps also work without it, on other servers.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from .types import Receive, Scope, Send
from .uvicorn import uvicorn_connection

EXTENSION = "jimsapi.connection"


class ServerConnection(Protocol):
    """The connection of a client, as the server sees it."""

    def unread_bytes(self) -> int:
        """Return the number of bytes that were sent and that the client has not read, as far as the system knows."""

    def abort(self) -> None:
        """Drop the connection without waiting for the client to read. ASGI has no message for this.

        Does nothing after the request is answered, since the connection then serves the next request.
        """


class ServerExchange(ServerConnection, Protocol):
    """The connection while it serves one request.

    - `direct_app`: the `App` that the server has called in its task for the request; None if it called anything else.
    - `gone`: whether the client has disconnected, or the server no longer reads it.
    - `cancel_when_gone`: whether the server cancels the task that it has started for the request when `gone` becomes
      true. The app sets it, which costs less than a callback.
    """

    direct_app: object | None
    gone: bool
    cancel_when_gone: bool

    @property
    def receive(self) -> Receive:
        """The server's own `receive`. If the app got another one, a wrapper has replaced it."""

    @property
    def send(self) -> Send:
        """The server's own `send`. If the app got another one, a wrapper has replaced it."""

    @property
    def refused(self) -> int:
        """The status that the server sent in place of the app's response because of a faulty or slow body; else 0."""

    async def respond(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
        """Send a whole response, as the messages `http.response.start` and `http.response.body` do, but faster.

        An app may call it in place of the server's own `send`. Raises `RuntimeError` as `send` does.
        """

    def call_when_gone(self, callback: Callable[[], None] | None) -> None:
        """Call `callback` once if the client disconnects before the response is complete.

        It replaces an earlier callback, and None removes it. If the client has disconnected already, the event loop
        calls it soon. An app with a callback does not have to wait in `receive`.
        """

    def is_in_its_task(self) -> bool:
        """Return whether the current task is the one that `cancel_when_gone` cancels.

        A wrapper may run the app in another task. It may not pass on that it is cancelled, and may have more to do.
        """

    def end_cancelling(self) -> bool:
        """End what `cancel_when_gone` began.

        Returns whether the task was cancelled because the client disconnected, and for nothing else. The task then
        counts as not cancelled any more (`asyncio.Task.uncancel`).
        """


class ServerWebSocket(ServerConnection, Protocol):
    """The connection of a WebSocket."""

    def working(self) -> AbstractContextManager[None]:
        """Return a context in which the server does not close the WebSocket to make room for other connections."""


def exchange_of(scope: Scope) -> ServerExchange | None:
    """Return the server's object for a request; None on other servers."""
    extensions = scope.get("extensions")
    return extensions.get(EXTENSION) if extensions else None


def websocket_of(scope: Scope) -> ServerWebSocket | None:
    """Return the server's object for a WebSocket; None on other servers."""
    websocket: ServerWebSocket | None = _entry(scope)
    return websocket


def connection_of(scope: Scope, send: Send) -> ServerConnection | None:
    """Return the server's object for a request or a WebSocket, or that of uvicorn's protocols; else None."""
    connection: ServerConnection | None = _entry(scope)
    return uvicorn_connection(send) if connection is None else connection


def _entry(scope: Scope) -> Any:
    return (scope.get("extensions") or {}).get(EXTENSION)
