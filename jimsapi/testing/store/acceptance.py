"""Tests that a message enters the thread that its plan selects."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from jimsapi.testing.store.base import StoreTests
from jimsapi.testing.store.samples import (
    ALREADY,
    ANYBODY,
    CONTEXT,
    OWNER,
    all_events,
    all_threads,
    answer_all,
    completed,
    contents,
    fill,
    ids_of,
    json_of,
    look_at,
    make_event,
    make_plan,
    same,
    take_turn,
    types_of,
)
from jimsapi.threads.errors import IdentifierTaken, QueueFull, ThreadNotFound
from jimsapi.threads.event import THREAD_CREATED, decode_row
from jimsapi.threads.ids import uuid7
from jimsapi.threads.run import ByExternalId, ById, Latest, New, RunPlan, RunStatus
from jimsapi.threads.store import ThreadStore


class Acceptance(StoreTests):
    """Tests that a message enters the thread that its plan selects."""

    # Accepting

    async def test_a_first_message_makes_a_thread_and_starts_its_run(self, store: ThreadStore) -> None:
        before = datetime.now(UTC)
        plan = make_plan("ann", "Hello")
        accepted = await store.accept(plan)
        assert accepted.created_new_thread
        assert accepted.status is RunStatus.RUNNING
        assert accepted.thread.contact_id == "ann"
        assert json_of(accepted.thread.thread_config) == {"interface": "api"}
        assert before <= accepted.thread.created_at <= datetime.now(UTC)
        assert types_of(accepted.stored) == [THREAD_CREATED, "comm.user_message"]
        assert accepted.snapshot is not None
        assert ids_of(accepted.snapshot.rows) == ids_of(accepted.stored)
        assert not accepted.snapshot.truncated
        created, message = await all_events(store, accepted.thread.thread_id)
        assert json_of(created.event_data) == {}
        assert message.event_id == plan.message.event_id
        assert json_of(message.event_data) == {"role": "user", "content": "Hello"}
        assert before <= created.created_at < message.created_at

    async def test_the_newest_thread_of_a_contact_gets_the_next_message(self, store: ThreadStore) -> None:
        await take_turn(store, selectors=(New(),))
        newest = await take_turn(store, selectors=(New(),))
        again = await take_turn(store)
        assert not again.created_new_thread
        assert again.thread == newest.thread
        assert again.snapshot is not None
        assert types_of(again.snapshot.rows) == [THREAD_CREATED, "comm.user_message", "comm.user_message"]
        assert types_of(again.stored) == ["comm.user_message"]

    async def test_fifty_concurrent_first_messages_make_one_thread(self, store: ThreadStore) -> None:
        plans = [make_plan("ann", str(number)) for number in range(50)]
        accepted = await asyncio.gather(*map(store.accept, plans))
        assert len({one.thread.thread_id for one in accepted}) == 1
        assert [one.created_new_thread for one in accepted].count(True) == 1
        assert [one.status for one in accepted].count(RunStatus.RUNNING) == 1
        assert len(await all_threads(store, "ann")) == 1

    async def test_contacts_do_not_share_threads(self, store: ThreadStore) -> None:
        contacts = ["ann", "", "Ann", "ann ", "🦊 Ümläut", "漢" * 666]
        accepted = [await take_turn(store, contact) for contact in contacts]
        assert len({one.thread.thread_id for one in accepted}) == len(contacts)
        for contact, one in zip(contacts, accepted, strict=True):
            assert await all_threads(store, contact) == [one.thread]
            assert one.thread.contact_id == contact
        assert await all_threads(store, "nobody") == []

    async def test_the_first_selector_that_matches_decides(self, store: ThreadStore) -> None:
        known = (await take_turn(store)).thread.thread_id
        chosen = [
            await take_turn(store, selectors=selectors)
            for selectors in (
                (ById(uuid7()), ByExternalId("none"), Latest(), New()),
                (ById(known), New()),
                (ById(uuid7()), New(), Latest()),
            )
        ]
        assert [one.created_new_thread for one in chosen] == [False, False, True]
        assert [one.thread.thread_id == known for one in chosen] == [True, True, False]

    async def test_a_plan_without_a_matching_selector_raises_thread_not_found(self, store: ThreadStore) -> None:
        missing = uuid7()
        for selectors in ((ById(missing),), (Latest(),), (ByExternalId("none"),), ()):
            with pytest.raises(ThreadNotFound) as refused:
                await store.accept(make_plan(selectors=selectors))
            assert refused.value.thread_id == (missing if selectors == (ById(missing),) else None)
        assert await all_threads(store, "ann") == []

    async def test_latest_uses_the_time_of_the_newest_event(self, store: ThreadStore) -> None:
        first = await take_turn(store)
        busy = await take_turn(store, selectors=(Latest(active_within=timedelta(minutes=30)), New()))
        assert busy.thread == first.thread
        quiet = await take_turn(store, selectors=(Latest(active_within=ALREADY), New()))
        assert quiet.created_new_thread

    async def test_new_can_set_a_config_and_an_external_id(self, store: ThreadStore) -> None:
        new = await take_turn(store, selectors=(New(config={"lang": "ü"}, external_id="slack:7"),))
        assert json_of(new.thread.thread_config) == {"lang": "ü"}
        found = await take_turn(store, "bob", selectors=(ByExternalId("slack:7"), New()))
        assert found.thread == new.thread

    async def test_concurrent_messages_with_one_external_id_make_one_thread(self, store: ThreadStore) -> None:
        selectors = (ByExternalId("slack:7"), New(external_id="slack:7"))
        plans = [make_plan(selectors=selectors) for _ in range(20)]
        accepted = await asyncio.gather(*map(store.accept, plans))
        assert len({one.thread.thread_id for one in accepted}) == 1

    async def test_a_thread_config_is_returned_unchanged(self, store: ThreadStore) -> None:
        config = {"a": [1, 2.5, None, True, {"b": '🦊 \\u0041 " ü'}], "": -9007199254740993, "z": 18446744073709551615}
        accepted = await take_turn(store, thread_config=orjson.dumps(config))
        for thread in (accepted.thread, await store.thread(accepted.thread.thread_id, None)):
            assert json_of(thread.thread_config) == config

    async def test_any_event_type_and_data_are_returned_unchanged(self, store: ThreadStore) -> None:
        values: list[Any] = [
            {"a": "🦊"}, [], {}, "text", "5", 5, -3, 0.1, 1.0, 18446744073709551615, True, None, "x" * 100_000, [[1]],
        ]  # fmt: skip
        kinds = ["ü" * 255, "5"]
        sent = [make_event(kinds[number % 2], value) for number, value in enumerate(values)]
        thread = await fill(store, sent)
        events = (await all_events(store, thread))[2:]
        rows = await store.load_events(thread, None, len(values))
        decoded = [decode_row(thread, row) for row in rows]
        for sent_event, value, event, row in zip(sent, values, events, decoded, strict=True):
            assert event.event_type == row.event_type == sent_event.event_type
            assert event.event_id == row.event_id == sent_event.event_id
            assert same(json_of(event.event_data), value)
            assert same(row.event_data, value)

    async def test_accepting_a_run_twice_stores_it_once(self, store: ThreadStore) -> None:
        running, queued = make_plan(queue_limit=1), make_plan(queue_limit=1)
        for plan in (running, queued):
            first, second = await store.accept(plan), await store.accept(plan)
            assert second.thread == first.thread
            assert second.created_new_thread == first.created_new_thread
            assert second.status == first.status
            assert ids_of(second.stored) == ids_of(first.stored)
            assert (second.snapshot is None) == (first.snapshot is None)
            assert first.snapshot is None or ids_of(second.snapshot.rows if second.snapshot else []) == ids_of(
                first.snapshot.rows
            )
        greeted = make_plan("bob", conversation_start=True)
        first, second = await store.accept(greeted), await store.accept(greeted)
        assert second.status is RunStatus.QUEUED
        assert ids_of(second.stored) == ids_of(first.stored)
        assert second.snapshot is not None
        assert len(await all_events(store, first.thread.thread_id)) == 1

    async def test_a_message_with_a_known_identifier_is_refused(self, store: ThreadStore) -> None:
        plan = make_plan()
        accepted = await store.accept(plan)
        await store.finish(plan.run_id, OWNER, completed())
        fake = make_plan()
        fake = RunPlan(
            run_id=fake.run_id, owner=OWNER, contact_id="ann", acting_for=None, selectors=ANYBODY,
            message=plan.message, thread_config=b"{}",
        )  # fmt: skip
        with pytest.raises(IdentifierTaken) as refused:
            await store.accept(fake)
        assert refused.value.event_ids == {plan.message.event_id}
        assert (await look_at(store, fake.run_id)).status is None
        assert len(await all_events(store, accepted.thread.thread_id)) == 2

    async def test_a_conversation_start_comes_before_the_message(self, store: ThreadStore) -> None:
        first, second = make_plan(text="one", conversation_start=True), make_plan(text="two", conversation_start=True)
        accepted, waiting = await store.accept(first), await store.accept(second)
        assert accepted.status is RunStatus.QUEUED
        assert accepted.snapshot is not None
        assert types_of(accepted.snapshot.rows) == types_of(accepted.stored) == [THREAD_CREATED]
        assert waiting.status is RunStatus.QUEUED
        assert waiting.snapshot is None
        assert waiting.stored == []
        assert await store.start(second.run_id, OWNER, (), CONTEXT) is None
        started = await store.start(first.run_id, OWNER, [make_event(data={"content": "Welcome"})], CONTEXT)
        assert started is not None
        assert types_of(started.stored) == ["comm.assistant_message", "comm.user_message"]
        assert ids_of(started.snapshot.rows) == ids_of(accepted.stored) + ids_of(started.stored)
        assert (await store.finish(first.run_id, OWNER, completed())).next_run == second.run_id
        assert await contents(store, accepted.thread.thread_id) == ["Welcome", "one"]

    async def test_an_existing_thread_is_not_greeted(self, store: ThreadStore) -> None:
        await take_turn(store)
        assert (await store.accept(make_plan(conversation_start=True))).status is RunStatus.RUNNING

    async def test_a_full_queue_rejects_messages(self, store: ThreadStore) -> None:
        running, waiting = make_plan(queue_limit=1), make_plan(queue_limit=1)
        await store.accept(running)
        await store.accept(waiting)
        refused = make_plan(queue_limit=1)
        with pytest.raises(QueueFull):
            await store.accept(refused)
        assert (await look_at(store, refused.run_id)).status is None
        assert (await store.accept(make_plan("bob", queue_limit=0))).status is RunStatus.RUNNING
        await store.cancel(waiting.run_id)
        assert (await store.accept(refused)).status is RunStatus.QUEUED

    async def test_a_cancelled_caller_undoes_nothing(self, store: ThreadStore) -> None:
        plans = [make_plan("ann", str(number)) for number in range(20)]
        callers = [asyncio.ensure_future(store.accept(plan)) for plan in plans]
        await asyncio.sleep(0)
        for caller in callers[::2]:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
        accepted = await asyncio.gather(*map(store.accept, plans))
        assert len({one.thread.thread_id for one in accepted}) == 1
        assert [one.status for one in accepted].count(RunStatus.RUNNING) == 1
        await answer_all(store, plans, accepted[0].thread.thread_id)

    # Acting for one contact only

    async def test_a_thread_of_another_contact_does_not_exist(self, store: ThreadStore) -> None:
        foreign = await take_turn(store, "ann", selectors=(New(external_id="x"),))
        thread_id = foreign.thread.thread_id
        for contact in ("bob", ""):
            for selectors in ((ById(thread_id), New()), (ByExternalId("x"), New())):
                with pytest.raises(ThreadNotFound):
                    await store.accept(make_plan(contact, selectors=selectors, acting_for=contact))
            with pytest.raises(ThreadNotFound):
                await store.thread(thread_id, contact)
            with pytest.raises(ThreadNotFound):
                await store.events(thread_id, contact, 10, None)
            with pytest.raises(ThreadNotFound):
                await store.delete_thread(thread_id, contact)
            assert await all_threads(store, contact) == []
        assert len(await all_events(store, thread_id)) == 2

    async def test_a_thread_of_the_own_contact_is_found(self, store: ThreadStore) -> None:
        for contact in ("ann", ""):
            thread = (await take_turn(store, contact, acting_for=contact)).thread
            again = await take_turn(store, contact, selectors=(ById(thread.thread_id),), acting_for=contact)
            assert again.thread == thread
            assert await store.thread(thread.thread_id, contact) == thread
            assert len((await store.events(thread.thread_id, contact, 10, None)).events) == 3
            assert await store.delete_thread(thread.thread_id, contact) == []
