"""Tests that events are appended to a thread outside of its runs."""

from itertools import pairwise

import pytest

from jimsapi.testing.store.base import StoreTests
from jimsapi.testing.store.samples import (
    CONTEXT,
    OWNER,
    all_events,
    completed,
    event_types,
    fill,
    ids_of,
    json_of,
    make_event,
    make_plan,
    take_turn,
)
from jimsapi.threads.errors import IdentifierTaken, ThreadNotFound
from jimsapi.threads.event import NewEvent
from jimsapi.threads.ids import uuid7
from jimsapi.threads.store import ThreadStore


class Appending(StoreTests):
    """Tests that events are appended to a thread outside of its runs."""

    async def test_events_are_appended_in_order_after_all_others(self, store: ThreadStore) -> None:
        thread_id = await fill(store, [make_event("rag.sent")])
        added = [make_event("rag.added", {"n": number}) for number in range(3)]
        stored = await store.append(thread_id, "ann", added)
        assert ids_of(stored) == [event.event_id for event in added]
        events = await all_events(store, thread_id)
        assert [json_of(event.event_data) for event in events[-3:]] == [{"n": 0}, {"n": 1}, {"n": 2}]
        assert all(earlier.created_at < later.created_at for earlier, later in pairwise(events))
        later = await take_turn(store)
        assert later.snapshot is not None
        assert ids_of(later.snapshot.rows)[-4:-1] == [event.event_id for event in added]

    async def test_events_are_appended_while_runs_are_open(self, store: ThreadStore) -> None:
        running, waiting = make_plan(), make_plan()
        thread_id = (await store.accept(running)).thread.thread_id
        await store.accept(waiting)
        await store.append(thread_id, None, [make_event("rag.added")])
        assert (await store.finish(running.run_id, OWNER, completed(make_event("rag.sent")))).counted
        assert await store.start(waiting.run_id, OWNER, (), CONTEXT) is not None
        assert (await event_types(store, thread_id))[-3:] == ["rag.added", "rag.sent", "comm.user_message"]
        assert [one.event_type for one in (await store.run(running.run_id, None, None)).events] == ["rag.sent"]

    async def test_appending_the_same_events_again_stores_nothing(self, store: ThreadStore) -> None:
        thread_id = await fill(store, [])
        added = [make_event("rag.added"), make_event("rag.added")]
        first = await store.append(thread_id, None, added)
        again = await store.append(thread_id, None, added)
        assert ids_of(again) == ids_of(first)
        assert len(await all_events(store, thread_id)) == 4

    async def test_appending_no_events_stores_nothing(self, store: ThreadStore) -> None:
        thread_id = await fill(store, [])
        assert await store.append(thread_id, None, []) == []
        assert len(await all_events(store, thread_id)) == 2

    async def test_an_identifier_that_the_thread_has_is_refused(self, store: ThreadStore) -> None:
        known = make_event("rag.sent")
        thread_id = await fill(store, [known])
        with pytest.raises(IdentifierTaken) as refused:
            await store.append(thread_id, None, [make_event(), NewEvent(known.event_id, "x", b"{}")])
        assert refused.value.event_ids == {known.event_id}
        assert len(await all_events(store, thread_id)) == 3

    async def test_only_a_thread_of_the_contact_gets_events(self, store: ThreadStore) -> None:
        thread_id = await fill(store, [])
        for target, acting_for in ((thread_id, "bob"), (thread_id, ""), (uuid7(), None), (uuid7(), "ann")):
            with pytest.raises(ThreadNotFound) as refused:
                await store.append(target, acting_for, [make_event()])
            assert refused.value.thread_id == target
        assert len(await all_events(store, thread_id)) == 2
        await store.delete_thread(thread_id, None)
        with pytest.raises(ThreadNotFound):
            await store.append(thread_id, None, [make_event()])
