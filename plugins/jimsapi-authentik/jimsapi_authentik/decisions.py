"""A cache of decisions about tokens."""

from collections.abc import Callable

import msgspec

from jimsapi import AccessDenied, AuthUnavailable, Identity, InvalidCredentials

Refusal = type[InvalidCredentials] | type[AccessDenied] | type[AuthUnavailable]


class Decision(msgspec.Struct, frozen=True):
    """The decision about a token. Exactly one of `identity` and `refusal` is set; `cause` is the refusal's message."""

    identity: Identity | None = None
    refusal: Refusal | None = None
    cause: str = ""

    def result(self) -> Identity:
        """Return the identity, or raise the refusal as a new exception."""
        if self.identity is not None:
            return self.identity
        assert self.refusal is not None
        raise self.refusal(self.cause)


class Decisions:
    """Up to `limit` decisions by key, each for `ttl` seconds from the start of its check. The oldest is dropped first.

    `clock` returns monotonic seconds.
    """

    def __init__(self, ttl: float, limit: int, clock: Callable[[], float]) -> None:
        self._ttl = ttl
        self._limit = limit
        self._clock = clock
        self._entries: dict[bytes, tuple[float, Decision]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes) -> Decision | None:
        """Return the decision for a key, or None if there is none or it has expired."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        expires, decision = entry
        if self._clock() < expires:
            return decision
        del self._entries[key]
        return None

    def store(self, key: bytes, decision: Decision, began_at: float) -> None:
        """Store a decision whose check began at `began_at`.

        The `ttl` begins then and not at the answer, because access may have changed in between.
        """
        if self._clock() < began_at + self._ttl:
            self._entries[key] = began_at + self._ttl, decision
            if len(self._entries) > self._limit:
                del self._entries[next(iter(self._entries))]
