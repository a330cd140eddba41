"""Identifiers of our own making: valid, increasing, hard to guess, and safe from SQLite's reading them as numbers."""

import copy
import pickle
import time
from itertools import pairwise
from uuid import RFC_4122, UUID

import pytest

from jimsapi.threads import ids
from jimsapi.threads.ids import uuid7, uuid_text


def _milliseconds(made: UUID) -> int:
    return made.int >> 80


def test_they_are_version_7_of_the_rfc_and_hold_the_time() -> None:
    before = time.time_ns() // 1_000_000
    made = uuid7()
    assert made.version == 7
    assert made.variant == RFC_4122
    assert before <= _milliseconds(made) <= time.time_ns() // 1_000_000 + 1


def test_each_is_greater_than_the_one_before() -> None:
    made = [uuid7() for _ in range(20_000)]
    assert all(earlier < later for earlier, later in pairwise(made))
    assert all(one.version == 7 and one.variant == RFC_4122 for one in made)


def test_they_grow_though_the_clock_stands_still_or_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    first = uuid7()
    for nanoseconds in (time.time_ns(), time.time_ns() - 10**12, 0):
        monkeypatch.setattr(time, "time_ns", lambda moment=nanoseconds: moment)
        following = [uuid7() for _ in range(100)]
        assert all(earlier < later for earlier, later in pairwise([first, *following]))
        first = following[-1]


def test_a_full_random_part_carries_into_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    last = uuid7()
    monkeypatch.setattr(ids._latest, "value", ids._latest.highest)
    made = uuid7()
    assert made > last
    assert _milliseconds(made) == _milliseconds(last) + 1
    assert made.version == 7
    assert made.variant == RFC_4122


def test_one_is_a_uuid_like_any_other() -> None:
    made = uuid7()
    same = UUID(int=made.int)
    assert (made, hash(made), str(made), made.is_safe) == (same, hash(same), str(same), same.is_safe)
    assert pickle.loads(pickle.dumps(made)) == copy.copy(made) == made


class Odd(UUID):
    """What a database's driver might give."""


def test_its_text_is_that_of_str() -> None:
    made = uuid7()
    assert uuid_text(made) == str(made) == uuid_text(Odd(int=made.int))


def test_none_reads_as_a_number() -> None:
    assert all(uuid7().hex.endswith("f") for _ in range(1000))


def test_neighbours_are_hard_to_guess() -> None:
    steps = {later.int - earlier.int for earlier, later in pairwise(uuid7() for _ in range(1000))}
    assert len(steps) > 990
