"""The PostgreSQL store keeps the contract of every store."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from uuid import UUID

import asyncpg
import pytest
from jimsapi_postgres.store import PostgresStore

from jimsapi.testing import CommandsContract, ThreadStoreContract
from jimsapi.threads.run import AdoptedRun
from jimsapi.threads.store import ThreadStore

EMPTY = """
    TRUNCATE threads, thread_events, jimsapi_threads, jimsapi_feedback,
        jimsapi_runs, jimsapi_owners, jimsapi_idempotency,
        jimsapi_thread_usage, jimsapi_contact_usage, jimsapi_caller_usage,
        jimsapi_outbox, jimsapi_sinks, jimsapi_dead_letters, jimsapi_webhooks, jimsapi_subscriptions
"""
ALL_OTHERS_ARE_SILENT = """
    INSERT INTO jimsapi_owners SELECT DISTINCT owner, '-infinity'::timestamptz FROM jimsapi_runs WHERE owner <> $1
    ON CONFLICT (owner) DO UPDATE SET beat_at = excluded.beat_at
"""
CLOSE_ALL = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


class TestPostgresStore(ThreadStoreContract):
    @pytest.fixture(autouse=True)
    def place(self, shared_url: str) -> None:
        self._url = shared_url

    @asynccontextmanager
    async def open_store(self) -> AsyncIterator[ThreadStore]:
        await self._execute(EMPTY)
        async with PostgresStore(self._url) as store:
            yield store

    @property
    def reopen_store(self) -> Callable[[ThreadStore], AbstractAsyncContextManager[ThreadStore]]:
        @asynccontextmanager
        async def again(closed: ThreadStore) -> AsyncIterator[ThreadStore]:
            async with PostgresStore(self._url) as store:
                yield store

        return again

    async def recover(self, store: ThreadStore, owner: UUID) -> int:
        await self._execute(ALL_OTHERS_ARE_SILENT, owner)
        return await store.recover(owner)

    async def adopt(self, store: ThreadStore, owner: UUID) -> list[AdoptedRun]:
        await self._execute(ALL_OTHERS_ARE_SILENT, owner)
        return await store.adopt(owner)

    async def disturb(self, store: ThreadStore) -> None:
        """The server closes every connection."""
        await self._execute(CLOSE_ALL)

    async def _execute(self, sql: str, *arguments: object) -> None:
        connection = await asyncpg.connect(self._url)
        await connection.execute(sql, *arguments)
        await connection.close()


class TestDatabaseCommand(CommandsContract):
    distribution = "jimsapi-postgres"
    commands = ("db",)

    @pytest.fixture(autouse=True)
    def place(self, shared_url: str) -> None:
        self._url = shared_url

    @property
    def settings(self) -> dict[str, str]:
        return {"store": self._url}

    @property
    def calls(self) -> list[list[str]]:
        return [["db", "upgrade", "--store", self._url]]
