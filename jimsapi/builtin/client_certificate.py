"""Auth by client certificates: whom the TLS handshake let in is who its certificate says.

The server verifies the certificate; this looks only at what it tells by the ASGI TLS extension
(https://asgi.readthedocs.io/en/latest/specs/tls.html). Under a server that tells nothing, nobody is admitted.
"""

from pathlib import Path

from jimsapi.asgi.connection import Connection
from jimsapi.plugins.hooks import hookimpl
from jimsapi.plugins.options import Options, Settings, option
from jimsapi.plugins.protocols import InvalidCredentials
from jimsapi.runs.identity import CHAT, Identity


class CertificateOptions(Options, prefix="ssl"):
    """Options of client certificates."""

    ca_certs: Path | None = option(
        help="Certificates (PEM) of the authorities that sign callers' certificates; with it every caller needs one."
    )


class ClientCertificate:
    """Admits holders of a verified certificate, unbound, to chat; who reads all conversations needs a key too.

    The subject is the certificate's, as RFC 4514 writes it, for example `CN=shop,O=Example`.
    """

    name = "certificate"

    async def authenticate(self, connection: Connection) -> Identity | None:
        """Admit a verified certificate; None without one; `InvalidCredentials` for one that names nobody."""
        extensions = connection.scope.get("extensions") or {}
        tls = extensions.get("tls") or {}
        error, subject = tls.get("client_cert_error"), tls.get("client_cert_name")
        if error is not None:
            raise InvalidCredentials(f"the client certificate is not good: {error}")
        if subject is None:
            return None
        if not subject:  # all who have such a certificate would be one caller
            raise InvalidCredentials("the client certificate has an empty subject")
        return Identity(subject, scopes=_SCOPES)


_SCOPES = frozenset({CHAT})


@hookimpl
def jimsapi_options() -> type[Options]:
    return CertificateOptions


@hookimpl
def jimsapi_auth_provider(settings: Settings) -> ClientCertificate | None:
    return ClientCertificate() if settings.get(CertificateOptions).ca_certs else None
