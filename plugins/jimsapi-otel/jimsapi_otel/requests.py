"""A server span for each request, by OpenTelemetry's semantic conventions for HTTP.

Spans do not contain data that may be personal or secret: the query, headers, the caller's address, and the path. The
path is replaced by the template of the route.
"""

from collections.abc import Iterable
from contextvars import ContextVar

from opentelemetry import context, propagate, trace
from opentelemetry.trace import Span, SpanKind, StatusCode

from jimsapi.asgi import CLIENT_GONE, METHODS, ASGIApp, Receive, RequestRecord, Scope, Send, local_path
from jimsapi_otel.errors import note_error

PROBES = frozenset(("/healthz", "/readyz"))
"""Paths without spans: probes request them every few seconds."""

_UNMATCHED = "unmatched"
"""The route in the record of a request that no route matches."""

_span: ContextVar[Span | None] = ContextVar("jimsapi_otel_span", default=None)


def trace_requests(app: ASGIApp) -> ASGIApp:
    """Return an app that handles each HTTP request in a span of the caller's trace. Other protocols get no span."""
    tracer = trace.get_tracer("jimsapi")
    fields = frozenset(name.lower().encode() for name in propagate.get_global_textmap().fields)

    async def traced(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or local_path(scope) in PROBES:
            return await app(scope, receive, send)
        parent = context.get_current()
        if not trace.get_current_span(parent).get_span_context().is_valid:  # else the host app already has a span
            parent = propagate.extract(_carrier(scope["headers"], fields))
        method = scope["method"]
        known = method in METHODS
        span = tracer.start_span(
            method if known else "HTTP", parent, SpanKind.SERVER, _attributes(scope, method, known=known)
        )
        context_token = context.attach(trace.set_span_in_context(span, parent))
        span_token = _span.set(span)
        try:
            await app(scope, receive, send)
        except BaseException as error:
            note_error(span, error)
            raise
        finally:
            _span.reset(span_token)
            context.detach(context_token)
            span.end()

    return traced


def end_request(record: RequestRecord) -> None:
    """Set the name and the outcome of the current request's span."""
    span = _span.get()
    if span is None or not span.is_recording():
        return
    if record.route != _UNMATCHED:
        span.update_name(f"{record.method} {record.route}")
        span.set_attribute("http.route", record.route)
        span.set_attribute("url.path", record.route)
    span.set_attribute("jims.request.id", record.request_id)
    if record.status == CLIENT_GONE:  # no response was sent
        span.set_attribute("error.type", "client_disconnected")
        return
    span.set_attribute("http.response.status_code", record.status)
    if record.status >= 500:
        span.set_attribute("error.type", str(record.status))
        span.set_status(StatusCode.ERROR)


def _carrier(headers: Iterable[tuple[bytes, bytes]], fields: frozenset[bytes]) -> dict[str, list[str]]:
    """The headers that propagators read. They do not need the others."""
    carrier: dict[str, list[str]] = {}
    for name, value in headers:
        if name in fields:
            carrier.setdefault(name.decode(), []).append(value.decode("latin-1"))
    return carrier


def _attributes(scope: Scope, method: str, *, known: bool) -> dict[str, str | int]:
    """The attributes of a request that are known before it is handled. Samplers use them."""
    attributes: dict[str, str | int] = {
        "http.request.method": method if known else "_OTHER",
        "url.scheme": scope.get("scheme", "http"),
        "network.protocol.version": scope.get("http_version", "1.1"),
    }
    if server := scope.get("server"):
        attributes["server.address"] = str(server[0])
        if server[1]:
            attributes["server.port"] = int(server[1])
    return attributes
