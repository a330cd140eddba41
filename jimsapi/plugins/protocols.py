"""The protocols of the objects that hooks build, and the errors that these objects raise."""

from collections.abc import Iterable
from typing import Protocol

import msgspec

from jimsapi.asgi.connection import Connection
from jimsapi.asgi.record import RequestRecord
from jimsapi.runs.live import RunRecord
from jimsapi.runs.replicas import ReplicaLink
from jimsapi.runs.resolver import ResolverContext, ThreadResolver
from jimsapi.runs.shared_quota import NoticeLink
from jimsapi.runs.sinks import EventSink
from jimsapi.threads.file_store import FileStore
from jimsapi.threads.identity import Identity
from jimsapi.threads.store import CommitRecord, ThreadStore

__all__ = [
    "AccessDenied",
    "AdmissionRecord",
    "AuthProvider",
    "AuthUnavailable",
    "CommitRecord",
    "EventSink",
    "FileStore",
    "InvalidCredentials",
    "NoticeLink",
    "Observer",
    "ReplicaLink",
    "RequestRecord",
    "ResolverContext",
    "RunRecord",
    "ThreadResolver",
    "ThreadStore",
]


class AuthError(Exception):
    """Base class of the errors of auth providers. jimsapi logs the message and does not send it to the caller.

    The message must not contain a secret.
    """


class InvalidCredentials(AuthError):
    """The provider recognises the credentials, and they are wrong, malformed or expired.

    The caller gets 401, unless another provider admits it or raises one of the errors below.
    """


class AccessDenied(AuthError):
    """The credentials are valid, but the caller may not use this API.

    The caller gets 403, unless another provider admits it. If a token lacks a scope, pass all `scopes` that it must
    have. If the provider has `authorization_servers`, the 403 then names them in a challenge, with the error
    `insufficient_scope` (RFC 6750, section 3.1), and OAuth clients ask for a token with these scopes.
    """

    scopes: tuple[str, ...] = ()

    def __init__(self, *args: object, scopes: Iterable[str] = ()) -> None:
        super().__init__(*args)
        if scopes:
            self.scopes = tuple(scopes)


class AuthUnavailable(AuthError):
    """The provider cannot check the credentials now.

    The caller gets 503, unless another provider admits it or raises `AccessDenied`.
    """


class AuthProvider(Protocol):
    """Authenticates callers.

    A provider may also have:

    - `challenge`: the challenge that a 401 sends in `WWW-Authenticate`, for example `Bearer` (RFC 9110, section
      11.6.1).
    - `security_scheme`: how callers send the credentials, as a Security Scheme Object of OpenAPI 3.1 (section 4.8.27),
      for example `{"type": "apiKey", "in": "header", "name": "x-ticket"}`. The OpenAPI document has it, and the page
      `/docs` offers a field for it. By default, it is the HTTP scheme of `challenge`.
    - `authorization_servers`: the OAuth authorization servers whose access tokens the provider accepts, as a list of
      their issuers, verbatim (RFC 8414, section 2). The challenge of a 401 then names a document that lists them, so
      that clients can find out where they get a token (RFC 9728). That challenge is the first of the answer, with the
      parameters of `challenge` if this is `Bearer`.
    - `oauth_scopes`: the scopes that clients request of these servers, as a list. By default, it is the scope of the
      route.
    - `async readmit(connection, identity)`: checks the caller of an open WebSocket again. jimsapi calls it before each
      message of a WebSocket that this provider has admitted; `identity` is the last one that the provider returned. It
      returns and raises as `authenticate` does. Implement it if credentials are valid once or for a short time: without
      it, jimsapi calls `authenticate` again, with the headers of the handshake.
    - `async ping()`: `jimsapi check --connect` calls it. It raises `AuthUnavailable` if a service that the provider
      depends on does not answer.
    """

    name: str

    async def authenticate(self, connection: Connection) -> Identity | None:
        """Authenticate the caller by the headers, cookies and query of `connection`. The body is not read yet.

        `connection` is a request, or the handshake of a WebSocket, whose `method` is `GET`.

        Returns the caller's `Identity`, or None if the request has no credentials that this provider recognises.

        Raises:
            InvalidCredentials: the credentials are wrong, malformed or expired.
            AccessDenied: the credentials are valid, but the caller may not use this API.
            AuthUnavailable: the provider cannot check the credentials now. Any other exception has the same effect.
        """


class AdmissionRecord(msgspec.Struct, frozen=True):
    """The outcome of one provider for one request.

    `outcome` is `admitted`, `passed` (no credentials that the provider recognises), `invalid`, `denied` or
    `unavailable`.
    """

    provider: str
    outcome: str


class Observer(Protocol):
    """Receives records of what happens. Each method is optional and a plain function; its errors are only logged.

    jimsapi calls `on_request(RequestRecord)` after each answer, `on_admission(AdmissionRecord)` after each call of a
    provider, `on_run(RunRecord)` when a run has ended, and `on_commit(CommitRecord)` after each transaction of the
    store.
    """
