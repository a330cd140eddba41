"""The bearer token of a request (RFC 6750, section 2.1)."""

import re

from jimsapi import Connection, InvalidCredentials

CHALLENGE = 'Bearer realm="jimsapi"'
"""What a 401 offers: the same as for keys, so that it offers it once."""

MAX_TOKEN = 8192
"""Characters of the longest token that is sent on: Authentik's own server takes no longer header."""

_B64TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")


def bearer_token(connection: Connection) -> str | None:
    """The token; None without an `Authorization` header, or with one of another scheme.

    Raises `InvalidCredentials` for a token that is empty, no `b64token` or too long. Authentik must never see such a
    one: it takes an empty token for an anonymous visitor, whom it may let in.
    """
    authorization = connection.headers.get("authorization")
    if authorization is None:
        return None
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer":
        return None
    token = token.strip(" ")
    if len(token) > MAX_TOKEN or _B64TOKEN.fullmatch(token) is None:
        raise InvalidCredentials("the bearer token is empty, too long, or has characters that no token has")
    return token
