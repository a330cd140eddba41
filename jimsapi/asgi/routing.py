"""Finds the route of a request: in a dictionary of exact paths, else in a tree of path segments."""

import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from inspect import CO_VARARGS, CO_VARKEYWORDS, iscoroutinefunction, isroutine, signature
from operator import itemgetter
from os import PathLike
from types import FunctionType, MappingProxyType
from typing import Any, TypeVar
from urllib.parse import unquote
from uuid import UUID

from .connection import Request, local_path
from .disconnect import cancelled_on_disconnect
from .limits import limited
from .response import ErrorResponse, Response
from .route import Match, Model, Parameter, ResponseDoc, Reword, Route, RouteConflict
from .types import Scope
from .websocket import WebSocket
from .worker_thread import in_worker_thread

Handler = Callable[[Request], Any]
"""Returns a `Response`, or a value that `as_response` converts to one. It is `async def`, or `def` with
`worker_thread`."""
AnyHandler = TypeVar("AnyHandler", bound=Handler)
WebSocketHandler = Callable[[WebSocket], Awaitable[None]]
AnyWebSocketHandler = TypeVar("AnyWebSocketHandler", bound=WebSocketHandler)


_HANDSHAKE = "WebSocket"
"""Takes the place of a method in the tree for WebSockets, which is separate from the tree for requests."""

_PERCENT = ord("%")  # `in` with a number takes a tenth of the time of `in` with bytes
_PARAMETER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(?::([a-z]+))?\}")
_UUID = re.compile(r"[0-9a-fA-F]{32}|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_INTEGER = re.compile(r"-?[0-9]{1,19}")


class _Node:
    """A node of the tree: its children in the order in which a look-up tries them, and the routes that end here."""

    __slots__ = ("literals", "parameters", "path_child", "routes")

    def __init__(self) -> None:
        self.literals: dict[str, _Node] = {}
        self.parameters: list[tuple[int, Callable[[str], Any], _Node]] = []
        self.path_child: _Node | None = None
        self.routes: dict[str, tuple[Route, tuple[str, ...]]] = {}

    def child_for(self, part: "str | Parameter") -> "_Node":
        """Return the child for a segment of a path. Creates it if it is missing."""
        if isinstance(part, str):
            literal = self.literals.get(part)
            if literal is None:
                literal = self.literals[part] = _Node()
            return literal
        if part.kind == "path":
            self.path_child = self.path_child or _Node()
            return self.path_child
        rank = tuple(_READERS).index(part.kind)
        for known, _, child in self.parameters:
            if known == rank:
                return child
        child = _Node()
        self.parameters.append((rank, _READERS[part.kind], child))
        self.parameters.sort(key=itemgetter(0))
        return child


class RouteTable:
    """Routes, and the look-up of a route by method and path.

    `exact` has the routes without parameters, by path and then by method. `sealed` is the reason why no more routes can
    be added, or None if they can. `rewords` convert errors of requests without a route, by the beginning of their path.
    """

    __slots__ = ("_tree", "_websockets", "exact", "rewords", "routes", "sealed")

    def __init__(self, routes: Iterable[Route] = (), rewords: Mapping[str, Reword] | None = None) -> None:
        self.routes: list[Route] = []
        self.exact: dict[str, dict[str, Route]] = {}
        self.sealed: str | None = None
        self.rewords: dict[str, Reword] = dict(rewords or {})
        self._tree = _Node()
        self._websockets = _Node()
        for route in routes:
            self.add(route)

    def add(self, route: Route) -> None:
        """Add a route.

        Raises `ValueError` for an invalid path or handler, `RouteConflict` if the path has a handler for a method, and
        `RuntimeError` if the table is sealed.
        """
        if self.sealed is not None:
            raise RuntimeError(f"{_methods_and_path(route)} cannot be added to this router: {self.sealed}.")
        _check_handler(route.handler, route.path)
        if route.resource:
            _check_resource(route)
        if route.websocket:
            node, names = self._grow(self._websockets, route)
            methods: tuple[str, ...] = (_HANDSHAKE,)
        elif route.methods:
            node, names = self._grow(self._tree, route)
            methods = route.methods
        else:
            raise ValueError(f"{route.path} ({_full_name(route.handler)}) has no method.")
        for method in methods:
            if method in node.routes:
                other = node.routes[method][0]
                raise RouteConflict(
                    f"{method} {route.path} is claimed twice: by {_full_name(other.handler)} (as {other.path}) and by "
                    f"{_full_name(route.handler)}. Give one of them another path."
                )
        for method in methods:
            node.routes[method] = (route, names)
            if not names and not route.websocket:
                self.exact.setdefault(route.path or "/", {})[method] = route
        self.routes.append(route)

    def match(self, scope: Scope) -> Match:
        """Return the route for an ASGI scope. Handles `root_path`, parameters and encoded slashes, unlike `exact`."""
        method, path = scope["method"], scope["path"]
        if path[:1] == "/" and not scope.get("root_path") and _PERCENT not in (scope.get("raw_path") or b"%"):
            direct = _follow(self._tree, path[1:].split("/"), method)
            if direct is not None:
                return direct
        segments = _segments(scope, local_path(scope))
        found = _search(self._tree, method, segments)
        if found.route is None and not found.allowed and scope.get("root_path"):
            # hypercorn and granian do not put root_path before path. Then a path may begin with the same text by
            # chance: /api/v1 of this app, served under /api.
            found = _search(self._tree, method, _segments(scope, scope["path"]))
        if found.route is None and not found.allowed and _search(self._tree, "", _other_form(segments)).allowed:
            return Match(None, {}, slash_differs=True)
        return found

    def reworded(self, response: Response, scope: Scope) -> Response:
        """Return the answer to a request without a route, as `Router.reword_below` declared it for its path."""
        if self.rewords and isinstance(response, ErrorResponse):
            path = local_path(scope)
            for prefix, reword in self.rewords.items():
                if path.startswith(prefix):
                    return reword(response)
        return response

    def match_websocket(self, scope: Scope) -> Match:
        """Return the WebSocket route for the path of an ASGI scope of any type."""
        found = _search(self._websockets, _HANDSHAKE, _segments(scope, local_path(scope)))
        if found.route is None and scope.get("root_path"):  # as in match()
            found = _search(self._websockets, _HANDSHAKE, _segments(scope, scope["path"]))
        return found

    def _grow(self, node: _Node, route: Route) -> tuple[_Node, tuple[str, ...]]:
        """Return the node for a route, and the names of its parameters. Creates nodes that are missing."""
        parts = parse_path(route.path)
        for part in parts:
            node = node.child_for(part)
        return node, tuple(part.name for part in parts if isinstance(part, Parameter))


class Router:
    """A group of routes, which an app or another router can include under a prefix.

    A handler is `async def handler(request)`. It returns a `Response`, or a value that becomes a JSON response: a
    `msgspec.Struct`, a dict or a list. The keys of a dict must be texts. Its docstring becomes the route's
    description. With `worker_thread` it is a plain function.

    A segment of a path may be a parameter: `{id}` (text), `{id:uuid}` (dashed or 32 hexadecimal digits), `{n:int}`
    (64 bits), and as the last segment `{rest:path}` (the rest of the path with its slashes). If several routes with the
    method match, literal segments take precedence, then UUIDs, integers, text and `path`.

    `security_schemes` are the ways in which callers send credentials to the app that this router is for: Security
    Scheme Objects of OpenAPI 3.1 (section 4.8.27), by name. The mapping is read-only.
    """

    def __init__(self, *, security_schemes: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self._table = RouteTable()
        self.security_schemes: Mapping[str, Mapping[str, Any]] = MappingProxyType(dict(security_schemes or {}))

    @property
    def routes(self) -> list[Route]:
        """All routes, in the order in which they were declared."""
        return self._table.routes

    def route(
        self,
        path: str,
        methods: Sequence[str],
        *,
        public: bool = False,
        probe: bool = False,
        scope: str | None = None,
        resource: bool = False,
        name: str | None = None,
        summary: str | None = None,
        body: Model | None = None,
        query: Model | None = None,
        form: Model | None = None,
        files: Sequence[str] = (),
        response: Any = None,
        status: int = 200,
        responses: Mapping[int, ResponseDoc] | None = None,
        tags: Sequence[str] = (),
        reword: Reword | None = None,
        max_body: int | None = None,
        time_limit: float | None = None,
        cancel_on_disconnect: bool = False,
        worker_thread: bool = False,
    ) -> Callable[[AnyHandler], AnyHandler]:
        """Declare the decorated handler for `methods` of `path`.

        - `public`: the app does not call `admit`.
        - `probe`: the request gets no request id and no log line, and is answered even while the app refuses requests.
        - `scope`: the scope that `admit` may require of the caller.
        - `resource`: this path is an OAuth protected resource of its own (RFC 9728), for clients that look for its
          authorization servers, such as those of MCP. `App.resource_metadata` serves the metadata. The path has no
          parameters, since a resource has one URL, and the route is not public.
        - `reword`: for other protocols, converts the response `{"detail": …}` to an error to the response that is sent.
          This covers errors of the handler, of `admit`, and unexpected ones.
        - `max_body`: the limit for the body, in bytes, instead of the app's.
        - `time_limit`: seconds after which the handler is cancelled and the client gets 504. The time in which a
          streamed response is sent does not count.
        - `cancel_on_disconnect`: if the client disconnects before the handler has returned, the handler is cancelled.
          The jimsapi server cancels it at once, and does not begin it after a disconnect. On other servers, and within
          wrappers that replace `receive` or run the app in another task, the app begins to watch when the handler has
          run for 0.05 seconds, and only after the body has been read.
        - `worker_thread`: the handler is a plain function, which runs in a thread of anyio's pool (40 at most), so it
          may block. It reads the body by `anyio.from_thread.run(request.body)`. Since a thread cannot be stopped,
          `time_limit` and `cancel_on_disconnect` are not possible.
        - `status`: the status of the successful response, if the handler does not return a `Response`.

        All other arguments are for the OpenAPI document:

        - `name` (default: the handler's name) and `summary` (default: the first line of its docstring).
        - `body`, `query`: the `msgspec.Struct`s of the JSON body and the query.
        - `form`: the `msgspec.Struct` of the text fields of a form, which `jimsapi.asgi.forms.read_form` reads.
        - `files`: the names of its fields that are files. A form with files has to be `multipart/form-data`.
        - `response`: the type of the successful response, such as a `msgspec.Struct` or a `list` of one.
        - `responses`: more responses, as `{status: description}`, `{status: (description, Struct)}` or, if the body is
          not JSON, `{status: (description, content type)}`. A description alone keeps the content that is already known
          for that status, and a content type is listed beside it. A route that is not public also has 401 and 403 if
          the app has `admit`.
        - `tags`: the groups in which the route is listed.

        Raises `ValueError` for an invalid path or handler and for a `resource` that cannot be one, `TypeError` if
        `files` is one text, and `RouteConflict` if the path has a handler for a method.
        """
        if isinstance(files, str):
            raise TypeError(f"files={files!r} is one text: pass a list of the names, such as [{files!r}].")

        def declare(handler: AnyHandler) -> AnyHandler:
            if worker_thread:
                _check_threaded(handler, path, time_limit is not None or cancel_on_disconnect)
                run = in_worker_thread(handler)
            else:
                _check_handler(handler, path, _THREAD_HINT)
                run = handler
            _check_parameters(handler, path)
            run = limited(run, max_body, time_limit)
            self.add(
                Route(
                    path=path,
                    methods=tuple(method.upper() for method in methods),
                    handler=cancelled_on_disconnect(run) if cancel_on_disconnect else run,
                    public=public,
                    probe=probe,
                    scope=scope,
                    resource=resource,
                    name=name or str(getattr(handler, "__name__", type(handler).__name__)),
                    summary=summary,
                    body=body,
                    query=query,
                    form=form,
                    files=tuple(files),
                    response=response,
                    status=status,
                    responses=responses,
                    tags=tuple(tags),
                    reword=reword,
                )
            )
            return handler

        return declare

    def get(self, path: str, **options: Any) -> Callable[[AnyHandler], AnyHandler]:
        """Declare a handler for GET, and so for HEAD. The options are those of `route`."""
        return self.route(path, ("GET",), **options)

    def post(self, path: str, **options: Any) -> Callable[[AnyHandler], AnyHandler]:
        """Declare a handler for POST. The options are those of `route`."""
        return self.route(path, ("POST",), **options)

    def put(self, path: str, **options: Any) -> Callable[[AnyHandler], AnyHandler]:
        """Declare a handler for PUT. The options are those of `route`."""
        return self.route(path, ("PUT",), **options)

    def patch(self, path: str, **options: Any) -> Callable[[AnyHandler], AnyHandler]:
        """Declare a handler for PATCH. The options are those of `route`."""
        return self.route(path, ("PATCH",), **options)

    def delete(self, path: str, **options: Any) -> Callable[[AnyHandler], AnyHandler]:
        """Declare a handler for DELETE. The options are those of `route`."""
        return self.route(path, ("DELETE",), **options)

    def websocket(
        self,
        path: str,
        *,
        public: bool = False,
        scope: str | None = None,
        subprotocols: Sequence[str] = (),
        origins: Collection[str] = (),
        first_frame: bool = False,
        name: str | None = None,
        summary: str | None = None,
        tags: Sequence[str] = (),
    ) -> Callable[[AnyWebSocketHandler], AnyWebSocketHandler]:
        """Declare the decorated `async def handler(ws: WebSocket) -> None` for WebSockets (RFC 6455) at `path`:

            @app.websocket("/echo/{room}")
            async def echo(ws: WebSocket) -> None:
                await ws.accept()
                async for message in ws:
                    await ws.send_text(f"you said {message!r}")

        `public`, `scope`, `name`, `summary` and `tags` are those of `route`. A path may have HTTP methods too.

        The app calls `admit` before it accepts the handshake. The client may send credentials in three ways, but not in
        the query string, which is written to logs:

        - In the header `authorization`, which browsers cannot send.
        - As one more offered subprotocol: `bearer.TOKEN` if the token has only letters, digits and
          `!#$%&'*+-.^_`|~`, or `base64url.bearer.TOKEN` for any token, encoded as base64url without padding. For other
          schemes, `base64url.authorization.VALUE` with the whole value of the header, encoded in the same way.
        - With `first_frame`, in the first text frame: `{"type": "auth", "token": "…"}`, or for other schemes
          `{"type": "auth", "authorization": "Scheme …"}`, within 10 seconds. The app then accepts the handshake of an
          unknown caller, and closes with 1008 if the frame has no valid credentials.

        `subprotocols` are those of the handler, in order of preference. `WebSocket.accept` selects one of them. A
        browser that offers subprotocols (also a token) fails if none is selected, so it must also offer one of these.

        `origins` are web origins (`https://shop.example`) whose pages may connect, besides those of the request's host
        and the app's `origins`. `*` allows all, which is safe only if no cookie or client certificate admits callers.

        Raises as `route` does.
        """

        def declare(handler: AnyWebSocketHandler) -> AnyWebSocketHandler:
            _check_parameters(handler, path)
            self.add(
                Route(
                    path=path,
                    methods=(),
                    handler=handler,
                    public=public,
                    scope=scope,
                    name=name or str(getattr(handler, "__name__", type(handler).__name__)),
                    summary=summary,
                    status=101,
                    responses={101: "The WebSocket is open.", 426: "The request was not a WebSocket handshake."},
                    tags=tuple(tags),
                    websocket=True,
                    subprotocols=tuple(subprotocols),
                    origins=frozenset(origins),
                    first_frame=first_frame,
                )
            )
            return handler

        return declare

    def static(
        self,
        path: str,
        folder: str | PathLike[str],
        *,
        index: str | None = None,
        public: bool = False,
        probe: bool = False,
        scope: str | None = None,
        name: str | None = None,
        summary: str | None = None,
        responses: Mapping[int, ResponseDoc] | None = None,
        tags: Sequence[str] = (),
    ) -> None:
        """Serve the files of `folder` for GET and HEAD below `path`:

            app.static("/assets", "assets", public=True)

        `index` is the name of the file that is served for a folder, such as `index.html`. Without it folders are not
        found, and there are no listings. Files outside of `folder` are not found, also behind symbolic links, and so
        are names that begin with a dot, except `.well-known`. The other options are those of `route`. There is no
        `time_limit` and no `cancel_on_disconnect`, since nothing can stop a thread that reads a file.

        Clients can ask whether a file has changed (RFC 9110, 13), and for a range of bytes (RFC 9110, 14). At most 40
        threads read files at once; handlers with `worker_thread` do not use these. Raises `ValueError` if `folder` is
        not a folder, and as `route` does.
        """
        from .files import Folder  # only apps with static files need it

        serve = Folder(folder, index)

        @self.get(
            f"{path.rstrip('/')}/{{path:path}}",
            public=public,
            probe=probe,
            scope=scope,
            name=name,
            summary=summary,
            responses=responses,
            tags=tags,
        )
        async def static(request: Request) -> Response:
            """Return a static file."""
            return await serve(request)

    def reword_below(self, path: str, reword: Reword) -> None:
        """Convert the errors of requests below `path` that no route matches (404, 405), as `reword` of a route does.

        It is for the paths of another protocol, whose clients expect errors in its own form. Raises `ValueError` if
        `path` does not begin with a slash.
        """
        if not path.startswith("/"):
            raise ValueError(f"The path {path!r} must begin with a slash.")
        self._table.rewords[path.rstrip("/") + "/"] = reword

    def include(self, router: "Router", prefix: str = "") -> None:
        """Add all routes of `router`, with `prefix` before their paths.

        No routes can be added to `router` afterwards, since they would be lost silently. Raises `ValueError` for an
        invalid prefix, and as `add` does.
        """
        if prefix and (not prefix.startswith("/") or prefix.endswith("/")):
            raise ValueError(f"The prefix {prefix!r} must begin with a slash and not end with one.")
        for route in router.routes:
            self.add(self._adopted(route, prefix + route.path))
        for path, reword in router._table.rewords.items():
            self._table.rewords[prefix + path] = reword
        router._table.sealed = "it was included already; declare them before include()"

    def add(self, route: Route) -> None:
        """Add a `Route` object. Most programs use `route`, `get` and the like instead.

        Raises `ValueError` for an invalid path or handler, `RouteConflict` if the path has a handler for a method, and
        `RuntimeError` if no more routes can be added.
        """
        self._table.add(route)

    def _adopted(self, route: Route, path: str) -> Route:
        """Return the route as this router has it, at `path`."""
        return replace(route, path=path)

    def match(self, scope: Scope) -> Match:
        """Return the route for an ASGI scope."""
        return self._table.match(scope)

    def match_websocket(self, scope: Scope) -> Match:
        """Return the WebSocket route for the path of an ASGI scope of any type."""
        return self._table.match_websocket(scope)


def parse_path(path: str) -> list[str | Parameter]:
    """Return the segments of a path template. Raises `ValueError` with the reason if it is invalid."""
    if path and not path.startswith("/"):
        raise ValueError(f"The path {path!r} must begin with a slash.")
    parts: list[str | Parameter] = []
    segments = path[1:].split("/")
    names = set()
    for position, segment in enumerate(segments):
        if "{" not in segment and "}" not in segment:
            parts.append(segment)
            continue
        match = _PARAMETER.fullmatch(segment)
        if match is None:
            raise ValueError(f"In the path {path!r}, {segment!r} is neither plain text nor one whole {{parameter}}.")
        name, kind = match[1], match[2] or ""
        if kind not in _READERS and kind != "path":
            raise ValueError(f"In the path {path!r}, the kind {kind!r} is unknown; the kinds are uuid, int and path.")
        if name in names:
            raise ValueError(f"In the path {path!r}, the parameter {name!r} occurs twice.")
        if kind == "path" and position != len(segments) - 1:
            raise ValueError(f"In the path {path!r}, {segment!r} must be the last segment.")
        names.add(name)
        parts.append(Parameter(name, kind))
    return parts


def _search(tree: _Node, method: str, segments: list[str]) -> Match:
    values: list[Any] = []
    allowed: set[str] = set()
    hit = _find(tree, segments, 0, method, values, allowed)
    if hit is None and method == "HEAD":
        hit = _find(tree, segments, 0, "GET", values, allowed)
    if hit is None:
        return Match(None, {}, frozenset(allowed))
    route, names = hit
    return Match(route, dict(zip(names, values, strict=True)))


def _follow(node: _Node, segments: list[str], method: str) -> Match | None:
    """Return the result of `_search` in a third of its time if no backtracking is necessary; else None."""
    values = []
    for segment in segments:
        next_node = node.literals.get(segment)
        if next_node is None:
            for _, read, child in node.parameters:
                value = read(segment)
                if value is not None:
                    values.append(value)
                    next_node = child
                    break
            else:
                return None
        node = next_node
    hit = node.routes.get(method)
    # A node has as many parameters above it as its routes have names; `strict` takes 1 % of a request's time.
    return None if hit is None else Match(hit[0], dict(zip(hit[1], values)))  # noqa: B905


def _find(
    node: _Node, segments: list[str], position: int, method: str, values: list[Any], allowed: set[str]
) -> tuple[Route, tuple[str, ...]] | None:
    """Return the first route of `method` below `node`, and the names of its parameters.

    Appends the parameters' values to `values`. If there is no such route, adds the methods of the routes whose path
    matches to `allowed`.
    """
    if position == len(segments):
        hit = node.routes.get(method)
        if hit is None:
            allowed.update(node.routes)
        return hit
    segment = segments[position]
    literal = node.literals.get(segment)
    if literal is not None:
        hit = _find(literal, segments, position + 1, method, values, allowed)
        if hit is not None:
            return hit
    for _, read, child in node.parameters:
        value = read(segment)
        if value is not None:
            values.append(value)
            hit = _find(child, segments, position + 1, method, values, allowed)
            if hit is not None:
                return hit
            values.pop()
    if node.path_child is not None:
        hit = node.path_child.routes.get(method)
        if hit is not None:
            values.append("/".join(segments[position:]))
            return hit
        allowed.update(node.path_child.routes)
    return None


def _uuid(segment: str) -> UUID | None:
    return UUID(segment) if _UUID.fullmatch(segment) else None


def _integer(segment: str) -> int | None:
    if not _INTEGER.fullmatch(segment):
        return None
    number = int(segment)
    return number if -(2**63) <= number < 2**63 else None


def _text(segment: str) -> str | None:
    return segment or None


_READERS: dict[str, Callable[[str], Any]] = {"uuid": _uuid, "int": _integer, "": _text}
"""Functions that convert a segment to a parameter's value, by the kind of the parameter, in order of precedence."""


def _segments(scope: Scope, path: str) -> list[str]:
    """Return the decoded segments of the path.

    The server has decoded `path` as a whole, so an encoded slash looks like any other slash. If there is one, the
    segments are taken from `raw_path`.
    """
    if path[:1] != "/":
        return [path, ""]  # no route matches "*" and the like
    raw: bytes | None = scope.get("raw_path")
    if raw is None or b"%2" not in raw:
        return path[1:].split("/")
    segments = [unquote(part, errors="replace") for part in raw.partition(b"?")[0].decode("latin-1").split("/")]
    whole = "/".join(segments)
    if not whole.endswith(path):  # raw_path is not the encoded form of this path
        return path[1:].split("/")
    # Drop the root_path from the front, which `path` does not contain.
    surplus = len(whole) - len(path) + 1
    while surplus > 0:
        surplus -= len(segments.pop(0)) + 1
    return segments if surplus == 0 else [path, ""]  # the root_path ends at an encoded slash: no route matches


def _other_form(segments: list[str]) -> list[str]:
    """Return the same path without its closing slashes, or with one if it has none."""
    if segments[-1]:
        return [*segments, ""]
    shorter = segments[:-1]
    while len(shorter) > 1 and not shorter[-1]:
        shorter.pop()
    return shorter


_THREAD_HINT = " Declare the route with `worker_thread=True` to run a plain function in a thread."


def _check_handler(handler: Any, path: str, hint: str = "") -> None:
    """Raise `ValueError` for a plain function. Other callable objects may return an awaitable."""
    if isroutine(handler) and not iscoroutinefunction(handler):
        raise ValueError(f"The handler {_full_name(handler)} of {path} must be `async def`.{hint}")


def _check_parameters(handler: Any, path: str) -> None:
    """Raise `ValueError` if a handler cannot be called with one argument, such as one that expects path parameters."""
    if isinstance(handler, FunctionType) and _has_one_parameter(handler):
        return
    try:
        declared = signature(handler, follow_wrapped=False)  # a decorator may pass further arguments itself
    except (TypeError, ValueError):  # not every callable shows its parameters
        return
    try:
        declared.bind(None)
    except TypeError as error:
        raise ValueError(
            f"The handler {_full_name(handler)} of {path} must have one parameter, the request or the WebSocket, which "
            f"has path_params and the rest: {error}."
        ) from None


def _has_one_parameter(function: FunctionType) -> bool:
    """Whether a function has one parameter, and it is positional. `signature` would take 80 times as long."""
    code = function.__code__
    others = code.co_kwonlyargcount or code.co_flags & (CO_VARARGS | CO_VARKEYWORDS)
    return code.co_argcount == 1 and not others


def _check_threaded(handler: Any, path: str, stoppable: bool) -> None:
    """Raise `ValueError` if a handler is not for a worker thread, or if something may have to stop it."""
    subject = f"The handler {_full_name(handler)} of {path}"
    if iscoroutinefunction(handler) or iscoroutinefunction(type(handler).__call__):
        raise ValueError(f"{subject} is `async def`, so it cannot run in a thread. Remove `worker_thread`.")
    if stoppable:
        raise ValueError(
            f"{subject} runs in a thread, which nothing can stop. Remove `time_limit` and `cancel_on_disconnect`, and "
            "limit the calls within the handler."
        )


def _check_resource(route: Route) -> None:
    """Raise `ValueError` if a route cannot be an OAuth protected resource."""
    subject = f"{_methods_and_path(route)} ({_full_name(route.handler)}) cannot be a resource"
    if route.public:
        raise ValueError(f"{subject}: it is public, so nobody needs a token for it. Remove `public` or `resource`.")
    if "{" in route.path:
        raise ValueError(f"{subject}: its path has parameters, and a resource has one URL. Remove `resource`.")


def _full_name(handler: Callable[..., Any]) -> str:
    kind = handler if hasattr(handler, "__qualname__") else type(handler)
    return f"{kind.__module__}.{kind.__qualname__}"


def _methods_and_path(route: Route) -> str:
    return f"{' '.join(route.methods) or _HANDSHAKE} {route.path}"
