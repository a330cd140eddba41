"""uvicorn's configuration: the protocol, proxies and TLS. The TLS files are checked before they are used."""

import logging
import ssl
import stat
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from jimsapi.asgi.app import App
from jimsapi.builtin.client_certificate import CertificateOptions
from jimsapi.cli.options import ServerOptions
from jimsapi.plugins.errors import StartError
from jimsapi.server.borrowed import Config, WebSocketsBroken, has_websockets, websocket_class, websocket_protocol
from jimsapi.server.http1 import Http1Protocol
from jimsapi.server.server import Server

logger = logging.getLogger("jimsapi")

HALF_SENT_WITHIN = 1
"""Seconds that the server waits, after the drain, for requests whose body has not arrived completely."""


def server_config(server: ServerOptions, certificates: CertificateOptions, max_body: int, app: Any) -> Config:
    """Return uvicorn's configuration. Raises `StartError` as `check_tls_files` does."""
    check_tls_files(server, certificates)
    protocol = Http1Protocol
    protocol_settings: dict[str, Any] = {}
    if certificates.ca_certs is not None:
        from jimsapi.server.client_certificates import ClientCertificateProtocol

        protocol = ClientCertificateProtocol
        protocol_settings = {
            "ssl_ca_certs": certificates.ca_certs,
            "ssl_cert_reqs": ssl.CERT_REQUIRED,
        }
    on_refusal = app.observe if isinstance(app, App) else None
    # uvicorn's types are classes, but any callable that creates a protocol works.
    protocol_settings["http"] = partial(protocol, on_refusal=on_refusal, root_path_kept=server.root_path_kept)
    protocol_settings["ws"] = websocket_protocol if has_websockets() else "none"
    return Config(
        app,
        interface="asgi3",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=server.forwarded_allow_ips is not None,
        forwarded_allow_ips=server.forwarded_allow_ips,
        root_path=_root_path(server),
        ssl_certfile=server.ssl_certfile,
        ssl_keyfile=server.ssl_keyfile,
        reload=server.reload,
        timeout_graceful_shutdown=HALF_SENT_WITHIN,
        ws_max_size=max_body,
        ws_per_message_deflate=False,  # it would double the memory of a WebSocket, and the frames are short
        **protocol_settings,
    )


def loaded_config(config: Config) -> Config:
    """Load the configuration and return it. Raises `StartError` if the certificate or its key cannot be used."""
    try:
        config.load()
    except (OSError, ValueError) as error:
        raise StartError(f"the certificate or its key cannot be used: {error}") from error
    return config


def reread_certificates(options: ServerOptions, certificates: CertificateOptions, server: Server) -> None:
    """Let new connections use the TLS files as they now are. Logs an error if they cannot be used, and changes nothing.

    Call it for SIGHUP, in any thread.
    """
    if options.ssl_certfile is None:
        logger.info(
            "SIGHUP: there is nothing to read again, since the server has no certificate (--ssl-certfile); it reads "
            "keys files again by itself when they change"
        )
        return
    try:
        check_tls_files(options, certificates)
        server.reread_certificates()
    except (StartError, OSError, ValueError) as error:
        logger.error(
            "SIGHUP: the certificate, its key or --ssl-ca-certs cannot be used: %s; new connections get the previous "
            "ones: correct the files, and send SIGHUP again",
            error,
        )
    else:
        logger.info("SIGHUP: the certificate was read again from %s, for new connections", options.ssl_certfile)


def warn_of_missing_websockets(config: Config, app: App, *, tries: bool = False) -> None:
    """Log a warning if the app has WebSocket routes and the server cannot serve them. `config` must be loaded.

    `tries`: also import the package, which a server does at the first handshake.
    """
    paths = ", ".join(route.path for route in app.routes if route.websocket)
    if not paths:
        return
    if config.ws_protocol_class is None:
        logger.warning(
            "NO WEBSOCKET IS ACCEPTED on %s, since the package websockets is not installed: "
            "pip install 'jimsapi[websockets]'",
            paths,
        )
    elif tries:
        try:
            websocket_class()
        except WebSocketsBroken as broken:
            logger.warning("NO WEBSOCKET IS ACCEPTED on %s: %s; install the package websockets again", paths, broken)


def check_tls_files(server: ServerOptions, certificates: CertificateOptions) -> None:
    """Raise `StartError` if an option or a file of TLS is missing or unusable. It never asks for a pass phrase."""
    if server.ssl_keyfile is not None and server.ssl_certfile is None:
        raise StartError("--ssl-keyfile is given without a certificate: give --ssl-certfile too")
    if server.ssl_certfile is not None:
        _check_certificate(server.ssl_certfile, server.ssl_keyfile or server.ssl_certfile)
    if certificates.ca_certs is not None:
        if server.ssl_certfile is None:
            raise StartError("--ssl-ca-certs asks for client certificates, which needs HTTPS: give --ssl-certfile too")
        _check_authorities(certificates.ca_certs)


def _check_certificate(certificate: Path, key: Path) -> None:
    for path in (certificate, key):
        _require_readable(path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, _Encrypted.refuse)
    except _Encrypted:
        raise StartError(
            f"the key in {key} is encrypted, and the server asks for no pass phrase: decrypt it with: "
            f"openssl pkey -in {key} -out decrypted.pem, let only the user of the server read that file, and name it "
            "with --ssl-keyfile"
        ) from None
    except (OSError, ValueError) as error:
        if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            raise StartError(
                f"the key in {key} does not belong to the first certificate in {certificate}: name the key of that "
                "certificate with --ssl-keyfile; the server's own certificate comes first, and then its chain"
            ) from error
        if not _count_certificates(certificate):
            raise StartError(f"{certificate} holds no certificate: --ssl-certfile names a PEM file with one") from error
        if b"PRIVATE KEY-----" not in key.read_bytes():
            raise StartError(f"{key} holds no private key: --ssl-keyfile names a PEM file with one") from error
        raise StartError(f"the certificate in {certificate} or the key in {key} cannot be used: {error}") from error


class _Encrypted(Exception):
    @classmethod
    def refuse(cls) -> str:
        """OpenSSL calls this for the pass phrase of an encrypted key. Without it, OpenSSL would ask on the terminal."""
        raise cls


def _require_readable(path: Path) -> None:
    """Raise `StartError` if the user of this process cannot read a file of `--ssl-certfile` or `--ssl-keyfile`."""
    try:
        is_file = stat.S_ISREG(path.stat().st_mode)
        if is_file:
            path.open("rb").close()
    except (FileNotFoundError, NotADirectoryError):
        is_file = False
    except OSError as error:
        raise StartError(
            f"{path} cannot be read ({error.strerror or error}): let the user of the server read the file and enter "
            "its folders, or copy it to a place where that user may"
        ) from error
    if not is_file:
        raise StartError(f"there is no file {path}: --ssl-certfile and --ssl-keyfile name PEM files")


def _count_certificates(path: Path) -> int:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with suppress(ssl.SSLError):  # the file has none
        context.load_verify_locations(path)
    return context.cert_store_stats()["x509"]


def _check_authorities(path: Path) -> None:
    advice = "--ssl-ca-certs names a PEM file with the certificates of the authorities that sign callers' certificates"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        path.open("rb").close()
        context.load_verify_locations(path)
    except ssl.SSLError:
        pass  # a file without a certificate is reported below
    except OSError as error:
        raise StartError(f"{path} cannot be read ({error.strerror or error}): {advice}") from error
    if not context.cert_store_stats()["x509"]:
        raise StartError(f"{path} holds no certificate: {advice}")


def _root_path(server: ServerOptions) -> str:
    root = server.root_path.strip("/")
    return f"/{root}" if root else ""
