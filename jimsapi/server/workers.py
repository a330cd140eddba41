"""Processes that serve one port: the supervisor that starts, replaces and stops them, and a worker's link to it.

All workers accept the connections of the same socket, so one that dies or is replaced closes no port. The supervisor
handles the signals. It tells the workers what to do through their links, since a signal to the process group, such as
Ctrl-C, would reach each worker a second time.
"""

import enum
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any, NamedTuple, Protocol

from jimsapi.server.notify import STOPPING, notify
from jimsapi.server.signals import DETAILS_AS_CONFIGURED, DETAILS_ON, number_of, terminal_is_closed

ANSWERS_WITHIN = 2.0
"""Seconds within which a worker has to send its metrics. A worker whose process is stopped does not."""
SAMPLE_EVERY = 1.0
"""Seconds between two readings of a worker's metrics. A worker that is killed loses what it counted since the last."""
START_AGAIN_AFTER = 1.0
"""Seconds after which a worker is started in place of one that died early; each time twice as long."""
START_AGAIN_AFTER_AT_MOST = 30.0
STOP_LATE = 5.0
"""Seconds after which a worker is killed that should have ended."""
START_STOPS_WITHIN = 30.0
"""Seconds within which a worker has to end or to serve that is told to stop in its start."""
MOST_ORDERS = 100
"""The supervisor sends a worker at most so many orders to end, since a worker whose process is stopped reads none."""
SLOW_START = 60.0
"""Seconds after which the log says how to give up a worker that has not started."""
EARLY = 10.0
"""A worker has died early if it died in its start, or within so many seconds after it."""

logger = logging.getLogger("jimsapi")

FORWARDED = ("SIGUSR1", "SIGUSR2", DETAILS_ON, DETAILS_AS_CONFIGURED)
"""The signals for operators that each worker handles."""


class Order(enum.Enum):
    """What the supervisor tells a worker.

    `DRAIN` stands for SIGTERM, a second one for a second signal. `RETIRE`: accept no more connections, end each one
    after its next response, then drain. `METRICS`: send what `Link.sample` returns.
    """

    DRAIN = enum.auto()
    RETIRE = enum.auto()
    METRICS = enum.auto()


class Serving(NamedTuple):
    """What a worker sends when it serves. It ends within so many seconds after an order to `DRAIN` or to `RETIRE`."""

    has_metrics: bool
    drains_within: float
    retires_within: float


class Stoppable(Protocol):
    """What a worker does when it is told to stop. Any thread may call the methods."""

    def drain(self) -> None: ...

    def retire(self) -> None: ...


class Link:
    """A worker's connection to its supervisor. If the supervisor dies, the worker drains.

    `sample` returns the worker's metrics, in any form that can be pickled; None if it has none. `number` tells the
    workers apart.
    """

    def __init__(self, number: int, orders: Connection, metrics: Connection) -> None:
        self.number = number
        self.sample: Callable[[], Any] | None = None
        self._orders = orders
        self._metrics = metrics
        self._stoppable: Stoppable | None = None
        self._told_in_start = False
        self._telling = threading.Lock()

    def listen(self) -> None:
        """Follow orders from now on. Before `started`, an order sends SIGTERM to this process."""
        for follow in (self._follow_orders, self._send_metrics):
            threading.Thread(target=follow, name="link to the supervisor", daemon=True).start()

    def started(self, stoppable: Stoppable, serving: Serving) -> bool:
        """Tell the supervisor that the worker serves. `stoppable` follows its orders from now on.

        Returns whether an order has come before, whose SIGTERM the process may have ignored.
        """
        with self._telling:
            self._stoppable = stoppable
            told = self._told_in_start
        with suppress(OSError):  # it has died, which `_follow_orders` sees
            self._orders.send(serving)
        return told

    def close(self) -> None:
        """Send the last metrics before the process ends."""
        if self.sample is not None:
            with suppress(OSError):
                self._orders.send(self._sample())

    def _follow_orders(self) -> None:
        while True:
            try:
                order = self._orders.recv()
            except (EOFError, OSError):
                order = None
                logger.error("the supervisor has died: this worker stops")
            with self._telling:
                if self._stoppable is None:
                    self._told_in_start = True
                    signal.raise_signal(signal.SIGTERM)
                elif order is Order.RETIRE:
                    self._stoppable.retire()
                else:
                    self._stoppable.drain()
            if order is None:
                return

    def _send_metrics(self) -> None:
        with suppress(EOFError, OSError):
            while True:
                self._metrics.recv()
                self._metrics.send(self._sample())

    def _sample(self) -> Any:
        try:
            return None if self.sample is None else self.sample()
        except Exception:
            logger.exception("the metrics of worker %d cannot be read", self.number)
            return None


class Worker:
    """A worker as its supervisor sees it. `ready_at` is the monotonic time since which it serves."""

    def __init__(self, number: int, process: BaseProcess, orders: Connection, metrics: Connection) -> None:
        self.number = number
        self.process = process
        self.orders = orders
        self.ready_at: float | None = None
        self.has_metrics = False
        self._ends_within = dict.fromkeys((Order.DRAIN, Order.RETIRE), START_STOPS_WITHIN)
        self._told_at: dict[Order, float] = {}
        self._orders_sent = 0
        self._killed = False
        self._started_at = time.monotonic()
        self._slow_start_logged = False
        self._metrics = metrics
        self._sampled: Any = None
        self._final: Any = None
        self._asked = False
        self._reading = threading.Lock()

    def __str__(self) -> str:
        return f"worker {self.number} (process {self.process.pid})"

    @property
    def ready(self) -> bool:
        """Whether it serves, or has served."""
        return self.ready_at is not None

    @property
    def has_exited(self) -> bool:
        """Whether its process has exited. Nothing else says so if a child that it has forked keeps its pipes open."""
        return self.process.exitcode is not None

    @property
    def leaving(self) -> bool:
        """Whether it has been told to end."""
        return bool(self._told_at)

    @property
    def died_early(self) -> bool:
        """Whether it died in its start or soon after it, if it has died just now."""
        return self.ready_at is None or time.monotonic() - self.ready_at < EARLY

    @property
    def counts(self) -> Any:
        """The metrics that it has sent last. Those of its end are the last, even if an earlier answer is read later."""
        return self._sampled if self._final is None else self._final

    def tell(self, order: Order) -> None:
        """Send an order to end. Does nothing if the worker has died."""
        self._told_at.setdefault(order, time.monotonic())  # one that is repeated gives no more time
        self._orders_sent += 1
        if self._orders_sent > MOST_ORDERS:  # a full pipe would block the supervisor
            return
        with suppress(OSError):
            self.orders.send(order)

    def read(self) -> None:
        """Read what the worker sends: that it serves, or its last metrics. Raises `EOFError` at its end."""
        message = self.orders.recv()
        if isinstance(message, Serving):
            self.ready_at, self.has_metrics = time.monotonic(), message.has_metrics
            self._ends_within = {Order.DRAIN: message.drains_within, Order.RETIRE: message.retires_within}
            self._told_at = dict.fromkeys(self._told_at, self.ready_at)  # it follows what it was told before only now
        elif message is not None:
            self._final = message

    def kill_if_late(self) -> None:
        """Kill the worker if it should have ended, and has not, for example because its process is stopped."""
        if self._killed or not self._told_at:
            return
        order = Order.DRAIN if Order.DRAIN in self._told_at else Order.RETIRE
        seconds = self._ends_within[order] + STOP_LATE
        if time.monotonic() < self._told_at[order] + seconds:
            return
        self._killed = True
        logger.error(
            "%s has not ended within %.0f s and is killed; its runs are continued or marked as interrupted",
            self,
            seconds,
        )
        self.process.kill()

    def log_slow_start(self) -> None:
        """Log once that the worker has not started for long. It is not killed, since it may update a store."""
        if self.ready or self.leaving or self._slow_start_logged or time.monotonic() < self._started_at + SLOW_START:
            return
        self._slow_start_logged = True
        logger.warning(
            "%s has not started for %.0f s; if it hangs, `kill -9 %s` gives it up", self, SLOW_START, self.process.pid
        )

    def sample(self) -> Any:
        """Ask for the metrics, and return them, or the last ones if no answer comes in time. Any thread may call it."""
        with self._reading, suppress(EOFError, OSError):
            while self._metrics.poll():  # the answer to an earlier question, which came too late
                self._read_sample()
            if not self._asked:  # the questions to a process that is stopped would fill the pipe
                self._metrics.send(Order.METRICS)
                self._asked = True
            if self._metrics.poll(ANSWERS_WITHIN):
                self._read_sample()
        return self.counts

    def _read_sample(self) -> None:
        sample = self._metrics.recv()
        self._asked = False
        if sample is not None:
            self._sampled = sample

    def close(self) -> None:
        """Release the process and its links, after its end."""
        self.process.join()
        self.orders.close()
        with self._reading:  # `sample` ends at once, unless a forked child holds the other end of the link
            self._metrics.close()


def pause_after(early_deaths: int) -> float:
    """Return the seconds to wait before the next start, after so many early deaths in succession."""
    if not early_deaths:
        return 0.0
    doublings = min(early_deaths - 1, 10)  # a power of a crash loop that lasts hours does not fit into a float
    return min(START_AGAIN_AFTER * (1 << doublings), START_AGAIN_AFTER_AT_MOST)


class Supervisor:
    """Keeps `count` workers running until a signal comes. `target` serves the sockets in a worker's process.

    `on_first` is called when the first worker serves; if it raises an error, `run` stops the worker and raises it.
    `on_ready` is called when all serve, and `on_gone` with the metrics of each that has ended. `ending` is held from
    the removal of a worker from `workers` to the end of `on_gone`, so a thread that holds it counts each worker once.

    It kills a worker that does not end in its time.

    SIGTERM and SIGINT drain all workers, and a second one is a second signal for each. SIGHUP replaces one worker after
    another: the new one serves before the old one retires. A SIGHUP during the start or a replacement begins another
    replacement afterwards. If the terminal of the start is closed, SIGHUP drains the workers.
    """

    def __init__(
        self,
        target: Callable[[list[socket.socket], Link], int],
        sockets: Sequence[socket.socket],
        count: int,
        *,
        on_first: Callable[[Worker], None],
        on_ready: Callable[[], None],
        on_gone: Callable[[Any], None],
    ) -> None:
        self._target = target
        self._sockets = list(sockets)
        self._count = count
        self._on_first = on_first
        self._on_ready = on_ready
        self._on_gone = on_gone
        self._spawn = multiprocessing.get_context("spawn")
        self._workers: dict[int, Worker] = {}
        self._number = 0
        self._signals: list[int] = []
        self._wakes, self._woken = socket.socketpair()
        self._starting = True
        self._stopping = False
        self._replacement_asked = False
        self._failures = 0
        self._start_at = 0.0
        self.ending = threading.Lock()
        self.restarts = 0
        """Workers that were started in place of one that had died."""

    @property
    def workers(self) -> Sequence[Worker]:
        """The workers that have not ended. Any thread may read them."""
        return list(self._workers.values())

    def run(self) -> int:
        """Serve until a signal has stopped all workers. Returns the exit status: that of a failed start, else 0."""
        self._install()
        try:
            # The first worker alone brings the tables of a store up to date.
            status = self._start_up_to(1)
            for first in self.workers:
                self._on_first(first)
            status = self._start_up_to(self._count) if status is None else status
        except BaseException:
            self._stop_all()
            raise
        if status is not None:
            self._stop_all()
            return status
        self._starting = False
        if not self._stopping:
            self._on_ready()
        while self._workers or not self._stopping:
            if self._replacement_asked and not self._stopping:
                self._replace_all()
            self._start_missing()
            self._step()
        return 0

    def _stop_all(self) -> None:
        self._drain()
        while self._workers:
            self._step()

    def _install(self) -> None:
        self._wakes.setblocking(False)
        self._woken.setblocking(False)
        signal.set_wakeup_fd(self._wakes.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signal.signal(signal.SIGHUP, self._on_signal)
        for name in FORWARDED:
            if (forwarded := number_of(name)) is not None:
                signal.signal(forwarded, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals.append(number)

    def _start_up_to(self, count: int) -> int | None:
        """Start workers until there are `count` that serve. Returns the status of one that ended before, or None."""
        while len(self._workers) < count and not self._stopping:
            self._start_one()
        while not self._stopping and not all(worker.ready for worker in self._workers.values()):
            ended = self._step()
            if any(not worker.ready for worker in ended) and not self._stopping:
                return max(1, *(worker.process.exitcode or 0 for worker in ended))
        return None

    def _start_one(self) -> Worker:
        self._number += 1
        orders, workers_orders = self._spawn.Pipe()
        metrics, workers_metrics = self._spawn.Pipe()
        link = (self._number, workers_orders, workers_metrics)
        process = self._spawn.Process(
            target=_work, args=(self._target, self._sockets, *link), name=f"jimsapi worker {self._number}"
        )
        process.start()
        workers_orders.close()
        workers_metrics.close()
        worker = self._workers[self._number] = Worker(self._number, process, orders, metrics)
        return worker

    def _step(self) -> list[Worker]:
        """Wait for the next event, and handle it. Returns the workers that have ended."""
        ready = wait([self._woken, *self._events()], SAMPLE_EVERY)
        with suppress(BlockingIOError):
            self._woken.recv(4096)
        ended = [worker for worker in self.workers if worker.process.sentinel in ready or worker.has_exited]
        for worker in self.workers:
            if worker.orders in ready:
                with suppress(EOFError, OSError):
                    worker.read()
        for worker in ended:
            self._on_end(worker)
        for worker in self.workers:
            worker.kill_if_late()
            worker.log_slow_start()
        while self._signals:
            self._handle(self._signals.pop(0))
        return ended

    def _start_missing(self) -> None:
        """Start workers in place of those that have died, if it is time."""
        if self._stopping or time.monotonic() < self._start_at:
            return
        for _ in range(self._missing()):
            self.restarts += 1
            self._start_one()

    def _missing(self) -> int:
        return self._count - sum(not worker.leaving for worker in self._workers.values())

    def _events(self) -> Iterator[Any]:
        for worker in self._workers.values():
            yield worker.process.sentinel
            if not worker.orders.closed:
                yield worker.orders

    def _on_end(self, worker: Worker) -> None:
        with suppress(EOFError, OSError):
            while worker.orders.poll():
                worker.read()
        worker.close()
        with self.ending:
            del self._workers[worker.number]
            self._on_gone(worker.counts)
        if self._stopping or worker.leaving or (self._starting and not worker.ready):
            return
        self._failures = self._failures + 1 if worker.died_early else 0
        pause = pause_after(self._failures)
        self._start_at = time.monotonic() + pause
        self._log_end(worker, pause)

    def _log_end(self, worker: Worker, pause: float) -> None:
        code = worker.process.exitcode or 0
        cause = f"by {signal.Signals(-code).name}" if code < 0 else f"with status {code}"
        again = ""
        if self._missing() > 0:  # otherwise a replacement has started one more than the server needs
            again = ", and another one is started" + (f" in {pause:g} s" if pause else "")
        logger.error("%s has ended %s; its runs are continued or marked as interrupted%s", worker, cause, again)

    def _handle(self, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            self._drain()
        elif number == signal.SIGHUP and terminal_is_closed():
            logger.info("the terminal is closed: the server stops")
            self._drain()
        elif number == signal.SIGHUP:
            self._replacement_asked = True
        else:
            for worker in self.workers:
                if worker.ready and worker.process.pid is not None:  # before, the signal would end it
                    with suppress(ProcessLookupError):
                        os.kill(worker.process.pid, number)

    def _drain(self) -> None:
        if not self._stopping:
            notify(STOPPING)
        self._stopping = True
        for worker in self._workers.values():
            worker.tell(Order.DRAIN)

    def _replace_all(self) -> None:
        self._replacement_asked = False
        self._failures, self._start_at = 0, 0.0  # the operator may have removed the cause of early deaths
        logger.info("SIGHUP: the workers are replaced, one after another")
        for old in self.workers:
            # One that has died meanwhile needs no replacement: `_start_missing` has started a new one for it.
            self._wait_for_start(old)  # if it was started just now in place of one that had died
            if self._stopping or (self._is_there(old) and not self._replace(old)):
                return
        logger.info("SIGHUP: all workers are new")

    def _replace(self, old: Worker) -> bool:
        """Start a worker in place of another one. Returns False if it cannot start, or if the server stops."""
        new = self._start_one()
        self._wait_for_start(new)
        if self._stopping:
            return False
        if not self._is_there(new):
            logger.error("SIGHUP: the new worker could not start, so the old ones go on")
            return False
        if self._is_there(old):
            old.tell(Order.RETIRE)
        self._step_while(lambda: self._is_there(old))
        return not self._stopping

    def _wait_for_start(self, worker: Worker) -> None:
        self._step_while(lambda: self._is_there(worker) and not worker.ready)

    def _step_while(self, holds: Callable[[], bool]) -> None:
        """Handle events, and start workers in place of those that die, while a condition holds."""
        while holds() and not self._stopping:
            self._start_missing()
            self._step()

    def _is_there(self, worker: Worker) -> bool:
        return worker.number in self._workers


def _work(
    target: Callable[[list[socket.socket], Link], int],
    sockets: list[socket.socket],
    number: int,
    orders: Connection,
    metrics: Connection,
) -> None:
    """Serve in a worker's process, whose exit status `target` returns."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the supervisor replaces the workers
    os.environ.pop("NOTIFY_SOCKET", None)  # the supervisor tells the service manager
    link = Link(number, orders, metrics)
    link.listen()
    sys.exit(target(sockets, link))
