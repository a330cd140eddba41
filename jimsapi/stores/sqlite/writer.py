"""The writer of an SQLite database, which commits waiting operations together in one transaction.

The event loop's thread executes the statements of a batch, and a second thread commits it. Each call of sqlite3
releases Python's interpreter lock while SQLite works, and then waits to get it again. In another thread, that wait
takes up to the switch interval if the event loop is busy. Many rejected requests would then delay the accepted
messages. In the event loop's thread, nothing competes for the lock.

The second thread does everything that may block: waiting for another program's lock, the commit with its fsync, and
operations of unlimited size. These operations have their own queue. Transactions of the two kinds take turns, so each
kind waits for at most one transaction of the other.

If the event loop is idle, the second thread also executes a single operation. Nothing competes for the interpreter lock
then, and the pages stay in the cache of one processor. As long as operations come one by one, each is passed on at
once, without waiting for others that could share its transaction.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from threading import Thread
from time import perf_counter
from typing import Any, TypeVar

import msgspec

from jimsapi.stores.sqlite.errors import as_domain_error, as_unavailable
from jimsapi.threads.errors import DomainError, StoreUnavailable
from jimsapi.threads.store import CommitRecord

T = TypeVar("T")

Work = Callable[[sqlite3.Connection], T]

QUIET_TURNS = 2
"""Turns of the event loop without a new operation after which the collected ones are executed. Within this many turns,
the results of a commit lead to the next operations."""
COLLECT_FOR = 0.005
"""Seconds after which the collected operations are executed in any case."""
IDLE_WITHIN = 0.0001
"""Seconds in which an idle event loop makes `QUIET_TURNS` turns. A loop with some busy connections takes longer."""
QUICK = 0.005
"""Seconds. If a single operation takes the second thread longer, it probably waits for the interpreter lock, because
the event loop is busy."""
TURN = 0.004
"""The most seconds that a batch executes in the event loop. Its remaining operations go into the next batch."""
LONG_TURN = 0.1
"""The most seconds that a batch executes in the second thread, since brief operations wait for it. If the event loop is
busy, each statement waits for the interpreter lock. The remaining operations go into the next batch."""
LOCK_WAIT = 1.0
"""Seconds that the second thread waits for another program that has locked the database."""


class _Operation(msgspec.Struct):
    work: Work[Any]
    future: asyncio.Future[Any]
    brief: bool
    first: bool
    result: Any = None
    error: Exception | None = None


class _Batch:
    """The operations of one transaction, all of one kind (brief or not).

    `left` are those for which the second thread had no time. They were not executed, and go into the next batch.
    `found_idle`: it has one operation, and the event loop was idle.
    """

    __slots__ = ("began", "failed", "found_idle", "left", "operations")

    def __init__(self, operations: list[_Operation]) -> None:
        self.operations = operations
        self.left: list[_Operation] = []
        self.failed = False
        self.found_idle = False
        self.began = perf_counter()


class _FailedAfterWrite(Exception):
    """An operation raised an error after it had written something."""


class Writer:
    """Executes operations on one connection, many in each transaction. Operations of the same kind keep their order.

    - `connect` opens the connection, which must allow use by several threads. `disconnect` closes it. The second thread
      calls both.
    - `check` is called before each commit, in the thread that uses the connection then. It raises `StoreUnavailable` if
      the commit must not be made. The second thread then retries the batch, and calls `repair` before the transaction.
    - `report` is called in the event loop after a commit. Its argument is the error of the transaction, or of the first
      operation that failed.

    Only one thread at a time uses the connection: the event loop's thread from the start of a transaction until it
    passes the batch on, and then the second thread until the batch is done.
    """

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        disconnect: Callable[[sqlite3.Connection], None],
        check: Callable[[], None],
        repair: Callable[[sqlite3.Connection], None],
        report: Callable[[CommitRecord, StoreUnavailable | None], None],
    ) -> None:
        self._connect = connect
        self._disconnect = disconnect
        self._check = check
        self._repair = repair
        self._report = report
        self._loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[sqlite3.Connection] = self._loop.create_future()
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._handed_over: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._connection: sqlite3.Connection
        self._brief: list[_Operation] = []
        self._long: list[_Operation] = []
        self._long_is_next = False
        self._quiet_turns_left = 0
        self._collect_until = 0.0
        self._collecting_since = 0.0
        self._busy = False
        self._one_by_one = False
        """Whether the last batch was `found_idle` and `QUICK`."""
        self._closing = False
        self.failing = False
        """Whether a commit failed, and no later one has written anything."""
        self._changes = 0

    async def open(self) -> None:
        """Start the second thread, and wait until the connection is open. Raises the errors of `connect`."""
        Thread(target=self._work, name="jimsapi-sqlite-writer", daemon=True).start()
        try:
            self._connection = await asyncio.shield(self._opened)
        except asyncio.CancelledError:
            self._stop()
            raise

    async def close(self) -> None:
        """Commit the waiting operations, close the connection, and end the second thread."""
        self._stop()
        await asyncio.shield(self._closed)

    def submit(self, work: Work[T], *, brief: bool = False, first: bool = False) -> asyncio.Future[T]:
        """Execute `work` in the next transaction. Returns a future of its result; cancelling it does not undo `work`.

        `brief`: `work` takes at most about a millisecond, whatever the database has, so the event loop's thread
        executes it. `first`: `work` is executed before the operations that wait.

        The future raises what `work` raises, and then everything that `work` wrote is undone. It may also raise
        `StoreUnavailable`. `work` may be called twice, so it must not change anything except the database.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        if self._closing:
            future.set_exception(StoreUnavailable("the store is closed"))
            return future
        operation = _Operation(work, future, brief, first)
        was_idle = not (self._brief or self._long or self._busy)
        queue = self._brief if brief else self._long
        if first:
            queue.insert(0, operation)
        else:
            queue.append(operation)
        self._quiet_turns_left = QUIET_TURNS
        if was_idle and brief and self._one_by_one:
            self._begin()
        elif was_idle:
            self._collect()
        return future

    def _collect(self) -> None:
        """Begin a transaction when no further operations come.

        Most of the cost of a transaction does not depend on its size, so this waits for the operations of the next
        turns.
        """
        self._collect_until = self._loop.time() + COLLECT_FOR
        self._collecting_since = perf_counter()
        self._loop.call_soon(self._poll)

    def _poll(self) -> None:
        self._quiet_turns_left -= 1
        if self._quiet_turns_left > 0 and self._loop.time() < self._collect_until:
            self._loop.call_soon(self._poll)
        elif not self._busy:
            self._begin()

    def _begin(self) -> None:
        """Execute the collected operations and pass them on to be committed, in one turn of the event loop.

        No transaction stays open between two turns, since code that blocks the loop would block other programs' writes.
        """
        if not (self._brief or self._long):
            return
        operations = self._next_operations()
        self._busy = True
        batch = _Batch(operations)
        if not operations[0].brief:
            self._handed_over.put(partial(self._do_all, batch))
            return
        if len(operations) == 1 and (self._one_by_one or batch.began - self._collecting_since < IDLE_WITHIN):
            batch.found_idle = True
            self._handed_over.put(partial(self._do_one, batch))
            return
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            count = _execute_some(self._connection, operations, TURN, _execute)
            self._check()
        except BaseException as error:
            # Another program has locked the database, or an operation failed, and the second thread determines which.
            # Or the user pressed Ctrl-C.
            self._handed_over.put(partial(self._do_all, batch))
            if not isinstance(error, Exception):
                raise
            return
        batch.operations, self._brief = operations[:count], operations[count:]
        self._handed_over.put(partial(self._commit, batch))

    def _next_operations(self) -> list[_Operation]:
        """Return all waiting operations of one kind. If both kinds wait, they take turns."""
        if self._long and (self._long_is_next or not self._brief):
            operations, self._long, self._long_is_next = self._long, [], False
        else:
            operations, self._brief, self._long_is_next = self._brief, [], True
        return operations

    def _stop(self) -> None:
        if not self._closing:
            self._closing = True
            if not self._busy:
                self._begin()
            if not self._busy:
                self._handed_over.put(None)

    # In the second thread.

    def _work(self) -> None:
        try:
            connection = self._connect()
            _wait_for_locks(connection, 0)
        except BaseException as error:
            self._post(_reject, self._opened, error)
            return
        self._post(_resolve, self._opened, connection)
        try:
            while (job := self._handed_over.get()) is not None:
                job()
        finally:
            with suppress(sqlite3.Error):
                _wait_for_locks(connection, LOCK_WAIT)
            self._disconnect(connection)
            self._post(_resolve, self._closed, None)

    def _commit(self, batch: _Batch) -> None:
        """Commit a batch that the event loop has executed."""
        try:
            self._connection.execute("COMMIT")
        except Exception as failure:
            self._fail(batch, failure)
        self._post(self._settle, batch)

    def _do_one(self, batch: _Batch) -> None:
        """Execute and commit the only operation of a batch."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            _execute(self._connection, batch.operations[0])
            self._check()
        except Exception:  # as in `_begin`
            self._do_all(batch)
        else:
            self._commit(batch)

    def _do_all(self, batch: _Batch) -> None:
        """Execute and commit a batch, waiting for the locks of other programs."""
        connection = self._connection
        try:
            if connection.in_transaction:  # the event loop has begun the transaction
                connection.execute("ROLLBACK")
            _wait_for_locks(connection, LOCK_WAIT)
            self._repair(connection)
            self._execute_all(batch)
            self._check()
            connection.execute("COMMIT")
        except Exception as failure:
            self._fail(batch, failure)
        finally:
            with suppress(sqlite3.Error):
                _wait_for_locks(connection, 0)
        self._post(self._settle, batch)

    def _execute_all(self, batch: _Batch) -> None:
        """Execute a batch in a new transaction, for up to `LONG_TURN` seconds. Each operation may fail by itself."""
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            count = _execute_some(connection, batch.operations, LONG_TURN, _execute)
        except Exception:
            if not connection.in_transaction:  # SQLite rolls the whole transaction back if the disk is full
                raise
            connection.execute("ROLLBACK")
            connection.execute("BEGIN IMMEDIATE")
            count = _execute_some(connection, batch.operations, LONG_TURN, _execute_in_savepoint)
        batch.operations, batch.left = batch.operations[:count], batch.operations[count:]

    def _fail(self, batch: _Batch, failure: Exception) -> None:
        batch.failed = True
        for operation in batch.operations:
            operation.error = as_unavailable(failure)
        _roll_back(self._connection)

    # In the event loop again.

    def _settle(self, batch: _Batch) -> None:
        self._busy = False  # first, so that the next batch can start even if a callback raises
        changes, self._changes = self._changes, self._connection.total_changes
        if batch.left:
            self._put_back(batch.left)
        self._one_by_one = batch.found_idle and perf_counter() - batch.began < QUICK
        if self._brief or self._long:
            self._collect()
        elif self._closing:
            self._handed_over.put(None)
        failure: StoreUnavailable | None = None
        for operation in batch.operations:
            if operation.error is None:
                _resolve(operation.future, operation.result)
            else:
                if failure is None and isinstance(operation.error, StoreUnavailable):
                    failure = operation.error
                _reject(operation.future, operation.error)
        batch.failed = batch.failed or failure is not None
        self.failing = batch.failed or (self.failing and changes == self._changes)
        self._report(CommitRecord(len(batch.operations), perf_counter() - batch.began, batch.failed), failure)

    def _put_back(self, left: list[_Operation]) -> None:
        """Put operations back into the queue, before later ones but after those that are `first`."""
        if left[0].brief:
            self._brief = sorted(left + self._brief, key=lambda operation: not operation.first)
        else:
            self._long = sorted(left + self._long, key=lambda operation: not operation.first)

    def _post(self, callback: Callable[..., None], *arguments: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed, so no task waits
            self._loop.call_soon_threadsafe(callback, *arguments)


def _wait_for_locks(connection: sqlite3.Connection, seconds: float) -> None:
    """Set the time that a statement waits for another program's lock."""
    connection.execute(f"PRAGMA busy_timeout = {seconds * 1000:.0f}")


def _execute_some(
    connection: sqlite3.Connection,
    operations: list[_Operation],
    seconds: float,
    execute: Callable[[sqlite3.Connection, _Operation], None],
) -> int:
    """Execute as many operations as the time allows, and at least one. Returns their number."""
    until = perf_counter() + seconds
    for count, operation in enumerate(operations, 1):
        execute(connection, operation)
        if perf_counter() > until:
            return count
    return len(operations)


def _execute(connection: sqlite3.Connection, operation: _Operation) -> None:
    """Execute an operation without a savepoint. Raises `_FailedAfterWrite` if it fails after it wrote something."""
    changes = connection.total_changes
    operation.error = None
    try:
        operation.result = operation.work(connection)
    except DomainError as error:
        if connection.total_changes != changes:
            raise _FailedAfterWrite from error
        operation.error = error


def _execute_in_savepoint(connection: sqlite3.Connection, operation: _Operation) -> None:
    """Execute an operation in a savepoint. If it fails, only its own writes are undone."""
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


def _resolve(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _reject(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


def _roll_back(connection: sqlite3.Connection) -> None:
    with suppress(sqlite3.Error, UnicodeDecodeError):  # the next BEGIN raises the error
        if connection.in_transaction:
            connection.execute("ROLLBACK")
