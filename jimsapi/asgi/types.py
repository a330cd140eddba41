"""The types of ASGI 3, which servers and applications exchange."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
"""The scope of a connection: its type, path, headers and so on."""
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
"""Returns the next message of the client."""
Send = Callable[[Message], Awaitable[None]]
"""Sends a message to the client."""
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
"""An ASGI application."""

RawHeaders = list[tuple[bytes, bytes]]
