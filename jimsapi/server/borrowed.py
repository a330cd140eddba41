"""Every name that the server takes from uvicorn, with what it relies on beside what uvicorn documents.

`make test` runs the tests of the protocol with the newest version, and `make test-oldest` with the oldest one that
`setup.cfg` allows.
"""

# `loaded` and `load()`, and after that `loaded_app`, `ws_protocol_class`, `http_protocol_class` and `ssl`. A copy of it
# is a configuration of its own.
from uvicorn import Config

# `run`, `startup`, `main_loop` and `shutdown`, which call each other as uvicorn's own do; `lifespan` with `startup`,
# `should_exit` and `state`; `servers`, `started` and `server_state`.
from uvicorn import Server as UvicornServer

# What a scope says of both ends of a transport.
from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl

# Sets `connections`, whose members have `shutdown()`, and `tasks`; the number `total_requests`; and `default_headers`,
# which is another list each second.
from uvicorn.server import ServerState

# `signal_handler` ends it, and `target` gets `sockets`.
from uvicorn.supervisors import ChangeReload

__all__ = [
    "PARSES_LATER",
    "ChangeReload",
    "Config",
    "ServerState",
    "UvicornServer",
    "get_local_addr",
    "get_remote_addr",
    "is_ssl",
]

PARSES_LATER = "handler_task"
"""What only uvicorn's protocol on `websockets.legacy` has. It parses a handshake in a task, and answers a faulty one;
the others add a task to `ServerState.tasks` at once, or answer, if they have understood the handshake."""
