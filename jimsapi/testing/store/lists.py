"""Tests that all runs and all contacts are listed, and to a caller that is bound to one contact only its own."""

import asyncio
from datetime import timedelta

import pytest

from jimsapi.testing.store.base import StoreTests
from jimsapi.testing.store.samples import (
    ALREADY,
    CONTEXT,
    OWNER,
    all_contacts,
    all_events,
    all_runs,
    completed,
    fill,
    make_event,
    make_plan,
    take_turn,
)
from jimsapi.threads.errors import InvalidCursor, ThreadNotFound
from jimsapi.threads.ids import uuid7
from jimsapi.threads.run import (
    OPEN,
    ById,
    FailureKind,
    ListedRun,
    New,
    Outcome,
    RunFilter,
    RunPlan,
    RunStatus,
    StoredRun,
)
from jimsapi.threads.store import ThreadStore, encode_cursor, encode_id_cursor

CONTACTS = ["", "ann", "Ann", "bob", "z", "\N{FOX FACE}", "a b", "1"]


class Lists(StoreTests):
    """Tests that all runs and all contacts are listed, with the conditions of a list."""

    async def test_runs_are_listed_newest_first_as_they_are(self, store: ThreadStore) -> None:
        assert (await store.runs(None, 10, None)).runs == []
        plans = await _runs_of_every_status(store)
        listed = await all_runs(store)
        assert [run.run_id for run in listed] == [plan.run_id for plan in reversed(plans)]
        assert listed == [_record(await store.run(run.run_id, None, None)) for run in listed]
        assert {run.status for run in listed} == set(RunStatus)
        assert [run.failure for run in listed if run.status is RunStatus.FAILED] == [FailureKind.TIMEOUT]
        times = [time for run in listed for time in (run.accepted_at, run.started_at, run.finished_at) if time]
        assert {time.utcoffset() for time in times} == {timedelta(0)}

    async def test_runs_that_are_accepted_at_once_are_listed_in_the_order_of_their_identifiers(
        self, store: ThreadStore
    ) -> None:
        plans = [make_plan(f"c{number}") for number in range(40)]
        await asyncio.gather(*[store.accept(plan) for plan in reversed(plans)])
        for limit in (1, 7, 1000):
            listed = await all_runs(store, limit=limit)
            assert [run.run_id for run in listed] == [plan.run_id for plan in reversed(plans)]

    async def test_a_list_has_only_runs_with_the_statuses_that_it_names(self, store: ThreadStore) -> None:
        plans = await _runs_of_every_status(store)
        status_of = {plan.run_id: (await store.run(plan.run_id, None, None)).status for plan in plans}
        wanted: list[tuple[RunStatus, ...]] = [*((status,) for status in RunStatus), OPEN, tuple(RunStatus)]
        for statuses in (*wanted, (RunStatus.RUNNING, RunStatus.FAILED)):
            for limit in (1, 1000):
                listed = await all_runs(store, only=RunFilter(statuses), limit=limit)
                expected = [plan.run_id for plan in reversed(plans) if status_of[plan.run_id] in statuses]
                assert [run.run_id for run in listed] == expected

    async def test_a_list_has_only_runs_of_the_contact_or_thread_that_it_names(self, store: ThreadStore) -> None:
        plans = [make_plan(contact, selectors=(New(),)) for contact in ("ann", "bob", "ann", "")]
        threads = [(await store.accept(plan)).thread.thread_id for plan in plans]
        again = make_plan("ann", selectors=(ById(threads[0]),))
        await store.accept(again)
        for contact, expected in (("ann", [again, plans[2], plans[0]]), ("bob", [plans[1]]), ("", [plans[3]])):
            for acting_for, only in (
                (contact, RunFilter()),
                (None, RunFilter(contact_id=contact)),
                (contact, RunFilter(contact_id=contact)),
            ):
                for limit in (1, 1000):
                    listed = await all_runs(store, acting_for, only, limit)
                    assert [run.run_id for run in listed] == [plan.run_id for plan in expected]
                    assert {run.contact_id for run in listed} == {contact}
        for acting_for in (None, "ann"):
            listed = await all_runs(store, acting_for, RunFilter(thread_id=threads[0]))
            assert [run.run_id for run in listed] == [again.run_id, plans[0].run_id]
        waiting = RunFilter((RunStatus.QUEUED,), "ann", threads[0])
        assert [run.run_id for run in await all_runs(store, None, waiting)] == [again.run_id]
        assert await all_runs(store, None, RunFilter((RunStatus.FAILED,), "ann", threads[0])) == []
        assert await all_runs(store, None, RunFilter(contact_id="cid")) == []
        assert await all_runs(store, None, RunFilter(contact_id="bob", thread_id=threads[0])) == []

    async def test_a_list_for_one_contact_has_no_run_of_another(self, store: ThreadStore) -> None:
        plan = make_plan("ann")
        thread_id = (await store.accept(plan)).thread.thread_id
        await store.accept(make_plan("bob"))
        assert [run.contact_id for run in await all_runs(store, "bob")] == ["bob"]
        assert await all_runs(store, "bob", RunFilter(contact_id="ann")) == []
        assert [run.contact_id for run in await all_runs(store, "bob", RunFilter(OPEN))] == ["bob"]
        for acting_for, wanted in (("bob", thread_id), ("", thread_id), (None, uuid7()), ("ann", uuid7())):
            with pytest.raises(ThreadNotFound) as refused:
                await store.runs(acting_for, 10, None, RunFilter(thread_id=wanted))
            assert refused.value.thread_id == wanted

    async def test_a_list_has_only_runs_of_the_caller_that_it_names(self, store: ThreadStore) -> None:
        callers = [uuid7(), uuid7()]
        plans = [make_plan(f"c{number}", caller=callers[number % 2]) for number in range(5)]
        plans.append(make_plan("c0", caller=callers[1]))
        for plan in (*plans, make_plan("c9")):
            await store.accept(plan)
        for caller in (*callers, uuid7()):
            expected = [plan.run_id for plan in reversed(plans) if plan.caller == caller]
            for limit in (1, 1000):
                listed = await all_runs(store, None, RunFilter(caller=caller), limit)
                assert [run.run_id for run in listed] == expected
        both = RunFilter(contact_id="c0", caller=callers[0])
        assert [run.run_id for run in await all_runs(store, None, both)] == [plans[0].run_id]

    async def test_a_list_has_only_runs_that_were_accepted_between_its_times(self, store: ThreadStore) -> None:
        for number in range(4):
            await take_turn(store, f"c{number}")
        newest, _, third, oldest = await all_runs(store)
        tick = timedelta(microseconds=1)
        for only, expected in (
            (RunFilter(accepted_from=third.accepted_at), 3),
            (RunFilter(accepted_from=third.accepted_at + tick), 2),
            (RunFilter(accepted_before=third.accepted_at), 1),
            (RunFilter(accepted_before=third.accepted_at + tick), 2),
            (RunFilter(accepted_from=third.accepted_at, accepted_before=newest.accepted_at), 2),
            (RunFilter(accepted_from=newest.accepted_at + timedelta(days=3)), 0),
            (RunFilter(accepted_before=oldest.accepted_at - timedelta(days=3)), 0),
            (RunFilter(accepted_from=oldest.accepted_at - timedelta(days=3)), 4),
            (RunFilter(accepted_before=newest.accepted_at + timedelta(days=3)), 4),
            (RunFilter(contact_id="c2", accepted_before=newest.accepted_at), 1),
            (RunFilter((RunStatus.FAILED,), accepted_from=oldest.accepted_at), 0),
        ):
            assert len(await all_runs(store, only=only)) == expected, only

    async def test_a_page_of_runs_continues_where_the_last_one_ended(self, store: ThreadStore) -> None:
        for number in range(4):
            await take_turn(store, f"c{number}")
        page = await store.runs(None, 2, None)
        assert [run.contact_id for run in page.runs] == ["c3", "c2"]
        await take_turn(store, "late")
        await store.delete_contact("c2")
        await store.delete_contact("c1")
        rest = await store.runs(None, 2, page.next)
        assert ([run.contact_id for run in rest.runs], rest.next) == (["c0"], None)

    async def test_runs_that_are_purged_or_deleted_are_not_listed(self, store: ThreadStore) -> None:
        await take_turn(store, "ann")
        waiting = make_plan("bob")
        await store.accept(waiting)
        for contact in ("cid", "dot"):
            await take_turn(store, contact)
            await store.accept(make_plan(contact))
        await store.delete_contact("cid")
        await store.delete_thread((await store.threads("dot", 1, None)).threads[0].thread_id, None)
        assert [run.contact_id for run in await all_runs(store)] == ["bob", "ann"]
        await store.purge(ALREADY)
        assert [run.run_id for run in await all_runs(store)] == [waiting.run_id]

    async def test_contacts_are_listed_with_their_threads_and_their_last_activity(self, store: ThreadStore) -> None:
        assert (await store.contacts(None, 10, None)).contacts == []
        threads = [await fill(store, [make_event()], contact) for contact in ("ann", "bob", "ann")]
        await store.append(threads[0], None, [make_event()])
        newest = {contact: (await all_events(store, threads[at]))[-1] for contact, at in (("ann", 0), ("bob", 1))}
        contacts = {contact.contact_id: contact for contact in await all_contacts(store)}
        assert {name: contact.threads for name, contact in contacts.items()} == {"ann": 2, "bob": 1}
        assert {name: contact.active_at for name, contact in contacts.items()} == {
            name: event.created_at for name, event in newest.items()
        }
        await store.delete_thread(threads[0], None)
        await store.delete_contact("bob")
        [left] = await all_contacts(store)
        assert (left.contact_id, left.threads) == ("ann", 1)
        assert left.active_at == (await all_events(store, threads[2]))[-1].created_at

    @pytest.mark.parametrize("limit", [1, 3, 8, 9])
    async def test_pages_have_every_contact_once(self, store: ThreadStore, limit: int) -> None:
        for contact in CONTACTS:
            await take_turn(store, contact)
            await take_turn(store, contact)
        listed = await all_contacts(store, limit=limit)
        assert sorted(contact.contact_id for contact in listed) == sorted(CONTACTS)
        assert listed == await all_contacts(store)
        assert {contact.threads for contact in listed} == {1}

    async def test_a_list_of_contacts_for_one_contact_has_only_this_one(self, store: ThreadStore) -> None:
        for contact in ("ann", "bob", ""):
            await take_turn(store, contact)
        for contact in ("ann", "bob", ""):
            assert [one.contact_id for one in await all_contacts(store, contact)] == [contact]
        assert await all_contacts(store, "cid") == []
        after = (await store.contacts(None, 2, None)).next
        [last] = (await store.contacts(None, 10, after)).contacts
        for contact in ("ann", "bob", ""):
            left = (await store.contacts(contact, 10, after)).contacts
            assert [one.contact_id for one in left] == ([contact] if contact == last.contact_id else [])

    async def test_a_cursor_of_a_list_that_the_store_did_not_make_is_refused(self, store: ThreadStore) -> None:
        for contact in ("ann", "bob"):
            await take_turn(store, contact)
            await take_turn(store, contact, selectors=(New(),))
        of_runs = (await store.runs(None, 1, None)).next
        of_contacts = (await store.contacts(None, 1, None)).next
        of_threads = (await store.threads("ann", 1, None)).next
        assert of_runs is not None
        assert of_contacts is not None
        garbage = ["", "x", "\0", "bnVsbA", encode_cursor("runs"), encode_cursor("runs", "x"), "A" * 10_000, of_threads]
        for cursor in (*garbage, of_contacts, encode_id_cursor("feedback", uuid7())):
            with pytest.raises(InvalidCursor):
                await store.runs(None, 10, cursor)
        for cursor in (*garbage, of_runs):
            with pytest.raises(InvalidCursor):
                await store.contacts(None, 10, cursor)


async def _runs_of_every_status(store: ThreadStore) -> list[RunPlan]:
    """Return the plans of runs, of which each has another status: those of `RunStatus`, in another order."""
    plans = [make_plan("ann") for _ in range(3)]
    for plan in plans:
        await store.accept(plan)
    await store.finish(plans[0].run_id, OWNER, completed(make_event()))
    await store.start(plans[1].run_id, OWNER, (), CONTEXT)
    for status, failure in (
        (RunStatus.FAILED, FailureKind.TIMEOUT),
        (RunStatus.INTERRUPTED, None),
        (RunStatus.CANCELLED, None),
    ):
        plan = make_plan("bob")
        plans.append(plan)
        await store.accept(plan)
        await store.finish(plan.run_id, OWNER, Outcome(status, (), "why", 0, failure))
    return plans


def _record(run: StoredRun) -> ListedRun:
    """Return what a list shows of a run."""
    fields = {name: getattr(run, name) for name in ListedRun.__struct_fields__}
    return ListedRun(**fields)
