"""The auth provider: it verifies a request's bearer token and returns its identity."""

import logging
import ssl
import time
from collections.abc import Callable
from hashlib import blake2b
from types import TracebackType
from typing import Self

from jimsapi import Connection, Identity
from jimsapi.plugins import StartError
from jimsapi_oidc import OidcOptions
from jimsapi_oidc.issuer import PACE, Issuer, Pace, discovery_url, is_web_address
from jimsapi_oidc.keys import KeySet
from jimsapi_oidc.metrics import Counts
from jimsapi_oidc.refusals import KeysUnavailable, TokenDenied, TokenInvalid
from jimsapi_oidc.tokens import MAX_TOKEN, ClaimRules, Token, read_token, text_claim

logger = logging.getLogger("jimsapi.oidc")

UNBOUND = "none"
"""The value of `--oidc-contact-claim` for identities that are not bound to a contact."""

MAX_CACHED = 4096
"""Verified tokens in the cache."""

CACHED_FOR = 60.0
"""Seconds after which a token is verified again, even if it expires later."""


class OidcProvider:
    """Admits requests with a valid access token of the issuer. The identity is bound to the contact in the token.

    `clock` returns seconds since 1970, for the dates of tokens. `monotonic` returns monotonic seconds, for intervals.

    Raises `StartError` for invalid options.
    """

    name = "oidc"
    challenge = 'Bearer realm="jimsapi"'

    def __init__(
        self,
        options: OidcOptions,
        counts: Counts,
        *,
        pace: Pace = PACE,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        assert options.issuer
        _check_urls(options.issuer, options.jwks_url)
        self._algorithms = frozenset[str](options.algorithms)
        self._contact_claim = options.contact_claim
        self._pass_claims = frozenset(name for text in options.pass_claims for name in text.split())
        # Names of scopes contain no spaces (RFC 6749, 3.3), so one variable can have several.
        scopes = tuple(name for text in options.scopes for name in text.split())
        self.oauth_scopes = tuple(name for text in options.requested_scopes for name in text.split()) or scopes
        self._rules = ClaimRules(
            audiences=frozenset(options.audience),
            scopes=frozenset(scopes),
            requested_scopes=self.oauth_scopes,
            leeway=options.leeway,
        )
        self.authorization_servers = (options.issuer,)
        if options.jwks_url is None:  # otherwise the issuer may have no discovery document
            self.security_scheme = {"type": "openIdConnect", "openIdConnectUrl": discovery_url(options.issuer)}
        self._counts = counts
        self._issuer = Issuer(
            options.issuer,
            options.jwks_url,
            self._algorithms,
            self._counts,
            timeout=options.timeout,
            verify=True if options.ca_file is None else _ssl_context(options.ca_file),
            pace=pace,
            monotonic=monotonic,
        )
        self._clock = clock
        self._cache = TokenCache(monotonic)

    async def __aenter__(self) -> Self:
        await self._issuer.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._issuer.__aexit__(kind, error, traceback)

    async def ping(self) -> None:
        """Raise `KeysUnavailable` if the issuer's keys are not available."""
        await self._issuer.keys_for(None)

    async def authenticate(self, connection: Connection) -> Identity | None:
        """Return the identity of a valid token.

        Return None if there is no bearer token, or if the token is not a JWT or names another issuer.

        Raises `TokenInvalid`, `TokenDenied` (a scope or the contact is missing) or `KeysUnavailable`.
        """
        text = bearer_token(connection)
        if text is None:
            return None
        digest = b""
        if len(text) <= MAX_TOKEN:
            digest = blake2b(text.encode(), digest_size=32).digest()
            identity = self._cache.get(digest, self._issuer.keys, self._clock())
            if identity is not None:
                self._counts.verifications["cached"] += 1
                return identity
        try:
            token = read_token(text, self._issuer.name, self._algorithms)
            if token is None:
                return None
            keys = await self._issuer.keys_for(token.kid)
            keys.verify(token)
            expires = self._rules.check(token.claims, self._clock())
            identity = self._identity(token)
        except (TokenInvalid, TokenDenied, KeysUnavailable) as refusal:
            self._counts.verifications[refusal.reason] += 1
            logger.debug("rejected a token: %s", refusal)
            raise
        self._counts.verifications["verified"] += 1
        self._cache.put(digest, identity, keys, expires)
        return identity

    def _identity(self, token: Token) -> Identity:
        identity = self._bound_identity(token)
        passed = {name: value for name, value in token.claims.items() if name in self._pass_claims}
        return identity.with_claims(passed) if passed else identity

    def _bound_identity(self, token: Token) -> Identity:
        subject = text_claim(token.claims, "sub")
        if self._contact_claim == UNBOUND:
            return Identity(subject, scopes=("chat",))
        if self._contact_claim == "email" and not _is_true(token.claims.get("email_verified")):
            # A user could enter the address of somebody else. If the claim is missing, the address is not verified
            # either: some issuers never verify addresses and never send the claim.
            raise TokenDenied("claims", "the token's email is not verified")
        return Identity(subject, contact_id=text_claim(token.claims, self._contact_claim))


class TokenCache:
    """A cache of the identities of verified tokens, by the hash of the token.

    Verifying a token takes 50 to 400 µs, depending on the algorithm; a look-up takes 3 µs. The cache is cleared when
    the key set changes, so that a key that the issuer revokes also invalidates its tokens.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._keys: KeySet | None = None
        self._entries: dict[bytes, tuple[Identity, float, float]] = {}

    def get(self, digest: bytes, keys: KeySet | None, now: float) -> Identity | None:
        """Return the identity of a cached token that is valid at the time `now`, or None."""
        self._use_keys(keys)
        entry = self._entries.get(digest)
        if entry is None:
            return None
        identity, expires, until = entry
        if now < expires and self._monotonic() < until:
            return identity
        del self._entries[digest]
        return None

    def put(self, digest: bytes, identity: Identity, keys: KeySet, expires: float) -> None:
        """Cache a token that `keys` verified, until it `expires`, but at most `CACHED_FOR` seconds."""
        self._use_keys(keys)
        if len(self._entries) >= MAX_CACHED:
            del self._entries[next(iter(self._entries))]
        self._entries[digest] = identity, expires, self._monotonic() + CACHED_FOR

    def _use_keys(self, keys: KeySet | None) -> None:
        if keys is not self._keys:
            self._entries.clear()
            self._keys = keys


def bearer_token(connection: Connection) -> str | None:
    """Return the token of `Authorization: Bearer …` (RFC 6750, 2.1), or None."""
    authorization = connection.headers.get("authorization")
    if authorization is None:
        return None
    scheme, _, token = authorization.partition(" ")
    return token.strip(" ") if scheme.lower() == "bearer" else None


def _is_true(value: object) -> bool:
    """Whether a claim is true. Some issuers send it as a string."""
    return value is True or value == "true"


def _check_urls(issuer: str, jwks_url: str | None) -> None:
    """Raise `StartError` for invalid URLs. Log a warning if the keys are fetched without TLS."""
    if jwks_url is not None and not is_web_address(jwks_url):
        raise StartError("--oidc-jwks-url is not an http or https URL: correct it, or unset it")
    if jwks_url is None and (not is_web_address(issuer) or "?" in issuer or "#" in issuer):
        raise StartError("--oidc-issuer is not an http or https URL: correct it, or set --oidc-jwks-url")
    if (jwks_url or issuer).startswith("http:"):
        logger.warning(
            "the keys of %s are fetched without TLS, so an attacker on the network can forge tokens; use https", issuer
        )


def _ssl_context(ca_file: object) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(ca_file))
    except OSError as error:  # SSLError is one
        reason = "it contains no certificate" if isinstance(error, ssl.SSLError) else error.strerror
        raise StartError(f"--oidc-ca-file: cannot use {ca_file}: {reason}; give a file of PEM certificates") from None
