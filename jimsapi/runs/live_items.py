"""Live items as bytes, for the readers of another process."""

import struct

import msgspec

from jimsapi.runs.stream import Activity, Delta, Gap, Live, ReasoningDelta, RunStarted, RunStream, Status

KINDS: tuple[type[Live], ...] = (RunStarted, Status, Delta, ReasoningDelta, Activity, Gap)
"""The types of live items. The position of a type is its number in the bytes, so new types come last."""
HEAD = struct.Struct("!IQB")
"""What precedes the bytes of an item: their number, the position of the item, and the number of its type."""


def encode_item(position: int, item: Live) -> bytes:
    """Return a live item with its head."""
    body = msgspec.msgpack.encode(item)
    return HEAD.pack(len(body), position, KINDS.index(type(item))) + body


def decode_item(kind: int, body: bytes) -> Live:
    """Return a live item. Raises `IndexError` or `msgspec.DecodeError` if a later version has written it."""
    item: Live = msgspec.msgpack.decode(body, type=KINDS[kind])
    return item


def has_items_after(stream: RunStream, after: int) -> bool:
    """Return whether a stream has live items after a position, or may get some."""
    return not stream.is_over or stream.item_count > after
