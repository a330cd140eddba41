"""Which route answers a request: exact paths by dictionary, the others by a tree of path segments."""

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from inspect import iscoroutinefunction, isroutine
from typing import Any, TypeVar
from urllib.parse import unquote
from uuid import UUID

import msgspec

from .connection import Request, local_path
from .response import Response
from .types import Scope

Handler = Callable[[Request], Awaitable[Response]]
AnyHandler = TypeVar("AnyHandler", bound=Handler)
Model = type[msgspec.Struct]
ResponseDoc = str | tuple[str, Model]

METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "QUERY"))

_PARAMETER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(?::([a-z]+))?\}")
_UUID = re.compile(r"[0-9a-fA-F]{32}|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_INTEGER = re.compile(r"-?[0-9]{1,19}")


class RouteConflict(ValueError):
    """Two handlers claim the same method of the same path."""


@dataclass(frozen=True, slots=True)
class Route:
    """One path with its methods: who answers it, who may ask, and what its documentation says.

    `path` is the template as declared, with the prefixes of the routers it is in. `scope` is for the app's `admit`.
    """

    path: str
    methods: tuple[str, ...]
    handler: Handler
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


@dataclass(frozen=True, slots=True)
class Parameter:
    """One `{name:kind}` of a path."""

    name: str
    kind: str


@dataclass(frozen=True, slots=True)
class Match:
    """What a path led to. Without a `route`, `allowed` names the methods that the path has, if it has any, and
    `slash_differs` says that it has some with one slash more or less at its end."""

    route: Route | None
    path_params: dict[str, Any]
    allowed: frozenset[str] = frozenset()
    slash_differs: bool = False


class _Node:
    """A place in the tree: what may follow, in the order in which it is tried, and the routes that end here."""

    __slots__ = ("integer", "literals", "rest", "routes", "text", "uuid")

    def __init__(self) -> None:
        self.literals: dict[str, _Node] = {}
        self.uuid: _Node | None = None
        self.integer: _Node | None = None
        self.text: _Node | None = None
        self.rest: _Node | None = None
        self.routes: dict[str, tuple[Route, tuple[str, ...]]] = {}


class Router:
    """Routes under one prefix, to be declared one by one and included in an app or another router.

    A handler is `async def handler(request) -> Response`; its docstring is the route's description. A path may hold
    whole-segment parameters: `{id}`, `{id:uuid}` (dashed or 32 hexadecimal digits), `{n:int}` (64 bits), and, last,
    `{rest:path}` (the rest, slashes included). Of several that fit, a literal goes before a UUID, an integer, plain
    text and a rest; a route fits only if it has the method too.
    """

    def __init__(self) -> None:
        self.routes: list[Route] = []
        self._exact: dict[str, dict[str, Route]] = {}
        self._tree = _Node()
        self._sealed: str | None = None

    def route(
        self,
        path: str,
        methods: Sequence[str],
        *,
        public: bool = False,
        probe: bool = False,
        scope: str | None = None,
        name: str | None = None,
        summary: str | None = None,
        body: Model | None = None,
        query: Model | None = None,
        response: Model | None = None,
        status: int = 200,
        responses: Mapping[int, ResponseDoc] | None = None,
        tags: Sequence[str] = (),
    ) -> Callable[[AnyHandler], AnyHandler]:
        """Declare the decorated handler for `methods` of `path`.

        `public`: the app's `admit` is not asked. `probe`: no request id, no log line, answered also while the app
        refuses. `scope`: what `admit` may ask of the caller. The others are for the documentation: `body`, `query` and
        `response` are `msgspec.Struct`s, `status` the good answer's, and `responses` the other answers, as
        `{status: description}` or `{status: (description, Struct)}`.

        Raises `ValueError` for a path or handler that cannot work, `RouteConflict` for one that is taken.
        """

        def declare(handler: AnyHandler) -> AnyHandler:
            self.add(
                Route(
                    path=path,
                    methods=tuple(method.upper() for method in methods),
                    handler=handler,
                    public=public,
                    probe=probe,
                    scope=scope,
                    name=name or str(getattr(handler, "__name__", type(handler).__name__)),
                    summary=summary,
                    body=body,
                    query=query,
                    response=response,
                    status=status,
                    responses=responses,
                    tags=tuple(tags),
                )
            )
            return handler

        return declare

    def get(self, path: str, **options: Any) -> Callable[[AnyHandler], AnyHandler]:
        """Declare a handler for GET, and so for HEAD; the options are those of `route`."""
        return self.route(path, ("GET",), **options)

    def post(self, path: str, **options: Any) -> Callable[[AnyHandler], AnyHandler]:
        """Declare a handler for POST; the options are those of `route`."""
        return self.route(path, ("POST",), **options)

    def put(self, path: str, **options: Any) -> Callable[[AnyHandler], AnyHandler]:
        """Declare a handler for PUT; the options are those of `route`."""
        return self.route(path, ("PUT",), **options)

    def patch(self, path: str, **options: Any) -> Callable[[AnyHandler], AnyHandler]:
        """Declare a handler for PATCH; the options are those of `route`."""
        return self.route(path, ("PATCH",), **options)

    def delete(self, path: str, **options: Any) -> Callable[[AnyHandler], AnyHandler]:
        """Declare a handler for DELETE; the options are those of `route`."""
        return self.route(path, ("DELETE",), **options)

    def include(self, router: "Router", prefix: str = "") -> None:
        """Take over all routes of `router`, with `prefix` before their paths. It takes no further routes then: they
        would be lost without a word."""
        if prefix and (not prefix.startswith("/") or prefix.endswith("/")):
            raise ValueError(f"The prefix {prefix!r} must begin with a slash and not end with one.")
        for route in router.routes:
            self.add(replace(route, path=prefix + route.path))
        router._sealed = "it was included already; declare them before include()"

    def add(self, route: Route) -> None:
        """Add a route made by hand; `route` and the methods named like HTTP's are the usual ways."""
        if self._sealed is not None:
            raise RuntimeError(f"{_place(route)} cannot be added to this router: {self._sealed}.")
        if isroutine(route.handler) and not iscoroutinefunction(route.handler):
            raise ValueError(f"The handler {_full_name(route.handler)} of {route.path} must be `async def`.")
        if not route.methods:
            raise ValueError(f"{route.path} ({_full_name(route.handler)}) has no method.")
        node, names = self._grow(route)
        for method in route.methods:
            if method in node.routes:
                other = node.routes[method][0]
                raise RouteConflict(
                    f"{method} {route.path} is claimed twice: by {_full_name(other.handler)} (as {other.path}) and by "
                    f"{_full_name(route.handler)}. Give one of them another path."
                )
        for method in route.methods:
            node.routes[method] = (route, names)
            if not names:
                self._exact.setdefault(route.path or "/", {})[method] = route
        self.routes.append(route)

    def match(self, scope: Scope) -> Match:
        """The route for an ASGI scope, found the thorough way: `root_path`, parameters, encoded slashes."""
        method = scope["method"]
        segments = _segments(scope, local_path(scope))
        found = self._search(method, segments)
        if found.route is None and not found.allowed and scope.get("root_path"):
            # A server that does not put root_path before path (hypercorn, granian) may have a path that only looks as
            # if it did: /api/v1 of this app, served under /api.
            found = self._search(method, _segments(scope, scope["path"]))
        if found.route is None and not found.allowed:
            found = replace(found, slash_differs=bool(self._search("", _other_form(segments)).allowed))
        return found

    def _search(self, method: str, segments: list[str]) -> Match:
        values: list[Any] = []
        allowed: set[str] = set()
        hit = _find(self._tree, segments, 0, method, values, allowed)
        if hit is None and method == "HEAD":
            hit = _find(self._tree, segments, 0, "GET", values, allowed)
        if hit is None:
            return Match(None, {}, frozenset(allowed))
        route, names = hit
        return Match(route, dict(zip(names, values, strict=True)))

    def _grow(self, route: Route) -> tuple[_Node, tuple[str, ...]]:
        """The tree's place for a route, made if need be, and the names of its parameters."""
        node, names = self._tree, []
        for part in parse_path(route.path):
            if isinstance(part, str):
                node = node.literals.setdefault(part, _Node())
                continue
            names.append(part.name)
            attribute = _BRANCHES[part.kind]
            if getattr(node, attribute) is None:
                setattr(node, attribute, _Node())
            node = getattr(node, attribute)
        return node, tuple(names)


_BRANCHES = {"": "text", "uuid": "uuid", "int": "integer", "path": "rest"}


def parse_path(path: str) -> list[str | Parameter]:
    """The segments of a path template. Raises `ValueError` that says what is wrong with it."""
    if path and not path.startswith("/"):
        raise ValueError(f"The path {path!r} must begin with a slash.")
    parts: list[str | Parameter] = []
    segments = path[1:].split("/")
    names = set()
    for position, segment in enumerate(segments):
        match = _PARAMETER.fullmatch(segment)
        if match is None:
            if "{" in segment or "}" in segment:
                raise ValueError(
                    f"In the path {path!r}, {segment!r} is neither plain text nor one whole {{parameter}}."
                )
            parts.append(segment)
            continue
        name, kind = match[1], match[2] or ""
        if kind not in _BRANCHES:
            raise ValueError(f"In the path {path!r}, the kind {kind!r} is unknown; there are uuid, int and path.")
        if name in names:
            raise ValueError(f"In the path {path!r}, the parameter {name!r} stands twice.")
        if kind == "path" and position != len(segments) - 1:
            raise ValueError(f"In the path {path!r}, {segment!r} takes all the rest and must stand last.")
        names.add(name)
        parts.append(Parameter(name, kind))
    return parts


def _find(
    node: _Node, segments: list[str], position: int, method: str, values: list[Any], allowed: set[str]
) -> tuple[Route, tuple[str, ...]] | None:
    """The first route of `method` below `node`. Fills in the parameters' `values`, and the methods `allowed` where the
    path fits."""
    if position == len(segments):
        allowed.update(node.routes)
        return node.routes.get(method)
    segment = segments[position]
    literal = node.literals.get(segment)
    if literal is not None:
        hit = _find(literal, segments, position + 1, method, values, allowed)
        if hit is not None:
            return hit
    for child, value in _readings(node, segment):
        values.append(value)
        hit = _find(child, segments, position + 1, method, values, allowed)
        if hit is not None:
            return hit
        values.pop()
    if node.rest is not None:
        allowed.update(node.rest.routes)
        hit = node.rest.routes.get(method)
        if hit is not None:
            values.append("/".join(segments[position:]))
            return hit
    return None


def _readings(node: _Node, segment: str) -> Iterator[tuple[_Node, Any]]:
    """What a segment may be as a parameter, the narrowest kind first."""
    if node.uuid is not None and _UUID.fullmatch(segment):
        yield node.uuid, UUID(segment)
    if node.integer is not None and (number := _integer(segment)) is not None:
        yield node.integer, number
    if node.text is not None and segment:
        yield node.text, segment


def _integer(segment: str) -> int | None:
    if not _INTEGER.fullmatch(segment):
        return None
    number = int(segment)
    return number if -(2**63) <= number < 2**63 else None


def _segments(scope: Scope, path: str) -> list[str]:
    """The path's segments, decoded. `path` is decoded as a whole, and there an encoded slash looks like any other: if
    there is one, the segments are taken from `raw_path`."""
    if path[:1] != "/":
        return [path, ""]  # "*" and the like: no route has it
    raw: bytes | None = scope.get("raw_path")
    if raw is None or b"%2" not in raw:
        return path[1:].split("/")
    segments = [unquote(part, errors="replace") for part in raw.partition(b"?")[0].decode("latin-1").split("/")]
    whole = "/".join(segments)
    if not whole.endswith(path):  # the server gave something else than this path, encoded
        return path[1:].split("/")
    # Drop from the front what `path` does not have: the root_path under which we are mounted.
    surplus = len(whole) - len(path) + 1
    while surplus > 0:
        surplus -= len(segments.pop(0)) + 1
    return segments if surplus == 0 else [path, ""]  # the root_path ends at an encoded slash: not ours


def _other_form(segments: list[str]) -> list[str]:
    """The same path without its closing slashes, or with one if it has none."""
    if segments[-1]:
        return [*segments, ""]
    shorter = segments[:-1]
    while len(shorter) > 1 and not shorter[-1]:
        shorter.pop()
    return shorter


def _full_name(handler: Handler) -> str:
    kind = handler if hasattr(handler, "__qualname__") else type(handler)
    return f"{kind.__module__}.{kind.__qualname__}"


def _place(route: Route) -> str:
    return f"{' '.join(route.methods)} {route.path}"
