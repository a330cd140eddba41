"""Server-sent events are read whole, however the network cuts them."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jimsapi.client.event_stream import EventStreamReader, SentEvent

LINES = (
    '\ufeff: hello\nevent: status\nid: 1\ndata: {"status":"é\u2028\U0001f600"}\n\n'
    ": ping\n\ndata:two\ndata: lines\ndata\n\nretry: 5\nodd\nevent: nothing\nid: 9\n\n"
    "event: last\nid: end\ndata:  {}\n\ndata: cut off"
)
EVENTS = [
    SentEvent("status", '{"status":"é\u2028\U0001f600"}'.encode(), "1"),
    SentEvent("message", b"two\nlines\n", None),
    SentEvent("last", b" {}", "end"),
]


def read(pieces: list[bytes]) -> list[SentEvent]:
    reader = EventStreamReader()
    return [event for piece in pieces for event in reader.feed(piece)]


@pytest.mark.parametrize("line_end", ["\n", "\r", "\r\n"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 10_000])
def test_pieces_of_any_size_are_the_same_events(line_end: str, size: int) -> None:
    sent = LINES.replace("\n", line_end).encode()
    assert read([sent[place : place + size] for place in range(0, len(sent), size)]) == EVENTS


@given(st.lists(st.integers(0, len(LINES.encode()) * 2)), st.sampled_from(["\n", "\r", "\r\n"]))
def test_cuts_at_any_places_change_nothing(places: list[int], line_end: str) -> None:
    sent = LINES.replace("\n", line_end).encode()
    ends = [0, *sorted(min(place, len(sent)) for place in places), len(sent)]
    assert read([sent[begin:end] for begin, end in pairwise(ends)]) == EVENTS


def test_an_event_comes_as_soon_as_its_empty_line_has_begun() -> None:
    reader = EventStreamReader()
    assert list(reader.feed(b"data: 1\r\n\r")) == [SentEvent("message", b"1", None)]
    assert list(reader.feed(b"\ndata: 2\r\n\r\n")) == [SentEvent("message", b"2", None)]


def test_a_line_of_many_pieces_is_put_together_once() -> None:
    piece = b"a" * 1024
    pieces = 16 * 1024  # to look at all that came before with each of them would take minutes
    [event] = read([b"data: ", *[piece] * pieces, b"\n\n"])
    assert event.data == piece * pieces


def test_an_id_with_a_nul_is_none() -> None:
    assert read([b"id: a\0b\ndata: 1\n\n"]) == [SentEvent("message", b"1", None)]
