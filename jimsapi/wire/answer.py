"""What an answer says of its run and of errors, and events of a stream, whichever protocol it is in."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import orjson

from jimsapi.asgi.connection import Connection, Request
from jimsapi.asgi.response import ErrorResponse, JSONResponse, Response
from jimsapi.runs.live import LiveRun
from jimsapi.runs.service import RunService
from jimsapi.threads.errors import DomainError
from jimsapi.threads.ids import uuid_text
from jimsapi.wire.errors import STATUS, error_answer, tell
from jimsapi.wire.rate_limits import rate_limit_headers

logger = logging.getLogger("jimsapi.api")

EVENT_STREAM = "text/event-stream"
_SEEN_AS_LINE_ENDS = ((b"\xc2\x85", rb"\u0085"), (b"\xe2\x80\xa8", rb"\u2028"), (b"\xe2\x80\xa9", rb"\u2029"))
"""Characters that end no line of an event stream, and yet do for clients that split it as Python splits text
(httpx's `iter_lines` does), with their escapes in JSON."""
REFUSALS = {
    401: "The credentials are missing or wrong.",
    403: "The credentials do not allow this.",
    404: "There is no such thread.",
    413: "The body is too large.",
    415: "The body is not declared as JSON.",
    422: "The body is faulty; every fault is listed.",
    429: "Too many messages wait in the thread, or a limit of the caller is used up.",
    503: "The server or its store takes no work now.",
}
"""What keeps a message out, whichever way its answer would have gone."""


def refused(request: Request, run: LiveRun) -> Response | None:
    """The answer to a message that no thread took; None if one did. Asked once `LiveRun.let_in` has told."""
    error = refusal(run)
    return None if error is None else error_answer(request, error)


def refusal(run: LiveRun) -> DomainError | None:
    """Why no thread took a message; None if one did. Asked once that is told, or the run answered."""
    if run.thread is not None or run.known_as is not run.run_id:
        return None
    error = run.answer.exception()
    if not isinstance(error, DomainError):
        raise error or RuntimeError(f"run {run.run_id} has an answer without a thread")
    return error


def note_run(request: Connection, run: LiveRun) -> None:
    """Put the run and its thread into the request's log line, from which `with_run` takes it."""
    request.note("run_id", uuid_text(run.known_as))
    if run.thread_id is not None:
        request.note("thread_id", uuid_text(run.thread_id))


def with_run(request: Request, service: RunService, run: LiveRun, response: Response) -> Response:
    """Name the run in an answer's headers, and what is left of the caller's limits."""
    response.raw_headers.append((b"x-run-id", request.noted["run_id"].encode()))
    if service.quota is not None:
        response.raw_headers.extend(rate_limit_headers(service.quota.policies, service.allowances(run)))
    return response


def one_line(data: bytes) -> bytes:
    """JSON as the data of a server-sent event that no client takes for more than one line."""
    if not data.isascii():
        for character, escape in _SEEN_AS_LINE_ENDS:
            data = data.replace(character, escape)
    return data


def failure(request: Connection, error: BaseException) -> tuple[int, str]:
    """What a client is told of a run without an answer: the status that `/api/v1/chat` would have had, and the text."""
    if not isinstance(error, DomainError) or type(error) not in STATUS:
        logger.error("a run ended with an error that is not to be told", exc_info=error)
        return 500, "Internal Server Error"
    told = tell(request, error)
    return told.status, told.content["detail"]


def data_event(value: Any) -> bytes:
    """A server-sent event without a name, whose data is this value as JSON."""
    return b"data: %s\n\n" % one_line(orjson.dumps(value))


class Refusal(msgspec.Struct, frozen=True):
    """What went wrong, to be told in a protocol's own form: `field` is the part of the body at fault, if it is one."""

    status: int
    text: str
    field: str | None = None


Form = Callable[[Refusal], Any]
"""The body, as JSON can hold it, in which a protocol's clients read what went wrong."""


def reworded(form: Form, answer: Response) -> Response:
    """The answer to an error with its status and headers, and with a body of this form."""
    # An app may have handlers of its own, which answer errors by any response.
    content = answer.content if isinstance(answer, ErrorResponse) else orjson.loads(answer.body or b"{}")
    told = JSONResponse(form(refusal_of(answer.status, content)), answer.status)
    told.raw_headers += [pair for pair in answer.raw_headers if pair[0] not in (b"content-length", b"content-type")]
    told.names_connection = answer.names_connection
    return told


def refusal_of(status: int, content: Mapping[str, Any]) -> Refusal:
    """What an error says, of which `content` is told. Of several faults of a body all are in the text."""
    detail = content.get("detail")
    if not isinstance(detail, list):
        return Refusal(status, str(detail))
    return Refusal(status, "; ".join(map(_told, detail)), _field(detail[0]) or None)


def _field(fault: Mapping[str, Any]) -> str:
    """The part of a body that is at fault; of one that is no JSON there is none, `loc` says where reading ended."""
    return "" if fault["type"] == "json_invalid" else ".".join(map(str, fault["loc"][1:]))


def _told(fault: Mapping[str, Any]) -> str:
    if field := _field(fault):
        return f"{field}: {fault['msg']}"
    return " at character ".join(map(str, (fault["msg"], *fault["loc"][1:])))
