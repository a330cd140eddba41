"""The contract of a `ThreadStore`, as tests, and helpers for tests of stores.

`contract.py` has the class to derive from. Each other file has the tests of one subject.
"""

from jimsapi.testing.store.contexts import LIMITS, SHAPES, expected_context
from jimsapi.testing.store.contract import ThreadStoreContract
from jimsapi.testing.store.samples import (
    ALREADY,
    ANYBODY,
    OTHER_OWNER,
    OWNER,
    all_events,
    all_threads,
    completed,
    contents,
    event_types,
    fill,
    look_at,
    make_event,
    make_key,
    make_plan,
)

__all__ = [
    "ALREADY",
    "ANYBODY",
    "LIMITS",
    "OTHER_OWNER",
    "OWNER",
    "SHAPES",
    "ThreadStoreContract",
    "all_events",
    "all_threads",
    "completed",
    "contents",
    "event_types",
    "expected_context",
    "fill",
    "look_at",
    "make_event",
    "make_key",
    "make_plan",
]
