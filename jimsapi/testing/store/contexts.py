"""Tests that a run begins with the newest events of its thread."""

from collections.abc import Sequence
from uuid import UUID

import pytest

from jimsapi.testing.store.base import StoreTests
from jimsapi.testing.store.samples import (
    OWNER,
    all_events,
    completed,
    fill,
    ids_of,
    make_event,
    make_plan,
    take_turn,
    types_of,
)
from jimsapi.threads.event import STATE_PREFIX, decode_row
from jimsapi.threads.ids import uuid7
from jimsapi.threads.run import ById, ContextLimits, EventRecord
from jimsapi.threads.store import ThreadStore

SHAPES: dict[str, list[str]] = {
    "talk": ["comm.assistant_message", "comm.user_message"] * 30,
    "own types": ["rag.query_processed"] * 60,
    "one state": [f"{STATE_PREFIX}mood"] * 60,
    "states": [f"{STATE_PREFIX}{name}" for name in "abcdef"] + ["rag.step"] * 50,
    "old talk": ["comm.assistant_message"] * 20 + ["rag.step"] * 50,
    "everything": ["rag.a", "comm.x", f"{STATE_PREFIX}a", "rag.b", f"{STATE_PREFIX}b", "context.c"] * 12,
    "almost comm": ["comma.x", "comm", "state.settled", "state.set", "COMM.x"] * 10,
    "short": ["rag.a", "comm.assistant_message"],
}
LIMITS = [
    ContextLimits(events=5),
    ContextLimits(events=10, bytes=400),
    ContextLimits(events=10, bytes=150),
    ContextLimits(events=10, bytes=0),
    ContextLimits(events=200),
    ContextLimits(events=30, bytes=1500),
    ContextLimits(events=0, bytes=1),
]


def expected_context(events: Sequence[EventRecord], limits: ContextLimits) -> list[UUID]:
    """Return the identifiers of the events in a context, by the rule of `ContextLimits`."""
    if limits.events == 0:
        return [event.event_id for event in events]
    newest_first = list(reversed(events))
    comm = [event for event in newest_first if event.event_type.startswith("comm.")][: limits.events]
    states: dict[str, EventRecord] = {}
    for event in newest_first:
        if event.event_type.startswith(STATE_PREFIX):
            states.setdefault(event.event_type, event)
    recent = newest_first[: 2 * limits.events]
    chosen: dict[UUID, int] = {}
    for event in (*newest_first[:1], *comm, *states.values(), *recent):
        if event.event_id in chosen:
            continue
        size = len(event.event_data or b"")
        if chosen and sum(chosen.values()) + size > limits.bytes:
            break
        chosen[event.event_id] = size
    return [event.event_id for event in events if event.event_id in chosen]


class Contexts(StoreTests):
    """Tests that a run begins with the newest events of its thread."""

    @pytest.mark.parametrize("shape", SHAPES)
    async def test_a_context_has_the_events_of_the_rule(self, store: ThreadStore, shape: str) -> None:
        sent = [make_event(kind, {"n": "x" * (number % 37)}) for number, kind in enumerate(SHAPES[shape])]
        thread_id = await fill(store, sent)
        for limits in LIMITS:
            for message_type in ("comm.user_message", "ui.click", f"{STATE_PREFIX}mood"):
                plan = make_plan(selectors=(ById(thread_id),), context=limits, event_type=message_type)
                accepted = await store.accept(plan)
                await store.finish(plan.run_id, OWNER, completed())
                events = await all_events(store, thread_id)
                assert accepted.snapshot is not None
                assert ids_of(accepted.snapshot.rows) == expected_context(events, limits), limits
                assert accepted.snapshot.truncated == (len(accepted.snapshot.rows) < len(events)), limits

    async def test_the_newest_event_is_in_the_context_however_large(self, store: ThreadStore) -> None:
        await take_turn(store)
        accepted = await take_turn(store, text="x" * 5000, context=ContextLimits(bytes=1000))
        assert accepted.snapshot is not None
        assert types_of(accepted.snapshot.rows) == ["comm.user_message"]
        assert accepted.snapshot.truncated

    async def test_events_can_be_loaded_back_to_the_first(self, store: ThreadStore) -> None:
        thread_id = await fill(store, [make_event(f"rag.{number}") for number in range(20)])
        loaded: list[UUID] = []
        before = None
        while rows := await store.load_events(thread_id, before, 7):
            events = [decode_row(thread_id, row) for row in rows]
            loaded = [event.event_id for event in events] + loaded
            before = events[0]
            assert len(loaded) <= 22, "loading back does not end"
        assert loaded == [event.event_id for event in await all_events(store, thread_id)]
        assert await store.load_events(uuid7(), None, 7) == []
        for nothing in (0, -1):
            assert await store.load_events(thread_id, None, nothing) == []
            assert await store.load_events(thread_id, before, nothing) == []
