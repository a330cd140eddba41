"""Tests that everything that a store has can be copied to another store."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from secrets import token_hex
from typing import Any, cast
from uuid import UUID

import msgspec
import pytest

from jimsapi.stores.memory import MemoryStore
from jimsapi.testing.contract import needs
from jimsapi.testing.store.base import StoreTests
from jimsapi.testing.store.samples import (
    OWNER,
    all_events,
    completed,
    fill,
    json_of,
    make_event,
    make_key,
    make_plan,
    outbox_of,
)
from jimsapi.testing.store.subscriptions import subscriptions_of
from jimsapi.threads.activity import MODEL_USAGE
from jimsapi.threads.copying import Contents, CopyRefused, copy_store, measure
from jimsapi.threads.errors import KeyUsed
from jimsapi.threads.event import TICK
from jimsapi.threads.facts import Feedback, ForkPlan, Parent, Rating, ThreadChange, ThreadFacts
from jimsapi.threads.ids import uuid7
from jimsapi.threads.run import ByExternalId, ById, FailureKind, New, Outcome, RunStatus, ThreadQuery
from jimsapi.threads.store import PAGE_BYTES, ThreadStore
from jimsapi.threads.subscriptions import Subscription
from jimsapi.threads.transfer import (
    RECORDS,
    TRANSFER_METHODS,
    CallerUsage,
    ContactUsage,
    EndedRun,
    KeyRecord,
    PortableStore,
    Record,
    RecordKind,
    SubscriptionRecord,
    WholeEvent,
    WholeThread,
    digest_thread,
)
from jimsapi.threads.usage import ModelTotal, UsageHolder, UsageTotal

MOMENT = datetime(2025, 3, 1, 12, 0, 0)
"""A time of a whole second, without a time zone."""
USED = {"model": "m", "input_tokens": 7, "output_tokens": 3, "cached_tokens": 2, "cost": 0.1}


def portable(store: ThreadStore) -> PortableStore:
    """Return the store for copying. Fails if it lacks a method of `PortableStore`."""
    missing = [name for name in TRANSFER_METHODS if not hasattr(store, name)]
    assert not missing, f"the store lacks {', '.join(missing)}; if it cannot be copied, set is_portable to False"
    return cast(PortableStore, store)


def whole_thread(thread_id: UUID | None = None, contact_id: str | None = None, **fields: Any) -> WholeThread:
    """Return a thread as another JIMS program may have stored it, if `fields` say nothing else."""
    given = {
        "external_id": None,
        "created_at": MOMENT + timedelta(microseconds=123),
        "thread_config": b'{"b": [1.0, "\\u00e9", null], "a": 1e2}',
        "facts": ThreadFacts(),
        "events": [
            WholeEvent(uuid7(), MOMENT, "comm.user_message", "comm", "user_message", b'{"role":"user","content":"a"}'),
            WholeEvent(uuid7(), MOMENT + TICK, "rag.step", None, "", None),
            WholeEvent(uuid7(), MOMENT + 2 * TICK, "rag.step", "", None, b"null"),
            WholeEvent(uuid7(), MOMENT + 3 * TICK, "rag.number", None, None, b"17"),
        ],
    }
    return WholeThread(thread_id=thread_id or uuid7(), contact_id=contact_id, **{**given, **fields})


def ended_run(**fields: Any) -> EndedRun:
    """Return a run of which only what every run has is set."""
    given: dict[str, Any] = {
        "run_id": uuid7(),
        "status": RunStatus.FAILED,
        "created_new_thread": False,
        "accepted_at": MOMENT.replace(tzinfo=UTC),
        "started_at": None,
        "finished_at": MOMENT.replace(tzinfo=UTC) + TICK,
        "error": "Pipeline error: no",
        "failure": None,
        "message_id": uuid7(),
        "continues": False,
        "caller": None,
        "background": False,
        "webhook_url": None,
        "sent_at": None,
        "sent": 0,
        "streamed": None,
    }
    return EndedRun(**{**given, **fields})


def foreign_thread() -> WholeThread:
    """Return a thread of which everything is set."""
    thread = whole_thread(contact_id="Ännchen 😀", external_id="tg:1")
    question, *_, answer = [event.event_id for event in thread.events]
    return whole_thread(
        thread.thread_id,
        thread.contact_id,
        external_id="tg:1",
        events=thread.events,
        facts=ThreadFacts("A title", MOMENT.replace(tzinfo=UTC), b'{"n": 1.50}', Parent(uuid7(), uuid7())),
        runs=[
            ended_run(),
            ended_run(
                status=RunStatus.COMPLETED,
                created_new_thread=True,
                started_at=MOMENT.replace(tzinfo=UTC),
                error=None,
                message_id=question,
                continues=True,
                caller=uuid7(),
                background=True,
                webhook_url="https://example.com/ü",
                sent_at=MOMENT + TICK,
                sent=3,
                streamed=5,
                restarts=2,
            ),
            ended_run(failure=FailureKind.TIMEOUT, message_id=question),
        ],
        feedback=[
            Feedback(event_id, Rating(1, comment), MOMENT.replace(tzinfo=UTC))
            for event_id, comment in sorted([(question, None), (answer, "so so")])
        ],
        usage=[ModelTotal("a", UsageTotal(1, 2, 3, 1, 0.1)), ModelTotal("ü", UsageTotal(10**6, 10**12, 10**12, 0))],
    )


def sample_records() -> dict[RecordKind, list[Record]]:
    """Return records of each kind, in their order. No caller is the one of unknown callers."""
    day, callers = date(2025, 3, 1), sorted([uuid7(), uuid7()])
    total = UsageTotal(2, 10**12, 3, 1, 0.30000000000000004)
    contacts = ["", "Z", "a", "é", "\uffff", "😀"]
    return {
        ContactUsage: [ContactUsage(contact, day, model, callers[0], total) for contact in contacts for model in "mn"],
        CallerUsage: [
            CallerUsage(caller, day + timedelta(days), "m", total) for caller in callers for days in (0, 1, 400)
        ],
        KeyRecord: [
            KeyRecord(key, uuid7(), uuid7(), MOMENT.replace(tzinfo=UTC) + TICK)
            for key in sorted(uuid7() for _ in range(5))
        ],
    }


def subscription_records(thread: WholeThread) -> list[SubscriptionRecord]:
    """Return subscriptions to the runs of a thread, in their order: due, settled, and with a call that has failed."""
    due = MOMENT.replace(tzinfo=UTC) + TICK
    data = '{"url": "https://example.com/\N{FOX FACE}"}'.encode()
    return [
        SubscriptionRecord(run, "test", name, uuid7(), thread.thread_id, caller, data, notice, calls, due_at, call_at)
        for run in sorted(run.run_id for run in thread.runs)
        for name, caller, notice, calls, due_at, call_at in (
            ("", None, None, 0, due, None),
            ("Z", uuid7(), "done ü", 0, None, None),
            ("a", uuid7(), "again", 2, due, due + timedelta(days=10_000)),
            ("\uffff", None, None, 0, due, None),
            ("😀", None, None, 0, due, None),
        )
    ]


async def subscribe(store: ThreadStore, thread_id: UUID, run_id: UUID) -> None:
    """Add a subscription whose last call has failed, and one that is settled, if the store keeps any."""
    if store.subscriptions is None:
        return
    kept = subscriptions_of(store)
    for name in ("failed", "settled"):
        subscription = Subscription(uuid7(), run_id, thread_id, "test", name, uuid7(), b'{"token": "t"}')
        assert await kept.add(subscription, 10)
        if name == "failed":
            await kept.delay(subscription.subscription_id, 3600.0, "a", 3)
        else:
            await kept.settle(subscription.subscription_id, "b")


async def use(store: ThreadStore) -> list[UUID]:
    """Store what people, pipelines and callers leave in a store. Returns the threads."""
    asked = make_plan("ann", caller=uuid7(), idempotency=make_key(), beside=[("message.metadata", {"metadata": {}})])
    first = (await store.accept(asked)).thread.thread_id
    answer = make_event(data={"content": "\N{FOX FACE}"})
    await store.finish(asked.run_id, OWNER, completed(make_event(MODEL_USAGE, USED), answer))
    await store.rate(first, None, answer.event_id, Rating(-1, "too short"))
    await subscribe(store, first, asked.run_id)
    await store.change_thread(first, None, ThreadChange("Foxes", archived=True, metadata=b'{"stars":5}'))
    failed = make_plan("ann", selectors=(ById(first),))
    await store.accept(failed)
    error = Outcome(RunStatus.FAILED, error="Pipeline error: no", failure=FailureKind.PIPELINE)
    await store.finish(failed.run_id, OWNER, error)
    fork = ForkPlan(thread_id=uuid7(), parent_id=first, acting_for=None, event_id=asked.message.event_id)
    await store.fork(fork)
    cancelled = make_plan("", selectors=(New(external_id="tg:7"),), webhook_url="https://example.com")
    second = (await store.accept(cancelled)).thread.thread_id
    await store.cancel(cancelled.run_id)
    await store.add_usage(uuid7(), "bob", uuid7(), [make_event(MODEL_USAGE, USED)])
    return [first, fork.thread_id, second]


async def all_whole(store: PortableStore, limit: int = 100) -> list[WholeThread]:
    """Return all threads, read in batches."""
    threads: list[WholeThread] = []
    while batch := await store.export_threads(threads[-1].thread_id if threads else None, limit):
        assert len(batch) <= limit
        threads += batch
        assert len(threads) <= 10_000, "the batches do not end"
    return threads


def other_store() -> MemoryStore:
    """Return a store that is not the one under test."""
    store = MemoryStore()
    store.name = "another store"
    return store


def nothing(what: str, count: int, total: int) -> None:
    """Do not report."""


class Transfers(StoreTests):
    """Tests that everything that a store has can be copied to another store."""

    @needs("is_portable")
    async def test_a_copy_in_another_store_and_one_of_the_copy_have_all_that_the_original_has(self) -> None:
        memory = other_store()
        async with self.open_store() as store:
            original = portable(store)
            await use(store)
            await original.import_threads([foreign_thread(), whole_thread()])
            for records in sample_records().values():
                await original.import_records(records)
            there, copied = await copy_store(original, memory, nothing)
        assert there == copied
        assert (there.threads, there.runs, there.ratings, there.keys) == (5, 6, 3, 7)
        async with self.open_store() as store:
            assert await copy_store(memory, portable(store), nothing) == (there, there)

    @needs("is_portable")
    async def test_threads_are_exported_as_the_store_shows_them(self, store: ThreadStore) -> None:
        source = portable(store)
        for thread_id in await use(store):
            [whole] = await source.export_by_id([thread_id])
            record = await store.thread(thread_id, None)
            assert (whole.thread_id, whole.contact_id) == (thread_id, record.contact_id)
            assert whole.created_at.astimezone(UTC) == record.created_at
            assert json_of(whole.thread_config) == json_of(record.thread_config)
            events = await all_events(store, thread_id)
            assert [(event.event_id, event.created_at.replace(tzinfo=UTC)) for event in whole.events] == [
                (event.event_id, event.created_at) for event in events
            ]
            assert [(event.event_type, json_of(event.data)) for event in whole.events if event.data is not None] == [
                (event.event_type, json_of(event.event_data)) for event in events
            ]
            [summary] = await store.summaries([thread_id])
            assert (whole.facts.title, whole.facts.archived_at) == (summary.facts.title, summary.facts.archived_at)
            assert whole.facts.parent == summary.facts.parent
            assert list(whole.feedback) == await store.feedback(thread_id, None)
            assert list(whole.usage) == await store.thread_usage(thread_id, None)
            for ended in whole.runs:
                run = await store.run(ended.run_id, None, None)
                assert (ended.status, ended.error, ended.failure) == (run.status, run.error, run.failure)
                assert (ended.accepted_at, ended.started_at) == (run.accepted_at, run.started_at)
                assert (ended.finished_at, ended.message_id) == (run.finished_at, run.message_id)
                assert (ended.streamed, ended.sent) == (run.streamed, len(run.events))
            assert len(whole.runs) == len((await store.runs(None, 100, None)).runs) - sum(
                [len(other.runs) for other in await all_whole(source) if other.thread_id != thread_id]
            )

    @needs("is_portable")
    async def test_imported_threads_are_read_like_others(self, store: ThreadStore) -> None:
        target, whole = portable(store), foreign_thread()
        bare = whole_thread(events=[])
        assert await target.import_threads([whole, bare]) == 2
        record = await store.thread(whole.thread_id, whole.contact_id)
        assert record.created_at == whole.created_at.astimezone(UTC)
        assert json_of(record.thread_config) == json_of(whole.thread_config)
        found = await store.find_thread(ThreadQuery("any", (ByExternalId("tg:1"),), None))
        assert found.thread_id == whole.thread_id
        events = await all_events(store, whole.thread_id)
        assert [(event.event_id, event.event_type) for event in events] == [
            (event.event_id, event.event_type) for event in whole.events
        ]
        assert [event.event_data is None for event in events] == [False, True, False, False]
        assert await store.feedback(whole.thread_id, None) == list(whole.feedback)
        assert await store.thread_usage(whole.thread_id, None) == list(whole.usage)
        early, answered, late = [await store.run(run.run_id, None, None) for run in whole.runs]
        assert [event.event_id for event in answered.events] == [event.event_id for event in whole.events[1:]]
        assert (early.message_id, early.failure) == (whole.runs[0].message_id, None)
        assert (late.message_id, late.failure) == (whole.events[0].event_id, FailureKind.TIMEOUT)
        [facts, of_bare] = [summary.facts for summary in await store.summaries([whole.thread_id, bare.thread_id])]
        assert (facts.title, facts.archived_at, facts.parent) == (
            whole.facts.title,
            whole.facts.archived_at,
            whole.facts.parent,
        )
        assert (of_bare, await all_events(store, bare.thread_id)) == (ThreadFacts(), [])
        exported = await target.export_by_id([whole.thread_id, bare.thread_id])
        assert [digest_thread(thread) for thread in exported] == [digest_thread(thread) for thread in (whole, bare)]

    @needs("is_portable")
    async def test_an_imported_thread_goes_on(self, store: ThreadStore) -> None:
        whole = foreign_thread()
        await portable(store).import_threads([whole])
        plan = make_plan("Ännchen 😀", selectors=(ById(whole.thread_id),))
        accepted = await store.accept(plan)
        assert (accepted.status, accepted.created_new_thread) == (RunStatus.RUNNING, False)
        assert (await store.finish(plan.run_id, OWNER, completed(make_event(MODEL_USAGE, USED)))).counted
        [ended] = [run for run in await _ended_runs(portable(store), whole.thread_id) if run.run_id == plan.run_id]
        assert (ended.sent, ended.message_id) == (1, plan.message.event_id)
        assert [used.model for used in await store.thread_usage(whole.thread_id, None)] == ["a", "m", "ü"]
        assert await store.delete_thread(whole.thread_id, None) == []
        assert await portable(store).count_threads() == 0

    @needs("is_portable")
    async def test_a_thread_that_the_store_has_stays_as_it_is(self, store: ThreadStore) -> None:
        target, first, second = portable(store), whole_thread(), foreign_thread()
        assert await target.import_threads([first]) == 1
        before = await target.export_by_id([first.thread_id])
        changed = whole_thread(first.thread_id, "eve", facts=ThreadFacts("Another"), runs=[ended_run()])
        assert await target.import_threads([changed, second]) == 1
        assert await target.export_by_id([first.thread_id]) == before
        assert await target.import_threads([second]) == 0
        assert await target.count_threads() == 2

    @pytest.mark.parametrize("limit", [1, 3, 100])
    @needs("is_portable")
    async def test_batches_have_each_thread_once(self, store: ThreadStore, limit: int) -> None:
        source = portable(store)
        ids = [UUID(int=number << 100) for number in range(7)] + [uuid7(), UUID(int=(1 << 128) - 1)]
        await source.import_threads([whole_thread(thread_id) for thread_id in reversed(ids)])
        assert [thread.thread_id for thread in await all_whole(source, limit)] == ids
        assert await source.count_threads() == len(ids)

    @needs("is_portable")
    async def test_a_batch_ends_when_its_texts_are_long(self, store: ThreadStore) -> None:
        source = portable(store)
        long = f'"{token_hex(PAGE_BYTES // 6)}"'.encode()  # random, since a store may compress it
        events = [[WholeEvent(uuid7(), MOMENT + number * TICK, "rag.x", None, None, long)] for number in range(6)]
        threads = [whole_thread(events=each) for each in events]
        await source.import_threads(threads)
        assert 0 < len(await source.export_threads(None, 100)) < 6
        assert len(await all_whole(source)) == 6

    @needs("is_portable")
    async def test_threads_are_exported_by_their_identifiers_in_the_order_of_these(self, store: ThreadStore) -> None:
        source, threads = portable(store), [whole_thread(), whole_thread(), foreign_thread()]
        await source.import_threads(threads)
        ids = [threads[2].thread_id, uuid7(), threads[0].thread_id]
        assert [thread.thread_id for thread in await source.export_by_id(ids)] == [ids[0], ids[2]]

    @needs("is_portable")
    async def test_open_runs_are_counted_and_left_out(self, store: ThreadStore) -> None:
        source = portable(store)
        assert (await source.activity()).open_runs == 0
        running, waiting = make_plan(), make_plan(text="Wait")
        thread_id = (await store.accept(running)).thread.thread_id
        await store.accept(waiting)
        assert (await source.activity()).open_runs == 2
        assert await _ended_runs(source, thread_id) == []
        with pytest.raises(CopyRefused, match=r"has open runs, .* \(2\)"):
            await copy_store(source, other_store(), nothing)
        await store.finish(running.run_id, OWNER, completed())
        assert [run.run_id for run in await _ended_runs(source, thread_id)] == [running.run_id]
        await store.cancel(waiting.run_id)
        assert (await source.activity()).open_runs == 0

    @needs("is_portable")
    async def test_records_are_read_in_their_order_and_stay_as_they_are(self, store: ThreadStore) -> None:
        target = portable(store)
        for kind, records in sample_records().items():
            assert kind in RECORDS
            await target.import_records(list(reversed(records)))
            for limit in (1, 5, 100):
                read: list[Record] = []
                while batch := await target.export_records(kind, read[-1] if read else None, limit):
                    assert len(batch) <= limit
                    read += batch
                assert read == records
            await target.import_records([_changed(record) for record in records])
            assert await target.export_records(kind, None, 100) == records
        await target.import_records([])

    @needs("is_portable", "has_subscriptions")
    async def test_subscriptions_are_read_in_their_order_and_stay_as_they_are(self, store: ThreadStore) -> None:
        target, thread = portable(store), foreign_thread()
        await target.import_threads([thread])
        records = subscription_records(thread)
        await target.import_records(list(reversed(records)))
        for limit in (1, 5, 100):
            read: list[Record] = []
            while batch := await target.export_records(SubscriptionRecord, read[-1] if read else None, limit):
                read += batch
            assert read == records
        await target.import_records([_changed(record) for record in records])
        assert await target.export_records(SubscriptionRecord, None, 100) == records
        assert "https" not in repr(records)

    @needs("is_portable", "has_subscriptions")
    async def test_imported_subscriptions_are_due_as_they_were(self, store: ThreadStore) -> None:
        target, thread, kept = portable(store), foreign_thread(), subscriptions_of(store)
        await target.import_threads([thread])
        records = subscription_records(thread)
        await target.import_records(records)
        assert await kept.count() == len([record for record in records if record.due_at is not None])
        [first, *_] = records
        assert [each.name for each in await kept.of_run(first.run_id, "test")] == ["", "Z", "a", "\uffff", "😀"]
        taken = {each.subscription_id: each for each in await kept.take(100, 3600.0)}
        assert taken.keys() == {record.subscription_id for record in records if record.due_at is not None}
        [again, *_] = [record for record in records if record.calls]
        found = taken[again.subscription_id]
        assert (found.notice, found.calls, found.caller, found.data) == ("again", 2, again.caller, again.data)
        assert found.pause > 0
        await kept.settle(first.subscription_id, "done")
        assert not await kept.add(Subscription(uuid7(), first.run_id, thread.thread_id, "test", "x", None, b"{}"), 5)

    @needs("is_portable", "has_subscriptions")
    async def test_subscriptions_of_deleted_runs_are_not_copied(self, store: ThreadStore) -> None:
        source, target = portable(store), other_store()
        plan = make_plan()
        thread_id = (await store.accept(plan)).thread.thread_id
        await store.finish(plan.run_id, OWNER, completed())
        await subscribe(store, thread_id, plan.run_id)
        assert len(await source.export_records(SubscriptionRecord, None, 10)) == 2
        await store.delete_thread(thread_id, None)
        assert await source.export_records(SubscriptionRecord, None, 10) == []
        there, copied = await copy_store(source, target, nothing)
        assert there == copied == Contents()

    @needs("is_portable", "has_subscriptions")
    async def test_a_copy_adds_the_subscriptions_that_the_target_lacks(self, store: ThreadStore) -> None:
        source, target, thread = portable(store), other_store(), foreign_thread()
        await source.import_threads([thread])
        records = subscription_records(thread)
        await source.import_records(records)
        await target.import_threads([thread])
        await target.import_records(records[3:5])
        there, copied = await copy_store(source, target, nothing)
        assert (there, there.subscriptions) == (copied, len(records))
        await target.subscriptions.settle(records[0].subscription_id, "told")
        with pytest.raises(CopyRefused, match="SubscriptionRecord"):
            await copy_store(source, target, nothing)
        assert (await measure(target, nothing)).digest != there.digest

    @needs("is_portable", "has_subscriptions")
    async def test_a_target_that_keeps_no_subscriptions_is_refused(self, store: ThreadStore) -> None:
        source, target = portable(store), other_store()
        target.subscriptions = None  # type: ignore[assignment] # as in a store that keeps none
        await source.import_threads([foreign_thread()])
        there, copied = await copy_store(source, target, nothing)
        assert there == copied
        await use(store)
        with pytest.raises(CopyRefused, match="keeps no subscriptions"):
            await copy_store(source, target, nothing)
        assert await target.count_threads() == 1

    @needs("is_portable")
    async def test_imported_totals_count(self, store: ThreadStore) -> None:
        records = sample_records()
        for each in records.values():
            await portable(store).import_records(each)
        [first, *_] = records[CallerUsage]
        assert isinstance(first, CallerUsage)
        days = first.day, first.day
        [used] = await store.usage(UsageHolder(caller=first.caller), *days)
        assert (used.model, used.total) == ("m", first.total)
        assert [used.total for used in await store.usage(UsageHolder("é"), *days)] == [first.total] * 2

    @needs("is_portable")
    async def test_a_key_of_the_original_is_known_in_the_copy(self) -> None:
        memory, key, run_id = other_store(), make_key(), uuid7()
        plan = make_plan(idempotency=key)
        usage = [make_event(MODEL_USAGE, USED)]
        async with self.open_store() as store:
            original = portable(store)
            await store.accept(plan)
            await store.finish(plan.run_id, OWNER, completed())
            await store.add_usage(run_id, "ann", run_id, usage)
            await copy_store(original, memory, nothing)
        async with self.open_store() as copy:
            await copy_store(memory, portable(copy), nothing)
            for store in (memory, copy):
                with pytest.raises(KeyUsed):
                    await store.accept(make_plan(idempotency=key))
                before = await measure(portable(store), nothing)
                await store.add_usage(run_id, "ann", run_id, usage)
                assert await measure(portable(store), nothing) == before

    @needs("is_portable")
    async def test_what_is_imported_does_not_enter_the_outbox_or_the_totals(self, store: ThreadStore) -> None:
        target = portable(store)
        await outbox_of(store).register("audit")
        event = WholeEvent(uuid7(), MOMENT, MODEL_USAGE, None, None, b'{"model":"m","input_tokens":1}')
        thread = whole_thread(contact_id="ann", events=[event], runs=[ended_run(webhook_url="https://example.com")])
        await target.import_threads([thread])
        assert (await outbox_of(store).read("audit", 10)).events == []
        assert await outbox_of(store).count_webhooks() == 0
        assert await store.thread_usage(thread.thread_id, None) == []
        assert await store.usage(UsageHolder("ann"), date.min, date.max) == []
        await outbox_of(store).remove("audit")

    @needs("is_portable")
    async def test_a_copy_is_completed_after_it_was_interrupted(self, store: ThreadStore) -> None:
        source, target = portable(store), other_store()
        await use(store)
        await source.import_threads([foreign_thread()])
        threads = await all_whole(source)
        await target.import_threads(threads[:2])
        [first, *_] = await source.export_records(CallerUsage, None, 1)
        await target.import_records([first])
        there, copied = await copy_store(source, target, nothing)
        assert there == copied == await measure(source, nothing)
        assert await copy_store(source, target, nothing) == (there, there)

    @needs("is_portable")
    async def test_a_target_that_has_something_else_is_refused_and_stays_as_it_is(self, store: ThreadStore) -> None:
        source = portable(store)
        thread_id = await fill(store, [make_event()])
        [whole] = await source.export_by_id([thread_id])
        changed = whole_thread(thread_id, "ann", events=[*whole.events][:-1])
        for threads, reason in (
            ([whole_thread()], "does not have"),
            ([changed], "with a content that is not equal"),
        ):
            target = other_store()
            await target.import_threads(threads)
            before = await measure(target, nothing)
            with pytest.raises(CopyRefused, match=reason):
                await copy_store(source, target, nothing)
            assert await measure(target, nothing) == before
        for records in sample_records().values():
            target = other_store()
            await target.import_records(records[:1])
            with pytest.raises(CopyRefused, match="does not have"):
                await copy_store(source, target, nothing)
            assert await target.count_threads() == 0


async def _ended_runs(store: PortableStore, thread_id: UUID) -> Sequence[EndedRun]:
    [whole] = await store.export_by_id([thread_id])
    return whole.runs


def _changed(record: Record) -> Record:
    if isinstance(record, SubscriptionRecord):
        return msgspec.structs.replace(record, subscription_id=uuid7(), notice="changed", due_at=None)
    if isinstance(record, KeyRecord):
        return KeyRecord(record.key, uuid7(), record.run_id, record.used_at)
    if isinstance(record, CallerUsage):
        return CallerUsage(record.caller, record.day, record.model, UsageTotal())
    return ContactUsage(record.contact_id, record.day, record.model, record.caller, UsageTotal())
