"""What a run says, as every protocol can say it: messages in pieces, each begun and ended, then the other events."""

from collections.abc import AsyncIterator, Mapping
from typing import Any, cast
from uuid import UUID

import msgspec
import orjson

from jimsapi.asgi.connection import Connection
from jimsapi.runs.identity import Admission
from jimsapi.runs.live import LiveRun
from jimsapi.runs.lookup import Runs
from jimsapi.runs.result import RunResult
from jimsapi.runs.service import RunService
from jimsapi.runs.stream import Delta, Ended, Gap, Read, Status
from jimsapi.threads.errors import DomainError
from jimsapi.threads.event import ASSISTANT_MESSAGE, ASSISTANT_MESSAGE_WITH_BUTTONS, NewEvent


class MessageStarted(msgspec.Struct, frozen=True):
    """A message of the assistant begins; `message_id` is the identifier of its event."""

    message_id: UUID


class MessagePiece(msgspec.Struct, frozen=True):
    """The next piece of the message that was started last."""

    message_id: UUID
    text: str


class MessageEnded(msgspec.Struct, frozen=True):
    """The message that was started last is complete."""

    message_id: UUID


class Failed(msgspec.Struct, frozen=True):
    """The run has no answer. Nothing follows."""

    error: BaseException


class Finished(msgspec.Struct, frozen=True):
    """The run is over, and this is its answer. Nothing follows."""

    result: RunResult


Said = MessageStarted | MessagePiece | MessageEnded | Status | NewEvent | Finished | Failed
"""A `NewEvent` is an event of the run that is no message of the assistant's, or one that has more than text."""


async def speech(request: Connection, service: RunService, run: LiveRun) -> AsyncIterator[Said]:
    """What a run says to whom it answers. A message is whole before the next begins; other events come at the end."""
    try:
        items = await Runs(service).of(cast(Admission, request.admission), run)
    except DomainError as error:  # of a run that was begun before, with the same key, and cannot be looked at now
        yield Failed(error)
        return
    async for said in _said(items):
        yield said


async def _said(items: AsyncIterator[Read]) -> AsyncIterator[Said]:
    open_id: UUID | None = None
    told: dict[UUID, list[str]] = {}
    missed = False
    async for _, item in items:
        match item:
            case Gap():
                missed = True
            case Delta() if missed:
                pass  # it need not follow on what was told last; the stored message does
            case Delta(message_id, content):
                if message_id != open_id:
                    if open_id is not None:
                        yield MessageEnded(open_id)
                    yield MessageStarted(message_id)
                    open_id = message_id
                told.setdefault(message_id, []).append(content)
                yield MessagePiece(message_id, content)
            case NewEvent(event_id, event_type, _) if event_type in _MESSAGES:
                text = message_text(item)
                before = "".join(told.get(event_id, ()))
                if event_id not in told:
                    if open_id is not None:
                        yield MessageEnded(open_id)
                    yield MessageStarted(event_id)
                    open_id = event_id
                if open_id == event_id and text.startswith(before) and len(text) > len(before):
                    yield MessagePiece(event_id, text[len(before) :])
                if open_id == event_id:
                    yield MessageEnded(event_id)
                    open_id = None
                if event_type != ASSISTANT_MESSAGE:
                    yield item
            case Status():
                yield item
            case NewEvent():
                if open_id is not None and not missed:  # else the message's own event tells the rest of it
                    yield MessageEnded(open_id)
                    open_id = None
                yield item
            case Ended(answer):
                if open_id is not None:
                    yield MessageEnded(open_id)
                yield Finished(answer) if isinstance(answer, RunResult) else Failed(answer)


_MESSAGES = (ASSISTANT_MESSAGE, ASSISTANT_MESSAGE_WITH_BUTTONS)


def messages(result: RunResult) -> list[str]:
    """The texts that an answer says to the person, in order."""
    return [message_text(event) for event in result.events if event.event_type in _MESSAGES]


def message_text(event: NewEvent) -> str:
    """The text of a message's event; of one that a pipeline made by hand there may be none."""
    data: Any = orjson.loads(event.data)
    content = data.get("content") if isinstance(data, Mapping) else None
    return content if isinstance(content, str) else ""


BETWEEN_MESSAGES = "\n\n"


def one_text(result: RunResult) -> str:
    """The whole answer, for protocols that know one message only."""
    return BETWEEN_MESSAGES.join(text for text in messages(result) if text)


async def as_one_text(said: AsyncIterator[Said]) -> AsyncIterator[str | Finished | Failed]:
    """The same piece by piece, as it is said, and then the ending."""
    last: UUID | None = None
    async for item in said:
        match item:
            case MessagePiece(message_id, text) if text:
                if last is not None and last != message_id:
                    yield BETWEEN_MESSAGES
                last = message_id
                yield text
            case Finished() | Failed():
                yield item
