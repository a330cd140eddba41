"""The table of HTTP statuses for domain errors, and the answers to these errors."""

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
    QuestionClosed,
    QuestionNotFound,
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
    ContactDeleted,
    DomainError,
    EventNotFound,
    FileQuotaExceeded,
    InputRefused,
    InvalidCursor,
    KeyMismatch,
    QueueFull,
    RunNotFound,
    StoredFileNotFound,
    StoreLacks,
    StoreUnavailable,
    ThreadNotFound,
)
from jimsapi.wire.rate_limits import rate_limit_headers

_RETRY_SOON = {"retry-after": "1"}

STATUS: dict[type[DomainError], tuple[int, dict[str, str]]] = {
    ContactForbidden: (403, {}),
    ScopeMissing: (403, {}),
    ThreadNotFound: (404, {}),
    EventNotFound: (404, {}),
    RunNotFound: (404, {}),
    StoredFileNotFound: (404, {}),
    ContactDeleted: (409, {}),
    RunCancelled: (409, {}),
    RunEnded: (409, {}),
    QuestionNotFound: (404, {}),
    QuestionClosed: (409, {}),
    ThreadBusy: (409, _RETRY_SOON),
    KeyMismatch: (422, {}),
    QueueFull: (429, _RETRY_SOON),
    QuotaExceeded: (429, {}),  # the caller's limits add more headers
    PipelineFailed: (500, {}),
    RunBroken: (500, {}),
    StoreLacks: (501, {}),
    QueueTimedOut: (503, _RETRY_SOON),
    RunInterrupted: (503, _RETRY_SOON),
    TooManyRuns: (503, {**_RETRY_SOON, "connection": "close"}),  # a client that retries at once has to connect again
    StoreUnavailable: (503, {"retry-after": "5"}),
    ServerDraining: (503, {"retry-after": "5", "connection": "close"}),
    RunTimedOut: (504, {}),
    FileQuotaExceeded: (507, {}),
}
"""Status and headers by type of error. The error's text becomes the `detail`."""

_TEXT_FOR_CALLERS: dict[type[DomainError], str] = {StoreUnavailable: StoreUnavailable.FOR_CALLERS}
"""Errors whose own text is for the log only, and the text that clients get instead."""

TRANSIENT = (StoreUnavailable, ServerDraining)
"""Errors that end a stream while its run may go on. The client can read the rest of the stream later."""


class ErrorContent(msgspec.Struct, frozen=True):
    """The answer to an error: its status, its body as a JSON object, and its headers."""

    status: int
    content: dict[str, Any]
    headers: Mapping[str, str] | None = None
    limits: RawHeaders = []


def error_content(request: Connection, error: HTTPError | DomainError) -> ErrorContent:
    """Return the answer to an error. Raises `error` itself if it is not in the table, which is a bug."""
    if isinstance(error, HTTPError):
        return ErrorContent(error.status, {"detail": error.detail}, error.headers)
    if isinstance(error, InputRefused):
        route = request.route
        models = () if route is None else (route.body, route.query)
        if error.field in request.path_params and not any(
            model is not None and error.field in model.__struct_encode_fields__ for model in models
        ):
            return _fault(error.kind, ["path", error.field], error.message, error.value)
        place = "query" if route is not None and route.query is not None and route.body is None else "body"
        return _fault(error.kind, [place, *error.field.split(".")], error.message, error.value)
    if isinstance(error, InvalidCursor):
        return _fault("invalid_cursor", ["query", "after"], str(error), request.query.get("after"))
    kind = next((kind for kind in type(error).__mro__ if kind in STATUS), None)  # stores may define subclasses
    if kind is None:
        raise error
    status, headers = STATUS[kind]
    content = {"detail": _TEXT_FOR_CALLERS.get(kind) or str(error)}
    if isinstance(error, ScopeMissing):
        challenge = request.resource_challenge((error.scope,), "insufficient_scope")
        headers = {**headers, "www-authenticate": challenge} if challenge is not None else headers
    if isinstance(error, ThreadBusy) and error.run_id is not None:
        content["run_id"] = str(error.run_id)
    if isinstance(error, QuotaExceeded):
        retry_after = (b"retry-after", str(error.retry_after).encode())
        return ErrorContent(
            status, content, headers, [retry_after, *rate_limit_headers(error.policies, error.exhausted)]
        )
    return ErrorContent(status, content, headers)


def error_answer(request: Connection, error: HTTPError | DomainError) -> Response:
    """Return the answer to an error as a response. Raises as `error_content` does."""
    content = error_content(request, error)
    response = ErrorResponse(status=content.status, headers=content.headers, **content.content)
    response.raw_headers.extend(content.limits)
    return response


def handle_domain_errors(app: App) -> None:
    """Make `app` answer domain errors with the statuses of the table."""
    app.exception_handler(DomainError)(error_answer)


def _fault(kind: str, loc: list[str], message: str, value: object) -> ErrorContent:
    shown = value if isinstance(value, str) and len(value) <= 1000 else None
    return ErrorContent(422, {"detail": [{"type": kind, "loc": loc, "msg": message, "input": shown}]})
