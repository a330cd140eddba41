"""Chooses the events of a context. The rule is the same for every store."""

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any

from jimsapi.threads.event import STATE_PREFIX, EventRow
from jimsapi.threads.run import ContextLimits, Snapshot

COMM_PREFIX = "comm."

_in_order: Callable[[EventRow], Any] = attrgetter("created_at", "event_id")


def window_size(limits: ContextLimits) -> int:
    """Return how many of the newest events of any type a context has."""
    return 2 * limits.events


def is_comm(row: EventRow) -> bool:
    """Return whether this event is a message of the user or the assistant (`comm.*`)."""
    return row.event_type.startswith(COMM_PREFIX)


def choose(
    window: Sequence[EventRow],
    older_comm: Sequence[EventRow],
    older_states: Sequence[EventRow],
    limits: ContextLimits,
) -> list[EventRow]:
    """Return the events of a context, oldest first.

    All arguments are newest first. `window` has the newest events of any type; a store may stop reading when their text
    exceeds `limits.bytes`. `older_comm` and `older_states` have the `comm.*` events and the newest states that belong
    to the context and are older than the window.

    If the text of all events exceeds `limits.bytes`, they are added in this order, until one does not fit: the newest
    event, which is always added; the `comm.*` events; the newest states; the other events. Each group is newest first.
    """
    older = [*older_comm, *older_states]
    if _size(window) + _size(older) <= limits.bytes:
        return sorted(older, key=_in_order) + list(reversed(window))
    kept: set[int] = set()
    bytes_left = limits.bytes
    for row in _by_importance(window, older_comm, older_states, limits):
        bytes_left -= len(row.data or b"")
        if bytes_left < 0 and kept:
            break
        kept.add(id(row))
    return [row for row in chain(sorted(older, key=_in_order), reversed(window)) if id(row) in kept]


def snapshot_of(rows: Sequence[EventRow], limits: ContextLimits) -> Snapshot:
    """Return the context of a thread that has the events `rows`, oldest first.

    A store that does not hold all events of a thread in memory reads the arguments of `choose` itself.
    """
    if limits.events == 0:
        return Snapshot([*rows], False)
    edge = max(0, len(rows) - window_size(limits))
    older, window = rows[:edge], rows[edge:]
    newest_states = {row.event_type: row for row in rows if row.event_type.startswith(STATE_PREFIX)}
    comm_left = max(0, limits.events - sum(map(is_comm, window)))
    chosen = choose(
        window[::-1],
        [row for row in reversed(older) if is_comm(row)][:comm_left],
        [row for row in reversed(older) if newest_states.get(row.event_type) is row],
        limits,
    )
    return Snapshot(chosen, len(chosen) < len(rows))


def end_with(snapshot: Snapshot, message: Sequence[EventRow]) -> Snapshot:
    """Return the context with a message moved to its end. The run answers it, and it may not be the newest event.

    `message` has the events beside the message, then the message. Their identifiers must have the same format as those
    of the snapshot's rows.
    """
    rows = snapshot.rows
    if rows and rows[-1].event_id == message[-1].event_id:
        return snapshot
    moved = {row.event_id for row in message}
    return Snapshot([*(row for row in rows if row.event_id not in moved), *message], snapshot.truncated)


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
