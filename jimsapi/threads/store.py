"""The protocol that every thread store implements. `jimsapi.testing.ThreadStoreContract` tests a store against it."""

import base64
import binascii
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import date, timedelta
from types import TracebackType
from typing import Protocol, Self, TypeVar
from uuid import UUID

import msgspec
import orjson

from jimsapi.threads.errors import InvalidCursor
from jimsapi.threads.event import Event, EventRow, NewEvent
from jimsapi.threads.facts import (
    Created,
    Feedback,
    ForkPlan,
    Rating,
    ThreadChange,
    ThreadFacts,
    ThreadPlan,
    ThreadSummary,
)
from jimsapi.threads.outbox import Outbox
from jimsapi.threads.run import (
    NO_RUN_FILTER,
    Accepted,
    AdoptedRun,
    ContactPage,
    ContextLimits,
    EventPage,
    Outcome,
    RunFilter,
    RunPage,
    RunPlan,
    Settled,
    Started,
    StoredRun,
    ThreadPage,
    ThreadQuery,
    ThreadRecord,
)
from jimsapi.threads.search import NO_FILTER, SearchPage, SearchQuery, ThreadFilter
from jimsapi.threads.subscriptions import SubscriptionStore
from jimsapi.threads.usage import DayTotal, ModelTotal, UsageHolder

Item = TypeVar("Item")

KEEP_KEYS = timedelta(hours=24)
"""How long an idempotency key is known."""


class CommitRecord(msgspec.Struct, frozen=True):
    """A record of one transaction: the number of its operations, its duration in seconds, and whether it failed."""

    operations: int
    duration: float
    failed: bool


class ThreadStore(Protocol):
    """Stores threads, their events and their runs. Every method that writes is one durable transaction.

    A store is an async context manager. Entering opens it, and raises `StoreUnusable` with the cause if that fails.
    Exiting closes it. Any method may raise `StoreUnavailable`. The service may then call the method again: every write
    has identifiers that the service made, so a repeated call does not store twice.

    At most one run of a thread is `running`. The runs of a thread start in the order in which `accept` accepted them.
    The times of two events of a thread differ by at least `TICK`. A new thread gets an event `THREAD_CREATED` with the
    data `{}`. The times in records (`ThreadRecord`, `EventRecord`, `StoredRun`) have the time zone UTC; those of an
    `EventRow` are in UTC without a time zone.

    Whenever a store stores events `model.usage` for the first time (`start`, `finish`, `append`), the same transaction
    adds them to the totals of usage: of the thread, of its contact, and of the caller of the run, by model and, except
    for the thread, by day in UTC (`usage_by_model`). The message of a run and the events beside it never count, and
    neither do the events that `fork` copies.

    - `name`: the kind and location of the store, which the server prints when it starts. It must not contain passwords.
    - `on_commit`: the store calls it after every transaction that wrote, in the thread of the event loop. None at
      first; the service sets it.
    - `on_turn`: the store calls it, in the thread of the event loop, with a run of this process that may start or was
      ended because of another process. None at first; the service sets it. A store that only one process can open
      never calls it.
    - `keep_keys`: how long an idempotency key is known after a run with it was accepted. It is `KEEP_KEYS`; only tests
      change it.
    - `max_restarts`: how often a background run may start again whose process died after its start. 0 at first; the
      service sets it to the `restarts` of the app.
    - `outbox`: what durable sinks have not received yet. If a sink is registered in it, each transaction that stores
      events adds them to it, in the order of each thread. The events that a fork copies are among them. None if the
      store has no outbox: a server with durable sinks then does not start, and webhooks are lost with their process.
    - `subscriptions`: a `SubscriptionStore`. None if the store keeps no subscriptions.
    - `shareable`: whether several processes can open the same store at the same time. A store without it cannot be
      served with `--workers`.
    """

    name: str
    on_commit: Callable[[CommitRecord], None] | None
    on_turn: Callable[[UUID], None] | None
    keep_keys: timedelta
    max_restarts: int

    @property
    def outbox(self) -> Outbox | None: ...

    @property
    def subscriptions(self) -> SubscriptionStore | None: ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    async def ping(self) -> None:
        """Return if the store works. Raises `StoreUnavailable` if not; `/readyz` shows its `reason`."""

    async def accept(self, plan: RunPlan) -> Accepted:
        """Accept an inbound message: find or create its thread, and add its run to the queue of the thread.

        The store checks, in this order:

        1. The run. If the store has the run `plan.run_id`, it returns the same result as before: the service repeats
           the call because it does not know whether the first one was committed.
        2. The idempotency key, if there is one. The key is known if a run with it was accepted within `keep_keys`, that
           run was not purged or deleted, and it was not cancelled before its message entered the thread. If the key is
           known and has the same body, it depends on that run:

           - It is open, completed, failed or cancelled: the store raises `KeyUsed`.
           - It was interrupted: the new run answers the message that is already in the thread, without a second copy
             of it. The selectors and the conversation start are skipped. The context ends with that message, even if
             the thread has later events. If the thread no longer has the message, it enters again with its old
             identifier. If such a new run is cancelled before its start, the key stays as it was after the
             interruption.

           If the store raises neither error, the key belongs to the new run.
        3. The selectors. The first of `plan.selectors` that matches decides. Concurrent first messages of a contact
           create one thread. A new thread gets the event `jims.lifecycle.thread_created`.

        If the thread has no other open run and no conversation start is due, the run starts here: the message enters
        the thread, and the result has the context. Whenever a message enters a thread, `plan.beside` enters just before
        it.

        Raises:
            KeyUsed: an earlier run has the key. The error names that run.
            KeyMismatch: the key is known and has another body.
            ThreadNotFound: no selector matched, or the thread is not of `plan.acting_for`.
            QueueFull: `plan.queue_limit` runs already wait in the thread.
            IdentifierTaken: the message would enter the thread, which already has an event with its identifier.
        """

    async def start(
        self, run_id: UUID, owner: UUID, events: Sequence[NewEvent], context: ContextLimits
    ) -> Started | None:
        """Start a queued run if it is the oldest open run of its thread. Returns None if older runs are open.

        Appends `events` (those of a conversation start) and then the message, unless `accept` found the message in the
        thread. After that, it loads the context.

        Raises:
            RunClosed: the run is no longer open, or not of `owner`.
            IdentifierTaken: the thread already has one of `events`.
        """

    async def finish(self, run_id: UUID, owner: UUID, outcome: Outcome) -> Settled:
        """End a running run: store its outcome, and all events that `transitions.stored_events` returns for it.

        The call counts only if the run is `running` and of `owner`. Otherwise it writes nothing, so a second call does
        not count.

        Raises:
            IdentifierTaken: the thread already has one of the events. The run is still `running`.
        """

    async def append(
        self, thread_id: UUID, acting_for: str | None, events: Sequence[NewEvent], run_id: UUID | None = None
    ) -> list[EventRow]:
        """Append events to a thread outside of a run, and return their rows. Open runs of the thread do not matter.

        If `run_id` is given, what `events` say of usage is that of the caller of this run, which has ended.

        If the thread has all of the events already, the call repeats an earlier one: it stores nothing, and returns
        their rows.

        Raises:
            ThreadNotFound: as `thread` does.
            IdentifierTaken: the thread has some of the events, but not all. Nothing is stored.
        """

    async def cancel(self, run_id: UUID) -> Settled:
        """End an open run as `cancelled`. If it had not started, its message does not enter the thread."""

    async def heartbeat(self, owner: UUID, live: Collection[UUID]) -> list[UUID]:
        """Record that `owner` is alive and works on the runs `live`.

        Open runs of `owner` that are not in `live` are ended: running ones as `interrupted`, queued ones as
        `cancelled`. Such a run exists if the service did not learn that a COMMIT succeeded; it would block its thread.
        Returns the runs that may start because of that.

        The service adds a run to `live` before it calls `accept`. So read `live` after the rows. Otherwise a run that
        is accepted meanwhile looks like an orphan.
        """

    async def recover(self, owner: UUID) -> int:
        """End the open runs of dead owners as `interrupted`. Returns their number.

        If such a run had not started, its message enters the thread. Background runs that wait, or that may start again
        (`transitions.may_restart`), are not ended, but left for `adopt`. A run that was restarted in vain gets the
        error `transitions.interrupted_error`. In a store that only one process can open, every owner except `owner` is
        dead.
        """

    async def adopt(self, owner: UUID) -> list[AdoptedRun]:
        """Make `owner` the owner of the background runs of dead owners that wait or may start again.

        A run that has started waits again: it is `queued`, has no `started_at`, and continues a message that is in the
        thread. Its `restarts` are one more. Returns these runs; those of one thread are in the order of acceptance.

        The service calls it after `recover`, which has the same dead owners, and after each heartbeat. The runs must be
        in `live` at the next heartbeat. `accept` with the identifier and message of such a run returns the same as
        before, and `start` starts the run when it is its turn.
        """

    async def run(self, run_id: UUID, acting_for: str | None, caller: UUID | None) -> StoredRun:
        """Return one run, with the `failure` that its `finish` stored and, if it completed, exactly its events.

        Raises `RunNotFound` if the run does not exist, its thread is not of the contact `acting_for` (None: any), or it
        is not a run of `caller` (None: any).
        """

    async def runs(
        self, acting_for: str | None, limit: int, after: str | None, only: RunFilter = NO_RUN_FILTER
    ) -> RunPage:
        """Return a page of runs, newest first, with at most `limit` runs.

        `acting_for`: only runs in threads of this contact; None for all. `after` is the cursor of the page; None for
        the first page. `only`: only runs that meet these conditions, too. The runs are in the descending order of their
        identifiers, which begin with a time.

        Raises `ThreadNotFound` as `thread` does for `only.thread_id`, and `InvalidCursor`.
        """

    async def contacts(self, acting_for: str | None, limit: int, after: str | None) -> ContactPage:
        """Return a page of the contacts that have threads, with at most `limit` contacts.

        `acting_for`: only this contact; None for all. `after` is the cursor of the page; None for the first page. The
        contacts are in an order that the store chooses, and that does not change while threads are added. Raises
        `InvalidCursor`.
        """

    async def find_thread(self, query: ThreadQuery) -> ThreadRecord:
        """Return the thread that `accept` would find by these selectors. It creates none.

        Raises `ThreadNotFound` as `accept` does, also if the first selector that matches is `New`.
        """

    async def events_by_id(self, thread_id: UUID, event_ids: Sequence[UUID]) -> list[EventRow]:
        """Return those of these events that the thread has, in the order of `event_ids`.

        It does not check permissions. For an unknown thread it returns an empty list.
        """

    async def thread(self, thread_id: UUID, acting_for: str | None) -> ThreadRecord:
        """Return one thread. Raises `ThreadNotFound` if it does not exist or is not of the contact `acting_for`."""

    async def threads(
        self,
        contact_id: str,
        limit: int,
        after: str | None,
        archived: bool | None = None,
        only: ThreadFilter = NO_FILTER,
    ) -> ThreadPage:
        """Return a page of a contact's threads, newest first, limited as `take_page` does. Raises `InvalidCursor`.

        `after` is the cursor of the page; None for the first page. `archived`: only threads that are archived, or that
        are not; None for all. `only`: only threads that meet these conditions, too.
        """

    async def search(
        self,
        query: SearchQuery,
        contact_id: str,
        limit: int,
        after: str | None,
        archived: bool | None = None,
        only: ThreadFilter = NO_FILTER,
    ) -> SearchPage:
        """Return a page of those of a contact's threads in which a message or the title matches, newest first.

        `jimsapi.threads.search` has the rules. The other arguments and `InvalidCursor` are as for `threads`. A page is
        limited as `take_sized` does by the `size` of its matches. It finds every event that was committed before the
        call, also of other JIMS programs. They may store an event up to a minute after its time.

        A store that has an index may bring it up to date here, as often as it needs; each time is a short transaction.
        """

    async def events(self, thread_id: UUID, acting_for: str | None, limit: int, after: str | None) -> EventPage:
        """Return a page of a thread's events, oldest first, limited as `take_page` does.

        `after` is the cursor of the page; None for the first page. Raises `ThreadNotFound` as `thread` does, and
        `InvalidCursor`.
        """

    async def load_events(self, thread_id: UUID, before: Event | None, limit: int) -> list[EventRow]:
        """Return the `limit` newest events of a thread that are older than `before`, oldest first.

        If `before` is None, it returns the newest events of all. It does not check permissions: the run has its context
        already. For an unknown thread it returns an empty list.
        """

    async def create(self, plan: ThreadPlan) -> Created:
        """Create a thread that has no run yet. It is the newest thread of its contact.

        If the store has `plan.thread_id`, the call repeats an earlier one: it stores nothing, and returns that thread.
        """

    async def fork(self, plan: ForkPlan) -> ThreadRecord:
        """Make a thread that begins as another one does, and return it.

        It is a thread of the same contact, with the same `thread_config`. Its events are copies of the oldest events of
        the parent, with their identifiers, times and data. It has no runs, and its facts are the metadata of the parent
        and the parent itself. It is the newest thread of the contact. If the store has
        `plan.thread_id`, the call repeats an earlier one and returns that thread.

        Raises:
            ThreadNotFound: as `thread` does for the parent.
            EventNotFound: the parent does not have `plan.event_id`, or no event would be left.
        """

    async def change_thread(self, thread_id: UUID, acting_for: str | None, change: ThreadChange) -> ThreadFacts:
        """Change the facts of a thread, and return them. Raises `ThreadNotFound` as `thread` does."""

    async def rate(self, thread_id: UUID, acting_for: str | None, event_id: UUID, rating: Rating | None) -> None:
        """Set the rating of an event, in place of an earlier one; None removes it.

        Raises:
            ThreadNotFound: as `thread` does.
            EventNotFound: the thread does not have the event.
        """

    async def feedback(
        self, thread_id: UUID, acting_for: str | None, limit: int | None = None, after: UUID | None = None
    ) -> list[Feedback]:
        """Return the ratings of a thread's events, in the order of the events.

        `limit`: at most so many; None for all. `after`: only those of events after this event, which may have lost its
        own rating.

        Raises:
            ThreadNotFound: as `thread` does.
            EventNotFound: the thread does not have the event `after`.
        """

    async def summaries(self, thread_ids: Sequence[UUID]) -> list[ThreadSummary]:
        """Return what lists show of these threads, in the same order. It does not check permissions.

        A thread that does not exist has neither facts nor messages.
        """

    async def thread_usage(self, thread_id: UUID, acting_for: str | None) -> list[ModelTotal]:
        """Return what the runs of a thread have used, by model in the order of names. Raises `ThreadNotFound`."""

    async def usage(self, holder: UsageHolder, first: date, last: date) -> list[DayTotal]:
        """Return what a contact or a caller has used from one day to another, in the order of days and models.

        It does not check permissions. Days without usage are left out.
        """

    async def add_usage(self, run_id: UUID, contact_id: str, caller: UUID, events: Sequence[NewEvent]) -> None:
        """Add the usage of a run outside of all threads to the totals of its contact and its caller.

        `events` are `model.usage`; they are not stored. A second call for the same run within `keep_keys` adds nothing.
        """

    async def delete_thread(self, thread_id: UUID, acting_for: str | None) -> list[UUID]:
        """Delete a thread, its events, its runs and its totals of usage. Returns the runs that were open.

        Raises `ThreadNotFound`.
        """

    async def delete_contact(self, contact_id: str) -> list[UUID]:
        """Delete all threads of a contact, as `delete_thread` does, and its totals. Returns the runs that were open.

        The totals of its callers stay: they do not say for which contact something was used.
        """

    async def expire(self, older_than: timedelta) -> int:
        """Delete the threads whose newest event is older than `older_than`, as `delete_thread` does.

        Threads with open runs and threads without events stay. Returns the number of deleted threads.
        """

    async def purge(self, older_than: timedelta) -> int:
        """Delete the record of each run that ended longer ago than `older_than`. The events stay. Returns their number.

        Idempotency keys that are older than `keep_keys` are deleted, too.
        """


PAGE_BYTES = 4_194_304
"""The most bytes of JSON text in a page of several items. Without it, a page of 1000 items could reach a gigabyte."""


def take_page(
    items: Iterable[Item], limit: int, text_of: Callable[[Item], bytes | str | None]
) -> tuple[list[Item], bool]:
    """Return the items of a page, and whether there are more items.

    A page has at most `limit` items and, unless it has only one item, at most `PAGE_BYTES` bytes of the text that
    `text_of` returns.
    """
    return take_sized(items, limit, lambda item: len(text_of(item) or ""))


def take_sized(items: Iterable[Item], limit: int, size_of: Callable[[Item], int]) -> tuple[list[Item], bool]:
    """Return the items of a page as `take_page` does. `size_of` returns the number of bytes of an item."""
    page: list[Item] = []
    bytes_left = PAGE_BYTES
    for item in items:
        bytes_left -= size_of(item)
        if len(page) == limit or (bytes_left < 0 and page):
            return page, True
        page.append(item)
    return page, False


_CONTACTS = "contacts"


def encode_cursor(*parts: str) -> str:
    """Encode the position of the next page as a cursor. The store chooses `parts`; the cursor is opaque to clients."""
    return base64.urlsafe_b64encode(orjson.dumps(parts)).rstrip(b"=").decode()


def decode_cursor(cursor: str, count: int) -> list[str]:
    """Return the `count` parts of a cursor. Raises `InvalidCursor` if `encode_cursor` cannot have made it."""
    try:
        parts = orjson.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError):
        raise InvalidCursor from None
    if not (isinstance(parts, list) and len(parts) == count and all(isinstance(part, str) for part in parts)):
        raise InvalidCursor
    if any("\0" in part for part in parts):
        raise InvalidCursor
    return parts


def encode_id_cursor(kind: str, item_id: UUID) -> str:
    """Encode the position after the item with this identifier, in lists of this kind."""
    return encode_cursor(kind, item_id.hex)


def decode_id_cursor(kind: str, cursor: str) -> UUID:
    """Return the identifier in a cursor. Raises `InvalidCursor` if `encode_id_cursor` cannot have made it."""
    found, item_id = decode_cursor(cursor, 2)
    try:
        identifier = UUID(item_id)
    except ValueError:
        raise InvalidCursor from None
    if found != kind:
        raise InvalidCursor
    return identifier


def encode_contact_cursor(contact_id: str) -> str:
    """Encode the position after a contact, in lists of contacts."""
    return encode_cursor(_CONTACTS, contact_id)


def decode_contact_cursor(cursor: str) -> str:
    """Return the contact in a cursor. Raises `InvalidCursor` if `encode_contact_cursor` cannot have made it."""
    kind, contact_id = decode_cursor(cursor, 2)
    if kind != _CONTACTS:
        raise InvalidCursor
    return contact_id
