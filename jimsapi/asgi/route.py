"""A route: one path with its methods, and what a look-up finds."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from .response import Response

Reword = Callable[[Response], Response]
"""Takes the answer to an error, `{"detail": …}`, and returns the one that is sent."""
Model = type[msgspec.Struct]
ResponseDoc = str | tuple[str, Model | str]
"""What is said of an answer: its description; with it, the model of its JSON or, of an answer that is none, the content
type."""

METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "QUERY"))


class RouteConflict(ValueError):
    """Two handlers claim the same method of the same path."""


@dataclass(frozen=True, slots=True)
class Route:
    """One path with its methods: who answers it, who may ask, and what its documentation says.

    `path` is the template as declared, with the prefixes of the routers it is in. `scope` is for the app's `admit`.
    `websocket` says that a WebSocket's handshake is answered, and then there are no `methods`.
    """

    path: str
    methods: tuple[str, ...]
    handler: Callable[[Any], Awaitable[Any]]  # a Handler, or a WebSocketHandler
    public: bool = False
    probe: bool = False
    scope: str | None = None
    name: str = ""
    summary: str | None = None
    body: Model | None = None
    query: Model | None = None
    response: Model | None = None
    status: int = 200
    responses: Mapping[int, ResponseDoc] | None = None
    tags: tuple[str, ...] = ()
    reword: Reword | None = None
    websocket: bool = False
    subprotocols: tuple[str, ...] = ()
    origins: frozenset[str] = frozenset()
    first_frame: bool = False


@dataclass(frozen=True, slots=True)
class Parameter:
    """One `{name:kind}` of a path."""

    name: str
    kind: str


class Match(msgspec.Struct, frozen=True, gc=False):
    """What a path led to. Without a `route`, `allowed` names the methods that the path has, if it has any, and
    `slash_differs` says that it has some with one slash more or less at its end."""

    route: Route | None
    path_params: dict[str, Any]
    allowed: frozenset[str] = frozenset()
    slash_differs: bool = False
