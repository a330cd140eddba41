"""The writer of an SQLite database: what waits is committed together.

The event loop's own thread executes the statements of a batch, and a second thread commits it. Each call of sqlite3
gives up Python's interpreter lock while SQLite works, and then waits to get it back: in a thread of its own for up to
the switch interval, whenever the event loop is busy. A crowd that only gets refusals would so starve the messages that
were accepted. In the event loop's thread nothing competes for the lock. What may block stays in the second thread:
waiting for another program's lock, the commit with its fsync, and operations of any size. Those wait in a queue of
their own, and have every other transaction: neither kind holds up the other for more than one.

While the event loop rests, the second thread also executes an operation that is alone: nothing competes for the lock
then, and the pages stay in the cache of one processor.
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
"""Turns of the event loop without a new operation after which those collected are executed. What one commit answers
leads to the next operations within as many."""
PATIENCE = 0.005
"""Seconds after which they are executed in any case."""
RESTING = 0.0001
"""Seconds within which a loop that rests makes `QUIET_TURNS`. One that serves some busy connections takes longer."""
TURN = 0.004
"""Seconds of the event loop that a batch takes. What is left of it goes into the next one."""
LONG_TURN = 0.1
"""Seconds after which a batch that the second thread executes takes no further operation, since brief ones wait for it.
Beside a busy event loop each waits for the interpreter lock again and again. What is left goes into the next one."""
LOCK_WAIT = 1.0
"""Seconds that the second thread waits for another program that holds the database."""


class _Operation(msgspec.Struct):
    work: Work[Any]
    future: asyncio.Future[Any]
    brief: bool
    first: bool
    result: Any = None
    error: Exception | None = None


class _Batch:
    """Operations of one transaction, all of one kind. `left` are those for which the second thread had no time: they
    have neither failed nor been done, whatever became of the others."""

    __slots__ = ("began", "failed", "left", "operations")

    def __init__(self, operations: list[_Operation]) -> None:
        self.operations = operations
        self.left: list[_Operation] = []
        self.failed = False
        self.began = perf_counter()


class _RefusedTooLate(Exception):
    """An operation was refused after it had written something."""


class Writer:
    """Executes operations on one connection, many in each transaction, and those of each kind in their order.

    `connect` opens the connection, which has to allow use by several threads, and `disconnect` closes it, both in the
    second thread. `check` is called before each commit, by the thread that uses the connection then, and raises
    `StoreUnavailable` if the commit must not be made. The second thread tries such a batch again, and calls `mend`
    before its transaction. `report` is called in the event loop after a commit; it gets why the transaction, or the
    first operation that could not be done, failed.

    One thread at a time uses the connection: the event loop's from the begin of a transaction until it hands the batch
    over, the second one until it has settled the batch.
    """

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        disconnect: Callable[[sqlite3.Connection], None],
        check: Callable[[], None],
        mend: Callable[[sqlite3.Connection], None],
        report: Callable[[CommitRecord, StoreUnavailable | None], None],
    ) -> None:
        self._connect = connect
        self._disconnect = disconnect
        self._check = check
        self._mend = mend
        self._report = report
        self._loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[sqlite3.Connection] = self._loop.create_future()
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._handed_over: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._connection: sqlite3.Connection
        self._brief: list[_Operation] = []
        self._long: list[_Operation] = []
        self._long_is_next = False
        self._turns = 0
        self._patient_until = 0.0
        self._gathering_since = 0.0
        self._busy = False
        self._closing = False
        self.failing = False
        """Whether a commit failed, and none since has changed anything."""
        self._changes = 0

    async def open(self) -> None:
        """Start the second thread, and wait until the connection is open. Raises what `connect` raises."""
        Thread(target=self._work, name="jimsapi-sqlite-writer", daemon=True).start()
        try:
            self._connection = await asyncio.shield(self._opened)
        except asyncio.CancelledError:
            self._stop()
            raise

    async def close(self) -> None:
        """Commit what waits, close the connection, and end the thread."""
        self._stop()
        await asyncio.shield(self._closed)

    def submit(self, work: Work[T], *, brief: bool = False, first: bool = False) -> asyncio.Future[T]:
        """Do `work` in the next transaction. Cancelling the future does not undo it.

        `brief` work takes about a millisecond at most whatever the database holds, so the event loop's thread does it.
        Work that is `first` overtakes what waits.

        What the future raises: what `work` raised, in which case all that it wrote is undone; or `StoreUnavailable`.
        `work` may be called twice, so it must change nothing but the database.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        if self._closing:
            future.set_exception(StoreUnavailable("the store is closed"))
            return future
        operation = _Operation(work, future, brief, first)
        was_idle = not self._waits and not self._busy
        queue = self._brief if brief else self._long
        if first:
            queue.insert(0, operation)
        else:
            queue.append(operation)
        self._turns = QUIET_TURNS
        if was_idle:
            self._gather()
        return future

    @property
    def _waits(self) -> bool:
        return bool(self._brief or self._long)

    def _gather(self) -> None:
        """Begin a transaction once the loop has little else to do.

        A transaction costs most of what it costs however little is in it, so it gets what comes in the next turns, too.
        """
        self._patient_until = self._loop.time() + PATIENCE
        self._gathering_since = perf_counter()
        self._loop.call_soon(self._look)

    def _look(self) -> None:
        self._turns -= 1
        if self._turns > 0 and self._loop.time() < self._patient_until:
            self._loop.call_soon(self._look)
        elif not self._busy:
            self._begin()

    def _begin(self) -> None:
        """Execute what is collected and hand it over to be committed, all in one turn of the event loop.

        No transaction stays open between two turns: code that blocks the loop would keep other programs from writing.
        """
        if not self._waits:
            return
        operations = self._next_operations()
        self._busy = True
        batch = _Batch(operations)
        if not operations[0].brief:
            self._handed_over.put(partial(self._do_all, batch))
            return
        if len(operations) == 1 and batch.began - self._gathering_since < RESTING:
            self._handed_over.put(partial(self._do_one, batch))
            return
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            count = _execute_some(self._connection, operations, TURN, _execute)
            self._check()
        except BaseException as error:
            # Another program holds the database, or an operation fails, and the second thread finds out which one. Or
            # somebody pressed Ctrl-C.
            self._handed_over.put(partial(self._do_all, batch))
            if not isinstance(error, Exception):
                raise
            return
        batch.operations, self._brief = operations[:count], operations[count:]
        self._handed_over.put(partial(self._commit, batch))

    def _next_operations(self) -> list[_Operation]:
        """Take all operations of one kind: in turn of either, if both wait."""
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
        """Commit what the event loop has executed."""
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
        """Execute and commit a batch, with time to wait for other programs' locks."""
        connection = self._connection
        try:
            if connection.in_transaction:  # the event loop has begun
                connection.execute("ROLLBACK")
            _wait_for_locks(connection, LOCK_WAIT)
            self._mend(connection)
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
        """Execute what `LONG_TURN` allows of a batch in a new transaction, each operation with its own outcome."""
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            count = _execute_some(connection, batch.operations, LONG_TURN, _execute)
        except Exception:
            if not connection.in_transaction:  # a full disk takes the whole transaction away
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
        self._busy = False  # first of all: the next batch goes on whatever a listener does
        changes, self._changes = self._changes, self._connection.total_changes
        self._put_back(batch.left)
        if self._waits:
            self._gather()
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
        """Put operations before those that came later, but for what is to be first."""
        if not left:
            return
        if left[0].brief:
            self._brief = sorted(left + self._brief, key=lambda operation: not operation.first)
        else:
            self._long = sorted(left + self._long, key=lambda operation: not operation.first)

    def _post(self, callback: Callable[..., None], *arguments: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(callback, *arguments)


def _wait_for_locks(connection: sqlite3.Connection, seconds: float) -> None:
    """Set how long a statement waits for a lock that another program holds."""
    connection.execute(f"PRAGMA busy_timeout = {seconds * 1000:.0f}")


def _execute_some(
    connection: sqlite3.Connection,
    operations: list[_Operation],
    seconds: float,
    execute: Callable[[sqlite3.Connection, _Operation], None],
) -> int:
    """Execute as many operations as the time allows, and one at least. Returns how many."""
    until = perf_counter() + seconds
    for count, operation in enumerate(operations, 1):
        execute(connection, operation)
        if perf_counter() > until:
            return count
    return len(operations)


def _execute(connection: sqlite3.Connection, operation: _Operation) -> None:
    """The usual way: nothing fails, and what is refused is refused before it wrote anything."""
    changes = connection.total_changes
    operation.error = None
    try:
        operation.result = operation.work(connection)
    except DomainError as refusal:
        if connection.total_changes != changes:
            raise _RefusedTooLate from refusal
        operation.error = refusal


def _execute_in_savepoint(connection: sqlite3.Connection, operation: _Operation) -> None:
    """The careful way: an operation that fails is undone, and the others of its transaction stay."""
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
    with suppress(sqlite3.Error, UnicodeDecodeError):  # the next BEGIN tells
        if connection.in_transaction:
            connection.execute("ROLLBACK")
