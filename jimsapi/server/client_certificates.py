"""TLS with client certificates: passes the client's certificate to the app.

uvicorn does not support the ASGI TLS extension (version 0.2, https://asgi.readthedocs.io/en/latest/specs/tls.html).
This protocol does. The server uses it only if it requires client certificates.
"""

import asyncio
import ssl

from jimsapi.server.distinguished_name import subject_name
from jimsapi.server.http1 import Http1Protocol

Extension = dict[object, object]
"""A value of a scope's `extensions`, as uvicorn types it."""


class ClientCertificateProtocol(Http1Protocol):
    """HTTP/1.1 with the TLS extension in its scopes. The extension is built once for each connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in uvicorn
        super().connection_made(transport)
        connection = transport.get_extra_info("ssl_object")
        if connection is not None:
            self.extensions = {"tls": tls_extension(connection)}


def tls_extension(connection: ssl.SSLObject) -> Extension:
    """Return the extension for a connection after its handshake.

    `server_cert` is None, because Python does not expose the server's own certificate.
    """
    certificate = connection.getpeercert(binary_form=True)
    name = error = None
    if certificate is not None:
        try:
            name = subject_name(certificate)
        except ValueError as fault:
            error = f"the certificate's subject cannot be read: {fault}"
    version, cipher = connection.version(), connection.cipher()
    return {
        "server_cert": None,
        "client_cert_chain": [] if certificate is None else [ssl.DER_cert_to_PEM_cert(certificate)],
        "client_cert_name": name,
        "client_cert_error": error,
        "tls_version": None if version is None else int(ssl.TLSVersion[version.replace(".", "_")]),
        "cipher_suite": None if cipher is None else _iana_number(connection.context, cipher[0]),
    }


def _iana_number(context: ssl.SSLContext, cipher: str) -> int | None:
    """Return the number of a cipher suite in IANA's registry: the lower 16 bits of OpenSSL's number."""
    return next((one["id"] & 0xFFFF for one in context.get_ciphers() if one["name"] == cipher), None)
