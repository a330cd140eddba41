"""The path of a request, from the server's call to the last byte sent, and the app that it runs through.

`App.__call__` is the whole of it: match, refuse, admit, handle, send, tell the observers. There is no chain of
middleware, and nothing is wrapped around the server's `receive` and `send`.
"""

import logging
import os
import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from functools import cache, partial
from itertools import count
from time import perf_counter
from typing import Any, TypeVar
from urllib.parse import quote

from .connection import MAX_BODY, Connection, Request, local_path, request_id
from .docs import docs_page
from .errors import ClientDisconnected, HTTPError
from .extension import exchange_of
from .openapi import build_document
from .record import CLIENT_GONE, OTHER_METHOD, UNMATCHED, Observer, RequestRecord
from .response import ErrorResponse, JSONResponse, Response
from .route import METHODS, Match, Route
from .routing import Router, RouteTable
from .streaming import StreamingResponse
from .types import ASGIApp, RawHeaders, Receive, Scope, Send
from .websocket import WEBSOCKET, WebSocket, same_origin

logger = logging.getLogger("jimsapi.asgi")

Lifespan = Callable[["App"], AbstractAsyncContextManager[None]]

Admit = Callable[[Any, Route], Awaitable[object]]
"""Takes a `Connection`: a `Request`, or a `WebSocket` before its handshake is accepted."""

ExceptionHandler = Callable[[Any, Any], Response]
"""Takes a `Connection`, a `Request` or a `WebSocket`, and the error."""

AnyExceptionHandler = TypeVar("AnyExceptionHandler", bound=ExceptionHandler)

_GIVEN_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_PERCENT = ord("%")  # a byte is found in bytes much faster as a number
_CLOSE = (b"connection", b"close")
MAX_STRANGERS = 1000
"""WebSockets that may wait at once for a first frame to say who they are."""
_INSTALL = "Under uvicorn, install the package `websockets`."
_UNPRINTABLE = re.compile(rb"[^\x21-\x5b\x5d-\x7e]")


class App(Router):
    """An ASGI application: a `Router` with the path of a request, exception handlers and a lifespan.

    `title`, `version` and `description` are for the OpenAPI document. `max_body` is the most that is read of a body, in
    bytes. `lifespan(app)` gives an async context manager, entered before the first request and left after the last.
    `admit(request, route)` is asked for every route that is not public, before the body is read: what it returns
    becomes `request.admission`, and it refuses by raising `HTTPError`. `origins` are the web origins whose pages may
    open WebSockets, besides those of this app's own host (`Router.websocket` says more).

    Routes, wrappers and exception handlers may be added until the first request is routed.
    """

    def __init__(
        self,
        *,
        title: str = "API",
        version: str = "0.1.0",
        description: str = "",
        max_body: int = MAX_BODY,
        lifespan: Lifespan | None = None,
        admit: Admit | None = None,
        origins: Collection[str] = (),
    ) -> None:
        super().__init__()
        self.title = title
        self.version = version
        self.description = description
        self.max_body = max_body
        self._lifespan = lifespan
        self.admit = admit
        self.origins = origins
        self.on_request: list[Observer] = []
        self.refusal: Response | None = None
        self.startup_error: BaseException | None = None
        self._handlers: dict[type[BaseException], ExceptionHandler] = {HTTPError: _http_error}
        self._wrapped: ASGIApp | None = None
        self._strangers = 0
        self._silenced: set[int] = set()  # by id, since an observer need not be hashable

    async def __call__(self, scope: Scope, receive: Receive, send: Send, *, inside: bool = False) -> None:
        """Answer one request. The order of the steps is the promise: nobody reads a body before admission.

        `inside` is for the call that comes through the wrappers.
        """
        if scope["type"] != "http" or (self._wrapped is not None and not inside):
            return await self._pass_on(scope, receive, send, inside)
        began = perf_counter()
        request = Request(scope, receive, self.max_body)
        method: str = scope["method"]

        # Match. An exact path is two look-ups; whatever is less plain goes the thorough way.
        route: Route | None = None
        missed: Match | None = None
        table = self._table
        methods = table.exact.get(scope["path"])
        if methods is not None and not scope.get("root_path") and _PERCENT not in (scope.get("raw_path") or b""):
            route = methods.get(method)
        if route is None:
            match = table.match(scope)
            route = match.route
            request.path_params = match.path_params
            missed = match
        request.route = route

        # Name. Probes have none, not even the one that an earlier request left behind on their connection.
        probe = route is not None and route.probe
        if probe:
            if request_id.get():
                request_id.set("")
        else:
            id_bytes = _identifier(request.watched.get(b"x-request-id"))
            request.request_id = id_bytes.decode()
            request_id.set(request.request_id)

        # Refuse, or admit and handle.
        try:
            if self.refusal is not None and not probe:
                response = self.refusal
            elif route is None:
                response = self._unrouted(request, missed)
            else:
                if table.sealed is None:
                    table.sealed = "the app has answered requests already"
                if self.admit is not None and not route.public:
                    request.admission = await self.admit(request, route)
                response = await route.handler(request)
                if not isinstance(response, Response):
                    raise TypeError(f"The handler of {route.path} returned {type(response).__name__}, not a Response.")
        except ClientDisconnected:
            logger.debug("The client left before its request was read: %s %s", method, _label(route))
            return self._tell(request, method, _status_of_the_cut(request), perf_counter() - began)
        except Exception as error:
            response = self._answer_to(error, request)
            if route is not None and route.reword is not None:
                response = route.reword(response)

        # Send.
        headers = response.raw_headers.copy()
        if not probe:
            headers.append((b"x-request-id", id_bytes))
        if response.names_connection or (request.watched and request.lingering):
            _settle_connection(headers, request)
        try:
            await send({"type": "http.response.start", "status": response.status, "headers": headers})
            if response.body is not None:
                await send({"type": "http.response.body", "body": b"" if method == "HEAD" else response.body})
            elif isinstance(response, StreamingResponse):
                if method == "HEAD":
                    await response.discard()
                    await send({"type": "http.response.body", "body": b""})
                else:
                    await response.stream(request, receive, send)
        except Exception as error:
            # Nothing can be taken back now. What was cut must not look whole, so the server is told by the raise.
            if isinstance(error, ClientDisconnected) or (isinstance(error, OSError) and response.body is not None):
                logger.debug("The client left before its answer was sent: %s %s", method, _label(route))
            else:
                logger.exception("An answer was cut: %s %s", method, _label(route), extra=_log_fields(request))
                raise
        finally:
            if self.on_request:
                self._tell(request, method, response.status, perf_counter() - began)

    async def _converse(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one WebSocket, from its handshake to its end, by the same steps as a request."""
        began = perf_counter()
        ws = WebSocket(scope, receive, send, self.max_body)
        await receive()  # websocket.connect

        # Match and name.
        match = self.match_websocket(scope)
        ws.route, ws.path_params = match.route, match.path_params
        ws.name(_identifier(_last(scope["headers"], b"x-request-id")))
        request_id.set(ws.request_id)

        # Refuse, or admit and handle; then close.
        try:
            try:
                response = await self._refuse_or_handle(ws, match.route)
            except ClientDisconnected:
                raise
            except Exception as error:
                response = self._answer_to(error, ws)
            if response is None:
                await ws.close()
            else:
                await ws.refuse(response)
        except ClientDisconnected:
            logger.debug("The client left: %s %s", WEBSOCKET, _label(match.route))
        finally:
            if self.on_request:
                if ws.accepted:
                    ws.note("close_code", ws.close_code)
                self._tell(ws, WEBSOCKET, ws.status or CLIENT_GONE, perf_counter() - began)

    async def _refuse_or_handle(self, ws: WebSocket, route: Route | None) -> Response | None:
        """The answer of a handshake that is refused, or None once the handler is through."""
        if self.refusal is not None:
            return self.refusal
        if route is None:
            return ErrorResponse("Not Found", 404)
        if not same_origin(ws, {*self.origins, *route.origins}):
            return ErrorResponse("This origin may not connect", 403)
        if self._table.sealed is None:
            self._table.sealed = "the app has answered requests already"
        if self.admit is not None and not route.public:
            ws.admission = await self._admit_websocket(self.admit, ws, route)
            ws.admit = self.admit
        await route.handler(ws)
        if ws.status is None:
            raise RuntimeError(f"The handler of {route.path} neither accepted nor closed its WebSocket.")
        return None

    async def _admit_websocket(self, admit: Admit, ws: WebSocket, route: Route) -> object:
        """Ask at the handshake. Where the route takes credentials from the first frame, a caller who is not known by
        then is asked for it, unless too many are asked already: anybody can open a WebSocket and say nothing."""
        ws.present_offered()
        try:
            return await admit(ws, route)
        except HTTPError as refusal:
            if refusal.status != 401 or not route.first_frame or "authorization" in ws.headers:
                raise
            if self._strangers >= MAX_STRANGERS:
                raise
        self._strangers += 1
        try:
            await ws.present_first_frame()
        finally:
            self._strangers -= 1
        return await admit(ws, route)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send, inside: bool) -> None:
        """What is not a request of HTTP, or is first for the wrappers."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif self._wrapped is not None and not inside:
            await self._wrapped(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._converse(scope, receive, send)
        else:
            raise RuntimeError(f"This app does not speak {scope['type']!r}.")

    def _unrouted(self, request: Request, match: Match | None) -> Response:
        """The answer to what no route answers; nobody is asked for admission here, and nothing is told but that."""
        scope = request.scope
        if match is not None and match.allowed:
            allowed = {*match.allowed, "OPTIONS"}
            if "GET" in allowed:
                allowed.add("HEAD")
            allow = {"allow": ", ".join(sorted(allowed))}
            if scope["method"] == "OPTIONS":
                return Response(status=204, headers=allow)
            return ErrorResponse("Method Not Allowed", 405, allow)
        if self.match_websocket(scope).route is not None:
            return _no_handshake(request)
        if match is not None and match.slash_differs:
            return Response(status=307, headers={"location": _other_slash(scope)}, content_type=None)
        return ErrorResponse("Not Found", 404)

    def _answer_to(self, error: Exception, request: Connection) -> Response:
        """The answer to what was raised: by the handler of its class or of the nearest base, else a plain 500."""
        for kind in type(error).__mro__:
            handler = self._handlers.get(kind)
            if handler is not None:
                try:
                    return handler(request, error)
                except Exception as second:
                    error = second
                break
        logger.error(
            "A request failed: %s %s", request.method, _label(request.route), exc_info=error, extra=_log_fields(request)
        )
        return ErrorResponse("Internal Server Error", 500)

    def _tell(self, request: Connection, method: str, status: int, duration: float) -> None:
        route = request.route
        if route is not None:
            template, probe = route.path, route.probe
        else:
            template, probe = UNMATCHED, False
            if method not in METHODS and method != WEBSOCKET:
                method = OTHER_METHOD
        path = request.scope["path"]
        record = RequestRecord(method, template, path, status, duration, request.request_id, probe, request.noted)
        for observer in self.on_request:  # as `observe` does: another call would cost a hundredth of a request
            try:
                observer(record)
            except Exception as error:
                self._report_failure(observer, error)

    def observe(self, record: RequestRecord) -> None:
        """Tell the observers of a request that the server has refused without the app."""
        for observer in self.on_request:
            try:
                observer(record)
            except Exception as error:
                self._report_failure(observer, error)

    def _report_failure(self, observer: Callable[[RequestRecord], object], error: Exception) -> None:
        """Log the first failure of an observer."""
        if id(observer) not in self._silenced:
            self._silenced.add(id(observer))
            text = "The request observer %r failed; its later failures are not logged."
            logger.error(text, observer, exc_info=error)

    def exception_handler(self, kind: type[BaseException]) -> Callable[[AnyExceptionHandler], AnyExceptionHandler]:
        """Declare the decorated `handler(request, error) -> Response` for errors of this class and its subclasses. In
        place of a request it gets a `WebSocket` if that is where the error was raised."""

        def declare(handler: AnyExceptionHandler) -> AnyExceptionHandler:
            self._handlers[kind] = handler
            return handler

        return declare

    def wrap(self, wrapper: Callable[[ASGIApp], ASGIApp]) -> None:
        """Put `wrapper(app)` around the app for every request; the last one added is the outermost. It does not see
        the lifespan, in which it may be added. Raises `RuntimeError` once the app has answered requests."""
        if self._table.sealed is not None:
            raise RuntimeError(f"{wrapper!r} cannot be put around this app: {self._table.sealed}.")
        self._wrapped = wrapper(self._wrapped or partial(self.__call__, inside=True))

    @contextmanager
    def temporary_declarations(self) -> Iterator[None]:
        """A context for a lifespan that declares routes, wrappers or observers: they come on top of what the app has,
        and are gone when it is left. What the app had before stays, and may be added to again."""
        before = self._table, self._wrapped, self.on_request
        self._table, self.on_request = RouteTable(self.routes), self.on_request.copy()
        try:
            yield
        finally:
            self._table, self._wrapped, self.on_request = before

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI 3.1 document of all routes, as they are now."""
        return build_document(self.title, self.version, self.description, self.routes)

    def docs(self, openapi_path: str = "/openapi.json", docs_path: str = "/docs") -> None:
        """Add two public routes: the OpenAPI document, and a page that shows it without the internet."""

        @cache
        def document() -> Response:  # once it is asked for, no route can be added
            return JSONResponse(self.openapi())

        @self.get(openapi_path, public=True, summary="The OpenAPI document", tags=("docs",))
        async def openapi(request: Request) -> Response:
            return document()

        @self.get(docs_path, public=True, summary="The documentation, for people", tags=("docs",))
        async def docs(request: Request) -> Response:
            return docs_page(self.title, request.scope.get("root_path", "").rstrip("/"), openapi_path)

    async def _live(self, receive: Receive, send: Send) -> None:
        """The lifespan. A start that fails must be said: for a raised exception servers carry on without one."""
        await receive()
        self.startup_error = None
        started = False
        try:
            async with self._lifespan(self) if self._lifespan is not None else nullcontext():
                started = True
                await send({"type": "lifespan.startup.complete"})
                await receive()
        except Exception as error:
            message = str(error) or type(error).__name__
            if started:
                logger.exception("The shutdown failed.")
                await send({"type": "lifespan.shutdown.failed", "message": message})
            else:
                self.startup_error = error
                await send({"type": "lifespan.startup.failed", "message": message})
        else:
            await send({"type": "lifespan.shutdown.complete"})


def _identifier(given: bytes | None) -> bytes:
    """The caller's request id if it is well-formed, else one of ours."""
    if given is not None and _GIVEN_ID.fullmatch(given):
        return given
    return b"%s-%x" % (_process_prefix, next(_request_numbers))


_request_numbers = count(1)
_process_prefix = b""


def _renew_prefix() -> None:
    global _process_prefix
    _process_prefix = os.urandom(8).hex().encode()


_renew_prefix()
if hasattr(os, "register_at_fork"):  # a forked worker counts on from where its parent stood
    os.register_at_fork(after_in_child=_renew_prefix)


def _no_handshake(request: Request) -> Response:
    """The answer to a request that should have been a WebSocket's handshake, or was one and no server knew it."""
    offered = (request.headers.get("connection") or "").lower()
    if "upgrade" in offered and (request.headers.get("upgrade") or "").lower() == "websocket":
        logger.warning("A WebSocket was asked for, and this server has no implementation of them. %s", _INSTALL)
        return ErrorResponse("This server does not speak WebSocket", 501)
    upgrade = {"upgrade": "websocket", "connection": "upgrade"}
    return ErrorResponse("This is for WebSockets only", 426, upgrade)


def _other_slash(scope: Scope) -> str:
    """Where the same path with or without its closing slash is: a path, never another host, with the query kept."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    raw: bytes = (scope.get("raw_path") or quote(path).encode()).partition(b"?")[0]
    if root and local_path(scope) == path:  # the server keeps root_path apart
        raw = quote(root).encode() + raw
    raw = raw.rstrip(b"/") if raw.endswith(b"/") else raw + b"/"
    location = b"/" + raw.lstrip(b"/")
    if query := scope.get("query_string"):
        location += b"?" + query
    return _UNPRINTABLE.sub(lambda found: b"%%%02X" % found[0][0], location).decode()


def _settle_connection(headers: RawHeaders, request: Request) -> None:
    """Say `connection: close` where a body is left unread. HTTP/2 knows no such header (RFC 9113, 8.2.2)."""
    http_1 = request.scope.get("http_version", "1.1") in ("1.0", "1.1")
    if request.lingering or not http_1:
        headers[:] = [pair for pair in headers if pair[0] != b"connection"]
    if request.lingering and http_1:
        headers.append(_CLOSE)


def _last(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    """The last header of this name."""
    return next((value for found, value in reversed(list(headers)) if found == name), None)


def _http_error(request: Connection, error: HTTPError) -> Response:
    return ErrorResponse(error.detail, error.status, error.headers)


def _label(route: Route | None) -> str:
    return UNMATCHED if route is None else route.path


def _status_of_the_cut(request: Request) -> int:
    """The status of a request whose body was cut: the server's, if it refused the body itself, or `CLIENT_GONE`."""
    exchange = exchange_of(request.scope)
    return CLIENT_GONE if exchange is None else exchange.refused or CLIENT_GONE


def _log_fields(request: Connection) -> dict[str, str]:
    return {"request_id": request.request_id}
