"""Tests of forks, and of what is said of a thread: its title, whether it is archived, and its metadata."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

import orjson
import pytest

from jimsapi.testing.store.base import StoreTests
from jimsapi.testing.store.samples import (
    CONTEXT,
    OWNER,
    all_events,
    completed,
    contents,
    fill,
    ids_of,
    make_event,
    make_plan,
    take_turn,
)
from jimsapi.threads.errors import EventNotFound, ThreadNotFound
from jimsapi.threads.event import THREAD_CREATED, NewEvent
from jimsapi.threads.facts import NO_FACTS, ForkPlan, Parent, Rating, ThreadChange, ThreadFacts, ThreadPlan
from jimsapi.threads.ids import uuid7
from jimsapi.threads.run import ByExternalId, ById, New, RunStatus, ThreadQuery
from jimsapi.threads.store import ThreadStore


def plan_of(parent_id: object, **options: object) -> ForkPlan:
    """Return the plan of a fork with a new identifier."""
    return ForkPlan(**{"thread_id": uuid7(), "parent_id": parent_id, "acting_for": None, **options})  # type: ignore[arg-type]


def thread_of(*events: NewEvent, **options: object) -> ThreadPlan:
    """Return the plan of a thread without a run, with a new identifier."""
    created = NewEvent(uuid7(), THREAD_CREATED, b"{}")
    defaults = {"thread_id": uuid7(), "contact_id": "ann", "events": (created, *events), "thread_config": b"{}"}
    return ThreadPlan(**{**defaults, **options})  # type: ignore[arg-type]


class FactsOfThreads(StoreTests):
    """Tests of threads without runs, of forks, and of what is said of a thread."""

    async def test_a_thread_may_begin_without_a_run(self, store: ThreadStore) -> None:
        await take_turn(store)
        plan = thread_of(make_event(), make_event("rag.step", [1]), thread_config=b'{"a":1}', metadata=b'{"b":2}')
        created = await store.create(plan)
        assert (created.thread.thread_id, created.thread.contact_id) == (plan.thread_id, "ann")
        assert orjson.loads(created.thread.thread_config) == {"a": 1}
        assert await store.thread(plan.thread_id, "ann") == created.thread
        events = await all_events(store, plan.thread_id)
        assert (
            [event.event_id for event in events] == [event.event_id for event in plan.events] == ids_of(created.stored)
        )
        assert sorted(event.created_at for event in events) == [event.created_at for event in events]
        (summary,) = await store.summaries([plan.thread_id])
        assert orjson.loads(summary.facts.metadata) == {"b": 2}
        assert (await store.threads("ann", 1, None)).threads == [created.thread]

    async def test_a_thread_that_began_without_a_run_takes_messages(self, store: ThreadStore) -> None:
        plan = thread_of(make_event(data={"role": "user", "content": "before"}))
        await store.create(plan)
        await take_turn(store, text="after", selectors=(ById(plan.thread_id),))
        assert await contents(store, plan.thread_id) == ["before", "after"]
        with pytest.raises(ThreadNotFound):
            await store.accept(make_plan("bea", acting_for="bea", selectors=(ById(plan.thread_id),)))

    async def test_creating_a_thread_again_changes_nothing(self, store: ThreadStore) -> None:
        plan = thread_of(make_event())
        created = await store.create(plan)
        await take_turn(store, selectors=(ById(plan.thread_id),))
        events = await all_events(store, plan.thread_id)
        again = await store.create(plan)
        assert (again.thread, ids_of(again.stored)) == (created.thread, ids_of(created.stored))
        assert await all_events(store, plan.thread_id) == events

    async def test_threads_that_are_created_at_once_are_all_there(self, store: ThreadStore) -> None:
        plans = [thread_of() for _ in range(10)]
        await asyncio.gather(*[store.create(plan) for plan in plans], *[store.create(plan) for plan in plans])
        page = await store.threads("ann", 100, None)
        assert {thread.thread_id for thread in page.threads} == {plan.thread_id for plan in plans}

    async def test_a_run_names_the_message_that_it_answers(self, store: ThreadStore) -> None:
        plan = make_plan()
        await store.accept(plan)
        assert (await store.run(plan.run_id, None, None)).message_id == plan.message.event_id
        await store.finish(plan.run_id, plan.owner, completed())
        waiting = make_plan()
        assert (await store.run(plan.run_id, None, None)).message_id == plan.message.event_id
        await store.accept(waiting)
        assert (await store.run(waiting.run_id, None, None)).message_id == waiting.message.event_id

    async def test_a_fork_has_copies_of_all_events_and_is_the_newest_thread(self, store: ThreadStore) -> None:
        parent_id = await fill(store, [make_event("rag.step", [1]), make_event()])
        before = await all_events(store, parent_id)
        parent = await store.thread(parent_id, None)
        fork = await store.fork(plan_of(parent_id))
        assert await all_events(store, fork.thread_id) == await all_events(store, parent_id) == before
        assert (fork.contact_id, fork.thread_config) == (parent.contact_id, parent.thread_config)
        assert fork.created_at > parent.created_at
        page = await store.threads("ann", 10, None)
        assert [thread.thread_id for thread in page.threads] == [fork.thread_id, parent_id]
        assert await store.thread(fork.thread_id, "ann") == fork

    async def test_a_fork_ends_at_or_before_an_event(self, store: ThreadStore) -> None:
        parent_id = await fill(store, [make_event(data={"content": str(number)}) for number in range(100)])
        events = await all_events(store, parent_id)
        for at in (0, 1, 50, len(events) - 1):
            fork = await store.fork(plan_of(parent_id, event_id=events[at].event_id))
            assert await all_events(store, fork.thread_id) == events[: at + 1]
            (summary,) = await store.summaries([fork.thread_id])
            assert summary.facts.parent == Parent(parent_id, events[at].event_id)
            if at:
                fork = await store.fork(plan_of(parent_id, event_id=events[at].event_id, before=True))
                assert await all_events(store, fork.thread_id) == events[:at]

    async def test_a_fork_may_keep_the_external_identifier_and_is_then_found_by_it(self, store: ThreadStore) -> None:
        selectors = (ByExternalId("x"), New(external_id="x"))
        parent_id = (await take_turn(store, selectors=selectors)).thread.thread_id
        unnamed = await store.fork(plan_of(parent_id))
        assert (await take_turn(store, selectors=selectors)).thread.thread_id == parent_id
        named = await store.fork(plan_of(parent_id, keeps_external_id=True))
        assert (await take_turn(store, selectors=selectors)).thread.thread_id == named.thread_id
        again = await store.fork(plan_of(named.thread_id, keeps_external_id=True))
        assert (await store.find_thread(ThreadQuery("ann", selectors, None))).thread_id == again.thread_id
        await store.delete_thread(again.thread_id, None)
        assert (await take_turn(store, selectors=selectors)).thread.thread_id == named.thread_id
        assert len(await all_events(store, unnamed.thread_id)) == 2

    async def test_both_threads_go_on_by_themselves(self, store: ThreadStore) -> None:
        running, waiting = make_plan(text="one"), make_plan(text="two")
        parent_id = (await store.accept(running)).thread.thread_id
        await store.accept(waiting)
        fork = await store.fork(plan_of(parent_id))
        mine = make_plan(text="mine", selectors=(ById(fork.thread_id),))
        accepted = await store.accept(mine)
        assert (accepted.status, accepted.thread.thread_id) == (RunStatus.RUNNING, fork.thread_id)
        assert accepted.snapshot is not None
        assert ids_of(accepted.snapshot.rows)[-2:] == [running.message.event_id, mine.message.event_id]
        await store.finish(running.run_id, OWNER, completed(make_event()))
        assert await store.start(waiting.run_id, OWNER, (), CONTEXT) is not None
        await store.finish(mine.run_id, OWNER, completed())
        assert await contents(store, fork.thread_id) == ["one", "mine"]
        assert await contents(store, parent_id) == ["one", "Hi", "two"]
        await store.delete_thread(parent_id, None)
        assert await contents(store, fork.thread_id) == ["one", "mine"]

    async def test_a_fork_of_a_fork_names_its_own_parent(self, store: ThreadStore) -> None:
        first = await fill(store, [])
        second = await store.fork(plan_of(first))
        third = await store.fork(plan_of(second.thread_id))
        (summary,) = await store.summaries([third.thread_id])
        assert summary.facts.parent is not None
        assert summary.facts.parent.thread_id == second.thread_id

    async def test_forking_again_with_the_same_identifier_returns_the_same_thread(self, store: ThreadStore) -> None:
        parent_id = await fill(store, [])
        plan = plan_of(parent_id)
        fork = await store.fork(plan)
        await take_turn(store, selectors=(ById(fork.thread_id),))
        events = await all_events(store, fork.thread_id)
        assert await store.fork(plan) == fork
        assert await all_events(store, fork.thread_id) == events
        assert len((await store.threads("ann", 10, None)).threads) == 2

    async def test_only_threads_and_events_that_the_caller_sees_are_forked(self, store: ThreadStore) -> None:
        parent_id, other_id = await fill(store, []), (await store.accept(make_plan("bob"))).thread.thread_id
        foreign = (await all_events(store, other_id))[-1].event_id
        with pytest.raises(ThreadNotFound):
            await store.fork(plan_of(parent_id, acting_for="bob"))
        with pytest.raises(ThreadNotFound):
            await store.fork(plan_of(uuid7()))
        for event_id in (foreign, uuid7()):
            with pytest.raises(EventNotFound):
                await store.fork(plan_of(parent_id, event_id=event_id))
        first = (await all_events(store, parent_id))[0].event_id
        with pytest.raises(EventNotFound):
            await store.fork(plan_of(parent_id, event_id=first, before=True))
        assert len((await store.threads("ann", 10, None)).threads) == 1

    async def test_facts_are_changed_one_by_one(self, store: ThreadStore) -> None:
        thread_id = await fill(store, [])
        before = datetime.now(UTC)
        assert await store.change_thread(thread_id, "ann", ThreadChange(title="Ü🦊")) == ThreadFacts("Ü🦊")
        archived = await store.change_thread(thread_id, None, ThreadChange(archived=True))
        assert archived.archived_at is not None
        assert before <= archived.archived_at <= datetime.now(UTC)
        assert archived.archived_at.utcoffset() == datetime.now(UTC).utcoffset()
        again = await store.change_thread(thread_id, None, ThreadChange(archived=True, metadata=b'{"a":[1,null]}'))
        assert again.archived_at == archived.archived_at
        (summary,) = await store.summaries([thread_id])
        assert (summary.facts.title, summary.facts.archived_at) == ("Ü🦊", archived.archived_at)
        assert bytes_of(summary.facts.metadata) == b'{"a":[1,null]}'
        cleared = await store.change_thread(thread_id, None, ThreadChange(title=None, archived=False, metadata=b"{}"))
        assert (cleared.title, cleared.archived_at, bytes_of(cleared.metadata)) == (None, None, b"{}")
        for unseen, acting_for in ((thread_id, "bob"), (uuid7(), None)):
            with pytest.raises(ThreadNotFound):
                await store.change_thread(unseen, acting_for, ThreadChange(title="x"))

    async def test_ratings_of_events_are_set_replaced_and_removed(self, store: ThreadStore) -> None:
        thread_id = await fill(store, [make_event(), make_event()])
        *_, first, second = [event.event_id for event in await all_events(store, thread_id)]
        before = datetime.now(UTC)
        await store.rate(thread_id, "ann", second, Rating(-1, "é🦊"))
        await store.rate(thread_id, None, first, Rating(1))
        found = await store.feedback(thread_id, "ann")
        assert [(one.event_id, one.rating) for one in found] == [(first, Rating(1)), (second, Rating(-1, "é🦊"))]
        assert all(before <= one.given_at <= datetime.now(UTC) for one in found)
        await store.rate(thread_id, None, second, Rating(1))
        await store.rate(thread_id, None, first, None)
        await store.rate(thread_id, None, first, None)
        assert [(one.event_id, one.rating) for one in await store.feedback(thread_id, None)] == [(second, Rating(1))]
        fork = await store.fork(plan_of(thread_id))
        assert await store.feedback(fork.thread_id, None) == []
        await store.delete_thread(thread_id, None)
        await store.append(fork.thread_id, None, [make_event()])
        with pytest.raises(ThreadNotFound):
            await store.feedback(thread_id, None)

    async def test_ratings_are_read_in_pages(self, store: ThreadStore) -> None:
        thread_id = await fill(store, [make_event() for _ in range(7)])
        rated = [event.event_id for event in await all_events(store, thread_id)][::2]
        for event_id in reversed(rated):
            await store.rate(thread_id, None, event_id, Rating(1))

        async def page(limit: int | None, after: UUID | None) -> list[UUID]:
            return [one.event_id for one in await store.feedback(thread_id, "ann", limit, after)]

        assert await page(None, None) == await page(100, None) == rated
        assert await page(2, None) == rated[:2]
        assert await page(2, rated[1]) == rated[2:4]
        assert await page(None, rated[-1]) == await page(0, None) == []
        await store.rate(thread_id, None, rated[1], None)
        assert await page(2, rated[1]) == rated[2:4]
        with pytest.raises(EventNotFound):
            await page(2, uuid7())

    async def test_only_events_that_the_caller_sees_are_rated(self, store: ThreadStore) -> None:
        thread_id = await fill(store, [])
        (event, *_) = await all_events(store, thread_id)
        for unseen, acting_for in ((thread_id, "bob"), (uuid7(), None)):
            with pytest.raises(ThreadNotFound):
                await store.rate(unseen, acting_for, event.event_id, Rating(1))
            with pytest.raises(ThreadNotFound):
                await store.feedback(unseen, acting_for)
        with pytest.raises(EventNotFound):
            await store.rate(thread_id, None, uuid7(), Rating(1))
        assert await store.feedback(thread_id, None) == []

    async def test_threads_expire_by_their_newest_event_unless_a_run_is_open(self, store: ThreadStore) -> None:
        idle, busy = await fill(store, []), (await store.accept(make_plan("bob"))).thread.thread_id
        await store.change_thread(idle, None, ThreadChange(title="t"))
        assert await store.expire(timedelta(hours=1)) == 0
        assert await store.expire(timedelta(seconds=-60)) == 1
        with pytest.raises(ThreadNotFound):
            await store.thread(idle, None)
        (summary,) = await store.summaries([idle])
        assert summary.facts == NO_FACTS
        assert (await store.threads("ann", 10, None)).threads == []
        assert [thread.thread_id for thread in (await store.threads("bob", 10, None)).threads] == [busy]
        assert await store.expire(timedelta(seconds=-60)) == 0

    async def test_many_threads_expire(self, store: ThreadStore) -> None:
        for _ in range(250):
            await fill(store, [])
        kept = (await store.accept(make_plan())).thread.thread_id
        assert await store.expire(timedelta(seconds=-60)) == 249
        assert [thread.thread_id for thread in (await store.threads("ann", 1000, None)).threads] == [kept]

    async def test_a_page_has_archived_threads_or_others(self, store: ThreadStore) -> None:
        threads = [await fill(store, []) for _ in range(7)]
        for number in (1, 2, 5):
            await store.change_thread(threads[number], None, ThreadChange(archived=True))
        await store.change_thread(threads[3], None, ThreadChange(title="not archived"))
        expected = {True: [5, 2, 1], False: [6, 4, 3, 0], None: [6, 5, 4, 3, 2, 1, 0]}
        for archived, numbers in expected.items():
            found: list[UUID] = []
            after = None
            while len(found) < 10:
                page = await store.threads("ann", 2, after, archived)
                found += [thread.thread_id for thread in page.threads]
                after = page.next
                if after is None:
                    break
            assert found == [threads[number] for number in numbers], archived

    async def test_a_fork_keeps_the_metadata_but_neither_title_nor_archive(self, store: ThreadStore) -> None:
        parent_id = await fill(store, [])
        await store.change_thread(parent_id, None, ThreadChange(title="t", archived=True, metadata=b'{"a":1}'))
        fork = await store.fork(plan_of(parent_id))
        (summary,) = await store.summaries([fork.thread_id])
        facts = summary.facts
        assert (facts.title, facts.archived_at, bytes_of(facts.metadata)) == (None, None, b'{"a":1}')

    async def test_a_summary_has_the_first_and_the_newest_message_and_the_newest_time(self, store: ThreadStore) -> None:
        sent = [make_event("rag.step"), make_event(), make_event("state.set.mood")]
        thread_id = await fill(store, sent)
        events = await all_events(store, thread_id)
        unknown, found = await store.summaries([uuid7(), thread_id])
        assert (unknown.facts, unknown.first, unknown.newest, unknown.active_at) == (NO_FACTS, None, None, None)
        assert found.first is not None
        assert found.newest is not None
        assert ids_of([found.first, found.newest]) == [events[1].event_id, sent[1].event_id]
        assert found.active_at == events[-1].created_at

    @pytest.mark.parametrize(("greetings", "shows_the_message"), [(1, True), (19, True), (20, False)])
    async def test_the_first_message_of_a_summary_is_the_users_if_it_comes_early(
        self, store: ThreadStore, greetings: int, shows_the_message: bool
    ) -> None:
        greeted = [make_event("comm.assistant_message") for _ in range(greetings)]
        message, later = make_event("comm.user_message"), make_event("comm.user_message")
        plan = thread_of(*greeted, message, later)
        await store.create(plan)
        (summary,) = await store.summaries([plan.thread_id])
        assert summary.first is not None
        assert ids_of([summary.first]) == [message.event_id if shows_the_message else greeted[0].event_id]

    async def test_deleting_a_thread_deletes_its_facts(self, store: ThreadStore) -> None:
        thread_id = await fill(store, [])
        await store.change_thread(thread_id, None, ThreadChange(title="t"))
        await store.delete_contact("ann")
        (summary,) = await store.summaries([thread_id])
        assert summary.facts == NO_FACTS


def bytes_of(metadata: bytes | str) -> bytes:
    """Return the JSON text of metadata, which a store may return with other spaces."""
    text = metadata.decode() if isinstance(metadata, bytes) else metadata
    return text.replace(" ", "").encode()
