"""`--workers`: several processes serve the port, with one log and one metrics port."""

import logging
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from jimsapi.api.metrics import MetricsOptions, MetricsPort
from jimsapi.api.summed_metrics import counters, summed
from jimsapi.plugins.secrets import redact
from jimsapi.server.logs import set_up_logs
from jimsapi.server.notify import READY, notify
from jimsapi.server.workers import SAMPLE_EVERY, Supervisor, Worker

logger = logging.getLogger("jimsapi")


class WorkersMetrics(Collector):
    """The metrics of all workers, with what those have counted that have ended."""

    def __init__(self) -> None:
        self.supervisor: Supervisor | None = None
        self._ended: list[Metric] = []
        self._changing = threading.Lock()

    def keep(self, sample: Iterable[Metric] | None) -> None:
        """Keep what a worker has counted, which has ended."""
        with self._changing:
            self._ended = list(summed([self._ended, counters(sample or ())]))

    def collect(self) -> Iterator[Metric]:
        supervisor = self.supervisor
        workers = () if supervisor is None else supervisor.workers
        samples = [worker.sample() or () for worker in workers]
        with self._changing:
            yield from summed([self._ended, *samples])
        yield GaugeMetricFamily("jims_workers", "Processes that serve the port.", value=len(workers))
        yield CounterMetricFamily(
            "jims_worker_restarts",
            "Processes that were started in place of one that had died.",
            value=0 if supervisor is None else supervisor.restarts,
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


def _on_ready(count: int) -> None:
    logger.info("%d workers serve the port", count)
    notify(READY)


def _sample(supervisor: Supervisor) -> None:
    """Ask all workers for their metrics again and again, so that little is lost if one is killed."""
    pause = threading.Event()
    while not pause.wait(SAMPLE_EVERY):
        for worker in supervisor.workers:
            worker.sample()
