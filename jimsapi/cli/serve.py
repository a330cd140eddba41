"""Serving: bind the port, hand the app to uvicorn, drain on a signal."""

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Collection, Mapping
from itertools import islice
from typing import Any, NoReturn

import msgspec

from jimsapi.api.app import VERSION, Api
from jimsapi.api.metrics import MetricsOptions
from jimsapi.builtin.client_certificate import CertificateOptions
from jimsapi.cli.listening import address_of, bind, refuse_shared_port
from jimsapi.cli.options import LogOptions, ServerOptions
from jimsapi.cli.server_config import loaded_config, server_config
from jimsapi.plugins.compose import Composition, Configuration
from jimsapi.plugins.core import CoreOptions
from jimsapi.plugins.errors import StartError
from jimsapi.plugins.secrets import redact
from jimsapi.runs.pipeline import pipeline_name
from jimsapi.server.borrowed import ChangeReload
from jimsapi.server.drain import Drain, where
from jimsapi.server.logs import LogWriter, set_up_logs
from jimsapi.server.memory import return_freed_memory
from jimsapi.server.server import Server
from jimsapi.threads.errors import StoreUnusable

logger = logging.getLogger("jimsapi")

PROBES = ("/healthz", "/readyz")
"""As they are on the wire: a proxy that shows the API below `--root-path` takes that away."""
SWITCH_INTERVAL = 0.0005
"""Seconds after which a thread that waits for Python's interpreter lock gets it, instead of 0.005: the thread that
commits waits for it a few times a commit, whenever the event loop is busy."""


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


def start_lines(composition: Composition, address: str) -> list[str]:
    """What a start says: what it serves, where, with which store, plugins and auth."""
    core, metrics = composition.settings.get(CoreOptions), composition.settings.get(MetricsOptions)
    app = composition.app
    pipeline = app.name or pipeline_name(app.pipeline)
    third_party = [
        f"{entry.name} ({entry.distribution} {entry.version})"
        for entry, _ in composition.plugins
        if entry.is_third_party
    ]
    where = f"metrics on {metrics.host}:{metrics.port}" if metrics.port else "no metrics port"
    root = composition.settings.get(ServerOptions).root_path.strip("/")
    shown = f"{address}, which a proxy shows below /{root}" if root else address
    return [
        f"jimsapi {VERSION} serves {core.app} ({pipeline}) at {shown}, documentation at {address}/docs, {where}",
        f"store: {composition.store.name}",
        f"auth: {', '.join(built.name for built in composition.providers) or 'none, the API is public'}",
        f"plugins: {', '.join(third_party) or 'only the built-in ones'}",
    ]


def _silence_uvicorn() -> None:
    """A start that fails is reported in one line of ours."""
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)


def _exit(number: int, frame: object) -> NoReturn:
    """What a signal does before uvicorn listens to it, and when uvicorn, stopped by it, hands it on: exit status 0.

    The default handlers would end the process by the signal, which a supervisor counts as a crash.
    """
    raise SystemExit(0)
