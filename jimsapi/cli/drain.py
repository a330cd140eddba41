"""Stopping without a cut: on SIGTERM or SIGINT the port stays open until the accepted runs are done."""

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from types import FrameType
from typing import Any

from jimsapi.api.app import Api

SEEN_FOR = 0.5
"""Seconds that readiness probes can see the drain before the port closes, at the least."""
RESERVE = 3.0
"""Seconds of the drain time that are kept for cancelling, flushing, closing and half-sent requests."""
LAST_RESORT = 0.3
"""Seconds before the end of the drain time at which the process ends as it stands."""

logger = logging.getLogger("jimsapi")


class Drain:
    """Withholds a signal from the server until the service has drained.

    A server that hears of SIGTERM closes its port at once: probes then never see the drain, and keep-alive clients are
    cut. So the server's handlers are replaced when the app has started, and called when the work is done. A second
    signal interrupts what still runs.

    When the drain time is over the process ends with status 0 as it stands, whatever hangs: a store that is locked, a
    pipeline that blocks the loop or left a call behind in a thread. The next start marks the runs that are open then.
    """

    def __init__(self, api: Api, drain_time: float, flush_logs: Callable[[], None]) -> None:
        self._api = api
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
        threading.Thread(target=self._end_at_last, name="last resort", daemon=True).start()

    def _end_at_last(self) -> None:
        self._signalled.get()
        time.sleep(max(self._drain_time - LAST_RESORT, 0.0))
        logger.error("the shutdown took longer than --drain-time allows and ends here")
        # If nobody reads the log any more, writing it is what hangs.
        flushing = threading.Thread(target=self._flush_logs, name="last words", daemon=True)
        flushing.start()
        flushing.join(LAST_RESORT / 2)
        os._exit(0)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signalled.put(None)
        self._loop.call_soon_threadsafe(self._begin, number)

    def _begin(self, number: int) -> None:
        service = self._api.service
        if service is None:
            self._tell_server(number)
        elif self._task is None:
            service.draining = True
            self._task = self._loop.create_task(self._drain(number))
        else:
            service.interrupt()

    async def _drain(self, number: int) -> None:
        service = self._api.service
        try:
            if service is not None:
                await asyncio.gather(service.drain(self._work_for), asyncio.sleep(SEEN_FOR))
        finally:
            self._tell_server(number)

    def _tell_server(self, number: int) -> None:
        handler: Callable[[int, FrameType | None], Any] | Any = self._servers.get(number)
        if callable(handler):
            handler(number, None)
