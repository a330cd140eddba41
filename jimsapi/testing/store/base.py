"""The base of all parts of the contract."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from functools import cached_property
from typing import ClassVar
from uuid import UUID

import pytest

from jimsapi.testing.contract import Contract, DoesNotApply
from jimsapi.testing.store.samples import OTHER_OWNER, OWNER, make_key, make_plan
from jimsapi.threads.run import AdoptedRun, RunPlan
from jimsapi.threads.store import ThreadStore


class StoreTests(Contract):
    """Opens stores of the kind under test. A subclass overrides what differs for its kind."""

    is_portable: ClassVar[bool] = True
    """Whether the store has the methods of `PortableStore`, so that `jimsapi store copy` can copy it."""
    has_outbox: ClassVar[bool] = True
    """Whether the store has an `outbox`, which durable sinks and lasting webhooks need."""
    has_subscriptions: ClassVar[bool] = True
    """Whether the store keeps `subscriptions`, by which plugins notify receivers of runs."""

    @pytest.fixture
    async def store(self) -> AsyncIterator[ThreadStore]:
        async with self.open_store() as store:
            yield store

    def open_store(self) -> AbstractAsyncContextManager[ThreadStore]:
        """Open a new, empty store. What it has stored must still be there after it is closed, for `reopen_store`."""
        raise NotImplementedError

    @cached_property
    def reopen_store(self) -> Callable[[ThreadStore], AbstractAsyncContextManager[ThreadStore]] | DoesNotApply:
        """Open a new store on the data of one that `open_store` or `reopen_store` opened, and that is closed now."""
        raise self.undeclared(
            "reopen_store",
            "an async context manager that opens the data of a closed store again, or DoesNotApply(why), for example "
            "because it stores threads in memory",
        )

    async def recover(self, store: ThreadStore, owner: UUID) -> int:
        """Recover after every other owner has died. Override it if you must inform the store of that."""
        return await store.recover(owner)

    async def adopt(self, store: ThreadStore, owner: UUID) -> list[AdoptedRun]:
        """Adopt runs after every other owner has died. Override it as `recover`."""
        return await store.adopt(owner)

    async def disturb(self, store: ThreadStore) -> None:
        """Disturb the store between two calls: cut its connections, or remove a file that it creates again.

        The random histories call it now and then. After that they retry calls that raise `StoreUnavailable`, which must
        succeed within seconds, with the same result as without the disturbance. Override it for a store that recovers
        by itself.
        """

    async def _interrupted(self, store: ThreadStore, text: str = "Hello") -> RunPlan:
        """Return the plan of Ann's first run, with a key, whose process died while it worked."""
        plan = make_plan(text=text, owner=OTHER_OWNER, idempotency=make_key())
        await store.accept(plan)
        assert await self.recover(store, OWNER) == 1
        return plan
