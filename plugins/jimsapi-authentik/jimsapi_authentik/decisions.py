"""What was decided about tokens, kept for a while."""

from collections.abc import Callable

import msgspec

from jimsapi import AccessDenied, AuthUnavailable, Identity, InvalidCredentials

Refusal = type[InvalidCredentials] | type[AccessDenied] | type[AuthUnavailable]


class Decision(msgspec.Struct, frozen=True):
    """Who the holder of a token is, or why they do not enter; one of `identity` and `refusal` is there."""

    identity: Identity | None = None
    refusal: Refusal | None = None
    cause: str = ""

    def result(self) -> Identity:
        """The identity; raises the refusal, a new exception each time."""
        if self.identity is not None:
            return self.identity
        assert self.refusal is not None
        raise self.refusal(self.cause)


class Decisions:
    """At most `limit` decisions by key, each for `ttl` seconds from when it was asked for; the oldest go first.

    `clock` gives seconds that never go back.
    """

    def __init__(self, ttl: float, limit: int, clock: Callable[[], float]) -> None:
        self._ttl = ttl
        self._limit = limit
        self._clock = clock
        self._kept: dict[bytes, tuple[float, Decision]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: bytes) -> Decision | None:
        """The decision that still holds, if there is one."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        expires, decision = kept
        if self._clock() < expires:
            return decision
        del self._kept[key]
        return None

    def keep(self, key: bytes, decision: Decision, asked_at: float) -> None:
        """Keep a decision; not counted from its arrival, since access may have changed while the answer was on its
        way."""
        if self._clock() < asked_at + self._ttl:
            self._kept[key] = asked_at + self._ttl, decision
            if len(self._kept) > self._limit:
                del self._kept[next(iter(self._kept))]
