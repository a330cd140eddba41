"""The SQLite store: one file, one process, and one writer, which commits waiting operations together."""

import asyncio
import logging
import os
import sqlite3
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar
from uuid import UUID

from jimsapi.stores.sqlite import facts, lists, maintenance, reads, search, transfer, usage, writes
from jimsapi.stores.sqlite.errors import DAMAGED, as_domain_error
from jimsapi.stores.sqlite.file import LOG_REMOVED, DatabaseFiles
from jimsapi.stores.sqlite.lock import DatabaseLock, refuse_lock
from jimsapi.stores.sqlite.outbox import SQLiteOutbox
from jimsapi.stores.sqlite.schema import (
    Durability,
    open_beside_a_server,
    open_reader,
    open_writer,
    refuse_file,
    refuse_place,
)
from jimsapi.stores.sqlite.subscriptions import SQLiteSubscriptions, forget_deleted
from jimsapi.stores.sqlite.writer import Work, Writer
from jimsapi.threads.errors import StoreUnavailable, StoreUnusable
from jimsapi.threads.event import THREAD_CREATED, Event, EventRow, NewEvent, utc_now
from jimsapi.threads.facts import (
    Created,
    Feedback,
    ForkPlan,
    Rating,
    ThreadChange,
    ThreadFacts,
    ThreadPlan,
    ThreadSummary,
)
from jimsapi.threads.ids import uuid7
from jimsapi.threads.maintenance import Migration, StoreStats
from jimsapi.threads.run import (
    NO_RUN_FILTER,
    Accepted,
    AdoptedRun,
    ContactPage,
    ContextLimits,
    EventPage,
    New,
    Outcome,
    RunFilter,
    RunPage,
    RunPlan,
    Settled,
    Started,
    StoredRun,
    ThreadPage,
    ThreadQuery,
    ThreadRecord,
)
from jimsapi.threads.search import NO_FILTER, SearchPage, SearchQuery, ThreadFilter
from jimsapi.threads.store import KEEP_KEYS, CommitRecord
from jimsapi.threads.transfer import Activity, Record, RecordKind, WholeThread
from jimsapi.threads.transitions import config_of_new, keys_known_since
from jimsapi.threads.usage import DayTotal, ModelTotal, UsageHolder

logger = logging.getLogger("jimsapi.store")

T = TypeVar("T")

PING_TIMEOUT = 5.0
"""Seconds after which a ping without an answer fails."""

EXPIRED_AT_ONCE = 100
"""The most threads that one operation examines, and perhaps deletes, when old threads expire."""
PURGED_AT_ONCE = 1000
"""The most runs, or keys, that one operation purges, so that a long purge does not delay other operations."""


class SQLiteStore:
    """A `ThreadStore` in an SQLite file, which other JIMS programs can use at the same time.

    `durability`: with "durable", every commit is synced to the disk before it is acknowledged. With "relaxed", only
    checkpoints sync, so the last commits may be lost in a power cut, but not in a crash of the process.

    Only one process can open the file with jimsapi (`DatabaseLock`). If an operation finds damage, all writes fail
    until the database is opened again. If the write-ahead log was removed, `DatabaseFiles` rescues its content.
    """

    def __init__(self, path: Path | str, *, durability: Durability = "durable") -> None:
        # Symbolic links are resolved, so that all paths to a file use the same lock.
        self._path = os.path.realpath(path)
        self._durability = durability
        self._writer: Writer | None = None
        self._reader: _Reader | None = None
        self._damage: StoreUnavailable | None = None
        self._reopening: asyncio.Task[None] | None = None
        self.name = f"sqlite:///{self._path}"
        self.on_commit: Callable[[CommitRecord], None] | None = None
        self.on_turn: Callable[[UUID], None] | None = None
        self.keep_keys = KEEP_KEYS
        self.max_restarts = 0
        self.outbox = SQLiteOutbox(self._read, self._write_to_outbox)
        self.subscriptions = SQLiteSubscriptions(self._read, self._write)

    async def __aenter__(self) -> Self:
        self._damage = None
        writer = Writer(self._connect, self._disconnect, self._check, self._repair, self._report)
        await writer.open()
        try:
            self._reader = await _Reader.open(self._path)
        except BaseException:
            await writer.close()
            raise
        self._writer = writer
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if self._reopening is not None:
                await asyncio.wait([self._reopening])
        finally:
            await self._close()

    async def _close(self) -> None:
        writer, reader = self._writer, self._reader
        self._writer = self._reader = None
        try:
            if reader is not None:
                await reader.close()
        finally:
            if writer is not None:
                await writer.close()

    async def ping(self) -> None:
        try:
            async with asyncio.timeout(PING_TIMEOUT):
                await self._read(_probe)
                # An empty transaction shows that the writer runs and gets the lock. Only a write shows that a failure
                # is over. The probe is `first`, so that it does not wait for other operations.
                failing = self._writer is not None and self._writer.failing
                await self._write(_touch if failing else _probe, brief=not failing, first=True)
        except TimeoutError:
            message = f"SQLite: {self._path} did not answer within {PING_TIMEOUT:g} s"
            raise StoreUnavailable(message, "no answer") from None

    async def accept(self, plan: RunPlan) -> Accepted:
        work = partial(writes.accept, plan=plan, new_thread=_new_thread(plan), keep_keys=self.keep_keys)
        return await self._write(work, brief=plan.context.events > 0)

    async def start(
        self, run_id: UUID, owner: UUID, events: Sequence[NewEvent], context: ContextLimits
    ) -> Started | None:
        work = partial(writes.start, run_id=run_id, owner=owner, events=events, context=context)
        return await self._write(work, brief=context.events > 0)

    async def finish(self, run_id: UUID, owner: UUID, outcome: Outcome) -> Settled:
        return await self._write(partial(writes.finish, run_id=run_id, owner=owner, outcome=outcome), brief=True)

    async def append(
        self, thread_id: UUID, acting_for: str | None, events: Sequence[NewEvent], run_id: UUID | None = None
    ) -> list[EventRow]:
        work = partial(writes.append, thread_id=thread_id, acting_for=acting_for, events=events, run_id=run_id)
        return await self._write(work, brief=True)

    async def cancel(self, run_id: UUID) -> Settled:
        return await self._write(partial(writes.cancel, run_id=run_id), brief=True)

    async def heartbeat(self, owner: UUID, live: Collection[UUID]) -> list[UUID]:
        return await self._write(partial(writes.heartbeat, owner=owner, live=live), brief=True)

    async def recover(self, owner: UUID) -> int:
        return await self._write(partial(writes.recover, owner=owner, max_restarts=self.max_restarts))

    async def adopt(self, owner: UUID) -> list[AdoptedRun]:
        return await self._write(partial(writes.adopt, owner=owner, max_restarts=self.max_restarts))

    async def run(self, run_id: UUID, acting_for: str | None, caller: UUID | None) -> StoredRun:
        return await self._read(partial(reads.read_run, run_id=run_id, acting_for=acting_for, caller=caller))

    async def runs(
        self, acting_for: str | None, limit: int, after: str | None, only: RunFilter = NO_RUN_FILTER
    ) -> RunPage:
        work = partial(lists.read_runs, acting_for=acting_for, limit=limit, after=after, only=only)
        return await self._read(work)

    async def contacts(self, acting_for: str | None, limit: int, after: str | None) -> ContactPage:
        return await self._read(partial(lists.read_contacts, acting_for=acting_for, limit=limit, after=after))

    async def find_thread(self, query: ThreadQuery) -> ThreadRecord:
        return await self._read(partial(writes.find_thread, query=query))

    async def events_by_id(self, thread_id: UUID, event_ids: Sequence[UUID]) -> list[EventRow]:
        return await self._read(partial(reads.read_events_by_id, thread_id=thread_id, event_ids=event_ids))

    async def thread(self, thread_id: UUID, acting_for: str | None) -> ThreadRecord:
        return await self._read(partial(reads.read_thread, thread_id=thread_id, acting_for=acting_for))

    async def threads(
        self,
        contact_id: str,
        limit: int,
        after: str | None,
        archived: bool | None = None,
        only: ThreadFilter = NO_FILTER,
    ) -> ThreadPage:
        work = partial(
            reads.read_threads, contact_id=contact_id, limit=limit, after=after, archived=archived, only=only
        )
        return await self._read(work)

    async def search(
        self,
        query: SearchQuery,
        contact_id: str,
        limit: int,
        after: str | None,
        archived: bool | None = None,
        only: ThreadFilter = NO_FILTER,
    ) -> SearchPage:
        """Search, after the index was brought up to date. The first search of a contact adds all its messages."""
        position: search.Position | None = search.FIRST
        while position is not None:
            threads: Sequence[str]
            threads, position = await self._read(partial(search.find_stale, contact_id=contact_id, after=position))
            while threads:
                threads = await self._write(partial(search.add_to_index, contact_id=contact_id, threads=threads))
        find = partial(search.search, query=query, contact_id=contact_id, limit=limit)
        return await self._read(partial(find, after=after, archived=archived, only=only))

    async def events(self, thread_id: UUID, acting_for: str | None, limit: int, after: str | None) -> EventPage:
        return await self._read(
            partial(reads.read_events, thread_id=thread_id, acting_for=acting_for, limit=limit, after=after)
        )

    async def load_events(self, thread_id: UUID, before: Event | None, limit: int) -> list[EventRow]:
        return await self._read(partial(reads.read_events_before, thread_id=thread_id, before=before, limit=limit))

    async def create(self, plan: ThreadPlan) -> Created:
        return await self._write(partial(writes.create, plan=plan))

    async def fork(self, plan: ForkPlan) -> ThreadRecord:
        return await self._write(partial(facts.fork, plan=plan))

    async def change_thread(self, thread_id: UUID, acting_for: str | None, change: ThreadChange) -> ThreadFacts:
        work = partial(facts.change_thread, thread_id=thread_id, acting_for=acting_for, change=change)
        return await self._write(work, brief=True)

    async def rate(self, thread_id: UUID, acting_for: str | None, event_id: UUID, rating: Rating | None) -> None:
        work = partial(facts.rate, thread_id=thread_id, acting_for=acting_for, event_id=event_id, rating=rating)
        await self._write(work, brief=True)

    async def feedback(
        self, thread_id: UUID, acting_for: str | None, limit: int | None = None, after: UUID | None = None
    ) -> list[Feedback]:
        read = partial(facts.read_feedback, thread_id=thread_id, acting_for=acting_for, limit=limit, after=after)
        return await self._read(read)

    async def summaries(self, thread_ids: Sequence[UUID]) -> list[ThreadSummary]:
        return await self._read(partial(facts.read_summaries, thread_ids=thread_ids))

    async def thread_usage(self, thread_id: UUID, acting_for: str | None) -> list[ModelTotal]:
        return await self._read(partial(usage.read_thread_usage, thread_id=thread_id, acting_for=acting_for))

    async def usage(self, holder: UsageHolder, first: date, last: date) -> list[DayTotal]:
        return await self._read(partial(usage.read_usage, holder=holder, first=first, last=last))

    async def add_usage(self, run_id: UUID, contact_id: str, caller: UUID, events: Sequence[NewEvent]) -> None:
        work = partial(usage.add_usage, run_id=run_id, contact_id=contact_id, caller=caller, events=events)
        await self._write(work, brief=True)

    async def delete_thread(self, thread_id: UUID, acting_for: str | None) -> list[UUID]:
        return await self._write(partial(writes.delete_thread, thread_id=thread_id, acting_for=acting_for))

    async def delete_contact(self, contact_id: str) -> list[UUID]:
        return await self._write(partial(writes.delete_contact, contact_id=contact_id))

    async def expire(self, older_than: timedelta) -> int:
        cutoff = utc_now() - older_than
        expired = 0
        after: str | None = ""
        while after is not None:
            work = partial(writes.expire, cutoff=cutoff, after=after, limit=EXPIRED_AT_ONCE)
            count, after = await self._write(work)
            expired += count
        return expired

    async def purge(self, older_than: timedelta) -> int:
        cutoff = utc_now() - older_than
        purged = 0
        while count := await self._write(partial(writes.purge, cutoff=cutoff, limit=PURGED_AT_ONCE)):
            purged += count
        await self._write(writes.purge_webhooks)
        await self._write(forget_deleted)
        known_since = keys_known_since(utc_now(), self.keep_keys)
        while await self._write(partial(writes.purge_keys, used_before=known_since, limit=PURGED_AT_ONCE)):
            pass
        return purged

    async def activity(self) -> Activity:
        return await self._read(transfer.read_activity)

    async def count_threads(self) -> int:
        return await self._read(transfer.count_threads)

    async def export_threads(self, after: UUID | None, limit: int) -> list[WholeThread]:
        return await self._read(partial(transfer.export_threads, after=after, limit=limit))

    async def export_by_id(self, thread_ids: Sequence[UUID]) -> list[WholeThread]:
        return await self._read(partial(transfer.export_by_id, thread_ids=thread_ids))

    async def import_threads(self, threads: Sequence[WholeThread]) -> int:
        return await self._write(partial(transfer.import_threads, threads=threads))

    async def export_records(self, kind: RecordKind, after: Record | None, limit: int) -> list[Record]:
        return await self._read(partial(transfer.export_records, kind=kind, after=after, limit=limit))

    async def import_records(self, records: Sequence[Record]) -> None:
        await self._write(partial(transfer.import_records, records=records))

    async def find_faults(self) -> Sequence[str]:
        return await asyncio.to_thread(maintenance.find_faults, self._path)

    async def stats(self) -> StoreStats:
        return await asyncio.to_thread(maintenance.read_stats, self._path)

    async def vacuum(self) -> tuple[int, int]:
        return await asyncio.to_thread(maintenance.vacuum, self._path)

    async def pending_migration(self) -> Migration:
        return await asyncio.to_thread(maintenance.pending_migration, self._path)

    async def migrate(self) -> Migration:
        return await asyncio.to_thread(maintenance.migrate, self._path, self._durability)

    def _write(self, work: Work[T], *, brief: bool = False, first: bool = False) -> asyncio.Future[T]:
        if self._writer is None:
            raise StoreUnavailable("the store is not open")
        return self._writer.submit(work, brief=brief, first=first)

    async def _write_to_outbox(self, work: Work[T]) -> T:
        return await self._write(work)

    async def _read(self, work: Work[T]) -> T:
        if self._writer is None:
            raise StoreUnavailable("the store is not open")
        if self._reader is None:
            await asyncio.wait([self._begin_reopening()])
        if self._reader is None:
            raise StoreUnavailable(f"SQLite: {self._path} waits for a new write-ahead log", LOG_REMOVED)
        try:
            return await self._reader.read(work)
        except StoreUnavailable as error:
            self._note_damage(error)
            raise

    def beside_a_server(self) -> "SQLiteReadingStore":
        """Return a store that only reads the same file, and can be opened while a server has it open."""
        return SQLiteReadingStore(self._path)

    def preflight(self) -> str | None:
        """Check whether the file could be opened, without opening or changing it.

        Returns what opening would create; None if the file exists. Raises `StoreUnusable` as opening would.
        """
        refuse_file(self._path)
        refuse_lock(self._path)
        return None if os.path.exists(self._path) else f"{self._path} does not exist yet; a start creates it"

    def _connect(self) -> sqlite3.Connection:
        refuse_place(self._path)
        self._lock = DatabaseLock(self._path)
        try:
            connection = open_writer(self._path, self._durability)
            self._files = DatabaseFiles(self._path, self._lock)
        except BaseException:
            self._lock.release()
            raise
        return connection

    def _disconnect(self, connection: sqlite3.Connection) -> None:
        try:
            with suppress(StoreUnavailable):
                self._files.check()  # it detects a removed log
            self._repair(connection)
            self._files.check()
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except StoreUnavailable:
            self._lock.protect_log()
        except sqlite3.Error:
            pass  # the log still has what was not moved, and the next opening reads it
        finally:
            connection.close()
            with suppress(OSError):  # if it fails, the next start rejects the log
                self._files.put_orphaned_log_aside()
            self._lock.release()

    def _repair(self, connection: sqlite3.Connection) -> None:
        """Wait for another program's checkpoint. Rescue a lost log, once the reader has closed its connection."""
        self._files.wait_while_short()
        if self._files.log_is_lost and self._reader is None:
            self._files.rescue(connection)

    def _check(self) -> None:
        """Raise `StoreUnavailable` if a commit would be lost, or if the database is damaged."""
        if self._damage is not None:
            raise self._damage
        self._files.check()

    def _report(self, record: CommitRecord, failure: StoreUnavailable | None) -> None:
        if failure is not None:
            self._note_damage(failure)
        if (self._files.log_is_lost or self._reader is None) and self._writer is not None:
            self._begin_reopening()
        if self.on_commit is not None:
            self.on_commit(record)

    def _note_damage(self, error: StoreUnavailable) -> None:
        if error.reason == DAMAGED and self._damage is None:
            self._damage = error

    def _begin_reopening(self) -> asyncio.Task[None]:
        if self._reopening is None:
            self._reopening = asyncio.get_running_loop().create_task(self._reopen())
            self._reopening.add_done_callback(self._end_reopening)
        return self._reopening

    async def _reopen(self) -> None:
        """Begin a new write-ahead log, and open the reader again. The next read or commit retries after a failure."""
        reader, self._reader = self._reader, None
        try:
            if reader is not None:
                await reader.close()
            await self._write(_probe)
            reader = await _Reader.open(self._path)
        except (StoreUnavailable, StoreUnusable):
            return  # writes raise the cause
        if self._writer is None:  # the store was closed meanwhile
            await reader.close()
        else:
            self._reader = reader

    def _end_reopening(self, reopening: asyncio.Task[None]) -> None:
        # A task that is cancelled before its first step executes no `finally` of its own.
        if self._reopening is reopening:
            self._reopening = None


class _Reader:
    """Reads with its own connection and thread, so that reads do not wait for the writer."""

    def __init__(self, thread: ThreadPoolExecutor, connection: sqlite3.Connection) -> None:
        self._thread = thread
        self._connection = connection

    @classmethod
    async def open(cls, path: str, connect: Callable[[str], sqlite3.Connection] = open_reader) -> Self:
        thread = ThreadPoolExecutor(1, thread_name_prefix="jimsapi-sqlite-reader")
        return cls(thread, await asyncio.get_running_loop().run_in_executor(thread, connect, path))

    async def read(self, work: Work[T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work, self._connection)
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise as_domain_error(error) from error
        except (ValueError, TypeError) as error:
            logger.error("SQLite: a row cannot be read", exc_info=error)
            raise StoreUnavailable(f"SQLite: a row cannot be read: {type(error).__name__}", "unreadable row") from error

    async def close(self) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._connection.close)
        finally:
            self._thread.shutdown(wait=False)


class SQLiteReadingStore(SQLiteStore):
    """A store that only reads a database of `SQLiteStore`. It takes none of jimsapi's locks.

    Every method that writes raises `StoreUnavailable`, except those of its outbox, which operators may change while a
    server runs. Entering it creates and upgrades nothing, and raises
    `StoreUnusable` if the database does not exist, or does not have the tables of this version.
    """

    async def __aenter__(self) -> Self:
        self._reader = await _Reader.open(self._path, _open_existing)
        return self

    async def ping(self) -> None:
        await self._read(_probe)

    def _write(self, work: Work[T], *, brief: bool = False, first: bool = False) -> asyncio.Future[T]:
        raise StoreUnavailable(f"SQLite: {self._path} is open for reading only", "open for reading only")

    async def _write_to_outbox(self, work: Work[T]) -> T:
        return await self._read(partial(_write_beside_a_server, path=self._path, work=work))

    async def _read(self, work: Work[T]) -> T:
        if self._reader is None:
            raise StoreUnavailable("the store is not open")
        return await self._reader.read(work)


def _open_existing(path: str) -> sqlite3.Connection:
    if not os.path.exists(path):
        raise StoreUnusable(f"there is no database {path}; name another with --store")
    refuse_lock(path)  # a log that belongs to another file would be read as if it belonged to this one
    return open_beside_a_server(path)


def _write_beside_a_server(_: sqlite3.Connection, path: str, work: Work[T]) -> T:
    with closing(open_beside_a_server(path, "rw")) as connection:
        connection.execute("BEGIN IMMEDIATE")
        result = work(connection)
        connection.execute("COMMIT")
        return result


def _new_thread(plan: RunPlan) -> writes.NewThread | None:
    for selector in plan.selectors:
        if isinstance(selector, New):
            config = config_of_new(plan, selector)
            return writes.NewThread(uuid7(), NewEvent(uuid7(), THREAD_CREATED, b"{}"), selector.external_id, config)
    return None


def _probe(connection: sqlite3.Connection) -> None:
    connection.execute("SELECT version FROM jimsapi_schema").fetchone()


def _touch(connection: sqlite3.Connection) -> None:
    # SQLite writes nothing for an UPDATE that changes nothing.
    (version,) = connection.execute("SELECT max(version) FROM jimsapi_schema").fetchone()
    connection.execute("DELETE FROM jimsapi_schema")
    connection.execute("INSERT INTO jimsapi_schema (version) VALUES (?)", (version,))
