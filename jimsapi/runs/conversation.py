"""Conversations: the stored events of a thread, their turns, and files of them.

A turn is a message of the user and what its run stored. A pipeline can answer each turn again, since the events before
the message are those that it read the first time.
"""

import json
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self
from uuid import UUID

import msgspec
import orjson

from jimsapi.threads.event import Event, EventRow, NewEvent
from jimsapi.threads.ids import uuid7, uuid_text
from jimsapi.threads.questions import answers_in_text
from jimsapi.threads.run import EventRecord
from jimsapi.threads.storable import load_stored, stored_json
from jimsapi.threads.store import ThreadStore
from jimsapi.threads.window import COMM_PREFIX

PAGE = 1000
"""The most events that are read from a store at once, and that a page of the API has."""

_BESIDE_PREFIX = "message."
"""How the types of events beside a message begin."""


class InvalidConversation(ValueError):
    """A file is not a conversation. The message names the file and says what to do."""


class StoredEvent(msgspec.Struct, frozen=True):
    """An event of a conversation. `created_at` is in UTC and without a time zone. `data` is JSON text."""

    event_id: UUID
    created_at: datetime
    event_type: str
    data: bytes

    @classmethod
    def of(cls, record: EventRecord) -> Self:
        """Return an event that a store has read."""
        data = b"null" if record.event_data is None else record.event_data
        text = data.encode() if isinstance(data, str) else data
        return cls(record.event_id, _without_zone(record.created_at), record.event_type, text)

    def row(self) -> EventRow:
        """Return the event as a context has it."""
        return EventRow(self.event_id, self.created_at, self.event_type, self.data)

    def sent(self) -> NewEvent:
        """Return the event as it was sent, without its time."""
        return NewEvent(self.event_id, self.event_type, self.data)

    def fields(self) -> dict[str, Any]:
        """Return the decoded data if it is an object. Return an empty dict for other data."""
        data = load_stored(self.data)
        return data if isinstance(data, dict) else {}


class Turn(msgspec.Struct, frozen=True):
    """A turn, by the positions of its events in the conversation.

    `number` counts from 1. The events beside the message are from `first` to before `message`, and those that answer it
    from after `message` to before `end`.
    """

    number: int
    first: int
    message: int
    end: int


class Conversation(msgspec.Struct, frozen=True):
    """The stored events of a thread, oldest first, and what its pipeline knows of the thread.

    `name` is the identifier of the thread, or the path of the file that the conversation was read from.
    `thread_config` is JSON text.
    """

    name: str
    thread_id: UUID
    contact_id: str | None
    thread_config: bytes | str
    events: Sequence[StoredEvent]

    @classmethod
    async def read(cls, store: ThreadStore, thread_id: UUID) -> Self:
        """Read a thread from a store. Raises `ThreadNotFound` and `StoreUnavailable`."""
        thread = await store.thread(thread_id, None)
        events = [StoredEvent.of(record) async for record in all_events(store, thread_id)]
        return cls(str(thread_id), thread_id, thread.contact_id, thread.thread_config, events)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a file: what `dump` returned, or an answer of `GET /api/v1/threads/{id}/events` with all events.

        Such an answer does not have the contact and the configuration of the thread: they are None and empty.

        Raises:
            OSError: the file cannot be read.
            InvalidConversation: the file has something else, or only a part of a thread.
        """
        try:
            file = msgspec.convert(load_stored(Path(path).read_bytes()), _File)
        except (ValueError, RecursionError, msgspec.ValidationError) as error:
            raise InvalidConversation(
                f"{path} is not a conversation ({error}): write one with jimsapi replay THREAD --save {path}"
            ) from error
        if file.next is not None:
            raise InvalidConversation(
                f"{path} has only the first {len(file.events)} events of its thread: request more of them with "
                f"?limit={PAGE}, or write the file with jimsapi replay THREAD --save {path}"
            )
        events = [event.stored() for event in file.events]
        return cls(str(path), file.thread_id or uuid7(), file.contact_id, _text(file.thread_config), events)

    def dump(self) -> bytes:
        """Return the text of a file that `load` reads."""
        file = {
            "thread_id": self.thread_id,
            "contact_id": self.contact_id,
            "thread_config": stored_json(self.thread_config),
            "events": [
                {
                    "event_id": event.event_id,
                    "created_at": event.created_at,
                    "event_type": event.event_type,
                    "event_data": stored_json(event.data),
                }
                for event in self.events
            ],
            "next": None,
        }
        options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE | orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z
        return orjson.dumps(file, option=options)

    def turns(self) -> list[Turn]:
        """Return the turns, oldest first. Events before the first message, such as a greeting, belong to none."""
        answers = answers_in_text(self.events)
        messages = [
            position
            for position, event in enumerate(self.events)
            if _is_message(event) and event.event_id not in answers
        ]
        firsts = [self._first_beside(message) for message in messages]
        ends = [*firsts[1:], len(self.events)]
        bounds = zip(firsts, messages, ends, strict=False)  # without messages there is an end, and no turn
        return [Turn(number, first, message, end) for number, (first, message, end) in enumerate(bounds, 1)]

    def history(self, turn: Turn) -> list[EventRow]:
        """Return the events that were in the thread when the message had entered it. The last one is the message."""
        return [event.row() for event in self.events[: turn.message + 1]]

    def beside(self, turn: Turn) -> list[NewEvent]:
        """Return the events that entered the thread with the message, such as its metadata."""
        return [event.sent() for event in self.events[turn.first : turn.message]]

    def answer(self, turn: Turn) -> Sequence[StoredEvent]:
        """Return the events after the message, up to the next message that is not an answer to a question."""
        events = self.events[turn.message + 1 : turn.end]
        answers = answers_in_text(events)
        return [event for event in events if event.event_id not in answers]

    async def load_events(self, turn: Turn, before: Event | None, limit: int) -> list[EventRow]:
        """Return what `ThreadStore.load_events` returned when the message had entered the thread."""
        known = self.events[: turn.message + 1]
        older = [event.row() for event in known if before is None or event.created_at < before.created_at]
        return older[max(0, len(older) - max(0, limit)) :]

    def _first_beside(self, message: int) -> int:
        first = message
        while first > 0 and _is_beside(self.events[first - 1], self.events[message]):
            first -= 1
        return first


class _FileEvent(msgspec.Struct):
    event_id: UUID
    created_at: datetime
    event_type: str
    event_data: Any

    def stored(self) -> StoredEvent:
        return StoredEvent(self.event_id, _without_zone(self.created_at), self.event_type, _text(self.event_data))


class _File(msgspec.Struct):
    events: list[_FileEvent]
    next: str | None = None
    thread_id: UUID | None = None
    contact_id: str | None = None
    thread_config: dict[str, Any] = {}


async def all_events(store: ThreadStore, thread_id: UUID, acting_for: str | None = None) -> AsyncIterator[EventRecord]:
    """Read the events of a thread, oldest first. Raises `ThreadNotFound`."""
    after: str | None = None
    while True:
        page = await store.events(thread_id, acting_for, PAGE, after)
        for record in page.events:
            yield record
        after = page.next
        if after is None:
            return


def _is_message(event: StoredEvent) -> bool:
    """Return whether an event is a message of the user."""
    return event.event_type.startswith(COMM_PREFIX) and event.fields().get("role") == "user"


def _is_beside(event: StoredEvent, message: StoredEvent) -> bool:
    """Return whether an event belongs to a message: its data names the message."""
    is_candidate = event.event_type.startswith(_BESIDE_PREFIX)
    return is_candidate and event.fields().get("message_id") == uuid_text(message.event_id)


def _text(value: Any) -> bytes:
    return json.dumps(value).encode()  # orjson refuses what jims-core may have stored


def _without_zone(time: datetime) -> datetime:
    """Return a time in UTC without its time zone. A time without a zone is in UTC already."""
    return time if time.tzinfo is None else time.astimezone(UTC).replace(tzinfo=None)
