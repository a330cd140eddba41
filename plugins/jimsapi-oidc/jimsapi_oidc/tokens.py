"""Reading a token and holding it to the rules of RFC 7519, RFC 8725 and RFC 9068. No keys and no network here.

A token is taken apart once, here: no second parser could see something else in it than what was checked.
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
"""Characters that a token may have; a longer one is refused unread."""

MAX_DEPTH = 32
"""Levels of JSON that are accepted; claims and keys have four or five."""

# A JWS in compact form (RFC 7515, 7.1). The signature may be empty, as that of `alg: none` is: it is ours to refuse.
_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")

# What a part may end with whose last group has 2 or 3 characters: 4 or 2 bits of the last one say nothing then.
_LAST = {2: "AQgw", 3: "AEIMQUYcgkosw048"}

# Types of an access token: what issuers before RFC 9068 say, what it says (section 2.1), and the long form of both.
_TYPES = frozenset({"jwt", "application/jwt", "at+jwt", "application/at+jwt"})

# Only an ID token can hold the hash of an access token or of a code (OpenID Connect Core, 3.1.3.6 and 3.3.2.11).
_HASHES = frozenset({"at_hash", "c_hash"})

# Keycloak writes into every token what it is.
_OTHER_USES = frozenset({"ID", "Refresh", "Offline", "Logout"})
_ACCESS_USES = frozenset({"Bearer", "DPoP"})


@dataclass(frozen=True, slots=True)
class Token:
    """A token that was taken apart. Nothing in it is to be believed before its signature was verified."""

    algorithm: str
    kid: str | None
    claims: dict[str, Any]
    signed: bytes
    signature: bytes


def read_token(text: str, issuer: str, algorithms: frozenset[str]) -> Token | None:
    """Take a bearer token apart; `algorithms` are those that its signature may be of.

    Returns None if it is none of `issuer`'s: no JWT, or one that names another issuer.
    Raises `TokenInvalid` if it is too long, or no token that this API could accept.
    """
    if len(text) > MAX_TOKEN:
        raise TokenInvalid("malformed", f"the token is longer than {MAX_TOKEN} characters")
    if not _COMPACT.fullmatch(text):
        return None
    signed, _, signature = text.rpartition(".")
    head, _, body = signed.partition(".")
    header, claims = _object(head, "header"), _object(body, "payload")
    # Unverified, and good for nothing but this: another provider's token must not be called a bad one of ours.
    if claims.get("iss") != issuer:
        return None
    algorithm, kid = _checked(header, algorithms)
    return Token(algorithm, kid, claims, signed.encode(), _bytes(signature, "signature"))


def read_json(data: bytes) -> dict[str, Any]:
    """A JSON object in UTF-8 in which every name occurs once, of at most `MAX_DEPTH` levels. Raises `ValueError`."""
    try:
        value = json.loads(data.decode(), object_pairs_hook=_unique, parse_constant=_no_number)
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("is no JSON object")
    if _is_deep(value):
        raise ValueError("is nested too deeply")
    return value


def _is_deep(value: dict[str, Any]) -> bool:
    """Whether JSON has more than `MAX_DEPTH` levels: how many the parser itself takes depends on Python's version."""
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        inner = (each for one in level for each in (one.values() if isinstance(one, dict) else one))
        level = [each for each in inner if isinstance(each, dict | list)]
        if not level:
            return False
    return True


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of two claims with one name a parser may take the last (RFC 7519, 4). Who takes the first sees another token."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("names a member twice")
    return found


def _no_number(text: str) -> NoReturn:
    raise ValueError("holds a number that JSON has not")


def _object(part: str, name: str) -> dict[str, Any]:
    try:
        return read_json(_bytes(part, name))
    except ValueError:
        # Not the parser's text, which may quote the token.
        raise TokenInvalid("malformed", f"the token's {name} is no JSON object with unique names") from None


def _bytes(part: str, name: str) -> bytes:
    """Decode base64url in the one spelling that it has: bits that say nothing must be 0 (RFC 4648, 3.5)."""
    over = len(part) % 4
    if over == 1 or (over and part[-1] not in _LAST[over]):
        raise TokenInvalid("malformed", f"the token's {name} is not base64url")
    return urlsafe_b64decode(part + "=" * (-over % 4))


def _checked(header: dict[str, Any], algorithms: frozenset[str]) -> tuple[str, str | None]:
    """The algorithm and the key's id. Keys and addresses in a header (`jwk`, `jku`, `x5u`, `x5c`) are never looked at.

    Raises `TokenInvalid` for a header that would change how the token is to be read, or whose signature is not allowed.
    """
    if "crit" in header or "b64" in header:  # no extension is understood (RFC 7515, 4.1.11)
        raise TokenInvalid("header", "the token's header demands an extension")
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise TokenInvalid("header", "the token's typ is not that of an access token")
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in algorithms:
        raise TokenInvalid("header", "the token's algorithm is not among --oidc-algorithms")
    if not isinstance(kid, str | None):
        raise TokenInvalid("header", "the token's kid is no text")
    return algorithm, kid


@dataclass(frozen=True, slots=True)
class ClaimRules:
    """What a genuine token must say. `audiences`: one of them is needed; `scopes`: all are; `leeway` is in seconds."""

    audiences: frozenset[str]
    scopes: frozenset[str]
    leeway: float

    def check(self, claims: dict[str, Any], now: float) -> float:
        """Hold verified claims to the rules at the time `now`, and say when they expire, leeway included.

        Raises `TokenInvalid`, or `TokenDenied` if a scope is missing.
        """
        expires = _date(claims, "exp")
        if expires is None:
            raise TokenInvalid("claims", "the token has no exp: it would be valid for ever")
        if expires + self.leeway <= now:
            raise TokenInvalid("time", "the token has expired")
        for name, fault in (("nbf", "is not valid yet"), ("iat", "was issued in the future")):
            date = _date(claims, name)
            if date is not None and date - self.leeway > now:
                raise TokenInvalid("time", f"the token {fault}")
        if not self.audiences.intersection(_texts(claims, "aud")):
            raise TokenInvalid("audience", "the token is for another audience than --oidc-audience")
        if _is_of_other_use(claims):
            raise TokenInvalid("claims", "it is an ID or refresh token; send the access token")
        if not self.scopes <= _scopes(claims):
            raise TokenDenied("scopes", "the token lacks a scope of --oidc-scopes")
        return expires + self.leeway


def _is_of_other_use(claims: dict[str, Any]) -> bool:
    """Whether a token is an ID token or a refresh token, as far as that can be told.

    A `nonce` answers to the one of a login (OpenID Connect Core, section 2), so that it tells an ID token too; except
    where Keycloak says what it is, which before version 25 copied it into access tokens.
    """
    use = str(claims.get("typ"))
    if _HASHES & claims.keys() or use in _OTHER_USES:
        return True
    return "nonce" in claims and use not in _ACCESS_USES


def text_claim(claims: dict[str, Any], name: str) -> str:
    """A claim that says who the caller is. Raises `TokenDenied` if it is missing, empty or no text."""
    value = claims.get(name)
    if not isinstance(value, str) or not value.strip():
        raise TokenDenied("claims", f"the token's claim {name} is missing, empty or no text")
    if not _is_storable(value):
        raise TokenDenied("claims", f"the token's claim {name} holds what no contact_id may hold")
    return value


def _is_storable(text: str) -> bool:
    """As for the `contact_id` of a body: no NUL, no lone surrogate, at most 2,000 bytes."""
    try:
        return "\0" not in text and len(text.encode()) <= 2000
    except UnicodeEncodeError:
        return False


def _date(claims: dict[str, Any], name: str) -> float | None:
    """A NumericDate (RFC 7519, section 2), or None without one. Raises `TokenInvalid`."""
    value = claims.get(name)
    if value is None and name not in claims:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TokenInvalid("claims", f"the token's {name} is no date")
    try:
        date = float(value)
    except OverflowError:
        date = math.inf
    if not math.isfinite(date):
        raise TokenInvalid("claims", f"the token's {name} is no date")
    return date


def _texts(claims: dict[str, Any], name: str) -> Collection[str]:
    value = claims.get(name)
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    raise TokenInvalid("claims", f"the token's {name} is neither text nor a list of texts")


def _scopes(claims: dict[str, Any]) -> set[str]:
    """What the token allows: `scope` (RFC 8693, 4.2: names with spaces between), or `scp` where an issuer has that."""
    found: set[str] = set()
    for name in ("scope", "scp"):
        if name in claims:
            for text in _texts(claims, name):
                found.update(text.split())
    return found
