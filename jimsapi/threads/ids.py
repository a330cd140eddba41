"""Identifiers of our own making: UUID version 7 (RFC 9562, section 5.7)."""

import os
import random
import time
from uuid import UUID

_VERSION_AND_VARIANT = (0x7 << 76) | (0b10 << 62)
_RANDOM_BITS = 70
_LOW_BITS = 58
_LAST_DIGIT = 0xF


class _Clock:
    """The last identifier handed out: milliseconds since the epoch, and the random bits below them."""

    __slots__ = ("milliseconds", "random")

    def __init__(self) -> None:
        self.milliseconds = 0
        self.random = 0


_last = _Clock()


def uuid7() -> UUID:
    """Make an identifier that is greater than every one this process made before.

    Within a millisecond the random part grows by a random step (RFC 9562, section 6.2, method 2), so that identifiers
    sort by birth and stay hard to guess. The last digit is always `f`: an SQLite column declared `UUID` turns text that
    looks like a number (`0193…e7`) into one. Call it from one thread at a time.
    """
    now = time.time_ns() // 1_000_000
    if now > _last.milliseconds:
        _last.milliseconds = now
        _last.random = _fresh()
    else:
        _last.random += random.getrandbits(32) + 1
        if _last.random >> _RANDOM_BITS:
            _last.milliseconds += 1
            _last.random = _fresh()
    high, low = _last.random >> _LOW_BITS, _last.random & ((1 << _LOW_BITS) - 1)
    return UUID(int=(_last.milliseconds << 80) | (high << 64) | (low << 4) | _LAST_DIGIT | _VERSION_AND_VARIANT)


def _fresh() -> int:
    """68 random bits, which leave the random part room to grow."""
    return int.from_bytes(os.urandom(9), "big") >> 4
