"""The one table from domain errors to HTTP."""

from jimsapi.asgi.app import App
from jimsapi.asgi.connection import Connection
from jimsapi.asgi.response import JSONResponse, Response
from jimsapi.runs.errors import (
    ContactForbidden,
    PipelineFailed,
    QueueTimedOut,
    RunBroken,
    RunCancelled,
    RunEnded,
    RunInterrupted,
    RunTimedOut,
    ScopeMissing,
    ServerDraining,
    ThreadBusy,
    TooManyRuns,
)
from jimsapi.runs.quota import QuotaExceeded
from jimsapi.threads.errors import (
    DomainError,
    InputRefused,
    InvalidCursor,
    KeyMismatch,
    QueueFull,
    RunNotFound,
    StoreUnavailable,
    ThreadNotFound,
)
from jimsapi.wire.rate_limits import rate_limit_headers

_AGAIN = {"retry-after": "1"}

STATUS: dict[type[DomainError], tuple[int, dict[str, str]]] = {
    ContactForbidden: (403, {}),
    ScopeMissing: (403, {}),
    ThreadNotFound: (404, {}),
    RunNotFound: (404, {}),
    RunCancelled: (409, {}),
    RunEnded: (409, {}),
    ThreadBusy: (409, _AGAIN),
    KeyMismatch: (422, {}),
    QueueFull: (429, _AGAIN),
    QuotaExceeded: (429, {}),  # and what the caller's limits say
    PipelineFailed: (500, {}),
    RunBroken: (500, {}),
    QueueTimedOut: (503, _AGAIN),
    RunInterrupted: (503, _AGAIN),
    TooManyRuns: (503, {**_AGAIN, "connection": "close"}),  # so that a client which retries at once has to connect
    StoreUnavailable: (503, {"retry-after": "5"}),
    ServerDraining: (503, {"retry-after": "5", "connection": "close"}),
    RunTimedOut: (504, {}),
}
"""Status and headers by error; the error's text is the `detail`."""

_NOT_TOLD: dict[type[DomainError], str] = {StoreUnavailable: StoreUnavailable.FOR_CALLERS}
"""Errors whose text is for the log."""

PASSING = (StoreUnavailable, ServerDraining)
"""Errors that end a stream and not its run: who looks again finds how the run ended."""


def domain_error(request: Connection, error: DomainError) -> Response:
    """Answer a domain error. One that is not in the table is a fault of ours: 500."""
    if isinstance(error, InputRefused):
        place = "body" if request.route is None or request.route.query is None else "query"
        return _fault(error.kind, [place, error.field], error.message, error.value)
    if isinstance(error, InvalidCursor):
        return _fault("invalid_cursor", ["query", "after"], str(error), request.query.get("after"))
    kind = next((kind for kind in type(error).__mro__ if kind in STATUS), None)  # a store may have errors of its own
    if kind is None:
        raise error
    status, headers = STATUS[kind]
    body = {"detail": _NOT_TOLD.get(kind) or str(error)}
    if isinstance(error, ThreadBusy) and error.run_id is not None:
        body["run_id"] = str(error.run_id)
    response = JSONResponse(body, status, headers)
    if isinstance(error, QuotaExceeded):
        response.raw_headers.append((b"retry-after", str(error.retry_after).encode()))
        response.raw_headers.extend(rate_limit_headers(error.policies, error.exhausted))
    return response


def handle_domain_errors(app: App) -> None:
    """Make `app` answer domain errors by the table."""
    app.exception_handler(DomainError)(domain_error)


def _fault(kind: str, loc: list[str], message: str, value: object) -> Response:
    shown = value if isinstance(value, str) and len(value) <= 1000 else None
    return JSONResponse({"detail": [{"type": kind, "loc": loc, "msg": message, "input": shown}]}, 422)
