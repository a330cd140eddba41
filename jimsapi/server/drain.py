"""Stopping without a cut: on SIGTERM, SIGINT or SIGHUP the port stays open until the accepted runs are done."""

import asyncio
import faulthandler
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from itertools import islice
from queue import SimpleQueue
from types import FrameType
from typing import Any, Protocol

SEEN_FOR = 0.5
"""Seconds that readiness probes can see the drain before the port closes, at the least."""
RESERVE = 3.0
"""Seconds of the drain time that are kept for cancelling, flushing, closing and half-sent requests."""
MAX_TASKS = 100
"""Tasks that SIGUSR1 shows."""
LAST_RESORT = 0.3
"""Seconds before the end of the drain time at which the process ends as it stands."""

logger = logging.getLogger("jimsapi")


def where(task: asyncio.Task[Any]) -> str:
    """A task's name, and the line at which each of its coroutines waits, the innermost last."""
    lines = []
    coroutine: Any = task.get_coro()
    while (frame := getattr(coroutine, "cr_frame", None)) is not None:
        lines.append(f"{coroutine.__qualname__} ({frame.f_code.co_filename}:{frame.f_lineno})")
        coroutine = coroutine.cr_await
    return f"{task.get_name()}: {' > '.join(lines)}"


class Work(Protocol):
    """What has to come to an end before the server stops: it takes nothing new while it is `draining`."""

    draining: bool

    @property
    def open_runs(self) -> int: ...

    @property
    def waiting_runs(self) -> int: ...

    async def drain(self, seconds: float) -> None: ...

    def interrupt(self) -> None: ...


class Drain:
    """Withholds a signal from the server until the work has drained.

    A server that hears of SIGTERM closes its port at once: probes then never see the drain, and keep-alive clients are
    cut. So the server's handlers are replaced when the app has started, and called when the work is done. A second
    signal interrupts what still runs.

    When the drain time is over the process ends with `status()` as it stands, whatever hangs: a store that is locked, a
    pipeline that blocks the loop or left a call behind in a thread. The next start marks the runs that are open then.
    """

    def __init__(
        self,
        work: Callable[[], Work | None],
        drain_time: float,
        flush_logs: Callable[[], None],
        status: Callable[[], int] = lambda: 0,
    ) -> None:
        self._work = work
        self._status = status
        self._drain_time = drain_time
        self._flush_logs = flush_logs
        self._work_for = max(drain_time - RESERVE, drain_time / 2)
        self._servers: dict[int, Any] = {}
        self._task: asyncio.Task[None] | None = None
        self._signalled: SimpleQueue[None] = SimpleQueue()  # unlike an Event it may be used in a signal handler

    def install(self) -> None:
        """Take over the signals, in the loop that serves. Outside the main thread signals are not ours to take."""
        if threading.current_thread() is not threading.main_thread():
            return
        self._loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._servers[number] = signal.signal(number, self._on_signal)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
            signal.signal(signal.SIGHUP, self._on_signal)
        signal.signal(signal.SIGUSR1, self._on_user_signal)
        signal.signal(signal.SIGUSR2, self._on_user_signal)
        if sys.__stderr__ is not None:  # this writes the stacks of all threads, also while one blocks the loop
            faulthandler.register(signal.SIGUSR1, file=sys.__stderr__, chain=True)
        threading.Thread(target=self._end_at_last, name="last resort", daemon=True).start()

    def _end_at_last(self) -> None:
        self._signalled.get()
        time.sleep(max(self._drain_time - LAST_RESORT, 0.0))
        logger.error("the shutdown took longer than --drain-time allows and ends here")
        # If nobody reads the log any more, writing it is what hangs.
        flushing = threading.Thread(target=self._flush_logs, name="last words", daemon=True)
        flushing.start()
        flushing.join(LAST_RESORT / 2)
        os._exit(self._status())

    # A signal arrives in the middle of somebody's request. What follows is done in a context of its own: its log lines
    # would have that request's identifier, and its tasks would belong to that pipeline.

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signalled.put(None)
        if number == signal.SIGHUP:
            number = signal.SIGTERM  # uvicorn knows no other
        with suppress(RuntimeError):  # the loop is closed: the process is about to end
            self._loop.call_soon_threadsafe(self._begin, number, context=Context())

    def _on_user_signal(self, number: int, frame: FrameType | None) -> None:
        with suppress(RuntimeError):
            work = self._explain if number == signal.SIGUSR1 else self._ignore
            self._loop.call_soon_threadsafe(work, context=Context())

    def _ignore(self) -> None:
        logger.info("SIGUSR2 is ignored; SIGUSR1 logs what the server works on")

    def _explain(self) -> None:
        """Log the open runs and where each task waits. No value is in it, which may be a secret or a message."""
        work = self._work()
        if work is not None:
            logger.info("SIGUSR1: %d runs are open, %d of them wait", work.open_runs, work.waiting_runs)
        tasks = asyncio.all_tasks()
        for task in islice(tasks, MAX_TASKS):
            logger.info("SIGUSR1: task %s", where(task))
        if len(tasks) > MAX_TASKS:
            logger.info("SIGUSR1: and %d more tasks", len(tasks) - MAX_TASKS)

    def _begin(self, number: int) -> None:
        work = self._work()
        if work is None:
            self._tell_server(number)
        elif self._task is None:
            work.draining = True
            self._task = self._loop.create_task(self._drain(number))
        else:
            work.interrupt()

    async def _drain(self, number: int) -> None:
        work = self._work()
        try:
            if work is not None:
                await asyncio.gather(work.drain(self._work_for), asyncio.sleep(SEEN_FOR))
        finally:
            self._tell_server(number)

    def _tell_server(self, number: int) -> None:
        handler: Callable[[int, FrameType | None], Any] | Any = self._servers.get(number)
        if callable(handler):
            handler(number, None)
