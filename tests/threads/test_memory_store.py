"""The memory store keeps the contract of every store."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from jimsapi.testing import ThreadStoreContract
from jimsapi.threads.memory import MemoryStore
from jimsapi.threads.store import ThreadStore


class TestMemoryStore(ThreadStoreContract):
    @asynccontextmanager
    async def open_store(self) -> AsyncIterator[ThreadStore]:
        async with MemoryStore() as store:
            yield store
