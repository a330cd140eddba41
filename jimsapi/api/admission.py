"""Who may enter: the providers are asked in order; any can admit, none can veto."""

import logging
import time
from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import NoReturn

from jimsapi.asgi.connection import Connection, Request
from jimsapi.asgi.errors import HTTPError
from jimsapi.asgi.route import Route
from jimsapi.plugins.compose import Built
from jimsapi.plugins.protocols import (
    AccessDenied,
    AdmissionRecord,
    AuthProvider,
    AuthUnavailable,
    InvalidCredentials,
)
from jimsapi.runs.errors import ServerDraining
from jimsapi.runs.foreign import ENDINGS, being_cancelled
from jimsapi.runs.identity import PUBLIC, Admission, Identity
from jimsapi.runs.observers import notify
from jimsapi.runs.service import RunService

logger = logging.getLogger("jimsapi.auth")

RETRY_AFTER = "5"

COMPLAIN_EVERY = 10.0
"""Seconds between two complaints about one provider: during an outage every stranger's request would bring one."""


class Gate:
    """Asked for every request of a private route, before its body is read.

    `on_admission` are told what each provider said. With no provider everybody enters.
    """

    def __init__(
        self, providers: Sequence[Built], service: RunService, on_admission: Sequence[Callable[[AdmissionRecord], None]]
    ) -> None:
        self._providers = [_Asked(built) for built in providers]
        self._notes = {asked.name: asked.notes for asked in self._providers}
        self._service = service
        self._on_admission = on_admission

    async def __call__(self, request: Request, route: Route) -> Admission:
        """Admit the caller, or raise `HTTPError`: 400, 401, 403 or 503."""
        if self._service.draining:
            raise ServerDraining
        admission = await self.admit(request) if self._providers else PUBLIC
        if not admission.identity.may(route.scope):
            raise HTTPError(403, f"These credentials lack the scope {route.scope}")
        if admission.provider is not None:
            request.note_all(self._notes[admission.provider])
        return admission

    async def admit(self, request: Connection) -> Admission:
        """Ask the providers. Raises `HTTPError` (400, 401, 403, 503) if none admits."""
        if [name for name, _ in request.scope["headers"]].count(b"authorization") > 1:
            challenges = self._challenges(set(), 'error="invalid_request"')
            raise HTTPError(400, "Send one Authorization header", challenges)
        invalid: set[str] = set()
        denied = unavailable = False
        for asked in self._providers:
            try:
                identity: object = await asked.provider.authenticate(request)
            except InvalidCredentials as error:
                invalid.add(asked.name)
                outcome = "invalid"
                logger.debug("auth provider %s refused credentials: %s", asked.name, _reason(error, request))
            except AccessDenied as error:
                denied = True
                outcome = "denied"
                logger.debug("auth provider %s denied access: %s", asked.name, _reason(error, request))
            except AuthUnavailable as error:
                unavailable = True
                outcome = "unavailable"
                asked.complain(logging.WARNING, f"is unavailable: {_reason(error, request)}")
            except (Exception, *ENDINGS) as error:
                if being_cancelled():
                    raise
                unavailable = True
                outcome = "unavailable"
                # Not its text: a provider's own failure may quote the credentials.
                asked.complain(logging.ERROR, f"failed with {type(error).__name__}")
            else:
                if isinstance(identity, Identity):
                    if self._on_admission:
                        notify(self._on_admission, asked.admitted)
                    return asked.admission(identity)
                outcome = "passed"
                if identity is not None:
                    unavailable = True
                    outcome = "unavailable"
                    asked.complain(logging.ERROR, f"returned no Identity but {type(identity).__name__}")
            self._tell(asked, outcome)
        self._refuse(invalid, denied, unavailable)

    def _refuse(self, invalid: set[str], denied: bool, unavailable: bool) -> NoReturn:
        if denied:
            raise HTTPError(403, "Forbidden")
        if unavailable:
            raise HTTPError(503, "Authentication is unavailable", {"retry-after": RETRY_AFTER})
        raise HTTPError(401, "Unauthorized", self._challenges(invalid, 'error="invalid_token"'))

    def _challenges(self, invalid: set[str], error: str) -> dict[str, str]:
        """The `WWW-Authenticate` field (RFC 9110, 11.6.1); bearer schemes say what was wrong (RFC 6750, 3.1)."""
        offered: dict[str, None] = {}
        for asked in self._providers:
            if asked.challenge is None:
                continue
            faulty = asked.name in invalid or "invalid_request" in error
            bearer = asked.challenge.lower().startswith("bearer")
            separator = ", " if " " in asked.challenge else " "
            offered[asked.challenge + separator + error if bearer and faulty else asked.challenge] = None
        return {"www-authenticate": ", ".join(offered)} if offered else {}

    def _tell(self, asked: "_Asked", outcome: str) -> None:
        if self._on_admission:
            notify(self._on_admission, AdmissionRecord(asked.name, outcome))


class _Asked:
    """A provider, and where it comes from: not what it says of itself."""

    __slots__ = (
        "_admission",
        "_complained_at",
        "_entry",
        "_unsaid",
        "admitted",
        "challenge",
        "name",
        "notes",
        "provider",
    )

    def __init__(self, built: Built) -> None:
        self.provider: AuthProvider = built.value
        self.name = built.name
        challenge = getattr(built.value, "challenge", None)
        self.challenge: str | None = challenge if isinstance(challenge, str) and challenge else None
        self.admitted = AdmissionRecord(self.name, "admitted")
        self._entry = built.entry
        # For the log lines of all whom it admits: one mapping, which they then spell once.
        self.notes = MappingProxyType(
            {"provider": self.name, "distribution": self._entry.distribution, "version": self._entry.version}
        )
        self._admission: Admission | None = None
        self._complained_at = -COMPLAIN_EVERY
        self._unsaid = 0

    def admission(self, identity: Identity) -> Admission:
        """The host's record. One identity in a row, as keys have it, needs one record."""
        last = self._admission
        if last is None or last.identity is not identity:
            last = self._admission = Admission(identity, self.name, self._entry.distribution, self._entry.version)
        return last

    def complain(self, level: int, fault: str) -> None:
        """Log what is wrong with the provider, or count it if there was a complaint a moment ago."""
        now = time.monotonic()
        if now - self._complained_at < COMPLAIN_EVERY:
            self._unsaid += 1
            return
        since = f" ({self._unsaid} more like it since the last such line)" if self._unsaid else ""
        logger.log(level, "auth provider %s %s%s", self.name, fault, since)
        self._complained_at, self._unsaid = now, 0


def _reason(error: Exception, request: Connection) -> str:
    """What a provider says of its refusal, without the credentials, should it quote them."""
    text = str(error)
    for value in request.headers.getlist("authorization"):
        for secret in (value, value.partition(" ")[2].strip()):
            if secret:
                text = text.replace(secret, "…")
    return text
