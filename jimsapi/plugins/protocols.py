"""What hooks build: the protocols that a plugin's objects keep, and what they raise."""

from typing import Protocol

import msgspec

from jimsapi.asgi.connection import Connection
from jimsapi.asgi.record import RequestRecord
from jimsapi.runs.identity import Identity
from jimsapi.runs.live import RunRecord
from jimsapi.runs.resolver import ThreadResolver
from jimsapi.runs.sinks import EventSink
from jimsapi.threads.store import CommitRecord, ThreadStore

__all__ = [
    "AccessDenied",
    "AdmissionRecord",
    "AuthProvider",
    "AuthUnavailable",
    "CommitRecord",
    "EventSink",
    "InvalidCredentials",
    "Observer",
    "RequestRecord",
    "RunRecord",
    "ThreadResolver",
    "ThreadStore",
]


class AuthError(Exception):
    """Base of a provider's refusals. The message goes to the log, never to the caller, and must hold no secret."""


class InvalidCredentials(AuthError):
    """The credentials are of this provider's kind, and wrong, malformed or expired. 401 if nobody else admits."""


class AccessDenied(AuthError):
    """The credentials are good, but their holder may not enter. 403 if nobody else admits."""


class AuthUnavailable(AuthError):
    """Whether the credentials are good cannot be found out now. 503 if nobody admits and nobody denied."""


class AuthProvider(Protocol):
    """Says who is calling.

    An optional attribute `challenge` is what a 401 offers (RFC 9110, section 11.6.1), for example `Bearer`. An optional
    method `async ping()` raises `AuthUnavailable` if what the provider asks does not answer; `jimsapi check --connect`
    calls it.
    """

    name: str

    async def authenticate(self, connection: Connection) -> Identity | None:
        """Look at the connection's headers (the body is not read yet) and say who calls.

        Returns an `Identity`; or None if the request bears no credentials of this provider's kind.
        Raises `InvalidCredentials`, `AccessDenied` or `AuthUnavailable`; anything else counts as `AuthUnavailable`.
        """
        ...


class AdmissionRecord(msgspec.Struct, frozen=True):
    """What a provider said of a request: `admitted`, `passed` (not its kind), `invalid`, `denied`, `unavailable`."""

    provider: str
    outcome: str


class Observer(Protocol):
    """Is told of what happens. Every method is optional, synchronous, and unable to fail a request.

    `on_request(RequestRecord)` after each answer, `on_admission(AdmissionRecord)` for each provider asked,
    `on_run(RunRecord)` when a run ended, `on_commit(CommitRecord)` after each durable transaction.
    """
