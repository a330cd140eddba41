"""The auth provider. It checks tokens with Authentik and caches the decisions. Concurrent requests with the same
token share one check."""

import asyncio
import hashlib
import secrets
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Self

from jimsapi import AccessDenied, AuthUnavailable, Connection, Identity, InvalidCredentials
from jimsapi_authentik.bearer import CHALLENGE, bearer_token
from jimsapi_authentik.client import AuthentikClient, application_path
from jimsapi_authentik.decisions import Decision, Decisions

REFUSED_TTL = 5.0
"""Maximum number of seconds for which a refusal is cached: a user who gets access should not wait long."""

MAX_DECISIONS = 10_000
"""Cached decisions. Admissions and refusals have separate caches, so that invalid tokens do not displace valid ones."""

MAX_KNOWN = 10_000
"""Hashes of tokens that were admitted when they were last checked."""

_ME = "/api/v3/core/users/me/"
_CHAT_ONLY = frozenset({"chat"})


class Authentik:
    """Admits tokens of Authentik whose user has access to the application `app_slug`.

    `timeout` is the time for the whole check, in seconds. An admission is cached for `cache_ttl` seconds; 0 means no
    cache. `ca_file` has the certificate authorities to trust in place of the system's. If `contact_field` is set, the
    identity is bound to the contact in that field of the Authentik user. Without it, the identity may chat for every
    contact and has no access to threads. `clock` returns monotonic seconds.

    It is an async context manager; exiting it closes its connections.

    Raises `StartError` if the URL, the slug or the file is invalid.
    """

    name = "authentik"
    challenge = CHALLENGE

    def __init__(
        self,
        url: str,
        app_slug: str,
        *,
        timeout: float,
        cache_ttl: float,
        ca_file: Path | None = None,
        contact_field: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._check_access = application_path(app_slug)
        self.client = AuthentikClient(url, timeout=timeout, ca_file=ca_file, clock=clock)
        self._timeout = timeout
        self._contact_field = contact_field
        self._clock = clock
        self._admitted = Decisions(cache_ttl, MAX_DECISIONS, clock)
        self._refused = Decisions(min(cache_ttl, REFUSED_TTL), MAX_DECISIONS, clock)
        self._known: dict[bytes, None] = {}
        self._checks: dict[bytes, asyncio.Task[Decision]] = {}
        self._key = secrets.token_bytes(32)
        self._subject_key = hashlib.blake2b(f"{url}\n{app_slug}".encode(), digest_size=32).digest()
        self.lookups: Counter[str] = Counter()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        checks = list(self._checks.values())
        for check in checks:
            check.cancel()
        if checks:
            await asyncio.wait(checks)
        await self.client.close()

    async def ping(self) -> None:
        """Raise `AuthUnavailable` if Authentik does not answer, or is not ready."""
        await self.client.ping()

    async def authenticate(self, connection: Connection) -> Identity | None:
        """Return the identity for the request's bearer token, or None if there is no token.

        While a decision is cached, it returns the same `Identity` object.

        Raises `InvalidCredentials` if Authentik rejects the token, `AccessDenied` if its user may not use the
        application, and `AuthUnavailable` if the token cannot be checked.
        """
        token = bearer_token(connection)
        if token is None:
            return None
        # The cache stores hashes, because a token that leaks from the process's memory could be used.
        key = hashlib.blake2b(token.encode(), key=self._key, digest_size=32).digest()
        decision = self._admitted.get(key) or self._refused.get(key)
        if decision is not None:
            self.lookups["hit"] += 1
        else:
            decision = await self._shared_check(key, token)
        return decision.result()

    async def _shared_check(self, key: bytes, token: str) -> Decision:
        """The decision about a token, by one check that all waiting requests share."""
        check = self._checks.get(key)
        if check is not None:
            self.lookups["shared"] += 1
        else:
            self.lookups["asked"] += 1
            check = self._checks[key] = asyncio.create_task(self._decide(key, token), name="Authentik check")
            check.add_done_callback(partial(self._end_check, key))
        # With `await check`, a cancelled request would cancel the check for the others.
        await asyncio.wait((check,))
        if check.cancelled():
            raise AuthUnavailable("the check was cancelled, because the server stops")
        return check.result()

    def _end_check(self, key: bytes, check: asyncio.Task[Decision]) -> None:
        del self._checks[key]
        if not check.cancelled():
            check.exception()  # retrieve it: asyncio would log it if all requests have been cancelled

    async def _decide(self, key: bytes, token: str) -> Decision:
        """Check a token, and cache the decision unless Authentik was unavailable."""
        began_at = self._clock()
        try:
            async with asyncio.timeout(self._timeout):
                identity = await self._request_identity(token, known=key in self._known)
        except (InvalidCredentials, AccessDenied) as refusal:
            self._known.pop(key, None)
            decision = Decision(refusal=type(refusal), cause=str(refusal))
            self._refused.store(key, decision, began_at)
        except AuthUnavailable as refusal:
            decision = Decision(refusal=AuthUnavailable, cause=str(refusal))
        except TimeoutError:
            decision = Decision(refusal=AuthUnavailable, cause=f"Authentik did not answer within {self._timeout:g} s")
        else:
            decision = Decision(identity)
            self._admitted.store(key, decision, began_at)
            self._remember_admitted(key)
        return decision

    def _remember_admitted(self, key: bytes) -> None:
        self._known.pop(key, None)
        self._known[key] = None
        if len(self._known) > MAX_KNOWN:
            del self._known[next(iter(self._known))]

    async def _request_identity(self, token: str, *, known: bool) -> Identity:
        """Request the identity of a token from Authentik. Raises as `authenticate` does."""
        async with self.client.turn(known=known) as turn:
            answer = await self.client.get(self._check_access, token, turn)
            passing = answer.get("passing")
            if passing is False:
                raise AccessDenied("the user of the token has no access to the Authentik application")
            if passing is not True:
                raise AuthUnavailable("Authentik's answer has no boolean 'passing'")
            if self._contact_field is None:
                return Identity(self._subject(token), scopes=_CHAT_ONLY)
            contact = _contact(await self.client.get(_ME, token, turn), self._contact_field)
        return Identity(contact, contact_id=contact)

    def _subject(self, token: str) -> str:
        """The identity's subject for a token whose user is not known. It is the same after a restart and on every
        replica, and the token cannot be computed from it."""
        digest = hashlib.blake2b(token.encode(), key=self._subject_key, digest_size=12).hexdigest()
        return f"token-{digest}"


def _contact(me: dict[str, Any], field: str) -> str:
    """The user's contact, from a field. Raises `AccessDenied` if the field is missing or empty: without a contact, the
    identity would not be bound, and could act for every contact."""
    user = me.get("user")
    value = user.get(field) if isinstance(user, dict) else None
    if field == "pk" and isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        raise AccessDenied(f"the Authentik user has no {field}, which --authentik-contact-field requires")
    return value
