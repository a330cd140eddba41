"""`--workers`: several processes serve the port, with one log and one metrics port."""

import logging
import os
import socket
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from jimsapi.api.metrics import MetricsOptions, MetricsPort
from jimsapi.api.summed_metrics import counters, summed
from jimsapi.plugins.errors import StartError
from jimsapi.plugins.secrets import redact
from jimsapi.server.logs import set_up_logs
from jimsapi.server.notify import READY, notify
from jimsapi.server.workers import SAMPLE_EVERY, Supervisor, Worker

logger = logging.getLogger("jimsapi")

LONGEST_PARENT = 55
"""Bytes of the path of a folder in which there is room for the folder and the names of sockets. The path of a socket
has at most 103 bytes on macOS, and 107 on Linux."""
SHORT_PARENT = "/tmp"
"""The folder for sockets if the path of the usual folder for temporary files is too long."""


class WorkersMetrics(Collector):
    """The metrics of all workers, with what those have counted that have ended."""

    def __init__(self) -> None:
        self.supervisor: Supervisor | None = None
        self._ended: list[Metric] = []

    def keep(self, sample: Iterable[Metric] | None) -> None:
        """Keep what a worker has counted, which has ended. The supervisor calls it with `Supervisor.ending` held."""
        self._ended = list(summed([self._ended, counters(sample or ())]))

    def collect(self) -> Iterator[Metric]:
        supervisor = self.supervisor
        if supervisor is None:
            return
        samples = {worker.number: worker.sample() or () for worker in supervisor.workers}
        with supervisor.ending:  # `_ended` has what those have counted that have ended since they were asked
            left = [samples[worker.number] for worker in supervisor.workers if worker.number in samples]
            ended = self._ended
        yield from summed([ended, *left])
        yield GaugeMetricFamily("jims_workers", "Processes that serve the port.", value=len(left))
        yield CounterMetricFamily(
            "jims_worker_restarts",
            "Processes that were started in place of one that had died.",
            value=supervisor.restarts,
        )


def serve_with_workers(
    target: Any, sockets: list[socket.socket], count: int, metrics: MetricsOptions, *, as_json: bool, verbose: bool
) -> int:
    """Serve the sockets in `count` processes until a signal stops them. Returns the exit status.

    `target` serves in a worker's process, and can be pickled. Raises `StartError` if the metrics port cannot be opened.
    """
    writer = set_up_logs(as_json=as_json, verbose=verbose, redact=redact, shared=True)
    total = WorkersMetrics()
    with ExitStack() as opened:
        opened.callback(writer.stop)

        def on_first(worker: Worker) -> None:
            if metrics.port and worker.has_metrics:
                opened.enter_context(closing(MetricsPort(metrics.host, metrics.port, total)))
                threading.Thread(target=_sample, args=(supervisor,), name="workers' metrics", daemon=True).start()

        supervisor = Supervisor(
            target, sockets, count, on_first=on_first, on_ready=lambda: _on_ready(count), on_gone=total.keep
        )
        total.supervisor = supervisor
        return supervisor.run()


def folder_of_sockets() -> "tempfile.TemporaryDirectory[str]":
    """Create a folder for the sockets of the workers of this command, which only its user can enter.

    Raises `StartError` if no folder for temporary files has a path that is short enough for a socket in it.
    """
    given = tempfile.gettempdir()
    parent = given if len(os.fsencode(given)) <= LONGEST_PARENT else SHORT_PARENT
    try:
        return tempfile.TemporaryDirectory(prefix="jimsapi-workers-", dir=parent)
    except OSError as error:
        raise StartError(
            f"--workers cannot create a folder for sockets in {parent}: {error.strerror}; set TMPDIR to a folder that "
            f"the server may write to and whose path has at most {LONGEST_PARENT} bytes"
        ) from error


def _on_ready(count: int) -> None:
    logger.info("%d workers serve the port", count)
    notify(READY)


def _sample(supervisor: Supervisor) -> None:
    """Ask all workers for their metrics again and again, so that little is lost if one is killed."""
    pause = threading.Event()
    while not pause.wait(SAMPLE_EVERY):
        for worker in supervisor.workers:
            worker.sample()
