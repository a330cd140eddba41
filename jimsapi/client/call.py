"""One request and its answer, asked for again while that may help. It does no I/O: it says what to do next."""

import random
import ssl
from collections.abc import Mapping

import httpx

from .errors import ApiError, Unreachable, answered_error, run_of
from .request import Request

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 5.0
LONGEST_WAIT = 60.0
"""Seconds. Who is told to wait longer is not made to wait, but told."""
LONGEST_PAUSE_AFTER_CUT = 1.0
CUTS_FOR_ONE = 5
"""So many cut connections count as one failed attempt: the server is there, and has most likely got the message."""

_LASTING = (httpx.DecodingError, httpx.TooManyRedirects, httpx.UnsupportedProtocol, httpx.LocalProtocolError)


class Backoff:
    """How long to wait before the next of some attempts: twice as long each time, and never two callers alike."""

    def __init__(self, attempts: int) -> None:
        self._left_at_first = self._left = attempts * CUTS_FOR_ONE
        self._failed = 0

    def pause(self, asked: float = 0, *, cut: bool = False) -> float | None:
        """Seconds, not fewer than `asked`; None if there were enough attempts, or they would take too long.

        `cut`: a connection ended that had been made.
        """
        self._left -= 1 if cut else CUTS_FOR_ONE
        if self._left < 0 or asked > LONGEST_WAIT:
            return None
        longest = LONGEST_PAUSE_AFTER_CUT if cut else LONGEST_PAUSE
        pause: float = min(longest, FIRST_PAUSE * 2**self._failed) * random.uniform(0.5, 1)
        self._failed += 1
        return max(pause, asked * random.uniform(1, 1.25))

    def after(self, error: Exception) -> float | None:
        """The same after a connection failed; None also if that does not pass."""
        if is_lasting(error):
            return None
        return self.pause(cut=not isinstance(error, httpx.TimeoutException | httpx.ConnectError | httpx.ProxyError))

    def reset(self) -> None:
        """Something new got through: count from the beginning."""
        self._left = self._left_at_first
        self._failed = 0


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
    """Whether a request fails for a reason that does not pass, such as a certificate that is not trusted."""
    if isinstance(error, _LASTING):
        return True
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def unreachable(error: BaseException) -> Unreachable:
    """What is raised once a connection has failed too often."""
    return Unreachable(
        f"The server does not answer ({str(error) or type(error).__name__}): is it up, and the URL right?"
    )


class Call:
    """One request and its answer.

    Send `request`, and say how that went. When what was `answered` is not the last word, or the connection `broke`,
    wait for `pause` seconds and send it again. Both raise when no more is to be done.
    """

    def __init__(self, request: Request, attempts: int) -> None:
        self.request = request
        self.pause = 0.0
        self._backoff = Backoff(attempts)

    def answered(self, status: int, headers: Mapping[str, str], content: bytes) -> bool:
        """An answer came: whether it is the last word. Raises `ApiError`."""
        if 200 <= status < 300:
            return True
        error = answered_error(status, headers, content)
        pause = self._backoff.pause(error.retry_after or 0) if may_help(error, headers) else None
        if pause is None:
            raise error
        self.pause = pause
        return False

    def broke(self, error: Exception) -> None:
        """The connection failed, or no whole answer came. Raises `Unreachable`."""
        pause = self._backoff.after(error)
        if pause is None:
            raise unreachable(error) from error
        self.pause = pause
