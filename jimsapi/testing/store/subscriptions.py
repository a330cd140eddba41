"""The contract of a store's subscriptions, as tests."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest

from jimsapi.testing.contract import DoesNotApply, needs
from jimsapi.testing.store.base import StoreTests
from jimsapi.testing.store.samples import ALREADY, OWNER, completed, make_event, make_plan
from jimsapi.threads.errors import RunNotFound
from jimsapi.threads.ids import uuid7
from jimsapi.threads.run import New
from jimsapi.threads.store import ThreadStore
from jimsapi.threads.subscriptions import Subscription, SubscriptionStore

HOLD = 3600.0
"""Seconds that no case takes."""
LIMIT = 4
KIND = "test"


def subscriptions_of(store: ThreadStore) -> SubscriptionStore:
    """Return the subscriptions of a store that keeps some."""
    found = store.subscriptions
    assert found is not None, "the store keeps no subscriptions; declare `has_subscriptions = False`"
    return found


async def a_run(store: ThreadStore, contact_id: str = "ann") -> Subscription:
    """Begin a run in a new thread, and return a subscription to it that is not added yet."""
    plan = make_plan(contact_id, selectors=(New(),))
    accepted = await store.accept(plan)
    data = '{"url": "https://example.com/\N{FOX FACE}"}'.encode()
    return Subscription(uuid7(), plan.run_id, accepted.thread.thread_id, KIND, "first", uuid4(), data)


def like(subscription: Subscription, **changes: Any) -> Subscription:
    """Return another subscription to the same run."""
    return msgspec.structs.replace(subscription, subscription_id=uuid7(), **changes)


async def taken(store: ThreadStore, limit: int = 10) -> list[UUID]:
    """Take what is due, and return its identifiers."""
    return [subscription.subscription_id for subscription in await subscriptions_of(store).take(limit, HOLD)]


class SubscriptionsOfRuns(StoreTests):
    @needs("has_subscriptions")
    async def test_a_subscription_is_due_at_once_and_then_when_it_is_told(self, store: ThreadStore) -> None:
        kept, first = subscriptions_of(store), await a_run(store)
        assert await taken(store) == []
        assert await kept.add(first, LIMIT)
        assert await kept.count() == 1
        assert await kept.take(10, HOLD) == [first]
        assert await taken(store) == []
        await kept.delay(first.subscription_id, HOLD, None, 0)
        assert await taken(store) == []
        await kept.delay(first.subscription_id, 0.0, "asked", 2)
        assert await kept.take(10, 0.0) == [msgspec.structs.replace(first, notice="asked", calls=2)]
        assert await taken(store) == [first.subscription_id]

    @needs("has_subscriptions")
    async def test_one_that_is_woken_says_for_how_long_its_call_must_not_be_repeated(self, store: ThreadStore) -> None:
        kept, first = subscriptions_of(store), await a_run(store)
        await kept.add(first, LIMIT)
        await kept.delay(first.subscription_id, HOLD, "asked", 1)
        await kept.wake([first.thread_id])
        [woken] = await kept.take(10, HOLD)
        assert HOLD - 60 < woken.pause <= HOLD
        await kept.delay(first.subscription_id, HOLD, "asked", 0)
        await kept.wake([first.thread_id])
        assert await kept.take(10, HOLD) == [msgspec.structs.replace(first, notice="asked")]
        newer = like(first)
        await kept.delay(first.subscription_id, HOLD, "asked", 1)
        await kept.add(newer, LIMIT)
        assert await kept.take(10, HOLD) == [newer]

    @needs("has_subscriptions")
    async def test_a_run_that_has_ended_takes_subscriptions_too(self, store: ThreadStore) -> None:
        first = await a_run(store)
        await store.finish(first.run_id, OWNER, completed(make_event()))
        assert await subscriptions_of(store).add(first, LIMIT)
        assert await taken(store) == [first.subscription_id]

    @needs("has_subscriptions")
    async def test_one_that_is_settled_is_kept_and_never_due_again(self, store: ThreadStore) -> None:
        kept, first = subscriptions_of(store), await a_run(store)
        second = like(first, name="second", caller=None)
        for subscription in (first, second):
            assert await kept.add(subscription, LIMIT)
        await kept.settle(first.subscription_id, "done")
        await kept.delay(first.subscription_id, 0.0, "late", 1)
        assert await kept.wake([first.thread_id]) == 1
        assert await taken(store) == [second.subscription_id]
        assert await kept.count() == 1
        assert await kept.of_run(first.run_id, KIND) == [msgspec.structs.replace(first, notice="done"), second]

    @needs("has_subscriptions")
    async def test_those_of_a_thread_are_woken_together(self, store: ThreadStore) -> None:
        kept, first, other = subscriptions_of(store), await a_run(store), await a_run(store, "bob")
        second = like(first, name="second")
        for subscription in (first, second, other):
            assert await kept.add(subscription, LIMIT)
        assert sorted(await taken(store)) == sorted(one.subscription_id for one in (first, second, other))
        assert await kept.wake([uuid7()]) == 0
        assert await kept.wake([]) == 0
        assert await kept.wake([first.thread_id, uuid7()]) == 2
        assert sorted(await taken(store)) == sorted([first.subscription_id, second.subscription_id])

    @needs("has_subscriptions")
    async def test_a_run_has_a_limited_number_and_one_with_the_same_name_is_replaced(self, store: ThreadStore) -> None:
        kept, first = subscriptions_of(store), await a_run(store)
        others = [like(first, name=f"{number}") for number in range(LIMIT - 1)]
        for subscription in (first, *others):
            assert await kept.add(subscription, LIMIT)
        assert not await kept.add(like(first, name="one too many"), LIMIT)
        assert await kept.add(like(first, name="one too many", kind="other"), LIMIT)
        await kept.settle(first.subscription_id, "done")
        newer = like(first, data=b'{"newer":true}')
        assert await kept.add(newer, LIMIT)
        assert await kept.of_run(first.run_id, KIND) == [*others, newer]
        assert newer.subscription_id in await taken(store)
        await kept.settle(first.subscription_id, "of the one that is replaced")
        assert newer in await kept.of_run(first.run_id, KIND)

    @needs("has_subscriptions")
    async def test_concurrent_ones_do_not_exceed_the_limit(self, store: ThreadStore) -> None:
        kept, first = subscriptions_of(store), await a_run(store)
        many = [like(first, name=f"{number}") for number in range(3 * LIMIT)]
        added = await asyncio.gather(*[kept.add(subscription, LIMIT) for subscription in many])
        assert sum(added) == LIMIT == len(await kept.of_run(first.run_id, KIND))

    @needs("has_subscriptions")
    async def test_concurrent_takers_take_each_one_once(self, store: ThreadStore) -> None:
        runs = [await a_run(store, f"contact {number}") for number in range(12)]
        for subscription in runs:
            await subscriptions_of(store).add(subscription, LIMIT)
        found = await asyncio.gather(*[taken(store, 5) for _ in range(4)])
        assert all(len(batch) <= 5 for batch in found)
        rest = await taken(store, 100)
        every = [identifier for batch in found for identifier in batch] + rest
        assert sorted(every) == sorted(subscription.subscription_id for subscription in runs)

    @needs("has_subscriptions")
    async def test_one_that_is_removed_is_gone(self, store: ThreadStore) -> None:
        kept, first = subscriptions_of(store), await a_run(store)
        await kept.add(first, LIMIT)
        assert not await kept.remove(first.run_id, KIND, "other")
        assert not await kept.remove(first.run_id, "other", first.name)
        assert await kept.remove(first.run_id, KIND, first.name)
        assert not await kept.remove(first.run_id, KIND, first.name)
        await kept.delay(first.subscription_id, 0.0, None, 0)
        await kept.settle(first.subscription_id, None)
        assert (await taken(store), await kept.count(), await kept.of_run(first.run_id, KIND)) == ([], 0, [])

    @needs("has_subscriptions")
    async def test_those_of_a_run_that_is_gone_are_gone(self, store: ThreadStore) -> None:
        kept = subscriptions_of(store)
        of_thread, of_contact, purged = [await a_run(store, contact) for contact in ("ann", "bob", "cora")]
        for subscription in (of_thread, of_contact, purged):
            await kept.add(subscription, LIMIT)
            await kept.add(like(subscription, name="settled"), LIMIT)
            [*_, settled] = await kept.of_run(subscription.run_id, KIND)
            await kept.settle(settled.subscription_id, "done")
        await store.delete_thread(of_thread.thread_id, None)
        assert await kept.of_run(of_thread.run_id, KIND) == []
        await store.delete_contact("bob")
        assert await kept.of_run(of_contact.run_id, KIND) == []
        await store.finish(purged.run_id, OWNER, completed())
        assert len(await kept.of_run(purged.run_id, KIND)) == 2
        await store.purge(ALREADY)
        assert await kept.of_run(purged.run_id, KIND) == []
        assert (await taken(store), await kept.count()) == ([], 0)
        with pytest.raises(RunNotFound):
            await kept.add(like(purged), LIMIT)

    @needs("reopen_store", "has_subscriptions")
    async def test_they_are_there_after_the_store_is_opened_again(self) -> None:
        reopen = self.reopen_store
        assert not isinstance(reopen, DoesNotApply)
        async with self.open_store() as store:
            first = await a_run(store)
            await subscriptions_of(store).add(first, LIMIT)
            await subscriptions_of(store).delay(first.subscription_id, 0.0, "asked", 1)
        async with reopen(store) as again:
            await subscriptions_of(again).recover()
            assert await subscriptions_of(again).take(10, HOLD) == [
                msgspec.structs.replace(first, notice="asked", calls=1)
            ]
