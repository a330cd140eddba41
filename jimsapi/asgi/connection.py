"""The objects that a handler receives: `Connection` with the head of a request, and `Request`, which adds the body.

Each part is decoded when it is first used.
"""

import re
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from .body import decode_json, missing
from .errors import ClientDisconnected, HTTPError, ValidationError
from .fields import MAX_QUERY_FIELDS, Headers, QueryParams
from .route import Route
from .types import Receive, Scope
from .validation import Model, convert_body, convert_query

MAX_BODY = 1_048_576
"""The default limit for a body, in bytes."""

_LINGERING_LENGTH = 65_536
_HTTP_1 = ("1.0", "1.1")
_FRAMING_HEADERS = frozenset((b"content-length", b"transfer-encoding", b"expect"))
_AUTHORITY = re.compile(r"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
_WATCHED_HEADERS = {*_FRAMING_HEADERS, b"content-type", b"content-encoding", b"x-request-id"}

NOTHING_NOTED: Mapping[str, Any] = MappingProxyType({})
"""The `noted` of a request without notes."""


def watch_header(name: bytes) -> None:
    """Have every `Request` keep the last value of a header in `watched`. `name` is in lower case.

    For a header that few requests have, looking there is cheaper than `headers.get`. Call it when a module is imported.
    """
    _WATCHED_HEADERS.add(name)


request_id: ContextVar[str] = ContextVar("request_id", default="")
"""The `x-request-id` of the request that the current task answers. It is empty outside of requests."""


class Connection:
    """The head of a request or of a WebSocket's handshake.

    An ASGI scope is enough to create one in a test: `Connection({"type": "http", "headers": [(b"x-ticket", b"…")]})`.

    - `scope`: the ASGI scope.
    - `path_params`: the converted parameters of the path, by name.
    - `route`: the route that was found, or None.
    - `request_id`: the `x-request-id` of the response.
    - `admission`: the result of the app's `admit`; None until the caller is admitted. While `WebSocket.readmit` calls
      `admit`, it has the last result.
    - `noted`: the fields that `note` added to the log line.
    - `person`: the person whom the request is about, such as a contact. It is not there until a handler has set it, and
      is not logged. `App.describe_request` may use it.
    """

    __slots__ = (
        "_cookies",
        "_headers",
        "_query",
        "admission",
        "noted",
        "path_params",
        "person",
        "request_id",
        "route",
        "scope",
    )

    # These slots stay empty until they are used, which makes a new request cheaper.
    _query: QueryParams
    _cookies: dict[str, str]
    person: str

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.path_params: dict[str, Any] = {}
        self.route: Route | None = None
        self.request_id = ""
        self.admission: Any = None
        self.noted: Mapping[str, Any] = NOTHING_NOTED
        self._headers: Headers | None = None

    @property
    def method(self) -> str:
        """The HTTP method, in capitals.

        At a WebSocket's handshake it is `GET` (RFC 6455, 4.1), also over HTTP/2, where the handshake is a `CONNECT`
        that stands for it (RFC 8441). Test `scope["type"] == "websocket"` to tell a handshake from a request.
        """
        return str(self.scope.get("method", "GET"))

    @property
    def path(self) -> str:
        """The decoded path within this app, without the `root_path` under which the app is mounted."""
        return local_path(self.scope)

    def link(self, path: str) -> str:
        """Return the path within this app as clients have to send it: percent-encoded, and below the `root_path`.

        For `Location` and for URLs in answers. `path` begins with a slash.
        """
        return quote(self.scope.get("root_path", "").rstrip("/") + path)

    def accepted_types(self) -> dict[str, float]:
        """Return the media types in `Accept`, in lower case, with their qualities (RFC 9110, 12.5.1).

        An invalid quality counts as 0.
        """
        accept = ",".join(self.headers.getlist("accept")).lower()
        return dict(map(_media_range, accept.split(","))) if accept else {}

    def public_url(self, path: str = "") -> str:
        """Return the absolute URL of a path within this app, as the client sees it. Without a path, that of the app.

        Scheme and host are those of this request, so a proxy has to pass on `Host`, and the server has to trust its
        `X-Forwarded-Proto`. A client can send any `Host`: do not store the URL or send it to somebody else. A `Host`
        that is not a host and a port (RFC 9110, section 7.2) counts as missing. The URL is then that of the server.
        A WebSocket's URL begins with `http` or `https` too.
        """
        scheme = "https" if self.scope.get("scheme") in ("https", "wss") else "http"
        host = self.headers.get("host") or ""
        if not _AUTHORITY.fullmatch(host):
            host = _server_authority(self.scope)
        return f"{scheme}://{host.lower().removesuffix(_DEFAULT_PORTS[scheme])}{self.link(path)}"

    def resource_challenge(self, missing: Iterable[str] = (), error: str = "") -> str | None:
        """Return the challenge that names the metadata of the OAuth protected resource of this route (RFC 9728, 5.1).

        It is for `WWW-Authenticate`: of a 401, and of a 403 with the error `insufficient_scope` and the scopes that the
        caller is `missing` (RFC 6750, section 3.1). Clients read it only if it comes before other challenges.

        Returns None outside of a route, and if the app has no authorization servers (see `App.resource_metadata`).
        """
        route = self.route
        resources = None if route is None or route.app is None else route.app.protected_resources
        if route is None or resources is None:
            return None
        url = self.public_url(resources.metadata_path(route.path))
        return resources.challenge(url, route.scope, missing, error)

    @property
    def headers(self) -> Headers:
        """The request's headers."""
        if self._headers is None:
            self._headers = Headers(self.scope.get("headers") or [])
        return self._headers

    @property
    def query(self) -> QueryParams:
        """The fields of the query string. Raises `HTTPError` 400 for more than `MAX_QUERY_FIELDS` fields."""
        try:
            return self._query
        except AttributeError:
            self._query = QueryParams(self.scope.get("query_string", b""))
            return self._query

    @property
    def cookies(self) -> dict[str, str]:
        """Cookies by name. If two have the same name, the first is used, since it is more specific (RFC 6265, 5.4)."""
        try:
            return self._cookies
        except AttributeError:
            self._cookies = _parse_cookies("; ".join(self.headers.getlist("cookie")))
            return self._cookies

    @property
    def client(self) -> tuple[str, int] | None:
        """Address and port of the client, or of the proxy before the server; None if it is unknown."""
        client = self.scope.get("client")
        if not client:
            return None
        host, port = client
        return str(host), int(port or 0)  # granian's ports are strings; a Unix socket has no port

    def note(self, key: str, value: Any) -> None:
        """Add `key=value` to the request's log line. Do not add secrets."""
        if not isinstance(self.noted, dict):
            self.noted = {**self.noted}
        self.noted[key] = value

    def note_all(self, fields: Mapping[str, Any]) -> None:
        """Add several fields to the request's log line.

        They are copied. Only a `MappingProxyType` is kept as it is, if there are no other notes, so that many requests
        can share it and their log lines encode it once. Its content must not change.
        """
        if self.noted is NOTHING_NOTED and isinstance(fields, MappingProxyType):
            self.noted = fields
        else:
            self.noted = {**self.noted, **fields}

    def start_background(self, work: Coroutine[Any, Any, object]) -> None:
        """Run a coroutine in a task that goes on after the response:

            request.start_background(send_mail(order))

        It begins at once, beside the handler. It does not depend on the client. If it raises, the error is logged with
        the route. A drain of the app waits for it, and cancels it at the end of the drain time (see `App.drain`).

        Raises `RuntimeError` if the app's drain has ended, outside of an app, and in a thread (there,
        `anyio.from_thread.run_sync` calls it).
        """
        route = self.route
        if route is None or route.app is None:
            work.close()
            raise RuntimeError("Background work needs a route of an app: the app's drain waits for it.")
        route.app.open_work.start(work, f"{self.method} {route.path}")

    def present(self, authorization: str) -> None:
        """Add a header `authorization` for credentials that arrived in another way, so that `admit` finds them.

        The original scope, which wrappers may use, does not change.
        """
        pair = (b"authorization", authorization.encode("utf-8", "replace"))
        self.scope = {**self.scope, "headers": [*(self.scope.get("headers") or ()), pair]}
        self._headers = None

    def typed_query(self, model: type[Model]) -> Model:
        """Return the query string as an instance of `model`, a `msgspec.Struct`.

        Numbers, booleans and UUIDs are parsed from their text. Unknown fields are ignored, unless `model` has
        `forbid_unknown_fields`. Raises `ValidationError` (422) with every fault; the `loc` of each is
        `["query", name]`.
        """
        return convert_query(self.query, model)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.method} {self.path}>"


class Request(Connection):
    """A `Connection` with a body that can be read.

    - `max_body`: the limit for the body, in bytes.
    - `receive`: ASGI's `receive` of this request. The methods use it to read the body.
    """

    __slots__ = ("_begun", "_body", "_complete", "max_body", "receive", "watched")

    def __init__(self, scope: Scope, receive: Receive, max_body: int = MAX_BODY) -> None:
        # This repeats Connection.__init__, since a call would slow down every request.
        self.scope = scope
        self.path_params = {}
        self.route = None
        self.request_id = ""
        self.admission = None
        self.noted = NOTHING_NOTED
        self._headers = None
        self.max_body = max_body
        self.receive = receive
        self._body: bytes | None = None
        self._begun = False
        self._complete = False
        # One pass finds the few headers that are needed often. If two have the same name, the last is used.
        self.watched: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            if name in _WATCHED_HEADERS:
                self.watched[name] = value

    async def body(self) -> bytes:
        """Return the whole body.

        Raises `HTTPError` 413 if it has more than `max_body` bytes, and `ClientDisconnected` if the client disconnects
        before its end.
        """
        if self._body is None:
            self._begin()
            message = await self.receive()
            chunk: bytes = message.get("body", b"")
            if message["type"] == "http.request" and not message.get("more_body") and len(chunk) <= self.max_body:
                self._complete = True
                self._body = chunk
            else:
                self._body = await self._collect(message)
        return self._body

    async def stream(self) -> AsyncIterator[bytes]:
        """Yield the chunks of the body as they arrive. Raises as `body` does."""
        if self._body is not None:
            yield self._body
            return
        self._begin()
        size = 0
        while not self._complete:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnected
            chunk = message.get("body", b"")
            size += len(chunk)
            self._check_size(size)
            self._complete = not message.get("more_body")
            if chunk:
                yield chunk

    async def json(self) -> Any:
        """Return the value of a JSON body.

        Raises `HTTPError` 415 if the body is not declared as JSON, and `ValidationError` (422) if it is not JSON or
        contains what some databases cannot store. Else raises as `body` does.
        """
        self._check_declaration()
        return self._decode(await self.body())

    async def typed(self, model: type[Model]) -> Model:
        """Return the JSON body as an instance of `model`, a `msgspec.Struct`.

        Raises as `json` does. The 422 lists every fault.
        """
        self._check_declaration()
        return convert_body(self._decode(await self.body()), model)

    @property
    def lingering(self) -> bool:
        """Whether an unread body would delay the connection's next request, since the server would wait for its end.

        The response then has to end the connection.
        """
        watched = self.watched
        if self._complete or _FRAMING_HEADERS.isdisjoint(watched):
            return False
        if b"transfer-encoding" in watched or b"expect" in watched:
            return True
        length = self._declared_length()
        return length is not None and length > _LINGERING_LENGTH

    @property
    def unread(self) -> bool:
        """Whether the head announces a body that has not been read to its end."""
        return not self._complete and (b"transfer-encoding" in self.watched or bool(self._declared_length()))

    def ended(self) -> bool:
        """Return whether the request has been read to its end, so that only a disconnect can follow.

        HTTP/1.1 announces each body (RFC 9112, 6.3). Without an announcement the body is empty, and is set so: the
        methods that read it do not call `receive` any more.
        """
        if not self._complete and not self._begun and not self.unread and self.scope.get("http_version") in _HTTP_1:
            self._body, self._complete = b"", True
        return self._complete

    @property
    def claimed(self) -> bool:
        """Whether nothing else may read the body: a reader has begun with it, or it may be long."""
        return not self._complete and (self._begun or self.lingering)

    def _begin(self) -> None:
        if self._begun:
            raise RuntimeError("The body was already read by stream() or by a read that failed. It can be read once.")
        self._check_size(self._declared_length() or 0)  # before receive(), which would send 100 Continue
        self._begun = True

    async def _collect(self, message: Any) -> bytes:
        """Return a body of several messages, of which `message` is the first."""
        chunks: list[bytes] = []
        size = 0
        while True:
            if message["type"] == "http.disconnect":
                raise ClientDisconnected
            if chunk := message.get("body", b""):
                chunks.append(chunk)
                size += len(chunk)
                self._check_size(size)
            if not message.get("more_body"):
                break
            message = await self.receive()
        self._complete = True
        return b"".join(chunks)  # does not copy a single chunk; hypercorn and granian add an empty last message

    def _check_size(self, size: int) -> None:
        if size > self.max_body:
            raise HTTPError(413, f"The request body is over the limit of {self.max_body} bytes")

    def _declared_length(self) -> int | None:
        value = self.watched.get(b"content-length", b"").strip()
        return int(value) if value.isdigit() and len(value) < 20 else None

    def _check_declaration(self) -> None:
        """Raise `HTTPError` 415 if the body is not declared as JSON. This comes before the body is read."""
        watched = self.watched
        content_type = watched.get(b"content-type")
        if not is_json(content_type) if content_type is not None else self.unread:
            raise _not_json()
        if b"content-encoding" in watched and watched[b"content-encoding"].lower() != b"identity":
            raise HTTPError(415, "A compressed request body is not supported")

    def _decode(self, body: bytes) -> Any:
        if not body:
            raise ValidationError([missing(("body",))])
        if b"content-type" not in self.watched:  # an HTTP/2 request can have a body that no header announces
            raise _not_json()
        return decode_json(body)


def _not_json() -> HTTPError:
    return HTTPError(415, "The request body must be declared as JSON: content-type: application/json")


def is_json(content_type: bytes) -> bool:
    """Whether a Content-Type is JSON: `application/json` or any `…+json`, with any parameters."""
    if content_type == b"application/json":
        return True
    essence = content_type.partition(b";")[0].strip().lower()
    return essence == b"application/json" or essence.endswith(b"+json")


def local_path(scope: Scope) -> str:
    """Return the path within the app: `path` without `root_path`, which only some servers put before it."""
    path: str = scope.get("path", "/")
    root: str = scope.get("root_path", "").rstrip("/")
    if root and path.startswith(root) and path[len(root) : len(root) + 1] in ("", "/"):
        path = path[len(root) :]
    return path or "/"


def _server_authority(scope: Scope) -> str:
    """Return host and port of the server's own address; of a Unix socket, and of an unknown address, `localhost`."""
    host, port = scope.get("server") or ("", None)
    if not host or not port:
        return "localhost"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _parse_cookies(header: str) -> dict[str, str]:
    cookies: dict[str, str] = {}
    for pair in header.split(";", MAX_QUERY_FIELDS)[:MAX_QUERY_FIELDS]:
        name, equals, value = pair.partition("=")
        if equals and (name := name.strip()):
            cookies.setdefault(name, value.strip().strip('"'))
    return cookies


def _media_range(part: str) -> tuple[str, float]:
    kind, *parameters = (each.strip() for each in part.split(";"))
    quality = next((each[2:] for each in parameters if each.startswith("q=")), "1")
    try:
        return kind, float(quality)
    except ValueError:
        return kind, 0.0
