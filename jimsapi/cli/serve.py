"""Serving: bind the port, hand the app to uvicorn, drain on a signal."""

import asyncio
import errno
import gc
import logging
import os
import signal
import socket
import ssl
import sys
from collections.abc import Collection, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from jimsapi.api.app import VERSION, Api
from jimsapi.api.metrics import MetricsOptions
from jimsapi.builtin.client_certificate import CertificateOptions
from jimsapi.cli.options import LogOptions, ServerOptions
from jimsapi.plugins.compose import Composition, Configuration
from jimsapi.plugins.core import CoreOptions
from jimsapi.plugins.errors import StartError
from jimsapi.plugins.options import redact
from jimsapi.runs.pipeline import pipeline_name
from jimsapi.server.borrowed import ChangeReload, Config
from jimsapi.server.drain import Drain, where
from jimsapi.server.http1 import Http1Protocol
from jimsapi.server.logs import LogWriter, set_up_logs
from jimsapi.server.memory import return_freed_memory
from jimsapi.server.port import open_port
from jimsapi.server.server import Server
from jimsapi.threads.errors import StoreUnusable

logger = logging.getLogger("jimsapi")

PROBES = ("/healthz", "/readyz")
"""As they are on the wire: a proxy that shows the API below `--root-path` takes that away."""
SWITCH_INTERVAL = 0.0005
"""Seconds after which a thread that waits for Python's interpreter lock gets it, instead of 0.005: the thread that
commits waits for it a few times a commit, whenever the event loop is busy."""
HALF_SENT_WITHIN = 1
"""Seconds that the server waits, after the drain, for requests whose body never came."""


class Factory(msgspec.Struct, frozen=True):
    """Makes the app in the process that serves it: this one, or a reloader's child, which gets it pickled, and without
    the configuration: plugins may have changed."""

    given: dict[str, Any]
    address: str
    as_json: bool
    verbose: bool
    configuration: Configuration | None

    def __call__(self) -> "tuple[Api, Serving]":
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _exit)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
            signal.signal(signal.SIGHUP, _exit)
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)
        return_freed_memory()
        writer = set_up_logs(as_json=self.as_json, verbose=self.verbose, redact=redact)
        serving = Serving(self.address, writer)
        api = Api(
            None,
            self.given,
            serve_metrics=True,
            options=(ServerOptions, LogOptions),
            on_started=serving.started,
            on_stopped=serving.stopped,
            on_request=(writer.on_request,),
            configuration=self.configuration,
        )
        return api, serving


class ServingProcess(msgspec.Struct, frozen=True):
    """Serves in this process, or in a reloader's child, which gets it pickled."""

    factory: Factory
    server: ServerOptions
    certificates: CertificateOptions
    max_body: int

    def run(self, sockets: list[socket.socket]) -> int:
        """Serve until told to stop; returns the exit status. A failed start raises `StartError` or `StoreUnusable`."""
        api, serving = self.factory()
        try:
            _silence_uvicorn()
            config = loaded_config(server_config(self.server, self.certificates, self.max_body, api))
            Server(config, first=PROBES, on_cancelled=serving.cancelled, on_leaked=serving.leaked).run(sockets=sockets)
        except SystemExit as exit_of_uvicorn:
            # It exits by itself when the app could not start; the cause is with the app.
            if api.startup_error is None and exit_of_uvicorn.code != 0:
                raise StartError(f"the server gave up (status {exit_of_uvicorn.code})") from None
        return serving.status if api.startup_error is None else _report(api.startup_error)

    def __call__(self, sockets: list[socket.socket] | None) -> None:
        """Serve as a reloader's child: a failed start is told, and waits for the next change."""
        try:
            self.run(sockets or [])
        except (StartError, StoreUnusable) as error:
            sys.stderr.write(f"jimsapi: {redact(str(error))}\n")


class Serving:
    """What the command does when the app has started, and when it has stopped. `status` is the exit status."""

    def __init__(self, address: str, writer: LogWriter) -> None:
        self.status = 0
        self._address = address
        self._writer = writer

    def started(self, api: Api) -> None:
        assert api.composition is not None  # it is what started
        drain_time = api.composition.settings.get(CoreOptions).drain_time
        Drain(lambda: api.service, drain_time, self._writer.flush, lambda: self.status).install()
        for line in start_lines(api.composition, self._address):
            logger.info(line)
        self._writer.flush()
        # The start is over: from here on the server's own errors, a failing wrapper's for one, are told.
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        # What stands now stays, so that the collector need not look through it again and again.
        gc.freeze()
        sys.setswitchinterval(SWITCH_INTERVAL)
        gc.set_threshold(10_000, 5, 50)

    def stopped(self, abandoned_pipelines: int) -> None:
        logger.info("stopped")
        self._writer.flush()
        if abandoned_pipelines:
            # Closing the loop would wait for ever for a pipeline that swallows its cancellation.
            os._exit(self.status)

    def cancelled(self) -> None:
        """The server's own task was cancelled. All others were too, and nobody knows what they left undone."""
        self.status = 1
        logger.critical(
            "all tasks of the event loop were cancelled: a pipeline or a plugin has cancelled what is not its own, "
            "asyncio.all_tasks() for example; the server stops with status 1, so that it is started again"
        )
        signal.raise_signal(signal.SIGTERM)

    def leaked(self, tasks: Collection[asyncio.Task[Any]]) -> None:
        """Tasks of pipelines or plugins do not end though they were cancelled. Closing the loop would wait for them."""
        logger.warning(
            "%d tasks of pipelines or plugins do not end and are left: %s",
            len(tasks),
            "; ".join(where(task) for task in islice(tasks, 10)),
        )
        self._writer.flush()
        os._exit(self.status)


def serve(configuration: Configuration, given: Mapping[str, Any]) -> int:
    """Serve until told to stop. Returns the exit status: 0, or 1 if the start failed.

    Raises:
        StartError: the port or a certificate cannot be used.
    """
    settings = configuration.settings
    server, logs = settings.get(ServerOptions), settings.get(LogOptions)
    certificates = settings.get(CertificateOptions)
    max_body = settings.get(CoreOptions).max_body
    refuse_shared_port(server, settings.get(MetricsOptions))
    listening = bind(server.host, server.port)
    address = address_of(server, listening.getsockname()[1])
    handed_on = None if server.reload else configuration
    factory = Factory(dict(given), address, logs.log_format == "json", logs.verbose, handed_on)
    process = ServingProcess(factory, server, certificates, max_body)
    if server.reload:
        # uvicorn looks for the folders to watch only if the app is named; the name itself is never loaded.
        _silence_uvicorn()
        config = server_config(server, certificates, max_body, "jimsapi")
        reloader = ChangeReload(config, target=process, sockets=[listening])
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signal.signal(signal.SIGHUP, reloader.signal_handler)
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)
        reloader.run()
        return 0
    return process.run([listening])


def _report(error: BaseException) -> int:
    """Say why the start failed: in one line if somebody foresaw it, else with the traceback that a defect needs."""
    if isinstance(error, StartError | StoreUnusable):
        raise error
    logger.critical("the start failed", exc_info=error)
    logging.shutdown()
    return 1


def bind(host: str, port: int) -> socket.socket:
    """Open the port before anything else is touched. Raises `StartError` that says why it cannot be."""
    try:
        # It listens from now on, so that a second start fails here, not after it has recovered this one's runs.
        return open_port(host, port)
    except OSError as error:
        raise StartError(cannot_listen(host, port, error)) from error


def cannot_listen(host: str, port: int, error: OSError) -> str:
    """Why the port of the API cannot be opened, for the operator."""
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is taken: stop what listens there, or give another --port"
    return f"cannot listen on {host}:{port}: {error.strerror or error}; give another --host or --port"


def refuse_shared_port(server: ServerOptions, metrics: MetricsOptions) -> None:
    """Raise `StartError` if the API and the metrics are to have one port of one address."""
    hosts = {server.host, metrics.host}
    if server.port and server.port == metrics.port and (len(hosts) == 1 or hosts & {"0.0.0.0", "::"}):
        raise StartError(
            f"--port and --metrics-port are both {server.port}: give another --metrics-port, or 0 for none"
        )


def start_lines(composition: Composition, address: str) -> list[str]:
    """What a start says: what it serves, where, with which store, plugins and auth."""
    core, metrics = composition.settings.get(CoreOptions), composition.settings.get(MetricsOptions)
    app = composition.app
    pipeline = app.name or pipeline_name(app.pipeline)
    foreign = [
        f"{entry.name} ({entry.distribution} {entry.version})" for entry, _ in composition.plugins if entry.foreign
    ]
    where = f"metrics on {metrics.host}:{metrics.port}" if metrics.port else "no metrics port"
    root = composition.settings.get(ServerOptions).root_path.strip("/")
    shown = f"{address}, which a proxy shows below /{root}" if root else address
    return [
        f"jimsapi {VERSION} serves {core.app} ({pipeline}) at {shown}, documentation at {address}/docs, {where}",
        f"store: {composition.store.name}",
        f"auth: {', '.join(built.name for built in composition.providers) or 'none, the API is public'}",
        f"plugins: {', '.join(foreign) or 'only the built-in ones'}",
    ]


def server_config(server: ServerOptions, certificates: CertificateOptions, max_body: int, app: Any) -> Config:
    """How uvicorn is to serve. Raises `StartError` for files of TLS that are missing or do not fit."""
    check_tls_files(server, certificates)
    protocol = Http1Protocol
    clients: dict[str, Any] = {}  # for uvicorn a protocol is a class; what makes one will do
    if certificates.ca_certs is not None:
        from jimsapi.server.client_certificates import ClientCertificateProtocol

        protocol = ClientCertificateProtocol
        clients = {
            "ssl_ca_certs": certificates.ca_certs,
            "ssl_cert_reqs": ssl.CERT_REQUIRED,
        }
    clients["http"] = partial(protocol, on_refusal=app.observe) if isinstance(app, Api) else protocol
    return Config(
        app,
        interface="asgi3",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=server.forwarded_allow_ips is not None,
        forwarded_allow_ips=server.forwarded_allow_ips,
        root_path=_root(server),
        ssl_certfile=server.ssl_certfile,
        ssl_keyfile=server.ssl_keyfile,
        reload=server.reload,
        timeout_graceful_shutdown=HALF_SENT_WITHIN,
        ws_max_size=max_body,
        ws_per_message_deflate=False,  # it would double the memory of a WebSocket, for frames that are short
        **clients,
    )


def _silence_uvicorn() -> None:
    """A start that fails is reported in one line of ours."""
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)


def loaded_config(config: Config) -> Config:
    """The same with all that it names loaded. Raises `StartError` for a certificate or key that cannot be used."""
    try:
        config.load()
    except (OSError, ValueError) as error:
        raise StartError(f"the certificate or its key cannot be used: {error}") from error
    if config.ws_protocol_class is None:
        logger.warning("NO WEBSOCKET IS ACCEPTED: the package websockets is not installed; pip install websockets")
    return config


def check_tls_files(server: ServerOptions, certificates: CertificateOptions) -> None:
    """Look at the files of TLS before they are used. Raises `StartError` for one that is missing or does not fit."""
    if server.ssl_keyfile is not None and server.ssl_certfile is None:
        raise StartError("--ssl-keyfile is given without a certificate: give --ssl-certfile too")
    for path in (server.ssl_certfile, server.ssl_keyfile):
        if path is not None and not path.is_file():
            raise StartError(f"there is no file {path}: --ssl-certfile and --ssl-keyfile name PEM files")
    if certificates.ca_certs is not None:
        if server.ssl_certfile is None:
            raise StartError("--ssl-ca-certs asks for client certificates, which needs HTTPS: give --ssl-certfile too")
        _check_authorities(certificates.ca_certs)


def _check_authorities(path: Path) -> None:
    wanted = "--ssl-ca-certs names a PEM file with the certificates of the authorities that sign callers' certificates"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        path.open("rb").close()
        context.load_verify_locations(path)
    except ssl.SSLError:
        pass  # told below
    except OSError as error:
        raise StartError(f"{path} cannot be read ({error.strerror or error}): {wanted}") from error
    if not context.cert_store_stats()["x509"]:
        raise StartError(f"{path} holds no certificate: {wanted}")


def address_of(server: ServerOptions, port: int) -> str:
    """The URL of the server itself: without `--root-path`, which a proxy takes away before it asks the server."""
    scheme = "https" if server.ssl_certfile else "http"
    host = f"[{server.host}]" if ":" in server.host else server.host
    return f"{scheme}://{host}:{port}"


def _root(server: ServerOptions) -> str:
    root = server.root_path.strip("/")
    return f"/{root}" if root else ""


def _exit(number: int, frame: object) -> NoReturn:
    """What a signal does before uvicorn listens to it, and when uvicorn, stopped by it, hands it on: exit status 0.

    The default handlers would end the process by the signal, which a supervisor counts as a crash.
    """
    raise SystemExit(0)
