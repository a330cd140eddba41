"""Watching a run again: from memory, from the store, and after its process died, at the same positions."""

import asyncio
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from jimsapi.runs import flow as flow_module
from jimsapi.runs import lookup as runs_module
from jimsapi.runs.admission import PUBLIC
from jimsapi.runs.errors import RunCancelled, RunInterrupted, ServerDraining
from jimsapi.runs.limits import RunLimits
from jimsapi.runs.lookup import Runs
from jimsapi.runs.result import RunResult, stored_result
from jimsapi.runs.service import RunService
from jimsapi.runs.stream import THE_END, Ended, Gap, Read, RunStarted
from jimsapi.runs.threads import ThreadService
from jimsapi.threads.errors import RunNotFound, StoreUnavailable, ThreadNotFound
from jimsapi.threads.event import NewEvent
from jimsapi.threads.run import RunStatus
from tests.apps.scripted import Scripted
from tests.runs.serving import STORES, drained, ended, inbound, make_store, read_all, serving, stored, taken, told

pytestmark = pytest.mark.anyio

SCRIPT = "status Looking; stream Hel; stream lo; event found; send Bye"
TELLS = 5
"""Live items of it, beside the start: a status, and three pieces and a rest of messages."""


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_module, "POLL_EVERY", 0.005)
    monkeypatch.setattr(runs_module, "POLL_EVERY", 0.005)


async def watch(service: RunService, run_id: Any, after: int = 0) -> list[Read]:
    return await drained(await Runs(service).watch(PUBLIC, run_id, after))


def forget_streams(service: RunService) -> None:
    """What a minute does."""
    service.streams.tidy(float("inf"))


def comparable(reads: list[Read]) -> list[Any]:
    """Items with their positions; a result that was stored is told by its parts."""
    return [(position, item.answer if isinstance(item, Ended) else item) for position, item in reads]


@pytest.mark.parametrize("kind", STORES)
async def test_the_store_tells_what_is_left_at_the_positions_of_the_live_stream(kind: str, tmp_path: Path) -> None:
    async with serving(Scripted(), make_store(kind, tmp_path)) as service:
        run = service.begin(inbound(SCRIPT), PUBLIC, watched=True)
        assert run.stream is not None
        live = await read_all(run.stream)
        await ended(service)
        positions = [position for position, _ in live]
        for after in [0, *positions]:
            assert (
                await drained_or_none(service, run.run_id, after) == live[positions.index(after) + 1 if after else 0 :]
            )
        forget_streams(service)
        assert service.watch(run.run_id) is None

        events = live[1 + TELLS - 1 : -1]
        assert all(isinstance(item, NewEvent) for _, item in events)
        first = events[0][0]
        assert (first, len(events)) == (TELLS + 1, 3)
        for after in [0, *positions]:
            found = await drained_or_none(service, run.run_id, after)
            expected = [read for read in live if read[0] > after]
            missed = [read for read in expected if 1 < read[0] < first]
            kept = [read for read in expected if read not in missed]
            if missed:
                kept.insert(0 if after else 1, (first - 1, Gap(len(missed))))
            assert comparable(found) == comparable(kept), after


async def drained_or_none(service: RunService, run_id: Any, after: int) -> list[Read]:
    items = await Runs(service).watch(PUBLIC, run_id, after)
    assert (items is None) == (after == THE_END)
    return [] if items is None else await drained(items)


async def test_where_nothing_was_missed_there_is_no_gap() -> None:
    async with serving(Scripted()) as service:
        for watched in (True, False):
            run = service.begin(inbound("event quiet"), PUBLIC, watched=watched)
            await run.answer
            await ended(service)
            forget_streams(service)
            assert told(await watch(service, run.run_id)) == [
                "started",
                'event rag.step {"text":"quiet"}',
                "RunResult",
            ]


@pytest.mark.parametrize("kind", STORES)
@pytest.mark.parametrize("script", ["send a", "raise it", "hold on", "cancelled"])
async def test_an_ending_is_told_alike_by_the_caller_the_stream_the_store_and_after_a_restart(
    kind: str, script: str, tmp_path: Path
) -> None:
    bot, store = Scripted(), make_store(kind, tmp_path)
    async with serving(bot, store, limits=RunLimits(run_timeout=60 if script == "cancelled" else 0.05)) as service:
        run = service.begin(inbound("hold on" if script == "cancelled" else script), PUBLIC, watched=True)
        if script == "cancelled":
            await bot.reached["on"].wait()
            await service.cancel(run.run_id)
        await asyncio.wait([run.answer])
        answers: list[Any] = [run.answer.exception() or run.answer.result()]
        assert run.stream is not None
        answers.append((await read_all(run.stream))[-1][1])
        await ended(service)
        forget_streams(service)
        answers.append((await watch(service, run.run_id))[-1][1])
        answers.append(stored_result(await stored(service, run.run_id)))
    if kind == "sqlite":
        async with serving(Scripted(), make_store(kind, tmp_path)) as service:
            answers.append((await watch(service, run.run_id))[-1][1])
    texts = {answer_text(answer) for answer in answers}
    assert len(texts) == 1, texts


def answer_text(answer: Any) -> str:
    answer = answer.answer if isinstance(answer, Ended) else answer
    return repr(answer) if isinstance(answer, RunResult) else f"{type(answer).__name__}: {answer}"


async def test_a_restart_tells_the_start_a_gap_the_events_and_the_result_by_the_same_ids(tmp_path: Path) -> None:
    async with serving(Scripted(), make_store("sqlite", tmp_path)) as service:
        run = service.begin(inbound(SCRIPT), PUBLIC, watched=True)
        assert run.stream is not None
        live = await read_all(run.stream)
    async with serving(Scripted(), make_store("sqlite", tmp_path)) as service:
        again = await watch(service, run.run_id)
        assert comparable(again) == comparable([live[0], (TELLS, Gap(TELLS - 1)), *live[TELLS:]])
        assert comparable(await watch(service, run.run_id, 3)) == comparable([(TELLS, Gap(2)), *live[TELLS:]])
        assert comparable(await watch(service, run.run_id, 6)) == comparable(live[6:])


async def test_a_run_of_a_dead_process_was_interrupted_and_nobody_knows_what_was_missed(tmp_path: Path) -> None:
    bot = Scripted()
    async with serving(bot, make_store("sqlite", tmp_path)) as service:
        run = service.begin(inbound("stream a; hold on"), PUBLIC, watched=True)
        await bot.reached["on"].wait()
        thread_id = run.thread_id
    async with serving(Scripted(), make_store("sqlite", tmp_path)) as service:
        assert (await stored(service, run.run_id)).status is RunStatus.INTERRUPTED
        assert thread_id is not None
        for after in (0, 1, 2):
            *start, gap, (position, item) = await watch(service, run.run_id, after)
            assert start == ([] if after else [(1, RunStarted(run.run_id, thread_id, True))])
            assert gap == (max(after, 1), Gap(None))
            assert position == THE_END
            assert isinstance(item, Ended)
            assert isinstance(item.answer, RunInterrupted)


async def test_of_a_run_that_nobody_here_works_on_the_start_is_told_at_once_and_the_rest_when_it_has_ended() -> None:
    bot = Scripted()
    async with serving(bot) as service:
        run = service.begin(inbound("hold on; send a"), PUBLIC)
        await bot.reached["on"].wait()
        service._runs.remove(run)  # as another process's would be
        items = await Runs(service).watch(PUBLIC, run.run_id)
        assert items is not None
        assert isinstance((await anext(items))[1], RunStarted)
        watching = asyncio.create_task(drained(items))
        await asyncio.sleep(0.02)
        assert not watching.done()
        service._runs.add(run)
        bot.opened["on"].set()
        assert told(await watching)[-1] == "RunResult"


@pytest.mark.parametrize("what", ["drain", "deletion", "outage"])
async def test_who_watches_such_a_run_is_told_why_that_ends_before_it(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bot = Scripted()
    async with serving(bot) as service:
        run = await taken(service.begin(inbound("hold on"), PUBLIC))
        await bot.reached["on"].wait()
        service._runs.remove(run)
        watching = asyncio.create_task(watch(service, run.run_id))
        await asyncio.sleep(0.02)
        if what == "drain":
            service.draining = True
        elif what == "deletion":
            assert run.thread_id is not None
            await service.store.delete_thread(run.thread_id, None)
        else:

            async def away(*_: Any) -> Any:
                raise StoreUnavailable("away")

            monkeypatch.setattr(service.store, "run", away)
        start, (position, item) = await watching
        service._runs.add(run)
    assert isinstance(start[1], RunStarted)
    assert position == THE_END
    assert isinstance(item, Ended)
    assert isinstance(item.answer, {"drain": ServerDraining, "deletion": RunNotFound, "outage": StoreUnavailable}[what])


async def test_the_stream_of_a_run_whose_thread_is_deleted_ends_with_that() -> None:
    bot = Scripted()
    async with serving(bot) as service:
        run = service.begin(inbound("hold on"), PUBLIC, watched=True)
        await bot.reached["on"].wait()
        assert run.thread_id is not None
        await ThreadService(service).delete_thread(PUBLIC.identity, run.thread_id)
        assert run.stream is not None
        assert told(await read_all(run.stream)) == ["started", "ThreadNotFound"]
        with pytest.raises(ThreadNotFound):
            await run.answer
        with pytest.raises(RunNotFound):
            await Runs(service).watch(PUBLIC, run.run_id)


async def test_a_run_that_does_not_exist_is_not_found() -> None:
    async with serving(Scripted()) as service:
        with pytest.raises(RunNotFound):
            await Runs(service).watch(PUBLIC, uuid4())


async def test_a_cancelled_run_is_told_by_the_store_as_far_as_it_knows() -> None:
    bot = Scripted()
    async with serving(bot) as service:
        run = service.begin(inbound("stream a; hold on"), PUBLIC, watched=True)
        await bot.reached["on"].wait()
        await service.cancel(run.run_id)
        await asyncio.wait([run.answer])
        assert isinstance(run.answer.exception(), RunCancelled)
        await ended(service)
        assert told(await watch(service, run.run_id)) == ["started", "delta a", "RunCancelled"]
        forget_streams(service)
        assert told(await watch(service, run.run_id)) == ["started", "gap None", "RunCancelled"]
