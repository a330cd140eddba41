"""What tests of streams and runs share: how they send a message, and read a stream."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

CHAT, STREAM, RUNS = "/api/v1/chat", "/api/v1/chat/stream", "/api/v1/runs"


class Told(NamedTuple):
    """A server-sent event."""

    id: str | None
    name: str
    data: Any


def body(message: str, contact: str = "ann", **fields: Any) -> dict[str, Any]:
    """A chat's body."""
    return {"contact_id": contact, "message": message, **fields}


def parse(text: str) -> list[Told]:
    """The events of a stream that was read to its end, without comments. Fails if the last one is not whole."""
    *blocks, rest = text.split("\n\n")
    assert rest == "", f"cut off: {rest!r}"
    return [_event(block.split("\n")) for block in blocks if not block.startswith(":")]


def read_event(lines: Iterator[str]) -> Told:
    """The next event of a stream that goes on."""
    block = []
    while line := next(lines):
        block.append(line)
    return _event(block)


def _event(block: list[str]) -> Told:
    fields = dict(line.split(": ", 1) for line in block)
    assert fields.keys() | {"id"} == {"event", "data", "id"}, block
    assert len(fields) == len(block), block
    return Told(fields.get("id"), fields["event"], json.loads(fields["data"]))


def names(events: list[Told]) -> list[str]:
    return [event.name for event in events]
