"""The provider that is used if the options of Authentik are incomplete."""

from jimsapi import Connection, Identity, InvalidCredentials
from jimsapi_authentik.bearer import CHALLENGE, bearer_token


class HalfConfigured:
    """Rejects every caller. Without it, a server with incomplete options would be public.

    `missing` has the names of the missing options.
    """

    name = "authentik"
    challenge = CHALLENGE

    def __init__(self, missing: str) -> None:
        self._missing = missing

    async def authenticate(self, connection: Connection) -> Identity | None:
        """Return None without a bearer token. Raises `InvalidCredentials` for any token."""
        if bearer_token(connection) is None:
            return None
        raise InvalidCredentials(f"tokens cannot be checked without {self._missing}")
