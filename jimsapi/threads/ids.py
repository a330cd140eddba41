"""The identifiers that jimsapi makes: UUID version 7 (RFC 9562, section 5.7)."""

import os
import random
import time
from hashlib import blake2b
from uuid import UUID, SafeUUID

import orjson

_NS_PER_MS = 1_000_000
_VERSION_AND_VARIANT = (0x7 << 76) | (0b10 << 62)
_COUNTED_BITS = 62
"""The number of bits below the variant. Within a millisecond, new identifiers increase this part."""
_LAST_DIGIT = 0xF
_DERIVED = (0x8 << 76) | (0b10 << 62) | _LAST_DIGIT
_DERIVED_MASK = (0xF << 76) | (0b11 << 62) | 0xF


class _Latest:
    """The state of `uuid7`.

    `value` is the last identifier, `highest` the last possible one of its millisecond, and `ends` the end of that
    millisecond in nanoseconds.
    """

    __slots__ = ("ends", "highest", "value")

    def __init__(self) -> None:
        self.value = self.highest = self.ends = 0

    def begin(self, milliseconds: int) -> int:
        """Set `value` to the first identifier of a millisecond, with 69 random bits, and return it."""
        bits = int.from_bytes(os.urandom(9), "big")
        high, low = bits & 0xFFF, bits >> 15
        prefix = (milliseconds << 80) | (high << 64) | _VERSION_AND_VARIANT
        self.value = prefix | (low << 4) | _LAST_DIGIT
        self.highest = prefix | ((1 << _COUNTED_BITS) - 1)
        self.ends = (milliseconds + 1) * _NS_PER_MS
        return self.value


_latest = _Latest()

# `uuid7` sets the fields of a UUID directly. The constructor checks ten arguments and takes three times as long.
_new = object.__new__
_set_int = vars(UUID)["int"].__set__
_set_is_safe = vars(UUID)["is_safe"].__set__
_UNKNOWN = SafeUUID.unknown


def uuid7() -> UUID:
    """Return a new UUIDv7 that is greater than every UUID that this function returned before in this process.

    Within a millisecond, the random part is increased by a random step (RFC 9562, section 6.2, method 2). So the
    identifiers sort by time and are hard to guess. The last digit is always `f`: an SQLite column with the type `UUID`
    would convert text that looks like a number (`0193…e7`) to a number. The function is not thread-safe.
    """
    latest = _latest
    now = time.time_ns()
    if now >= latest.ends:
        value = latest.begin(now // _NS_PER_MS)
    else:
        value = latest.value + ((random.getrandbits(32) + 1) << 4)
        if value > latest.highest:
            value = latest.begin(latest.ends // _NS_PER_MS)
        latest.value = value
    identifier = _new(UUID)
    _set_int(identifier, value)
    _set_is_safe(identifier, _UNKNOWN)
    return identifier


def uuid_text(identifier: UUID) -> str:
    """Return the same text as `str(identifier)`, at a fifth of its cost."""
    return orjson.dumps(identifier, default=str)[1:-1].decode()


def derived_id(*parts: str) -> UUID:
    """Return the identifier that belongs to `parts`: in every process, equal parts have equal identifiers.

    It is a UUID version 8 (RFC 9562, section 5.8), made of a hash. Its last digit is `f` for the reason that `uuid7`
    names.
    """
    digest = int.from_bytes(blake2b(repr(parts).encode(), digest_size=16).digest(), "big")
    return UUID(int=digest & ~_DERIVED_MASK | _DERIVED)
