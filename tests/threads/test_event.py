"""Events are encoded, refused and timed the same for every store."""

from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import orjson
import pytest

from jimsapi.threads.errors import UnstorableEvent
from jimsapi.threads.event import (
    BESIDE,
    Event,
    EventRow,
    NewEvent,
    beside_message,
    decode_row,
    encode_events,
    id_beside,
    id_with_room,
    message_event,
    times_after,
)
from jimsapi.threads.ids import uuid7

NOW = datetime(2025, 3, 1, 12, 0, 0, 5)
TICK = timedelta(microseconds=1)


def test_a_message_is_the_users_with_its_own_event_type() -> None:
    event = message_event("comm.user_button", "Grüezi 🦊")
    assert event.event_type == "comm.user_button"
    assert orjson.loads(event.data) == {"role": "user", "content": "Grüezi 🦊"}
    assert event.event_id != message_event("comm.user_button", "Grüezi 🦊").event_id


def test_events_are_encoded_in_order_with_their_identifiers() -> None:
    sent = [Event(event_type="comm.assistant_message", event_data={"content": "a"}), Event(event_type="rag.x")]
    encoded = encode_events(sent)
    assert [event.event_id for event in encoded] == [event.event_id for event in sent]
    assert [(event.event_type, event.data) for event in encoded] == [
        ("comm.assistant_message", b'{"content":"a"}'),
        ("rag.x", b"{}"),
    ]


def test_any_object_with_type_and_data_is_an_event() -> None:
    (encoded,) = encode_events([SimpleNamespace(event_type="rag.x", event_data=[1])])
    assert isinstance(encoded.event_id, UUID)
    assert encoded.data == b"[1]"


@pytest.mark.parametrize(
    ("event", "named", "reason"),
    [
        (Event(event_type="rag.x", event_data=object()), "rag.x", "object"),
        (Event(event_type="rag.x", event_data={"a": "\0"}), "rag.x", "NUL"),
        (Event(event_type="rag.x", event_data=2**64), "rag.x", "64"),
        (Event(event_type="x" * 256), "x" * 255, "255"),
        (Event(event_type="rag.\0"), "rag.?", "NUL"),
        (Event(event_type="rag.\ud800"), "rag.?", "surrogate"),
        ("text", "str", "not a string"),
        (SimpleNamespace(event_type=5), "SimpleNamespace", "not a string"),
        (SimpleNamespace(event_type="rag.x", event_id="x"), "rag.x", "UUID"),
    ],
)
def test_what_cannot_be_stored_is_refused_by_its_type(event: Any, named: str, reason: str) -> None:
    with pytest.raises(UnstorableEvent, match=reason) as refused:
        encode_events([Event(event_type="rag.fine"), event])
    assert refused.value.event_type == named
    str(refused.value).encode()


def test_one_identifier_twice_is_refused() -> None:
    event = Event(event_type="rag.x")
    with pytest.raises(UnstorableEvent, match="sent twice"):
        encode_events([event, event])


@pytest.mark.parametrize(
    "row",
    [
        EventRow(UUID(int=7), NOW, "rag.x", b'{"a":1}'),
        EventRow(UUID(int=7).hex, "2025-03-01 12:00:00.000005", "rag.x", '{"a":1}'),
    ],
)
def test_a_row_is_read_in_either_spelling(row: EventRow) -> None:
    thread_id = uuid7()
    event = decode_row(thread_id, row)
    assert event == Event(
        thread_id=thread_id, event_id=UUID(int=7), created_at=NOW, event_type="rag.x", event_data={"a": 1}
    )


def test_a_row_without_data_has_none() -> None:
    assert decode_row(uuid7(), EventRow(UUID(int=7), "2025-03-01 12:00:00", "rag.x", None)).event_data is None


@pytest.mark.parametrize(
    ("newest", "first"),
    [
        (None, NOW),
        (NOW - timedelta(hours=1), NOW),
        (NOW - TICK, NOW),
        (NOW, NOW + TICK),
        (NOW + timedelta(hours=1), NOW + timedelta(hours=1) + TICK),
    ],
)
def test_times_come_after_the_newest_event_and_are_never_the_same(newest: datetime | None, first: datetime) -> None:
    assert times_after(newest, NOW, 0) == []
    assert times_after(newest, NOW, 1) == [first]
    assert times_after(newest, NOW, 3) == [first, first + TICK, first + 2 * TICK]


def test_an_event_on_its_way_cannot_be_changed() -> None:
    event = NewEvent(uuid7(), "rag.x", b"{}")
    with pytest.raises(AttributeError):
        event.event_type = "rag.y"  # type: ignore[misc]  # that it is refused is the point


def test_events_beside_a_message_follow_its_identifier_and_name_it() -> None:
    message_id = id_with_room()
    beside = beside_message(message_id, [("message.part", {"n": number}) for number in range(BESIDE)])
    ids = [event.event_id for event in beside]
    assert ids == [id_beside(message_id, number) for number in range(1, BESIDE + 1)]
    assert len({message_id, *ids}) == BESIDE + 1
    assert {(event.version, event.hex[:29], event.hex[-1]) for event in ids} == {(7, message_id.hex[:29], "f")}
    assert orjson.loads(beside[1].data) == {"message_id": str(message_id), "n": 1}
