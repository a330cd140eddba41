"""What a client raises: what the API answered instead of what was asked for, or that it did not answer."""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any
from uuid import UUID

import orjson


class ClientError(Exception):
    """What was asked for is not to be had.

    `detail` says why: a text, or for a faulty body the list of its faults. `run_id` is the run that it is about, if the
    message had become one (or, if another message was in the way, the run of that one).
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
    """No whole answer came, however often it was asked for. With a `run_id` the run goes on; `watch` may find it."""


class ApiError(ClientError):
    """The API refused, or failed. `status` is the HTTP status, `retry_after` the seconds after which to try again."""

    def __init__(
        self, status: int, detail: Any, *, run_id: UUID | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(detail, run_id=run_id)
        self.args = (status, detail)  # what it is made of anew where another process gets it
        self.status = status
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{self.status}: {super().__str__()}"


class InvalidRequest(ApiError):
    """400, 413, 415, 422: the request is faulty, or its idempotency key was used for another one."""


class Unauthorized(ApiError):
    """401: the credentials are missing or wrong."""


class Forbidden(ApiError):
    """403: the credentials do not allow this."""


class NotFound(ApiError):
    """404: there is no such thread or run, or it is somebody else's."""


class Conflict(ApiError):
    """409: the run was cancelled, or has ended and cannot be, or the thread takes no other message now."""


class TooManyRequests(ApiError):
    """429: too many messages wait, or a limit of the caller is used up."""


class RunFailed(ApiError):
    """500: the pipeline or the server failed. The message is in the thread, an answer is not."""


class Unavailable(ApiError):
    """502, 503: the server takes no work now, or the run was interrupted."""


class TimedOut(ApiError):
    """504: the pipeline took too long. The message is in the thread, an answer is not."""


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
    """The error that goes with a status."""
    return _BY_STATUS.get(status, ApiError)(status, detail, run_id=run_id, retry_after=retry_after)


def answered_error(status: int, headers: Mapping[str, str], content: bytes) -> ApiError:
    """The error that an answer tells. One that is not of the API's own making has the status's phrase as its detail."""
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError:
        body = None
    told = body if isinstance(body, dict) else {}
    return api_error(
        status,
        told.get("detail") or _phrase(status, headers.get("location")),
        run_id=run_of(told.get("run_id")) or run_of(headers.get("x-run-id")),
        retry_after=_retry_after(headers),
    )


def run_of(text: Any) -> UUID | None:
    """The run that a text names; None if it is no identifier."""
    try:
        return UUID(text)
    except (TypeError, ValueError, AttributeError):
        return None


def _phrase(status: int, elsewhere: str | None) -> str:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Unknown status"
    return f"{phrase}: the API is at {elsewhere[:200]}" if elsewhere and 300 <= status < 400 else phrase


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, from a number or a date (RFC 9110, 10.2.3)."""
    given = headers.get("retry-after", "").strip()
    if given.isascii() and given.isdigit():
        return float(given)
    try:
        moment = parsedate_to_datetime(given)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def _fault_text(fault: Any) -> str:
    if not isinstance(fault, dict):
        return str(fault)
    place = ".".join(map(str, fault.get("loc") or ()))
    return f"{place}: {fault.get('msg')}" if place else str(fault.get("msg"))
