"""The signals for operators: SIGUSR1 logs the state of the server, SIGUSR2 changes the level of its log, and SIGHUP
reads certificates again.

They stop nothing. A thread does the work, so the signals also work while a pipeline blocks the event loop.
"""

import asyncio
import faulthandler
import logging
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextvars import Context
from itertools import chain, islice
from queue import SimpleQueue
from types import FrameType

from jimsapi.asgi.stack import where_task

DETAILS_ON, DETAILS_AS_CONFIGURED = "SIGRTMIN+22", "SIGRTMIN+23"
"""Two signals that Linux has besides SIGUSR2. systemd(1) sets its own log level with the same two."""
MAX_TASKS = 100
"""The number of places for which SIGUSR1 logs how many tasks wait there."""
MAX_TASKS_READ = 10_000
"""The number of tasks that it looks at."""
MAX_LINE = 1500
"""Characters of a line of the state."""
LOOP_ANSWERS_WITHIN = 1.0
"""Seconds after which the event loop counts as blocked. The watchdog says so at about the same time."""

logger = logging.getLogger("jimsapi")


TERMINALS = tuple(number for number in (0, 1, 2) if os.isatty(number))
"""The standard streams that were a terminal at the start."""


def terminal_is_closed() -> bool:
    """Return whether the terminal of the start is closed. Its kernel then sends SIGHUP, too."""
    return bool(TERMINALS) and not any(map(os.isatty, TERMINALS))


def number_of(name: str) -> int | None:
    """Return the number of a signal; None if the system does not have it."""
    base, _, offset = name.partition("+")
    number = getattr(signal, base, None)
    return None if number is None else int(number) + int(offset or 0)


def ignore_signals() -> None:
    """Ignore the signals for operators, which would end a process that has not started yet."""
    for name in ("SIGUSR1", "SIGUSR2", DETAILS_ON, DETAILS_AS_CONFIGURED):
        if (number := number_of(name)) is not None:
            signal.signal(number, signal.SIG_IGN)


class OperatorSignals:
    """Handles the signals for operators. `state` yields lines about the server; any thread may read them.

    `reread` reads files again at SIGHUP, in a thread. `verbose` is whether the log has details as configured. The
    signals change the level of the logger `jimsapi`.
    """

    def __init__(self, state: Callable[[], Iterable[str]], reread: Callable[[], None], *, verbose: bool) -> None:
        self._state = state
        self._reread = reread
        self._verbose = verbose
        self._received: SimpleQueue[int] = SimpleQueue()  # unlike an Event, it is safe in a signal handler
        self._actions: dict[int, tuple[str, Callable[[], None]]] = {}

    def install(self) -> None:
        """Install the signal handlers, in the serving event loop. Does nothing outside the main thread."""
        if threading.current_thread() is not threading.main_thread():
            return
        self._loop = asyncio.get_running_loop()
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup ignores it
            self._handle("SIGHUP", self._on_hangup)
        self._handle("SIGUSR1", self._log_state)
        self._handle("SIGUSR2", self._toggle_details)
        self._handle(DETAILS_ON, lambda: self._set_details(True))
        self._handle(DETAILS_AS_CONFIGURED, lambda: self._set_details(self._verbose))
        if sys.__stderr__ is not None:  # faulthandler writes the stacks of all threads, even if no Python code can run
            faulthandler.register(signal.SIGUSR1, file=sys.__stderr__, chain=True)
        threading.Thread(target=self._work, name="signals", daemon=True).start()

    def _handle(self, name: str, action: Callable[[], None]) -> None:
        number = number_of(name)
        if number is not None:
            self._actions[number] = name, action
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._received.put(number)

    def _work(self) -> None:
        while True:
            name, action = self._actions[self._received.get()]
            try:
                action()
            except Exception:
                logger.exception("%s: the server could not do what the signal asks for; it goes on", name)

    def _on_hangup(self) -> None:
        if terminal_is_closed():
            logger.info("the terminal is closed: the server stops")
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            self._reread()

    def _log_state(self) -> None:
        if not self._loop_answers():
            logger.warning(
                "SIGUSR1: the event loop is blocked: it has not answered for %g s. The stacks of all threads show the "
                "call; the server has just written them to standard error",
                LOOP_ANSWERS_WITHIN,
            )
        for line in chain(self._state(), tasks_state(asyncio.all_tasks(self._loop)), ["end of the state"]):
            logger.info("SIGUSR1: %s", line if len(line) <= MAX_LINE else f"{line[:MAX_LINE]}...")

    def _loop_answers(self) -> bool:
        answered = threading.Event()
        try:
            self._loop.call_soon_threadsafe(answered.set, context=Context())
        except RuntimeError:  # the loop is closed, and the process is about to exit
            return True
        return answered.wait(LOOP_ANSWERS_WITHIN)

    def _toggle_details(self) -> None:
        self._set_details(logging.getLogger("jimsapi").level > logging.DEBUG)

    def _set_details(self, wanted: bool) -> None:
        logging.getLogger("jimsapi").setLevel(logging.DEBUG if wanted else logging.INFO)
        logger.info("the log has %s", "details from now on, as with --verbose" if wanted else "no details any more")


def tasks_state(tasks: set["asyncio.Task[object]"]) -> Iterator[str]:
    """Yield a line for each place at which tasks wait. It has no names of tasks, because apps choose them."""
    places = Counter(where_task(task) for task in islice(tasks, MAX_TASKS_READ))
    for place, count in places.most_common(MAX_TASKS):
        yield f"task {place}" if count == 1 else f"{count} tasks, each: {place}"
    left_out = sum(count for _, count in places.most_common()[MAX_TASKS:]) + max(0, len(tasks) - MAX_TASKS_READ)
    if left_out:
        yield f"and {left_out} more tasks"
