"""The errors that the client raises: error answers of the API, and failures to get an answer."""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any
from uuid import UUID

import orjson


class ClientError(Exception):
    """Base class of the client's errors.

    `detail` is the reason: a text, or the list of faults if the body was invalid. `run_id` is the run of the message,
    if one was begun. If the thread was busy, it is the run that the thread was busy with.
    """

    def __init__(self, detail: Any, *, run_id: UUID | None = None) -> None:
        self.detail = detail
        self.run_id = run_id
        super().__init__(detail)

    def __str__(self) -> str:
        if isinstance(self.detail, list):
            return "; ".join(map(_fault_text, self.detail))
        return str(self.detail)


class Unreachable(ClientError):
    """The client received no complete answer in any attempt.

    If there is a `run_id`, the run continues on the server, and `watch` can read it later.
    """


class ApiError(ClientError):
    """The API answered with an error. `status` is the HTTP status, `retry_after` the seconds to wait before a retry."""

    def __init__(
        self, status: int, detail: Any, *, run_id: UUID | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(detail, run_id=run_id)
        self.args = (status, detail)  # unpickling the error calls the class with these
        self.status = status
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{self.status}: {super().__str__()}"


class InvalidRequest(ApiError):
    """400, 413, 415, 422: the request is invalid, or its idempotency key was used for a different request."""


class Unauthorized(ApiError):
    """401: the credentials are missing or wrong."""


class Forbidden(ApiError):
    """403: the credentials do not allow this."""


class NotFound(ApiError):
    """404: there is no such thread or run, or it belongs to another caller."""


class Conflict(ApiError):
    """409: the run was cancelled, or has ended and cannot be cancelled, or the thread is busy."""


class TooManyRequests(ApiError):
    """429: too many messages wait, or a limit of the caller is used up."""


class RunFailed(ApiError):
    """500: the pipeline or the server failed. The message is stored in the thread, without an answer."""


class Unavailable(ApiError):
    """502, 503: the server accepts no messages now, or the run was interrupted."""


class TimedOut(ApiError):
    """504: the pipeline took too long. The message is stored in the thread, without an answer."""


_BY_STATUS: dict[int, type[ApiError]] = {
    400: InvalidRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: InvalidRequest,
    415: InvalidRequest,
    422: InvalidRequest,
    429: TooManyRequests,
    500: RunFailed,
    502: Unavailable,
    503: Unavailable,
    504: TimedOut,
}


def api_error(status: int, detail: Any, *, run_id: UUID | None = None, retry_after: float | None = None) -> ApiError:
    """Return the error for an HTTP status."""
    return _BY_STATUS.get(status, ApiError)(status, detail, run_id=run_id, retry_after=retry_after)


def answered_error(status: int, headers: Mapping[str, str], content: bytes) -> ApiError:
    """Return the error for an answer. If the answer is not from the API, `detail` is the phrase of its status."""
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError:
        body = None
    fields = body if isinstance(body, dict) else {}
    return api_error(
        status,
        fields.get("detail") or _phrase(status, headers.get("location")),
        run_id=run_of(fields.get("run_id")) or run_of(headers.get("x-run-id")),
        retry_after=_retry_after(headers),
    )


def run_of(text: Any) -> UUID | None:
    """Return the identifier of a run as a UUID; None if it is not one."""
    try:
        return UUID(text)
    except (TypeError, ValueError, AttributeError):
        return None


def _phrase(status: int, location: str | None) -> str:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Unknown status"
    return f"{phrase}: the API is at {location[:200]}" if location and 300 <= status < 400 else phrase


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, from a number or a date (RFC 9110, 10.2.3)."""
    given = headers.get("retry-after", "").strip()
    if given.isascii() and given.isdigit():
        return float(given)
    try:
        date = parsedate_to_datetime(given)
    except (ValueError, OverflowError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())


def _fault_text(fault: Any) -> str:
    if not isinstance(fault, dict):
        return str(fault)
    place = ".".join(map(str, fault.get("loc") or ()))
    return f"{place}: {fault.get('msg')}" if place else str(fault.get("msg"))
