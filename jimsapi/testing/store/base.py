"""What all parts of the contract share."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from uuid import UUID

import pytest

from jimsapi.testing.store.samples import OTHER_OWNER, OWNER, make_key, make_plan
from jimsapi.threads.run import AdoptedRun, RunPlan
from jimsapi.threads.store import ThreadStore


@pytest.mark.anyio
class StoreTests:
    """How a store of the kind that is tested is opened, and what it must be told."""

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.fixture
    async def store(self) -> AsyncIterator[ThreadStore]:
        async with self.open_store() as store:
            yield store

    def open_store(self) -> AbstractAsyncContextManager[ThreadStore]:
        """Open a new, empty store."""
        raise NotImplementedError

    async def recover(self, store: ThreadStore, owner: UUID) -> int:
        """Recover after the death of every other owner. Override it where a store has to be told of that death."""
        return await store.recover(owner)

    async def adopt(self, store: ThreadStore, owner: UUID) -> list[AdoptedRun]:
        """Adopt after the death of every other owner. Override it as `recover`."""
        return await store.adopt(owner)

    async def disturb(self, store: ThreadStore) -> None:
        """Take something from under the store, between two calls: cut its connections, remove a file it makes anew.

        The random histories do so now and then. Whatever raises `StoreUnavailable` after that is asked again, and has
        to answer as if nothing had happened, within seconds. Override it for a store that recovers by itself.
        """

    async def _interrupted(self, store: ThreadStore, text: str = "Hello") -> RunPlan:
        """A first run of Ann's, with a key, whose process died while it worked."""
        plan = make_plan(text=text, owner=OTHER_OWNER, idempotency=make_key())
        await store.accept(plan)
        assert await self.recover(store, OWNER) == 1
        return plan
