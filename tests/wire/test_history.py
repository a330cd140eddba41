"""How much of a long conversation is read for its history."""

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from jimsapi.runs.service import RunService
from jimsapi.stores.memory import MemoryStore
from jimsapi.testing.store import fill, make_event
from jimsapi.threads.event import Event, EventRow
from jimsapi.wire.history import EVENTS_AT_ONCE, NEWEST_BYTES, newest_events

pytestmark = pytest.mark.anyio


class CountingStore(MemoryStore):
    """It counts the most bytes that one call has loaded."""

    most = 0

    async def load_events(self, thread_id: Any, before: Event | None, limit: int) -> list[EventRow]:
        rows = await super().load_events(thread_id, before, limit)
        self.most = max(self.most, sum(len(row.data or b"") for row in rows))
        return rows


@pytest.fixture
async def store() -> AsyncIterator[CountingStore]:
    async with CountingStore() as store:
        yield store


def service_on(store: CountingStore) -> RunService:
    return cast(RunService, SimpleNamespace(store=store))


async def test_a_history_of_long_messages_is_cut_by_their_bytes(store: CountingStore) -> None:
    events = [make_event(data={"content": "x" * 100_000}) for _ in range(200)]
    thread_id = await fill(store, events)
    rows, is_cut = await newest_events(service_on(store), thread_id, 1000)
    assert is_cut
    assert [row.event_id for row in rows] == [event.event_id for event in events[-len(rows) :]]
    assert NEWEST_BYTES - 110_000 < sum(len(row.data or b"") for row in rows) <= NEWEST_BYTES
    assert store.most <= 100_100 * EVENTS_AT_ONCE


async def test_a_history_of_short_messages_is_cut_by_their_number(store: CountingStore) -> None:
    thread_id = await fill(store, [make_event() for _ in range(298)])  # it has 300 events
    for limit, count, cut in ((1000, 300, False), (301, 300, False), (300, 300, True), (120, 120, True), (1, 1, True)):
        rows, is_cut = await newest_events(service_on(store), thread_id, limit)
        assert (len(rows), is_cut) == (count, cut)
        assert rows == await store.load_events(thread_id, None, limit)


async def test_one_event_is_read_whatever_its_size(store: CountingStore) -> None:
    thread_id = await fill(store, [make_event(data={"content": "x" * (NEWEST_BYTES + 1)})])
    rows, is_cut = await newest_events(service_on(store), thread_id, 10)
    assert (len(rows), is_cut) == (1, True)
