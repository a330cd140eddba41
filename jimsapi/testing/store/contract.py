"""The contract of a `ThreadStore`, as tests. A store that passes them meets the requirements of the run service."""

import asyncio

from jimsapi.testing.store.acceptance import Acceptance
from jimsapi.testing.store.contexts import Contexts
from jimsapi.testing.store.deletion import Deletion
from jimsapi.testing.store.housekeeping import Housekeeping
from jimsapi.testing.store.keys import IdempotencyKeys
from jimsapi.testing.store.lookups import Lookups
from jimsapi.testing.store.pages import Pages
from jimsapi.testing.store.runs import RunEndings
from jimsapi.testing.store.samples import take_turn
from jimsapi.testing.store.takeovers import Takeovers
from jimsapi.testing.store_machine import run_store_machine
from jimsapi.threads.store import CommitRecord, ThreadStore


class ThreadStoreContract(
    IdempotencyKeys, Lookups, Takeovers, Acceptance, RunEndings, Deletion, Housekeeping, Pages, Contexts
):
    """Derive a class from this one in a test module, and declare how to open a new, empty store:

        class TestMyStore(ThreadStoreContract):
            @asynccontextmanager
            async def open_store(self):
                async with MyStore(new_location()) as store:
                    yield store

    pytest then runs every case against the store. Each case calls `open_store`. The last case calls it many times: it
    executes random operations on stores, and compares each store with a model. Every call must return an empty store.
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

    def test_random_histories_match_the_model(self) -> None:
        run_store_machine(self.open_store, self.recover, self.adopt, self.disturb)
