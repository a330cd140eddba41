"""The subscriptions of a memory store."""

from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec

from jimsapi.threads.errors import RunNotFound
from jimsapi.threads.event import EPOCH, utc_now
from jimsapi.threads.subscriptions import Subscription
from jimsapi.threads.transfer import SubscriptionRecord


class _Row(msgspec.Struct):
    """A subscription, when it is due in UTC (None if it is settled), and when its call may be repeated."""

    subscription: Subscription
    due_at: datetime | None
    call_at: datetime = EPOCH


class MemorySubscriptions:
    """A `SubscriptionStore` in the memory of the process. `has_run` returns whether the store still has a run."""

    def __init__(self, committed: Callable[[], None], has_run: Callable[[UUID], bool]) -> None:
        self._committed = committed
        self._has_run = has_run
        self._rows: dict[UUID, _Row] = {}

    async def add(self, subscription: Subscription, limit: int) -> bool:
        if not self._has_run(subscription.run_id):
            raise RunNotFound(subscription.run_id)
        others = self._of_run(subscription.run_id, subscription.kind)
        replaced = [other for other in others if other.name == subscription.name]
        if not replaced and len(others) >= limit:
            return False
        for other in replaced:
            del self._rows[other.subscription_id]
        self._rows[subscription.subscription_id] = _Row(subscription, utc_now())
        self._committed()
        return True

    async def of_run(self, run_id: UUID, kind: str) -> list[Subscription]:
        return sorted(self._of_run(run_id, kind), key=lambda subscription: subscription.name.encode())

    def _of_run(self, run_id: UUID, kind: str) -> list[Subscription]:
        self._forget_deleted()
        found = (row.subscription for row in self._rows.values())
        return [subscription for subscription in found if (subscription.run_id, subscription.kind) == (run_id, kind)]

    async def remove(self, run_id: UUID, kind: str, name: str) -> bool:
        found = [each for each in self._of_run(run_id, kind) if each.name == name]
        for subscription in found:
            del self._rows[subscription.subscription_id]
        self._committed()
        return bool(found)

    async def take(self, limit: int, seconds: float) -> list[Subscription]:
        now = utc_now()
        due = [(row.due_at, row) for row in self._rows.values() if row.due_at is not None and row.due_at <= now]
        taken = []
        for _, row in sorted(due, key=lambda pair: pair[0])[:limit]:
            if not self._has_run(row.subscription.run_id):
                del self._rows[row.subscription.subscription_id]
                continue
            row.due_at = now + timedelta(seconds=seconds)
            pause = max(0.0, (row.call_at - now).total_seconds())
            taken.append(msgspec.structs.replace(row.subscription, pause=pause))
        self._committed()
        return taken

    async def wake(self, thread_ids: Collection[UUID]) -> int:
        woken = [row for row in self._unsettled() if row.subscription.thread_id in thread_ids]
        for row in woken:
            row.due_at = utc_now()
        self._committed()
        return len(woken)

    async def delay(self, subscription_id: UUID, seconds: float, notice: str | None, calls: int) -> None:
        row = self._rows.get(subscription_id)
        if row is not None and row.due_at is not None:
            row.due_at = utc_now() + timedelta(seconds=seconds)
            row.call_at = row.due_at if calls else EPOCH
            row.subscription = msgspec.structs.replace(row.subscription, notice=notice, calls=calls)
        self._committed()

    async def settle(self, subscription_id: UUID, notice: str | None) -> None:
        row = self._rows.get(subscription_id)
        if row is not None:
            row.due_at = None
            row.subscription = msgspec.structs.replace(row.subscription, notice=notice, calls=0)
        self._committed()

    async def count(self) -> int:
        self._forget_deleted()
        return len(self._unsettled())

    async def recover(self) -> None:
        """Do nothing: the subscriptions of a dead process are lost with it."""

    def records(self) -> list[SubscriptionRecord]:
        """Return all subscriptions as other stores can keep them, in any order."""
        self._forget_deleted()
        return [_record(row) for row in self._rows.values()]

    def import_record(self, record: SubscriptionRecord) -> None:
        """Keep a subscription of another store, unless there is one with its run, kind and name."""
        subscription = Subscription(
            record.subscription_id,
            record.run_id,
            record.thread_id,
            record.kind,
            record.name,
            record.caller,
            record.data,
            record.notice,
            record.calls,
        )
        if all(other.name != record.name for other in self._of_run(record.run_id, record.kind)):
            due_at = None if record.due_at is None else record.due_at.replace(tzinfo=None)
            call_at = EPOCH if record.call_at is None else record.call_at.replace(tzinfo=None)
            self._rows[record.subscription_id] = _Row(subscription, due_at, call_at)

    def _unsettled(self) -> list[_Row]:
        return [row for row in self._rows.values() if row.due_at is not None]

    def _forget_deleted(self) -> None:
        for subscription_id, row in list(self._rows.items()):
            if not self._has_run(row.subscription.run_id):
                del self._rows[subscription_id]


def _record(row: _Row) -> SubscriptionRecord:
    subscription = row.subscription
    return SubscriptionRecord(
        subscription.run_id,
        subscription.kind,
        subscription.name,
        subscription.subscription_id,
        subscription.thread_id,
        subscription.caller,
        subscription.data,
        subscription.notice,
        subscription.calls,
        None if row.due_at is None else row.due_at.replace(tzinfo=UTC),
        None if row.call_at == EPOCH else row.call_at.replace(tzinfo=UTC),
    )
