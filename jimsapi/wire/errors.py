"""The one table from domain errors to HTTP."""

from collections.abc import Mapping
from typing import Any

import msgspec

from jimsapi.asgi.app import App
from jimsapi.asgi.connection import Connection
from jimsapi.asgi.errors import HTTPError
from jimsapi.asgi.response import ErrorResponse, Response
from jimsapi.asgi.types import RawHeaders
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


class Told(msgspec.Struct, frozen=True):
    """What a client is told of an error: the answer's status, its body as data, and its headers."""

    status: int
    content: dict[str, Any]
    headers: Mapping[str, str] | None = None
    limits: RawHeaders = []


def tell(request: Connection, error: HTTPError | DomainError) -> Told:
    """What the API says of an error. Raises a domain error that is not in the table: it is a fault of ours."""
    if isinstance(error, HTTPError):
        return Told(error.status, {"detail": error.detail}, error.headers)
    if isinstance(error, InputRefused):
        place = "body" if request.route is None or request.route.query is None else "query"
        return _fault(error.kind, [place, error.field], error.message, error.value)
    if isinstance(error, InvalidCursor):
        return _fault("invalid_cursor", ["query", "after"], str(error), request.query.get("after"))
    kind = next((kind for kind in type(error).__mro__ if kind in STATUS), None)  # a store may have errors of its own
    if kind is None:
        raise error
    status, headers = STATUS[kind]
    content = {"detail": _NOT_TOLD.get(kind) or str(error)}
    if isinstance(error, ThreadBusy) and error.run_id is not None:
        content["run_id"] = str(error.run_id)
    if isinstance(error, QuotaExceeded):
        again = (b"retry-after", str(error.retry_after).encode())
        return Told(status, content, headers, [again, *rate_limit_headers(error.policies, error.exhausted)])
    return Told(status, content, headers)


def error_answer(request: Connection, error: HTTPError | DomainError) -> Response:
    """The answer to an error. Raises as `tell` does."""
    told = tell(request, error)
    response = ErrorResponse(status=told.status, headers=told.headers, **told.content)
    response.raw_headers.extend(told.limits)
    return response


def handle_domain_errors(app: App) -> None:
    """Make `app` answer domain errors by the table."""
    app.exception_handler(DomainError)(error_answer)


def _fault(kind: str, loc: list[str], message: str, value: object) -> Told:
    shown = value if isinstance(value, str) and len(value) <= 1000 else None
    return Told(422, {"detail": [{"type": kind, "loc": loc, "msg": message, "input": shown}]})
