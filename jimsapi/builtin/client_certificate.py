"""The auth provider for client certificates (mutual TLS).

The server verifies the certificate. The provider reads the result from the ASGI TLS extension
(https://asgi.readthedocs.io/en/latest/specs/tls.html). If the server does not support the extension, the provider
admits no request.
"""

from pathlib import Path
from typing import ClassVar

from jimsapi.asgi import Connection
from jimsapi.plugins import InvalidCredentials, Options, Settings, hookimpl, option
from jimsapi.runs import CHAT, Identity


class CertificateOptions(Options, prefix="ssl"):
    """Options of client certificates."""

    ca_certs: Path | None = option(
        help="Certificates (PEM) of the authorities that sign callers' certificates; with it every caller needs one."
    )


class ClientCertificate:
    """Admits requests with a verified certificate. Their identity is not bound to a contact and has the scope `chat`.

    The identity's subject is that of the certificate in the format of RFC 4514, for example `CN=shop,O=Example`.
    """

    name = "certificate"
    security_scheme: ClassVar = {"type": "mutualTLS"}

    async def authenticate(self, connection: Connection) -> Identity | None:
        """Return the identity of a verified certificate, or None if the client sent no certificate.

        Raises `InvalidCredentials` if the certificate is not valid or its subject is empty.
        """
        extensions = connection.scope.get("extensions") or {}
        tls = extensions.get("tls") or {}
        error, subject = tls.get("client_cert_error"), tls.get("client_cert_name")
        if error is not None:
            raise InvalidCredentials(f"the client certificate is invalid: {error}")
        if subject is None:
            return None
        if not subject:  # all clients with such a certificate would be the same caller
            raise InvalidCredentials("the client certificate has an empty subject")
        return Identity(subject, scopes=_SCOPES)


_SCOPES = frozenset({CHAT})


@hookimpl
def jimsapi_options() -> type[Options]:
    return CertificateOptions


@hookimpl
def jimsapi_auth_provider(settings: Settings) -> ClientCertificate | None:
    return ClientCertificate() if settings.get(CertificateOptions).ca_certs else None
