"""Idempotency keys: a message that is sent again with its key is answered once, by whatever way it comes."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from jimsapi import ByExternalId, New
from jimsapi.runs import flow as flow_module
from jimsapi.runs.admission import PUBLIC
from jimsapi.runs.errors import (
    PipelineFailed,
    QueueTimedOut,
    RunCancelled,
    RunInterrupted,
    RunTimedOut,
    ServerDraining,
)
from jimsapi.runs.keys import idempotency
from jimsapi.runs.limits import RunLimits
from jimsapi.runs.live import LiveRun, RunRecord, Stop
from jimsapi.runs.lookup import Runs
from jimsapi.runs.service import RunService
from jimsapi.stores.memory import MemoryStore
from jimsapi.threads.errors import KeyMismatch, StoreUnavailable
from jimsapi.threads.run import Accepted, Idempotency, RunPlan, RunStatus, Started
from tests.apps.scripted import Scripted
from tests.runs.serving import (
    STORES,
    caller,
    drained,
    ended,
    inbound,
    make_store,
    serving,
    stored,
    taken,
    texts,
    told,
)

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_module, "POLL_EVERY", 0.005)


def begin(service: RunService, message: str = "hi", key: str = "key", **options: Any) -> LiveRun:
    return service.begin(inbound(message), PUBLIC, key=key, **options)


async def answer(run: LiveRun) -> Any:
    """The answer, or the text of its error."""
    try:
        return await asyncio.shield(run.answer)
    except Exception as error:
        return type(error), str(error)


@pytest.mark.parametrize("kind", STORES)
async def test_fifty_at_once_are_one_run_and_get_one_answer(kind: str, tmp_path: Path) -> None:
    bot, records = Scripted(), list[RunRecord]()
    async with serving(bot, make_store(kind, tmp_path), on_run=[records.append]) as service:
        ways: list[dict[str, Any]] = [{}, {"watched": True}, {"background": True}]
        runs = [begin(service, "send a; event b", **ways[number % 3]) for number in range(50)]
        answers = [await answer(run) for run in runs]
        assert all(found == answers[0] for found in answers)
        streams = [told(await drained(await Runs(service).of(PUBLIC, run))) for run in runs]
        assert all(found == streams[0] for found in streams)
        assert streams[0][:2] == ["started", "delta a"]
        again = await answer(begin(service, "send a; event b"))
        assert again == answers[0]
        await ended(service)
        assert await texts(service, again.thread_id) == ["user_message", "assistant_message", "rag.step"]
    assert bot.texts == ["send a; event b"]
    assert [record.run_id for record in records] == [again.run_id]


PLUGIN_EXITS: list[tuple[str, Any]] = [
    ("send a", "a"),
    ("send a; raise it", (PipelineFailed, "Pipeline error: it")),
    ("hold on", (RunTimedOut, "The pipeline did not answer within 0.5 seconds")),
]


@pytest.mark.parametrize("kind", STORES)
@pytest.mark.parametrize(("script", "expected"), PLUGIN_EXITS)
async def test_what_has_ended_is_answered_as_it_was(kind: str, script: str, expected: Any, tmp_path: Path) -> None:
    bot, limits = Scripted(), RunLimits(run_timeout=0.5)
    async with serving(bot, make_store(kind, tmp_path), limits=limits) as service:
        first = begin(service, script)
        answers = [await answer(first)]
        await ended(service)
        second = begin(service, script)
        answers.append(await answer(second))
        assert second.known_as == first.run_id != second.run_id
        if kind == "sqlite":
            await ended(service)
    if kind == "sqlite":
        async with serving(bot, make_store(kind, tmp_path), limits=limits) as service:
            third = begin(service, script)
            answers.append(await answer(third))
            assert third.known_as == first.run_id
    assert all(found == answers[0] for found in answers)
    assert (answers[0].assistant_messages if script == "send a" else answers[0]) == (
        ["a"] if script == "send a" else expected
    )
    assert bot.texts == [script]


async def test_a_cancelled_run_is_replayed_and_one_cancelled_before_its_start_is_not() -> None:
    bot = Scripted()
    async with serving(bot) as service:
        running = begin(service, "hold on", "running")
        await bot.reached["on"].wait()
        queued = await taken(begin(service, "queued", "queued"))
        await service.cancel(queued.run_id)
        await service.cancel(running.run_id)
        assert (await answer(running))[0] is (await answer(queued))[0] is RunCancelled
        await ended(service)
        assert (await answer(begin(service, "hold on", "running")))[0] is RunCancelled
        assert (await answer(begin(service, "queued", "queued"))).assistant_messages == ["You said: queued"]
    assert bot.texts == ["hold on", "queued"]


async def test_another_message_with_the_same_key_is_refused_while_it_runs_and_afterwards() -> None:
    bot = Scripted()
    async with serving(bot) as service:
        first = begin(service, "hold on")
        await bot.reached["on"].wait()
        with pytest.raises(KeyMismatch):
            begin(service, "other")
        with pytest.raises(KeyMismatch):
            service.begin(inbound("hold on", thread_config={"interface": "other"}), PUBLIC, key="key")
        bot.opened["on"].set()
        await answer(first)
        await ended(service)
        assert (await answer(begin(service, "other")))[0] is KeyMismatch
        assert (await answer(begin(service, "other", "another key"))).assistant_messages == ["You said: other"]


def test_a_new_version_knows_the_requests_that_an_older_one_has_stored() -> None:
    stored = Idempotency(UUID("5e71f2c7-eedc-7286-a09a-d3ac2e97ae14"), UUID("2f8f7263-33ff-0b25-cc7c-90cee652ce20"))
    assert idempotency("key", inbound("hi", "ann"), PUBLIC) == stored


async def test_callers_providers_and_contacts_do_not_meet_in_a_key() -> None:
    async with serving(Scripted()) as service:
        by = [caller("a", "p"), caller("b", "p"), caller("a", "q"), caller("a", None)]
        runs = [service.begin(inbound("hi", contact), who, key="key") for who in by for contact in ("ann", "bea")]
        for run in runs:
            await answer(run)
        assert len({run.known_as for run in runs}) == len(by) * 2
        await ended(service)
        again = service.begin(inbound("hi", "ann"), by[0], key="key")
        await answer(again)
        assert again.known_as == runs[0].run_id


async def test_a_conversation_that_a_protocol_names_is_part_of_what_was_asked() -> None:
    def selectors(name: str) -> list[Any]:
        return [ByExternalId(name), New(external_id=name)]

    async with serving(Scripted()) as service:
        first = begin(service, selectors=selectors("one"))
        with pytest.raises(KeyMismatch):
            begin(service, selectors=selectors("other"))
        assert begin(service, selectors=selectors("one")) is first
        await answer(first)


@pytest.mark.parametrize("kind", STORES)
async def test_a_key_is_known_for_its_time_only(kind: str, tmp_path: Path) -> None:
    store = make_store(kind, tmp_path)
    assert store.keep_keys == timedelta(hours=24)
    bot = Scripted()
    async with serving(bot, store) as service:
        await answer(begin(service))
        await ended(service)
        store.keep_keys = timedelta(0)
        await answer(begin(service, "another"))
    assert bot.texts == ["hi", "another"]


async def test_the_key_of_an_interrupted_run_begins_a_new_one_on_the_message_that_is_stored(tmp_path: Path) -> None:
    bot = Scripted()
    async with serving(bot, make_store("sqlite", tmp_path)) as service:
        first = begin(service, "hold on; see")
        await bot.reached["on"].wait()
        await service.drain(0)
        assert (await answer(first))[0] is RunInterrupted
    bot = Scripted()
    bot.opened["on"].set()
    async with serving(bot, make_store("sqlite", tmp_path)) as service:
        second = begin(service, "hold on; see")
        assert (await answer(second)).assistant_messages == ['["hold on; see"]']
        assert second.known_as == second.run_id != first.run_id
        assert second.thread_id == first.thread_id
        assert second.thread_id is not None
        await ended(service)
        assert await texts(service, second.thread_id) == ["user_message", "assistant_message"]
        third = begin(service, "hold on; see")
        await answer(third)
        assert third.known_as == second.run_id
        with pytest.raises(KeyMismatch):
            await service.begin(inbound("other"), PUBLIC, key="key").answer


async def test_a_run_that_waited_too_long_frees_its_key() -> None:
    bot = Scripted()
    async with serving(bot, limits=RunLimits(queue_timeout=0.02)) as service:
        held = service.begin(inbound("hold on"), PUBLIC)
        await bot.reached["on"].wait()
        assert (await answer(begin(service)))[0] is QueueTimedOut
        await ended_but(service, held)
        retried = begin(service, background=True)
        bot.opened["on"].set()
        assert (await answer(retried)).assistant_messages == ["You said: hi"]


async def ended_but(service: RunService, run: LiveRun) -> None:
    while service.open_runs > 1:
        await asyncio.sleep(0)
    assert not run.answer.done()


async def test_who_attaches_while_the_first_still_waits_for_the_store_gets_its_answer_and_all_of_its_stream() -> None:
    asked, may_answer = asyncio.Event(), asyncio.Event()

    class Slow(MemoryStore):
        async def accept(self, plan: RunPlan) -> Accepted:
            asked.set()
            await may_answer.wait()
            return await super().accept(plan)

    async with serving(Scripted(), Slow()) as service:
        first = begin(service, "status a; send b")
        await asked.wait()
        second, third = begin(service, "status a; send b", watched=True), begin(service, "status a; send b")
        may_answer.set()
        assert second is third is first
        reads = told(await drained(await Runs(service).of(PUBLIC, second)))
        assert (reads[:3], reads[-1]) == (["started", "status a", "delta b"], "RunResult")


async def test_a_store_that_does_not_answer_is_told_to_all_that_attached_and_the_key_stays_free() -> None:
    class Away(MemoryStore):
        away = True

        async def accept(self, plan: RunPlan) -> Accepted:
            if self.away:
                raise StoreUnavailable("away")
            return await super().accept(plan)

    store = Away()
    async with serving(Scripted(), store) as service:
        runs = [begin(service) for _ in range(3)]
        assert {(await answer(run))[0] for run in runs} == {StoreUnavailable}
        await ended(service)
        store.away = False
        assert (await answer(begin(service))).assistant_messages == ["You said: hi"]


async def test_a_repeat_is_answered_though_the_store_s_word_that_its_message_came_in_was_lost() -> None:
    class Forgetful(MemoryStore):
        loses = True

        async def start(self, *arguments: Any) -> Started | None:
            started = await super().start(*arguments)
            if started is not None and self.loses:
                self.loses = False
                raise StoreUnavailable("away")
            return started

    bot = Scripted()
    async with serving(bot, Forgetful()) as service:
        before = await taken(service.begin(inbound("hold on"), PUBLIC))
        await bot.reached["on"].wait()
        waiting = await taken(begin(service))
        bot.opened["on"].set()
        assert (await answer(waiting))[0] is StoreUnavailable
        await ended(service)
        assert (await answer(begin(service))).assistant_messages == ["You said: hi"]
        assert before.thread is not None
        assert await texts(service, before.thread.thread_id) == ["user_message", "user_message", "assistant_message"]


async def test_a_caller_that_leaves_does_not_take_the_answer_from_those_who_sent_it_too() -> None:
    bot = Scripted()
    async with serving(bot) as service:
        first = begin(service, "hold on; send a")
        leaving = asyncio.create_task(answer(first))
        staying = asyncio.create_task(answer(begin(service, "hold on; send a")))
        await bot.reached["on"].wait()
        leaving.cancel()
        await asyncio.wait([leaving])
        bot.opened["on"].set()
        assert (await staying).assistant_messages == ["a"]


async def test_a_key_that_another_process_s_run_has_waits_for_it_and_a_drain_ends_the_wait() -> None:
    bot = Scripted()
    async with serving(bot) as service:
        first = begin(service, "hold on; send a")
        await bot.reached["on"].wait()
        assert first.idempotency is not None
        service._runs.remove(first)  # as if it ran elsewhere, for who asks by its key
        first.idempotency = None
        service._runs.add(first)
        stopped = await following(begin(service, "hold on; send a"), first)
        service.stop_runs([stopped.run_id], Stop.DRAINED)
        assert (await answer(stopped))[0] is ServerDraining
        await ended_but(service, first)
        second = await following(begin(service, "hold on; send a"), first)
        assert not second.answer.done()
        bot.opened["on"].set()
        assert (await answer(second)).assistant_messages == ["a"]


async def test_who_waits_for_a_run_that_another_process_gave_up_is_told_to_ask_again_and_is_answered() -> None:
    bot = Scripted()
    async with serving(bot) as service:
        service.begin(inbound("hold on"), PUBLIC)
        await bot.reached["on"].wait()
        first = await taken(begin(service))
        assert first.idempotency is not None
        service._runs.remove(first)  # as if it ran elsewhere, and its process were gone
        waiting = await following(begin(service), first)
        watched = await Runs(service).of(PUBLIC, waiting)
        await service.store.cancel(first.run_id)
        assert (await answer(waiting))[0] is RunInterrupted
        assert told(await drained(watched)) == ["started", "gap None", "RunInterrupted"]
        bot.opened["on"].set()
        assert (await answer(begin(service))).assistant_messages == ["You said: hi"]


async def following(run: LiveRun, other: LiveRun) -> LiveRun:
    """Wait until a run waits for another one's answer."""
    while run.known_as != other.run_id:
        await asyncio.sleep(0)
    return run


async def test_a_replay_is_no_run_of_its_own_to_those_who_look() -> None:
    records: list[RunRecord] = []
    async with serving(Scripted(), on_run=[records.append]) as service:
        first = begin(service)
        await answer(first)
        await ended(service)
        ways: list[dict[str, Any]] = [{}, {"watched": True}, {"background": True}]
        for options in ways:
            replay = begin(service, **options)
            assert (await answer(replay)).run_id == first.run_id
            await ended(service)
            assert service.watch(replay.run_id) is None
        assert (await stored(service, first.run_id)).status is RunStatus.COMPLETED
    assert [record.run_id for record in records] == [first.run_id]
