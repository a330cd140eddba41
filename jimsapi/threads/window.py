"""Which of a thread's events a context begins with: one rule for every store, whatever the thread's length."""

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any

from jimsapi.threads.event import STATE_PREFIX, EventRow
from jimsapi.threads.run import ContextLimits, Snapshot

COMM_PREFIX = "comm."

_in_order: Callable[[EventRow], Any] = attrgetter("created_at", "event_id")


def window_size(limits: ContextLimits) -> int:
    """How many of the newest events of any type a context holds."""
    return 2 * limits.events


def is_comm(row: EventRow) -> bool:
    """Whether the person sees this event."""
    return row.event_type.startswith(COMM_PREFIX)


def choose(
    window: Sequence[EventRow],
    older_comm: Sequence[EventRow],
    older_states: Sequence[EventRow],
    limits: ContextLimits,
) -> list[EventRow]:
    """Choose what a context holds, and put it in order, oldest first.

    `window` are the newest events of any type (a store may stop reading where their text exceeds `limits.bytes`);
    `older_comm` and `older_states` are the `comm.*` events and the newest states that belong to the context but are
    older than the window. All three come newest first.

    Where all together exceed `limits.bytes`, the newest event stays, then as many as fit of the `comm.*`, of the newest
    states, and of the others, each newest first; the first that does not fit ends the choice.
    """
    older = [*older_comm, *older_states]
    if _size(window) + _size(older) <= limits.bytes:
        return sorted(older, key=_in_order) + list(reversed(window))
    kept: set[int] = set()
    room = limits.bytes
    for row in _by_importance(window, older_comm, older_states, limits):
        room -= len(row.data or b"")
        if room < 0 and kept:
            break
        kept.add(id(row))
    return [row for row in chain(sorted(older, key=_in_order), reversed(window)) if id(row) in kept]


def end_with(snapshot: Snapshot, message: EventRow) -> Snapshot:
    """The same context, with the message that is to be answered at its end, though it entered the thread earlier.

    `message` is spelled as the snapshot's rows are.
    """
    rows = snapshot.rows
    if rows and rows[-1].event_id == message.event_id:
        return snapshot
    return Snapshot([*(row for row in rows if row.event_id != message.event_id), message], snapshot.truncated)


def _by_importance(
    window: Sequence[EventRow],
    older_comm: Sequence[EventRow],
    older_states: Sequence[EventRow],
    limits: ContextLimits,
) -> Iterable[EventRow]:
    comm: list[EventRow] = []
    states: dict[str, EventRow] = {}
    others: list[EventRow] = []
    for row in window:
        if is_comm(row) and len(comm) < limits.events:
            comm.append(row)
        elif row.event_type.startswith(STATE_PREFIX) and row.event_type not in states:
            states[row.event_type] = row
        else:
            others.append(row)
    newest = window[0]
    yield newest
    for row in chain(comm, older_comm, states.values(), older_states, others):
        if row is not newest:
            yield row


def _size(rows: Iterable[EventRow]) -> int:
    return sum([len(row.data) for row in rows if row.data])
