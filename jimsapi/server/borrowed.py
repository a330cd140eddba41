"""All names that the server imports from uvicorn. The comments list the undocumented parts that it relies on.

`make test` runs the tests of the protocol with the newest version of uvicorn, and `make test-oldest` with the oldest
one that `setup.cfg` allows.
"""

import asyncio
from importlib.util import find_spec
from typing import Any

# `loaded` and `load()`, and after that `loaded_app`, `lifespan_class`, `ws_protocol_class`, `http_protocol_class` and
# `ssl`. `timeout_graceful_shutdown` is read at the shutdown. A shallow copy can be changed without an effect on the
# original.
from uvicorn import Config

# `run` calls `startup`, `main_loop` and `shutdown`. `lifespan` with `startup`, `should_exit` and `state`; `servers`,
# `started` and `server_state`.
from uvicorn import Server as UvicornServer

# Its keyword arguments, which `Config` has as attributes with the prefix `ssl_`.
from uvicorn.config import create_ssl_context

# The addresses and the scheme of a scope.
from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl

# The sets `connections`, whose members have `shutdown()`, and `tasks`; the number `total_requests`; and
# `default_headers`, which is replaced by a new list each second.
from uvicorn.server import ServerState

# `signal_handler` ends the reloader, and `target` receives `sockets`.
from uvicorn.supervisors import ChangeReload

__all__ = [
    "PARSES_LATER",
    "SANS_IO",
    "ChangeReload",
    "Config",
    "ServerState",
    "UvicornServer",
    "WebSocketsBroken",
    "create_ssl_context",
    "get_local_addr",
    "get_remote_addr",
    "has_websockets",
    "is_ssl",
    "websocket_class",
    "websocket_protocol",
]

PARSES_LATER = "handler_task"
"""An attribute that only uvicorn's protocol on `websockets.legacy` has. That protocol parses a handshake in a task, and
answers an invalid one. The others add a task to `ServerState.tasks` at once if the handshake is valid, or answer."""

SANS_IO = "conn"
"""An attribute of uvicorn's protocol on `websockets.server`: an object whose `parser` is a generator that refers to the
object. Closing the generator breaks this reference cycle."""


def has_websockets() -> bool:
    """Return whether a package is installed with which uvicorn serves WebSockets."""
    return any(find_spec(package) is not None for package in ("websockets", "wsproto"))


class WebSocketsBroken(Exception):
    """A package for WebSockets is installed, and cannot be imported. The message is the reason."""


def websocket_class() -> Any:
    """Import the class of protocols that `Config(ws="auto")` selects. Raises `WebSocketsBroken`."""
    try:
        from uvicorn.protocols.websockets.auto import AutoWebSocketsProtocol
    except Exception as error:  # the code of a broken package may raise anything
        raise WebSocketsBroken(f"{type(error).__name__}: {error}") from error
    if AutoWebSocketsProtocol is None:  # uvicorn has dropped the ImportError
        raise WebSocketsBroken("neither websockets nor wsproto can be imported")
    return AutoWebSocketsProtocol


def websocket_protocol(**arguments: Any) -> asyncio.Protocol:
    """Return a new protocol of the class `websocket_class`. Raises `WebSocketsBroken`.

    `Config.load` would import that class and its package, which is a tenth of a start. A server has no use for it
    before the first handshake.
    """
    protocol: asyncio.Protocol = websocket_class()(**arguments)
    return protocol
