"""The bearer token of a request (RFC 6750, section 2.1)."""

import re

from jimsapi import Connection, InvalidCredentials

CHALLENGE = 'Bearer realm="jimsapi"'
"""The challenge of a 401: the same as for keys, so that the answer has it only once."""

MAX_TOKEN = 8192
"""Characters. Longer tokens are rejected: Authentik's server does not accept a longer header."""

_B64TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")


def bearer_token(connection: Connection) -> str | None:
    """Return the token, or None if there is no `Authorization` header or it has another scheme.

    Raises `InvalidCredentials` if the token is empty, too long or not a `b64token`. Such a token must not be sent to
    Authentik: it treats an empty token as an anonymous user, who may have access.
    """
    authorization = connection.headers.get("authorization")
    if authorization is None:
        return None
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer":
        return None
    token = token.strip(" ")
    if len(token) > MAX_TOKEN or _B64TOKEN.fullmatch(token) is None:
        raise InvalidCredentials("the bearer token is empty, too long, or contains an invalid character")
    return token
