"""Replay: the pipeline gets what it got before, its answers are compared with the stored ones, nothing is stored."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from jimsapi import Event, JimsApp, ThreadContext
from jimsapi.builtin.resolvers import DefaultResolver
from jimsapi.runs import worker_threads
from jimsapi.runs.admission import PUBLIC
from jimsapi.runs.conversation import Conversation
from jimsapi.runs.disclosure import HIDDEN_TOOL_ERROR, Disclosure
from jimsapi.runs.errors import PipelineFailed
from jimsapi.runs.limits import RunLimits
from jimsapi.runs.pipeline import Pipeline
from jimsapi.runs.replay import Answer, ReplayedTurn, Replayer, Usage
from jimsapi.runs.service import RunService
from jimsapi.runs.sinks import SinkQueue
from jimsapi.stores.memory import MemoryStore
from jimsapi.threads.errors import RunClosed
from jimsapi.threads.event import NewEvent
from jimsapi.threads.ids import uuid7
from jimsapi.threads.message_files import FilesInMemory
from jimsapi.threads.run import ContextLimits
from tests.apps.scripted import Scripted
from tests.runs.serving import STORES, inbound, make_store, serving

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def threads_end_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests count the threads of pipelines."""
    monkeypatch.setattr(worker_threads, "IDLE_FOR", 0.01)


class Recorder(Scripted):
    """A scripted bot that records everything that it can read of each context."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[dict[str, Any]] = []

    async def __call__(self, ctx: ThreadContext) -> None:
        older = await ctx.load_events(ctx.events[0], 3)
        newest = await ctx.load_events(limit=2)
        self.seen.append(
            {
                "events": ctx.events,
                "older": older,
                "newest": newest,
                "none": await ctx.load_events(limit=0),
                "truncated": ctx.truncated,
                "metadata": ctx.metadata,
                "contact_id": ctx.contact_id,
                "thread_config": dict(ctx.thread_config),
                "thread_id": ctx.thread_id,
                "resources": ctx.resources,
                "state": ctx.get_state("plan"),
            }
        )
        await super().__call__(ctx)


async def said(service: RunService, *messages: str) -> Conversation:
    """Send messages, and read the thread."""
    for message in messages:
        try:
            result = await service.chat(inbound(message, metadata={"sent": message}), PUBLIC)
        except PipelineFailed:
            continue
        thread_id = result.thread_id
    return await Conversation.read(service.store, thread_id)


async def replayed(pipeline: Any, conversation: Conversation, **options: Any) -> list[ReplayedTurn]:
    """Replay all turns with a pipeline of any kind."""
    replayer = Replayer(JimsApp(pipeline).pipeline, **options)
    return [await replayer.replay(conversation, turn) for turn in conversation.turns()]


async def stored(*messages: str) -> Conversation:
    """The conversation of a scripted bot with somebody who sends these messages."""
    async with serving(Scripted()) as service:
        return await said(service, *messages)


class Replacing(Scripted):
    """A scripted bot that says something else in place of a text."""

    def __init__(self, old: str, new: str) -> None:
        super().__init__()
        self._old, self._new = old, new

    async def do(self, ctx: ThreadContext, command: str, argument: str) -> None:
        await super().do(ctx, command, argument.replace(self._old, self._new))


EVERYTHING = (
    "think hm; tool look; source https://e.org/q; source A book; use 40; stream Hel; stream lo; send Hello you; "
    'buttons More?; own rag.step {"n": 1}; own state.set.plan {"step": 2}'
)


# What the pipeline gets


@pytest.mark.parametrize("kind", STORES)
@pytest.mark.parametrize(
    "limits",
    [ContextLimits(), *map(ContextLimits, (0, 2, 3)), ContextLimits(bytes=700), ContextLimits(4, 500)],
    ids=str,
)
async def test_the_pipeline_gets_what_it_got_when_the_message_was_new(
    kind: str, limits: ContextLimits, tmp_path: Path
) -> None:
    before, now = Recorder(), Recorder()
    run_limits = RunLimits(context=limits)
    messages = ['own state.set.plan {"step": 1}', "own rag.step; own rag.step", "send a; send b", "own rag.step"] * 3
    async with serving(before, make_store(kind, tmp_path), limits=run_limits, resources="shared") as service:
        conversation = await said(service, *messages)
    turns = await replayed(now, conversation, limits=run_limits, resources="shared")
    assert len(now.seen) == len(messages)
    assert now.seen == before.seen
    assert [turn.message for turn in turns] == messages
    assert not any(turn.changed for turn in turns)


async def test_the_limits_of_that_test_truncate_some_contexts_and_not_others() -> None:
    bot = Recorder()
    async with serving(bot, limits=RunLimits(context=ContextLimits(3))) as service:
        await said(service, *['own state.set.plan {"step": 1}', "send a; send b"] * 4)
    assert {seen["truncated"] for seen in bot.seen} == {True, False}


async def test_each_run_of_a_replay_has_its_own_identifier_and_no_identity() -> None:
    contexts: list[ThreadContext] = []

    async def keep(ctx: ThreadContext) -> None:
        contexts.append(ctx)

    await replayed(keep, await stored("send a", "send b"))
    assert len({ctx.run_id for ctx in contexts}) == 2
    assert {(ctx.run_id is None, ctx.identity) for ctx in contexts} == {(False, None)}


# What is compared


async def test_an_app_that_answers_as_before_has_changed_no_turn() -> None:
    conversation = await stored(EVERYTHING, EVERYTHING, "send bye")
    turns = await replayed(Scripted(), conversation)
    assert [turn.changed for turn in turns] == [False] * 3
    assert turns[0].old_lines == [
        'event: model.reasoning {"content": "hm"}',
        'tool: look {} returned "look"',
        "source: https://e.org/q",
        "source: A book",
        "message: Hello you",
        "message: More?",
        '  with {"buttons": [{"text": "Yes"}]}',
        'event: rag.step {"n": 1}',
        'event: state.set.plan {"step": 2}',
    ]
    assert turns[0].old.messages == turns[0].new.messages == ["Hello you", "More?"]


@pytest.mark.parametrize("part", ["hm", "look", "e.org/q", "A book", "you", "More", '"n": 1', '"step": 2'])
async def test_a_difference_in_any_part_of_the_answer_is_a_change(part: str) -> None:
    conversation = await stored("send same", EVERYTHING)
    unchanged, changed = await replayed(Replacing(part, part.replace(part[-1], "7")), conversation)
    assert (unchanged.changed, changed.changed) == (False, True)
    assert len(changed.old_lines) == len(changed.new_lines)
    assert [old for old, new in zip(changed.old_lines, changed.new_lines, strict=True) if old != new]


async def test_a_missing_and_an_additional_event_are_changes() -> None:
    async def silent(ctx: ThreadContext) -> None:
        pass

    [turn] = await replayed(silent, await stored("send a"))
    assert (turn.old_lines, turn.new_lines, turn.changed) == (["message: a"], [], True)
    [turn] = await replayed(Scripted(), await said_by(silent, "send a"))
    assert (turn.old_lines, turn.new_lines, turn.changed) == ([], ["message: a"], True)


async def said_by(pipeline: Any, *messages: str) -> Conversation:
    """The conversation with another pipeline."""
    async with MemoryStore() as store, RunService(JimsApp(pipeline), store, [DefaultResolver()]) as service:
        return await said(service, *messages)


async def test_a_replay_stores_no_file_and_compares_the_files_that_are_sent() -> None:
    content = [b"1"]

    class Reporting(Scripted):
        async def do(self, ctx: ThreadContext, command: str, argument: str) -> None:
            file = await ctx.save_file("report.txt", content[0])
            ctx.send_message("Here", files=[file])
            assert await file.read() == content[0]

    report = Reporting()
    async with serving(report) as service:
        memory = FilesInMemory((), "ann")
        service.use_files(memory)  # type: ignore[arg-type] # it has what a run needs
        conversation = await said(service, "a", "b")
    assert len(memory.files) == 1
    assert not any(turn.changed for turn in await replayed(report, conversation))
    content[0] = b"22"
    [first, _] = await replayed(report, conversation)
    assert first.old_lines == ["file: report.txt text/plain 1 bytes", "message: Here"]
    assert first.new_lines == ["file: report.txt text/plain 2 bytes", "message: Here"]
    assert len(memory.files) == 1


async def test_the_order_of_messages_counts() -> None:
    async def other_order(ctx: ThreadContext) -> None:
        ctx.send_message("b")
        ctx.send_message("a")

    [turn] = await replayed(other_order, await stored("send a; send b"))
    assert turn.changed


async def test_calls_of_tools_that_overlap_are_compared_in_the_order_in_which_they_begin() -> None:
    def overlapping(first_to_end: str) -> Pipeline:
        async def answer(ctx: ThreadContext) -> None:
            calls = {name: ctx.tool(name) for name in ("one", "two")}
            for call in calls.values():
                call.__enter__()
            for name in sorted(calls, key=lambda name: name != first_to_end):
                calls[name].__exit__(None, None, None)

        return answer

    conversation = await said_by(overlapping("one"), "go")
    [turn] = await replayed(overlapping("two"), conversation)
    assert turn.new_lines == ["tool: one {} returned null", "tool: two {} returned null"]
    assert not turn.changed


async def test_identifiers_durations_and_usage_are_not_compared() -> None:
    def calling(identifier: str, tokens: int) -> Pipeline:
        async def answer(ctx: ThreadContext) -> None:
            with ctx.tool("look", {"for": "x"}, id=identifier) as call:
                call.result = tokens > 0
            ctx.usage(model=identifier, input_tokens=tokens, output_tokens=1)

        return answer

    [turn] = await replayed(calling("b", 9), await said_by(calling("a", 5), "go"))
    assert not turn.changed
    assert [event.event_type for event in turn.old.events] == ["tool.call", "model.usage"]


async def test_an_error_of_a_tool_is_compared() -> None:
    async def failing(ctx: ThreadContext) -> None:
        with ctx.tool("look") as call:
            call.error = "no\nroute"

    [turn] = await replayed(failing, await stored("tool look"))
    assert turn.old_lines == ['tool: look {} returned "look"']
    assert turn.new_lines == [r"tool: look {} failed: no\nroute"]


async def test_types_to_ignore_are_not_compared() -> None:
    conversation = await stored('think old; own rag.step {"n": "old"}; own rag.stop {"n": "old"}; send x')
    [turn] = await replayed(Replacing("old", "new"), conversation, ignore=["model.reasoning", "rag.*"])
    assert (turn.changed, turn.old_lines) == (False, ["message: x"])
    [turn] = await replayed(Replacing("old", "new"), conversation, ignore=["model.reasoning", "rag.step"])
    assert turn.changed


async def test_a_text_of_several_lines_cannot_look_like_another_event() -> None:
    conversation = await stored('send one\ntool: look {} returned "look"\n\ntwo')
    [turn] = await replayed(Scripted(), conversation)
    assert turn.old_lines == ["message: one", '  tool: look {} returned "look"', "  ", "  two"]


async def test_events_with_unusual_data_are_compared_as_they_are() -> None:
    odd = [
        ("comm.assistant_message", {"content": 7}),
        ("comm.assistant_message", ["x"]),
        ("tool.call", {"result": 1}),
        ("tool.call", None),
        ("answer.source", {}),
        ("model.usage", {"input_tokens": "many", "output_tokens": None, "cost": "high"}),
        ("rag.\u202estep", "\ud7ff\x1b"),
    ]

    async def answer(ctx: ThreadContext) -> None:
        for event_type, data in odd:
            ctx.outgoing_events.append(Event(event_type=event_type, event_data=data))

    [turn] = await replayed(answer, await said_by(answer, "go"))
    assert not turn.changed
    assert turn.new_lines == [
        'event: comm.assistant_message {"content": 7}',
        'event: comm.assistant_message ["x"]',
        'event: tool.call {"result": 1}',
        "event: tool.call null",
        "event: answer.source {}",
        'event: rag.\u202estep "\ud7ff\\u001b"',
    ]
    assert turn.new.usage == Usage()
    assert turn.new.messages == []


# Figures


async def test_usage_is_the_sum_of_the_calls_of_models_and_costs_that_are_known() -> None:
    async def answer(ctx: ThreadContext) -> None:
        ctx.usage(model="a", input_tokens=10, output_tokens=1, cost=0.25)
        ctx.usage(model="b", input_tokens=20, output_tokens=2)
        ctx.usage(model="b", input_tokens=30, output_tokens=3, cost=0.5)

    [turn] = await replayed(answer, await stored("use 7; use 8; send a"))
    assert turn.old.usage == Usage(15, 2, None)
    assert turn.new.usage == Usage(60, 6, 0.75)
    assert turn.new.usage.tokens == 66


async def test_the_stored_time_goes_from_the_message_to_the_last_event_of_its_turn() -> None:
    conversation = await stored("send a; send b", "send c")
    first, second = conversation.turns()
    [old, _] = [turn.old for turn in await replayed(Scripted(), conversation)]
    took = conversation.events[second.first - 1].created_at - conversation.events[first.message].created_at
    assert old.seconds == took.total_seconds() > 0


async def test_a_turn_without_an_answer_has_no_stored_time_and_a_replay_has_a_time() -> None:
    conversation = await stored("send a", "raise no", "send b")
    turns = await replayed(Scripted(), conversation)
    assert [turn.old.seconds is None for turn in turns] == [False, True, False]
    assert all(turn.new.seconds is not None and turn.new.seconds >= 0 for turn in turns)
    assert turns[1].old == Answer(())


# Pipelines that fail


async def test_a_pipeline_that_raises_is_a_change_with_its_error_and_the_replay_goes_on() -> None:
    async def answer(ctx: ThreadContext) -> None:
        ctx.usage(model="m", input_tokens=3, output_tokens=4)
        ctx.send_message("half")
        if ctx.get_last_user_message() == "send a":
            raise LookupError("no\nsuch")

    turns = await replayed(answer, await stored("send a", "send half"))
    assert [turn.changed for turn in turns] == [True, False]
    assert turns[0].new.error == "LookupError: no\nsuch"
    assert turns[0].new_lines == [r"error: LookupError: no\nsuch"]
    assert turns[0].new.usage == Usage(3, 4)
    assert turns[1].new.error is None


class Nasty(Exception):
    def __str__(self) -> str:
        raise RuntimeError


class NastyEvent:
    @property
    def event_type(self) -> str:
        raise KeyError("event_type")


def leave(ctx: ThreadContext) -> None:
    raise SystemExit(3)


async def leave_async(ctx: ThreadContext) -> None:
    raise KeyboardInterrupt


async def unstorable(ctx: ThreadContext) -> None:
    ctx.send_event("rag.step", {"what": object()})


async def nasty(ctx: ThreadContext) -> None:
    raise Nasty


async def nasty_event(ctx: ThreadContext) -> None:
    ctx.outgoing_events.append(NastyEvent())


async def cancel_itself(ctx: ThreadContext) -> None:
    raise asyncio.CancelledError


@pytest.mark.parametrize(
    ("pipeline", "error"),
    [
        (leave, "RuntimeError: the pipeline raised SystemExit"),
        (leave_async, "RuntimeError: the pipeline raised KeyboardInterrupt"),
        (unstorable, "UnstorableEvent: event 'rag.step' cannot be stored: Type is not JSON serializable: object"),
        (nasty, "Nasty: Nasty"),
        (nasty_event, "KeyError: 'event_type'"),
        (cancel_itself, "RuntimeError: the pipeline cancelled itself"),
    ],
)
async def test_every_way_to_fail_is_an_error_of_the_turn(pipeline: Callable[..., Any], error: str) -> None:
    [turn] = await replayed(pipeline, await stored("send a"))
    assert (turn.new.error, turn.new.events, turn.changed) == (error, (), True)


@pytest.mark.parametrize("pipeline", ["use 3; send half; hold ever", "use 3; send half; stubborn"])
async def test_a_pipeline_that_exceeds_the_time_limit_is_stopped_and_keeps_its_usage(pipeline: str) -> None:
    bot = Scripted()
    contexts: list[ThreadContext] = []

    async def answer(ctx: ThreadContext) -> None:
        contexts.append(ctx)
        for step in pipeline.split("; "):
            await bot.do(ctx, *step.partition(" ")[::2])

    conversation = await stored("send a")
    replayer = Replayer(answer, limits=RunLimits(run_timeout=0.5))
    turn = await replayer.replay(conversation, conversation.turns()[0])
    assert turn.new.error == "The pipeline did not answer within 0.5 seconds"
    assert (turn.new.usage.input_tokens, turn.new.messages) == (3, [])
    assert replayer.abandoned == (1 if "stubborn" in pipeline else 0)
    bot.opened["stubborn"].set()
    while replayer.abandoned:
        await asyncio.sleep(0)
    with pytest.raises(RunClosed):
        contexts[0].send_message("late")


async def test_a_plain_function_runs_in_a_thread_and_may_block() -> None:
    def answer(ctx: ThreadContext) -> Any:
        yield "Hel"
        yield "lo"

    [turn] = await replayed(answer, await stored("send Hello"))
    assert not turn.changed


async def test_a_replay_that_is_cancelled_stops_its_pipeline() -> None:
    bot = Scripted()
    conversation = await stored("send a")
    task = asyncio.ensure_future(replayed(Holding(bot), conversation))
    await bot.reached["here"].wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bot.texts == ["cancelled"]


class Holding:
    """A pipeline that waits until it is cancelled, and notes that it was."""

    def __init__(self, bot: Scripted) -> None:
        self._bot = bot

    async def __call__(self, ctx: ThreadContext) -> None:
        try:
            await self._bot.do(ctx, "hold", "here")
        except asyncio.CancelledError:
            self._bot.texts.append("cancelled")
            raise


async def test_the_texts_of_errors_are_made_by_the_disclosure_of_the_app() -> None:
    async def answer(ctx: ThreadContext) -> None:
        try:
            with ctx.tool("look"):
                raise LookupError("sesame")
        except LookupError:
            raise RuntimeError("sesame") from None

    async def caught(ctx: ThreadContext) -> None:
        try:
            with ctx.tool("look"):
                raise LookupError("sesame")
        except LookupError:
            pass

    disclosure = Disclosure(hide=True, redact=lambda text: text.replace("sesame", "***"))
    conversation = await stored("send a")
    [turn] = await replayed(answer, conversation, disclosure=disclosure)
    assert turn.new.error == "RuntimeError: ***"
    [turn] = await replayed(caught, conversation, disclosure=disclosure)
    assert turn.new_lines == [f"tool: look {{}} failed: {HIDDEN_TOOL_ERROR}"]


# Nothing is stored or sent


@pytest.mark.parametrize("kind", STORES)
async def test_a_replay_stores_nothing_and_sends_nothing(kind: str, tmp_path: Path) -> None:
    delivered: list[Any] = []
    commits: list[Any] = []

    class Sink:
        name = "sink"

        async def deliver(self, events: Any) -> None:
            delivered.extend(events)

    sink = SinkQueue(Sink(), "sink")
    async with serving(Scripted(), make_store(kind, tmp_path), sinks=[sink]) as service:
        conversation = await said(service, EVERYTHING, "raise no", "send a")
        before = await everything(service, conversation)
        service.store.on_commit = commits.append
        await service.drain(5)
        delivered_before = len(delivered)
        turns = await replayed(Replacing("a", "b"), conversation)
        assert any(turn.changed for turn in turns)
        assert (len(delivered), commits) == (delivered_before, [])
        assert await everything(service, conversation) == before
    assert delivered_before


async def everything(service: RunService, conversation: Conversation) -> tuple[Any, ...]:
    """What the store has of a contact."""
    threads = await service.store.threads("ann", 1000, None)
    events = await service.store.events(conversation.thread_id, None, 1000, None)
    return threads, events


async def test_a_context_of_a_replay_that_has_ended_sends_nothing_more() -> None:
    contexts: list[ThreadContext] = []

    async def keep(ctx: ThreadContext) -> None:
        contexts.append(ctx)

    [turn] = await replayed(keep, await stored("send a"))
    with pytest.raises(RunClosed):
        contexts[0].send_message("late")
    assert turn.new.events == ()


def test_the_lines_of_an_answer_do_not_depend_on_the_order_of_fields() -> None:
    def answer(data: dict[str, Any]) -> Answer:
        return Answer((NewEvent(uuid7(), "rag.step", orjson.dumps(data)),))

    assert answer({"a": 1, "b": 2}).lines() == answer({"b": 2, "a": 1}).lines()


# Questions


class Asking:
    """A pipeline that asks before it pays. It counts its payments."""

    def __init__(self, thanks: str = "Thanks") -> None:
        self.payments = 0
        self.thanks = thanks

    def pay(self) -> str:
        self.payments += 1
        return "R-1"

    async def __call__(self, ctx: ThreadContext) -> None:
        if not ctx.answered:
            ctx.send_message("One moment")
        if await ctx.ask("pay", "Pay?", options=["yes", "no"]) == "yes":
            ctx.send_message(f"{self.thanks}: {await ctx.once('pay', self.pay)}")


async def asked(pipeline: Asking, *answers: str) -> Conversation:
    """The conversation of a pipeline that asks, after these answers to its questions."""
    async with MemoryStore() as store, RunService(JimsApp(pipeline), store, [DefaultResolver()]) as service:
        result = await service.chat(inbound("pay it"), PUBLIC)
        for answer in answers:
            [question] = result.questions()
            fields: dict[str, Any] = {"answers": {str(question.question_id): answer}}
            result = await service.chat(inbound("", **fields), PUBLIC)
        return await Conversation.read(store, result.thread_id)


async def test_a_question_has_its_stored_answer_and_what_happened_once_does_not_happen_again() -> None:
    conversation = await asked(Asking(), "yes")
    again = Asking()
    [turn] = await replayed(again, conversation)
    assert (turn.changed, again.payments) == (False, 0)
    assert turn.new.messages == ["One moment", "Thanks: R-1"]
    [other] = await replayed(Asking("Danke"), conversation)
    assert other.changed


async def test_an_open_question_is_compared() -> None:
    conversation = await asked(Asking())
    [turn] = await replayed(Asking(), conversation)
    assert not turn.changed
    assert 'question: Pay? ["yes", "no"]' in turn.old_lines

    async def asks_nothing(ctx: ThreadContext) -> None:
        ctx.send_message("One moment")

    [other] = await replayed(asks_nothing, conversation)
    assert other.changed
