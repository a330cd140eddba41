"""Not asking somebody who does not answer: a circuit breaker."""

import logging
from collections.abc import Callable
from typing import Literal

from jimsapi import AuthUnavailable

logger = logging.getLogger("jimsapi.authentik")

THRESHOLD = 5
"""Failures in a row that open the circuit."""

PAUSE = 5.0
"""Seconds that it then stays open."""

State = Literal["closed", "open", "half_open"]


class Circuit:
    """Closed, calls pass. After `THRESHOLD` failures in a row it opens, and calls are refused at once. `PAUSE` seconds
    later one call passes, the probe: it closes the circuit or opens it again.

    `clock` gives seconds that never go back. Every `enter` that passes is followed by a `leave`.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.state: State = "closed"
        self.openings = 0
        self._clock = clock
        self._failures = 0
        self._under_way = 0
        self._probe_at = 0.0

    @property
    def at_stake(self) -> bool:
        """Whether the calls that are under way could open it, or are to tell whether it may close."""
        return self.state == "half_open" or (self.state == "closed" and self._failures + self._under_way >= THRESHOLD)

    def enter(self) -> None:
        """Let a call pass, or raise `AuthUnavailable`."""
        if self.state != "closed":
            left = self._probe_at - self._clock()
            if self.state == "half_open" or left > 0:
                until = f"asked again in {left:.1f} s" if self.state == "open" else "being asked whether it is back"
                raise AuthUnavailable(f"Authentik failed {self._failures} times in a row and is {until}")
            self.state = "half_open"
        self._under_way += 1

    def leave(self, *, working: bool | None) -> None:
        """Note how a call ended: whether Authentik answered at all, or None if the call says nothing about that."""
        self._under_way -= 1
        if working:
            self.answered()
        elif working is False:
            self._fail()
        elif self.state == "half_open":
            self.state = "open"  # and the next call is the probe

    def answered(self) -> None:
        """Note that Authentik answers."""
        self._failures = 0
        if self.state != "closed":
            self.state = "closed"
            logger.info("Authentik answers again")

    def _fail(self) -> None:
        self._failures += 1
        # A late failure, of a call that passed before the circuit opened, does not make the pause longer.
        if self.state == "half_open" or (self.state == "closed" and self._failures >= THRESHOLD):
            self.state = "open"
            self.openings += 1
            self._probe_at = self._clock() + PAUSE
            logger.warning(
                "Authentik failed %d times in a row; it is asked again in %g s, and until then only callers whose "
                "tokens were checked lately enter",
                self._failures,
                PAUSE,
            )
