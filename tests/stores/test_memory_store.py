"""The memory store keeps the contract of every store."""

import gc
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from jimsapi.stores.memory import MemoryStore
from jimsapi.testing import DoesNotApply, ThreadStoreContract
from jimsapi.testing.store import OWNER, completed, fill, make_event, make_plan
from jimsapi.threads.errors import IdentifierTaken
from jimsapi.threads.store import ThreadStore


class TestMemoryStore(ThreadStoreContract):
    reopen_store = DoesNotApply("it is in memory")

    @asynccontextmanager
    async def open_store(self) -> AsyncIterator[ThreadStore]:
        async with MemoryStore() as store:
            yield store

    @pytest.mark.parametrize("length", [10, 200])
    async def test_a_known_identifier_is_found_in_threads_of_any_length(self, store: ThreadStore, length: int) -> None:
        events = [make_event() for _ in range(length)]
        await fill(store, events)
        plan = make_plan()
        await store.accept(plan)
        for known in (events[0], events[-1], plan.message):
            with pytest.raises(IdentifierTaken):
                await store.finish(plan.run_id, OWNER, completed(make_event(), known))
        assert (await store.finish(plan.run_id, OWNER, completed(make_event()))).counted

    async def test_threads_that_share_a_config_keep_it_when_another_comes(self, store: ThreadStore) -> None:
        configs = [b'{"interface":"api"}', b'{"interface":"api"}', b"{}", b'{"other":1}', b'{"interface":"api"}']
        plans = [make_plan(f"contact {number}", thread_config=config) for number, config in enumerate(configs)]
        threads = [(await store.accept(plan)).thread for plan in plans]
        assert [thread.thread_config for thread in threads] == configs


@pytest.mark.anyio
async def test_a_store_that_is_dropped_with_open_runs_leaves_nothing() -> None:
    text = "x" * 1_000_000
    tracemalloc.start()
    try:
        for _ in range(20):
            dropped = MemoryStore()
            for name in ("runs", "waits"):
                await dropped.accept(make_plan("ann", f"{name} {text}"))
        del dropped
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < 5_000_000
    finally:
        tracemalloc.stop()
