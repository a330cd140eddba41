"""Replay: a pipeline answers stored messages again, and its answers are compared with the stored ones.

A replay writes nothing: its events go to no store, no sink and no webhook. But the pipeline itself is real, and so are
its tools and its models.
"""

import asyncio
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any
from uuid import UUID

import msgspec

from jimsapi.runs.calls import invoke
from jimsapi.runs.conversation import Conversation, Turn
from jimsapi.runs.disclosure import Disclosure
from jimsapi.runs.ending import only_asks, usage_of
from jimsapi.runs.errors import RunTimedOut, exception_text
from jimsapi.runs.limits import RunLimits
from jimsapi.runs.live import ABANDON_AFTER
from jimsapi.runs.pipeline import Pipeline, pipeline_name
from jimsapi.runs.tasks import PipelineTask
from jimsapi.threads.activity import ANSWER_SOURCE, MODEL_USAGE, TOOL_CALL
from jimsapi.threads.context import ContextOfRun, ThreadContext
from jimsapi.threads.event import (
    ASSISTANT_MESSAGE,
    ASSISTANT_MESSAGE_WITH_BUTTONS,
    EventRow,
    NewEvent,
    encode_events,
)
from jimsapi.threads.ids import uuid7
from jimsapi.threads.message_files import FilesInMemory, decode_files
from jimsapi.threads.questions import (
    MESSAGE_ANSWERS,
    ONCE_RESULT,
    QUESTION_ANSWERED,
    QUESTION_ASKED,
    QUESTION_CLOSED,
)
from jimsapi.threads.storable import load_stored
from jimsapi.threads.window import snapshot_of

logger = logging.getLogger("jimsapi.replay")

_MESSAGES = (ASSISTANT_MESSAGE, ASSISTANT_MESSAGE_WITH_BUTTONS)
_OF_ANSWERS = (QUESTION_ANSWERED, QUESTION_CLOSED, MESSAGE_ANSWERS, ONCE_RESULT)
"""Events that a replay reads and does not send: what a person has answered, and what happened once."""


class Usage(msgspec.Struct, frozen=True):
    """What a turn used of models. `cost` is in US dollars; None if it is not known."""

    input_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = None

    @property
    def tokens(self) -> int:
        """The number of tokens that the models read and wrote."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: "Usage") -> "Usage":
        costs = [cost for cost in (self.cost, other.cost) if cost is not None]
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            sum(costs) if costs else None,
        )


class Answer(msgspec.Struct, frozen=True):
    """The answer to a message: its events, the text of the error if the pipeline failed, and its time in seconds.

    A stored answer has no error: if the pipeline failed, the thread has no events of it, or only its usage. `seconds`
    is None if the thread has no events of it.
    """

    events: tuple[NewEvent, ...]
    error: str | None = None
    seconds: float | None = None

    @property
    def messages(self) -> list[str]:
        """The texts of the assistant's messages."""
        found = [_fields(event).get("content") for event in self.events if event.event_type in _MESSAGES]
        return [text for text in found if isinstance(text, str)]

    @property
    def usage(self) -> Usage:
        """The sum of what the answer used of models."""
        total = Usage()
        for event in self.events:
            if event.event_type == MODEL_USAGE:
                total += _usage(_fields(event))
        return total

    def lines(self, ignore: Sequence[str] = ()) -> list[str]:
        """Return everything that a comparison compares, as lines of text.

        The lines have messages, tool calls, sources, other events and the error. They do not have usage, times and
        identifiers, which differ each time, and events of the types `ignore`, where `*` stands for any text.
        """
        lines: list[str] = []
        for event in _as_begun(self.events):
            if event.event_type != MODEL_USAGE and not any(fnmatchcase(event.event_type, one) for one in ignore):
                lines += _describe_event(event)
        return lines if self.error is None else [*lines, f"error: {_one_line(self.error)}"]


class ReplayedTurn(msgspec.Struct, frozen=True):
    """A turn of a conversation, with the stored answer and the answer of the replay.

    `conversation` is the name of the conversation, `number` counts its turns from 1, and `message` is the user's text.
    Events of the types `ignore` are not compared.
    """

    conversation: str
    number: int
    message: str
    old: Answer
    new: Answer
    ignore: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether the answers differ in anything except usage, times and identifiers."""
        return self.old_lines != self.new_lines

    @property
    def old_lines(self) -> list[str]:
        """The compared lines of the stored answer."""
        return self.old.lines(self.ignore)

    @property
    def new_lines(self) -> list[str]:
        """The compared lines of the new answer."""
        return self.new.lines(self.ignore)


class Replayer:
    """Lets a pipeline answer the turns of conversations again.

    Of `limits` it uses those of the context and the time of a run. `resources` is what the app's `lifespan` yielded.
    `disclosure` makes the texts of errors. Events of the types `ignore` are not compared.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        limits: RunLimits | None = None,
        resources: Any = None,
        disclosure: Disclosure | None = None,
        ignore: Iterable[str] = (),
    ) -> None:
        self._pipeline = pipeline
        self._limits = limits or RunLimits()
        self._resources = resources
        self._disclosure = disclosure or Disclosure()
        self._ignore = tuple(ignore)
        self._abandoned: set[PipelineTask] = set()

    @property
    def abandoned(self) -> int:
        """The number of pipelines that ignored their cancellation and still run."""
        return sum(not task.done() for task in self._abandoned)

    async def replay(self, conversation: Conversation, turn: Turn) -> ReplayedTurn:
        """Answer a turn again. If the pipeline raises or exceeds its time limit, the new answer has the error."""
        message = conversation.events[turn.message].fields().get("content")
        return ReplayedTurn(
            conversation.name,
            turn.number,
            message if isinstance(message, str) else _json(message),
            _stored_answer(conversation, turn),
            await self._answer(conversation, turn),
            self._ignore,
        )

    async def _answer(self, conversation: Conversation, turn: Turn) -> Answer:
        run_id = uuid7()
        context = self._context(conversation, turn, run_id)
        loop = asyncio.get_running_loop()
        began = loop.time()
        task = PipelineTask.begin(
            invoke(self._pipeline, context, loop),
            loop=loop,
            pipeline=pipeline_name(self._pipeline),
            run_id=run_id,
            thread_id=conversation.thread_id,
        )
        try:
            await asyncio.wait({task}, timeout=self._limits.run_timeout)
            in_time = task.done()
        finally:  # also if the replay is cancelled
            if not task.done():
                await self._stop(task, context)
        seconds = loop.time() - began
        if in_time:
            return self._ended(task, context, seconds)
        return Answer(usage_of(context), str(RunTimedOut(self._limits.run_timeout)), seconds)

    def _context(self, conversation: Conversation, turn: Turn, run_id: UUID) -> ThreadContext:
        snapshot = snapshot_of(conversation.history(turn), self._limits.context)
        of_run = ContextOfRun(
            thread_config=load_stored(conversation.thread_config),
            truncated=snapshot.truncated,
            load_events=lambda _, before, limit: conversation.load_events(turn, before, limit),
            resources=self._resources,
            run_id=run_id,
            contact_id=conversation.contact_id,
            error_text=self._disclosure.tool_error,
            beside=conversation.beside(turn),
            turn_store=lambda _: _StoredTurn(conversation),
            file_keeper=FilesInMemory((), conversation.contact_id or ""),
        )
        return ThreadContext(conversation.thread_id, snapshot.rows, of_run)

    async def _stop(self, task: PipelineTask, context: ThreadContext) -> None:
        """Cancel a pipeline, and abandon it if it does not end."""
        context.close()
        task.end()
        await asyncio.wait({task}, timeout=ABANDON_AFTER)
        if not task.done():
            self._abandoned.add(task)
        elif not task.cancelled():
            task.exception()  # otherwise asyncio logs it as never retrieved

    def _ended(self, task: PipelineTask, context: ThreadContext, seconds: float) -> Answer:
        """Return the answer of a pipeline that has ended by itself."""
        fault = RuntimeError("the pipeline cancelled itself") if task.cancelled() else task.exception()
        try:
            if fault is None or only_asks(fault):
                return Answer(tuple(encode_events(context.complete())), None, seconds)
        except BaseException as error:  # events may be objects of the app's own classes, whose attributes can raise
            fault = error
        finally:
            context.close()
        logger.debug("%s failed", task, exc_info=fault)
        text = self._disclosure.redact(f"{type(fault).__name__}: {exception_text(fault)}")
        return Answer(usage_of(context), text, seconds)


class _StoredTurn:
    """The `TurnStore` of a replay: it finds the events of the conversation, and keeps new ones in memory.

    So a question that a person has answered has its answer, and what stands under `ctx.once` does not happen again.
    """

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation

    @cached_property
    def _rows(self) -> dict[UUID, EventRow]:  # most pipelines ask nothing
        return {event.event_id: event.row() for event in self._conversation.events}

    async def find(self, event_ids: Sequence[UUID]) -> list[EventRow]:
        """Return those of these events that the conversation has."""
        return [self._rows[event_id] for event_id in event_ids if event_id in self._rows]

    async def append(self, events: Sequence[NewEvent]) -> list[EventRow]:
        """Keep events until the replay of the turn ends."""
        rows = [EventRow(event.event_id, datetime.now(), event.event_type, event.data) for event in events]
        self._rows.update(zip([event.event_id for event in events], rows, strict=True))
        return rows


def _stored_answer(conversation: Conversation, turn: Turn) -> Answer:
    stored = conversation.answer(turn)
    answered = {event.fields().get("question_id") for event in stored if event.event_type == QUESTION_ANSWERED}
    events = [
        event
        for event in stored
        if event.event_type not in _OF_ANSWERS
        and not (event.event_type == QUESTION_ASKED and event.fields().get("question_id") in answered)
    ]
    if not events:
        return Answer(())
    # The message enters the thread when its run starts, and the events when it ends.
    took = events[-1].created_at - conversation.events[turn.message].created_at
    return Answer(tuple(event.sent() for event in events), None, took.total_seconds())


def _as_begun(events: Iterable[NewEvent]) -> Iterator[NewEvent]:
    """Yield events in their order, but tool calls in the order in which they began.

    Calls that overlap are stored in the order in which they end, which may differ each time. The identifier of a call
    is made when it begins.
    """
    events = list(events)
    calls = iter(sorted((one for one in events if one.event_type == TOOL_CALL), key=lambda call: call.event_id.int))
    for event in events:
        yield next(calls) if event.event_type == TOOL_CALL else event


def _describe_event(event: NewEvent) -> list[str]:
    """Describe an event as lines. The lines of a text after its first one are indented."""
    fields = _fields(event)
    if event.event_type in _MESSAGES and isinstance(fields.get("content"), str):
        return _message_lines(fields)
    if event.event_type == TOOL_CALL and "name" in fields:
        return [_tool_line(fields)]
    if event.event_type == QUESTION_ASKED and "text" in fields:
        return [_one_line(f"question: {fields['text']} {_json(fields.get('options') or fields.get('schema'))}")]
    if (sent := decode_files(event)) is not None:
        return [_one_line(f"file: {file.name} {file.type} {file.size} bytes") for file in sent.files]
    if event.event_type == ANSWER_SOURCE and fields:
        return [_one_line("source: " + " ".join(str(one) for one in (fields.get("title"), fields.get("url")) if one))]
    return [_one_line(f"event: {event.event_type} {_json(load_stored(event.data))}")]


def _message_lines(fields: dict[str, Any]) -> list[str]:
    first, *others = fields["content"].split("\n")
    lines = [f"message: {first}", *(f"  {line}" for line in others)]
    rest = {name: value for name, value in fields.items() if name not in ("role", "content")}
    return [*lines, f"  with {_json(rest)}"] if rest else lines


def _tool_line(fields: dict[str, Any]) -> str:
    ended = f"failed: {fields['error']}" if "error" in fields else f"returned {_json(fields.get('result'))}"
    return _one_line(f"tool: {fields['name']} {_json(fields.get('arguments'))} {ended}")


def _usage(fields: dict[str, Any]) -> Usage:
    cost = fields.get("cost")
    return Usage(
        _count(fields.get("input_tokens")),
        _count(fields.get("output_tokens")),
        cost if isinstance(cost, int | float) else None,
    )


def _count(value: Any) -> int:
    """Return a number of tokens. Events of a pipeline's own may have anything in its place."""
    return value if isinstance(value, int) else 0


def _fields(event: NewEvent) -> dict[str, Any]:
    data = load_stored(event.data)
    return data if isinstance(data, dict) else {}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)  # orjson refuses what jims-core may have stored


def _one_line(text: str) -> str:
    return text.replace("\n", "\\n")
