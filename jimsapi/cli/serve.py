"""Serves the API: opens the port, runs the app in uvicorn, and drains on a signal."""

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import msgspec
from msgspec import structs

from jimsapi.api.app import VERSION, Api
from jimsapi.api.metrics import DEFAULT_METRICS_HOST, CombinedRegistry, MetricsOptions
from jimsapi.asgi.stack import where_task
from jimsapi.builtin.client_certificate import CertificateOptions
from jimsapi.cli.framework import FrameworkApp
from jimsapi.cli.listening import address_of, bind, refuse_shared_port
from jimsapi.cli.log_fields import request_describer
from jimsapi.cli.options import LogOptions, ServerOptions
from jimsapi.cli.server_config import loaded_config, reread_certificates, server_config, warn_of_missing_websockets
from jimsapi.cli.workers import folder_of_sockets, serve_with_workers
from jimsapi.plugins.compose import AppWithoutPipeline, Composition, Configuration
from jimsapi.plugins.config_option import ConfigOptions
from jimsapi.plugins.core import CoreOptions
from jimsapi.plugins.errors import StartError, cause_text
from jimsapi.plugins.secrets import redact
from jimsapi.runs.peers import Peers
from jimsapi.runs.pipeline import pipeline_name
from jimsapi.server.acceptor import accept_new_connections
from jimsapi.server.borrowed import ChangeReload, Config
from jimsapi.server.drain import Drain, Work
from jimsapi.server.logs import QUEUE_LIMIT, LogWriter, set_up_logs
from jimsapi.server.memory import return_freed_memory
from jimsapi.server.notify import READY, notify
from jimsapi.server.port import close_unix_socket
from jimsapi.server.server import Server
from jimsapi.server.signals import OperatorSignals, ignore_signals, terminal_is_closed
from jimsapi.server.workers import Link, Serving
from jimsapi.threads.errors import StoreUnusable

logger = logging.getLogger("jimsapi")

SignalHandler = Callable[[int, FrameType | None], None]

PROBES = ("/healthz", "/readyz")
"""The paths of the probes without `--root-path`, which a proxy removes."""
SWITCH_INTERVAL = 0.0005
"""Seconds after which a thread that waits for Python's interpreter lock gets it. Python's default is 0.005, but the
thread that commits waits for the lock a few times a commit while the event loop is busy."""

BLOCKED_FOR = 30.0
"""Seconds for which a blocked event loop may delay that a worker begins to retire and to drain."""


class Factory(msgspec.Struct, frozen=True):
    """Creates the app in the process that serves it: this process, or a reloader's child.

    The child gets a pickled factory without the configuration, because plugins may have changed. `peers` is the folder
    in which workers have sockets for each other.
    """

    given: dict[str, Any]
    address: str
    as_json: bool
    verbose: bool
    configuration: Configuration | None
    peers: str | None = None

    def __call__(self, link: Link | None = None) -> "tuple[Api, ServerCallbacks]":
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, exit_on_signal)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup ignores it
            signal.signal(signal.SIGHUP, _exit_if_terminal_is_closed)
        ignore_signals()
        return_freed_memory()
        writer = set_up_logs(as_json=self.as_json, verbose=self.verbose, redact=redact, shared=link is not None)
        callbacks = ServerCallbacks(self.address, writer, link, verbose=self.verbose)
        api = Api(
            None,
            self.given,
            serve_metrics=link is None,
            peers=None if link is None or self.peers is None else Peers(Path(self.peers)),
            options=(ServerOptions, LogOptions),
            on_started=callbacks.on_started,
            on_stopped=callbacks.on_stopped,
            on_request=(writer.on_request,),
            configuration=self.configuration,
        )
        return api, callbacks


class ServingProcess(msgspec.Struct, frozen=True):
    """Serves in this process, or in the child of a reloader or of `--workers`, which gets a pickled copy.

    `stays_open`: the service manager keeps the port open after the end.
    """

    factory: Factory
    server: ServerOptions
    certificates: CertificateOptions
    max_body: int
    stays_open: bool = False

    def run(self, sockets: list[socket.socket], link: Link | None = None) -> int:
        """Serve until a signal, or the supervisor at the other end of `link`, stops it. Returns the exit status.

        Raises `StartError` or `StoreUnusable` if the app cannot start as configured.
        """
        api, callbacks = self.factory(link)
        ended: SystemExit | None = None
        try:
            _silence_uvicorn()
            callbacks.config = config = loaded_config(server_config(self.server, self.certificates, self.max_body, api))
            callbacks.server = server = Server(
                config,
                first=PROBES,
                on_cancelled=callbacks.on_cancelled,
                on_leaked=callbacks.on_leaked,
                instead=lambda: callbacks.framework_app(api.startup_error),
                stays_open=self.stays_open,
            )
            callbacks.reread = partial(reread_certificates, self.server, self.certificates, server)
            server.run(sockets=sockets)
        except SignalExit:
            pass
        except SystemExit as server_exit:
            ended = server_exit  # the server exits if the app cannot start, and the cause is then in `startup_error`
        startup_error = api.startup_error if callbacks.alone is None else callbacks.alone.app.startup_error
        if startup_error is not None:
            return report_failed_start(startup_error)
        if ended is not None:
            caller = "a plugin or a pipeline" if callbacks.alone is None else "the app"
            raise exit_error("server", ended, caller) from ended
        if callbacks.alone is not None:
            callbacks.on_stopped(0)
        return callbacks.status

    def __call__(self, sockets: list[socket.socket] | None) -> None:
        """Serve in a reloader's child. If the start fails, write the error; the reloader waits for the next change."""
        try:
            self.run(sockets or [])
        except (StartError, StoreUnusable) as error:
            detail = cause_text(error) if self.factory.verbose else ""
            sys.stderr.write(redact(f"jimsapi: {error}\n{detail}"))

    def work(self, sockets: list[socket.socket], link: Link) -> int:
        """Serve in a worker of `--workers`. Returns the exit status. Writes why, if it cannot start as configured."""
        try:
            return self.run(sockets, link)
        except (StartError, StoreUnusable) as error:
            detail = cause_text(error) if self.factory.verbose else ""
            sys.stderr.write(redact(f"jimsapi: {error}\n{detail}"))
            return 1


class WorkerStop:
    """Stops a worker as its supervisor says: any thread may call the methods."""

    def __init__(self, server: Server, drain: Drain) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._drain = drain

    def drain(self) -> None:
        self._drain.request()

    def retire(self) -> None:
        asyncio.run_coroutine_threadsafe(self._retire(), self._loop)

    async def _retire(self) -> None:
        try:
            await self._server.retire()
        finally:
            self._drain.begin()


class ServerCallbacks:
    """The command's callbacks for events of the app and the server.

    `status` is the exit status. `config` is uvicorn's configuration, which is set before the start. `alone` is the
    `jimsapi.asgi.App` that is served without the chat API, or None. `server`, and `reread`, which reads its certificate
    again, are set before the start, too.
    """

    def __init__(self, address: str, writer: LogWriter, link: Link | None, *, verbose: bool) -> None:
        self.status = 0
        self._link = link
        self.config: Config | None = None
        self.server: Server | None = None
        self.reread: Callable[[], None] = lambda: None
        self.alone: FrameworkApp | None = None
        self._address = address
        self._writer = writer
        self._verbose = verbose
        self._stop: Callable[[], None] = partial(signal.raise_signal, signal.SIGTERM)

    def on_started(self, api: Api) -> None:
        assert api.composition is not None  # the app sets it before this call
        assert self.config is not None
        if self._link is not None:
            registry = CombinedRegistry(api.composition.registry)
            self._link.sample = lambda: list(registry.collect())
        warn_of_missing_websockets(self.config, api)
        settings = api.composition.settings
        api.describe_request = request_describer(settings.get(LogOptions)) or api.describe_request
        times = settings.get(ServerOptions).drain_delay, settings.get(CoreOptions).drain_time
        lines = start_lines(api.composition, self._address)
        self._begin_serving(lambda: None if api.service is None else api, *times, lines)

    def framework_app(self, error: BaseException | None) -> "FrameworkApp | None":
        """Return the app to serve if the chat API could not start because `--app` names a `jimsapi.asgi.App`.

        Raises `StartError` if an option is set that such an app does not have.
        """
        if isinstance(error, AppWithoutPipeline):
            self.alone = FrameworkApp(error, self._on_framework_app_started)
            self.alone.app.on_request.append(self._writer.on_request)
        return self.alone

    def _on_framework_app_started(self, served: FrameworkApp) -> None:
        served.app.describe_request = request_describer(served.log) or served.app.describe_request
        times = served.drain_delay, served.drain_time
        self._begin_serving(lambda: served, *times, served.start_lines(self._address))

    def _begin_serving(
        self, work: Callable[[], Work | None], drain_delay: float, drain_time: float, lines: Iterable[str]
    ) -> None:
        link = self._link
        drain = Drain(work, drain_time, self._writer.flush, lambda: self.status, drain_delay)
        drain.install(by_signals=link is None)
        OperatorSignals(lambda: self._state(work()), self.reread, verbose=self._verbose).install()
        if link is None or link.number == 1:
            for line in lines:
                logger.info(line)
            warn_of_root()
        self._writer.flush()
        # The start is over. From now on uvicorn's errors are logged, such as those of a failing wrapper.
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        # The objects of the start live until the end, so the garbage collector need not traverse them again.
        gc.freeze()
        sys.setswitchinterval(SWITCH_INTERVAL)
        # 128 chats in flight have fewer than 10,000 objects, so that the collector hardly runs if they leave none. With
        # 2,000 it took 5 % of the processor. Every second collection includes what the one before has kept. With 5 in
        # place of 0, the slowest of a hundred chats in memory waits 7 to 17 ms and not 4 (Python 3.13). All objects are
        # traversed after three million allocations.
        gc.set_threshold(10_000, 0, 150)
        if link is None:
            notify(READY)
        else:
            assert self.server is not None  # they are set before the start
            assert self.config is not None
            stop = WorkerStop(self.server, drain)
            self._stop = stop.retire  # a drain alone would close the port of all workers
            serving = Serving(
                has_metrics=link.sample is not None,
                drains_within=drain_delay + drain_time,
                retires_within=BLOCKED_FOR + self.config.timeout_keep_alive + drain_time,
            )
            if link.started(stop, serving) and not self.server.should_exit:
                stop.drain()

    def _state(self, work: Work | None) -> Iterator[str]:
        """Yield what the server works on, in lines for an operator. Any thread may read them."""
        if work is not None:
            yield from work.state()
        if self.server is not None:
            yield from self.server.state()
        yield f"log: {self._writer.waiting} of {QUEUE_LIMIT} lines wait to be written"

    def on_stopped(self, abandoned_pipelines: int) -> None:
        logger.info("stopped" if self._link is None else f"worker {self._link.number} has stopped")
        if self._link is not None:
            self._link.close()
        self._writer.flush()
        if abandoned_pipelines:
            # Closing the loop would wait forever for a pipeline that swallows its cancellation.
            os._exit(self.status)

    def on_cancelled(self) -> None:
        """Stop with status 1: all tasks were cancelled, also the server's own, and may have left work undone."""
        self.status = 1
        log_cancellation("server")
        self._stop()

    def on_leaked(self, tasks: Collection[asyncio.Task[Any]]) -> None:
        exit_despite(tasks, self._writer, self.status)


def serve(configuration: Configuration, given: Mapping[str, Any]) -> int:
    """Serve until a signal stops the server. Returns the exit status: 1 after an unexpected error, else 0.

    Raises:
        StartError: the server cannot start as configured, for example because the port is in use.
        StoreUnusable: the store cannot be opened.
    """
    settings = configuration.settings
    server, logs = settings.get(ServerOptions), settings.get(LogOptions)
    certificates = settings.get(CertificateOptions)
    max_body = settings.get(CoreOptions).max_body
    metrics = settings.get(MetricsOptions)
    refuse_shared_port(server, metrics)
    port = bind(server)
    address = address_of(server, port.listening)
    factory_configuration = None if server.reload or server.workers > 1 else configuration
    factory = Factory(dict(given), address, logs.log_format == "json", logs.verbose, factory_configuration)
    process = ServingProcess(factory, server, certificates, max_body, port.is_inherited)
    try:
        return _serve_here_or_in_others(process, server, metrics, port.listening)
    finally:
        if port.is_inherited:
            accept_new_connections(port.listening)  # a worker that was killed may have ended this
        if port.own_path is not None:
            port.listening.close()
            close_unix_socket(port.own_path)


def _serve_here_or_in_others(
    process: ServingProcess, server: ServerOptions, metrics: MetricsOptions, listening: socket.socket
) -> int:
    if server.reload:
        # uvicorn determines the folders to watch only if the app is a name. It does not load this name.
        _silence_uvicorn()
        config = server_config(server, process.certificates, process.max_body, "jimsapi")
        reloader = ChangeReload(config, target=process, sockets=[listening])
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signal.signal(signal.SIGHUP, partial(_stop_if_terminal_is_closed, reloader.signal_handler))
        ignore_signals()
        reloader.run()
        return 0
    if server.workers > 1:
        factory = process.factory
        with folder_of_sockets() as folder:
            process = structs.replace(process, factory=structs.replace(factory, peers=folder))
            return serve_with_workers(
                process.work, [listening], server.workers, metrics, as_json=factory.as_json, verbose=factory.verbose
            )
    return process.run([listening])


def report_failed_start(error: BaseException) -> int:
    """Log an unexpected error with its traceback, and return the exit status 1.

    Raises `StartError` and `StoreUnusable` again; the command reports them in one line.
    """
    if isinstance(error, StartError | StoreUnusable):
        raise error
    logger.critical("the start failed", exc_info=error)
    logging.shutdown()
    return 1


def exit_error(process: str, ended: SystemExit, caller: str) -> StartError:
    """Return the error of a process in which `caller`, such as a plugin, has called `sys.exit()`."""
    return StartError(
        f"the {process} ended with SystemExit({ended.code!r}), and no signal has caused this: {caller} may have called "
        "sys.exit(); --verbose shows the line"
    )


def start_lines(composition: Composition, address: str) -> list[str]:
    """Return the lines that a start logs: the app, the addresses, the store, the auth providers and the plugins."""
    core, metrics = composition.settings.get(CoreOptions), composition.settings.get(MetricsOptions)
    app = composition.app
    pipeline = app.name or pipeline_name(app.pipeline)
    third_party = [
        f"{entry.name} ({entry.distribution} {entry.version})"
        for entry, _ in composition.plugins
        if entry.is_third_party
    ]
    names = ", ".join(entry.name for entry in composition.left_out)
    left_out = f"; left out: {names}" if names else ""
    port = metrics_place(metrics)
    docs = "" if core.docs == "off" or address.startswith("unix:") else f", documentation at {address}/docs"
    root = composition.settings.get(ServerOptions).root_path.strip("/")
    api_url = f"{address}, which a proxy shows below /{root}" if root else address
    config = composition.settings.get(ConfigOptions).config
    return [
        f"jimsapi {VERSION} serves {core.app} ({pipeline}) at {api_url}{docs}, {port}",
        f"store: {composition.store.name}",
        f"auth: {', '.join(built.name for built in composition.providers) or 'none, the API is public'}",
        f"plugins: {', '.join(third_party) or 'only the built-in ones'}{left_out}",
        *([] if config is None else [f"configuration: {config}"]),
    ]


def metrics_place(metrics: MetricsOptions) -> str:
    """Return where the metrics port is, for the log line of a start."""
    if not metrics.port:
        return "no metrics port"
    advice = " (--metrics-host 127.0.0.1 shows them to this machine only)"
    return f"metrics on {metrics.host}:{metrics.port}{advice if metrics.host == DEFAULT_METRICS_HOST else ''}"


def log_cancellation(process: str) -> None:
    """Log why all tasks of the event loop were cancelled, in the handler of the `CancelledError`."""
    cause = _exit_that_ended_the_loop() or (
        "a pipeline or a plugin has cancelled tasks that it does not own, for example asyncio.all_tasks()"
    )
    logger.critical(
        "all tasks of the event loop were cancelled: %s; the %s stops with status 1, so that a supervisor restarts it",
        cause,
        process,
    )


def exit_despite(tasks: Collection[asyncio.Task[Any]], writer: LogWriter, status: int) -> NoReturn:
    """Log the tasks that do not end after their cancellation, and exit. Closing the loop would wait for them."""
    logger.warning(
        "%d tasks of pipelines or plugins do not end after their cancellation: %s",
        len(tasks),
        "; ".join(f"{task.get_name()}: {where_task(task)}" for task in islice(tasks, 10)),
    )
    writer.flush()
    os._exit(status)


def _exit_that_ended_the_loop() -> str:
    """Return a text about the `SystemExit` during whose handling the current exception was raised; empty if none.

    If a task or a callback raises it, the event loop stops, and its runner cancels all tasks.
    """
    error = sys.exception()
    while error is not None and not isinstance(error, SystemExit):
        error = error.__context__
    if error is None:
        return ""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"a task or a callback has called sys.exit() (at {place.filename}:{place.lineno})"


def warn_of_root() -> None:
    if os.geteuid() == 0:
        logger.warning(
            "the server runs as root, so a fault of a pipeline or a plugin may change everything on this machine; "
            "start it as a user of its own"
        )


def _silence_uvicorn() -> None:
    """Hide uvicorn's errors during the start: the command reports a failed start itself, in one line."""
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)


class SignalExit(SystemExit):
    """A signal ends the process. Any other `SystemExit` is of a plugin or a pipeline."""


def exit_on_signal(number: int, frame: object) -> NoReturn:
    """Exit with status 0 on a signal: before uvicorn handles signals, and when it raises one again after its shutdown.

    With the default handlers the signal would end the process, which a supervisor counts as a crash.
    """
    raise SignalExit(0)


def _exit_if_terminal_is_closed(number: int, frame: object) -> None:
    """Handle SIGHUP during the start, which has read the certificate or is about to."""
    if terminal_is_closed():
        raise SignalExit(0)


def _stop_if_terminal_is_closed(stop: SignalHandler, number: int, frame: FrameType | None) -> None:
    """Handle SIGHUP in a reloader, which has no certificate."""
    if terminal_is_closed():
        stop(number, frame)
