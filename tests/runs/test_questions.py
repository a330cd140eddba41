"""Questions of a pipeline to a person: they end the run, wait without a process, and are answered once."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest

from jimsapi import JimsApp, ThreadContext
from jimsapi.builtin.resolvers import DefaultResolver
from jimsapi.runs import outage, worker_threads
from jimsapi.runs.admission import PUBLIC, Admission
from jimsapi.runs.errors import (
    ContactForbidden,
    PipelineFailed,
    QuestionClosed,
    QuestionNotFound,
    RunCancelled,
    RunTimedOut,
    ScopeMissing,
)
from jimsapi.runs.inbound import Inbound
from jimsapi.runs.keys import idempotency
from jimsapi.runs.limits import RunLimits
from jimsapi.runs.result import RunResult
from jimsapi.runs.service import RunService
from jimsapi.stores.memory import MemoryStore
from jimsapi.threads.errors import InputRefused, StoreUnavailable
from jimsapi.threads.event import BESIDE, EventRow, NewEvent, id_beside
from jimsapi.threads.questions import NO_ANSWER, Question, QuestionAsked, answer_id, closing_id, schema_fault
from jimsapi.threads.run import Accepted, ContextLimits, RunPlan, RunStatus
from jimsapi.threads.store import ThreadStore
from tests.runs.serving import STORES, caller, make_store, stored, texts

pytestmark = pytest.mark.anyio

Pipeline = Callable[[ThreadContext], Any]


@asynccontextmanager
async def serving(pipeline: Pipeline, store: ThreadStore | None = None) -> AsyncIterator[RunService]:
    kept = make_store("memory", Path()) if store is None else store
    async with kept as opened, RunService(JimsApp(pipeline), opened, [DefaultResolver()]) as service:
        yield service


@asynccontextmanager
async def serving_on(pipeline: Pipeline, store: ThreadStore) -> AsyncIterator[RunService]:
    """Serve a store that outlives the service."""
    async with RunService(JimsApp(pipeline), store, [DefaultResolver()]) as service:
        yield service


async def say(service: RunService, message: str = "hi", admission: Admission = PUBLIC, **fields: Any) -> RunResult:
    return await service.chat(Inbound(contact_id="ann", message=message, **fields), admission)


async def answer(
    service: RunService, question: Question, value: Any, admission: Admission = PUBLIC, **fields: Any
) -> RunResult:
    return await say(service, "", admission, answers={str(question.question_id): value}, **fields)


def asked(result: RunResult) -> Question:
    [question] = result.questions()
    return question


class Refunds:
    """A pipeline that refunds once if a person approves."""

    def __init__(self, **options: Any) -> None:
        self.refunds = 0
        self.runs = 0
        self.options = {"options": ["yes", "no"], **options}

    async def refund(self) -> dict[str, int]:
        self.refunds += 1
        return {"refund": self.refunds}

    async def __call__(self, ctx: ThreadContext) -> None:
        self.runs += 1
        if not ctx.answered:
            ctx.send_message("One moment.")
        if await ctx.ask("refund", "Refund 20 EUR?", **self.options) == "yes":
            made = await ctx.once("refund", self.refund)
            sure = await ctx.ask("receipt", "Send a receipt?", options=["yes", "no"])
            ctx.send_message(f"refund {made['refund']}, receipt {sure}, asked: {ctx.get_last_user_message()}")
        else:
            ctx.send_message("No refund.")


# A question and its answer.


@pytest.mark.parametrize("kind", STORES)
async def test_a_run_ends_with_its_question_and_its_answer_continues_the_turn(kind: str, tmp_path: Path) -> None:
    pipeline = Refunds()
    async with serving(pipeline, make_store(kind, tmp_path)) as service:
        first = await say(service, "I want my money back")
        question = asked(first)
        assert first.assistant_messages == ["One moment."]
        assert (question.key, question.text, question.options) == ("refund", "Refund 20 EUR?", ["yes", "no"])
        assert service.open_runs == 0
        second = await answer(service, question, "yes")
        assert (second.thread_id, second.assistant_messages) == (first.thread_id, [])
        third = await answer(service, asked(second), "no")
        assert third.assistant_messages == ["refund 1, receipt no, asked: I want my money back"]
        assert third.questions() == []
        assert (pipeline.refunds, pipeline.runs) == (1, 3)
        assert await texts(service, first.thread_id) == [
            "user_message",
            "assistant_message",
            "question.asked",
            "message.answers",
            "question.answered",
            "once.result",
            "question.asked",
            "message.answers",
            "question.answered",
            "assistant_message",
        ]


async def test_the_next_turn_asks_and_does_everything_anew() -> None:
    pipeline = Refunds()
    async with serving(pipeline) as service:
        for turn in (1, 2):
            question = asked(await say(service))
            result = await answer(service, asked(await answer(service, question, "yes")), "yes")
            assert result.assistant_messages[0].startswith(f"refund {turn},")


async def test_a_question_says_who_answered_it() -> None:
    async with serving(Refunds()) as service:
        question = asked(await say(service))
        result = await answer(service, question, "no", caller("bea", provider="key"))
        events = (await service.store.events(result.thread_id, None, 100, None)).events
        stored = next(event for event in events if event.event_type == "question.answered")
        assert msgspec.json.decode(stored.event_data or b"") == {
            "question_id": str(question.question_id),
            "key": "refund",
            "value": "no",
            "answered_by": {"subject": "bea", "provider": "key", "contact_id": None},
            "message_id": str(stored.event_id),
        }


async def test_a_message_may_come_with_the_answer() -> None:
    async with serving(Refunds()) as service:
        question = asked(await say(service, "first"))
        result = await say(service, "and be quick", answers={str(question.question_id): "yes"})
        last = await answer(service, asked(result), "yes")
        assert last.assistant_messages == ["refund 1, receipt yes, asked: and be quick"]


async def test_several_questions_at_once_are_answered_together_or_one_by_one() -> None:
    async def pipeline(ctx: ThreadContext) -> None:
        async def ask(key: str) -> str:
            return str(await ctx.ask(key, f"Your {key}?"))

        async with asyncio.TaskGroup() as tasks:
            name, age = [tasks.create_task(ask(key)) for key in ("name", "age")]
        ctx.send_message(f"{name.result()}, {age.result()}")

    async with serving(pipeline) as service:
        both = (await say(service)).questions()
        assert sorted(question.key for question in both) == ["age", "name"]
        values = {str(question.question_id): f"my {question.key}" for question in both}
        assert (await say(service, "", answers=values)).assistant_messages == ["my name, my age"]
        first, second = (await say(service)).questions()
        assert asked(await answer(service, first, "one")) == second
        assert len((await answer(service, second, "two")).assistant_messages) == 1


async def test_a_form_is_converted_to_its_type_and_asked_again_if_the_type_refuses_it() -> None:
    class Address(msgspec.Struct):
        city: str
        zip: str

    @dataclass
    class Positive:
        n: int

        def __post_init__(self) -> None:
            if self.n <= 0:
                raise ValueError("not positive")

    async def pipeline(ctx: ThreadContext) -> None:
        address = await ctx.ask("address", "Where to?", schema=Address)
        number = await ctx.ask("number", "How many?", schema=Positive)
        ctx.send_message(f"{number.n} to {address.city}")

    async with serving(pipeline) as service:
        question = asked(await say(service))
        for wrong, fault in (("Berlin", "object"), ({"city": "Berlin"}, "zip"), ({"city": 1, "zip": "1"}, "city")):
            with pytest.raises(InputRefused) as refused:
                await answer(service, question, wrong)
            assert fault in refused.value.message
        question = asked(await answer(service, question, {"city": "Berlin", "zip": "10115"}))
        again = asked(await answer(service, question, {"n": -1}))
        assert (again.key, again.question_id == question.question_id) == ("number", False)
        assert (await answer(service, again, {"n": 2})).assistant_messages == ["2 to Berlin"]


async def test_a_pipeline_that_catches_exceptions_still_asks() -> None:
    async def pipeline(ctx: ThreadContext) -> None:
        try:
            ctx.send_message(str(await ctx.ask("name", "Your name?")))
        except Exception:
            ctx.send_message("caught")

    async with serving(pipeline) as service:
        result = await say(service)
        assert (asked(result).key, result.assistant_messages) == ("name", [])


# What is refused.


async def test_what_is_no_answer_is_refused_and_changes_nothing() -> None:
    async with serving(Refunds()) as service:
        first = await say(service)
        before = await texts(service, first.thread_id)
        for value in ("maybe", None, 1, ["yes"]):
            with pytest.raises(InputRefused) as refused:
                await answer(service, asked(first), value)
            assert refused.value.field == f"answers.{asked(first).question_id}"
        for unknown in (str(uuid4()), "no id", str(first.run_id)):
            with pytest.raises(QuestionNotFound):
                await say(service, "", answers={unknown: "yes"})
        assert await texts(service, first.thread_id) == before
        assert (await answer(service, asked(first), "no")).assistant_messages == ["No refund."]


async def test_a_question_is_answered_once() -> None:
    pipeline = Refunds()
    async with serving(pipeline) as service:
        question = asked(await say(service))
        outcomes = await asyncio.gather(
            *[answer(service, question, value) for value in ("no", "yes", "no", "yes")], return_exceptions=True
        )
        assert [isinstance(one, RunResult) for one in outcomes].count(True) == 1
        assert sum(isinstance(one, QuestionClosed) for one in outcomes) == 3
        assert pipeline.runs == 2
        for value in ("yes", "no"):
            with pytest.raises(QuestionClosed):
                await answer(service, question, value)


@pytest.mark.parametrize("kind", STORES)
async def test_an_answer_that_comes_with_messages_begins_one_run(kind: str, tmp_path: Path) -> None:
    pipeline = Refunds()
    async with serving(pipeline, make_store(kind, tmp_path)) as service:
        question = asked(await say(service))
        values = {str(question.question_id): "no"}
        outcomes = await asyncio.gather(
            *[say(service, f"here {number}", answers=values) for number in range(4)], return_exceptions=True
        )
        assert [isinstance(one, RunResult) for one in outcomes].count(True) == 1
        assert sum(isinstance(one, QuestionClosed) for one in outcomes) == 3
        await say(service, "something else")
        for message in ("", "again"):
            with pytest.raises(QuestionClosed, match=str(question.question_id)):
                await say(service, message, answers=values)
        assert pipeline.runs == 3


async def test_an_answer_that_waits_behind_a_message_that_closes_its_question_is_refused() -> None:
    opened = asyncio.Event()
    worked: list[str] = []

    async def pipeline(ctx: ThreadContext) -> None:
        worked.append(str(ctx.get_last_user_message()))
        if len(worked) == 1:
            async with asyncio.TaskGroup() as group:
                for key in "ab":
                    group.create_task(ctx.ask(key, f"{key}?"))
        if len(worked) == 2:
            await opened.wait()
        ctx.send_message(f"run {len(worked)}")

    async with serving(pipeline) as service:
        first, second = (await say(service)).questions()
        busy = asyncio.create_task(answer(service, first, "yes"))
        while len(worked) < 2:
            await asyncio.sleep(0)
        message = service.begin(Inbound(contact_id="ann", message="instead"), PUBLIC, watched=True)
        assert message.acceptance is not None
        await message.acceptance
        late = asyncio.create_task(answer(service, second, "yes"))
        while service.open_runs < 3:
            await asyncio.sleep(0)
        opened.set()
        await busy
        await message.wait_for_answer()
        with pytest.raises(QuestionClosed, match="another message"):
            await late
        assert len(worked) == 3
        assert (await say(service, "next")).assistant_messages == ["run 4"]


async def test_an_answer_whose_message_was_refused_may_be_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(plan: RunPlan) -> Accepted:
        raise StoreUnavailable("the disk is full")

    async with serving(Refunds()) as service:
        values = {str(asked(await say(service)).question_id): "no"}
        with monkeypatch.context() as patch:
            patch.setattr(service.store, "accept", refuse)
            with pytest.raises(StoreUnavailable):
                await say(service, "hello", answers=values)
        assert (await say(service, "hello", answers=values)).assistant_messages == ["No refund."]


async def test_an_answered_question_does_not_take_another_one_with_it() -> None:
    async def both(ctx: ThreadContext) -> None:
        async with asyncio.TaskGroup() as group:
            first, second = (group.create_task(ctx.ask(key, f"{key}?")) for key in "ab")
        ctx.send_message(f"{first.result()} {second.result()}")

    async with serving(both) as service:
        first, second = (await say(service)).questions()
        await say(service, "hello", answers={str(first.question_id): "x"})
        values = {str(first.question_id): "x", str(second.question_id): "y"}
        with pytest.raises(QuestionClosed):
            await say(service, "again", answers=values)
        assert (await answer(service, second, "y")).assistant_messages == ["x y"]


async def test_a_question_is_not_answered_by_the_event_that_asks_it_again() -> None:
    async def two(ctx: ThreadContext) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(ctx.ask("a", "a?"))
            group.create_task(ctx.ask("b", "b?"))

    async with serving(two) as service:
        first, second = (await say(service)).questions()
        again = await answer(service, first, "x")
        [event] = [event for event in again.events if event.event_type == "question.asked"]
        assert event.event_id != second.question_id
        with pytest.raises(QuestionNotFound):
            await say(service, "", answers={str(event.event_id): "y"})


@pytest.mark.parametrize("spelling", [str.upper, "{{{}}}".format])
async def test_a_question_that_is_answered_twice_in_one_message_stays_open(spelling: Callable[[str], str]) -> None:
    async with serving(Refunds()) as service:
        question = asked(await say(service))
        identifier = str(question.question_id)
        with pytest.raises(InputRefused, match="twice"):
            await say(service, "", answers={identifier: "no", spelling(identifier): "no"})
        assert (await answer(service, question, "no")).assistant_messages == ["No refund."]


async def test_a_message_with_too_many_answers_is_refused() -> None:
    async with serving(Refunds()) as service:
        asked(await say(service))
        with pytest.raises(InputRefused, match="100"):
            await say(service, "", answers={str(uuid4()): "no" for _ in range(101)})


async def test_an_answer_counts_only_for_the_question_that_the_person_read() -> None:
    amounts = iter((20, 9000, 9000))

    async def changing(ctx: ThreadContext) -> None:
        amount = next(amounts)
        ctx.send_message(f"{await ctx.ask('refund', f'Refund {amount} EUR?', options=['yes', 'no'])}: {amount}")

    async with serving(changing) as service:
        first = asked(await say(service))
        second = asked(await answer(service, first, "yes"))
        assert (first.text, second.text) == ("Refund 20 EUR?", "Refund 9000 EUR?")
        assert (await answer(service, second, "no")).assistant_messages == ["no: 9000"]


async def test_a_question_whose_answers_are_always_refused_ends() -> None:
    async def forever(ctx: ThreadContext) -> None:
        number = 0
        while True:
            number += 1
            await ctx.ask("n", "Which?", options=[str(number)])

    async with serving(forever) as service:
        question = asked(await say(service))
        assert asked(await answer(service, question, "1")).options == ["2"]


async def test_an_answer_that_is_sent_again_with_its_key_is_answered_once() -> None:
    pipeline = Refunds()
    async with serving(pipeline) as service:
        question = asked(await say(service))
        inbound = Inbound(contact_id="ann", message="", answers={str(question.question_id): "no"})
        first = await service.begin(inbound, PUBLIC, key="k").wait_for_answer()
        again = await service.begin(inbound, PUBLIC, key="k").wait_for_answer()
        assert first == again
        assert pipeline.runs == 2


async def test_another_message_closes_a_question_unless_it_stays_open() -> None:
    async with serving(Refunds()) as service:
        question = asked(await say(service))
        newer = asked(await say(service, "never mind"))
        with pytest.raises(QuestionClosed, match="another message"):
            await answer(service, question, "yes")
        assert (await answer(service, newer, "no")).assistant_messages == ["No refund."]
    async with serving(Refunds(stays_open=True)) as service:
        question = asked(await say(service))
        await say(service, "by the way")
        assert (await answer(service, question, "no")).assistant_messages == ["No refund."]


@pytest.mark.parametrize("kind", STORES)
@pytest.mark.parametrize("events", [200, 4])
async def test_a_late_answer_continues_its_own_message_and_not_the_newest_one(
    kind: str, events: int, tmp_path: Path
) -> None:
    async def pipeline(ctx: ThreadContext) -> None:
        text = ctx.get_last_user_message()
        if text == "by the way":
            ctx.send_message("Yes?")
        else:
            sure = await ctx.ask("sure", f"{text}?", stays_open=True)
            said = [one["content"] for one in ctx.history]
            ctx.send_message(f"{text}: {sure}, {said[-3:]}, {ctx.metadata}")

    store = make_store(kind, tmp_path)
    limits = RunLimits(context=ContextLimits(events=events))
    async with store, RunService(JimsApp(pipeline), store, [DefaultResolver()], limits=limits) as service:
        question = asked(await say(service, "pay 20", metadata={"page": "/shop"}))
        await say(service, "by the way")
        done = await answer(service, question, "yes")
        assert done.assistant_messages == ["pay 20: yes, ['by the way', 'Yes?', 'pay 20'], {}"]
        assert done.questions() == []


async def test_a_late_answer_finds_a_message_that_came_with_an_earlier_answer_of_its_turn() -> None:
    async def pipeline(ctx: ThreadContext) -> None:
        if ctx.get_last_user_message() == "by the way":
            return
        sure = await ctx.ask("sure", "Sure?", stays_open=True)
        why = await ctx.ask("why", "Why?", stays_open=True)
        ctx.send_message(f"{sure}, {why}, {[one['content'] for one in ctx.history]}")

    async with serving(pipeline) as service:
        question = asked(await say(service, "pay 20"))
        second = asked(await say(service, "be quick", answers={str(question.question_id): "yes"}))
        await say(service, "by the way")
        done = await answer(service, second, "because")
        assert done.assistant_messages == ["yes, because, ['by the way', 'pay 20', 'be quick']"]


async def test_a_late_answer_in_text_continues_its_own_message() -> None:
    async def pipeline(ctx: ThreadContext) -> None:
        text = ctx.get_last_user_message()
        if text == "by the way":
            ctx.send_message("Yes?")
        else:
            sure = await ctx.ask("sure", f"{text}?", stays_open=True)
            ctx.send_message(f"{text}: {sure}, {await ctx.ask('why', 'Why?')}")

    async with serving(pipeline) as service:
        question = asked(await reply(service, "pay 20"))
        await say(service, "by the way")
        assert asked(await answer(service, question, "yes")).key == "why"
        assert (await reply(service, "because")).assistant_messages == ["pay 20: yes, because"]


class Both:
    """A pipeline that asks two questions at once, of which the first stays open."""

    def __init__(self) -> None:
        self.held = asyncio.Event()
        self.holds = asyncio.Event()

    async def __call__(self, ctx: ThreadContext) -> None:
        if not ctx.answered and ctx.get_last_user_message() == "hold":
            self.holds.set()
            await self.held.wait()
            return
        results: Sequence[Any] = await asyncio.gather(
            ctx.ask("first", "One?", stays_open=True), ctx.ask("second", "Two?"), return_exceptions=True
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result
        ctx.send_message(", ".join(results))


async def test_a_question_that_another_message_closed_is_asked_again_when_its_turn_goes_on() -> None:
    async with serving(Both()) as service:
        questions = {question.key: question for question in (await say(service)).questions()}
        await say(service, "by the way")
        again = asked(await answer(service, questions["first"], "1"))
        assert again.key == "second"
        assert again.question_id != questions["second"].question_id
        assert (await answer(service, again, "2")).assistant_messages == ["1, 2"]


@pytest.mark.parametrize("kind", STORES)
async def test_an_answer_that_waited_behind_another_message_when_its_process_died_does_not_count(
    kind: str, tmp_path: Path
) -> None:
    reached = {place: asyncio.Event() for place in ("answer", "message")}
    released = {place: asyncio.Event() for place in reached}

    async def pipeline(ctx: ThreadContext) -> None:
        place = "answer" if ctx.answered else "message" if ctx.get_last_user_message() == "hold" else None
        if place is not None:
            reached[place].set()
            await released[place].wait()  # nobody releases the message
        for result in await asyncio.gather(
            ctx.ask("first", "One?", stays_open=True),
            ctx.ask("second", "Two?"),
            ctx.ask("third", "Three?", stays_open=True),
            return_exceptions=True,
        ):
            if isinstance(result, BaseException):
                raise result

    def inbound(question: Question, value: str) -> Inbound:
        return Inbound(contact_id="ann", message="", answers={str(question.question_id): value})

    async with make_store(kind, tmp_path) as store:
        async with serving_on(pipeline, store) as service:
            first, second, third = (await say(service)).questions()
            service.begin(inbound(first, "1"), PUBLIC)
            await reached["answer"].wait()
            for sent, key in ((Inbound(contact_id="ann", message="hold"), None), (inbound(second, "2"), "k")):
                queued = service.begin(sent, PUBLIC, key=key, watched=True)
                assert queued.acceptance is not None
                await queued.acceptance
            released["answer"].set()
            await reached["message"].wait()
            assert await store.recover(uuid4()) == 2  # as the next process does if this one dies now
        async with serving_on(pipeline, store) as service:
            for key in ("k", "k", "other"):
                with pytest.raises(QuestionClosed, match="another message"):
                    await service.begin(inbound(second, "2"), PUBLIC, key=key).wait_for_answer()
            again = asked(await answer(service, third, "3"))  # its turn goes on, without the answer that was refused
            assert again.key == "second"
            assert again.question_id != second.question_id


@pytest.mark.parametrize("kind", STORES)
async def test_of_two_answers_that_waited_when_their_process_died_one_goes_on(kind: str, tmp_path: Path) -> None:
    held, ran = asyncio.Event(), 0

    async def pipeline(ctx: ThreadContext) -> None:
        nonlocal ran
        if ctx.answered.keys() == {"first"}:
            held.set()
            await asyncio.Event().wait()
        if ctx.answered.keys() == {"second"}:
            ran += 1
            ctx.send_message("done")
            return
        await asyncio.gather(ctx.ask("first", "One?", stays_open=True), ctx.ask("second", "Two?", stays_open=True))

    async with make_store(kind, tmp_path) as store:
        async with serving_on(pipeline, store) as service:
            first, second = (await say(service)).questions()
            answers = Inbound(contact_id="ann", message="", answers={str(second.question_id): "2"})
            service.begin(Inbound(contact_id="ann", message="", answers={str(first.question_id): "1"}), PUBLIC)
            await held.wait()
            for key in ("a", "b"):
                queued = service.begin(answers, PUBLIC, key=key, watched=True)
                assert queued.acceptance is not None
                await queued.acceptance
            assert await store.recover(uuid4()) == 3  # as the next process does if this one dies now
        async with serving_on(pipeline, store) as service:
            with pytest.raises(QuestionClosed, match="answered already"):
                await service.begin(answers, PUBLIC, key="b").wait_for_answer()
            done = await service.begin(answers, PUBLIC, key="a").wait_for_answer()
            assert done.assistant_messages == ["done"]
            assert await service.begin(answers, PUBLIC, key="a").wait_for_answer() == done
            assert ran == 1


@pytest.mark.parametrize("kind", STORES)
async def test_an_answer_that_is_accepted_just_after_its_question_was_closed_is_refused(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = Refunds()
    async with serving(pipeline, make_store(kind, tmp_path)) as service:
        asking = await say(service)
        question = asked(asking)
        accept = service.store.accept

        async def close_and_accept(plan: RunPlan) -> Accepted:
            """What another process does between the check of the answer and its acceptance."""
            if plan.message.event_type == "question.answered":
                closing = NewEvent(closing_id(question.question_id), "question.closed", b"{}")
                await service.store.append(asking.thread_id, None, [closing])
            return await accept(plan)

        monkeypatch.setattr(service.store, "accept", close_and_accept)
        with pytest.raises(QuestionClosed, match="another message"):
            await answer(service, question, "yes")
        assert (pipeline.refunds, pipeline.runs) == (0, 1)
        assert asked(await say(service, "again")).key == "refund"  # the thread goes on


async def test_of_two_answers_that_wait_for_their_turn_the_first_counts() -> None:
    pipeline = Both()
    async with serving(pipeline) as service:
        first, _ = (await say(service)).questions()
        holding = service.begin(Inbound(contact_id="ann", message="hold"), PUBLIC)
        await pipeline.holds.wait()
        answers = [
            service.begin(
                Inbound(contact_id="ann", message="", answers={str(first.question_id): value}), PUBLIC, background=True
            )
            for value in ("1", "one")
        ]
        while service.waiting_runs < 2:
            await asyncio.sleep(0)
        pipeline.held.set()
        await holding.answer
        assert asked(await answers[0].answer).key == "second"
        with pytest.raises(QuestionClosed):
            await answers[1].answer
        assert (await stored(service, answers[1].run_id)).status is RunStatus.CANCELLED  # it blocks nothing


async def test_answers_that_are_refused_in_part_are_refused_whole() -> None:
    async with serving(Both()) as service:
        first, second = (await say(service)).questions()
        await answer(service, first, "1")
        with pytest.raises(QuestionClosed):
            await say(service, "", answers={str(second.question_id): "2", str(first.question_id): "one"})
        assert (await answer(service, second, "two")).assistant_messages == ["1, two"]


async def test_an_answer_that_another_request_was_faster_than_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(Refunds()) as service:
        question = asked(await say(service))
        await answer(service, question, "no")
        find = service.store.events_by_id

        async def before(thread_id: UUID, event_ids: Any) -> list[Any]:
            """What the store returned before the first answer."""
            return [row for row in await find(thread_id, event_ids) if row.event_type != "question.answered"]

        monkeypatch.setattr(service.store, "events_by_id", before)
        with pytest.raises(QuestionClosed):
            await answer(service, question, "yes")
        with pytest.raises(QuestionClosed):
            await say(service, "with a message", answers={str(question.question_id): "yes"})


async def test_answers_to_questions_of_several_messages_are_refused() -> None:
    async with serving(Both()) as service:
        old = next(question for question in (await say(service)).questions() if question.key == "first")
        new = next(question for question in (await say(service)).questions() if question.key == "first")
        with pytest.raises(InputRefused) as refused:
            await say(service, "", answers={str(old.question_id): "1", str(new.question_id): "1"})
        assert refused.value.kind == "several_turns"


def test_requests_with_other_answers_are_other_requests() -> None:
    yes, no = (Inbound(contact_id="ann", message="", answers={"q": value}) for value in ("yes", "no"))
    assert idempotency("k", yes, PUBLIC).body != idempotency("k", no, PUBLIC).body
    assert idempotency("k", yes, PUBLIC).key == idempotency("k", no, PUBLIC).key


async def test_a_question_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(Refunds(expires=60)) as service:
        question = asked(await say(service))
        assert question.expires_at is not None
        assert timedelta() < question.expires_at - datetime.now(UTC) <= timedelta(seconds=60)
        monkeypatch.setattr(Question, "has_expired", lambda self, now: True)
        with pytest.raises(QuestionClosed, match="expired"):
            await answer(service, question, "yes")


# Answers in the text of a message, for protocols that have no other place for them.


async def reply(service: RunService, text: str, admission: Admission = PUBLIC, **fields: Any) -> RunResult:
    inbound = Inbound(contact_id="ann", message=text, **fields)
    return await service.begin(inbound, admission, answers_in_text=True).wait_for_answer()


@pytest.mark.parametrize("kind", STORES)
async def test_a_text_may_be_the_answer_to_the_only_question(kind: str, tmp_path: Path) -> None:
    pipeline = Refunds()
    async with serving(pipeline, make_store(kind, tmp_path)) as service:
        await reply(service, "I want my money back")
        second = await reply(service, " YES ")
        assert second.questions()[0].key == "receipt"
        third = await reply(service, "no")
        assert third.assistant_messages == ["refund 1, receipt no, asked: I want my money back"]
        assert await texts(service, third.thread_id) == [
            "user_message",
            "assistant_message",
            "question.asked",
            "user_message",
            "question.answered",
            "once.result",
            "question.asked",
            "user_message",
            "question.answered",
            "assistant_message",
        ]
        assert (await reply(service, "hello")).questions()[0].key == "refund"


async def test_a_text_and_an_answer_of_its_own_kind_continue_one_turn() -> None:
    pipeline = Refunds()
    async with serving(pipeline) as service:
        await reply(service, "money")
        second = await reply(service, "yes")
        third = await answer(service, asked(second), "no")
        assert third.assistant_messages == ["refund 1, receipt no, asked: money"]


async def test_a_text_that_is_no_answer_is_a_message_and_closes_the_question() -> None:
    async with serving(Refunds()) as service:
        question = asked(await reply(service, "money"))
        assert asked(await reply(service, "why?")).question_id != question.question_id
        with pytest.raises(QuestionClosed):
            await answer(service, question, "yes")


async def test_a_text_answers_neither_two_questions_nor_one_of_another_person() -> None:
    async def pipeline(ctx: ThreadContext) -> None:
        if "two" in str(ctx.get_last_user_message()):
            async with asyncio.TaskGroup() as group:
                for key in "ab":
                    group.create_task(ctx.ask(key, f"{key}?"))
        await ctx.ask("boss", "Approve?", answerable_by="contact:boss")

    async with serving(pipeline) as service:
        assert len((await reply(service, "two")).questions()) == 2
        assert asked(await reply(service, "one")).key == "boss"
        assert asked(await reply(service, "yes")).key == "boss"
        result = await reply(service, "yes")
        assert "question.answered" not in await texts(service, result.thread_id)


async def test_a_text_that_answers_a_question_may_be_sent_again_under_its_key(tmp_path: Path) -> None:
    began, held = asyncio.Event(), asyncio.Event()
    worked: list[str] = []

    async def pipeline(ctx: ThreadContext) -> None:
        value = await ctx.ask("sure", "Sure?", options=["yes", "no"])
        worked.append(f"{ctx.get_last_user_message()} {value}")
        if len(worked) == 1:
            began.set()
            await held.wait()
        ctx.send_message(worked[-1])

    inbound = Inbound(contact_id="ann", message="yes")
    async with serving(pipeline, make_store("sqlite", tmp_path)) as service:
        await reply(service, "go")
        service.begin(inbound, PUBLIC, key="k", answers_in_text=True)
        await began.wait()  # the process then dies
    async with serving(pipeline, make_store("sqlite", tmp_path)) as service:
        again = await service.begin(inbound, PUBLIC, key="k", answers_in_text=True).wait_for_answer()
    assert again.assistant_messages == ["go yes"]
    assert worked == ["go yes", "go yes"]


async def test_a_text_answers_no_question_that_was_answered_before() -> None:
    pipeline = Refunds()
    async with serving(pipeline) as service:
        first = asked(await reply(service, "money"))
        receipt = asked(await answer(service, first, "yes"))
        await answer(service, receipt, "yes")
        again = await reply(service, "yes")
        assert asked(again).key == "refund"
        assert pipeline.refunds == 1


async def test_a_text_answers_the_question_that_is_left_when_others_were_answered() -> None:
    async def both(ctx: ThreadContext) -> None:
        async with asyncio.TaskGroup() as group:
            first, second = (group.create_task(ctx.ask(key, f"{key}?")) for key in "ab")
        ctx.send_message(f"{first.result()} {second.result()}")

    async with serving(both) as service:
        first, second = (await reply(service, "go")).questions()
        await answer(service, first, "one")
        assert sorted((await reply(service, "two")).assistant_messages[0].split()) == ["one", "two"]
        assert second.key != first.key


async def test_a_text_that_cannot_be_stored_as_an_answer_is_a_message() -> None:
    async def pipeline(ctx: ThreadContext) -> None:
        ctx.send_message(str(await ctx.ask("form", "Form?", schema={"type": "object"})))

    async with serving(pipeline) as service:
        question = asked(await reply(service, "go"))
        assert asked(await reply(service, r'{"a": "\u0000"}')).question_id != question.question_id
        assert (await reply(service, '{"a": 1}')).assistant_messages == ["{'a': 1}"]


async def test_an_event_of_the_pipeline_s_own_that_looks_like_an_answer_spoils_nothing() -> None:
    async def pipeline(ctx: ThreadContext) -> None:
        ctx.send_event("question.answered", {"score": 1})
        ctx.send_event("message.answers", {"score": 1})
        ctx.send_message(f"{await ctx.ask('sure', 'Sure?')} {ctx.get_last_user_message()}")

    async with serving(pipeline) as service:
        await reply(service, "go")
        assert (await reply(service, "yes")).assistant_messages == ["yes go"]


async def test_a_run_that_an_answer_begins_has_its_message_though_the_context_is_short(tmp_path: Path) -> None:
    async def pipeline(ctx: ThreadContext) -> None:
        if ctx.get_last_user_message() == "go":
            for number in range(10):
                ctx.send_event("own.note", {"n": number})
            await ctx.ask("sure", "Sure?")
        ctx.send_message(f"{ctx.get_last_user_message()} {ctx.metadata}")

    limits = RunLimits(context=ContextLimits(events=3))
    store = make_store("sqlite", tmp_path)
    async with store, RunService(JimsApp(pipeline), store, [DefaultResolver()], limits=limits) as service:
        for number in range(5):
            await reply(service, f"before {number}")
        await reply(service, "go")
        assert (await reply(service, "yes")).assistant_messages == ["go {}"]


@pytest.mark.parametrize(
    ("options", "text", "value"),
    [
        ({}, " Ann ", "Ann"),
        ({}, "  ", NO_ANSWER),
        ({"options": ["Yes", "No"]}, "yes", "Yes"),
        ({"options": ["Yes", "No"]}, "maybe", NO_ANSWER),
        ({"options": ["US", "us"]}, "us", "us"),
        ({"options": [" padded "]}, " padded ", " padded "),
        ({"options": [" padded "]}, "Padded", " padded "),
        ({"schema": {"type": "integer"}}, "7", 7),
        ({"schema": {"type": "integer"}}, "seven", NO_ANSWER),
        ({"schema": {"type": "string"}}, "12345", "12345"),
        ({"schema": {"type": ["string", "null"]}}, "null", None),
        ({"schema": {"type": "string"}}, "seven", "seven"),
        ({"schema": {"type": "object", "required": ["a"]}}, '{"a": 1}', {"a": 1}),
    ],
)
def test_a_typed_text_is_an_answer_if_it_fits(options: dict[str, Any], text: str, value: Any) -> None:
    question = Question(question_id=uuid4(), key="k", text="?", turn=uuid4(), **options)
    assert question.answer_in(text) == value


# Who may answer.


async def test_a_caller_of_another_contact_finds_no_question() -> None:
    async with serving(Refunds()) as service:
        first = await say(service)
        fields: dict[str, Any] = {"contact_id": "bob", "message": "", "answers": {str(asked(first).question_id): "yes"}}
        bob = caller("bob", contact_id="bob")
        told = set()
        for thread in (first.thread_id, uuid4(), None):  # the error does not tell which threads exist
            with pytest.raises(QuestionNotFound) as refused:
                await service.chat(Inbound(**fields, thread_id=thread), bob)
            told.add(str(refused.value))
        assert len(told) == 1
        with pytest.raises(ContactForbidden):
            await service.chat(Inbound(**{**fields, "contact_id": "ann"}), bob)


async def test_a_question_for_a_scope_is_answered_with_it() -> None:
    async with serving(Refunds(answerable_by="scope:refunds")) as service:
        question = asked(await say(service))
        with pytest.raises(ScopeMissing):
            await answer(service, question, "yes", caller("bea", scopes=("chat",)))
        boss = caller("boss", scopes=("chat", "refunds"))
        assert asked(await answer(service, question, "yes", boss)).key == "receipt"


async def test_a_question_for_another_contact_is_answered_by_it_and_the_answer_shows_nothing() -> None:
    async with serving(Refunds(answerable_by="contact:boss")) as service:
        first = await say(service)
        question = asked(first)
        own = caller("ann", contact_id="ann")
        with pytest.raises(QuestionNotFound):
            await answer(service, question, "yes", own)
        boss = caller("boss", contact_id="boss")
        values = {str(question.question_id): "no"}
        inbound = Inbound(contact_id="boss", message="", thread_id=first.thread_id, answers=values)
        with pytest.raises(InputRefused):
            await service.begin(inbound, boss, watched=True).wait_for_answer()
        for field, value in (("message", "hi"), ("metadata", {"a": 1})):
            with pytest.raises(InputRefused, match="only answers"):
                await service.chat(msgspec.structs.replace(inbound, **{field: value}), boss)
        for _ in range(2):
            result = await service.begin(inbound, boss, key="k").wait_for_answer()
            assert (result.assistant_messages, result.events) == ([], ())
        assert "assistant_message" in (await texts(service, first.thread_id))[-1]


async def test_another_contact_that_answers_reads_its_own_next_question_and_no_failure_of_the_pipeline() -> None:
    async def secretive(ctx: ThreadContext) -> None:
        ctx.send_message("ann's card is 4711")
        await ctx.ask("first", "First?", answerable_by="contact:boss")
        await asyncio.gather(
            *[
                ctx.ask(key, f"{key}?", answerable_by=f"contact:{key}")
                for key in ("boss", "ann")
                if not ctx.answered.get(key)
            ]
        )

    async def failing(ctx: ThreadContext) -> None:
        await ctx.ask("first", "First?", answerable_by="contact:boss")
        raise ValueError("ann's card is 4711")

    boss = caller("boss", contact_id="boss")
    for pipeline in (secretive, failing):
        async with serving(pipeline) as service:
            first = await say(service)
            values = {str(asked(first).question_id): "go"}
            inbound = Inbound(contact_id="boss", message="", thread_id=first.thread_id, answers=values)
            for _ in range(2):
                if pipeline is secretive:
                    result = await service.begin(inbound, boss, key="k").wait_for_answer()
                    assert asked(result).text == "boss?"
                    assert "4711" not in repr(result)
                else:
                    with pytest.raises(PipelineFailed) as failed:
                        await service.begin(inbound, boss, key="k").wait_for_answer()
                    assert "4711" not in str(failed.value)


# How pipelines ask.


async def test_a_plain_function_asks_and_does_things_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_threads, "IDLE_FOR", 0.1)
    paid: list[int] = []

    async def pay() -> dict[str, int]:
        paid.append(20)
        return {"paid": len(paid)}

    def plain(ctx: ThreadContext) -> None:
        if ctx.ask("pay", "Pay?", options=["yes", "no"]) == "yes":
            made = ctx.once("pay", pay)
            seen = ctx.once("seen", len, "abc")
            ctx.send_message(f"{made['paid']} {seen} {ctx.ask('sure', 'Sure?')}")

    async with serving(plain) as service:
        second = await answer(service, asked(await say(service)), "yes")
        third = await answer(service, asked(second), "very")
        assert third.assistant_messages == ["1 3 very"]
        assert paid == [20]


def test_a_plain_test_calls_a_plain_function_that_asks() -> None:
    def plain(ctx: ThreadContext) -> None:
        made = ctx.once("made", len, "abc")
        ctx.send_message(f"{ctx.ask('pay', 'Pay?')} {made} {ctx.once('made', len, '')}")

    ctx = ThreadContext.for_test("hi", answers={"pay": "yes"})
    plain(ctx)
    assert [event.event_data["content"] for event in ctx.outgoing_events] == ["yes 3 3"]
    with pytest.raises(QuestionAsked):
        plain(ThreadContext.for_test("hi"))


async def test_calls_of_once_with_one_key_call_the_function_once() -> None:
    calls: list[int] = []

    async def work() -> int:
        calls.append(1)
        await asyncio.sleep(0)
        return len(calls)

    async def together(ctx: ThreadContext) -> None:
        ctx.send_message(str(await asyncio.gather(*[ctx.once("k", work) for _ in range(3)])))

    async with serving(together) as service:
        assert (await say(service)).assistant_messages == ["[1, 1, 1]"]


async def test_what_a_plain_function_did_once_is_kept_although_its_run_was_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_threads, "IDLE_FOR", 0.1)
    began, stopped = threading.Event(), threading.Event()
    paid: list[int] = []

    def pay() -> str:
        paid.append(1)
        began.set()
        stopped.wait(10)
        return "R-1"

    def plain(ctx: ThreadContext) -> None:
        ctx.once("pay", pay)

    async with serving(plain) as service:
        run = service.begin(Inbound(contact_id="ann", message="pay"), PUBLIC)
        await asyncio.to_thread(began.wait, 10)
        await service.cancel(run.run_id)
        with pytest.raises(RunCancelled):
            await run.wait_for_answer()
        stopped.set()
        assert run.thread_id is not None
        async with asyncio.timeout(10):
            while "once.result" not in await texts(service, run.thread_id):
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("key", ["", 5, "a\0"])
async def test_a_key_that_no_store_takes_is_refused_before_the_function_is_called(key: Any) -> None:
    calls: list[int] = []

    async def wrong(ctx: ThreadContext) -> None:
        await ctx.once(key, calls.append, 1)

    async with serving(wrong) as service:
        with pytest.raises(PipelineFailed):
            await say(service)
    assert calls == []


async def test_a_pipeline_that_asks_in_a_loop_does_not_stop_the_server() -> None:
    async def insists(ctx: ThreadContext) -> None:
        while await ctx.ask("date", "Which date?") != "today":
            pass

    async with serving(insists) as service:
        question = asked(await say(service))
        run = service.begin(
            Inbound(contact_id="ann", message="", answers={str(question.question_id): "tomorrow"}), PUBLIC
        )
        await asyncio.sleep(0.05)
        await service.cancel(run.run_id)
        with pytest.raises(RunCancelled):
            await run.wait_for_answer()


async def test_a_tool_that_asks_has_not_failed() -> None:
    async def careful(ctx: ThreadContext) -> None:
        async with ctx.tool("refund", {"amount": 20}) as call:
            call.result = await ctx.ask("sure", "Sure?")

    async with serving(careful) as service:
        first = await say(service)
        assert [event.event_type for event in first.events] == ["question.asked"]
        second = await answer(service, asked(first), "yes")
        assert [event.event_type for event in second.events] == ["tool.call"]


# Faults.


async def test_a_question_is_answered_after_a_restart(tmp_path: Path) -> None:
    pipeline = Refunds()
    async with serving(pipeline, make_store("sqlite", tmp_path)) as service:
        question = asked(await answer(service, asked(await say(service)), "yes"))
    async with serving(pipeline, make_store("sqlite", tmp_path)) as service:
        result = await answer(service, question, "yes")
    assert result.assistant_messages == ["refund 1, receipt yes, asked: hi"]
    assert pipeline.refunds == 1


async def test_what_stands_under_once_happens_once_when_a_message_is_answered_again(tmp_path: Path) -> None:
    calls: list[str] = []
    turns: list[UUID] = []
    reached = asyncio.Event()

    async def pipeline(ctx: ThreadContext) -> None:
        turns.append(ctx.turn_id)
        await ctx.once("a", calls.append, "a")
        if len(turns) == 1:
            reached.set()
            await asyncio.Event().wait()

    inbound = Inbound(contact_id="ann", message="hi", metadata={"n": 1})
    async with serving(pipeline, make_store("sqlite", tmp_path)) as service:
        service.begin(inbound, PUBLIC, key="k")
        await reached.wait()  # the process then dies
    async with serving(pipeline, make_store("sqlite", tmp_path)) as service:
        await service.begin(inbound, PUBLIC, key="k").wait_for_answer()
    assert calls == ["a"]
    assert len(turns) == 2
    assert len(set(turns)) == 1


async def test_a_run_outlasts_an_outage_of_the_store_with_what_it_does_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store refuses a read and a write, and then says of a write that it failed, which it has stored."""
    monkeypatch.setattr(outage, "RETRY_STORE_AFTER", (0.001,))
    store = MemoryStore()
    find, append = store.events_by_id, store.append
    faults = ["read", "write", "in doubt"]

    async def unreliable_find(thread_id: UUID, event_ids: Sequence[UUID]) -> list[EventRow]:
        if "read" in faults:
            faults.remove("read")
            raise StoreUnavailable("no connection")
        return await find(thread_id, event_ids)

    async def unreliable_append(*arguments: Any) -> list[EventRow]:
        if not faults:
            return await append(*arguments)
        if faults.pop(0) == "in doubt":
            await append(*arguments)
        raise StoreUnavailable("no connection")

    charges: list[int] = []

    async def pipeline(ctx: ThreadContext) -> None:
        monkeypatch.setattr(store, "events_by_id", unreliable_find)
        monkeypatch.setattr(store, "append", unreliable_append)
        await ctx.once("charge", charges.append, 20)

    async with serving(pipeline, store) as service:
        result = await say(service)
        assert charges == [20]
        assert await texts(service, result.thread_id) == ["user_message", "once.result"]
    assert faults == []


async def test_a_run_whose_store_does_not_come_back_ends_at_its_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: Any) -> list[EventRow]:
        raise StoreUnavailable("no connection")

    store = MemoryStore()
    monkeypatch.setattr(store, "append", refuse)

    async def pipeline(ctx: ThreadContext) -> None:
        await ctx.once("a", int)

    async with (
        store,
        RunService(JimsApp(pipeline), store, [DefaultResolver()], limits=RunLimits(run_timeout=0.5)) as service,
    ):
        with pytest.raises(RunTimedOut):
            await say(service)


async def test_a_result_that_cannot_be_stored_fails_the_run() -> None:
    async def pipeline(ctx: ThreadContext) -> None:
        await ctx.once("a", object)

    async with serving(pipeline) as service:
        with pytest.raises(Exception, match=r"once\.result"):
            await say(service)


@pytest.mark.parametrize("caught", [False, True])
async def test_a_conversation_start_that_asks_fails_and_says_why(caught: bool) -> None:
    async def start(ctx: ThreadContext) -> None:
        try:
            await ctx.ask("name", "Your name?")
        except QuestionAsked:
            if not caught:
                raise

    async def pipeline(ctx: ThreadContext) -> None:
        ctx.send_message("hello")

    app = JimsApp(pipeline, conversation_start_pipeline=start)
    async with MemoryStore() as store, RunService(app, store, [DefaultResolver()]) as service:
        with pytest.raises(PipelineFailed, match="a conversation start cannot ask"):
            await say(service, run_conversation_start_on_new_thread=True)


async def test_a_pipeline_that_catches_the_end_of_its_run_is_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def pipeline(ctx: ThreadContext) -> None:
        try:
            await ctx.ask("name", "Your name?")
        except BaseException:
            ctx.send_message("went on")

    async with serving(pipeline) as service:
        result = await say(service)
    assert [question.key for question in result.questions()] == ["name"]
    assert f"run {result.run_id}: the pipeline went on after it had asked a person" in caplog.text


# In a test of a pipeline.


async def test_a_test_gives_answers_or_sees_the_question() -> None:
    pipeline = Refunds()
    with pytest.raises(QuestionAsked) as raised:
        await pipeline(ThreadContext.for_test("hi"))
    assert raised.value.question.key == "refund"
    ctx = ThreadContext.for_test("hi", answers={"refund": "yes", "receipt": "no"})
    await pipeline(ctx)
    assert [event.event_data["content"] for event in ctx.outgoing_events] == ["refund 1, receipt no, asked: hi"]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"key": ""}, TypeError),
        ({"text": 1}, TypeError),
        ({"options": "yes"}, TypeError),
        ({"options": []}, ValueError),
        ({"options": [1]}, TypeError),
        ({"options": ["a"], "schema": {}}, ValueError),
        ({"expires": 0}, ValueError),
        ({"expires": float("nan")}, ValueError),
        ({"answerable_by": "boss"}, ValueError),
    ],
)
async def test_a_question_that_cannot_be_is_refused(arguments: dict[str, Any], error: type[Exception]) -> None:
    given = {"key": "k", "text": "Really?", **arguments}
    with pytest.raises(error):
        await ThreadContext.for_test("hi").ask(**given)


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": "string"}, "a", 1),
        ({"type": ["integer", "null"]}, None, 1.5),
        ({"type": "number"}, 1.5, True),
        ({"type": "boolean"}, True, 1),
        ({"enum": ["a", 1]}, 1, "b"),
        ({"const": "a"}, "a", "b"),
        ({"type": "array", "items": {"type": "integer"}}, [1], [1, "a"]),
        ({"type": "object", "required": ["a"]}, {"a": 1}, {}),
        ({"properties": {"a": {"type": "string"}}}, {"b": 1}, {"a": 1}),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, None, 1),
        ({"$ref": "#/$defs/A", "$defs": {"A": {"type": "integer"}}}, 1, "a"),
        ({"anyOf": [{"$ref": "#/$defs/A"}, {"type": "null"}], "$defs": {"A": {"maximum": 2}}}, 1, 3),
        ({"oneOf": [{"type": "integer"}]}, 1, "a"),
        ({"type": "integer"}, 1.0, 1.5),
        ({"enum": [1, False]}, 1, True),
        ({"const": 1}, 1.0, True),
        ({"minimum": 0, "maximum": 20}, 20, 21),
        ({"minimum": 0}, "a", -1),
        ({"exclusiveMinimum": 0}, 1, 0),
        ({"exclusiveMaximum": 1}, 0.5, 1),
        ({"minLength": 1, "maxLength": 2}, "ab", "abc"),
        ({"minLength": 1}, "a", ""),
        ({"minItems": 1}, [1], []),
        ({"maxItems": 1}, [1], [1, 2]),
        ({"properties": {"child": {"$ref": "#"}}, "type": "object"}, {"child": {}}, {"child": 5}),
        ({"type": "object", "properties": {"a": {"$ref": "https://example.com/a"}}}, {}, {"a": 1}),
    ],
)
def test_a_value_is_checked_against_a_schema(schema: dict[str, Any], good: Any, bad: Any) -> None:
    assert schema_fault(schema, good) is None
    assert schema_fault(schema, bad) is not None


def test_a_schema_that_refers_to_itself_without_end_takes_no_value() -> None:
    fault = schema_fault({"$ref": "#/$defs/A", "$defs": {"A": {"anyOf": [{"$ref": "#/$defs/A"}]}}}, 1)
    assert fault is not None
    assert "without end" in fault


def test_the_identifier_of_every_answer_has_room_for_the_events_beside_it() -> None:
    # A store may add to the identifier, or set its digits: both have to give the same.
    for _ in range(1000):
        identifier = answer_id(uuid4())
        assert id_beside(identifier, BESIDE).int == identifier.int | (id_beside(UUID(int=0), BESIDE).int)
