"""Background runs that workers do, which are other processes with the same store.

A server accepts the message, and the run is stored as one of `NOBODY`. Then the server puts its identifier into a queue
that a plugin carries. A worker that receives it claims the run in the store, does it, and returns it to the queue only
if it is not done. So the store decides who does a run, and the queue may lose or repeat identifiers: servers and
workers put those again that nobody has claimed.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Protocol, Self, cast
from uuid import UUID

from jimsapi.runs.live import LiveRun
from jimsapi.runs.outage import OutageLog
from jimsapi.runs.plugin_code import PLUGIN_EXITS, own_task_is_cancelled
from jimsapi.runs.registry import Registry
from jimsapi.runs.tasks import ServiceTask
from jimsapi.threads.errors import RunNotFound, StoreUnavailable
from jimsapi.threads.run import OPEN, AdoptedRun
from jimsapi.threads.store import ThreadStore
from jimsapi.threads.work import WorkStore

logger = logging.getLogger("jimsapi.runs")

ANNOUNCE_WITHIN = 3.0
"""Seconds that a queue has to receive identifiers. It must be less than the time between two heartbeats."""
LOOK_AGAIN_AFTER = 1.0
"""Seconds after which a worker receives a run again that it cannot claim yet."""
RECEIVE_AGAIN_AFTER = 1.0
"""Seconds after which a worker calls a queue again that failed."""
STOP_WITHIN = 3.0
"""Seconds in which a queue must end after a drain."""

DoRun = Callable[[UUID], Awaitable[float | None]]


class WorkQueue(Protocol):
    """Carries the identifiers of background runs from servers to workers. `name` is its name in logs.

    It delivers each identifier to one worker at a time, and again if that one dies. It may lose identifiers, and
    deliver them more than once.
    """

    name: str

    async def put(self, run_ids: Sequence[UUID]) -> None:
        """Add identifiers. Those that the queue has already are not added again.

        If it raises, or takes longer than 3 seconds, the caller puts them again later. The calls of clients do not wait
        for it.
        """

    async def receive(self, do: DoRun, at_once: int) -> None:
        """Call `do` for each identifier, for at most `at_once` at the same time, until `stop_receiving` is called.

        `do` returns when the run needs no more work from this worker, which may take hours. If it returns None, remove
        the identifier. If it returns a number, deliver the identifier again after so many seconds, to any worker. `do`
        raises only if its task is cancelled. Return when all calls have ended.
        """

    def stop_receiving(self) -> None:
        """Call `do` for no other identifier, and return those that it was not called for."""


class Workers:
    """The workers, as far as a queue reaches them."""

    def __init__(self, queue: WorkQueue) -> None:
        self.queue = queue
        self._failed = False

    async def announce(self, run_ids: Sequence[UUID]) -> None:
        """Put runs into the queue. If that fails, housekeeping announces them again, since nobody claims them."""
        if not run_ids:
            return
        try:
            async with asyncio.timeout(ANNOUNCE_WITHIN):
                await self.queue.put(run_ids)
        except (Exception, *PLUGIN_EXITS) as error:
            if own_task_is_cancelled():
                raise
            if not self._failed:
                text = "work queue %s does not receive runs, which wait in the store until it does: %s: %s"
                logger.error(text, self.queue.name, type(error).__name__, error)
            self._failed = True
            return
        if self._failed:
            logger.warning("work queue %s receives runs again", self.queue.name)
        self._failed = False


class Worker:
    """Does the runs of a queue in this process, while it is entered.

    `take_over` begins a run that is claimed. At most `at_once` runs are done at the same time.
    """

    def __init__(
        self,
        queue: WorkQueue,
        store: ThreadStore,
        owner: UUID,
        runs: Registry,
        outage: OutageLog,
        take_over: Callable[[AdoptedRun], None],
        at_once: int,
    ) -> None:
        self.store = store
        self._queue = queue
        self._owner = owner
        self._runs = runs
        self._outage = outage
        self._take_over = take_over
        self._at_once = at_once
        self._claiming: set[UUID] = set()
        self._stopping = False
        self._task: ServiceTask[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = ServiceTask.begin(self._receive(), loop=asyncio.get_running_loop(), name="worker")
        logger.info("the worker does the runs of %s, at most %d at once", self._queue.name, self._at_once)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._task is not None
        self.stop_receiving()
        await asyncio.wait({self._task}, timeout=STOP_WITHIN)
        self._task.end()

    def stop_receiving(self) -> None:
        """Begin no other run."""
        if not self._stopping:
            self._stopping = True
            self._queue.stop_receiving()
            logger.info("the worker begins no other run; %d of its runs are open", len(self._runs))

    async def _receive(self) -> None:
        while not self._stopping:
            try:
                await self._queue.receive(self._do, self._at_once)
            except (Exception, *PLUGIN_EXITS) as error:
                if own_task_is_cancelled():
                    raise
                logger.error("work queue %s failed: %s: %s", self._queue.name, type(error).__name__, error)
            if not self._stopping:
                await asyncio.sleep(RECEIVE_AGAIN_AFTER)

    async def _do(self, run_id: UUID) -> float | None:
        """Do a run. Returns None if it has ended, otherwise after how many seconds it must be delivered again."""
        if self._stopping:
            return 0.0
        if run_id in self._claiming:  # the queue has delivered it twice
            return LOOK_AGAIN_AFTER
        run = self._runs.get(run_id) or await self._claim(run_id)
        if run is None:
            return await self._look_again_after(run_id)
        if run.task is not None:
            await asyncio.wait({run.task})
        return 0.0 if run.status in OPEN else None

    async def _claim(self, run_id: UUID) -> LiveRun | None:
        """Begin a run if this worker may do it."""
        store = cast(WorkStore, self.store)
        self._claiming.add(run_id)
        try:
            self._runs.hand_over(run_id)  # otherwise a heartbeat ends the run if the result of `claim` is lost
            claimed = await self._outage.outlast(partial(store.claim, run_id, self._owner))
            if claimed is not None and self._stopping:
                return None  # the next process continues it: the drain may not wait for it
            if claimed is not None and self._runs.get(run_id) is None:
                self._take_over(claimed)
            self._runs.take_back(run_id)
        finally:
            self._claiming.discard(run_id)
        return self._runs.get(run_id)

    async def _look_again_after(self, run_id: UUID) -> float | None:
        """Return after how many seconds to look again whether a run that was not claimed can be; None: it has ended.

        It has an older run of its thread before it, or an owner, which may be dead.
        """
        try:
            run = await self.store.run(run_id, None, None)
        except RunNotFound:
            return None
        except StoreUnavailable:
            return LOOK_AGAIN_AFTER
        return LOOK_AGAIN_AFTER if run.status in OPEN else None
