"""The one thread that writes to an SQLite database: all that waits is committed together."""

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from time import perf_counter
from typing import Any, TypeVar

from jimsapi.threads.errors import DomainError, StoreUnavailable
from jimsapi.threads.sqlite_errors import as_domain_error, as_unavailable
from jimsapi.threads.store import CommitRecord

T = TypeVar("T")

Work = Callable[[sqlite3.Connection], T]

QUIET_TURNS = 4
"""Turns of the event loop without a new operation after which those collected are handed over. What one commit answers
leads to the next operations within as many."""
PATIENCE = 0.005
"""Seconds after which they are handed over in any case."""


class _Operation:
    __slots__ = ("error", "future", "result", "work")

    def __init__(self, work: Work[Any], future: asyncio.Future[Any]) -> None:
        self.work = work
        self.future = future
        self.result: Any = None
        self.error: Exception | None = None


class _RefusedTooLate(Exception):
    """An operation was refused after it had written something."""


class Writer:
    """Runs operations on one connection in one thread, as many as wait in each transaction.

    `connect` opens the connection and `disconnect` closes it; `prepare` is called before each transaction, and `check`
    before each commit: they raise `StoreUnavailable` if it must not be made. All four run in the writer's thread.
    `report` runs in the event loop's; it gets why the transaction, or the first operation of it, failed.
    """

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        disconnect: Callable[[sqlite3.Connection], None],
        prepare: Callable[[sqlite3.Connection], None],
        check: Callable[[], None],
        report: Callable[[CommitRecord, StoreUnavailable | None], None],
    ) -> None:
        self._connect = connect
        self._disconnect = disconnect
        self._prepare = prepare
        self._check = check
        self._report = report
        self._loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._queue: SimpleQueue[list[_Operation] | None] = SimpleQueue()
        self._collected: list[_Operation] = []
        self._turns = 0
        self._patient_until = 0.0
        self._busy = False
        self._closing = False
        self.failing = False
        """Whether the last commit failed."""

    async def open(self) -> None:
        """Start the thread, and wait until the connection is open. Raises what `connect` raises."""
        Thread(target=self._work, name="jimsapi-sqlite-writer", daemon=True).start()
        try:
            await asyncio.shield(self._opened)
        except asyncio.CancelledError:
            self._stop()
            raise

    async def close(self) -> None:
        """Commit what waits, close the connection, and end the thread."""
        self._stop()
        await asyncio.shield(self._closed)

    def submit(self, work: Work[T]) -> asyncio.Future[T]:
        """Have `work` done in the next transaction. Cancelling the future does not undo it.

        What the future raises: what `work` raised, in which case all that it wrote is undone; or `StoreUnavailable`.
        `work` may be called twice, so it must change nothing but the database.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        if self._closing:
            future.set_exception(StoreUnavailable("the store is closed"))
            return future
        self._collected.append(_Operation(work, future))
        self._turns = QUIET_TURNS
        if len(self._collected) == 1 and not self._busy:
            self._gather()
        return future

    def _gather(self) -> None:
        """Hand over what is collected once the loop has little else to do.

        A transaction costs most of what it costs however little is in it, and the two threads share one interpreter: so
        the writer gets a full one, and works on it while the loop rests.
        """
        self._patient_until = self._loop.time() + PATIENCE
        self._loop.call_soon(self._look)

    def _look(self) -> None:
        self._turns -= 1
        if self._turns > 0 and self._loop.time() < self._patient_until:
            self._loop.call_soon(self._look)
        else:
            self._hand_over()

    def _hand_over(self) -> None:
        if self._collected:
            self._busy = True
            self._queue.put(self._collected)
            self._collected = []

    def _stop(self) -> None:
        if not self._closing:
            self._closing = True
            self._hand_over()
            self._queue.put(None)

    def _work(self) -> None:
        try:
            connection = self._connect()
        except BaseException as error:
            self._post(_reject, self._opened, error)
            return
        self._post(_resolve, self._opened, None)
        try:
            while (batch := self._queue.get()) is not None:
                began = perf_counter()
                self.failing = not self._commit(connection, batch)
                record = CommitRecord(len(batch), perf_counter() - began, self.failing)
                self._post(self._settle, batch, record)
        finally:
            self._disconnect(connection)
            self._post(_resolve, self._closed, None)

    def _commit(self, connection: sqlite3.Connection, batch: list[_Operation]) -> bool:
        """Run a batch in one transaction, each operation with its own outcome. Says whether the database could."""
        try:
            self._prepare(connection)
            connection.execute("BEGIN IMMEDIATE")
            try:
                self._run(connection, batch)
            except Exception:
                if not connection.in_transaction:  # a full disk takes the whole transaction away
                    raise
                connection.execute("ROLLBACK")
                connection.execute("BEGIN IMMEDIATE")
                self._run_with_savepoints(connection, batch)
            self._check()
            connection.execute("COMMIT")
        except Exception as failure:
            for operation in batch:
                operation.error = as_unavailable(failure)
            _roll_back(connection)
            return False
        return not any(isinstance(operation.error, StoreUnavailable) for operation in batch)

    def _run(self, connection: sqlite3.Connection, batch: list[_Operation]) -> None:
        """The usual way: nothing fails, and what is refused is refused before it wrote anything."""
        for operation in batch:
            changes = connection.total_changes
            try:
                operation.result = operation.work(connection)
            except DomainError as refusal:
                if connection.total_changes != changes:
                    raise _RefusedTooLate from refusal
                operation.error = refusal

    def _run_with_savepoints(self, connection: sqlite3.Connection, batch: list[_Operation]) -> None:
        """The careful way: an operation that fails is undone, and the others stand."""
        for operation in batch:
            operation.error = None
            connection.execute("SAVEPOINT operation")
            try:
                operation.result = operation.work(connection)
            except Exception as error:
                if not connection.in_transaction:
                    raise
                connection.execute("ROLLBACK TO operation")
                operation.error = as_domain_error(error)
            connection.execute("RELEASE operation")

    def _settle(self, batch: list[_Operation], record: CommitRecord) -> None:
        self._busy = False  # first of all: the next batch goes on whatever a listener does
        if self._collected:
            self._gather()
        for operation in batch:
            if operation.error is None:
                _resolve(operation.future, operation.result)
            else:
                _reject(operation.future, operation.error)
        failure: StoreUnavailable | None = None
        if record.failed:
            errors = (operation.error for operation in batch)
            failure = next((error for error in errors if isinstance(error, StoreUnavailable)), None)
        self._report(record, failure)

    def _post(self, callback: Callable[..., None], *arguments: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(callback, *arguments)


def _resolve(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _reject(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


def _roll_back(connection: sqlite3.Connection) -> None:
    with suppress(sqlite3.Error, UnicodeDecodeError):  # the next BEGIN tells
        if connection.in_transaction:
            connection.execute("ROLLBACK")
