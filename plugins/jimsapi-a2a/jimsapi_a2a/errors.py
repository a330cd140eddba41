"""The errors of A2A (specification, sections 3.3.2 and 5.4), and what each error of jimsapi is there."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from jimsapi.asgi import Connection, HTTPError
from jimsapi.runs import QuestionClosed, QuestionNotFound, RunEnded
from jimsapi.threads import (
    DomainError,
    InputRefused,
    InvalidCursor,
    KeyMismatch,
    RunNotFound,
    StoreLacks,
    ThreadNotFound,
)
from jimsapi.wire import error_content, refusal_of

A2A = "a2a-protocol.org"
"""The domain of the reasons that A2A defines."""
OURS = "jimsapi"
"""The domain of the reasons that A2A does not have."""
ERROR_INFO = "type.googleapis.com/google.rpc.ErrorInfo"
BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"
MOST_VIOLATIONS = 20
"""How many faults of a request an error lists."""


class Kind(msgspec.Struct, frozen=True):
    """A kind of error: its code in JSON-RPC, its HTTP status, the name of its gRPC status, and its reason."""

    code: int
    status: int
    name: str
    reason: str
    domain: str = A2A


TASK_NOT_FOUND = Kind(-32001, 404, "NOT_FOUND", "TASK_NOT_FOUND")
TASK_NOT_CANCELABLE = Kind(-32002, 400, "FAILED_PRECONDITION", "TASK_NOT_CANCELABLE")
PUSH_NOT_SUPPORTED = Kind(-32003, 400, "FAILED_PRECONDITION", "PUSH_NOTIFICATION_NOT_SUPPORTED")
UNSUPPORTED = Kind(-32004, 400, "FAILED_PRECONDITION", "UNSUPPORTED_OPERATION")
CONTENT_TYPE = Kind(-32005, 400, "INVALID_ARGUMENT", "CONTENT_TYPE_NOT_SUPPORTED")
VERSION = Kind(-32009, 400, "FAILED_PRECONDITION", "VERSION_NOT_SUPPORTED")
PARSE_ERROR = Kind(-32700, 400, "INVALID_ARGUMENT", "JSON_PARSE_ERROR")
INVALID_REQUEST = Kind(-32600, 400, "INVALID_ARGUMENT", "INVALID_REQUEST")
METHOD_NOT_FOUND = Kind(-32601, 404, "NOT_FOUND", "METHOD_NOT_FOUND")
INVALID_PARAMS = Kind(-32602, 400, "INVALID_ARGUMENT", "INVALID_PARAMS")
INTERNAL = Kind(-32603, 500, "INTERNAL", "INTERNAL_ERROR")

_REFUSED = -32000
"""The code of JSON-RPC for what the server refuses now, such as a message to a busy context."""
_BY_STATUS = {
    400: INVALID_PARAMS,
    401: Kind(_REFUSED, 401, "UNAUTHENTICATED", "UNAUTHENTICATED", OURS),
    403: Kind(_REFUSED, 403, "PERMISSION_DENIED", "PERMISSION_DENIED", OURS),
    404: METHOD_NOT_FOUND,
    405: Kind(-32601, 405, "UNIMPLEMENTED", "METHOD_NOT_FOUND"),
    409: Kind(_REFUSED, 409, "ABORTED", "CONTEXT_BUSY", OURS),
    413: Kind(-32600, 413, "INVALID_ARGUMENT", "PAYLOAD_TOO_LARGE", OURS),
    415: Kind(-32005, 415, "INVALID_ARGUMENT", "CONTENT_TYPE_NOT_SUPPORTED"),
    422: INVALID_PARAMS,
    429: Kind(_REFUSED, 429, "RESOURCE_EXHAUSTED", "RATE_LIMITED", OURS),
    503: Kind(_REFUSED, 503, "UNAVAILABLE", "UNAVAILABLE", OURS),
    504: Kind(_REFUSED, 504, "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", OURS),
    507: Kind(_REFUSED, 507, "RESOURCE_EXHAUSTED", "STORAGE_FULL", OURS),
}
_BY_TYPE: tuple[tuple[type[DomainError], Kind], ...] = (
    (RunNotFound, TASK_NOT_FOUND),
    (ThreadNotFound, TASK_NOT_FOUND),
    (QuestionNotFound, UNSUPPORTED),
    (QuestionClosed, UNSUPPORTED),
    (RunEnded, TASK_NOT_CANCELABLE),
    (StoreLacks, UNSUPPORTED),
    (KeyMismatch, INVALID_PARAMS),
    (InvalidCursor, INVALID_PARAMS),
)
_FILE_FAULTS = frozenset(("files_off", "invalid_type"))
"""Why a server does not take a file at all, as `InputRefused.kind`."""
_FIELDS = {"message": "message.parts", "files": "message.parts", "metadata": "message.metadata"}
"""The fields of A2A for those of an inbound message."""


class A2AError(Exception):
    """An error with the text for the caller, the `violations` as pairs of a field and a text, and `metadata`.

    `headers` are added to the response, as ASGI has them.
    """

    def __init__(
        self,
        kind: Kind,
        text: str,
        *,
        violations: Sequence[tuple[str, str]] = (),
        metadata: Mapping[str, str] | None = None,
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        super().__init__(text)
        self.kind = kind
        self.text = text
        self.violations = violations
        self.metadata = dict(metadata or {})
        self.headers = headers

    def details(self) -> list[dict[str, Any]]:
        """Return the details of the error, as `google.rpc` defines their types."""
        kind = self.kind
        info = {"@type": ERROR_INFO, "reason": kind.reason, "domain": kind.domain, "metadata": self.metadata}
        if not self.violations:
            return [info]
        faults = [{"field": field, "description": text} for field, text in self.violations[:MOST_VIOLATIONS]]
        return [info, {"@type": BAD_REQUEST, "fieldViolations": faults}]

    def in_json_rpc(self) -> dict[str, Any]:
        """Return the `error` of a JSON-RPC response (section 9.5)."""
        return {"code": self.kind.code, "message": self.text, "data": self.details()}

    def in_http(self) -> dict[str, Any]:
        """Return the body of an HTTP response (section 11.6)."""
        status = {"code": self.kind.status, "status": self.kind.name, "message": self.text}
        return {"error": {**status, "details": self.details()}}


def invalid(field: str, text: str) -> A2AError:
    """Return the error for a parameter that is not valid."""
    return A2AError(INVALID_PARAMS, f"{field}: {text}", violations=[(field, text)])


def task_not_found(task_id: str) -> A2AError:
    """Return the error for a task that does not exist, or that the caller may not see: it says the same for both."""
    return A2AError(TASK_NOT_FOUND, f"Task {task_id[:100]!r} not found", metadata={"taskId": task_id[:100]})


def a2a_error(request: Connection, error: A2AError | HTTPError | DomainError) -> A2AError:
    """Return an error of jimsapi as one of A2A. Raises `error` itself if it has no answer, which is a bug."""
    if isinstance(error, A2AError):
        return error
    if isinstance(error, KeyMismatch) and "idempotency-key" not in request.headers:
        return invalid(
            "message.messageId", "Another message of this context has this identifier; use a new one for each"
        )
    content = error_content(request, error)
    headers = [(name.encode(), value.encode()) for name, value in (content.headers or {}).items()]
    headers += content.limits
    if isinstance(error, InputRefused):
        field = _FIELDS.get(error.field.partition(".")[0], error.field)
        kind = CONTENT_TYPE if error.kind in _FILE_FAULTS else INVALID_PARAMS
        return A2AError(kind, f"{field}: {error.message}", violations=[(field, error.message)], headers=headers)
    found = next((kind for known, kind in _BY_TYPE if isinstance(error, known)), None)
    return of_answer(content.status, content.content, headers, found)


def of_answer(
    status: int, content: Mapping[str, Any], headers: Sequence[tuple[bytes, bytes]] = (), kind: Kind | None = None
) -> A2AError:
    """Return the error for an answer `{"detail": …}` with this status."""
    if kind is None:
        other = Kind(INTERNAL.code, status, INTERNAL.name, INTERNAL.reason)
        kind = _BY_STATUS.get(status, other)
    detail = content.get("detail")
    faults = detail if isinstance(detail, list) else []
    violations = [(_field(fault["loc"]), str(fault["msg"])) for fault in faults]
    return A2AError(kind, refusal_of(status, content).text, violations=violations, headers=headers)


def _field(loc: Sequence[Any]) -> str:
    """Return the field of A2A for the place of a fault."""
    field = ".".join(map(str, loc[1:]))
    return "pageToken" if field == "after" else field
