"""One request and its retries, without I/O: the caller sends the request and reports what happened."""

import random
import ssl
from collections.abc import Mapping

import httpx

from .errors import ApiError, Unreachable, answered_error, run_of
from .request import Request

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 5.0
"""Seconds between two attempts."""
LONGEST_WAIT = 60.0
"""Seconds. If the server sends a longer `Retry-After`, the client raises the error and does not retry."""
LONGEST_PAUSE_AFTER_CUT = 1.0
CUTS_PER_ATTEMPT = 5
"""This many lost connections count as one failed attempt: the server runs, and has probably received the message."""

_PERMANENT_ERRORS = (httpx.DecodingError, httpx.TooManyRedirects, httpx.UnsupportedProtocol, httpx.LocalProtocolError)


class Backoff:
    """The pauses between attempts: exponential, and randomised so that clients do not retry at the same time."""

    def __init__(self, attempts: int) -> None:
        self._initial = self._remaining = attempts * CUTS_PER_ATTEMPT
        self._failures = 0

    def pause(self, at_least: float = 0, *, cut: bool = False) -> float | None:
        """Return the seconds until the next attempt, `at_least` or more; None if the client should give up.

        `cut` means that an established connection was lost.
        """
        self._remaining -= 1 if cut else CUTS_PER_ATTEMPT
        if self._remaining < 0 or at_least > LONGEST_WAIT:
            return None
        longest = LONGEST_PAUSE_AFTER_CUT if cut else LONGEST_PAUSE
        pause: float = min(longest, FIRST_PAUSE * 2**self._failures) * random.uniform(0.5, 1)
        self._failures += 1
        return max(pause, at_least * random.uniform(1, 1.25))

    def after(self, error: Exception) -> float | None:
        """Return the pause after a connection error; None also if the error is permanent."""
        if is_permanent(error):
            return None
        return self.pause(cut=not isinstance(error, httpx.TimeoutException | httpx.ConnectError | httpx.ProxyError))

    def reset(self) -> None:
        """Allow all attempts again. Call it when the client has received something new."""
        self._remaining = self._initial
        self._failures = 0


def is_retryable(error: ApiError, headers: Mapping[str, str]) -> bool:
    """Return whether the same request may succeed a little later.

    A 504 with a run is from the API, and final. A 504 without one is from a proxy.
    """
    match error.status:
        case 502 | 503:
            return True
        case 504:
            return run_of(headers.get("x-run-id")) is None
        case 429:
            return error.retry_after is not None
    return False


def is_permanent(error: BaseException) -> bool:
    """Return whether a connection error will occur again, such as a certificate that is not trusted."""
    if isinstance(error, _PERMANENT_ERRORS):
        return True
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def unreachable(error: BaseException) -> Unreachable:
    """Return the error to raise if connections fail after the last attempt."""
    return Unreachable(
        f"The server does not answer ({str(error) or type(error).__name__}): is it running, and is the URL right?"
    )


class Call:
    """One request and its retries.

    The caller sends `request` and calls `on_response` or `on_connection_error`. If `on_response` returns true, the
    request is complete. Otherwise the caller waits for `pause` seconds and sends `request` again. Both methods raise if
    no attempts are left.
    """

    def __init__(self, request: Request, attempts: int) -> None:
        self.request = request
        self.pause = 0.0
        self._backoff = Backoff(attempts)

    def on_response(self, status: int, headers: Mapping[str, str], content: bytes) -> bool:
        """Return whether the request succeeded; if not, the caller sends it again. Raises `ApiError` to give up."""
        if 200 <= status < 300:
            return True
        error = answered_error(status, headers, content)
        pause = self._backoff.pause(error.retry_after or 0) if is_retryable(error, headers) else None
        if pause is None:
            raise error
        self.pause = pause
        return False

    def on_connection_error(self, error: Exception) -> None:
        """The connection failed before the answer was complete. Raises `Unreachable` to give up."""
        pause = self._backoff.after(error)
        if pause is None:
            raise unreachable(error) from error
        self.pause = pause
