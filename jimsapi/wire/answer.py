"""Parts of answers that all protocols share: headers of the run, errors, and events of a stream."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import orjson

from jimsapi.asgi.connection import Connection, Request
from jimsapi.asgi.response import ErrorResponse, JSONResponse, Response
from jimsapi.runs.live import LiveRun
from jimsapi.runs.service import RunService
from jimsapi.threads.errors import DomainError
from jimsapi.threads.ids import uuid_text
from jimsapi.wire.errors import STATUS, error_answer, error_content
from jimsapi.wire.rate_limits import rate_limit_headers

logger = logging.getLogger("jimsapi.api")

EVENT_STREAM = "text/event-stream"
"""The content type of server-sent events."""
_OTHER_LINE_ENDS = ((b"\xc2\x85", rb"\u0085"), (b"\xe2\x80\xa8", rb"\u2028"), (b"\xe2\x80\xa9", rb"\u2029"))
"""Characters that do not end a line of an event stream, with their JSON escapes. Clients that split lines as Python's
`splitlines` does, such as httpx's `iter_lines`, treat them as line ends."""
REFUSALS = {
    401: "The credentials are missing or wrong.",
    403: "The credentials do not allow this.",
    404: "There is no such thread.",
    413: "The body is too large.",
    415: "The body is not declared as JSON.",
    422: "The body is faulty; every fault is listed.",
    429: "Too many messages wait in the thread, or a limit of the caller is used up.",
    503: "The server or its store is not available now, or a shutdown stopped the run. If the message is sent again "
    "with the same `Idempotency-Key`, it is stored once.",
}
"""The errors that every route for messages has, by status, for the OpenAPI document."""
LOOKUP_REFUSALS = {status: REFUSALS[status] for status in (401, 403, 503)}
"""The same for routes that show or delete something. Each adds its own 404."""


def refusal_answer(request: Request, run: LiveRun) -> Response | None:
    """Return the error answer if no thread accepted the message; None if one did.

    Call it when the run has a thread or has ended.
    """
    error = refusal(run)
    return None if error is None else error_answer(request, error)


def refusal(run: LiveRun) -> DomainError | None:
    """Return the error if no thread accepted the message; None if one did.

    Call it when the run has a thread or has ended. Raises an error of the run that is not a `DomainError`.
    """
    if run.thread is not None or run.known_as is not run.run_id:
        return None
    error = run.answer.exception()
    if not isinstance(error, DomainError):
        raise error or RuntimeError(f"run {run.run_id} has an answer without a thread")
    return error


def note_run(request: Connection, run: LiveRun) -> None:
    """Add the run and its thread to the request's log line. `with_run` reads the run from there."""
    request.note("run_id", uuid_text(run.known_as))
    if run.thread is not None:
        request.note("thread_id", uuid_text(run.thread.thread_id))


def with_run(request: Request, service: RunService, run: LiveRun, response: Response) -> Response:
    """Add `X-Run-ID` to an answer, and the caller's rate limits if there are any. Needs `note_run` first."""
    response.raw_headers.append((b"x-run-id", request.noted["run_id"].encode()))
    # The answer of a budget that is used up has them already.
    if service.quota is not None and not any(name == b"ratelimit" for name, _ in response.raw_headers):
        response.raw_headers.extend(rate_limit_headers(service.quota.policies, service.allowances(run)))
    return response


def with_ignored(request: Connection, response: Response, fields: Sequence[str]) -> Response:
    """Say in a header of the answer, and in the request's log line, which fields of the request had no effect.

    It is for fields that clients of a protocol send although they can do without, such as the temperature of a model.
    Refuse a field without which the answer would mislead.
    """
    if fields:
        names = ", ".join(fields)
        request.note("ignored", names)
        response.raw_headers.append((b"x-ignored-fields", names.encode()))
    return response


def one_line(data: bytes) -> bytes:
    """Return JSON, as the data of a server-sent event, that every client reads as one line."""
    if not data.isascii():
        for character, escape in _OTHER_LINE_ENDS:
            data = data.replace(character, escape)
    return data


def failure(request: Connection, error: BaseException) -> tuple[int, str]:
    """Return the status and text for a run that ended with `error`: those with which `/api/v1/chat` would answer.

    Unexpected errors are logged; their text is not sent to the client.
    """
    if not isinstance(error, DomainError) or not isinstance(error, tuple(STATUS)):
        logger.error("a run ended with an unexpected error", exc_info=error)
        return 500, "Internal Server Error"
    content = error_content(request, error)
    return content.status, content.content["detail"]


def data_event(value: Any) -> bytes:
    """Return a server-sent event without a name, with `value` as JSON in its data."""
    return b"data: %s\n\n" % one_line(orjson.dumps(value))


class Refusal(msgspec.Struct, frozen=True):
    """An error, for a protocol's own error format. `field` is the invalid part of the body, such as `messages.0`."""

    status_code: int
    text: str
    field: str | None = None


Form = Callable[[Refusal], Any]
"""Converts an error to the body, as a JSON value, that the clients of a protocol expect."""


def reworded(form: Form, answer: Response) -> Response:
    """Return an error answer with the same status and headers, and the body that `form` returns."""
    # An app's own error handler may return any response.
    content = answer.content if isinstance(answer, ErrorResponse) else orjson.loads(answer.body or b"{}")
    response = JSONResponse(form(refusal_of(answer.status, content)), answer.status)
    response.raw_headers += [pair for pair in answer.raw_headers if pair[0] not in (b"content-length", b"content-type")]
    response.names_connection = answer.names_connection
    return response


def refusal_of(status: int, content: Mapping[str, Any]) -> Refusal:
    """Return the error with the status and the JSON body of an answer. Its text lists all faults of the request."""
    detail = content.get("detail")
    if not isinstance(detail, list):
        return Refusal(status, str(detail))
    return Refusal(status, "; ".join(map(_fault_text, detail)), _field(detail[0]) or None)


def _field(fault: Mapping[str, Any]) -> str:
    """The invalid part of a body. If the body is not JSON, it is empty, since `loc` is then a position in the text."""
    return "" if fault["type"] == "json_invalid" else ".".join(map(str, fault["loc"][1:]))


def _fault_text(fault: Mapping[str, Any]) -> str:
    if field := _field(fault):
        return f"{field}: {fault['msg']}"
    return " at character ".join(map(str, (fault["msg"], *fault["loc"][1:])))
