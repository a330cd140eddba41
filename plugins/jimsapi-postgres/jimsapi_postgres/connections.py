"""Connections to PostgreSQL: how they are made, checked, shared and replaced."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import asyncpg

from jimsapi.threads.errors import DomainError, StoreUnavailable
from jimsapi_postgres.errors import ConnectionLost, NotConnected, as_domain_error, is_lost, public_reason, reason
from jimsapi_postgres.url import Target, connect_arguments

T = TypeVar("T")
Connection = Any
"""An `asyncpg.Connection`, which has no complete types."""
Work = Callable[[Connection], Awaitable[T]]

STATEMENT_TIMEOUT = 10.0
LOCK_TIMEOUT = 5.0
ANSWER_TIMEOUT = 15.0
"""Seconds after which a server that says nothing is given up; longer than it may work on a statement."""
CHECK_AFTER = 10.0
"""Seconds of idleness after which a connection is tried before it is used."""
CHECK_TIMEOUT = 2.0
BACK_OFF = (0.05, 0.1, 0.2, 0.5, 1.0)
"""Seconds between attempts to connect; the last one repeats."""
BUSY_TIMEOUT = 10.0

SESSION = {
    "statement_timeout": f"{STATEMENT_TIMEOUT:g}s",
    "lock_timeout": f"{LOCK_TIMEOUT:g}s",
    "idle_in_transaction_session_timeout": "30s",
    "default_transaction_isolation": "read committed",
    # What a query costs must change neither with ANALYZE nor with its absence: every one is made for an index, in the
    # order of that index, and planned once.
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_mergejoin": "off",
    "enable_sort": "off",
    "enable_incremental_sort": "off",
    "jit": "off",
}


class Connector:
    """Makes connections. After a failure the next attempt waits, and all who ask wait for the same one."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._failures = 0
        self._failure = ("", "")
        self._not_before = 0.0
        self._attempts = asyncio.Lock()
        self.generation = 0
        """Grows when the server turned out read-only: connections made before are of no use, wherever they lead."""

    async def connect(self) -> Connection:
        """Make a connection for this store's statements. Raises `NotConnected`."""
        failures = self._failures
        async with self._attempts:
            if self._failures > failures:  # an attempt failed while this one waited its turn
                raise NotConnected(*self._failure)
            await asyncio.sleep(max(0.0, self._not_before - time.monotonic()))
            try:
                connection = await self._connect_twice()
            except Exception as error:
                self._not_before = time.monotonic() + BACK_OFF[min(self._failures, len(BACK_OFF) - 1)]
                self._failures += 1
                self._failure = (f"PostgreSQL: {self._target.name}: {reason(error)}", public_reason(error))
                raise NotConnected(*self._failure) from error
            self._failures = 0
            return connection

    async def _connect_twice(self) -> Connection:
        try:
            return await self._connect()
        except Exception as error:
            if self._failures or isinstance(error, TimeoutError | ConnectionRefusedError):
                raise
        return await self._connect()  # one that was cut off while it was made says little about the next

    async def _connect(self) -> Connection:
        connection = await asyncpg.connect(
            **connect_arguments(self._target), command_timeout=ANSWER_TIMEOUT, max_cached_statement_lifetime=0
        )
        try:
            await connection.execute("".join(f"SET {name} = '{value}';" for name, value in SESSION.items()))
            await connection.set_type_codec(
                "json", schema="pg_catalog", encoder=_as_it_is, decoder=_as_it_is, format="binary"
            )
        except BaseException:
            connection.terminate()
            raise
        return connection


class Link:
    """One connection at a time, replaced when it is lost. Whoever uses a link uses it alone."""

    def __init__(self, connector: Connector) -> None:
        self._connector = connector
        self._connection: Connection | None = None
        self._generation = 0
        self._used_at = 0.0

    async def ask(self, work: Work[T]) -> T:
        """Do `work` on the connection.

        Raises:
            ConnectionLost: the connection is gone, and perhaps the work was done.
            NotConnected: nothing was done.
            StoreUnavailable: the server could not do it.
        """
        connection = await self._checked()
        try:
            return await work(connection)
        except Exception as error:
            if is_lost(error):
                self.drop()
                if getattr(error, "sqlstate", None) == "25006":
                    self._connector.generation += 1
            if isinstance(error, DomainError):
                raise
            raise as_domain_error(error) from error
        except BaseException:
            self.drop()  # cancelled in the middle of a statement
            raise
        finally:
            self._used_at = time.monotonic()

    async def insist(self, work: Work[T]) -> T:
        """Do work that may be done twice; once more if the connection was lost."""
        try:
            return await self.ask(work)
        except ConnectionLost:
            return await self.ask(work)

    def drop(self) -> None:
        """Give the connection up."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def close(self) -> None:
        """Say good-bye to the server."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                await connection.close(timeout=CHECK_TIMEOUT)
            except Exception:
                connection.terminate()

    async def _checked(self) -> Connection:
        connection = self._connection
        if connection is not None and (connection.is_closed() or self._generation != self._connector.generation):
            self.drop()
        elif connection is not None and time.monotonic() - self._used_at > CHECK_AFTER:
            try:
                await connection.execute("SELECT 1", timeout=CHECK_TIMEOUT)
            except Exception:
                self.drop()
        if self._connection is None:
            generation = self._connector.generation
            self._connection = await self._connector.connect()
            self._generation = generation
        return self._connection


class Pool:
    """A few links for what is not batched. Connections are made when they are needed."""

    def __init__(self, connector: Connector, size: int) -> None:
        self._links = [Link(connector) for _ in range(size)]
        self._free = self._links[:]
        self._turns = asyncio.Semaphore(size)

    async def insist(self, work: Work[T]) -> T:
        """`Link.insist` on a free link. Raises `StoreUnavailable` if none gets free in time."""
        try:
            async with asyncio.timeout(BUSY_TIMEOUT):
                await self._turns.acquire()
        except TimeoutError:
            raise StoreUnavailable("PostgreSQL: all connections are busy", "no answer") from None
        link = self._free.pop()  # the one that was used last: the others may rest
        try:
            return await link.insist(work)
        finally:
            self._free.append(link)
            self._turns.release()

    async def close(self) -> None:
        """Close all connections."""
        for link in self._links:
            await link.close()


def _as_it_is(data: bytes) -> bytes:
    return data
