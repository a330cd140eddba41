"""The registry of the runs that this process works on."""

import asyncio
from collections import ChainMap
from collections.abc import Collection, Iterable, Iterator
from typing import Any
from uuid import UUID

from jimsapi.runs.live import LiveRun, Stop
from jimsapi.threads.run import QUEUED


class Registry:
    """The live runs of a process. A run is registered before the store accepts it, and until its flow has ended.

    `owned` are the identifiers of the runs that the heartbeat must keep open in the store: the live runs, and those
    that were handed over, which the next process continues.
    """

    def __init__(self) -> None:
        self._runs: dict[UUID, LiveRun] = {}
        self._by_key: dict[UUID, LiveRun] = {}
        self._handed_over: dict[UUID, Any] = {}
        self.owned: Collection[UUID] = ChainMap[UUID, Any](self._runs, self._handed_over).keys()  # a view of both
        self._emptied: asyncio.Event | None = None
        """Set as soon as no run is registered. None if no code waits for that."""

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[LiveRun]:
        return iter(list(self._runs.values()))

    def __str__(self) -> str:
        waiting = [run.background for run in self if run.status is QUEUED]
        background = sum(waiting)
        started = len(self) - len(waiting)
        return f"{started} started, {len(waiting) - background} waiting, {background} waiting in the background"

    @property
    def waiting(self) -> int:
        """The number of runs whose message is not in its thread yet."""
        return sum(run.status is QUEUED for run in self)

    def get(self, run_id: UUID) -> LiveRun | None:
        """Return the run with this identifier; None if this process does not work on it."""
        return self._runs.get(run_id)

    def with_key(self, key: UUID) -> LiveRun | None:
        """Return the live run with this idempotency key, if there is one."""
        return self._by_key.get(key)

    def add(self, run: LiveRun) -> None:
        """Register a run, and its idempotency key if it has one and this process answers it."""
        self._runs[run.run_id] = run
        if run.idempotency is not None and not run.hands_over:
            self._by_key[run.idempotency.key] = run

    def remove(self, run: LiveRun) -> bool:
        """Remove a run that has ended. Returns whether it was registered."""
        if self._runs.pop(run.run_id, None) is None:
            return False
        if run.idempotency is not None and not run.hands_over:
            del self._by_key[run.idempotency.key]
        if self._emptied is not None and not self._runs:
            self._emptied.set()
            self._emptied = None
        return True

    def hand_over(self, run_id: UUID) -> None:
        """Leave a run to the next process. It stays in `owned`, so that no heartbeat ends it as an orphan."""
        self._handed_over[run_id] = None

    def take_back(self, run_id: UUID) -> None:
        """Undo `hand_over`: this process works on the run, or has nothing to do with it."""
        self._handed_over.pop(run_id, None)

    def wake(self, run_id: UUID | None) -> None:
        """Notify a run that it may start, if this process works on it."""
        if run_id is not None and (run := self._runs.get(run_id)) is not None:
            run.turn.set()

    def stop(self, run_ids: Iterable[UUID], reason: Stop) -> None:
        """Stop those of `run_ids` that are registered."""
        for run_id in run_ids:
            if (run := self._runs.get(run_id)) is not None:
                run.stop(reason)

    async def emptied(self, seconds: float) -> bool:
        """Wait up to `seconds` until no run is registered. Returns False if some still are."""
        if not self._runs:
            return True
        self._emptied = emptied = self._emptied or asyncio.Event()
        try:
            async with asyncio.timeout(seconds):
                await emptied.wait()
        except TimeoutError:
            return False
        return True
