"""The wrapper: it reads the body of a signed request before the provider is called, up to a limit."""

import asyncio
from collections.abc import Callable, MutableMapping
from typing import Any

from jimsapi import Connection
from jimsapi.asgi import ASGIApp, ClientDisconnected, ErrorResponse, HTTPError, Receive, Scope, Send

SIGNATURE = "x-hub-signature-256"
BODY = "jimsapi_github.body"
"""The field of the ASGI scope that has the body."""
READ_WITHIN = 10.0
"""Seconds that a body may take to arrive."""


def reading_ahead(max_body: int) -> Callable[[ASGIApp], ASGIApp]:
    """Return a wrapper that reads the bodies of signed requests, of at most `max_body` bytes, into the scope.

    A longer body gets 413, and one that takes too long gets 408. The app is not called for them. Requests without a
    signature pass unchanged.
    """

    def wrap(app: ASGIApp) -> ASGIApp:
        async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http" or SIGNATURE not in Connection(scope).headers:
                return await app(scope, receive, send)
            try:
                async with asyncio.timeout(READ_WITHIN):
                    body = await read(Connection(scope), receive, max_body)
            except TimeoutError:
                return await refuse(send, 408, f"The body did not arrive within {READ_WITHIN:g} seconds")
            except HTTPError as error:
                return await refuse(send, error.status, str(error.detail))
            except ClientDisconnected:
                return
            await app({**scope, BODY: body}, repeated(body, receive), send)

        return wrapped

    return wrap


async def read(connection: Connection, receive: Receive, max_body: int) -> bytes:
    """Return the body. Raises `HTTPError` 413 if it is too long, and `ClientDisconnected`."""
    too_long = HTTPError(413, f"The body of a signed request is over the limit of {max_body} bytes")
    declared = connection.headers.get("content-length") or ""
    if declared.isdigit() and int(declared) > max_body:  # before `receive`, which would ask the client to send it
        raise too_long
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        body += message.get("body", b"")
        if len(body) > max_body:
            raise too_long
        if not message.get("more_body"):
            return bytes(body)


def repeated(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that returns the body, which was read already, and then what the server sends."""
    unread: list[MutableMapping[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> MutableMapping[str, Any]:
        return unread.pop() if unread else await receive()

    return receive_again


async def refuse(send: Send, status: int, detail: str) -> None:
    """Send an error. It ends the connection, since the rest of the body was not read."""
    answer = ErrorResponse(detail, status, {"connection": "close"})
    await send({"type": "http.response.start", "status": status, "headers": answer.raw_headers})
    await send({"type": "http.response.body", "body": answer.body})
