"""Tests that threads and events are listed page by page."""

import pytest

from jimsapi.testing.store.base import StoreTests
from jimsapi.testing.store.samples import (
    OWNER,
    all_events,
    all_threads,
    completed,
    fill,
    make_event,
    make_plan,
    take_turn,
)
from jimsapi.threads.errors import InvalidCursor
from jimsapi.threads.run import ById, New
from jimsapi.threads.store import ThreadStore, encode_cursor


class Pages(StoreTests):
    """Tests that threads and events are listed page by page."""

    @pytest.mark.parametrize("limit", [1, 3, 10, 11])
    async def test_pages_have_every_item_once(self, store: ThreadStore, limit: int) -> None:
        threads = [(await take_turn(store, selectors=(New(),))).thread for _ in range(10)]
        await take_turn(store, "bob")
        assert await all_threads(store, "ann", limit) == threads[::-1]
        sent = [make_event() for _ in range(8)]
        thread_id = await fill(store, sent, "cid")
        events = await all_events(store, thread_id, limit)
        assert [event.event_id for event in events[2:]] == [event.event_id for event in sent]
        assert len(events) == 10
        exact = await store.events(thread_id, None, 10, None)
        assert len(exact.events) == 10
        assert exact.next is None

    async def test_a_page_continues_where_the_last_one_ended(self, store: ThreadStore) -> None:
        thread_id = await fill(store, [make_event() for _ in range(3)])
        page = await store.events(thread_id, None, 4, None)
        late = make_event()
        plan = make_plan(selectors=(ById(thread_id),))
        await store.accept(plan)
        await store.finish(plan.run_id, OWNER, completed(late))
        next_page = await store.events(thread_id, None, 10, page.next)
        assert len(next_page.events) == 3
        assert next_page.events[-1].event_id == late.event_id
        await fill(store, (), "ann")
        newest = await store.threads("ann", 1, None)
        await store.delete_thread(newest.threads[0].thread_id, None)
        assert [one.thread_id for one in (await store.threads("ann", 9, newest.next)).threads] == [thread_id]

    async def test_a_cursor_that_the_store_did_not_make_is_refused(self, store: ThreadStore) -> None:
        thread_id = await fill(store, [make_event() for _ in range(3)])
        await fill(store, ())
        of_events = (await store.events(thread_id, None, 1, None)).next
        of_threads = (await store.threads("ann", 1, None)).next
        assert of_events is not None
        assert of_threads is not None
        garbage = ["", "x", "ü", "\0", "bnVsbA", of_events[:-5], encode_cursor("a", "b"), encode_cursor("a", "b", "c")]
        garbage += [encode_cursor("threads", "then"), encode_cursor("events", "now", "x"), "A" * 10_000]
        for cursor in (*garbage, of_threads):
            with pytest.raises(InvalidCursor):
                await store.events(thread_id, None, 10, cursor)
        for cursor in (*garbage, of_events):
            with pytest.raises(InvalidCursor):
                await store.threads("ann", 10, cursor)
