"""What stands in for Authentik when only half of its options are given."""

from jimsapi import Connection, Identity, InvalidCredentials
from jimsapi_authentik.bearer import CHALLENGE, bearer_token


class HalfConfigured:
    """Admits nobody: a server whose operator began to configure a lock must not stand open.

    `missing` names the options that are missing.
    """

    name = "authentik"
    challenge = CHALLENGE

    def __init__(self, missing: str) -> None:
        self._missing = missing

    async def authenticate(self, connection: Connection) -> Identity | None:
        """None without a bearer token; `InvalidCredentials` with any."""
        if bearer_token(connection) is None:
            return None
        raise InvalidCredentials(f"no token can be checked: {self._missing} missing")
