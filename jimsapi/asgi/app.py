"""The app, and the path of a request from the server's call to the last byte sent.

`App.__call__` is the whole path: match, refuse, admit, handle, send, notify the observers. There is no chain of
middleware, and the app calls the server's `receive` and `send` directly.
"""

import logging
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext
from dataclasses import replace
from functools import cache, partial
from inspect import iscoroutinefunction, isroutine
from itertools import count
from time import perf_counter
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from .connection import MAX_BODY, Connection, Request, local_path, request_id
from .cors import Cors, same_origin
from .docs import docs_page
from .errors import ClientDisconnected, HTTPError
from .extension import EXTENSION, exchange_of
from .open_work import OpenWork
from .openapi import build_document
from .problem import VARY, problem, wants_problem
from .protected_resource import ProtectedResources
from .record import CLIENT_GONE, OTHER_METHOD, UNMATCHED, Observer, RequestRecord
from .response import ErrorResponse, JSONResponse, Response
from .route import METHODS, Match, Route
from .routing import Router, RouteTable
from .streaming import StreamingResponse
from .types import ASGIApp, RawHeaders, Receive, Scope, Send
from .websocket import WEBSOCKET, WebSocket

logger = logging.getLogger("jimsapi.asgi")

Lifespan = Callable[["App"], AbstractAsyncContextManager[None]]

Admit = Callable[[Any, Route], Awaitable[object]]
"""An app's `admit`. Its arguments are a `Connection` (a `Request`, or a `WebSocket` before its handshake is accepted)
and the route. It returns the value for `Connection.admission`."""

ExceptionHandler = Callable[[Any, Any], Response]
"""Returns the response to an error that was raised while the app served a `Request` or a `WebSocket`."""

AnyExceptionHandler = TypeVar("AnyExceptionHandler", bound=ExceptionHandler)

_VALID_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_PERCENT = ord("%")  # the search for a byte in bytes is much faster with a number
_CLOSE = (b"connection", b"close")
MAX_AWAITING_FIRST_FRAME = 1000
"""Maximum number of WebSockets that may wait at once for a first frame with credentials."""
_INSTALL = "Under uvicorn, install the package `websockets`."
DRAIN_TIME = 20.0
"""The default for how many seconds a drain may take."""
MAX_DRAIN_TIME = 86_400
_UNPRINTABLE = re.compile(rb"[^\x21-\x5b\x5d-\x7e]")


class App(Router):
    """An ASGI application: a `Router` that serves requests, with exception handlers and a lifespan.

    - `title`, `version` and `description` are for the OpenAPI document.
    - `max_body` is the limit for a request's body, in bytes.
    - `lifespan(app)` returns an async context manager. The app enters it before the first request and leaves it after
      the last.
    - `admit(request, route)` decides whether the caller may use a route. The app calls it for every route that is not
      public, before it reads the body. Its result becomes `request.admission`. It rejects the caller by raising
      `HTTPError`.
    - `origins` are the web origins whose pages may open WebSockets, besides those of this app's own host (see
      `Router.websocket`).
    - `cors` names the origins whose pages may read the responses.
    - `security_schemes` are the ways in which callers of routes that are not public send credentials: Security Scheme
      Objects of OpenAPI 3.1 (section 4.8.27), by name. They are for the OpenAPI document and the page that shows it.
    - `drain_time` is how many seconds the shutdown waits for open streams and background work (see `drain`).

    The attribute `describe_request(request)` returns fields for the record of an answered request, beside those that
    its handler noted. None by default.

    Routes, wrappers and exception handlers may be added until the app routes its first request.
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
        cors: Cors | None = None,
        security_schemes: Mapping[str, Mapping[str, Any]] | None = None,
        drain_time: float = DRAIN_TIME,
    ) -> None:
        super().__init__(security_schemes=security_schemes)
        _check_arguments(admit, origins, cors, drain_time)
        self.title = title
        self.version = version
        self.description = description
        self.max_body = max_body
        self._lifespan = lifespan
        self.admit = admit
        self.origins = origins
        self.cors = cors
        self.drain_time = drain_time
        self.open_work = OpenWork()
        self.drain_announced = False
        self.on_request: list[Observer] = []
        self.describe_request: Callable[[Connection], Mapping[str, Any]] | None = None
        self.refusal: Response | None = None
        self.startup_error: BaseException | None = None
        self._handlers: dict[type[BaseException], ExceptionHandler] = {HTTPError: _http_error}
        self.wrapped: ASGIApp | None = None  # the app in its wrappers
        self.protected_resources: ProtectedResources | None = None
        self._awaiting_first_frame = 0
        self._entered = 0
        self._failed_observers: set[int] = set()  # by id, since an observer may not be hashable

    async def __call__(self, scope: Scope, receive: Receive, send: Send, *, inside: bool = False) -> None:
        """Answer one request (ASGI 3). No body is read before the caller is admitted.

        `inside` is true for calls that come through the wrappers.
        """
        if scope["type"] != "http" or (self.wrapped is not None and not inside):
            return await self._dispatch(scope, receive, send, inside)
        began = perf_counter()
        request = Request(scope, receive, self.max_body)
        method: str = scope["method"]

        # Match. Two look-ups find an exact path. `RouteTable.match` handles all other cases.
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

        # Set the request id. A probe has none, so the id of an earlier request on the connection is removed.
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
                response = table.reworded(self._unrouted(request, missed), scope)
            else:
                if table.sealed is None:
                    table.sealed = "the app has answered requests already"
                if self.admit is not None and not route.public:
                    request.admission = await self.admit(request, route)
                response = await route.handler(request)
                if not isinstance(response, Response):
                    response = as_response(response, route)
        except ClientDisconnected:
            logger.debug("The client disconnected before its request was read: %s %s", method, _label(route))
            return self._notify_observers(request, method, _disconnect_status(request), perf_counter() - began)
        except Exception as error:
            response = self._answer_to(error, request)
            if route is not None and route.reword is not None:
                response = route.reword(response)

        # Send.
        if response.status < 400 or not isinstance(response, ErrorResponse):
            headers = response.raw_headers.copy()
        else:
            if wants_problem(request):
                response = problem(response)
            headers = [*response.raw_headers, VARY]
        if not probe:
            headers.append((b"x-request-id", id_bytes))
        if self.cors is not None:
            self.cors.add(headers, request)
        if response.names_connection or (request.watched and request.lingering):
            _set_connection_header(headers, request)
        body = response.body
        try:
            if body is not None:
                if method == "HEAD":
                    body = b""
                extensions = scope.get("extensions")  # `exchange_of`, whose call takes 1 % of a request's time
                exchange = extensions.get(EXTENSION) if extensions else None
                if exchange is not None and exchange.send == send:
                    await exchange.respond(response.status, headers, body)
                else:
                    await send({"type": "http.response.start", "status": response.status, "headers": headers})
                    await send({"type": "http.response.body", "body": body})
            elif isinstance(response, StreamingResponse):
                try:
                    await send({"type": "http.response.start", "status": response.status, "headers": headers})
                except BaseException as error:
                    await response.discard()  # nothing else closes content that is not sent
                    if isinstance(error, OSError):  # ASGI: the client has disconnected
                        raise ClientDisconnected from error
                    raise
                if method == "HEAD":
                    await response.discard()
                    await send({"type": "http.response.body", "body": b""})
                else:
                    await response.stream(request, receive, send)
        except Exception as error:
            # A part of the response is sent already. The raise makes the server end the connection, so that the client
            # does not treat the response as complete.
            if isinstance(error, ClientDisconnected) or (isinstance(error, OSError) and response.body is not None):
                logger.debug("The client disconnected before its answer was sent: %s %s", method, _label(route))
            else:
                logger.exception("An answer was cut: %s %s", method, _label(route), extra=_log_fields(request))
                raise
        finally:
            if self.on_request:
                self._notify_observers(request, method, response.status, perf_counter() - began)

    async def _serve_websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one WebSocket from its handshake to its end, by the same steps as a request."""
        began = perf_counter()
        ws = WebSocket(scope, receive, send, self.max_body)
        await receive()  # websocket.connect

        # Match, and set the request id.
        match = self.match_websocket(scope)
        ws.route, ws.path_params = match.route, match.path_params
        ws.set_request_id(_identifier(_last(scope["headers"], b"x-request-id")))
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
            logger.debug("The client disconnected: %s %s", WEBSOCKET, _label(match.route))
        finally:
            self.open_work.remove_websocket(ws)
            if self.on_request:
                if ws.accepted:
                    ws.note("close_code", ws.close_code)
                self._notify_observers(ws, WEBSOCKET, ws.status or CLIENT_GONE, perf_counter() - began)

    async def _refuse_or_handle(self, ws: WebSocket, route: Route | None) -> Response | None:
        """Return the response that rejects the handshake, or None after the handler has returned."""
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
        """Return the admission of a WebSocket's caller.

        If the handshake has no credentials and the route accepts them in the first frame, the app waits for that frame.
        Their number is limited, since any client can open a WebSocket and send nothing. Raises what `admit` raises.
        """
        ws.present_offered()
        try:
            return await admit(ws, route)
        except HTTPError as refusal:
            if refusal.status != 401 or not route.first_frame or "authorization" in ws.headers:
                raise
            if self._awaiting_first_frame >= MAX_AWAITING_FIRST_FRAME:
                raise
        self._awaiting_first_frame += 1
        try:
            await ws.present_first_frame()
        finally:
            self._awaiting_first_frame -= 1
        return await admit(ws, route)

    async def _dispatch(self, scope: Scope, receive: Receive, send: Send, inside: bool) -> None:
        """Handle the lifespan, WebSockets, and requests that go through the wrappers first."""
        if scope["type"] == "lifespan":
            await self._run_lifespan(receive, send)
        elif self.wrapped is not None and not inside:
            await self.wrapped(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._serve_websocket(scope, receive, send)
        else:
            raise RuntimeError(f"This app does not support the scope type {scope['type']!r}.")

    def _unrouted(self, request: Request, match: Match | None) -> Response:
        """Return the response to a request without a route. It does not call `admit`, and reveals nothing else."""
        scope = request.scope
        if match is not None and match.allowed:
            allowed = {*match.allowed, "OPTIONS"}
            if "GET" in allowed:
                allowed.add("HEAD")
            allow = {"allow": ", ".join(sorted(allowed))}
            if scope["method"] == "OPTIONS":
                preflight = None if self.cors is None else self.cors.preflight(request, allow["allow"])
                return preflight or Response(status=204, headers=allow)
            return ErrorResponse("Method Not Allowed", 405, allow)
        if self.cors is not None and scope["method"] == "OPTIONS":
            # Without this, a page whose request needs a preflight could not read the 404 that follows it.
            preflight = self.cors.preflight(request, ", ".join(sorted(METHODS)))
            if preflight is not None:
                return preflight
        if self.match_websocket(scope).route is not None:
            return _upgrade_required(request)
        if match is not None and match.slash_differs:
            return Response(status=307, headers={"location": _redirect_location(scope)}, content_type=None)
        return _NOT_FOUND

    def _answer_to(self, error: Exception, request: Connection) -> Response:
        """Return the response to an error.

        The exception handler of its class, or of the nearest base class, returns the response. Without one, or if the
        handler raises, the error is logged and the response is a 500.
        """
        for kind in type(error).__mro__:
            handler = self._handlers.get(kind)
            if handler is not None:
                try:
                    answer: Any = handler(request, error)
                    if isinstance(answer, Response):
                        return answer
                    given = type(answer).__name__
                    raise TypeError(f"The exception handler of {kind.__name__} returned {given}, not a Response.")
                except Exception as second:
                    error = second
                break
        method = WEBSOCKET if isinstance(request, WebSocket) else request.method
        logger.error(
            "A request failed: %s %s", method, _label(request.route), exc_info=error, extra=_log_fields(request)
        )
        return ErrorResponse("Internal Server Error", 500)

    def _notify_observers(self, request: Connection, method: str, status: int, duration: float) -> None:
        route = request.route
        if route is not None:
            template, probe = route.path, route.probe
        else:
            template, probe = UNMATCHED, False
            if method not in METHODS and method != WEBSOCKET:
                method = OTHER_METHOD
        path, fields = request.scope["path"], request.noted
        if self.describe_request is not None and not probe:
            fields = {**fields, **self._described(request)}
        record = RequestRecord(method, template, path, status, duration, request.request_id, probe, fields)
        for observer in self.on_request:  # a copy of `observe`: one more call takes 1 % of a request's time
            try:
                observer(record)
            except (Exception, SystemExit) as error:  # the latter would end the server
                self.report_observer(observer, error)

    def _described(self, request: Connection) -> Mapping[str, Any]:
        """Return the fields of `describe_request`; none if it fails."""
        describe = self.describe_request
        assert describe is not None
        try:
            return describe(request)
        except (Exception, SystemExit) as error:
            if id(describe) not in self._failed_observers:
                self._failed_observers.add(id(describe))
                logger.error("describe_request %r failed; its later failures are not logged.", describe, exc_info=error)
            return {}

    def observe(self, record: RequestRecord) -> None:
        """Call the observers for a request that the server rejected without calling the app."""
        for observer in self.on_request:
            try:
                observer(record)
            except (Exception, SystemExit) as error:  # the latter would end the server
                self.report_observer(observer, error)

    def report_observer(self, observer: Observer, error: BaseException) -> None:
        """Log the first failure of an observer. A subclass may override this to name the observer better."""
        if id(observer) not in self._failed_observers:
            self._failed_observers.add(id(observer))
            text = "The request observer %r failed; its later failures are not logged."
            logger.error(text, observer, exc_info=error)

    def exception_handler(self, kind: type[BaseException]) -> Callable[[AnyExceptionHandler], AnyExceptionHandler]:
        """Declare the decorated `handler(request, error) -> Response` for errors of class `kind` and its subclasses.

        For errors while the app serves a WebSocket, the handler receives the `WebSocket` in place of the request.
        Raises `ValueError` if the handler is `async def`.
        """

        def declare(handler: AnyExceptionHandler) -> AnyExceptionHandler:
            if iscoroutinefunction(handler):
                raise ValueError(f"The exception handler of {kind.__name__} must be a plain `def`: it is not awaited.")
            self._handlers[kind] = handler
            return handler

        return declare

    def wrap(self, wrapper: Callable[[ASGIApp], ASGIApp]) -> None:
        """Put `wrapper(app)`, an ASGI app, around this app for every request. The last wrapper added is the outermost.

        A wrapper does not receive lifespan messages, and may be added during the lifespan's start. Raises
        `RuntimeError` if the app has answered a request already.
        """
        if self._table.sealed is not None:
            raise RuntimeError(f"{wrapper!r} cannot be put around this app: {self._table.sealed}.")
        self.wrapped = wrapper(self.wrapped or partial(self.__call__, inside=True))

    @contextmanager
    def temporary_declarations(self) -> Iterator[None]:
        """Return a context for a lifespan that declares routes, wrappers, observers or protected resources.

        These are added to those of the app, and removed when the context is left. Then the app accepts new ones again.
        """
        resources = self.protected_resources
        table, wrapped, observers = self._table, self.wrapped, self.on_request.copy()
        self._table = RouteTable(self.routes, table.rewords)
        try:
            yield
        finally:
            self._table, self.wrapped, self.on_request[:] = table, wrapped, observers
            self.protected_resources = resources

    def add(self, route: Route) -> None:
        """Add a `Route` object. Raises as `Router.add` does."""
        super().add(route if route.app is self else replace(route, app=self))

    def _adopted(self, route: Route, path: str) -> Route:
        """Return the route as this app has it, at `path`. It has the app already, so `add` does not copy it again."""
        return replace(route, path=path, app=self)

    def lifespan(self) -> AbstractAsyncContextManager[None]:
        """Return the lifespan, which starts the app, and drains and stops it at the end.

        A server enters it. A host that mounts the app enters it in its own lifespan:

            async with app.lifespan(): ...
        """
        return self._start_and_drain()

    @asynccontextmanager
    async def _start_and_drain(self) -> AsyncIterator[None]:
        self.open_work.reset()
        self.drain_announced = False
        if self.refusal is _DRAINING:
            self.refusal = None
        async with self._lifespan(self) if self._lifespan is not None else nullcontext():
            self._warn_of_void_access_rules()
            self._entered += 1  # several test clients may have entered it
            try:
                yield
            finally:
                self._entered -= 1
                if not self._entered and not self.open_work.draining:  # the command has drained it already
                    await self.drain(self.drain_time)
        if self.refusal is _DRAINING:  # a test may call the app without its lifespan
            self.refusal = None

    def _warn_of_void_access_rules(self) -> None:
        void = [route.path for route in self.routes if route.scope or (route.public and not _is_open_anyway(route))]
        if self.admit is None and void:
            logger.warning(
                "EVERY CALLER MAY USE EVERY ROUTE: this app has no `admit`, so `public` and `scope` have no effect on "
                "%s; pass App(admit=...), or remove them",
                ", ".join(dict.fromkeys(void)),
            )

    @property
    def draining(self) -> bool:
        """Whether the app is shutting down. A readiness probe (`probe=True`) should then answer with 503."""
        return self.drain_announced or self.open_work.draining

    def announce_drain(self) -> None:
        """Set `draining`, although the app still answers everything. The server of the command calls it.

        Load balancers then have time to see that the app is not ready.
        """
        self.drain_announced = True

    def start_background(self, work: Coroutine[Any, Any, object], *, endless: bool = False) -> None:
        """Run a coroutine as `Connection.start_background` does, for code outside of a handler, such as the lifespan.

        If it is `endless`, such as work that is done every hour, a drain cancels it at once instead of waiting for it.

        Raises `RuntimeError` if the app's drain has ended.
        """
        self.open_work.start(work, f"the app {self.title!r}", endless)

    async def drain(self, seconds: float) -> None:
        """End all open work, before the app stops. The server of the command and `lifespan` call it.

        - New requests and WebSockets get 503, except those of routes with `probe=True`.
        - Streams that are `endless` are completed at once, and background work that is `endless` is cancelled at once.
        - WebSockets are closed with 1012 once their handler is not in `WebSocket.working`.
        - Other streams and background work may go on for up to `seconds`. After that streams are cut and background
          work is cancelled, and both are logged.
        """
        self.refusal = _DRAINING
        self.open_work.begin()
        self.open_work.close_websockets()
        await self.open_work.wait(seconds)
        await self.open_work.end()

    @property
    def work_text(self) -> str:
        """What a drain would wait for now, for a log line."""
        return f"{self.open_work} are open"

    def state(self) -> Iterator[str]:
        """Yield what the app works on, in lines for an operator. Any thread may read them."""
        yield self.work_text
        yield from self.open_work.state()

    def interrupt(self) -> None:
        """Let a drain end now, as after a second signal."""
        self.open_work.interrupt()

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI 3.1 document of all routes declared so far."""
        return build_document(
            self.title,
            self.version,
            self.description,
            self.routes,
            self.security_schemes,
            admits=self.admit is not None,
        )

    def docs(self, openapi_path: str = "/openapi.json", docs_path: str = "/docs", *, public: bool = True) -> None:
        """Add two routes: the OpenAPI document, and a page that shows it and loads nothing from the internet.

        If `public` is false, the app admits the readers of the document. The page is public, and asks for credentials.
        """

        @cache
        def document() -> Response:  # cached, since no route can be added after the first request
            return JSONResponse(self.openapi())

        @self.get(openapi_path, public=public, summary="The OpenAPI document", tags=("docs",))
        async def openapi(request: Request) -> Response:
            return document()

        @self.get(docs_path, public=True, summary="The documentation, for people", tags=("docs",))
        async def docs(request: Request) -> Response:
            return docs_page(self.title, request.scope.get("root_path", "").rstrip("/"), openapi_path)

    def resource_metadata(
        self, authorization_servers: Collection[str], *, scopes: Collection[str] = (), areas: Collection[str] = ()
    ) -> None:
        """Serve the metadata of this app's OAuth protected resources (RFC 9728), and name it in challenges.

        Clients read there where they get a token after a 401: from one of the `authorization_servers`, which are
        issuers, such as `https://id.example.org/realms/chat`. A token needs `scopes`. If there are none, it needs the
        scope of the route.

        The resources are each route that is declared with `resource`, each path of `areas`, such as `/api/v1`, and the
        app as a whole. Any other private route belongs to the resource that contains its path. The metadata is at
        `/.well-known/oauth-protected-resource` before the path of the resource, and after it. It is public, also for
        pages of other origins.

        Call it when all routes are declared. `admit` then sends `Connection.resource_challenge` with its 401. Raises
        `TypeError` for a text in place of a collection, and `RouteConflict` if a path of the metadata has a handler.
        """
        from .resource_metadata import find_resources, metadata_routes  # only apps with resources need it

        if any(isinstance(texts, str) for texts in (authorization_servers, scopes, areas)):
            raise TypeError("resource_metadata needs collections of texts, such as tuples, and not one text.")
        supported = find_resources(self.routes, areas)
        self.protected_resources = ProtectedResources(authorization_servers, scopes, supported)
        self.include(metadata_routes(self.protected_resources))

    async def _run_lifespan(self, receive: Receive, send: Send) -> None:
        """Run the lifespan. A failed start is reported by a message, since servers ignore an exception raised here."""
        await receive()
        self.startup_error = None
        started = False
        try:
            async with self.lifespan():
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
        except SystemExit as error:
            if not started:
                self.startup_error = error
            raise
        else:
            await send({"type": "lifespan.shutdown.complete"})


_NOT_FOUND = ErrorResponse("Not Found", 404)  # one for all requests, since making it takes longer than to match
_DRAINING = ErrorResponse("The server is shutting down; try again", 503, {"retry-after": "1", "connection": "close"})


def _check_arguments(admit: object, origins: object, cors: object, drain_time: float) -> None:
    """Raise `TypeError` or `ValueError` for what would otherwise fail at the first use."""
    if isroutine(admit) and not iscoroutinefunction(admit):
        raise TypeError("App(admit=...) needs an `async def` function: it is awaited for each request.")
    if isinstance(origins, str):
        raise TypeError("App(origins=...) needs a collection of origins, such as a tuple, and not one text.")
    if cors is not None and not isinstance(cors, Cors):
        raise TypeError("App(cors=...) needs a Cors, such as Cors(['https://shop.example']).")
    if not 0 <= drain_time <= MAX_DRAIN_TIME:
        raise ValueError(f"App(drain_time=...) needs seconds from 0 to {MAX_DRAIN_TIME}, and not {drain_time}.")


def _is_open_anyway(route: Route) -> bool:
    """Whether `public` says nothing about other routes: the route is a probe, or one of those of `App.docs`."""
    return route.probe or route.handler.__module__ == __name__


def _identifier(given: bytes | None) -> bytes:
    """Return the caller's request id if it is well-formed, else a new one."""
    if given is not None and _VALID_ID.fullmatch(given):
        return given
    return b"%s-%x" % (_process_prefix, next(_request_numbers))


_request_numbers = count(1)
_process_prefix = b""


def _renew_prefix() -> None:
    global _process_prefix
    _process_prefix = os.urandom(8).hex().encode()


_renew_prefix()
if hasattr(os, "register_at_fork"):  # a forked worker starts with its parent's counter
    os.register_at_fork(after_in_child=_renew_prefix)


def _upgrade_required(request: Request) -> Response:
    """Return the response to a plain request for a WebSocket route: 426.

    The status is 501 if the request was a handshake, since the server then does not implement WebSockets.
    """
    offered = (request.headers.get("connection") or "").lower()
    if "upgrade" in offered and (request.headers.get("upgrade") or "").lower() == "websocket":
        logger.warning("A client requested a WebSocket, but this server does not implement them. %s", _INSTALL)
        return ErrorResponse("This server does not speak WebSocket", 501)
    upgrade = {"upgrade": "websocket", "connection": "upgrade"}
    return ErrorResponse("This is for WebSockets only", 426, upgrade)


def _redirect_location(scope: Scope) -> str:
    """Return the same path with the closing slash added or removed, and the query. It never names another host."""
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


def as_response(value: object, route: Route) -> Response:
    """Return the response for what a handler returned: JSON for a `msgspec.Struct`, a dict or a list.

    Raises `TypeError` for any other value.
    """
    if isinstance(value, msgspec.Struct | dict | list):
        return JSONResponse(value, route.status)
    kind = type(value).__name__
    raise TypeError(f"The handler of {route.path} returned {kind}, not a Response, a Struct, a dict or a list.")


def _set_connection_header(headers: RawHeaders, request: Request) -> None:
    """Set `connection: close` if a body is left unread. HTTP/2 does not allow this header (RFC 9113, 8.2.2)."""
    http_1 = request.scope.get("http_version", "1.1") in ("1.0", "1.1")
    if request.lingering or not http_1:
        headers[:] = [pair for pair in headers if pair[0] != b"connection"]
    if request.lingering and http_1:
        headers.append(_CLOSE)


def _last(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    """Return the value of the last header with this name, or None."""
    return next((value for found, value in reversed(list(headers)) if found == name), None)


def _http_error(request: Connection, error: HTTPError) -> Response:
    return ErrorResponse(error.detail, error.status, error.headers)


def _label(route: Route | None) -> str:
    return UNMATCHED if route is None else route.path


def _disconnect_status(request: Request) -> int:
    """Return the status for a request whose body did not arrive whole.

    It is the server's status if the server rejected the body, else `CLIENT_GONE`.
    """
    exchange = exchange_of(request.scope)
    return CLIENT_GONE if exchange is None else exchange.refused or CLIENT_GONE


def _log_fields(request: Connection) -> dict[str, str]:
    return {"request_id": request.request_id}
