"""Both clients, asked in the same way, so that each test of what they do is one."""

from collections.abc import AsyncIterator, Iterator
from typing import Any, Self, Unpack
from uuid import UUID

from anyio import to_thread

from jimsapi.client import AsyncClient, Client, Item, MessageFields, Result, Run

KINDS = ("sync", "async")


class Both:
    """`Client`, each call of it in a thread, or `AsyncClient`."""

    def __init__(self, kind: str, url: str, **options: Any) -> None:
        self._sync = Client(url, **options) if kind == "sync" else None
        self._async = AsyncClient(url, **options)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._async.aclose()
        if self._sync is not None:
            self._sync.close()

    async def chat(self, message: str, **fields: Unpack[MessageFields]) -> Result:
        if self._sync is None:
            return await self._async.chat(message, **fields)
        client = self._sync
        return await to_thread.run_sync(lambda: client.chat(message, **fields))

    async def begin(self, message: str, **fields: Unpack[MessageFields]) -> Run:
        if self._sync is None:
            return await self._async.begin(message, **fields)
        client = self._sync
        return await to_thread.run_sync(lambda: client.begin(message, **fields))

    async def run(self, run_id: UUID | str) -> Run:
        if self._sync is None:
            return await self._async.run(run_id)
        return await to_thread.run_sync(self._sync.run, run_id)

    async def cancel(self, run_id: UUID | str) -> Run:
        if self._sync is None:
            return await self._async.cancel(run_id)
        return await to_thread.run_sync(self._sync.cancel, run_id)

    def stream(self, message: str, **fields: Unpack[MessageFields]) -> AsyncIterator[Item]:
        if self._sync is None:
            return self._async.stream(message, **fields)
        return _in_thread(self._sync.stream(message, **fields))

    def watch(self, run_id: UUID | str, after: str | None = None) -> AsyncIterator[Item]:
        if self._sync is None:
            return self._async.watch(run_id, after)
        return _in_thread(self._sync.watch(run_id, after))


async def _in_thread(items: Iterator[Item]) -> AsyncIterator[Item]:
    while (item := await to_thread.run_sync(next, items, None)) is not None:
        yield item
