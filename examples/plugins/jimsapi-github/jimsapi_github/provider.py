"""The provider: it checks the signature over the body.

https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries
"""

import hmac

from jimsapi import Connection, Identity, InvalidCredentials, Secret

from jimsapi_github import SCOPE
from jimsapi_github.body import BODY, SIGNATURE


class GitHubProvider:
    """Admits requests whose header `X-Hub-Signature-256` signs their body.

    The signature covers neither the method nor the path, so somebody who has seen one could send it to another route.
    For this reason the identity has no scope but that of the route for webhooks.
    """

    name = "github"

    def __init__(self, secret: Secret | None) -> None:
        self._secret = secret

    async def authenticate(self, connection: Connection) -> Identity | None:
        """Return GitHub's identity; None without the header. Raises `InvalidCredentials`."""
        sent = connection.headers.getlist(SIGNATURE)
        if not sent:
            return None
        body = connection.scope.get(BODY)  # it is missing at the handshake of a WebSocket
        if self._secret is None or body is None or len(sent) > 1 or not sent[0].isascii():
            raise InvalidCredentials("there is no body to check, or not one signature")
        if not hmac.compare_digest(sent[0], sign(self._secret, body)):
            raise InvalidCredentials("GitHub did not sign this body with this secret")
        return Identity("github", scopes=(SCOPE,))


def sign(secret: Secret, body: bytes) -> str:
    """Return the signature that GitHub sends with a body."""
    return f"sha256={hmac.new(secret.reveal().encode(), body, 'sha256').hexdigest()}"
