"""The wrapper that compares the body of a signed request with its signed digest."""

import base64
import hashlib
from collections.abc import MutableMapping
from typing import Any

from jimsapi import Connection, HTTPError
from jimsapi.asgi import ASGIApp, Receive, Scope, Send

from jimsapi_hmac.signature import content_digest


def check_bodies(app: ASGIApp) -> ASGIApp:
    """Wrap an app. The end of a body that does not match the header `Content-Digest` raises `HTTPError` 400."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = Connection(scope).headers
            if (headers.get("authorization") or "").lower().startswith("hmac "):
                receive = checked(receive, headers.get("content-digest") or content_digest(b""))
        await app(scope, receive, send)

    return wrapped


def checked(receive: Receive, expected: str) -> Receive:
    """Compute the digest while the server reads the body."""
    digest = hashlib.sha256()

    async def receive_checked() -> MutableMapping[str, Any]:
        message = await receive()
        if message["type"] == "http.request":
            digest.update(message.get("body", b""))
            if not message.get("more_body"):
                found = f"sha-256=:{base64.b64encode(digest.digest()).decode()}:"
                if found != expected:
                    raise HTTPError(400, "the body does not match the header Content-Digest")
        return message

    return receive_checked
