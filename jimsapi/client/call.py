"""One request and its answer, asked for again while that may help. It does no I/O: it says what to do next."""

import random
import ssl
from collections.abc import Mapping
from uuid import UUID

from .errors import ApiError, Unreachable, answered_error, run_of
from .request import Request

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
LONGEST_WAIT = 60.0
"""Seconds. Who is told to wait longer is not made to wait, but told."""


class Backoff:
    """How long to wait before the next of a number of attempts: twice as long each time, and never two callers alike."""

    def __init__(self, attempts: int) -> None:
        self._attempts = attempts
        self._made = 0

    def pause(self, asked: float | None = None) -> float | None:
        """Seconds, not fewer than `asked`; None if there were enough attempts, or they would take too long."""
        if self._made >= self._attempts or (asked or 0) > LONGEST_WAIT:
            return None
        pause: float = min(LONGEST_PAUSE, FIRST_PAUSE * 2**self._made) * random.uniform(0.5, 1)
        self._made += 1
        return pause if asked is None else max(pause, asked * random.uniform(1, 1.25))

    def reset(self) -> None:
        """Something got through: count from the beginning."""
        self._made = 0


def may_help(error: ApiError, headers: Mapping[str, str]) -> bool:
    """Whether the same request may be answered otherwise a little later.

    A 504 of the API's own, which names the run, is its last word; one that a proxy made up is not.
    """
    match error.status:
        case 502 | 503:
            return True
        case 504:
            return run_of(headers.get("x-run-id")) is None
        case 429:
            return error.retry_after is not None
    return False


def is_lasting(error: BaseException) -> bool:
    """Whether a connection fails for a reason that does not pass: a certificate that is not trusted."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def reason(error: BaseException) -> str:
    """Why a connection failed, in a few words."""
    return str(error) or type(error).__name__


class Call:
    """One request and its answer.

    Send `request`, then say how that went: `answered` gives the answer's content, or None, and `broke` nothing; then
    wait for `pause` seconds and send it again. Both raise when there is no more to be done.
    """

    def __init__(self, request: Request, attempts: int) -> None:
        self.request = request
        self.pause = 0.0
        self._backoff = Backoff(attempts)
        self._refusal: ApiError | None = None

    def answered(self, status: int, headers: Mapping[str, str], content: bytes) -> bytes | None:
        """An answer came. Raises `ApiError`."""
        if 200 <= status < 300:
            return content
        error = answered_error(status, headers, content)
        before, self._refusal = self._refusal, error
        if status == 409 and before is not None and before.run_id is not None and before.run_id == error.run_id:
            # Its run was refused its turn, and so is cancelled, which the same key finds now. The refusal says more.
            raise before
        pause = self._backoff.pause(error.retry_after) if may_help(error, headers) else None
        if pause is None:
            raise error
        self.pause = pause
        return None

    def broke(self, error: Exception, run_id: UUID | None = None) -> None:
        """The connection failed, or no whole answer came. Raises `Unreachable`."""
        pause = None if is_lasting(error) else self._backoff.pause()
        if pause is None:
            raise Unreachable(reason(error), run_id=run_id) from error
        self.pause = pause
