"""The provider that is used if the configuration is incomplete."""

import logging
from typing import TYPE_CHECKING

from jimsapi import Connection, Identity

if TYPE_CHECKING:
    from jimsapi_oidc import OidcOptions

logger = logging.getLogger("jimsapi.oidc")


class HalfConfigured:
    """Admits no request, so that the API is not public by accident, and logs a warning at the start."""

    name = "oidc"
    challenge = 'Bearer realm="jimsapi"'

    def __init__(self, options: "OidcOptions") -> None:
        missing = [
            f"{flag} ({variable})"
            for value, flag, variable in (
                (options.issuer, "--oidc-issuer", "JIMS_OIDC_ISSUER"),
                (options.audience, "--oidc-audience", "JIMS_OIDC_AUDIENCE"),
            )
            if not value
        ]
        logger.warning(
            "OIDC IS ONLY HALF CONFIGURED AND ADMITS NOBODY: missing %s; set it, or unset every --oidc option",
            " and ".join(missing),
        )

    async def authenticate(self, connection: Connection) -> Identity | None:
        """Return None: the provider recognises no credentials."""
        return None
