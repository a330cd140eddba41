"""Subscriptions: receivers that a plugin notifies of what becomes of a run, and the part of a store that keeps them.

A run has one `webhook_url`, which its message brings. A subscription can be added to a run at any time, also after its
end, and a run can have several. The store keeps each one until its receiver has learnt the last that there is to say.
So it does not matter whether the run or the subscription is stored first, nor which process ends the run.
"""

from collections.abc import Collection
from typing import Protocol
from uuid import UUID

import msgspec


class Subscription(msgspec.Struct, frozen=True):
    """A receiver of one run.

    - `subscription_id` is made by `uuid7`. A subscription that replaces another one has a new identifier.
    - `thread_id` is the thread of the run.
    - `kind` is the plugin's name, and `name` distinguishes the receivers of a run.
    - `caller` is a digest of the caller that added it; None without auth.
    - `data` is for the plugin. It may contain secrets, so no log and no `repr` shows it.
    - `notice` is the key of the last notice that the receiver was called with; None if it was not called yet. `calls`
      is how often that call has failed; 0 after a notice that was delivered or given up.
    - `pause` is for how many seconds that call must not be repeated yet. `SubscriptionStore.take` sets it.
    """

    subscription_id: UUID
    run_id: UUID
    thread_id: UUID
    kind: str
    name: str
    caller: UUID | None
    data: bytes
    notice: str | None = None
    calls: int = 0
    pause: float = 0.0

    def __repr__(self) -> str:
        return f"Subscription({self.kind!r}, run_id={self.run_id})"


class SubscriptionStore(Protocol):
    """Keeps subscriptions, as the attribute `subscriptions` of a `ThreadStore`. It is None in some stores.

    Each method that writes is one durable transaction. Any method may raise `StoreUnavailable`, and may then be called
    again. A subscription is deleted with its run, which is purged some days after its end, or with its thread.

    A subscription is due at once when it is added. It is due again at the time that `take` and `delay` set, until
    `settle` is called.
    """

    async def add(self, subscription: Subscription, limit: int) -> bool:
        """Add a subscription, in place of one with the same run, kind and name. It is due at once.

        Returns False, and stores nothing, if the run has `limit` others of this kind. Raises `RunNotFound` if the store
        does not have the run.
        """

    async def of_run(self, run_id: UUID, kind: str) -> list[Subscription]:
        """Return the subscriptions of a run, in the order of their names. It does not check permissions."""

    async def remove(self, run_id: UUID, kind: str, name: str) -> bool:
        """Delete a subscription. Returns whether there was one."""

    async def take(self, limit: int, seconds: float) -> list[Subscription]:
        """Return subscriptions that are due, the longest first, at most `limit`. They are due again after `seconds`.

        Those of runs that were purged or deleted are deleted.
        """

    async def wake(self, thread_ids: Collection[UUID]) -> int:
        """Make the subscriptions of the runs of these threads due now, but not those that are settled.

        Their `pause` stays. Returns their number.
        """

    async def delay(self, subscription_id: UUID, seconds: float, notice: str | None, calls: int) -> None:
        """Make a subscription due after `seconds`, unless it is settled, and store its `notice` and `calls`.

        If `calls` is not 0, its `pause` ends then.
        """

    async def settle(self, subscription_id: UUID, notice: str | None) -> None:
        """Keep a subscription without making it due again: `notice` was the last one."""

    async def count(self) -> int:
        """Return the number of subscriptions that are not settled."""

    async def recover(self) -> None:
        """Make all due now that a dead process may have taken. A store that several processes open does nothing."""
