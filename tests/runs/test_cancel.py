"""Cancelled runs: wherever they stand, nothing of them is stored, all hear the same, and their thread goes on."""

import asyncio
import gc
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID, uuid4

import pytest

from jimsapi import ThreadContext
from jimsapi.runs.admission import PUBLIC
from jimsapi.runs.errors import RunCancelled, RunEnded
from jimsapi.runs.live import LiveRun, RunRecord, Stop
from jimsapi.runs.lookup import Runs
from jimsapi.runs.service import RunService
from jimsapi.threads.errors import RunNotFound
from jimsapi.threads.run import RunStatus
from tests.apps.scripted import Scripted
from tests.runs.serving import STORES, ended, inbound, make_store, read_all, serving, stored, taken, texts, told

pytestmark = pytest.mark.anyio


async def cancel(service: RunService, run_id: UUID) -> None:
    await Runs(service).cancel(PUBLIC, run_id)


async def is_cancelled_everywhere(service: RunService, run: LiveRun, records: list[RunRecord]) -> bool:
    """Whether the caller, the stream, the store and the observers say so, each once."""
    with pytest.raises(RunCancelled):
        await run.answer
    await ended(service)
    if run.stream is not None:
        assert told(await read_all(run.stream))[-1] == "RunCancelled"
    assert [record.status for record in records if record.run_id == run.run_id] == [RunStatus.CANCELLED]
    row = await stored(service, run.run_id)
    return (row.status, row.events) == (RunStatus.CANCELLED, [])


@pytest.mark.parametrize("kind", STORES)
async def test_a_running_one_keeps_its_message_and_nothing_else(kind: str, tmp_path: Path) -> None:
    bot, records = Scripted(), list[RunRecord]()
    async with serving(bot, make_store(kind, tmp_path), on_run=[records.append]) as service:
        run = service.begin(inbound("stream a; event b; hold on"), PUBLIC, watched=True)
        await bot.reached["on"].wait()
        await cancel(service, run.run_id)
        assert await is_cancelled_everywhere(service, run, records)
        assert run.thread_id is not None
        assert await texts(service, run.thread_id) == ["user_message"]
        assert (await service.chat(inbound(), PUBLIC)).assistant_messages == ["You said: hi"]


@pytest.mark.parametrize("background", [False, True])
async def test_a_queued_one_never_enters_its_thread(background: bool) -> None:
    bot, records = Scripted(), list[RunRecord]()
    async with serving(bot, on_run=[records.append]) as service:
        first = service.begin(inbound("hold on"), PUBLIC)
        await bot.reached["on"].wait()
        run = await taken(service.begin(inbound("never"), PUBLIC, watched=True, background=background))
        last = await taken(service.begin(inbound("last"), PUBLIC))
        await cancel(service, run.run_id)
        bot.opened["on"].set()
        await first.answer
        assert (await last.answer).assistant_messages == ["You said: last"]
        assert await is_cancelled_everywhere(service, run, records)
        assert run.thread_id is not None
        assert await texts(service, run.thread_id) == ["user_message", "user_message", "assistant_message"]
    assert "never" not in bot.texts


async def test_one_in_its_conversation_start_leaves_neither_greeting_nor_message() -> None:
    bot, records = Scripted(), list[RunRecord]()
    async with serving(bot, on_run=[records.append]) as service:
        fields: dict[str, Any] = {
            "thread_config": {"greet": "send Welcome; hold on"},
            "run_conversation_start_on_new_thread": True,
        }
        run = service.begin(inbound(**fields), PUBLIC, watched=True)
        await bot.reached["on"].wait()
        await cancel(service, run.run_id)
        assert await is_cancelled_everywhere(service, run, records)
        assert run.thread_id is not None
        assert await texts(service, run.thread_id) == []
        assert (await service.chat(inbound(), PUBLIC)).created_new_thread is False


async def test_one_whose_pipeline_swallows_the_cancellation_is_let_go() -> None:
    bot, records = Scripted(), list[RunRecord]()
    async with serving(bot, on_run=[records.append]) as service:
        run = service.begin(inbound("stubborn; send late"), PUBLIC)
        await bot.reached["stubborn"].wait()
        await cancel(service, run.run_id)
        assert await is_cancelled_everywhere(service, run, records)
        assert service.abandoned_pipelines == 1
        assert (await service.chat(inbound(), PUBLIC)).assistant_messages == ["You said: hi"]
        bot.opened["stubborn"].set()
        while service.abandoned_pipelines:
            await asyncio.sleep(0)
        assert run.thread_id is not None
        assert await texts(service, run.thread_id) == ["user_message", "user_message", "assistant_message"]


@pytest.mark.parametrize("asks", [False, True])
async def test_the_exception_of_a_stopped_pipeline_is_logged_with_its_run(
    asks: bool, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(Scripted):
        async def do(self, ctx: ThreadContext, command: str, argument: str) -> None:
            try:
                if asks:
                    await ctx.ask("key", "Really?")
                raise RuntimeError("cannot close")
            finally:  # the run is stopped before it sees the exception
                asyncio.get_running_loop().call_soon(run.stop, Stop.CANCELLED)

    async with serving(Failing()) as service:
        run = service.begin(inbound(), PUBLIC)
        with pytest.raises(RunCancelled):
            await run.answer
        await ended(service)
        gc.collect()  # asyncio logs exceptions that nobody has read when their task is collected
    logged = [] if asks else [f"run {run.run_id}: the pipeline failed while it was stopped"]
    assert [record.getMessage() for record in caplog.records if record.exc_info] == logged


async def test_a_run_that_has_ended_in_whatever_way_cannot_be_cancelled() -> None:
    bot = Scripted()
    async with serving(bot) as service:
        run = service.begin(inbound("hold on"), PUBLIC)
        await bot.reached["on"].wait()
        await cancel(service, run.run_id)
        with pytest.raises(RunEnded, match="it is cancelled"):
            await cancel(service, run.run_id)
        done = await service.chat(inbound(), PUBLIC)
        with pytest.raises(RunEnded, match="it is completed"):
            await cancel(service, done.run_id)
        with pytest.raises(RunNotFound):
            await cancel(service, uuid4())


async def test_one_that_nobody_works_on_any_more_lets_the_next_begin() -> None:
    bot = Scripted()
    async with serving(bot) as service:
        lost = service.begin(inbound("hold on"), PUBLIC)
        await bot.reached["on"].wait()
        behind = await taken(service.begin(inbound("behind"), PUBLIC))
        service._runs.remove(lost)  # as a fault of the server's leaves it, until the next heartbeat
        await cancel(service, lost.run_id)
        assert (await behind.answer).assistant_messages == ["You said: behind"]
        service._runs.add(lost)
        bot.opened["on"].set()
        with pytest.raises(RunCancelled):
            await lost.answer


@pytest.mark.parametrize("kind", STORES)
async def test_cancels_at_random_moments_lock_no_thread_and_leave_no_run_by_half(kind: str, tmp_path: Path) -> None:
    """Runs of 25 threads, most of them several at a time, each in a state of its own when it is cancelled."""
    moments, records, bot = Random(500), list[RunRecord](), Scripted()
    scripts = ["send a; event b", "stream a; pause; stream b", "pause; send a", "hold on", "send a"]
    outcomes: Counter[str] = Counter()

    async def pausing(ctx: object, command: str, argument: str) -> None:
        await (asyncio.sleep(0) if command == "pause" else do(ctx, command, argument))  # type: ignore[arg-type] # the bot's own

    do = bot.do
    bot.do = pausing  # type: ignore[method-assign] # one more step
    async with serving(bot, make_store(kind, tmp_path), on_run=[records.append]) as service:

        async def cancel_at_some_moment(number: int) -> LiveRun:
            script = moments.choice(scripts)
            run = service.begin(
                inbound(script, f"{number % 25}", run_conversation_start_on_new_thread=number % 2 == 0),
                PUBLIC,
                watched=moments.random() < 0.5,
                background=moments.random() < 0.3,
            )
            if script != "hold on" and moments.random() < 0.15:
                await asyncio.wait([run.answer])
            for _ in range(moments.choice((0, 1, 2, 4, 8, 40))):
                await asyncio.sleep(0)
            while True:
                try:
                    await cancel(service, run.run_id)
                    outcomes["cancelled"] += 1
                    cancelled.add(run.run_id)
                except RunEnded:
                    outcomes["ended"] += 1
                except RunNotFound:  # the store has not heard of it yet
                    if moments.random() < 0.9:
                        await asyncio.sleep(0)
                    continue
                return run

        cancelled: set[UUID] = set()
        runs: list[LiveRun] = []
        for start in range(0, 500, 100):
            runs += await asyncio.gather(*(cancel_at_some_moment(number) for number in range(start, start + 100)))
        answers = await asyncio.gather(*(run.answer for run in runs), return_exceptions=True)
        further = await asyncio.gather(*(service.chat(inbound("further", f"{number}"), PUBLIC) for number in range(25)))
        await ended(service)

        assert {answer.assistant_messages[-1] for answer in further} == {"You said: further"}
        assert outcomes.total() == 500
        assert min(outcomes["cancelled"], outcomes["ended"]) > 20, outcomes  # else the moments test nothing
        told_of = {record.run_id: record.status for record in records}
        assert len(told_of) == len(records) == 525
        for run, answer in zip(runs, answers, strict=True):
            row = await stored(service, run.run_id)
            expected = RunStatus.CANCELLED if run.run_id in cancelled else RunStatus.COMPLETED
            assert row.status is told_of[run.run_id] is expected
            assert isinstance(answer, RunCancelled) == (run.run_id in cancelled)
            assert bool(row.events) == (run.run_id not in cancelled)
        contents = Counter[str]()
        for thread_id in {run.thread_id for run in runs}:
            assert thread_id is not None
            contents.update(await texts(service, thread_id))
        sent = [event for run in runs for event in (await stored(service, run.run_id)).events]
        greetings = contents["assistant_message"] - sum(event.event_type == "comm.assistant_message" for event in sent)
        assert 0 <= greetings - 25 <= 25  # one a thread at most, beside the further answers
        assert contents["rag.step"] == sum(event.event_type == "rag.step" for event in sent)
