"""The events of a thread, their encoding, and their times."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import orjson

from jimsapi.threads.errors import UnstorableEvent
from jimsapi.threads.ids import uuid7, uuid_text
from jimsapi.threads.storable import Unstorable, dump_storable, exact_copy, load_stored

THREAD_CREATED = "jims.lifecycle.thread_created"
"""The type of the first event of every thread."""
USER_MESSAGE = "comm.user_message"
"""The type of a message of the user, if the request gives no other."""
ASSISTANT_MESSAGE = "comm.assistant_message"
"""The type of a message of the pipeline."""
ASSISTANT_MESSAGE_WITH_BUTTONS = "comm.assistant_message_with_buttons"
"""The type of a message of the pipeline with buttons."""
STATE_PREFIX = "state.set."
MESSAGE_METADATA = "message.metadata"
"""`{"message_id", "metadata"}`: what the caller sent with a message, beside it."""
MESSAGE_CLIENT_ID = "message.client_id"
"""`{"message_id", "client_id", "key"}`, beside a message: its identifier at the client, and the idempotency key of its
request, or null."""
MAX_EVENT_TYPE = 255
"""Characters: the limit of the column `thread_events.event_type`."""

BESIDE = 255
"""The most events beside a message."""
_STEP = 0x10
_ALL_BITS = (1 << 128) - 1

EPOCH = datetime(1970, 1, 1)
EPOCH_UTC = EPOCH.replace(tzinfo=UTC)
TICK = timedelta(microseconds=1)
"""The smallest difference between the times of two events of a thread."""


class Event(msgspec.Struct, kw_only=True):
    """An event of a thread, such as a message or a new state.

    `event_type` is `<domain>.<name>`. `event_data` is a JSON value, a dict by convention. `created_at` is the time of
    the store's clock, in UTC and without a time zone. If a pipeline makes an `Event`, it sets only type and data.
    """

    event_type: str
    event_data: Any = msgspec.field(default_factory=dict)
    thread_id: UUID | None = None
    event_id: UUID = msgspec.field(default_factory=uuid7)
    created_at: datetime = msgspec.field(default_factory=datetime.now)


class SinkEvent(Event, kw_only=True):
    """A stored event as a sink receives it: with the contact of its thread, and the run that stored it.

    `run_id` is None if the event was stored outside of a run, and if the sink reads it from the history.
    """

    contact_id: str | None = None
    run_id: UUID | None = None


class NewEvent(msgspec.Struct, frozen=True, gc=False):
    """An event to store. `data` is JSON text. The store sets the time."""

    event_id: UUID
    event_type: str
    data: bytes


class EventRow(msgspec.Struct, frozen=True, gc=False):
    """An event that a store returns for a context. Pages have `EventRecord` instead.

    `data` is JSON text; it is decoded only if the pipeline reads it. `event_id` and `created_at` may be text in the
    store's own format (hex digits, ISO 8601). `decode_row` reads both.
    """

    event_id: UUID | str
    created_at: datetime | str
    event_type: str
    data: bytes | str | None


def row_id(row: EventRow) -> UUID:
    """Return the identifier of a stored event."""
    return row.event_id if isinstance(row.event_id, UUID) else UUID(row.event_id)


def row_time(row: EventRow) -> datetime:
    """Return the time of a stored event."""
    return row.created_at if isinstance(row.created_at, datetime) else datetime.fromisoformat(row.created_at)


def position_of(row: EventRow) -> Event:
    """Return a stored event without its data, for `ThreadStore.load_events`, which returns what is older."""
    return Event(event_type=row.event_type, event_id=row_id(row), created_at=row_time(row).replace(tzinfo=None))


def decode_row(thread_id: UUID, row: EventRow) -> Event:
    """Decode a stored event."""
    return Event(
        thread_id=thread_id,
        event_id=row_id(row),
        created_at=row_time(row),
        event_type=row.event_type,
        event_data=None if row.data is None else load_stored(row.data),
    )


def sink_event(thread_id: UUID, contact_id: str | None, run_id: UUID | None, row: EventRow) -> SinkEvent:
    """Decode a stored event for sinks."""
    return SinkEvent(
        thread_id=thread_id,
        contact_id=contact_id,
        run_id=run_id,
        event_id=row_id(row),
        created_at=row_time(row),
        event_type=row.event_type,
        event_data=None if row.data is None else load_stored(row.data),
    )


def event_object(event: SinkEvent) -> dict[str, Any]:
    """Return an event as other programs read it, once it is JSON. `created_at` is in UTC."""
    return {
        "thread_id": event.thread_id,
        "event_id": event.event_id,
        "created_at": event.created_at.replace(tzinfo=UTC),
        "event_type": event.event_type,
        "contact_id": event.contact_id,
        "run_id": event.run_id,
        "event_data": event.event_data,
    }


def sink_event_id(event: SinkEvent) -> str:
    """Return the identifier of an event among those of all threads, which never changes. A fork has its parent's."""
    thread_id = UUID(int=0) if event.thread_id is None else event.thread_id
    return f"{thread_id.hex}_{event.event_id.hex}"


def message_event(event_type: str, message: str, event_id: UUID | None = None) -> NewEvent:
    """Return the event for an inbound message, with `event_id` or a new identifier."""
    data = exact_copy(orjson.dumps({"role": "user", "content": message}))
    return NewEvent(uuid7() if event_id is None else event_id, event_type, data)


# Events beside a message belong to it. Their data names it as `message_id`, and their identifiers follow its
# identifier, `_STEP` apart. So a store finds them without storing more than the identifier of the message. The last
# digit of each stays `f`, for the reason that `uuid7` names.


def id_with_room() -> UUID:
    """Return a new identifier for a message that has events beside it: the next `BESIDE` identifiers are free."""
    return make_room(uuid7())


def make_room(event_id: UUID) -> UUID:
    """Return an identifier for a message that has events beside it: `event_id`, without what `id_beside` adds."""
    return UUID(int=event_id.int & ~(BESIDE * _STEP))


def id_beside(message_id: UUID, number: int) -> UUID:
    """Return the identifier of an event beside a message: `number` counts from 1, to at most `BESIDE`."""
    return UUID(int=(message_id.int + number * _STEP) & _ALL_BITS)  # a client may name the greatest identifier


def beside_message(message_id: UUID, beside: Iterable[tuple[str, Mapping[str, Any]]]) -> tuple[NewEvent, ...]:
    """Return the events beside a message, whose identifier is from `id_with_room`. `beside` has their types and data.

    Raises:
        Unstorable: the data of an event cannot be stored.
    """
    events: list[NewEvent] = []
    for number, (event_type, data) in enumerate(beside, 1):
        text = dump_storable({"message_id": uuid_text(message_id), **data})
        events.append(NewEvent(id_beside(message_id, number), event_type, text))
    assert len(events) <= BESIDE
    return tuple(events)


def add_beside(entering: Sequence[NewEvent], event_type: str, data: Mapping[str, Any]) -> tuple[NewEvent, ...]:
    """Return the events beside a message and the message, `entering`, with another event beside it.

    The identifier of the message is from `id_with_room`. Raises `Unstorable` as `beside_message` does.
    """
    *beside, message = entering
    text = dump_storable({"message_id": uuid_text(message.event_id), **data})
    return (*beside, NewEvent(id_beside(message.event_id, len(beside) + 1), event_type, text), message)


def move_beside(beside: Sequence[NewEvent], message: NewEvent, message_id: UUID) -> tuple[NewEvent, ...]:
    """Return the events beside `message` for the same message with another identifier."""
    distance = message_id.int - message.event_id.int
    # Nobody knew the identifier when the data was written, so the text has it only where it names the message.
    old, new = uuid_text(message.event_id).encode(), uuid_text(message_id).encode()
    return tuple(
        NewEvent(UUID(int=event.event_id.int + distance), event.event_type, event.data.replace(old, new))
        for event in beside
    )


def encode_events(events: Iterable[Any]) -> list[NewEvent]:
    """Encode the events that a pipeline sent: `Event`s, or any objects with `event_type` and `event_data`.

    Raises:
        UnstorableEvent: an event cannot be stored. The error names its type.
    """
    encoded: list[NewEvent] = []
    seen: set[int] = set()  # not UUIDs, whose hash is slow because it is computed in Python
    for event in events:
        new = _encode_event(event)
        if new.event_id.int in seen:
            raise UnstorableEvent(new.event_type, f"its event_id {new.event_id} was sent twice")
        seen.add(new.event_id.int)
        encoded.append(new)
    return encoded


def _encode_event(event: Any) -> NewEvent:
    event_type = getattr(event, "event_type", None)
    if not isinstance(event_type, str):
        raise UnstorableEvent(type(event).__name__, "it is not an event: `event_type` is not a string")
    if len(event_type) > MAX_EVENT_TYPE or not event_type.isprintable():
        _check_event_type(event_type)
    event_id = getattr(event, "event_id", None)
    if event_id is None:
        event_id = uuid7()
    if not isinstance(event_id, UUID):
        raise UnstorableEvent(event_type, "its `event_id` is not a UUID")
    try:
        return NewEvent(event_id, event_type, dump_storable(getattr(event, "event_data", None)))
    except Unstorable as fault:
        raise UnstorableEvent(event_type, str(fault)) from fault


def _check_event_type(event_type: str) -> None:
    safe_type = event_type[:MAX_EVENT_TYPE].encode("utf-8", "replace").decode()
    if len(event_type) > MAX_EVENT_TYPE:
        raise UnstorableEvent(safe_type, f"its type is longer than {MAX_EVENT_TYPE} characters")
    if "\0" in event_type or safe_type != event_type:
        raise UnstorableEvent(safe_type.replace("\0", "?"), "its type contains a NUL or a lone surrogate")


def utc_now() -> datetime:
    """Return the current time as events store it: in UTC, without a time zone."""
    return EPOCH + (datetime.now(UTC) - EPOCH_UTC)  # on Python 3.11 this costs a third of `replace`


def time_after(newest: datetime | None, now: datetime) -> datetime:
    """Return the time for a new event in a thread whose newest event has the time `newest`.

    It is `now`, or one microsecond after `newest` if `now` is not later than `newest`. Readers order the events of a
    thread by time only, so no two events may have the same time.
    """
    return now if newest is None or now > newest else newest + TICK


def times_after(newest: datetime | None, now: datetime, count: int) -> list[datetime]:
    """Return times for `count` new events of a thread, one microsecond apart. The first is that of `time_after`."""
    time = time_after(newest, now)
    times: list[datetime] = []
    for _ in range(count):
        times.append(time)
        time += TICK
    return times
