"""Questions of a pipeline to a person: they end the run, wait without a process, and are answered once."""

import asyncio
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
from jimsapi.runs.errors import ContactForbidden, QuestionClosed, QuestionNotFound, ScopeMissing
from jimsapi.runs.identity import PUBLIC, Admission
from jimsapi.runs.inbound import Inbound
from jimsapi.runs.keys import idempotency
from jimsapi.runs.result import RunResult
from jimsapi.runs.service import RunService
from jimsapi.threads.errors import InputRefused, ThreadNotFound
from jimsapi.threads.questions import Question, QuestionAsked, schema_fault
from jimsapi.threads.run import RunStatus
from jimsapi.threads.store import ThreadStore
from tests.runs.serving import STORES, caller, make_store, stored, texts

pytestmark = pytest.mark.anyio

Pipeline = Callable[[ThreadContext], Any]


@asynccontextmanager
async def serving(pipeline: Pipeline, store: ThreadStore | None = None) -> AsyncIterator[RunService]:
    kept = make_store("memory", Path()) if store is None else store
    async with kept as opened, RunService(JimsApp(pipeline), opened, [DefaultResolver()]) as service:
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


# Who may answer.


async def test_a_caller_of_another_contact_finds_no_question() -> None:
    async with serving(Refunds()) as service:
        first = await say(service)
        fields: dict[str, Any] = {"contact_id": "bob", "message": "", "answers": {str(asked(first).question_id): "yes"}}
        bob = caller("bob", contact_id="bob")
        for error, thread in ((ThreadNotFound, first.thread_id), (ThreadNotFound, None)):
            with pytest.raises(error):
                await service.chat(Inbound(**fields, thread_id=thread), bob)
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
        result = await service.chat(inbound, boss)
        assert (result.assistant_messages, result.events) == ([], ())
        assert "assistant_message" in (await texts(service, first.thread_id))[-1]


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


async def test_a_result_that_cannot_be_stored_fails_the_run() -> None:
    async def pipeline(ctx: ThreadContext) -> None:
        await ctx.once("a", object)

    async with serving(pipeline) as service:
        with pytest.raises(Exception, match=r"once\.result"):
            await say(service)


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
    ],
)
def test_a_value_is_checked_against_a_schema(schema: dict[str, Any], good: Any, bad: Any) -> None:
    assert schema_fault(schema, good) is None
    assert schema_fault(schema, bad) is not None
