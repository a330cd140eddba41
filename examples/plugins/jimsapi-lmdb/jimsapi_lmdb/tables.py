"""The tables in an LMDB environment, and what is in them.

| table | key | value |
|---|---|---|
| threads | thread | `Thread` |
| contacts | digest of the contact, time of creation, thread | |
| externals | digest of the external identifier, time of creation, thread | |
| events | thread, time | `StoredEvent` |
| identifiers | thread, event | time |
| comm | thread, time of a `comm.*` event | |
| states | thread, digest of the type of a state | time of the newest |
| runs | run | `Run` |
| queue | thread, number of acceptance, of an open run | run |
| thread_runs | thread, run | |
| keys | idempotency key | time of acceptance, run |
| facts | thread | `Facts` |
| feedback | thread, event | `StoredRating` |
| thread_usage | thread, digest of the model | `Total` |
| contact_usage | digest of the contact, day, caller, digest of the model | `Total` |
| caller_usage | caller, day, digest of the model | `Total` |

Times are microseconds since 1970, and days are ordinals of `date`, in 8 bytes. Identifiers are 16 bytes. So keys sort
by time.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Any
from uuid import UUID

import lmdb
import msgspec
from jimsapi.threads import EventRow, NewEvent, UsageTotal

NAMES = (
    "threads contacts externals events identifiers comm states asked runs queue thread_runs keys facts forks feedback "
    "thread_usage contact_usage caller_usage"
).split()
EPOCH = datetime(1970, 1, 1)
LAST = b"\xff" * 24


class StoredEvent(msgspec.Struct, array_like=True):
    """An event of a thread, or a message that has not entered it."""

    event_id: bytes
    type: str
    data: bytes

    def row(self, at: int) -> EventRow:
        """Return the event for a context."""
        return EventRow(UUID(bytes=self.event_id), time_of(at), self.type, self.data)


class Thread(msgspec.Struct, array_like=True):
    """A thread. `count` is the number of its events, `newest` the time of the last one."""

    thread_id: bytes
    contact_id: str
    created: int
    config: bytes
    external_id: str | None
    newest: int = 0
    count: int = 0


class Facts(msgspec.Struct, array_like=True):
    """What was said of a thread. Times are in microseconds; `parent_event` is the newest event from the parent."""

    title: str | None = None
    archived: int | None = None
    metadata: bytes = b"{}"
    parent: bytes | None = None
    parent_event: bytes | None = None


class StoredRating(msgspec.Struct, array_like=True):
    """The rating of an event, and the time at which it was given."""

    rating: int
    comment: str | None
    given: int


class Total(msgspec.Struct, array_like=True):
    """What a model was used for."""

    model: str
    total: UsageTotal


class Run(msgspec.Struct, array_like=True):
    """A run. `entered` has the times of what entered the thread at its start, `sent` of what its answer shows."""

    run_id: bytes
    thread_id: bytes
    owner: bytes
    number: int
    message: StoredEvent
    status: str
    created_new_thread: bool
    continues: bool
    background: bool
    accepted: int
    caller: bytes | None
    webhook_url: str | None
    body: bytes | None
    created: list[int] = []
    entered: list[int] = []
    sent: list[int] = []
    started: int | None = None
    finished: int | None = None
    error: str | None = None
    streamed: int | None = None
    failure: str | None = None
    in_thread: bool = False
    beside: list[StoredEvent] = []
    restarts: int = 0


class Table:
    """One table in one transaction."""

    def __init__(self, transaction: lmdb.Transaction, database: Any) -> None:
        self._transaction = transaction
        self._database = database

    def get(self, key: bytes) -> bytes | None:
        """Return a value; None if there is none."""
        found = self._transaction.get(key, db=self._database)
        return None if found is None else bytes(found)

    def put(self, key: bytes, value: bytes = b"") -> None:
        """Store a value."""
        self._transaction.put(key, value, db=self._database)

    def delete(self, key: bytes) -> None:
        """Delete a value, if there is one."""
        self._transaction.delete(key, db=self._database)

    def forward(self, prefix: bytes, after: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Yield keys and values of a prefix that are greater than `after`, in order."""
        cursor: Any = self._transaction.cursor(db=self._database)
        if cursor.set_range(after or prefix):
            for key, value in cursor.iternext():
                if not key.startswith(prefix):
                    return
                if key != after:
                    yield key, value

    def backward(self, prefix: bytes, before: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Yield keys and values of a prefix that are less than `before`, in reverse order."""
        cursor: Any = self._transaction.cursor(db=self._database)
        found = cursor.prev() if cursor.set_range(before or prefix + LAST) else cursor.last()
        if found:
            for key, value in cursor.iterprev():
                if not key.startswith(prefix):
                    return
                yield key, value


def stored(event: NewEvent) -> StoredEvent:
    """Return an event as it is stored."""
    return StoredEvent(event.event_id.bytes, event.event_type, event.data)


def digest(text: str) -> bytes:
    """Return a key for a text of any length."""
    return blake2b(text.encode(), digest_size=32).digest()


def packed(number: int) -> bytes:
    """Return a key for a time or another number."""
    return number.to_bytes(8, "big")


def number_of(key: bytes) -> int:
    """Return the number for which `packed` returned a key."""
    return int.from_bytes(key, "big")


def time_of(microseconds: int) -> datetime:
    """Return a time in UTC, without a time zone."""
    return EPOCH + timedelta(microseconds=microseconds)


def microseconds_of(time: datetime) -> int:
    """Return the number for a time in UTC."""
    return (time.replace(tzinfo=None) - EPOCH) // timedelta(microseconds=1)
