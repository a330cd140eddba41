"""The JSON that every store accepts. The rules are here, so that all stores reject the same values."""

import json
import re
from typing import Any

import msgspec
import orjson

from jimsapi.asgi.nesting import MAX_NESTING, nesting_depth

_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


class Unstorable(ValueError):
    """The value is not JSON that every store accepts. The message says why and does not quote the value."""


def dump_storable(value: Any) -> bytes:
    """Encode `value` as JSON text that every store accepts.

    Keys that are numbers, dates or UUIDs become strings. Named tuples become arrays.

    Raises:
        Unstorable: the value cannot be encoded as JSON, has more than 200 levels, or contains a NUL character, a lone
            surrogate, or an integer that does not fit into 64 bits.
    """
    try:
        data = orjson.dumps(value, default=_named_tuple, option=orjson.OPT_NON_STR_KEYS)
    except (TypeError, ValueError, RecursionError) as error:
        raise Unstorable(str(error)) from error
    if data.find(b"\\u0000") >= 0 and _NUL.search(data):  # `find` is faster than `in`
        raise Unstorable("it contains a NUL character")
    # Counting bytes and opening brackets is cheap, and shows for most values that they cannot have too many levels.
    if (
        len(data) > 2 * MAX_NESTING
        and data.count(b"[") + data.count(b"{") > MAX_NESTING
        and nesting_depth(data) > MAX_NESTING
    ):
        raise Unstorable(f"it has more than {MAX_NESTING} levels of nesting")
    return exact_copy(data)


def json_values(value: Any) -> Any:
    """Return a copy of `value` that consists of JSON values.

    Pydantic models, dataclasses and msgspec Structs become objects, at every level. Raises `Unstorable` if a part of
    `value` has no form in JSON.
    """
    try:
        return msgspec.to_builtins(value, str_keys=True, enc_hook=_model_values)
    except Exception as error:  # a model's own code may raise anything
        raise Unstorable(str(error)) from error


def exact_copy(data: bytes) -> bytes:
    """Return a copy of exact size, for storage. orjson allocates up to eight times the size, and at least 4 KiB."""
    return b"%b" % data


def storable_text(text: str) -> str:
    """Return a text that every store accepts: NUL characters and lone surrogates become `?`."""
    return text.encode("utf-8", "replace").decode().replace("\0", "?")


def load_stored(text: bytes | str) -> Any:
    """Decode JSON text from a store.

    jims-core, which writes the same tables, also writes values that are not JSON (NaN, infinities, lone surrogates).
    They are decoded as jims-core does. Otherwise one such event would make its thread unusable.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return json.loads(text)


def stored_json(text: bytes | str) -> orjson.Fragment:
    """Return JSON text from a store for use in an answer. NaN and infinities of jims-core become null."""
    no_numbers = (b"NaN", b"Infinity") if isinstance(text, bytes) else ("NaN", "Infinity")
    if any(name in text for name in no_numbers):  # type: ignore[operator] # both have the same type
        # Not orjson: the text may have lone surrogates, too.
        text = json.dumps(json.loads(text, parse_constant=lambda _: None))
    return orjson.Fragment(text)


def _model_values(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    raise TypeError(f"a {type(value).__name__} has no form in JSON")


def _named_tuple(value: Any) -> list[Any]:
    if isinstance(value, tuple):
        return list(value)
    raise TypeError
