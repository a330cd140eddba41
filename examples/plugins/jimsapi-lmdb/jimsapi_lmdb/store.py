"""The store of threads, events and runs."""

import asyncio
import fcntl
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Self, TypeVar
from uuid import UUID

import lmdb
from jimsapi.threads import (
    KEEP_KEYS,
    NO_FILTER,
    NO_RUN_FILTER,
    Accepted,
    AdoptedRun,
    CommitRecord,
    ContactPage,
    ContextLimits,
    Created,
    DayTotal,
    Event,
    EventPage,
    EventRow,
    Feedback,
    ForkPlan,
    ModelTotal,
    NewEvent,
    Outcome,
    Rating,
    RunFilter,
    RunPage,
    RunPlan,
    SearchPage,
    SearchQuery,
    Settled,
    Started,
    StoredRun,
    StoreUnavailable,
    StoreUnusable,
    ThreadChange,
    ThreadFacts,
    ThreadFilter,
    ThreadPage,
    ThreadPlan,
    ThreadQuery,
    ThreadRecord,
    ThreadSummary,
    UsageHolder,
    uuid7,
)

from jimsapi_lmdb.tables import NAMES
from jimsapi_lmdb.work import Work

MAP_SIZE = 1 << 36
"""Bytes that the file may grow to. LMDB reserves addresses for them, and no memory."""

Result = TypeVar("Result")


class LmdbStore:
    """A `ThreadStore` in a folder that one process opens at a time. One thread executes all transactions."""

    def __init__(self, folder: Path) -> None:
        self.name = f"lmdb:{folder}"
        self.on_commit: Callable[[CommitRecord], None] | None = None
        self.on_turn: Callable[[UUID], None] | None = None
        self.keep_keys = KEEP_KEYS
        self.max_restarts = 0
        self.outbox = None  # so durable sinks cannot read this store
        self.subscriptions = None
        self._folder = folder
        self._last = 0

    async def __aenter__(self) -> Self:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="lmdb")
        try:
            await self._in_thread(self._open)
        except BaseException:
            self._executor.shutdown()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._in_thread(self._close)
        self._executor.shutdown()

    def preflight(self) -> str | None:
        """Return what opening the store would create."""
        return None if self._folder.exists() else f"the folder {self._folder}"

    def _open(self) -> None:
        try:
            self._folder.mkdir(exist_ok=True)
            self._lock = (self._folder / "process.lock").open("ab")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._environment = lmdb.open(str(self._folder), max_dbs=len(NAMES), map_size=MAP_SIZE)
            self._databases: dict[str, Any] = {name: self._environment.open_db(name.encode()) for name in NAMES}
        except BlockingIOError:
            raise StoreUnusable(f"cannot open {self._folder}: another process uses it; stop that process") from None
        except (OSError, lmdb.Error) as error:
            raise StoreUnusable(f"cannot open {self._folder}: {error}") from None

    def _close(self) -> None:
        self._environment.close()
        self._lock.close()

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        """Run in the thread. It runs, in the order of the calls, also if the caller is cancelled."""
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._executor, work))

    async def _read(self, work: Callable[[Work], Result]) -> Result:
        return await self._in_thread(lambda: self._transact(work, write=False))

    async def _write(self, work: Callable[[Work], Result]) -> Result:
        """Execute a transaction, and report it when it is committed, or when LMDB fails."""
        began = time.perf_counter()
        try:
            result = await self._in_thread(lambda: self._transact(work, write=True))
        except StoreUnavailable:
            self._report(began, failed=True)
            raise
        self._report(began, failed=False)
        return result

    def _report(self, began: float, *, failed: bool) -> None:
        if self.on_commit is not None:
            self.on_commit(CommitRecord(1, time.perf_counter() - began, failed))

    def _transact(self, work: Callable[[Work], Result], *, write: bool) -> Result:
        self._last = max(time.time_ns() // 1000, self._last + 1)
        try:
            with self._environment.begin(write=write) as transaction:
                return work(Work(transaction, self._databases, self._last))
        except lmdb.Error as error:
            reason = "disk full" if isinstance(error, lmdb.MapFullError) else ""
            raise StoreUnavailable(f"{self.name}: {error}", reason) from error

    async def ping(self) -> None:
        """Read from the store."""
        await self._read(lambda work: None)

    async def accept(self, plan: RunPlan) -> Accepted:
        new_ids = uuid7(), uuid7()
        return await self._write(lambda work: work.accept(plan, new_ids, self.keep_keys))

    async def start(
        self, run_id: UUID, owner: UUID, events: Sequence[NewEvent], context: ContextLimits
    ) -> Started | None:
        return await self._write(lambda work: work.start(run_id, owner, events, context))

    async def finish(self, run_id: UUID, owner: UUID, outcome: Outcome) -> Settled:
        return await self._write(lambda work: work.finish(run_id, owner, outcome))

    async def append(
        self, thread_id: UUID, acting_for: str | None, events: Sequence[NewEvent], run_id: UUID | None = None
    ) -> list[EventRow]:
        return await self._write(lambda work: work.append(thread_id, acting_for, events, run_id))

    async def cancel(self, run_id: UUID) -> Settled:
        return await self._write(lambda work: work.cancel(run_id))

    async def heartbeat(self, owner: UUID, live: Collection[UUID]) -> list[UUID]:
        return await self._write(lambda work: work.heartbeat(owner, live))

    async def recover(self, owner: UUID) -> int:
        return await self._write(lambda work: work.recover(owner, self.max_restarts))

    async def adopt(self, owner: UUID) -> list[AdoptedRun]:
        return await self._write(lambda work: work.adopt(owner, self.max_restarts))

    async def run(self, run_id: UUID, acting_for: str | None, caller: UUID | None) -> StoredRun:
        return await self._read(lambda work: work.run(run_id, acting_for, caller))

    async def runs(
        self, acting_for: str | None, limit: int, after: str | None, only: RunFilter = NO_RUN_FILTER
    ) -> RunPage:
        return await self._read(lambda work: work.runs(acting_for, limit, after, only))

    async def contacts(self, acting_for: str | None, limit: int, after: str | None) -> ContactPage:
        return await self._read(lambda work: work.contacts(acting_for, limit, after))

    async def find_thread(self, query: ThreadQuery) -> ThreadRecord:
        return await self._read(lambda work: work.find_thread(query))

    async def events_by_id(self, thread_id: UUID, event_ids: Sequence[UUID]) -> list[EventRow]:
        return await self._read(lambda work: work.events_by_id(thread_id, event_ids))

    async def thread(self, thread_id: UUID, acting_for: str | None) -> ThreadRecord:
        return await self._read(lambda work: work.thread(thread_id, acting_for))

    async def threads(
        self,
        contact_id: str,
        limit: int,
        after: str | None,
        archived: bool | None = None,
        only: ThreadFilter = NO_FILTER,
    ) -> ThreadPage:
        return await self._read(lambda work: work.threads(contact_id, limit, after, archived, only))

    async def search(
        self,
        query: SearchQuery,
        contact_id: str,
        limit: int,
        after: str | None,
        archived: bool | None = None,
        only: ThreadFilter = NO_FILTER,
    ) -> SearchPage:
        return await self._read(lambda work: work.search(query, contact_id, limit, after, archived, only))

    async def events(self, thread_id: UUID, acting_for: str | None, limit: int, after: str | None) -> EventPage:
        return await self._read(lambda work: work.events(thread_id, acting_for, limit, after))

    async def load_events(self, thread_id: UUID, before: Event | None, limit: int) -> list[EventRow]:
        return await self._read(lambda work: work.load_events(thread_id, before, limit))

    async def create(self, plan: ThreadPlan) -> Created:
        return await self._write(lambda work: work.create(plan))

    async def fork(self, plan: ForkPlan) -> ThreadRecord:
        return await self._write(lambda work: work.fork(plan))

    async def change_thread(self, thread_id: UUID, acting_for: str | None, change: ThreadChange) -> ThreadFacts:
        return await self._write(lambda work: work.change_thread(thread_id, acting_for, change))

    async def rate(self, thread_id: UUID, acting_for: str | None, event_id: UUID, rating: Rating | None) -> None:
        await self._write(lambda work: work.rate(thread_id, acting_for, event_id, rating))

    async def feedback(
        self, thread_id: UUID, acting_for: str | None, limit: int | None = None, after: UUID | None = None
    ) -> list[Feedback]:
        return await self._read(lambda work: work.feedback(thread_id, acting_for, limit, after))

    async def summaries(self, thread_ids: Sequence[UUID]) -> list[ThreadSummary]:
        return await self._read(lambda work: work.summaries(thread_ids))

    async def thread_usage(self, thread_id: UUID, acting_for: str | None) -> list[ModelTotal]:
        return await self._read(lambda work: work.thread_usage(thread_id, acting_for))

    async def usage(self, holder: UsageHolder, first: date, last: date) -> list[DayTotal]:
        return await self._read(lambda work: work.usage(holder, first, last))

    async def add_usage(self, run_id: UUID, contact_id: str, caller: UUID, events: Sequence[NewEvent]) -> None:
        await self._write(lambda work: work.add_usage(run_id, contact_id, caller, events))

    async def expire(self, older_than: timedelta) -> int:
        return await self._write(lambda work: work.expire(older_than))

    async def delete_thread(self, thread_id: UUID, acting_for: str | None) -> list[UUID]:
        return await self._write(lambda work: work.delete_thread(thread_id, acting_for))

    async def delete_contact(self, contact_id: str) -> list[UUID]:
        return await self._write(lambda work: work.delete_contact(contact_id))

    async def purge(self, older_than: timedelta) -> int:
        return await self._write(lambda work: work.purge(older_than, self.keep_keys))
