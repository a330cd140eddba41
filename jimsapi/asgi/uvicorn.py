"""The connection behind uvicorn's own protocols. They offer no extension, but have the transport as an attribute."""

import asyncio
from typing import Any

from .types import Send
from .unread import unread_bytes


class UvicornConnection:
    """A `ServerConnection` for the transport of one of uvicorn's protocols."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def unread_bytes(self) -> int:
        return unread_bytes(self._transport)

    def abort(self) -> None:
        self._transport.abort()


def uvicorn_connection(send: Send) -> UvicornConnection | None:
    """Return the connection behind uvicorn's `send`, which is a method of the object that has the transport.

    Returns None for the `send` of another server or of a wrapper.
    """
    transport: Any = getattr(getattr(send, "__self__", None), "transport", None)
    return UvicornConnection(transport) if hasattr(transport, "get_write_buffer_size") else None
