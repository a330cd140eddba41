"""A run's stream as items that every protocol has: messages in pieces, with begin and end, then the other events."""

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


SpokenItem = MessageStarted | MessagePiece | MessageEnded | Status | NewEvent | Finished | Failed
"""An item. A `NewEvent` is an event that is not a message of the assistant, or a message that has more than text."""


async def spoken_items(request: Connection, service: RunService, run: LiveRun) -> AsyncIterator[SpokenItem]:
    """Yield the items of a run for the caller of `request`.

    A message is complete before the next one begins. Other events come after all messages.
    """
    try:
        items = await Runs(service).of(cast(Admission, request.admission), run)
    except DomainError as error:  # the idempotency key belongs to an earlier run, which the store cannot read now
        yield Failed(error)
        return
    async for item in _split_messages(items):
        yield item


async def _split_messages(items: AsyncIterator[Read]) -> AsyncIterator[SpokenItem]:
    open_id: UUID | None = None
    sent_pieces: dict[UUID, list[str]] = {}
    missed = False
    async for _, item in items:
        match item:
            case Gap():
                missed = True
            case Delta() if missed:
                pass  # deltas are missing before it; the stored message has the whole text
            case Delta(message_id, content):
                if message_id != open_id:
                    if open_id is not None:
                        yield MessageEnded(open_id)
                    yield MessageStarted(message_id)
                    open_id = message_id
                sent_pieces.setdefault(message_id, []).append(content)
                yield MessagePiece(message_id, content)
            case NewEvent(event_id, event_type, _) if event_type in _MESSAGES:
                text = message_text(item)
                sent_text = "".join(sent_pieces.get(event_id, ()))
                if event_id not in sent_pieces:
                    if open_id is not None:
                        yield MessageEnded(open_id)
                    yield MessageStarted(event_id)
                    open_id = event_id
                if open_id == event_id and text.startswith(sent_text) and len(text) > len(sent_text):
                    yield MessagePiece(event_id, text[len(sent_text) :])
                if open_id == event_id:
                    yield MessageEnded(event_id)
                    open_id = None
                if event_type != ASSISTANT_MESSAGE:
                    yield item
            case Status():
                yield item
            case NewEvent():
                if open_id is not None and not missed:  # if deltas were missed, the message's own event has the rest
                    yield MessageEnded(open_id)
                    open_id = None
                yield item
            case Ended(answer):
                if open_id is not None:
                    yield MessageEnded(open_id)
                yield Finished(answer) if isinstance(answer, RunResult) else Failed(answer)


_MESSAGES = (ASSISTANT_MESSAGE, ASSISTANT_MESSAGE_WITH_BUTTONS)


def messages(result: RunResult) -> list[str]:
    """Return the texts of the assistant's messages in an answer, in order."""
    return [message_text(event) for event in result.events if event.event_type in _MESSAGES]


def message_text(event: NewEvent) -> str:
    """Return the text of a message's event; empty if the pipeline sent an event of this type without a text."""
    data: Any = orjson.loads(event.data)
    content = data.get("content") if isinstance(data, Mapping) else None
    return content if isinstance(content, str) else ""


BETWEEN_MESSAGES = "\n\n"


def one_text(result: RunResult) -> str:
    """Return all messages of an answer as one text, for protocols whose answers have one message."""
    return BETWEEN_MESSAGES.join(text for text in messages(result) if text)


async def as_one_text(items: AsyncIterator[SpokenItem]) -> AsyncIterator[str | Finished | Failed]:
    """Yield the text of `one_text` in pieces as they arrive, and then the last item."""
    last: UUID | None = None
    async for item in items:
        match item:
            case MessagePiece(message_id, text) if text:
                if last is not None and last != message_id:
                    yield BETWEEN_MESSAGES
                last = message_id
                yield text
            case Finished() | Failed():
                yield item
