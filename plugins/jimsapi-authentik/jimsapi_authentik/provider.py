"""The provider: asks Authentik about a token, once for all who send it at the same time, and remembers the answer."""

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
"""Seconds that a refusal is kept at most: who was just given access should not wait long."""

MAX_DECISIONS = 10_000
"""Decisions that are kept, admissions and refusals apart: made-up tokens do not push good ones out."""

MAX_KNOWN = 10_000
"""Tokens of which it is kept, by their hash, that they were admitted when they were last checked."""

_ME = "/api/v3/core/users/me/"
_CHAT_ONLY = frozenset({"chat"})


class Authentik:
    """Admits who has a token of Authentik and access to the application `app_slug` there.

    `timeout` is for the whole check, in seconds; an admission holds for `cache_ttl` seconds (0: no cache). `ca_file`
    holds the authorities to trust instead of the system's. With `contact_field`, a field of Authentik's user, an
    identity is bound to the contact of that name; without, it may chat for every contact and see nobody's threads.
    `clock` gives seconds that never go back.

    An async context manager: leaving it closes its connections. Raises `StartError` if the URL, the slug or the file is
    unusable.
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
        self._flights: dict[bytes, asyncio.Task[Decision]] = {}
        self._key = secrets.token_bytes(32)
        self._subject_key = hashlib.blake2b(f"{url}\n{app_slug}".encode(), digest_size=32).digest()
        self.lookups: Counter[str] = Counter()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        if flights:
            await asyncio.wait(flights)
        await self.client.close()

    async def ping(self) -> None:
        """Raises `AuthUnavailable` if Authentik does not answer, or says that it is not ready."""
        await self.client.ping()

    async def authenticate(self, connection: Connection) -> Identity | None:
        """Who holds the request's bearer token; None without one. The same object while a decision holds.

        Raises `InvalidCredentials` for a token that Authentik does not know, `AccessDenied` for one whose holder may
        not use the application, `AuthUnavailable` if that cannot be found out.
        """
        token = bearer_token(connection)
        if token is None:
            return None
        # Not the token itself: what is kept must be of no use to who reads the memory.
        key = hashlib.blake2b(token.encode(), key=self._key, digest_size=32).digest()
        decision = self._admitted.get(key) or self._refused.get(key)
        if decision is not None:
            self.lookups["hit"] += 1
        else:
            decision = await self._fly(key, token)
        return decision.result()

    async def _fly(self, key: bytes, token: str) -> Decision:
        """The decision of the one call that all who wait for this token share."""
        flight = self._flights.get(key)
        if flight is not None:
            self.lookups["shared"] += 1
        else:
            self.lookups["asked"] += 1
            flight = self._flights[key] = asyncio.create_task(self._decide(key, token), name="Authentik check")
            flight.add_done_callback(partial(self._land, key))
        # Not `await flight`: a caller that is cancelled would cancel it for the others.
        await asyncio.wait((flight,))
        if flight.cancelled():
            raise AuthUnavailable("the check was given up, since the server stops")
        return flight.result()

    def _land(self, key: bytes, flight: asyncio.Task[Decision]) -> None:
        del self._flights[key]
        if not flight.cancelled():
            flight.exception()  # taken, lest asyncio complains when every caller has gone

    async def _decide(self, key: bytes, token: str) -> Decision:
        """Ask about a token and keep what holds for longer than this moment."""
        asked_at = self._clock()
        try:
            async with asyncio.timeout(self._timeout):
                identity = await self._ask(token, known=key in self._known)
        except (InvalidCredentials, AccessDenied) as refusal:
            self._known.pop(key, None)
            decision = Decision(refusal=type(refusal), cause=str(refusal))
            self._refused.keep(key, decision, asked_at)
        except AuthUnavailable as refusal:
            decision = Decision(refusal=AuthUnavailable, cause=str(refusal))
        except TimeoutError:
            decision = Decision(refusal=AuthUnavailable, cause=f"Authentik did not answer within {self._timeout:g} s")
        else:
            decision = Decision(identity)
            self._admitted.keep(key, decision, asked_at)
            self._know(key)
        return decision

    def _know(self, key: bytes) -> None:
        self._known.pop(key, None)
        self._known[key] = None
        if len(self._known) > MAX_KNOWN:
            del self._known[next(iter(self._known))]

    async def _ask(self, token: str, *, known: bool) -> Identity:
        """Who holds the token, by Authentik's word. Raises as `authenticate` does."""
        async with self.client.turn(known=known) as turn:
            answer = await self.client.get(self._check_access, token, turn)
            passing = answer.get("passing")
            if passing is False:
                raise AccessDenied("Authentik gives the token's holder no access to the application")
            if passing is not True:
                raise AuthUnavailable("Authentik's answer does not say whether access is given")
            if self._contact_field is None:
                return Identity(self._subject(token), scopes=_CHAT_ONLY)
            contact = _contact(await self.client.get(_ME, token, turn), self._contact_field)
        return Identity(contact, contact_id=contact)

    def _subject(self, token: str) -> str:
        """A name for the holder of a token, whom Authentik does not name: the same after a restart and on every
        replica, and no way back to the token."""
        digest = hashlib.blake2b(token.encode(), key=self._subject_key, digest_size=12).hexdigest()
        return f"token-{digest}"


def _contact(me: dict[str, Any], field: str) -> str:
    """The field of the user that binds. Raises `AccessDenied` if it is missing or empty: who should be bound and is not
    must not act for everybody."""
    user = me.get("user")
    value = user.get(field) if isinstance(user, dict) else None
    if field == "pk" and isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        raise AccessDenied(f"the Authentik user has no {field}, which --authentik-contact-field asks for")
    return value
