"""Parses tokens and checks their claims by RFC 7519, RFC 8725 and RFC 9068. It uses no keys and no network.

A token is parsed only once, so that no second parser can read it differently from what was checked.
"""

import json
import math
import re
from base64 import urlsafe_b64decode
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, NoReturn

from jimsapi_oidc.refusals import TokenDenied, TokenInvalid

MAX_TOKEN = 16_384
"""Characters. A longer token is rejected without parsing."""

MAX_DEPTH = 32
"""Levels of JSON. Claims and keys have four or five."""

# A JWS in compact form (RFC 7515, 7.1). The signature may be empty, as with `alg: none`, which is rejected later.
_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")

# The possible last characters of base64url whose last group has 2 or 3 characters: its last 4 or 2 bits must be 0.
_LAST_CHARACTERS = {2: "AQgw", 3: "AEIMQUYcgkosw048"}

# Types of an access token: before RFC 9068, by RFC 9068 (section 2.1), and the long form of both.
_TYPES = frozenset({"jwt", "application/jwt", "at+jwt", "application/at+jwt"})

# Only an ID token can have the hash of an access token or of a code (OpenID Connect Core, 3.1.3.6 and 3.3.2.11).
_HASHES = frozenset({"at_hash", "c_hash"})

# Keycloak writes the kind of a token into its claim `typ`.
_OTHER_USES = frozenset({"ID", "Refresh", "Offline", "Logout"})
_ACCESS_USES = frozenset({"Bearer", "DPoP"})


@dataclass(frozen=True, slots=True)
class Token:
    """A parsed token. Its content must not be trusted before the signature is verified."""

    algorithm: str
    kid: str | None
    claims: dict[str, Any]
    signed: bytes
    signature: bytes


def read_token(text: str, issuer: str, algorithms: frozenset[str]) -> Token | None:
    """Parse a bearer token. `algorithms` are the allowed signature algorithms.

    Returns None if it is not a token of `issuer`: it is not a JWT, or names another issuer.

    Raises `TokenInvalid` if it is too long, malformed, or has a header that is not accepted.
    """
    if len(text) > MAX_TOKEN:
        raise TokenInvalid("malformed", f"the token is longer than {MAX_TOKEN} characters")
    if not _COMPACT.fullmatch(text):
        return None
    signed, _, signature = text.rpartition(".")
    head, _, body = signed.partition(".")
    header, claims = _object(head, "header"), _object(body, "payload")
    # The claim is not verified yet. It is used only to leave tokens of other issuers to other providers.
    if claims.get("iss") != issuer:
        return None
    algorithm, kid = _check_header(header, algorithms)
    return Token(algorithm, kid, claims, signed.encode(), _bytes(signature, "signature"))


def read_json(data: bytes) -> dict[str, Any]:
    """Parse a JSON object in UTF-8. Raises `ValueError` for duplicate names, and for more than `MAX_DEPTH` levels."""
    try:
        value = json.loads(data.decode(), object_pairs_hook=_unique, parse_constant=_no_number)
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("is not a JSON object")
    if _is_deep(value):
        raise ValueError("is nested too deeply")
    return value


def _is_deep(value: dict[str, Any]) -> bool:
    """Whether JSON has more than `MAX_DEPTH` levels. The parser's own limit depends on Python's version."""
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        children = (child for parent in level for child in (parent.values() if isinstance(parent, dict) else parent))
        level = [child for child in children if isinstance(child, dict | list)]
        if not level:
            return False
    return True


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Reject duplicate claims: a parser may use the last one (RFC 7519, 4), and another parser the first one."""
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("has a duplicate name")
    return members


def _no_number(text: str) -> NoReturn:
    raise ValueError("contains a number that is not JSON")


def _object(part: str, name: str) -> dict[str, Any]:
    try:
        return read_json(_bytes(part, name))
    except ValueError:
        # Do not use the parser's text, which may quote the token.
        raise TokenInvalid("malformed", f"the token's {name} is not a JSON object with unique names") from None


def _bytes(part: str, name: str) -> bytes:
    """Decode base64url in its canonical form only: unused bits must be 0 (RFC 4648, 3.5)."""
    remainder = len(part) % 4
    if remainder == 1 or (remainder and part[-1] not in _LAST_CHARACTERS[remainder]):
        raise TokenInvalid("malformed", f"the token's {name} is not base64url")
    return urlsafe_b64decode(part + "=" * (-remainder % 4))


def _check_header(header: dict[str, Any], algorithms: frozenset[str]) -> tuple[str, str | None]:
    """The algorithm and the key's id. Keys and URLs in the header (`jwk`, `jku`, `x5u`, `x5c`) are ignored.

    Raises `TokenInvalid` if the header has an extension, another type of token, or an algorithm that is not allowed.
    """
    if "crit" in header or "b64" in header:  # no extension is supported (RFC 7515, 4.1.11)
        raise TokenInvalid("header", "the token's header requires an extension")
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise TokenInvalid("header", "the token's typ is not that of an access token")
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in algorithms:
        raise TokenInvalid("header", "the token's algorithm is not among --oidc-algorithms")
    if not isinstance(kid, str | None):
        raise TokenInvalid("header", "the token's kid is not a string")
    return algorithm, kid


@dataclass(frozen=True, slots=True)
class ClaimRules:
    """The rules for the claims of a verified token.

    The token must have one of `audiences` and all of `scopes`. Clients get them by requesting `requested_scopes`.
    `leeway` is the allowed clock difference in seconds.
    """

    audiences: frozenset[str]
    scopes: frozenset[str]
    requested_scopes: tuple[str, ...]
    leeway: float

    def check(self, claims: dict[str, Any], now: float) -> float:
        """Check verified claims at the time `now`, in seconds since 1970. Returns when they expire, leeway included.

        Raises `TokenInvalid`, or `TokenDenied` if a scope is missing.
        """
        expires = _date(claims, "exp")
        if expires is None:
            raise TokenInvalid("claims", "the token has no exp: it would never expire")
        if expires + self.leeway <= now:
            raise TokenInvalid("time", "the token has expired")
        for name, fault in (("nbf", "is not valid yet"), ("iat", "was issued in the future")):
            date = _date(claims, name)
            if date is not None and date - self.leeway > now:
                raise TokenInvalid("time", f"the token {fault}")
        if not self.audiences.intersection(_texts(claims, "aud")):
            raise TokenInvalid("audience", "the token is for another audience than --oidc-audience")
        if _is_of_other_use(claims):
            raise TokenInvalid("claims", "the token is an ID or refresh token; send the access token")
        if not self.scopes <= _scopes(claims):
            raise TokenDenied("scopes", "the token lacks a scope of --oidc-scopes", self.requested_scopes)
        return expires + self.leeway


def _is_of_other_use(claims: dict[str, Any]) -> bool:
    """Whether a token is recognisable as an ID token or a refresh token.

    A `nonce` comes from a login (OpenID Connect Core, section 2), so it also shows an ID token. Keycloak before version
    25 copied it into access tokens, so the `typ` of Keycloak has precedence.
    """
    use = str(claims.get("typ"))
    if _HASHES & claims.keys() or use in _OTHER_USES:
        return True
    return "nonce" in claims and use not in _ACCESS_USES


def text_claim(claims: dict[str, Any], name: str) -> str:
    """Return a claim that identifies the caller. Raises `TokenDenied` if it is missing, empty or not a string."""
    value = claims.get(name)
    if not isinstance(value, str) or not value.strip():
        raise TokenDenied("claims", f"the token's claim {name} is missing, empty or not a string")
    if not _is_storable(value):
        raise TokenDenied("claims", f"the token's claim {name} is not a valid contact_id")
    return value


def _is_storable(text: str) -> bool:
    """The rules for the `contact_id` of a body: no NUL, no lone surrogate, at most 2,000 bytes."""
    try:
        return "\0" not in text and len(text.encode()) <= 2000
    except UnicodeEncodeError:
        return False


def _date(claims: dict[str, Any], name: str) -> float | None:
    """A NumericDate (RFC 7519, section 2), or None if the claim is missing. Raises `TokenInvalid`."""
    value = claims.get(name)
    if value is None and name not in claims:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TokenInvalid("claims", f"the token's {name} is not a date")
    try:
        date = float(value)
    except OverflowError:
        date = math.inf
    if not math.isfinite(date):
        raise TokenInvalid("claims", f"the token's {name} is not a date")
    return date


def _texts(claims: dict[str, Any], name: str) -> Collection[str]:
    value = claims.get(name)
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    raise TokenInvalid("claims", f"the token's {name} is neither a string nor a list of strings")


def _scopes(claims: dict[str, Any]) -> set[str]:
    """The scopes of a token, from `scope` (RFC 8693, 4.2: names separated by spaces) and from `scp`, as some issuers
    name it."""
    scopes: set[str] = set()
    for name in ("scope", "scp"):
        if name in claims:
            for text in _texts(claims, name):
                scopes.update(text.split())
    return scopes
