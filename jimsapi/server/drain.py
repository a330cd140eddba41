"""Graceful shutdown: after SIGTERM or SIGINT the port stays open until the accepted work has ended."""

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from contextvars import Context
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Any, Protocol

from jimsapi.server.notify import STOPPING, notify

SEEN_FOR = 0.5
"""Minimum number of seconds for which readiness probes see the drain before the port closes."""
RESERVE = 3.0
"""Seconds of the drain time that are reserved for cancelling, flushing, closing, and requests that are being sent."""
EXIT_EARLY_BY = 0.3
"""Seconds before the end of the drain time at which the process exits, even if something hangs."""

logger = logging.getLogger("jimsapi")


class Work(Protocol):
    """The work that has to end before the server stops: an app.

    From `announce_drain` on, readiness probes get 503, and everything else goes on. `state` yields lines for an
    operator, in any thread.
    """

    def state(self) -> Iterator[str]: ...

    def announce_drain(self) -> None: ...

    async def drain(self, seconds: float) -> None: ...

    def interrupt(self) -> None: ...


class Drain:
    """Delays a signal to the server until the work has ended.

    uvicorn closes its port as soon as it receives SIGTERM. Probes would then not see the drain, and keep-alive clients
    would be disconnected. So this class replaces uvicorn's signal handlers when the app has started, and calls them
    when the work has ended. A second signal interrupts work that has not ended.

    A process that is replaced begins its drain by `begin`, without a signal.

    The drain begins `delay` seconds after the signal, or at the next signal. Until then load balancers see that the
    server is not ready, and the server answers what they still send.

    At the end of the drain time the process exits with `status()`, even if something hangs: a locked store, a pipeline
    that blocks the loop, or a call in a thread. The next start ends the runs that were open, and continues those that
    wait in the background.
    """

    def __init__(
        self,
        work: Callable[[], Work | None],
        drain_time: float,
        flush_logs: Callable[[], None],
        status: Callable[[], int] = lambda: 0,
        delay: float = 0.0,
    ) -> None:
        self._work = work
        self._status = status
        self._drain_time = drain_time
        self._flush_logs = flush_logs
        self._delay = delay
        self._delay_ended = asyncio.Event()
        self._work_seconds = max(drain_time - RESERVE, drain_time / 2)
        self._server_handlers: dict[int, Any] = {}
        self._task: asyncio.Task[None] | None = None
        self._signalled: SimpleQueue[None] = SimpleQueue()  # unlike an Event, it is safe in a signal handler
        self._began_without_signal = False

    def install(self, *, by_signals: bool = True) -> None:
        """Install the signal handlers, in the serving event loop. Does nothing outside the main thread.

        If not `by_signals`, the process ignores signals from now on, and only `request` begins the drain.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        self._loop = asyncio.get_running_loop()
        handler = self._on_signal if by_signals else _ignore
        for number in (signal.SIGTERM, signal.SIGINT):
            self._server_handlers[number] = signal.signal(number, handler)
        threading.Thread(target=self._exit_after_drain_time, name="exit after drain time", daemon=True).start()

    def _exit_after_drain_time(self) -> None:
        self._signalled.get()
        if self._delay:
            with suppress(Empty):  # a second signal ends the delay
                self._signalled.get(timeout=self._delay)
        time.sleep(max(self._drain_time - EXIT_EARLY_BY, 0.0))
        logger.error("the shutdown took longer than --drain-time; the process ends here")
        # If the log's reader has stopped, the write may hang, so it runs in a thread.
        flushing = threading.Thread(target=self._flush_logs, name="last flush", daemon=True)
        flushing.start()
        flushing.join(EXIT_EARLY_BY / 2)
        os._exit(self._status())

    # A signal may interrupt any request. The handler uses a new context: otherwise its log lines would have that
    # request's identifier, and its task would belong to the request's pipeline.

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.request(number)

    def request(self, number: int = signal.SIGTERM) -> None:
        """Do what the signal `number` does. Any thread may call it."""
        self._signalled.put(None)
        with suppress(RuntimeError):  # the loop is closed, and the process is about to exit
            self._loop.call_soon_threadsafe(self._begin_drain, number, context=Context())

    def begin(self) -> None:
        """Begin the drain without a signal and without a delay, if none has begun. Call it in the event loop.

        The next signal is then the first one, which does not interrupt the work.
        """
        if self._task is None:
            self._delay = 0.0  # no load balancer has to see this drain, since other processes have the port
            self._signalled.put(None)
            self._begin_drain(signal.SIGTERM)
            self._began_without_signal = True

    def _begin_drain(self, number: int) -> None:
        work = self._work()
        if work is None:
            self._call_server_handler(number)
        elif self._task is None:
            notify(STOPPING)
            self._task = self._loop.create_task(self._drain(number))
        elif self._began_without_signal:
            self._began_without_signal = False
        elif self._delay and not self._delay_ended.is_set():
            self._delay_ended.set()
        else:
            work.interrupt()
            if self._task.done():  # the server waits for requests that it still answers
                self._call_server_handler(number)

    async def _drain(self, number: int) -> None:
        work = self._work()
        try:
            if work is not None:
                await self._wait_for_load_balancers(work)
                await asyncio.gather(work.drain(self._work_seconds), asyncio.sleep(SEEN_FOR))
        finally:
            self._call_server_handler(number)

    async def _wait_for_load_balancers(self, work: Work) -> None:
        if not self._delay:
            return
        work.announce_drain()
        logger.info("the shutdown begins in %g s (--drain-delay); until then messages are answered", self._delay)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._delay):
                await self._delay_ended.wait()
        self._delay_ended.set()

    def _call_server_handler(self, number: int) -> None:
        handler: Callable[[int, FrameType | None], Any] | Any = self._server_handlers.get(number)
        if callable(handler):
            handler(number, None)


def _ignore(number: int, frame: FrameType | None) -> None:
    """Handle a signal that another process answers for this one."""
