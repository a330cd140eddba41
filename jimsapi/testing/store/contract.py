"""The contract of a `ThreadStore`, as tests. A store that passes them meets the requirements of the run service."""

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec
import pytest

from jimsapi.testing.contract import DoesNotApply, needs
from jimsapi.testing.store.acceptance import Acceptance
from jimsapi.testing.store.appending import Appending
from jimsapi.testing.store.beside import BesideMessages
from jimsapi.testing.store.contexts import Contexts
from jimsapi.testing.store.deletion import Deletion
from jimsapi.testing.store.facts import FactsOfThreads
from jimsapi.testing.store.housekeeping import Housekeeping
from jimsapi.testing.store.keys import IdempotencyKeys
from jimsapi.testing.store.lists import Lists
from jimsapi.testing.store.lookups import Lookups
from jimsapi.testing.store.outbox import Outboxes
from jimsapi.testing.store.pages import Pages
from jimsapi.testing.store.runs import RunEndings
from jimsapi.testing.store.samples import make_event, make_key, make_plan, take_turn
from jimsapi.testing.store.searches import Searches
from jimsapi.testing.store.subscriptions import SubscriptionsOfRuns
from jimsapi.testing.store.takeovers import Takeovers
from jimsapi.testing.store.transfers import Transfers
from jimsapi.testing.store.usage import UsageTotals
from jimsapi.testing.store_machine import run_store_machine
from jimsapi.threads.errors import KeyUsed
from jimsapi.threads.run import ContextLimits, Outcome, RunPlan, RunStatus
from jimsapi.threads.store import CommitRecord, ThreadStore


class ThreadStoreContract(
    IdempotencyKeys,
    Lookups,
    Takeovers,
    Acceptance,
    BesideMessages,
    RunEndings,
    Appending,
    FactsOfThreads,
    Searches,
    UsageTotals,
    Deletion,
    Housekeeping,
    Outboxes,
    SubscriptionsOfRuns,
    Pages,
    Lists,
    Contexts,
    Transfers,
):
    """Derive a class from this one in a test module, and declare how to open a new, empty store, and how to open its
    data again after it is closed:

        class TestMyStore(ThreadStoreContract):
            @pytest.fixture(autouse=True)
            def folder(self, tmp_path):
                self.tmp_path = tmp_path

            @asynccontextmanager
            async def open_store(self):
                async with MyStore(self.tmp_path / f"{uuid4()}") as store:
                    yield store

            @asynccontextmanager
            async def reopen_store(self, closed):
                async with MyStore(closed.path) as store:
                    yield store

    For a store that loses everything when it is closed, declare `reopen_store = DoesNotApply("it is in memory")`. For a
    store without the methods of `PortableStore`, which `jimsapi store copy` needs, declare `is_portable = False`.
    For a store without an outbox, which durable sinks need, declare `has_outbox = False`. For one that keeps no
    subscriptions (`SubscriptionStore`), declare `has_subscriptions = False`.

    pytest then runs every case against the store. Each case calls `open_store`. The last case calls it many times: it
    executes random operations on stores, closes and opens them in between, and compares each store with a model. Every
    call must return an empty store, and must not delete the data of a store that is closed.
    The contract needs pytest, anyio (whose pytest plugin runs the cases) and hypothesis. For a longer run of the last
    case, set `JIMSAPI_STORE_EXAMPLES` (default 60) to the number of random histories.

    The contract cannot test two requirements, so write tests for them: what the store acknowledged survives a crash;
    and when its database is unavailable, the store raises `StoreUnavailable`, and works again afterwards.
    """

    async def test_it_answers_a_ping_and_has_a_name(self, store: ThreadStore) -> None:
        await store.ping()
        assert store.name

    async def test_every_commit_is_reported(self, store: ThreadStore) -> None:
        reports: list[CommitRecord] = []
        store.on_commit = reports.append
        await asyncio.gather(*[take_turn(store, str(number)) for number in range(10)])
        assert sum(report.operations for report in reports) == 20
        assert not any(report.failed for report in reports)
        assert all(report.duration >= 0 for report in reports)

    @needs("reopen_store")
    async def test_everything_is_there_after_the_store_is_opened_again(self) -> None:
        reopen = self.reopen_store
        assert not isinstance(reopen, DoesNotApply)
        key = make_key()
        plans = [
            make_plan(text="first", thread_config=b'{"a":[1,null]}', idempotency=key),
            make_plan(text="second", background=True, webhook_url="https://example.com"),
        ]
        async with self.open_store() as store:
            thread_id = (await store.accept(plans[0])).thread.thread_id
            await store.accept(plans[1])
            outcome = Outcome(RunStatus.COMPLETED, (make_event(data={"content": "\N{FOX FACE}"}),), None, 2)
            await store.finish(plans[0].run_id, plans[0].owner, outcome)
            before = await _read_all(store, thread_id, plans)
        async with reopen(store) as again:
            assert await _read_all(again, thread_id, plans) == before
            with pytest.raises(KeyUsed):
                await again.accept(make_plan(idempotency=key))
            started = await again.start(plans[1].run_id, plans[1].owner, [], ContextLimits())
            assert started is not None, "the run that waited cannot start"

    def test_random_histories_match_the_model(self) -> None:
        reopen = self.reopen_store
        reopens = None if isinstance(reopen, DoesNotApply) else reopen
        run_store_machine(self.open_store, self.recover, self.adopt, self.disturb, reopens)


async def _read_all(store: ThreadStore, thread_id: UUID, plans: Sequence[RunPlan]) -> Any:
    """Return what readers see of a thread and its runs, as plain data."""
    runs = [await store.run(plan.run_id, None, None) for plan in plans]
    pages = await store.threads(plans[0].contact_id, 10, None), await store.events(thread_id, None, 10, None)
    return msgspec.to_builtins([runs, *pages, await store.thread(thread_id, None)])
