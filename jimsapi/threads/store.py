"""The protocol that every store of threads keeps. `jimsapi.testing.ThreadStoreContract` holds a store to it."""

import base64
import binascii
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Protocol, Self, TypeVar
from uuid import UUID

import msgspec
import orjson

from jimsapi.threads.errors import InvalidCursor
from jimsapi.threads.event import Event, EventRow, NewEvent
from jimsapi.threads.run import (
    Accepted,
    AdoptedRun,
    ContextLimits,
    EventPage,
    Outcome,
    RunPlan,
    Settled,
    Started,
    StoredRun,
    ThreadPage,
    ThreadRecord,
)

Item = TypeVar("Item")

KEEP_KEYS = timedelta(hours=24)
"""How long an idempotency key is known."""


class CommitRecord(msgspec.Struct, frozen=True):
    """One durable transaction: how many operations shared it, how long it took in seconds, whether it failed."""

    operations: int
    duration: float
    failed: bool


class ThreadStore(Protocol):
    """Keeps threads, their events and their runs. Every method that writes is one durable transaction, or nothing.

    A store is an async context manager: entering it opens it (and raises `StoreUnusable` with the cause if it can't),
    leaving it closes it. Any method may raise `StoreUnavailable`; the caller may then ask again: every write is
    keyed by identifiers that the caller made, so that asking twice does not store twice.

    At most one run of a thread is `running`. The runs of a thread start in the order in which `accept` took them.
    """

    name: str
    """What a start prints: the kind and place of the store, without passwords."""

    on_commit: Callable[[CommitRecord], None] | None
    """Told of every commit, in the event loop's thread. Set by the service."""

    on_turn: Callable[[UUID], None] | None
    """Told, in the event loop's thread, of a run of this process that may start, or was ended, because of what another
    process did. Set by the service; a store that one process has for itself leaves it alone."""

    keep_keys: timedelta
    """How long an idempotency key is known after a run took it: `KEEP_KEYS`, unless a test sets another time."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    async def ping(self) -> None:
        """Answer if the store can do its work; raise `StoreUnavailable` if not. `/readyz` shows its `reason`."""

    async def accept(self, plan: RunPlan) -> Accepted:
        """Take an inbound message: find or create its thread, and give its run a place in the thread's queue.

        The first of `plan.selectors` that matches decides; several concurrent first messages of a contact make one
        thread. A new thread gets the event `jims.lifecycle.thread_created`. If no open run stands before it and no
        conversation start is due, the run starts here: the message enters the thread and the context comes back.

        Asked again with the same run, it answers as before (whose commit was in doubt). Then `plan.idempotency` is
        looked at, before the selectors. Its key is known if a run took it within `keep_keys`, and that run is not
        forgotten or deleted, nor was it cancelled before its message entered the thread. If the known key came with
        the same body, and its run

        - is open, completed, failed, or cancelled: `KeyUsed`;
        - was interrupted: this run answers the message that is in the thread already, without a second copy of it. The
          selectors are not asked, and nobody is greeted. The context ends with that message, wherever it stands. If the
          message is gone, it enters again, with its old identifier. Such a run, cancelled before its start, leaves the
          key as the interrupted one did.

        A key that is not known, and that of an interrupted run, goes over to this run.

        Raises:
            KeyUsed: the key is that of an earlier run, which it names.
            KeyMismatch: the key is known, and came with another body.
            ThreadNotFound: no selector matched, or the thread is not of `plan.acting_for`.
            QueueFull: `plan.queue_limit` runs wait in the thread already.
        """
        ...

    async def start(
        self, run_id: UUID, owner: UUID, events: Sequence[NewEvent], context: ContextLimits
    ) -> Started | None:
        """Start a queued run if it is its thread's oldest open one; None if others still stand before it.

        Appends `events` (of a conversation start) and then the message, unless `accept` found it in the thread; loads
        the context after that.

        Raises:
            RunClosed: the run is open no more, or not of `owner`.
            IdentifierTaken: one of `events` is in the thread already.
        """
        ...

    async def finish(self, run_id: UUID, owner: UUID, outcome: Outcome) -> Settled:
        """End a running run: all its outgoing events and its outcome, or nothing. What `run` answers then is kept.

        Counts only while the run is `running` and of `owner`; else nothing is written. Asked twice, the second call
        does not count.

        Raises:
            IdentifierTaken: one of the events is in the thread already; the run is still `running`.
        """
        ...

    async def cancel(self, run_id: UUID) -> Settled:
        """Make an open run `cancelled`. The message of one that had not started does not enter the thread."""
        ...

    async def heartbeat(self, owner: UUID, live: Collection[UUID]) -> list[UUID]:
        """Say that `owner` is alive and that `live` are the runs it works on.

        Runs of `owner` that are open and not in `live` are ended: running ones as `interrupted`, queued ones as
        `cancelled` (a COMMIT in doubt must not lock a thread). Returns runs that may start because of that.

        A run is in the caller's `live` before it is accepted: look into `live` no earlier than at the rows, or a run
        that is accepted meanwhile passes for an orphan.
        """
        ...

    async def recover(self, owner: UUID) -> int:
        """End the open runs of dead owners as `interrupted`; the message of one that had not started enters its thread.

        Background runs that wait are left for `adopt`.

        A store that one process holds alone counts every owner but `owner` as dead. Returns the number of runs ended.
        """
        ...

    async def adopt(self, owner: UUID) -> list[AdoptedRun]:
        """Make the background runs of dead owners that still wait `owner`'s; those of a thread come oldest first.

        Who is dead is as for `recover`, which comes before it; a store that several processes share is asked at each
        heartbeat too. What comes back is to be in `live` at the next heartbeat. `accept` with such a run's identifier
        and message answers as before, and `start` starts it in its turn.
        """
        ...

    async def run(self, run_id: UUID, acting_for: str | None, caller: UUID | None) -> StoredRun:
        """One run, with the events that its `finish` stored and no others, and with the `failure` that it was given.

        Raises `RunNotFound` if there is none, or its thread is not of the contact `acting_for` (None: any), or it was
        not asked for by `caller` (None: anybody's).
        """
        ...

    async def thread(self, thread_id: UUID, acting_for: str | None) -> ThreadRecord:
        """One thread. Raises `ThreadNotFound` if there is none, or it is not of the contact `acting_for`."""
        ...

    async def threads(self, contact_id: str, limit: int, after: str | None) -> ThreadPage:
        """A page of a contact's threads, newest first, cut as `take_page` does. Raises `InvalidCursor`."""
        ...

    async def events(self, thread_id: UUID, acting_for: str | None, limit: int, after: str | None) -> EventPage:
        """A page of a thread's events, oldest first, cut as `take_page` does.

        Raises `ThreadNotFound` as `thread` does, and `InvalidCursor`.
        """
        ...

    async def load_events(self, thread_id: UUID, before: Event | None, limit: int) -> list[EventRow]:
        """The newest `limit` events of a thread older than `before` (None: the newest of all), oldest first.

        It does not check who may see the thread: the caller has done that. An unknown thread has no events.
        """
        ...

    async def delete_thread(self, thread_id: UUID, acting_for: str | None) -> list[UUID]:
        """Delete a thread, its events and its runs. Returns the runs that were open. Raises `ThreadNotFound`."""
        ...

    async def delete_contact(self, contact_id: str) -> list[UUID]:
        """Delete all threads of a contact, as `delete_thread` does. Returns the runs that were open."""
        ...

    async def purge(self, older_than: timedelta) -> int:
        """Forget runs that ended longer ago than `older_than`; their events stay. Returns how many.

        Keys that are older than `keep_keys` are forgotten too, whatever became of their runs.
        """
        ...


PAGE_BYTES = 4_194_304
"""A page ends once the JSON text of its items exceeds this: a thousand items may be a gigabyte."""


def take_page(
    items: Iterable[Item], limit: int, text_of: Callable[[Item], bytes | str | None]
) -> tuple[list[Item], bool]:
    """Take a page's items from all that follow: at most `limit`, and `PAGE_BYTES` of text but for the first.

    Returns the items, and whether there are more.
    """
    page: list[Item] = []
    room = PAGE_BYTES
    for item in items:
        room -= len(text_of(item) or "")
        if len(page) == limit or (room < 0 and page):
            return page, True
        page.append(item)
    return page, False


def encode_cursor(*parts: str) -> str:
    """Make a page's cursor of the parts that a store needs to go on there; opaque to clients."""
    return base64.urlsafe_b64encode(orjson.dumps(parts)).rstrip(b"=").decode()


def decode_cursor(cursor: str, count: int) -> list[str]:
    """Read a cursor of `count` parts. Raises `InvalidCursor` for what `encode_cursor` cannot have made."""
    try:
        parts = orjson.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError):
        raise InvalidCursor from None
    if not (isinstance(parts, list) and len(parts) == count and all(isinstance(part, str) for part in parts)):
        raise InvalidCursor
    if any("\0" in part for part in parts):
        raise InvalidCursor
    return parts
