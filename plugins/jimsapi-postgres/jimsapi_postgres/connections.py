"""Opens, checks, shares and replaces connections to PostgreSQL."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import asyncpg

from jimsapi.threads import DomainError, StoreUnavailable
from jimsapi_postgres.errors import ConnectionLost, NotConnected, as_domain_error, is_lost, public_reason, reason
from jimsapi_postgres.url import Target, connect_arguments

T = TypeVar("T")
Connection = Any
"""An `asyncpg.Connection`, which has no complete types."""
Work = Callable[[Connection], Awaitable[T]]

STATEMENT_TIMEOUT = 10.0
LOCK_TIMEOUT = 5.0
ANSWER_TIMEOUT = 15.0
"""Seconds after which a server that does not answer counts as lost. It is longer than `STATEMENT_TIMEOUT`."""
CHECK_AFTER = 10.0
"""Seconds of idleness after which a connection is checked before it is used."""
CHECK_TIMEOUT = 2.0
BACK_OFF = (0.05, 0.1, 0.2, 0.5, 1.0)
"""Seconds between attempts to connect. The last value repeats."""
BUSY_TIMEOUT = 10.0

SESSION = {
    "statement_timeout": f"{STATEMENT_TIMEOUT:g}s",
    "lock_timeout": f"{LOCK_TIMEOUT:g}s",
    "idle_in_transaction_session_timeout": "30s",
    "default_transaction_isolation": "read committed",
    # The cost of a query must not depend on ANALYZE. Every query is written for an index, in the order of that index,
    # and planned once.
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_mergejoin": "off",
    "enable_sort": "off",
    "enable_incremental_sort": "off",
    "jit": "off",
}


class Connector:
    """Opens connections. After a failure the next attempt waits, and all callers wait for the same attempt."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._failures = 0
        self._failure = ("", "")
        self._not_before = 0.0
        self._attempts = asyncio.Lock()
        self.generation = 0
        """Grows when a server turns out to be read-only. Connections that were opened before must be replaced."""

    async def connect(self) -> Connection:
        """Open a connection with this store's session settings. Raises `NotConnected`."""
        failures = self._failures
        async with self._attempts:
            if self._failures > failures:  # another attempt failed while this one waited for the lock
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
        return await self._connect()  # retry once, since the failure may be temporary

    async def _connect(self) -> Connection:
        connection = await asyncpg.connect(
            **connect_arguments(self._target), command_timeout=ANSWER_TIMEOUT, max_cached_statement_lifetime=0
        )
        try:
            await connection.execute("".join(f"SET {name} = '{value}';" for name, value in SESSION.items()))
            await connection.set_type_codec(
                "json", schema="pg_catalog", encoder=_unchanged, decoder=_unchanged, format="binary"
            )
        except BaseException:
            connection.terminate()
            raise
        return connection


class Link:
    """Holds one connection, and replaces it when it is lost. Only one task at a time may use a link."""

    def __init__(self, connector: Connector) -> None:
        self._connector = connector
        self._connection: Connection | None = None
        self._generation = 0
        self._used_at = 0.0

    async def run(self, work: Work[T]) -> T:
        """Do `work` on the connection, and return its result.

        Raises:
            ConnectionLost: the connection was lost. It is unknown whether the work was done.
            NotConnected: no connection could be opened, and nothing was done.
            StoreUnavailable: the server could not do the work.
        """
        connection = await self._checked_connection()
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

    async def run_with_retry(self, work: Work[T]) -> T:
        """Do work that may be done twice. Retries it once if the connection was lost. Raises as `run` does."""
        try:
            return await self.run(work)
        except ConnectionLost:
            return await self.run(work)

    def drop(self) -> None:
        """Drop the connection without notifying the server."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                await connection.close(timeout=CHECK_TIMEOUT)
            except Exception:
                connection.terminate()

    async def _checked_connection(self) -> Connection:
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
    """A few links for operations that are not batched. Connections are opened when they are needed."""

    def __init__(self, connector: Connector, size: int) -> None:
        self._links = [Link(connector) for _ in range(size)]
        self._free = self._links[:]
        self._permits = asyncio.Semaphore(size)

    async def run_with_retry(self, work: Work[T]) -> T:
        """Do work on a free link, as `Link` does. Raises `StoreUnavailable` if none is free within `BUSY_TIMEOUT`."""
        try:
            async with asyncio.timeout(BUSY_TIMEOUT):
                await self._permits.acquire()
        except TimeoutError:
            raise StoreUnavailable("PostgreSQL: all connections are busy", "no answer") from None
        link = self._free.pop()  # the link that was used last, so that the others stay idle
        try:
            return await link.run_with_retry(work)
        finally:
            self._free.append(link)
            self._permits.release()

    async def close(self) -> None:
        """Close all connections."""
        for link in self._links:
            await link.close()


def _unchanged(data: bytes) -> bytes:
    return data
