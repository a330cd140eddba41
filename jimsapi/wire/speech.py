"""A run's stream as items that every protocol has: messages in pieces, with begin and end, then the other events."""

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast
from uuid import UUID

import msgspec
import orjson

from jimsapi.asgi.connection import Connection
from jimsapi.runs.admission import Admission
from jimsapi.runs.live import LiveRun
from jimsapi.runs.lookup import Runs
from jimsapi.runs.result import RunResult
from jimsapi.runs.service import RunService
from jimsapi.runs.stream import Activity, Delta, Ended, Gap, Item, ReasoningDelta, Status
from jimsapi.threads.activity import ANSWER_SOURCE, MODEL_REASONING, MODEL_USAGE, TOOL_CALL, source_data
from jimsapi.threads.errors import DomainError
from jimsapi.threads.event import ASSISTANT_MESSAGE, ASSISTANT_MESSAGE_WITH_BUTTONS, NewEvent
from jimsapi.threads.message_files import FileFacts, FilesOfMessage, decode_files
from jimsapi.threads.questions import QUESTION_ASKED, Question, load_question
from jimsapi.threads.run import StoredRun


class MessageStarted(msgspec.Struct, frozen=True):
    """A message of the assistant begins. `message_id` is the identifier of its event."""

    message_id: UUID


class MessagePiece(msgspec.Struct, frozen=True):
    """The next piece of the message that was started last."""

    message_id: UUID
    text: str


class MessageEnded(msgspec.Struct, frozen=True):
    """The message that was started last is complete."""

    message_id: UUID


class Failed(msgspec.Struct, frozen=True):
    """The run ended without an answer. This is the last item."""

    error: BaseException


class Finished(msgspec.Struct, frozen=True):
    """The run ended with an answer. This is the last item."""

    result: RunResult


class ReasoningStarted(msgspec.Struct, frozen=True):
    """Reasoning begins. `event_id` is the identifier of its event."""

    event_id: UUID


class ReasoningPiece(msgspec.Struct, frozen=True):
    """The next piece of the reasoning that was started last."""

    event_id: UUID
    text: str


class ReasoningEnded(msgspec.Struct, frozen=True):
    """The reasoning that was started last is complete."""

    event_id: UUID


class ToolStarted(msgspec.Struct, frozen=True):
    """The pipeline calls a tool. `event_id` is the identifier of the call's event.

    Models may use their own identifiers again, so clients get this one.
    """

    event_id: UUID
    name: str
    arguments: dict[str, Any]


class ToolEnded(msgspec.Struct, frozen=True):
    """A tool call has ended. `error` is None if it has a result."""

    event_id: UUID
    result: Any
    error: str | None


class SourceNamed(msgspec.Struct, frozen=True):
    """The answer has a source: `url`, `title`, or both."""

    event_id: UUID
    url: str | None
    title: str | None


class FilesSent(msgspec.Struct, frozen=True):
    """A message of the assistant has files. `message_id` is the identifier of the message's event.

    It may come before the end of the message, and after it. The files belong to the contact of the run, who reads them
    at `file_url`.
    """

    message_id: UUID
    files: list[FileFacts]


class ModelUsed(msgspec.Struct, frozen=True):
    """A model call used these tokens. `cost` is in US dollars, None if it is not known."""

    model: str
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    cost: float | None


class PiecesMissed(msgspec.Struct, frozen=True):
    """Pieces of the run that others got are no longer available. Messages that follow are whole."""


class PersonAsked(msgspec.Struct, frozen=True):
    """The pipeline asks a person. This comes after all messages."""

    event_id: UUID
    question: Question

    @property
    def text(self) -> str:
        """The question with its options, for protocols that have no questions."""
        return with_choices(self.question.text, self.question.options or ())


AgentItem = ReasoningStarted | ReasoningPiece | ReasoningEnded | ToolStarted | ToolEnded | SourceNamed | ModelUsed
"""What an agent does."""
SpokenItem = (
    MessageStarted
    | MessagePiece
    | MessageEnded
    | FilesSent
    | AgentItem
    | PersonAsked
    | Status
    | NewEvent
    | Finished
    | Failed
)
"""An item. A `NewEvent` is an event that no other item stands for, or a message that has more than text."""


async def spoken_items(request: Connection, service: RunService, run: LiveRun) -> AsyncIterator[SpokenItem]:
    """Yield the items of a run for the caller of `request`.

    A message is complete before the next message begins, and so is reasoning. Tool calls may overlap. Each one that
    starts also ends. Other events come after all messages.
    """
    try:
        items = await Runs(service).of(cast(Admission, request.admission), run)
    except DomainError as error:  # the idempotency key belongs to an earlier run, which the store cannot read now
        yield Failed(error)
        return
    speech = _Speech()
    async for _, item in items:
        for spoken in speech.next(item):
            yield spoken


async def spoken_run(
    request: Connection, service: RunService, run_id: UUID
) -> AsyncIterator[SpokenItem | PiecesMissed]:
    """Yield the items of a run that the caller of `request` names, as `spoken_items` does, from the beginning.

    Raises `RunNotFound` if the caller may not see the run, before the first item.
    """
    stored = await Runs(service).run(cast(Admission, request.admission), run_id)
    async for spoken in spoken_stored_run(service, stored):
        yield spoken


async def spoken_stored_run(service: RunService, run: StoredRun) -> AsyncIterator[SpokenItem | PiecesMissed]:
    """Yield the items of a run as `spoken_run` does. The caller of this function has checked who may see the run."""
    speech = _Speech()
    async for _, item in Runs(service).follow(run):
        if isinstance(item, Gap):
            yield PiecesMissed()
        for spoken in speech.next(item):
            yield spoken


class _Speech:
    """Converts the items of a stream. It remembers what clients have, so that a stored event adds only the rest."""

    def __init__(self) -> None:
        self._missed = False  # live items are missing, so only stored events are complete
        self._open_message: UUID | None = None
        self._open_reasoning: UUID | None = None
        self._sent_pieces: dict[UUID, list[str]] = {}
        self._open_calls: dict[UUID, None] = {}  # of tools, in order
        self._shown: set[UUID] = set()  # the events of the agent, and of files, that clients have whole
        self._files: dict[UUID, list[FileFacts]] = {}  # of messages that are not here yet
        self._ended_messages: set[UUID] = set()  # those whose stored events are here

    def next(self, item: Item) -> Iterator[SpokenItem]:
        """Yield what the next item of the stream says."""
        match item:
            case Gap():
                self._missed = True
            case Delta() | ReasoningDelta() if self._missed:
                pass  # pieces are missing before it; the stored event has the whole text
            case Delta(message_id, content):
                yield from self._interrupt_reasoning()
                yield from self._open(message_id)
                self._sent_pieces.setdefault(message_id, []).append(content)
                yield MessagePiece(message_id, content)
            case ReasoningDelta(event_id, content):
                yield from self._reason(event_id, content)
            case Activity(event):
                if (sent := decode_files(event)) is not None:
                    yield from self._live_files(event.event_id, sent)
                elif (data := _agent_data(event)) is not None:
                    yield from self._agent_event(event.event_id, data)
            case NewEvent(_, event_type, _) if event_type in _MESSAGES:
                yield from self._message(item)
            case NewEvent():
                yield from self._other_event(item)
            case Status():
                yield item
            case Ended(answer):
                yield from self._end_reasoning()
                yield from self._end_message()
                for event_id in self._open_calls:
                    yield ToolEnded(event_id, None, UNFINISHED)
                yield Finished(answer) if isinstance(answer, RunResult) else Failed(answer)

    def _open(self, message_id: UUID) -> Iterator[SpokenItem]:
        if message_id != self._open_message:
            yield from self._end_message()
            yield MessageStarted(message_id)
            self._open_message = message_id

    def _end_message(self) -> Iterator[SpokenItem]:
        if self._open_message is not None:
            yield MessageEnded(self._open_message)
            self._open_message = None

    def _message(self, event: NewEvent) -> Iterator[SpokenItem]:
        event_id, text = event.event_id, message_text(event)
        sent_text = "".join(self._sent_pieces.get(event_id, ()))
        yield from self._interrupt_reasoning()
        if event_id not in self._sent_pieces:
            yield from self._open(event_id)
        if self._open_message == event_id:
            if text.startswith(sent_text) and len(text) > len(sent_text):
                yield MessagePiece(event_id, text[len(sent_text) :])
            yield from self._end_message()
        if event.event_type != ASSISTANT_MESSAGE:
            yield event
        self._ended_messages.add(event_id)
        if files := self._files.pop(event_id, None):
            yield FilesSent(event_id, files)

    def _live_files(self, event_id: UUID, sent: FilesOfMessage) -> Iterator[SpokenItem]:
        """Yield the files of a message whose event is not stored yet. That event ends it, and may have buttons."""
        yield from self._interrupt_reasoning()
        self._shown.add(event_id)
        yield FilesSent(sent.message_id, sent.files)

    def _stored_files(self, sent: FilesOfMessage) -> Iterator[SpokenItem]:
        """Yield the files of a message that is here already. Those of a later message wait for it."""
        if sent.message_id in self._ended_messages:
            yield FilesSent(sent.message_id, sent.files)
        else:
            self._files[sent.message_id] = sent.files

    def _reason(self, event_id: UUID, text: str) -> Iterator[SpokenItem]:
        if event_id != self._open_reasoning:
            yield from self._end_reasoning()
            yield ReasoningStarted(event_id)
            self._open_reasoning = event_id
        self._sent_pieces.setdefault(event_id, []).append(text)
        yield ReasoningPiece(event_id, text)

    def _end_reasoning(self) -> Iterator[SpokenItem]:
        if self._open_reasoning is not None:
            yield ReasoningEnded(self._open_reasoning)
            self._open_reasoning = None

    def _interrupt_reasoning(self) -> Iterator[SpokenItem]:
        if not self._missed:  # if pieces were missed, the event of the reasoning has the rest
            yield from self._end_reasoning()

    def _other_event(self, event: NewEvent) -> Iterator[SpokenItem]:
        """Yield a stored event, or what is missing of what the agent did."""
        if event.event_id in self._shown:
            return
        if (sent := decode_files(event)) is not None:
            yield from self._stored_files(sent)
            return
        if event.event_type == QUESTION_ASKED and (question := load_question(event)) is not None:
            yield from self._interrupt_reasoning()
            yield from self._end_message()
            yield PersonAsked(event.event_id, question)
            return
        data = _agent_data(event)
        if data is None or (isinstance(data, _ToolCallData) and data.duration is None):  # the context stores a duration
            yield from self._interrupt_reasoning()
            if not self._missed:  # if pieces were missed, the message's own event has the rest
                yield from self._end_message()
            yield event
        else:
            yield from self._agent_event(event.event_id, data)

    def _agent_event(self, event_id: UUID, data: "_AgentData") -> Iterator[SpokenItem]:
        if isinstance(data, _ReasoningData):
            yield from self._reasoning(event_id, data.content)
            return
        yield from self._interrupt_reasoning()
        if isinstance(data, _ToolCallData):
            yield from self._call(event_id, data)
            return
        self._shown.add(event_id)
        yield SourceNamed(event_id, data.url, data.title) if isinstance(data, _SourceData) else data

    def _call(self, event_id: UUID, call: "_ToolCallData") -> Iterator[SpokenItem]:
        if event_id not in self._open_calls:
            self._open_calls[event_id] = None
            yield ToolStarted(event_id, call.name, call.arguments)
        if call.duration is not None:
            del self._open_calls[event_id]
            self._shown.add(event_id)
            yield ToolEnded(event_id, call.result, call.error)

    def _reasoning(self, event_id: UUID, text: str) -> Iterator[SpokenItem]:
        """Yield the whole text of stored reasoning, or what is missing of it."""
        self._shown.add(event_id)
        if event_id not in self._sent_pieces:
            yield from self._reason(event_id, text)
        elif event_id == self._open_reasoning:
            sent_text = "".join(self._sent_pieces[event_id])
            if len(text) > len(sent_text):
                yield from self._reason(event_id, text[len(sent_text) :])
        yield from self._end_reasoning()


UNFINISHED = "the call did not end"
"""The `error` of a tool call that the run has left open."""


class _ToolCallData(msgspec.Struct):
    """The data of `tool.call`."""

    id: str
    name: str
    arguments: dict[str, Any]
    result: Any = None
    error: str | None = None
    duration: float | None = None


class _ReasoningData(msgspec.Struct):
    """The data of `model.reasoning`."""

    content: str


class _SourceData(msgspec.Struct):
    """The data of `answer.source`."""

    url: str | None
    title: str | None


_AgentData = _ToolCallData | _ReasoningData | _SourceData | ModelUsed
_AGENT_EVENTS: dict[str, type[_AgentData]] = {
    TOOL_CALL: _ToolCallData,
    MODEL_REASONING: _ReasoningData,
    ANSWER_SOURCE: _SourceData,
    MODEL_USAGE: ModelUsed,
}


def _agent_data(event: NewEvent) -> _AgentData | None:
    """Return the data of an event of the agent; None for other events, also for others of these types."""
    data_type = _AGENT_EVENTS.get(event.event_type)
    if data_type is None:
        return None
    try:
        data = msgspec.json.decode(event.data, type=data_type)
        if isinstance(data, _SourceData):
            source_data(data.url, data.title)
    except ValueError:  # a pipeline sent it with `send_event`, with other data
        return None
    return data


_BUTTON_TEXTS = ("text", "label", "title", "name")
"""Where the text of a button is. jims-core leaves this to the pipeline."""
_MESSAGES = (ASSISTANT_MESSAGE, ASSISTANT_MESSAGE_WITH_BUTTONS)


def messages(result: RunResult) -> list[str]:
    """Return the texts of the assistant's messages in an answer, in order."""
    return [message_text(event) for event in result.events if event.event_type in _MESSAGES]


def message_role(event: NewEvent) -> str | None:
    """Return the role in a message's event: `user` or `assistant`; None if the event has none."""
    data: Any = orjson.loads(event.data)
    return data.get("role") if isinstance(data, Mapping) else None


def message_text(event: NewEvent) -> str:
    """Return the text of a message's event; empty if the pipeline sent an event of this type without a text."""
    data: Any = orjson.loads(event.data)
    content = data.get("content") if isinstance(data, Mapping) else None
    return content if isinstance(content, str) else ""


def stored_items(events: Iterable[NewEvent]) -> list[SpokenItem]:
    """Return what stored events of one run or more say, in order."""
    speech = _Speech()
    return [item for event in events for item in speech.next(event)]


def files_of(result: RunResult) -> list[FilesSent]:
    """Return the files of the messages of an answer, in order, for answers that are not streamed."""
    return [item for item in stored_items(result.events) if isinstance(item, FilesSent)]


def agent_items(result: RunResult) -> list[AgentItem]:
    """Return what an agent did in a run, in order, for answers that are not streamed."""
    speech = _Speech()
    return [item for event in result.events for item in speech.next(event) if isinstance(item, AgentItem)]


BETWEEN_MESSAGES = "\n\n"


def one_text(result: RunResult, *, with_lists: bool = True) -> str:
    """Return all messages and questions of an answer as one text, for protocols whose answers have one message.

    Buttons and the options of questions are lines of the text, unless `with_lists` is false.
    """
    texts: list[str] = []
    for event in result.events:
        if event.event_type in _MESSAGES:
            texts.append(with_choices(message_text(event), button_texts(event) if with_lists else ()))
        elif event.event_type == QUESTION_ASKED and (question := load_question(event)) is not None:
            texts.append(with_choices(question.text, (question.options or ()) if with_lists else ()))
    return BETWEEN_MESSAGES.join(text for text in texts if text)


def choices(result: RunResult) -> list[str]:
    """Return what a person may click after an answer: the buttons of its messages and the options of its questions."""
    found = [text for event in result.events for text in button_texts(event)]
    return found + [option for question in result.questions() for option in question.options or ()]


def with_choices(text: str, choices: Sequence[str]) -> str:
    """Return a text with what a person may answer, each on a line of a list in Markdown."""
    return "\n".join([text, *(f"- {choice}" for choice in choices)]) if choices else text


def button_texts(event: NewEvent) -> list[str]:
    """Return the texts of the buttons of a message; empty if it has none, or if they have no texts."""
    if event.event_type != ASSISTANT_MESSAGE_WITH_BUTTONS:
        return []
    data: Any = orjson.loads(event.data)
    buttons = data.get("buttons") if isinstance(data, Mapping) else None
    found = [_button_text(button) for button in buttons] if isinstance(buttons, list) else []
    return [text for text in found if text]


def _button_text(button: Any) -> str:
    texts = [button.get(name) for name in _BUTTON_TEXTS] if isinstance(button, Mapping) else [button]
    return next((text for text in texts if isinstance(text, str)), "")


async def as_one_text(
    items: AsyncIterator[SpokenItem],
) -> AsyncIterator[str | AgentItem | FilesSent | Finished | Failed]:
    """Yield the text of `one_text` in pieces as they arrive, files, what an agent does, and then the last item."""
    last: UUID | None = None
    async for item in items:
        match item:
            case MessagePiece(message_id, text) if text:
                if last is not None and last != message_id:
                    yield BETWEEN_MESSAGES
                last = message_id
                yield text
            case NewEvent() if texts := button_texts(item):
                yield with_choices("", texts)
            case PersonAsked(event_id):
                yield item.text if last is None else BETWEEN_MESSAGES + item.text
                last = event_id
            case MessageStarted() | MessagePiece() | MessageEnded() | Status() | NewEvent():
                pass
            case _:
                yield item
