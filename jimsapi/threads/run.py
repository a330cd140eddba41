"""Runs: the arguments and results of the methods of a store. `jimsapi.runs.flow` lists the stages of an outcome."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

import msgspec

from jimsapi.threads.event import EPOCH_UTC, EventRow, NewEvent


class RunStatus(StrEnum):
    """The status of a run. A run is open while it is `queued` or `running`. The other statuses are final.

    - `queued`: the run waits for the earlier runs of its thread.
    - `running`: its message is in the thread, and the pipeline may have started.
    - `completed`: the answer is stored.
    - `failed`: the pipeline failed, or took too long.
    - `cancelled`: a caller cancelled the run or deleted its thread; or the run left the queue before its turn, because
      it waited too long or its server shut down.
    - `interrupted`: its server shut down or died. For queued runs, see the rules in `threads/transitions.py`.
    """

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"


class FailureKind(StrEnum):
    """Why a run failed.

    `pipeline`: the pipeline raised, or sent an event that cannot be stored. `timeout`: it exceeded the time limit.
    """

    PIPELINE = "pipeline"
    TIMEOUT = "timeout"


# Every run uses these three. Python 3.11 reads a name of a module ten times as fast as a member of an enumeration.
QUEUED: Final = RunStatus.QUEUED
RUNNING: Final = RunStatus.RUNNING
COMPLETED: Final = RunStatus.COMPLETED
OPEN = (QUEUED, RUNNING)
"""The statuses of runs that have not ended."""


NOBODY: Final = UUID(int=0)
"""The owner of a background run that waits until a worker claims it (`WorkStore`)."""

_ID_TOLERANCE = 86_400_000
"""Milliseconds by which the time in the identifier of a run and the time of its acceptance may differ: a day."""
_LAST_TIME = (1 << 48) - 1
"""The last time, in milliseconds, that an identifier can have."""


class ById(msgspec.Struct, frozen=True):
    """Selects the thread with this identifier."""

    thread_id: UUID


class Latest(msgspec.Struct, frozen=True):
    """Selects the contact's newest thread, if its newest event is no older than `active_within`."""

    active_within: timedelta | None = None


class ByExternalId(msgspec.Struct, frozen=True):
    """Selects the newest thread that was created with this identifier of another system (`New.external_id`)."""

    external_id: str


class New(msgspec.Struct, frozen=True):
    """Creates a thread. `config` replaces the inbound `thread_config`; `external_id` lets `ByExternalId` find it."""

    config: Mapping[str, Any] | None = None
    external_id: str | None = None


Selector = ById | Latest | ByExternalId | New
"""Selects the thread of a message."""


class ContextLimits(msgspec.Struct, frozen=True):
    """The limits of the events in a context.

    `events`: a context has the newest `events` events of `comm.*`, the newest `2 * events` of any type, and the newest
    event of each type `state.set.NAME`; 0 means all events, whatever `bytes` is. `bytes`: the most bytes of their JSON
    text. If there are more, older events that are not `comm.*` are omitted first.
    """

    events: int = 200
    bytes: int = 1_048_576


class Idempotency(msgspec.Struct, frozen=True):
    """Identifies a repeated request. Both fields are digests.

    `key` covers the caller, the contact and the idempotency key. `body` covers the whole request.
    """

    key: UUID
    body: UUID


class RunPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The argument of `ThreadStore.accept`: an inbound message, and how the store must accept it.

    - `run_id` is made by `uuid7`, so that stores can find old runs by it.
    - `owner` identifies the process that works on the run. `NOBODY`: a worker will claim it.
    - `beside` are events that belong to the message, such as its metadata. They enter the thread with the message, just
      before it. Their data names the message as `message_id`. If the message is answered again
      (`transitions.answer_again`), the store gives them the identifiers, and this field the value, that fit the message
      in the thread.
    - `acting_for` is the only contact that the caller may act for; None means any.
    - `selectors` are tried in order.
    - `thread_config` is JSON text, for a thread that is created.
    - `conversation_start`: if a thread is created, its conversation start comes before the message.
    - `queue_limit` is the number of runs that may wait in one thread.
    - `caller` is a digest of the caller's provider and subject.
    - `background`: no caller waits for the run, so another process may take it over before it starts.
    - `webhook_url` is stored for a process that takes the run over.
    """

    run_id: UUID
    owner: UUID
    contact_id: str
    acting_for: str | None
    selectors: tuple[Selector, ...]
    message: NewEvent
    thread_config: bytes
    conversation_start: bool = False
    queue_limit: int = 256
    context: ContextLimits = ContextLimits()
    caller: UUID | None = None
    background: bool = False
    webhook_url: str | None = None
    idempotency: Idempotency | None = None
    beside: tuple[NewEvent, ...] = ()


class ThreadQuery(msgspec.Struct, frozen=True):
    """The argument of `ThreadStore.find_thread`: the fields of a `RunPlan` that select its thread."""

    contact_id: str
    selectors: tuple[Selector, ...]
    acting_for: str | None


class ThreadRecord(msgspec.Struct, frozen=True, gc=False):
    """A thread as read from the store. `created_at` is in UTC. `thread_config` is JSON text."""

    thread_id: UUID
    contact_id: str | None
    created_at: datetime
    thread_config: bytes | str


class Snapshot(msgspec.Struct, frozen=True):
    """The events of a context, oldest first. `truncated`: the thread has more events."""

    rows: list[EventRow]
    truncated: bool


class Accepted(msgspec.Struct, frozen=True):
    """The result of `ThreadStore.accept`.

    - `status` is `running`: the message entered the thread. `snapshot` ends with it.
    - `status` is `queued` and `snapshot` is None: the run waits for its turn.
    - `status` is `queued` and there is a `snapshot`: the thread is new, and its conversation start comes next.

    `stored` has the rows that this transaction wrote. It does not have the message and the events beside it if the
    thread had them before.
    """

    thread: ThreadRecord
    created_new_thread: bool
    status: RunStatus
    snapshot: Snapshot | None
    stored: list[EventRow]


class Started(msgspec.Struct, frozen=True):
    """The result of `ThreadStore.start`: the message entered the thread. `stored` has the rows that were written."""

    snapshot: Snapshot
    stored: list[EventRow]


class Outcome(msgspec.Struct, frozen=True):
    """The argument of `ThreadStore.finish`: how a run ends.

    `status` is final. `events` are the outgoing events, if the status is `completed`. `error` is the text of the error
    for callers. `streamed` is the number of live items in the run's stream. `failure` says why a run failed;
    for other statuses it is None. `usage` are the events that enter the thread if the status is not `completed`: what
    the run has used of models was paid for.
    """

    status: RunStatus
    events: tuple[NewEvent, ...] = ()
    error: str | None = None
    streamed: int = 0
    failure: FailureKind | None = None
    usage: tuple[NewEvent, ...] = ()


class Settled(msgspec.Struct, frozen=True):
    """The result of `ThreadStore.finish` and `ThreadStore.cancel`.

    `counted`: this call ended the run. `status`: the status of the run now; None if the run or its thread does not
    exist. `next_run`: the thread's run that may start now, if there is one. `stored` has the rows that this transaction
    wrote.
    """

    counted: bool
    status: RunStatus | None
    next_run: UUID | None
    stored: list[EventRow] = []


class EventRecord(msgspec.Struct, frozen=True):
    """An event on a page. `created_at` is in UTC; `event_data` is JSON text."""

    event_id: UUID
    created_at: datetime
    event_type: str
    event_data: bytes | str | None


class ListedRun(msgspec.Struct, frozen=True):
    """A run in a list: its state, without its events and the text of its failure. Times are in UTC.

    `failure` says why the run failed; for other statuses it is None.
    """

    run_id: UUID
    thread_id: UUID
    contact_id: str | None
    status: RunStatus
    accepted_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    failure: FailureKind | None


class StoredRun(ListedRun, frozen=True, kw_only=True):
    """A run as read from the store: what a list has of it, and the rest.

    `events` are those that the run sent, if it completed. `streamed` is the number of items in the run's stream, as in
    `Outcome`. It is None while the run is open, and if `finish` did not end it. `message_id` is the identifier of the
    message that the run answers. `restarts` counts how often `adopt` let the run start again because its process had
    died.
    """

    created_new_thread: bool
    error: str | None
    streamed: int | None
    events: list[EventRecord]
    message_id: UUID
    restarts: int = 0


class RunFilter(msgspec.Struct, frozen=True):
    """Conditions for the runs of a list, all of which must hold.

    - `statuses`: the run has one of these statuses; an empty tuple means any.
    - `contact_id` and `thread_id`: the run is of this contact, and of this thread.
    - `accepted_from` and `accepted_before`: the run was accepted at or after the first time, and before the second one.
      Both have the time zone UTC.
    - `caller`: the run is of this caller, as `RunPlan.caller` has it.
    """

    statuses: tuple[RunStatus, ...] = ()
    contact_id: str | None = None
    thread_id: UUID | None = None
    accepted_from: datetime | None = None
    accepted_before: datetime | None = None
    caller: UUID | None = None

    def accepts(self, status: RunStatus, accepted_at: datetime) -> bool:
        """Return whether a run with this status and time meets the conditions that concern these two."""
        return (
            (not self.statuses or status in self.statuses)
            and (self.accepted_from is None or accepted_at >= self.accepted_from)
            and (self.accepted_before is None or accepted_at < self.accepted_before)
        )

    def id_range(self) -> tuple[UUID, UUID]:
        """Return two identifiers between which those of all runs of the list are.

        An identifier begins with the time at which a process made it, so a list of some hours need not examine the runs
        of other days. The clock of that process may differ from the one of the store, and the store may have been
        unavailable, so the range is wider than the times.
        """
        first = 0 if self.accepted_from is None else _milliseconds(self.accepted_from) - _ID_TOLERANCE
        last = _LAST_TIME if self.accepted_before is None else _milliseconds(self.accepted_before) + _ID_TOLERANCE
        least, most = (min(max(time, 0), _LAST_TIME) for time in (first, last))
        return UUID(int=least << 80), UUID(int=(most << 80) | ((1 << 80) - 1))


def _milliseconds(time: datetime) -> int:
    return (time - EPOCH_UTC) // timedelta(milliseconds=1)


NO_RUN_FILTER = RunFilter()
"""The filter that every run meets."""


class RunPage(msgspec.Struct, frozen=True):
    """A page of runs, newest first. `next` is the cursor of the next page; None at the end.

    A page may have fewer runs than its limit, even none, although `next` is not None: a store may limit the number of
    runs that it examines for a page.
    """

    runs: list[ListedRun]
    next: str | None


class AdoptedRun(msgspec.Struct, frozen=True):
    """A background run that `ThreadStore.adopt` took over from a dead process. It waits for its start.

    `beside` are the events beside its message. `restarts` counts how often it was started before: 0 if it never was.
    """

    run_id: UUID
    thread_id: UUID
    contact_id: str | None
    message: NewEvent
    caller: UUID | None
    webhook_url: str | None
    beside: tuple[NewEvent, ...] = ()
    restarts: int = 0


class ThreadPage(msgspec.Struct, frozen=True):
    """A page of a contact's threads, newest first. `next` is the cursor of the next page; None at the end."""

    threads: list[ThreadRecord]
    next: str | None


class EventPage(msgspec.Struct, frozen=True):
    """A page of a thread's events, oldest first. `next` is the cursor of the next page; None at the end."""

    events: list[EventRecord]
    next: str | None


class ContactRecord(msgspec.Struct, frozen=True):
    """A contact: the number of its threads, and the time of their newest event in UTC; None if they have no events."""

    contact_id: str
    threads: int
    active_at: datetime | None


class ContactPage(msgspec.Struct, frozen=True):
    """A page of contacts. `next` is the cursor of the next page; None at the end."""

    contacts: list[ContactRecord]
    next: str | None
