"""A circuit breaker for the calls to Authentik."""

import logging
from collections.abc import Callable
from typing import Literal

from jimsapi import AuthUnavailable

logger = logging.getLogger("jimsapi.authentik")

THRESHOLD = 5
"""Failures in a row that open the circuit."""

PAUSE = 5.0
"""Seconds for which the circuit stays open."""

State = Literal["closed", "open", "half_open"]


class Circuit:
    """A circuit breaker. While it is closed, calls are allowed.

    After `THRESHOLD` failures in a row it opens, and calls fail at once. `PAUSE` seconds later it allows one call (half
    open), which closes it or opens it again. `clock` returns monotonic seconds. After every `enter` that does not
    raise, `leave` must be called.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.state: State = "closed"
        self.openings = 0
        self._clock = clock
        self._failures = 0
        self._active = 0
        self._probe_at = 0.0

    @property
    def is_decisive(self) -> bool:
        """Whether the active calls could open the circuit, or decide whether it closes."""
        return self.state == "half_open" or (self.state == "closed" and self._failures + self._active >= THRESHOLD)

    def enter(self) -> None:
        """Begin a call. Raises `AuthUnavailable` if the circuit does not allow it."""
        if self.state != "closed":
            remaining = self._probe_at - self._clock()
            if self.state == "half_open" or remaining > 0:
                probe = f"the next call is in {remaining:.1f} s" if self.state == "open" else "a test call is active"
                raise AuthUnavailable(f"Authentik failed {self._failures} times in a row; {probe}")
            self.state = "half_open"
        self._active += 1

    def leave(self, *, working: bool | None) -> None:
        """End a call. `working` is whether Authentik answered; None if the call does not show that."""
        self._active -= 1
        if working:
            self.record_answer()
        elif working is False:
            self._record_failure()
        elif self.state == "half_open":
            self.state = "open"  # the next call is allowed again

    def record_answer(self) -> None:
        """Record that Authentik has answered: close the circuit."""
        self._failures = 0
        if self.state != "closed":
            self.state = "closed"
            logger.info("Authentik answers again")

    def _record_failure(self) -> None:
        self._failures += 1
        # A failure of a call that began before the circuit opened does not extend the pause.
        if self.state == "half_open" or (self.state == "closed" and self._failures >= THRESHOLD):
            self.state = "open"
            self.openings += 1
            self._probe_at = self._clock() + PAUSE
            logger.warning(
                "Authentik failed %d times in a row; the next call is in %g s; until then only callers whose tokens "
                "were checked recently are admitted",
                self._failures,
                PAUSE,
            )
