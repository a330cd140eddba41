"""Authentication: calls the auth providers in order. Any of them can admit a request, none can veto another."""

import logging
import re
import time
import traceback
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeGuard

from jimsapi.asgi.connection import Connection, Request
from jimsapi.asgi.errors import HTTPError
from jimsapi.asgi.response import JSONResponse, header
from jimsapi.asgi.route import Route
from jimsapi.plugins.compose import Built
from jimsapi.plugins.errors import PluginError
from jimsapi.plugins.protocols import (
    AccessDenied,
    AdmissionRecord,
    AuthProvider,
    AuthUnavailable,
    InvalidCredentials,
)
from jimsapi.runs.admission import PUBLIC, Admission, AdmissionWithHeaders
from jimsapi.runs.errors import ScopeMissing, ServerDraining
from jimsapi.runs.observers import Observers
from jimsapi.runs.plugin_code import PLUGIN_EXITS, own_task_is_cancelled, raised_at
from jimsapi.runs.service import RunService
from jimsapi.threads.identity import Identity

logger = logging.getLogger("jimsapi.auth")

RETRY_AFTER = "5"
"""Seconds after which a client may send a request again that got 503."""

_NOT_IN_A_NAME = re.compile(r"[^a-zA-Z0-9._-]")
"""Characters that the name of a component of an OpenAPI document cannot have (OpenAPI 3.1, section 4.8.7)."""

_REQUIRED_OF_SCHEMES = {"http": ("scheme",), "apiKey": ("name", "in")}
"""The fields that the page `/docs` reads, by the type of a Security Scheme Object."""

LOG_EVERY = 10.0
"""Seconds between two log lines about one provider. During an outage every request would log one."""


class Gate:
    """Authenticates each request of a private route, before its body is read.

    The `on_admission` observers receive the outcome of each provider. Without a provider every request is admitted.
    """

    def __init__(
        self, providers: Sequence[Built], service: RunService, on_admission: Observers[AdmissionRecord]
    ) -> None:
        self._providers = [_Provider(built) for built in providers]
        self._notes = {provider.name: provider.notes for provider in self._providers}
        self._oauth_challenge = _oauth_challenge(providers)
        self._service = service
        self._on_admission = on_admission

    async def __call__(self, request: Request, route: Route) -> Admission:
        """Return the caller's admission.

        Raises `HTTPError` (400, 401, 403 or 503), `ScopeMissing`, or `ServerDraining` during a shutdown.
        """
        if self._service.draining:
            raise ServerDraining
        admission = await self.admit(request) if self._providers else PUBLIC
        if route.scope is not None and not admission.identity.may(route.scope):
            raise ScopeMissing(route.scope)
        if admission.provider is not None:
            request.note_all(self._notes[admission.provider])
        return admission

    async def admit(self, request: Connection) -> Admission:
        """Return the admission by the first provider that admits. Raises `HTTPError` (400, 401, 403, 503) otherwise."""
        headers = request.scope["headers"]
        # Most requests repeat no field, which a dict shows at a third of the cost of counting.
        if len(dict(headers)) < len(headers) and [name for name, _ in headers].count(b"authorization") > 1:
            challenges = self._challenges(request, set(), 'error="invalid_request"')
            raise HTTPError(400, "Send one Authorization header", challenges)
        invalid: set[str] = set()
        denied = unavailable = False
        scopes: tuple[str, ...] = ()  # those that a denied token must have
        for provider in self._providers:
            try:
                identity: object = await provider.implementation.authenticate(request)
            except InvalidCredentials as error:
                invalid.add(provider.name)
                outcome = "invalid"
                logger.debug("auth provider %s rejected credentials: %s", provider.name, _reason(error, request))
            except AccessDenied as error:
                denied = True
                scopes += error.scopes
                outcome = "denied"
                logger.debug("auth provider %s denied access: %s", provider.name, _reason(error, request))
            except AuthUnavailable as error:
                unavailable = True
                outcome = "unavailable"
                provider.log_fault(logging.WARNING, f"is unavailable: {_reason(error, request)}")
            except (Exception, *PLUGIN_EXITS) as error:
                if own_task_is_cancelled():
                    raise
                unavailable = True
                outcome = "unavailable"
                provider.log_failure(error)
            else:
                if isinstance(identity, Identity):
                    if self._on_admission.calls:
                        self._on_admission.notify(provider.admitted)
                    return provider.admission(identity)
                outcome = "passed"
                if identity is not None:
                    unavailable = True
                    outcome = "unavailable"
                    provider.log_fault(logging.ERROR, f"returned {type(identity).__name__} instead of Identity")
            self._record(provider, outcome)
        if denied:
            raise HTTPError(403, "Forbidden", _step_up(request, scopes))
        if unavailable:
            raise HTTPError(503, "Authentication is unavailable", {"retry-after": RETRY_AFTER})
        raise HTTPError(401, "Unauthorized", self._challenges(request, invalid, 'error="invalid_token"'))

    def _challenges(self, request: Connection, invalid: set[str], error: str) -> dict[str, str]:
        """The `WWW-Authenticate` header (RFC 9110, 11.6.1). Bearer challenges include the error (RFC 6750, 3.1).

        The challenge that names the authorization servers comes first, since some clients read no other one. It has the
        parameters of the challenges that it replaces.
        """
        resource = request.resource_challenge()
        replaced = self._oauth_challenge if resource is not None else None
        fault = False
        offered: dict[str, None] = {}
        for provider in self._providers:
            if provider.challenge is None:
                continue
            faulty = provider.name in invalid or "invalid_request" in error
            if provider.challenge == replaced:
                fault |= faulty
                continue
            separator = ", " if " " in provider.challenge else " "
            with_error = faulty and _is_bearer(provider.challenge)
            offered[provider.challenge + separator + error if with_error else provider.challenge] = None
        if resource is not None:
            parts = (resource, (replaced or "").partition(" ")[2], error if fault else "")
            offered = {", ".join(filter(None, parts)): None, **offered}
        return {"www-authenticate": ", ".join(offered)} if offered else {}

    def _record(self, provider: "_Provider", outcome: str) -> None:
        if self._on_admission.calls:
            self._on_admission.notify(AdmissionRecord(provider.name, outcome))


class GateWithHeaders(Gate):
    """A gate whose admissions have the headers that resolvers declare. `names` are their names in lower case."""

    def __init__(
        self,
        providers: Sequence[Built],
        service: RunService,
        on_admission: Observers[AdmissionRecord],
        names: Collection[str],
    ) -> None:
        super().__init__(providers, service, on_admission)
        self._names = names

    async def __call__(self, request: Request, route: Route) -> Admission:
        admission = await super().__call__(request, route)
        headers = {name: ", ".join(values) for name in self._names if (values := request.headers.getlist(name))}
        return AdmissionWithHeaders.of(admission, headers)


def security_schemes(providers: Sequence[Built]) -> dict[str, Mapping[str, Any]]:
    """Return how callers send credentials, for the OpenAPI document: a Security Scheme Object for each provider.

    It is the provider's `security_scheme`, or the HTTP scheme of its `challenge`. Providers without both have none.
    Raises `PluginError` for a `security_scheme` that is not such an object, and for a `challenge` that no response can
    carry.
    """
    schemes: dict[str, Mapping[str, Any]] = {}
    for built in providers:
        scheme = getattr(built.value, "security_scheme", None)
        challenge = getattr(built.value, "challenge", None)
        _check_challenge(built, challenge)
        if scheme is None and isinstance(challenge, str) and challenge.strip():
            scheme = {"type": "http", "scheme": challenge.split()[0]}
        if scheme is not None:
            if not _is_security_scheme(scheme):
                fault = "has a security_scheme that is not a Security Scheme Object of OpenAPI"
                raise PluginError(f"{built.entry}: what {built.hook} built {fault}; {built.entry.remedy}")
            schemes[_NOT_IN_A_NAME.sub("_", built.name)] = dict(scheme)
    return schemes


def _check_challenge(built: Built, challenge: object) -> None:
    """Raise `PluginError` if a challenge is neither None nor a value of the header `WWW-Authenticate`."""
    if challenge is None:
        return
    try:
        header("www-authenticate", challenge)  # type: ignore[arg-type] # it raises `TypeError` then
    except (TypeError, ValueError) as error:
        fault = f"has a challenge that no response can carry: {error}"
        raise PluginError(f"{built.entry}: what {built.hook} built {fault} {built.entry.remedy}") from None


def authorization_servers(providers: Sequence[Built]) -> tuple[str, ...]:
    """Return the authorization servers of the providers, each once."""
    return tuple(dict.fromkeys(issuer for one in _of_oauth(providers) for issuer in one.authorization_servers))


def oauth_scopes(providers: Sequence[Built]) -> tuple[str, ...]:
    """Return the scopes that clients request of these servers, each once."""
    return tuple(dict.fromkeys(name for one in _of_oauth(providers) for name in getattr(one, "oauth_scopes", ())))


def _of_oauth(providers: Sequence[Built]) -> list[Any]:
    """Return the providers that have authorization servers."""
    return [built.value for built in providers if getattr(built.value, "authorization_servers", ())]


def _oauth_challenge(providers: Sequence[Built]) -> str | None:
    """The challenge of the first of these providers, if it is one for bearer tokens."""
    challenge = next((getattr(provider, "challenge", None) for provider in _of_oauth(providers)), None)
    return challenge if _is_bearer(challenge) else None


def _step_up(request: Connection, scopes: Sequence[str]) -> dict[str, str]:
    """The header with which OAuth clients request a token with more scopes (RFC 6750, 3.1), if that would help."""
    challenge = request.resource_challenge(scopes, "insufficient_scope") if scopes else None
    return {} if challenge is None else {"www-authenticate": challenge}


def _is_bearer(challenge: object) -> TypeGuard[str]:
    return isinstance(challenge, str) and challenge.lower().startswith("bearer")


def _is_security_scheme(scheme: object) -> bool:
    """Whether `scheme` is JSON, and has the fields without which its type cannot be shown (OpenAPI 3.1, 4.8.27.1)."""
    if not isinstance(scheme, Mapping) or not isinstance(scheme.get("type"), str):
        return False
    required = _REQUIRED_OF_SCHEMES.get(scheme["type"], ())
    try:
        JSONResponse(dict(scheme))
    except TypeError:
        return False
    return all(isinstance(scheme.get(name), str) for name in required)


class _Provider:
    """An auth provider, with the name and version of the distribution that it was installed from."""

    __slots__ = (
        "_admission",
        "_entry",
        "_failed_at",
        "_logged_at",
        "_suppressed",
        "admitted",
        "challenge",
        "implementation",
        "name",
        "notes",
    )

    def __init__(self, built: Built) -> None:
        self.name = built.name
        self.implementation: AuthProvider = _Readmitting(built) if hasattr(built.value, "readmit") else built.value
        challenge = getattr(built.value, "challenge", None)
        self.challenge: str | None = challenge if isinstance(challenge, str) and challenge else None
        self.admitted = AdmissionRecord(self.name, "admitted")
        self._entry = built.entry
        # All admitted requests share this mapping, so that log lines format it only once.
        self.notes = MappingProxyType(
            {"provider": self.name, "distribution": self._entry.distribution, "version": self._entry.version}
        )
        self._admission: Admission | None = None
        self._logged_at = -LOG_EVERY
        self._failed_at: set[str] = set()
        self._suppressed = 0

    def admission(self, identity: Identity) -> Admission:
        """The admission of an identity. Requests in a row with the same identity share one object."""
        last = self._admission
        if last is None or last.identity is not identity:
            last = self._admission = Admission(identity, self.name, self._entry.distribution, self._entry.version)
        return last

    def log_failure(self, error: BaseException) -> None:
        """Log that the provider raised an unexpected error, and at debug level the frames, once for each place.

        The error's text is not logged, since it may quote the credentials.
        """
        place = raised_at(error)
        self.log_fault(logging.ERROR, f"failed with {type(error).__name__}" + (f" at {place}" if place else ""))
        if place not in self._failed_at:
            self._failed_at.add(place)
            frames = [f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in _frames(error)]
            logger.debug("auth provider %s raised %s: %s", self.name, type(error).__name__, " > ".join(frames))

    def log_fault(self, level: int, fault: str) -> None:
        """Log a fault of the provider, at most once in `LOG_EVERY` seconds; count the others."""
        now = time.monotonic()
        if now - self._logged_at < LOG_EVERY:
            self._suppressed += 1
            return
        since = f" ({self._suppressed} more like it since the last such line)" if self._suppressed else ""
        logger.log(level, "auth provider %s %s%s", self.name, fault, since)
        self._logged_at, self._suppressed = now, 0


class _Readmitting:
    """A provider with a method `readmit`, which is called in place of `authenticate` for an open WebSocket.

    It is called only for a caller that this provider admitted. Otherwise, credentials that the provider has rejected
    could become valid because another provider has admitted the caller.
    """

    def __init__(self, built: Built) -> None:
        self._provider: Any = built.value
        self.name = built.name

    async def authenticate(self, connection: Connection) -> Identity | None:
        admission: Admission | None = connection.admission
        if admission is None or admission.provider != self.name:
            identity: Identity | None = await self._provider.authenticate(connection)
        else:
            identity = await self._provider.readmit(connection, admission.identity)
        return identity


def _frames(error: BaseException) -> traceback.StackSummary:
    return traceback.extract_tb(error.__traceback__)


def _reason(error: Exception, request: Connection) -> str:
    """The text of a provider's error, without the credentials, in case the text quotes them."""
    text = str(error)
    for value in request.headers.getlist("authorization"):
        for secret in (value, value.partition(" ")[2].strip()):
            if secret:
                text = text.replace(secret, "…")
    return text
