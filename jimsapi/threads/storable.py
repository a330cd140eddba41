"""What JSON every store takes, decided once: the same value is refused by all of them."""

import json
import re
from typing import Any

import orjson

from jimsapi.asgi.nesting import MAX_NESTING, nesting

_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


class Unstorable(ValueError):
    """The value is not JSON that every store takes; the message says why, without quoting the value."""


def dump_storable(value: Any) -> bytes:
    """Encode `value` as JSON text that every store takes.

    Keys that are numbers, dates or UUIDs become strings, as the standard library's encoder makes them, and named tuples
    become arrays.

    Raises:
        Unstorable: it cannot be JSON, nests deeper than 200 levels, or holds a NUL, a lone surrogate, or an integer
            beyond 64 bits.
    """
    try:
        data = orjson.dumps(value, default=_named_tuple, option=orjson.OPT_NON_STR_KEYS)
    except (TypeError, ValueError, RecursionError) as error:
        raise Unstorable(str(error)) from error
    if b"\\u0000" in data and _NUL.search(data):
        raise Unstorable("it holds a NUL character")
    # Fewer bytes, or opening brackets, than so many levels take is proof enough, and seen at once.
    if (
        len(data) > 2 * MAX_NESTING
        and data.count(b"[") + data.count(b"{") > MAX_NESTING
        and nesting(data) > MAX_NESTING
    ):
        raise Unstorable(f"it nests deeper than {MAX_NESTING} levels")
    return fitted(data)


def fitted(data: bytes) -> bytes:
    """A copy without spare room, for what is kept: orjson makes room for eight times a text, and for 4 KiB at least."""
    return b"%b" % data


def storable_text(text: str) -> str:
    """A text for people as every store takes it: a NUL or a lone surrogate becomes `?`."""
    return text.encode("utf-8", "replace").decode().replace("\0", "?")


def load_stored(text: bytes | str) -> Any:
    """Read JSON text out of a store.

    jims-core, which writes the same tables, also writes what is no JSON (NaN, infinities, halves of surrogate pairs);
    it is read as jims-core reads it, lest one event of another program's closes its thread for good.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return json.loads(text)


def stored_json(text: bytes | str) -> orjson.Fragment:
    """JSON text out of a store, to be put into an answer. What is no JSON in what jims-core writes becomes null."""
    no_numbers = (b"NaN", b"Infinity") if isinstance(text, bytes) else ("NaN", "Infinity")
    if any(name in text for name in no_numbers):  # type: ignore[operator] # both are of one kind
        text = orjson.dumps(json.loads(text, parse_constant=lambda _: None))
    return orjson.Fragment(text)


def _named_tuple(value: Any) -> list[Any]:
    if isinstance(value, tuple):
        return list(value)
    raise TypeError
