"""Runs that nobody waits for, answers outside of every thread, and threads that take one message at a time."""

import asyncio
import sqlite3
from collections.abc import Collection
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from jimsapi import JimsApp
from jimsapi.builtin.resolvers import DefaultResolver
from jimsapi.runs import flow, housekeeping
from jimsapi.runs.admission import PUBLIC
from jimsapi.runs.errors import (
    ContactForbidden,
    PipelineFailed,
    QueueTimedOut,
    RunCancelled,
    RunTimedOut,
    ServerDraining,
    ThreadBusy,
    TooManyRuns,
)
from jimsapi.runs.limits import RunLimits
from jimsapi.runs.live import RunRecord, Stop
from jimsapi.runs.lookup import Runs
from jimsapi.runs.quota import QuotaExceeded, QuotaLimits, Rate
from jimsapi.runs.service import RunService
from jimsapi.stores.memory import MemoryStore
from jimsapi.testing.store import all_events, completed, make_event
from jimsapi.threads.errors import InputRefused, RunNotFound, StoreUnavailable
from jimsapi.threads.event import NewEvent
from jimsapi.threads.ids import uuid7
from jimsapi.threads.run import Accepted, AdoptedRun, ContextLimits, RunPlan, RunStatus, Started
from tests.apps.scripted import Scripted
from tests.runs.serving import (
    STORES,
    caller,
    drained,
    ended,
    inbound,
    make_store,
    read_all,
    serving,
    stored,
    taken,
    texts,
    told,
)

pytestmark = pytest.mark.anyio


# In the background.


async def test_a_run_in_the_background_waits_longer_than_a_caller_would() -> None:
    bot = Scripted()
    async with serving(bot, limits=RunLimits(queue_timeout=0.02)) as service:
        held = service.begin(inbound("hold on"), PUBLIC)
        await bot.reached["on"].wait()
        behind = service.begin(inbound("behind"), PUBLIC, background=True)
        with pytest.raises(QueueTimedOut):
            await service.chat(inbound("waits"), PUBLIC)
        assert not behind.answer.done()
        bot.opened["on"].set()
        await held.answer
        assert (await behind.answer).assistant_messages == ["You said: behind"]


async def test_a_run_in_the_background_whose_start_cannot_be_stored_waits_for_the_store(tmp_path: Path) -> None:
    bot, store = Scripted(), make_store("sqlite", tmp_path)
    greeted = inbound("hi", thread_config={"greet": "hold on"}, run_conversation_start_on_new_thread=True)
    async with serving(bot, store) as service:
        run = service.begin(greeted, PUBLIC, background=True)
        await bot.reached["on"].wait()
        with closing(sqlite3.connect(tmp_path / "threads.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            bot.opened["on"].set()
            for _ in range(2):  # the second one fails after the start that was asked for meanwhile
                with pytest.raises(StoreUnavailable):
                    await store.ping()
            other.execute("ROLLBACK")
        assert (await run.answer).assistant_messages == ["You said: hi"]
        assert (await stored(service, run.run_id)).status is RunStatus.COMPLETED


async def test_a_run_in_the_background_has_a_stream_and_is_counted_once() -> None:
    records: list[RunRecord] = []
    async with serving(Scripted(), on_run=[records.append], name="bot") as service:
        run = service.begin(inbound("status a; send b"), PUBLIC, background=True)
        assert run.stream is not None
        assert told(await read_all(run.stream))[:3] == ["started", "status a", "delta b"]
        await ended(service)
    assert [(record.run_id, [timing.pipeline for timing in record.pipelines]) for record in records] == [
        (run.run_id, ["bot"])
    ]


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_a_drain_leaves_a_waiting_one_to_the_next_process_and_interrupts_a_running_one(
    kind: str, tmp_path: Path
) -> None:
    bot, records = Scripted(), list[RunRecord]()
    me = caller("ann")
    async with serving(bot, make_store(kind, tmp_path), on_run=[records.append]) as service:
        running = service.begin(inbound("hold on"), me, background=True)
        await bot.reached["on"].wait()
        queued = await taken(service.begin(inbound("status a; see"), me, background=True, key="key"))
        waited_for = await taken(service.begin(inbound("waited for"), me))
        assert queued.stream is not None
        watching = asyncio.create_task(read_all(queued.stream))
        await service.drain(0)
        assert (await stored(service, running.run_id)).status is RunStatus.INTERRUPTED
        assert (await stored(service, queued.run_id)).status is RunStatus.QUEUED
        assert (await stored(service, waited_for.run_id)).status is RunStatus.CANCELLED
        assert isinstance(queued.answer.exception(), ServerDraining)  # which is no end of the run
        assert told(await watching) == ["started", "ServerDraining"]
        assert {record.run_id for record in records} == {running.run_id, waited_for.run_id}
    bot = Scripted()
    async with serving(bot, make_store(kind, tmp_path), on_run=[records.append]) as service:
        while (await stored(service, queued.run_id)).status is not RunStatus.COMPLETED:
            await asyncio.sleep(0.001)
        await ended(service)
        assert queued.thread_id is not None
        assert await texts(service, queued.thread_id) == ["user_message", "user_message", "assistant_message"]
        assert told(await drained(await Runs(service).watch(me, queued.run_id)))[:3] == [
            "started",
            "status a",
            'delta ["hold on", "status a; see"]',
        ]
        again = service.begin(inbound("status a; see"), me, key="key")
        assert (await again.answer).run_id == queued.run_id
    assert bot.texts == ["status a; see"]
    assert [record.run_id for record in records].count(queued.run_id) == 1


async def test_a_run_that_another_process_has_started_again_gets_the_answer_of_that_process() -> None:
    bot, store, other, records = Scripted(), MemoryStore(), uuid7(), list[RunRecord]()
    async with serving(bot, store, on_run=[records.append]) as service:
        run = service.begin(inbound("use 7; hold on"), PUBLIC, background=True)
        await bot.reached["on"].wait()
        store.max_restarts = 1
        (adopted,) = await store.adopt(other)
        assert await store.start(run.run_id, other, (), ContextLimits()) is not None
        theirs = make_event(data={"role": "assistant", "content": "theirs"})
        assert (await store.finish(run.run_id, other, completed(theirs))).counted
        bot.opened["on"].set()
        assert (await run.answer).assistant_messages == ["theirs"]
        await ended(service)
        types = [event.event_type for event in await all_events(store, adopted.thread_id)]
        assert types[1:] == ["comm.user_message", "comm.assistant_message", "model.usage"]  # it was paid for
    assert records == []  # the other process counts it


def test_an_app_refuses_a_negative_number_of_restarts() -> None:
    with pytest.raises(ValueError, match="restarts is -1"):
        JimsApp(Scripted(), restarts=-1)


async def test_the_store_allows_as_many_restarts_as_the_app_although_a_plugin_wraps_its_pipeline() -> None:
    store = MemoryStore()
    service = RunService(JimsApp(Scripted(), restarts=2), store, [DefaultResolver()])
    service.wrap_pipelines(lambda pipeline, _: pipeline)
    async with service:
        assert store.max_restarts == 2


class Handing(MemoryStore):
    """Takes its time to hand over runs, and may cancel them at that very moment."""

    cancels = False

    async def adopt(self, owner: UUID) -> list[AdoptedRun]:
        adopted = await super().adopt(owner)
        await asyncio.sleep(0.01)
        for run in adopted if self.cancels else ():
            await self.cancel(run.run_id)
        return adopted


async def left_behind(store: MemoryStore) -> UUID:
    """A run in the background that a process has accepted, and not started."""
    bot = Scripted()
    async with serving(bot, store) as service:
        service.begin(inbound("hold on"), PUBLIC)
        await bot.reached["on"].wait()
        queued = await taken(service.begin(inbound("left"), PUBLIC, background=True))
        await service.drain(0)
    return queued.run_id


@pytest.mark.parametrize("kind", STORES)
async def test_no_heartbeat_takes_a_run_that_a_drain_left_to_the_next_process_for_an_orphan(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "HEARTBEAT_EVERY", 0.001)
    bot, store, beats = Scripted(), make_store(kind, tmp_path), list[UUID]()
    heartbeat = store.heartbeat

    async def counted(owner: UUID, live: Collection[UUID]) -> list[UUID]:
        beats.append(owner)
        return await heartbeat(owner, live)

    store.heartbeat = counted  # type: ignore[method-assign]
    async with serving(bot, store) as service:
        service.begin(inbound("hold on"), PUBLIC)
        await bot.reached["on"].wait()
        queued = await taken(service.begin(inbound("left"), PUBLIC, background=True))
        await service.drain(0)
        already = len(beats)
        async with asyncio.timeout(30):
            while len(beats) < already + 3:
                await asyncio.sleep(0.001)
        assert (await stored(service, queued.run_id)).status is RunStatus.QUEUED


async def test_a_run_in_the_background_that_the_exit_cuts_off_is_left_to_the_next_process() -> None:
    class Hanging(MemoryStore):
        hangs = False

        async def start(self, *arguments: Any) -> Started | None:
            if self.hangs:
                asked.set()
                await asyncio.Event().wait()
            return await super().start(*arguments)

    bot, store, asked = Scripted(), Hanging(), asyncio.Event()
    async with serving(bot, store) as service:
        service.begin(inbound("hold on"), PUBLIC)
        await bot.reached["on"].wait()
        queued = await taken(service.begin(inbound("left"), PUBLIC, background=True))
        store.hangs = True
        bot.opened["on"].set()
        await asked.wait()
        await service.drain(0)
    await store.heartbeat(service.owner, service._runs.owned)
    assert (await stored(service, queued.run_id)).status is RunStatus.QUEUED


async def test_a_run_that_was_taken_over_waits_for_a_store_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Away(MemoryStore):
        refuses = 0

        async def accept(self, plan: RunPlan) -> Accepted:
            if self.refuses:
                self.refuses -= 1
                raise StoreUnavailable("away")
            return await super().accept(plan)

    monkeypatch.setattr(flow, "RETRY_STORE_AFTER", (0.001,))
    monkeypatch.setattr(housekeeping, "HEARTBEAT_EVERY", 0.001)
    store = Away()
    run_id = await left_behind(store)
    store.refuses = 3
    async with serving(Scripted(), store) as service:
        await ended(service)
        assert (await stored(service, run_id)).status is RunStatus.COMPLETED


async def test_a_process_that_drains_leaves_the_runs_of_dead_ones_to_the_next() -> None:
    store = Handing()
    run_id = await left_behind(store)
    async with serving(Scripted(), store, adopts=False) as service:
        adopting = asyncio.create_task(service.adopt())
        await asyncio.sleep(0)
        await service.drain(0)
        await adopting
        assert service.open_runs == 0
        assert (await stored(service, run_id)).status is RunStatus.QUEUED
    async with serving(Scripted(), store) as service:
        await ended(service)
        assert (await stored(service, run_id)).status is RunStatus.COMPLETED


async def test_a_heartbeat_does_not_take_a_run_that_is_being_handed_over_for_an_orphan(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(housekeeping, "HEARTBEAT_EVERY", 0.001)
    store = Handing()
    run_id = await left_behind(store)
    async with serving(Scripted(), store) as service:
        await ended(service)
        assert (await stored(service, run_id)).status is RunStatus.COMPLETED


async def test_a_run_that_is_cancelled_while_it_is_handed_over_ends() -> None:
    store, bot = Handing(), Scripted()
    store.cancels = True
    run_id = await left_behind(store)
    async with serving(bot, store) as service:
        async with asyncio.timeout(30):
            await ended(service)
        assert (await stored(service, run_id)).status is RunStatus.CANCELLED
    assert bot.texts == []


async def test_who_asks_again_for_a_run_in_the_background_may_wait_for_it() -> None:
    bot = Scripted()
    async with serving(bot) as service:
        first = service.begin(inbound("hold on; send a"), PUBLIC, background=True, key="key")
        await bot.reached["on"].wait()
        waiting = service.begin(inbound("hold on; send a"), PUBLIC, key="key")
        bot.opened["on"].set()
        assert (await waiting.answer).run_id == first.run_id


# Outside of every thread.


async def contacts(service: Any, contact: str = "ann") -> list[Any]:
    threads: list[Any] = (await service.store.threads(contact, 10, None)).threads
    return threads


@pytest.mark.parametrize("watched", [False, True])
async def test_an_answer_outside_of_every_thread_stores_nothing_and_sees_its_message_alone(watched: bool) -> None:
    records: list[RunRecord] = []
    async with serving(Scripted(), on_run=[records.append], name="bot") as service:
        await service.chat(inbound("before", "bea"), PUBLIC)
        run = service.answer_once(inbound("status a; see; event c", "bea"), PUBLIC, watched=watched)
        result = await run.answer
        assert result.assistant_messages == ['["status a; see; event c"]']
        assert [event.event_type for event in result.events] == ["comm.assistant_message", "rag.step"]
        if watched:
            reads = told(await drained(await Runs(service).of(PUBLIC, run)))
            assert (reads[:2], len(reads)) == (["started", "status a"], 6)
        await ended(service)
        (thread,) = await contacts(service, "bea")
        assert thread.thread_id != result.thread_id
        assert await texts(service, thread.thread_id) == ["user_message", "assistant_message"]
        with pytest.raises(RunNotFound):
            await Runs(service).run(PUBLIC, run.run_id)
    assert [(record.run_id, record.status) for record in records][1:] == [(run.run_id, RunStatus.COMPLETED)]


async def test_an_answer_outside_of_every_thread_sees_the_history_that_comes_with_it() -> None:
    async with serving(Scripted()) as service:
        said = NewEvent(uuid7(), "comm.user_message", b'{"role":"user","content":"before"}')
        result = await service.answer_once(inbound("see"), PUBLIC, history=[said]).answer
        assert result.assistant_messages == ['["before", "see"]']


async def test_what_fails_outside_of_every_thread_fails_as_within_one() -> None:
    records: list[RunRecord] = []
    bot = Scripted()
    async with serving(bot, limits=RunLimits(run_timeout=0.5), on_run=[records.append]) as service:
        for script, error in (("raise it", PipelineFailed), ("hold on", RunTimedOut), ("unstorable", PipelineFailed)):
            with pytest.raises(error):
                await service.answer_once(inbound(script), PUBLIC).answer
        held = service.answer_once(inbound("hold for ever"), PUBLIC, watched=True)
        await bot.reached["for ever"].wait()
        service.stop_runs([held.run_id], Stop.CANCELLED)
        with pytest.raises(RunCancelled):
            await held.answer
        with pytest.raises(InputRefused):
            service.answer_once(inbound("\0"), PUBLIC)
        with pytest.raises(ContactForbidden):
            service.answer_once(inbound("hi"), caller(contact_id="bea"))
        await ended(service)
        assert await contacts(service) == []
    assert [record.status for record in records] == [RunStatus.FAILED] * 3 + [RunStatus.CANCELLED]


async def test_the_same_limits_hold_outside_of_every_thread() -> None:
    bot = Scripted()
    limits = RunLimits(max_runs=1, quota=QuotaLimits(rate=Rate.parse("2/day")))
    async with serving(bot, limits=limits) as service:
        held = service.answer_once(inbound("hold on"), PUBLIC)
        assert service.open_runs == 1
        with pytest.raises(TooManyRuns):
            service.answer_once(inbound(), PUBLIC)
        with pytest.raises(TooManyRuns):
            service.begin(inbound(), PUBLIC)
        bot.opened["on"].set()
        await held.answer
        await ended(service)
        await service.answer_once(inbound(), PUBLIC).answer
        await ended(service)
        with pytest.raises(QuotaExceeded):
            service.answer_once(inbound(), PUBLIC)
        await service.drain(0)
        with pytest.raises(ServerDraining):
            service.answer_once(inbound(), PUBLIC)


# One message at a time.


@pytest.mark.parametrize("kind", STORES)
async def test_a_busy_thread_refuses_and_names_its_open_run_where_it_is_told_so(kind: str, tmp_path: Path) -> None:
    bot = Scripted()
    async with serving(bot, make_store(kind, tmp_path), limits=RunLimits(reject_busy=True)) as service:
        held = service.begin(inbound("hold on"), PUBLIC)
        await bot.reached["on"].wait()
        for options in ({}, {"watched": True}, {"background": True}, {"key": "key"}):
            with pytest.raises(ThreadBusy) as refused:
                await service.begin(inbound(), PUBLIC, **options).answer
            assert refused.value.run_id == held.run_id
        assert (await service.chat(inbound(contact="bea"), PUBLIC)).assistant_messages == ["You said: hi"]
        bot.opened["on"].set()
        await held.answer
        await ended(service)
        assert (await service.begin(inbound(), PUBLIC, key="key").answer).assistant_messages == ["You said: hi"]
    assert bot.texts == ["hold on", "hi", "hi"]


async def test_a_conversation_start_makes_its_thread_busy_too() -> None:
    bot = Scripted()
    async with serving(bot, limits=RunLimits(reject_busy=True)) as service:
        fields: dict[str, Any] = {"thread_config": {"greet": "hold on"}, "run_conversation_start_on_new_thread": True}
        first = service.begin(inbound(**fields), PUBLIC)
        await bot.reached["on"].wait()
        with pytest.raises(ThreadBusy) as refused:
            await service.chat(inbound(), PUBLIC)
        assert refused.value.run_id == first.run_id
        bot.opened["on"].set()
        await first.answer


# Who may look.


async def test_a_caller_sees_its_own_runs_and_with_threads_those_of_others() -> None:
    async with serving(Scripted()) as service:
        talker, other = caller("talker", scopes={"chat"}), caller("other", scopes={"chat"})
        run_id = (await service.chat(inbound(), talker)).run_id
        runs = Runs(service)

        async def may_see(who: Any) -> bool:
            try:
                await runs.run(who, run_id)
            except RunNotFound:
                return False
            return True

        seen = [
            (talker, True),
            (other, False),
            (caller("talker", "another provider", scopes={"chat"}), False),
            (caller("reader", scopes={"threads"}), True),
            (caller("ann", contact_id="ann"), True),
            (caller("ann", contact_id="ann", scopes={"chat"}), False),
            (caller("bea", contact_id="bea"), False),
            (caller("root"), True),
        ]
        assert [await may_see(who) for who, _ in seen] == [expected for _, expected in seen]
