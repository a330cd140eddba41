"""From the bytes of a JSON body to a value, or to the 422 that says what is wrong with it.

orjson parses. What it accepts but not all databases keep is refused here, once for every body: nesting over
`MAX_NESTING`, integers beyond 64 bits (orjson turns them into floats without a word), NUL in a string or key. Each of
these has a check that costs an ordinary body next to nothing and only raises suspicion; the exact look, which also
finds the place, is taken only then.
"""

import json
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

import orjson

from .errors import Fault, ValidationError
from .nesting import MAX_NESTING, nesting

_MAX_INTEGER = 2**64 - 1
_MIN_INTEGER = -(2**63)
_MAX_ECHO = 8192
_MAX_KEY = 256
_MAX_LOC = 1024
_MAX_FAULTS = 20

# Every digit becomes 0, all else a space: a long number is then found by a plain search, five times as fast as by a
# regular expression.
_DIGITS_TO_ZERO = bytes(0x30 if 0x30 <= byte <= 0x39 else 0x20 for byte in range(256))
_LONG_NUMBER = b"0" * 19
# A string that begins always matches, closed or not, and gives nothing back: else an open one would be tried again from
# each of its quotes, and a megabyte of them would take an hour.
_STEP = re.compile(rb'("(?:[^"\\]|\\.?)*+"?)|[\[\]{},:]', re.DOTALL)

Loc = tuple[str | int, ...]


class _OutOfRange:
    """Stands in a re-parsed body where an integer beyond 64 bits stood."""


_OUT_OF_RANGE = _OutOfRange()


def decode_json(raw: bytes) -> Any:
    """The value of a JSON body. Raises `ValidationError` (422) for what is no JSON or what not all databases keep."""
    if len(raw) > MAX_NESTING and raw.count(b"[") + raw.count(b"{") > MAX_NESTING and nesting(raw) > MAX_NESTING:
        raise ValidationError([_too_deep(raw)])
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ValidationError(_explain(raw, error)) from None
    long_number = _LONG_NUMBER in raw.translate(_DIGITS_TO_ZERO)
    maybe_nul = b"\\" in raw and b"\\u0000" in raw  # one byte is found faster than six
    if long_number or maybe_nul:
        faults = _integer_faults(json.loads(raw, parse_int=_bounded_integer)) if long_number else []
        faults += _nul_faults(value) if maybe_nul else []
        if faults:
            raise ValidationError(faults)
    return value


def fault(kind: str, loc: Loc, message: str, value: Any, context: dict[str, Any] | None = None) -> Fault:
    """One item of a 422 answer. The echo of `value` is left out (null) where it is huge or cannot be encoded."""
    item: Fault = {"type": kind, "loc": _shown(loc), "msg": message, "input": _echo(value)}
    if context:
        item["ctx"] = context
    return item


def missing(loc: Loc, value: Any = None) -> Fault:
    """The fault of something required that is not there; `value` is what should have held it."""
    return fault("missing", loc, "Field required", value)


def nul(loc: Loc, value: str) -> Fault:
    """The fault of a text that holds NUL, which not every database can store."""
    return fault("string_contains_nul", loc, "Text must not contain the character NUL", value)


def _echo(value: Any) -> Any:
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str) and len(value) > _MAX_ECHO:
        return None
    try:
        return value if len(orjson.dumps(value)) <= _MAX_ECHO else None
    except TypeError:  # orjson's errors all are: too deep for it, a surrogate, an integer beyond 64 bits
        return None


def _shown(loc: Loc) -> list[str | int]:
    """A place as it may be told: long keys, and what is deep below them, are cut."""
    shown: list[str | int] = []
    room = _MAX_LOC
    for part in loc:
        if isinstance(part, str):
            part = part if len(part) <= _MAX_KEY else part[:_MAX_KEY] + "…"
            room -= len(part)
        if room < 0:
            return [*shown, "…"]
        shown.append(part)
    return shown


def _explain(raw: bytes, error: orjson.JSONDecodeError) -> list[Fault]:
    """Position and text as the standard library has them, since that is what clients of FastAPI see."""
    position, text = error.pos, error.msg.rpartition(": line ")[0] or error.msg
    try:
        value = json.loads(raw.decode(), parse_int=_bounded_integer)
    except json.JSONDecodeError as plain:
        position, text = plain.pos, plain.msg
    except UnicodeDecodeError:
        pass
    else:
        # Taken by `json` and not by orjson: a huge integer, or one of json's liberties (NaN, a lone surrogate).
        if faults := _integer_faults(value):
            return faults
    return [
        {"type": "json_invalid", "loc": ["body", position], "msg": "JSON decode error", "input": {},
         "ctx": {"error": text}}
    ]  # fmt: skip


def _bounded_integer(digits: str) -> int | _OutOfRange:
    if len(digits) > 20:  # also spares the work of converting a million digits
        return _OUT_OF_RANGE
    number = int(digits)
    return number if _MIN_INTEGER <= number <= _MAX_INTEGER else _OUT_OF_RANGE


def _integer_faults(value: Any) -> list[Fault]:
    faults = (
        fault("integer_out_of_range", tuple(place), "Integers must fit into 64 bits", None)
        for place, leaf in _leaves(value)
        if leaf is _OUT_OF_RANGE
    )
    return list(islice(faults, _MAX_FAULTS))


def _nul_faults(value: Any) -> list[Fault]:
    faults = (nul(tuple(place), leaf) for place, leaf in _leaves(value) if isinstance(leaf, str) and "\0" in leaf)
    return list(islice(faults, _MAX_FAULTS))


def _leaves(value: Any) -> Iterator[tuple[list[str | int], Any]]:
    """Every key and every value that is no container, with its place, which holds until the next is asked for.

    The walk keeps one iterator a level, so that a body of a million values costs no more memory than it has levels.
    """
    place: list[str | int] = ["body"]
    if not isinstance(value, dict | list):
        yield place, value
        return
    levels = [_parts(value)]
    place.append("")
    while levels:
        for part, item in levels[-1]:
            place[-1] = part
            if isinstance(part, str):
                yield place, part
            if isinstance(item, dict | list):
                levels.append(_parts(item))
                place.append("")
                break
            yield place, item
        else:
            levels.pop()
            place.pop()


def _parts(value: dict[str, Any] | list[Any]) -> Iterator[tuple[str | int, Any]]:
    return iter(value.items()) if isinstance(value, dict) else iter(enumerate(value))


def _too_deep(raw: bytes) -> Fault:
    """The place where `raw` first goes deeper than `MAX_NESTING`: read step by step, up to there only."""
    loc: list[str | int] = []
    text = b""
    for step in _STEP.finditer(raw):
        token = step.group()
        if step.group(1):
            text = token
        elif token in b"[{":
            if len(loc) == MAX_NESTING:
                break
            loc.append(0 if token == b"[" else "")
        elif token in b"]}":
            del loc[-1:]
        elif token == b":" and loc:
            loc[-1] = _key(text)
        elif loc and isinstance(loc[-1], int):
            loc[-1] += 1
    return fault("nesting_too_deep", ("body", *loc), f"Nesting must not be deeper than {MAX_NESTING}", None)


def _key(text: bytes) -> str:
    try:
        return str(orjson.loads(text))
    except orjson.JSONDecodeError:
        return ""
