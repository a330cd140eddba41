"""Everything that a store has, in a form that every other store can hold, and the digests by which two are compared.

A store that can be copied implements `PortableStore`. `jimsapi.threads.copying` copies one to another.
"""

import json
from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from hashlib import blake2b
from typing import Any, Protocol
from uuid import UUID

import msgspec
import orjson

from jimsapi.threads.errors import DomainError
from jimsapi.threads.facts import Feedback, ThreadFacts
from jimsapi.threads.run import FailureKind, RunStatus
from jimsapi.threads.subscriptions import SubscriptionStore
from jimsapi.threads.usage import ModelTotal, UsageTotal


class WholeEvent(msgspec.Struct, frozen=True, gc=False):
    """An event with all columns of JIMS. `created_at` is in UTC, without a time zone. `data` is JSON text."""

    event_id: UUID
    created_at: datetime
    event_type: str
    event_domain: str | None
    event_name: str | None
    data: bytes | None


class EndedRun(msgspec.Struct, frozen=True, kw_only=True):
    """The record of a run that has ended. Its times are in UTC, and have this time zone except `sent_at`.

    The events that it sent have times from `sent_at` on, a `TICK` apart, and their number is `sent`. `sent_at` is in
    UTC, without a time zone; None if `sent` is 0.
    """

    run_id: UUID
    status: RunStatus
    created_new_thread: bool
    accepted_at: datetime
    started_at: datetime | None
    finished_at: datetime
    error: str | None
    failure: FailureKind | None
    message_id: UUID
    continues: bool
    caller: UUID | None
    background: bool
    webhook_url: str | None
    sent_at: datetime | None
    sent: int
    streamed: int | None
    restarts: int = 0


class WholeThread(msgspec.Struct, frozen=True, kw_only=True):
    """A thread with everything that belongs to it.

    - `created_at` has no time zone: it is the local time of the process that created the thread, as JIMS stores it.
    - `events` are in the order of their times, and `runs` in the order of their identifiers.
    - `feedback` is in the order of the identifiers of events, and `usage` in the order of models.
    """

    thread_id: UUID
    contact_id: str | None
    external_id: str | None
    created_at: datetime
    thread_config: bytes
    facts: ThreadFacts
    events: Sequence[WholeEvent] = ()
    runs: Sequence[EndedRun] = ()
    feedback: Sequence[Feedback] = ()
    usage: Sequence[ModelTotal] = ()


class ContactUsage(msgspec.Struct, frozen=True, gc=False):
    """What a caller has used of a model for a contact on a day in UTC."""

    contact_id: str
    day: date
    model: str
    caller: UUID
    total: UsageTotal

    @property
    def position(self) -> tuple[Any, ...]:
        """The position in the order of all records of this kind."""
        return self.contact_id, self.day, self.model, self.caller


class CallerUsage(msgspec.Struct, frozen=True, gc=False):
    """What a caller has used of a model on a day in UTC."""

    caller: UUID
    day: date
    model: str
    total: UsageTotal

    @property
    def position(self) -> tuple[Any, ...]:
        """The position in the order of all records of this kind."""
        return self.caller, self.day, self.model


class KeyRecord(msgspec.Struct, frozen=True, gc=False):
    """An idempotency key: the digest of its request, the last run that had it, and the time in UTC."""

    key: UUID
    body: UUID
    run_id: UUID
    used_at: datetime

    @property
    def position(self) -> tuple[Any, ...]:
        """The position in the order of all records of this kind."""
        return (self.key,)


class SubscriptionRecord(msgspec.Struct, frozen=True, gc=False):
    """A subscription to a run that a thread of the store has (`jimsapi.threads.Subscription`).

    `due_at` is when it is due; None if it is settled. `call_at` is when a call that failed may be repeated; None if
    there is none. Both are in UTC, with this time zone. `data` may contain secrets, so no `repr` shows it.
    """

    run_id: UUID
    kind: str
    name: str
    subscription_id: UUID
    thread_id: UUID
    caller: UUID | None
    data: bytes
    notice: str | None
    calls: int
    due_at: datetime | None
    call_at: datetime | None

    def __repr__(self) -> str:
        return f"SubscriptionRecord({self.kind!r}, run_id={self.run_id})"

    @property
    def position(self) -> tuple[Any, ...]:
        """The position in the order of all records of this kind."""
        return self.run_id, self.kind, self.name


Record = ContactUsage | CallerUsage | KeyRecord | SubscriptionRecord
"""What a store has beside its threads."""
RecordKind = type[ContactUsage] | type[CallerUsage] | type[KeyRecord] | type[SubscriptionRecord]
"""A kind of records: the class of one of `Record`."""
RECORDS: tuple[RecordKind, ...] = (ContactUsage, CallerUsage, KeyRecord, SubscriptionRecord)
"""The kinds of records, in the order in which they are copied, after the threads."""


class Activity(msgspec.Struct, frozen=True):
    """What goes on in a store: the number of its open runs, and of the processes of others that serve it."""

    open_runs: int
    processes: int


class ThreadRefused(DomainError):
    """The store cannot hold a thread of another store. `reason` says why, without quoting what people wrote."""

    def __init__(self, thread_id: UUID, reason: str) -> None:
        super().__init__(f"the thread {thread_id} cannot be stored: {reason}")
        self.thread_id = thread_id


class PortableStore(Protocol):
    """The methods of a `ThreadStore` by which its content is copied to another store, and compared with it.

    A store does not need them to serve. Nobody else writes to the store meanwhile. The outbox, the sinks, the leases of
    processes and the index of the search are not part of the content.

    Any method may raise `StoreUnavailable`, and may then be called again: what is imported twice is stored once.
    """

    name: str

    @property
    def subscriptions(self) -> SubscriptionStore | None: ...

    async def activity(self) -> Activity:
        """Return what goes on in the store. A store that only one process can open has no processes of others."""

    async def count_threads(self) -> int:
        """Return the number of threads."""

    async def export_threads(self, after: UUID | None, limit: int) -> list[WholeThread]:
        """Return the next threads after the thread `after`, at most `limit`; none at the end. None begins.

        The order is that of the identifiers as the store keeps them. There are fewer than `limit` if their texts exceed
        `PAGE_BYTES`, but at least one. Open runs are left out.
        """

    async def export_by_id(self, thread_ids: Sequence[UUID]) -> list[WholeThread]:
        """Return those of these threads that the store has, in the same order."""

    async def import_threads(self, threads: Sequence[WholeThread]) -> int:
        """Store threads with everything that belongs to them, in one transaction. Returns the number of new threads.

        A thread that the store has stays as it is. Nothing is added to the outbox or to the totals of usage.

        Raises `ThreadRefused` if a thread cannot be stored. Those before it may be stored.
        """

    async def export_records(self, kind: RecordKind, after: Record | None, limit: int) -> list[Record]:
        """Return the next records of a kind after the record `after`, at most `limit`; none at the end. None begins.

        The order is that of `position`, in which texts compare by their UTF-8. Subscriptions to runs that the store
        does not have, or whose thread was deleted, are left out. A store that keeps no subscriptions is not asked for
        them.
        """

    async def import_records(self, records: Sequence[Record]) -> None:
        """Store records of one kind, in one transaction. A record whose `position` the store has stays as it is."""


TRANSFER_METHODS = (
    "activity",
    "count_threads",
    "export_threads",
    "export_by_id",
    "import_threads",
    "export_records",
    "import_records",
)
"""The names of the methods of `PortableStore`."""


def thread_size(thread: WholeThread) -> int:
    """Return the bytes of the texts of a thread."""
    return len(thread.thread_config) + sum([len(event.data) for event in thread.events if event.data is not None])


def digest_thread(thread: WholeThread) -> int:
    """Return a number that is equal for equal threads. It has 128 bits.

    JSON is compared as values: PostgreSQL writes the configuration of a thread in its own way.
    """
    facts = thread.facts
    parent = facts.parent and (facts.parent.thread_id, facts.parent.event_id)
    return _digest(
        [
            (thread.thread_id, thread.contact_id, thread.external_id, thread.created_at),
            canonical_json(thread.thread_config),
            (facts.title, facts.archived_at, canonical_json(facts.metadata), parent),
            # Other JIMS programs may store several events of one moment, which stores return in any order.
            [_event_parts(event) for event in sorted(thread.events, key=_event_order)],
            [msgspec.structs.astuple(run) for run in thread.runs],
            [(given.event_id, given.rating.rating, given.rating.comment, given.given_at) for given in thread.feedback],
            [(used.model, *msgspec.structs.astuple(used.total)) for used in thread.usage],
        ]
    )


def digest_record(record: Record) -> int:
    """Return a number that is equal for equal records. It has 128 bits."""
    return _digest([type(record).__name__, *msgspec.structs.astuple(record)])


def canonical_json(text: bytes | str | None) -> str | None:
    """Return a text that is equal for texts of equal JSON values, or the text itself if it is not JSON."""
    if text is None:
        return None
    text = text if isinstance(text, str) else text.decode("utf-8", "backslashreplace")
    try:
        value = json.loads(text, parse_float=_number, parse_int=_number)
        return json.dumps(value, sort_keys=True, separators=(",", ":"))
    except (ValueError, RecursionError):
        return text


def _number(text: str) -> str:
    """Return a text that is equal for equal numbers: its digits without zeros at both ends, and the exponent.

    It begins with a NUL, so no text of JSON that people write is equal to it.
    """
    sign, digits, exponent = 0, text, 0
    if not text.isdigit():
        sign, parts, power = Decimal(text).as_tuple()
        assert isinstance(power, int)  # JSON has no infinities among its numbers
        digits, exponent = "".join(map(str, parts)), power
    significant = digits.rstrip("0")
    exponent += len(digits) - len(significant)
    significant = significant.lstrip("0")
    return f"\0{'-' * sign}{significant}e{exponent}" if significant else "\0"


def _event_order(event: WholeEvent) -> tuple[datetime, UUID]:
    return event.created_at, event.event_id


def _event_parts(event: WholeEvent) -> tuple[Any, ...]:
    *columns, data = msgspec.structs.astuple(event)
    return *columns, canonical_json(data)


def _digest(parts: Any) -> int:
    text = orjson.dumps(parts, default=msgspec.to_builtins)
    return int.from_bytes(blake2b(text, digest_size=16).digest(), "big")
