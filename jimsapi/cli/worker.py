"""`jimsapi worker`: does the background runs that servers leave to workers. It has no port for clients."""

import asyncio
import logging
import os
import signal
from collections.abc import Mapping
from typing import Any

from jimsapi.api.app import VERSION, Api
from jimsapi.api.metrics import MetricsOptions
from jimsapi.cli.options import LogOptions, ServerOptions
from jimsapi.cli.serve import (
    SignalExit,
    exit_despite,
    exit_error,
    exit_on_signal,
    log_cancellation,
    metrics_place,
    report_failed_start,
    warn_of_root,
)
from jimsapi.plugins.compose import Configuration
from jimsapi.plugins.core import CoreOptions
from jimsapi.plugins.errors import StartError
from jimsapi.plugins.secrets import redact
from jimsapi.runs.pipeline import pipeline_name
from jimsapi.runs.tasks import ServiceTask
from jimsapi.server.drain import Drain
from jimsapi.server.logs import LogWriter, set_up_logs
from jimsapi.server.notify import READY, notify
from jimsapi.server.server import end_other_tasks
from jimsapi.server.signals import OperatorSignals, ignore_signals

logger = logging.getLogger("jimsapi")

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def work(configuration: Configuration, given: Mapping[str, Any]) -> int:
    """Do runs until a signal stops the worker. Returns the exit status: 0, or 1 if something else has ended the work.

    Raises:
        StartError: the worker cannot start as configured, for example because there is no queue of runs, or a plugin
            or a pipeline has called `sys.exit()`.
        StoreUnusable: the store cannot be opened.
    """
    settings = configuration.settings
    server, logs = settings.get(ServerOptions), settings.get(LogOptions)
    if server.workers > 1 or server.reload:
        raise StartError("a worker is one process, without --workers and --reload; start the command several times")
    for number in STOP_SIGNALS:
        signal.signal(number, exit_on_signal)
    ignore_signals()
    writer = set_up_logs(as_json=logs.log_format == "json", verbose=logs.verbose, redact=redact)
    try:
        with asyncio.Runner() as runner:
            loop = runner.get_loop()
            # No pipeline can cancel a task of the service.
            working = ServiceTask.begin(_work(configuration, given, writer), loop=loop, name="worker")
            return loop.run_until_complete(working)
    except SignalExit:
        return 0
    except SystemExit as ended:
        raise exit_error("worker", ended, "a plugin or a pipeline") from ended
    except asyncio.CancelledError:  # in the start, or once more in the stop
        log_cancellation("worker")
        return 1
    except Exception as error:
        return report_failed_start(error)


async def _work(configuration: Configuration, given: Mapping[str, Any], writer: LogWriter) -> int:
    """Do runs until a signal stops the worker. Returns the exit status: 1 if something has cancelled this task."""
    stopped = asyncio.Event()
    status = 0

    def on_started(api: Api) -> None:
        assert api.composition is not None  # the app sets it before this call
        settings = api.composition.settings
        core = settings.get(CoreOptions)
        for number in STOP_SIGNALS:
            signal.signal(number, lambda *_: stopped.set())  # a drain calls these handlers at its end
        drain = Drain(lambda: None if api.service is None else api, core.drain_time, writer.flush, lambda: status)
        drain.install()
        OperatorSignals(api.state, lambda: None, verbose=settings.get(LogOptions).verbose).install()
        pipeline = api.composition.app.name or pipeline_name(api.composition.app.pipeline)
        place = metrics_place(settings.get(MetricsOptions))
        logger.info("jimsapi %s is a worker for %s (%s), %s", VERSION, core.app, pipeline, place)
        logger.info("store: %s", api.composition.store.name)
        warn_of_root()
        writer.flush()
        notify(READY)

    def on_stopped(abandoned_pipelines: int) -> None:
        logger.info("stopped")
        writer.flush()
        if abandoned_pipelines:
            os._exit(status)  # closing the loop would wait forever for a pipeline that swallows its cancellation

    api = Api(
        None,
        given,
        serve_metrics=True,
        worker=True,
        options=(ServerOptions, LogOptions),
        on_started=on_started,
        on_stopped=on_stopped,
        configuration=configuration,
    )
    async with api.lifespan():
        try:
            await stopped.wait()
        except asyncio.CancelledError:
            log_cancellation("worker")
            status = 1
    if leaked := await end_other_tasks():
        exit_despite(leaked, writer, status)
    return status
