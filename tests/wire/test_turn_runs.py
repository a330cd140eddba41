"""The runs of a turn: a message and the answers to its questions, by whatever way these came."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest

from jimsapi import Inbound, JimsApp, ThreadContext
from jimsapi.builtin.resolvers import DefaultResolver
from jimsapi.runs.admission import Admission
from jimsapi.runs.live import LiveRun
from jimsapi.runs.service import RunService
from jimsapi.threads.event import EventRow
from jimsapi.threads.run import ById, New, RunStatus, StoredRun
from jimsapi.threads.store import ThreadStore
from jimsapi.wire import turn_runs
from jimsapi.wire.turn_runs import MOST_READ, TurnRuns
from tests.runs.serving import STORES, caller, make_store

pytestmark = pytest.mark.anyio


class Clerk:
    """Asks twice before it refunds, and again and again in a quiz. Other messages are held if `opened` is not set."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.opened.set()
        self.reached = asyncio.Event()

    async def __call__(self, ctx: ThreadContext) -> None:
        if str(ctx.get_last_user_message()).startswith("refund"):
            await ctx.ask("first", "Refund?", options=["yes", "no"], stays_open="open" in ctx.get_last_user_message())
            await ctx.ask("second", "Sure?", options=["yes", "no"])
            ctx.send_message("refunded")
        elif str(ctx.get_last_user_message()).startswith("quiz"):
            number = 0
            while await ctx.ask(f"{number}", "And then?", stays_open=True) != "stop":
                number += 1
            ctx.send_message("done")
        else:
            self.reached.set()
            await self.opened.wait()
            ctx.send_message("hello")


@pytest.fixture
def clerk() -> Clerk:
    return Clerk()


@pytest.fixture(params=STORES)
async def service(clerk: Clerk, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[RunService]:
    async with (
        make_store(request.param, tmp_path) as store,
        RunService(JimsApp(clerk), store, [DefaultResolver()]) as service,
    ):
        yield service


ANN = caller()


async def begun(
    service: RunService, message: str, thread: UUID | None, admission: Admission = ANN, **more: Any
) -> LiveRun:
    """A run for a message that a thread has accepted."""
    selectors = (New(),) if thread is None else (ById(thread),)
    answers = more.pop("answers", None)
    inbound = Inbound(contact_id="ann", message=message, answers=answers)
    run = service.begin(inbound, admission, selectors=selectors, watched=True, **more)
    if run.acceptance is not None:
        await asyncio.shield(run.acceptance)
    return run


async def said(
    service: RunService, message: str, thread: UUID | None = None, admission: Admission = ANN, **more: Any
) -> StoredRun:
    """The run for a message, when it has ended."""
    run = await begun(service, message, thread, admission, **more)
    await run.wait_for_answer()
    return await service.store.run(run.run_id, None, None)


def question_of(run: StoredRun) -> str:
    """The question with which a run ended."""
    asked = [event for event in run.events if event.event_type == "question.asked"]
    return str(orjson.loads(asked[-1].event_data or b"")["question_id"])


async def ids(service: RunService, run: StoredRun) -> list[UUID]:
    """The runs of the turn of a run, found from its first one."""
    turns = TurnRuns(service)
    return [one.run_id for one in await turns.following(await turns.first(run))]


async def test_a_message_without_questions_is_a_turn_of_its_own(service: RunService) -> None:
    first = await said(service, "hi")
    second = await said(service, "hi again", first.thread_id)
    assert await ids(service, first) == [first.run_id]
    assert await ids(service, second) == [second.run_id]


async def test_answers_of_every_form_belong_to_the_turn_of_their_question(service: RunService) -> None:
    asked = await said(service, "refund")
    thread = asked.thread_id
    by_id = await said(service, "", thread, answers={question_of(asked): "yes"})
    in_text = await said(service, "Yes", thread, answers_in_text=True)
    runs = [asked.run_id, by_id.run_id, in_text.run_id]
    for run in (asked, by_id, in_text):
        assert await ids(service, run) == runs
        assert await TurnRuns(service).is_first(run) == (run is asked)
    other = await said(service, "refund", thread)
    with_message = await said(service, "here it is", thread, answers={question_of(other): "no"})
    assert await ids(service, with_message) == [other.run_id, with_message.run_id]
    assert await ids(service, asked) == runs


async def test_a_turn_is_found_among_many_later_messages(service: RunService) -> None:
    asked = await said(service, "refund, and keep it open")
    for number in range(3):
        await said(service, f"hi {number}", asked.thread_id)
    answered = await said(service, "", asked.thread_id, answers={question_of(asked): "yes"})
    for number in range(MOST_READ + 5):
        await said(service, f"later {number}", asked.thread_id)
    assert await ids(service, asked) == await ids(service, answered) == [asked.run_id, answered.run_id]


async def test_an_answer_that_waits_for_its_turn_is_found(service: RunService, clerk: Clerk) -> None:
    asked = await said(service, "refund, and keep it open")
    for message in ("", "here it is"):
        clerk.opened.clear()
        clerk.reached.clear()
        held = await begun(service, "hi", asked.thread_id)
        await clerk.reached.wait()
        question = question_of(asked)
        waiting = await begun(service, message, asked.thread_id, answers={question: "yes"})
        stored = await service.store.run(waiting.run_id, None, None)
        assert stored.status is RunStatus.QUEUED
        assert await ids(service, asked) == [asked.run_id, waiting.run_id]
        assert await ids(service, stored) == [asked.run_id, waiting.run_id]
        clerk.opened.set()
        await held.wait_for_answer()
        await waiting.wait_for_answer()
        assert await ids(service, asked) == [asked.run_id, waiting.run_id]
        asked = await said(service, "refund, and keep it open", asked.thread_id)


async def test_a_cancelled_answer_leaves_the_question_open(service: RunService, clerk: Clerk) -> None:
    asked = await said(service, "refund, and keep it open")
    clerk.opened.clear()
    held = await begun(service, "hi", asked.thread_id)
    waiting = await begun(service, "", asked.thread_id, answers={question_of(asked): "yes"})
    await service.cancel(waiting.run_id)
    assert await ids(service, asked) == [asked.run_id]
    [question] = await TurnRuns(service).questions(asked)
    assert question.is_open
    clerk.opened.set()
    await held.wait_for_answer()


async def test_a_question_is_open_until_it_is_answered_or_closed(service: RunService) -> None:
    turns = TurnRuns(service)
    asked = await said(service, "refund")
    [question] = await turns.questions(asked)
    assert question.is_open
    await said(service, "hi", asked.thread_id)
    [superseded] = await turns.questions(asked)
    assert (superseded.is_open, superseded.closing is None) == (False, False)
    other = await said(service, "refund", asked.thread_id)
    await turns.close(other, await turns.questions(other), ANN)
    await turns.close(other, await turns.questions(other), ANN)
    [closed] = await turns.questions(other)
    assert not closed.is_open
    assert await turns.questions(await said(service, "hi", asked.thread_id)) == []


async def quiz(service: RunService, answers: int, between: int = 0) -> list[StoredRun]:
    """The runs of a turn with this number of answers. So many other messages come before each answer."""
    runs = [await said(service, "quiz")]
    for number in range(answers):
        for _ in range(between):
            await said(service, "hi", runs[0].thread_id)
        text = "stop" if number == answers - 1 else "go on"
        runs.append(await said(service, "", runs[0].thread_id, answers={question_of(runs[-1]): text}))
    return runs


@pytest.mark.parametrize(("between", "after"), [(0, 0), (0, 12), (2, 0), (5, 20)])
async def test_a_turn_with_more_answers_than_are_read_ends_with_its_newest_run(
    service: RunService, monkeypatch: pytest.MonkeyPatch, between: int, after: int
) -> None:
    most = 4
    monkeypatch.setattr(turn_runs, "MOST_RUNS", most)
    runs = await quiz(service, 3 * most + 1, between)
    for number in range(after):
        await said(service, f"later {number}", runs[0].thread_id)
    expected = [runs[0].run_id, *(run.run_id for run in runs[-most:])]
    for run in (runs[0], runs[most], runs[-1]):
        assert await ids(service, run) == expected
    short = await quiz(service, most)
    assert await ids(service, short[-1]) == [run.run_id for run in short]


async def test_the_cost_of_a_long_turn_does_not_grow_with_its_answers(
    service: RunService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turn_runs, "MOST_RUNS", 4)
    reads: list[int] = []
    for answers in (10, 60):
        runs = await quiz(service, answers)
        for number in range(10):
            await said(service, f"later {number}", runs[0].thread_id)
        with monkeypatch.context() as patched:
            counted = Counted(service.store)
            patched.setattr(service.store, "events_by_id", counted.events_by_id)
            assert (await ids(service, runs[-1]))[-1] == runs[-1].run_id
        reads.append(counted.reads)
    assert reads[1] < 2 * reads[0]


class Counted:
    """Counts how often events of a store are read by their identifiers."""

    def __init__(self, store: ThreadStore) -> None:
        self.reads = 0
        self._read = store.events_by_id

    async def events_by_id(self, thread_id: UUID, event_ids: Sequence[UUID]) -> list[EventRow]:
        self.reads += 1
        return await self._read(thread_id, event_ids)


async def test_the_request_that_answered_a_question_is_known_again(service: RunService) -> None:
    asked = await said(service, "refund")
    await said(service, "", asked.thread_id, answers={question_of(asked): "no"}, key="k")
    [question] = await TurnRuns(service).questions(asked)
    assert question.was_answered_by(ANN, "ann", "k")
    assert not question.was_answered_by(ANN, "ann", "other")
    assert not question.was_answered_by(caller("bea"), "ann", "k")
    assert not question.was_answered_by(ANN, "bea", "k")
