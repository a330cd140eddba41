"""A supervisor of two workers that serve nothing: `python -m tests.server.supervised FOLDER`.

While `FOLDER/broken` exists, a new worker ends with status 1 after two seconds. While `FOLDER/dying` exists, a worker
that serves ends with status 3. While `FOLDER/forks` exists, a new worker has a child that keeps open what it inherits.
Workers 1 and 2 have counted ten each, and the supervisor logs the sum again and again. While `FOLDER/more` exists, each
has counted one more; while `FOLDER/uncountable` exists, counting fails. A worker that is told to stop in
its start has no more time for that than others. Each has a second, and a start is called slow after a second.
"""

import logging
import os
import signal
import socket
import sys
import threading
import time
from functools import partial
from pathlib import Path

from prometheus_client.core import CounterMetricFamily

from jimsapi.cli.workers import WorkersMetrics
from jimsapi.server import workers
from jimsapi.server.workers import Link, Serving, Supervisor

logger = logging.getLogger("jimsapi")


class Stop:
    """Ends a worker when it is told to stop."""

    def __init__(self) -> None:
        self.told = threading.Event()

    def drain(self) -> None:
        self.told.set()

    def retire(self) -> None:
        self.told.set()


def work(folder: Path, sockets: list[socket.socket], link: Link) -> int:
    if (folder / "broken").exists():
        time.sleep(2)
        return 1
    if (folder / "forks").exists() and os.fork() == 0:
        while (folder / "forks").exists():
            time.sleep(0.02)
        os._exit(0)
    counted = 10.0 if link.number <= 2 else 0.0

    def sample() -> list[CounterMetricFamily]:
        if (folder / "uncountable").exists():
            raise RuntimeError("this cannot be counted")
        more = (folder / "more").exists()
        return [CounterMetricFamily("counted", "What the workers have counted.", value=counted + more)]

    link.sample = sample
    stop = Stop()
    link.started(stop, Serving(has_metrics=True, drains_within=0, retires_within=0))
    while not stop.told.wait(0.02):
        if (folder / "dying").exists():
            return 3
    link.close()
    return 0


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # a test run with nohup ignores it
    workers.START_STOPS_WITHIN = 0.0
    workers.STOP_LATE = 1.0
    workers.SLOW_START = 1.0
    total = WorkersMetrics()

    def log_sums() -> None:
        while True:
            for family in total.collect():
                if family.name == "counted":
                    logger.info("the sum is %g", family.samples[0].value)
            time.sleep(0.02)

    def on_ready() -> None:
        logger.info("ready")
        threading.Thread(target=log_sums, daemon=True).start()

    target = partial(work, Path(sys.argv[1]))
    supervisor = Supervisor(target, [], 2, on_first=lambda worker: None, on_ready=on_ready, on_gone=total.keep)
    total.supervisor = supervisor
    return supervisor.run()


if __name__ == "__main__":
    sys.exit(main())
