"""Periodic work of a process on its store: the heartbeat, taking over runs of dead processes, and purging old runs."""

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import cast
from uuid import UUID

from jimsapi.runs.outage import OutageLog
from jimsapi.runs.plugin_code import PLUGIN_EXITS, own_task_is_cancelled
from jimsapi.runs.registry import Registry
from jimsapi.runs.stream import Streams
from jimsapi.runs.tasks import EndlessTask
from jimsapi.runs.work import Workers
from jimsapi.threads.errors import StoreUnavailable, StoreUnusable
from jimsapi.threads.run import NOBODY, AdoptedRun
from jimsapi.threads.store import ThreadStore
from jimsapi.threads.work import WorkStore

logger = logging.getLogger("jimsapi.runs")

HEARTBEAT_EVERY = 5.0
PURGE_EVERY = 3600.0
UNCLAIMED_AFTER = timedelta(seconds=10)
"""The age of a run that no worker has claimed at which it is announced again."""
ANNOUNCED_AT_ONCE = 1000


class Housekeeping:
    """Sends the heartbeat of a process, adopts background runs of dead processes, and purges old runs.

    `take_over` begins a background run of a dead process that waits or may start again. `keep_runs` is how long a run
    is kept after its end. Threads without an event for `expire_threads` are deleted; None keeps them. If there are
    `workers`, the background runs of dead processes are left to them.
    """

    def __init__(
        self,
        store: ThreadStore,
        owner: UUID,
        runs: Registry,
        streams: Streams,
        outage: OutageLog,
        keep_runs: timedelta,
        expire_threads: timedelta | None,
        take_over: Callable[[AdoptedRun], None],
    ) -> None:
        self.store = store
        self._owner = owner
        self._runs = runs
        self._streams = streams
        self._outage = outage
        self._keep_runs = keep_runs
        self._expire_threads = expire_threads
        self._take_over = take_over
        self.workers: Workers | None = None
        self._adopts = False
        # A heartbeat ends runs that are not registered here. So no heartbeat may run between the adoption of a run in
        # the store and its registration.
        self._ownership = asyncio.Lock()
        self._task = EndlessTask(self._repeat, "housekeeping")

    async def start(self) -> None:
        """End the runs that dead processes left open, and start the heartbeat.

        Raises `StoreUnusable` if the store is not available for that.
        """
        try:
            interrupted = await self.store.recover(self._owner)
        except StoreUnavailable as error:
            raise StoreUnusable(f"{self.store.name}: the runs of an earlier process cannot be read: {error}") from error
        if interrupted:
            logger.warning("%d runs of an earlier process were open; they are marked interrupted", interrupted)
        self._task.start()

    async def stop(self, seconds: float) -> None:
        """Stop the heartbeat, and wait up to `seconds` until it has ended."""
        await self._task.stop(seconds)

    async def adopt(self) -> None:
        """Adopt the background runs of dead processes that wait or may start again, now and after each heartbeat.

        If there are workers, raises `StoreUnusable` if the store cannot leave runs to them.
        """
        self._adopts = True
        if self.workers is not None:
            await self._leave_to(self.workers)
            return
        async with self._ownership:
            for adopted in await self.store.adopt(self._owner):
                if not self._adopts:
                    self._runs.hand_over(adopted.run_id)
                elif self._runs.get(adopted.run_id) is None:
                    self._take_over(adopted)

    async def _leave_to(self, workers: Workers) -> None:
        """Announce the background runs that dead processes left, and those that no worker has claimed for a while."""
        if not hasattr(self.store, "claim"):
            raise StoreUnusable(
                f"{self.store.name} cannot leave runs to workers, which are other processes; use a store that they can "
                "share: --store postgresql://…, with the plugin jimsapi-postgres"
            )
        left = [run.run_id for run in await self.store.adopt(NOBODY)]
        waiting = await cast(WorkStore, self.store).unclaimed(UNCLAIMED_AFTER, ANNOUNCED_AT_ONCE)
        await workers.announce(list(dict.fromkeys([*left, *waiting])))

    def stop_adopting(self) -> None:
        """Adopt no further run, because the process drains."""
        self._adopts = False

    async def _expire(self) -> None:
        if self._expire_threads is not None and (expired := await self.store.expire(self._expire_threads)):
            logger.info("%d threads had no event for %s; they are deleted", expired, self._expire_threads)

    async def _repeat(self) -> None:
        """Repeat the heartbeat, the adoption and the purge until cancelled."""
        loop = asyncio.get_running_loop()
        purge_at = loop.time()
        while True:
            try:
                self._streams.tidy(loop.time())
                async with self._ownership:
                    may_start = await self.store.heartbeat(self._owner, self._runs.owned)
                self._outage.works()
                for run_id in may_start:
                    self._runs.wake(run_id)
                if self._adopts:
                    await self.adopt()
                if loop.time() >= purge_at:
                    await self.store.purge(self._keep_runs)
                    await self._expire()
                    purge_at = loop.time() + PURGE_EVERY
            except StoreUnavailable as error:
                self._outage.refused(error)
            except (Exception, *PLUGIN_EXITS):
                if own_task_is_cancelled():
                    raise
                logger.exception("housekeeping failed; it is retried")
            await asyncio.sleep(HEARTBEAT_EVERY)
