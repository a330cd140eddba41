"""A route (one path with its methods), and the result of a look-up."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from .open_work import OpenWork
from .protected_resource import ProtectedResources
from .response import Response
from .types import ASGIApp

Reword = Callable[[Response], Response]
"""Converts the response to an error, `{"detail": …}`, to the response to send."""
Model = type[msgspec.Struct]
ResponseDoc = str | tuple[str, Model | str]
"""The documentation of a response: a description, or a description with the model of its JSON body or, for other
bodies, the content type."""

METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "QUERY"))
"""The methods of HTTP that metrics and logs name. All others are `OTHER_METHOD` there."""


class RouteConflict(ValueError):
    """Two handlers are declared for the same method of the same path."""


class RouteApp(Protocol):
    """The app that has a route: its open work, the app in its wrappers and its protected resources if it has any."""

    open_work: OpenWork
    wrapped: ASGIApp | None
    protected_resources: ProtectedResources | None


@dataclass(frozen=True, slots=True)
class Route:
    """One path with its methods, its handler, its rules of access and its documentation (see `Router.route`).

    `path` is the template as declared, with the prefixes of its routers. `scope` is for the app's `admit`. If
    `resource` is true, the path is an OAuth protected resource of its own. If `websocket` is true, the route serves
    WebSockets and `methods` is empty. `app` is set by the app that has the route.
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
    form: Model | None = None
    files: tuple[str, ...] = ()
    response: Any = None
    status: int = 200
    responses: Mapping[int, ResponseDoc] | None = None
    tags: tuple[str, ...] = ()
    reword: Reword | None = None
    websocket: bool = False
    subprotocols: tuple[str, ...] = ()
    origins: frozenset[str] = frozenset()
    first_frame: bool = False
    resource: bool = False
    app: RouteApp | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter, `{name:kind}`, of a path template."""

    name: str
    kind: str


class Match(msgspec.Struct, frozen=True, gc=False):
    """The result of a look-up.

    If `route` is None, `allowed` are the methods that the path has. `slash_differs` is true if there is a route for the
    path with its closing slash added or removed.
    """

    route: Route | None
    path_params: dict[str, Any]
    allowed: frozenset[str] = frozenset()
    slash_differs: bool = False
