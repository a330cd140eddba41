"""Runs, what the service asks a store for, and what it gets back."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

import msgspec

from jimsapi.threads.event import EventRow, NewEvent


class RunStatus(StrEnum):
    """Where a run stands. `queued` and `running` are open; the others are ends."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"


class FailureKind(StrEnum):
    """Why a run failed: its pipeline raised or sent what cannot be stored, or it took longer than a run may."""

    PIPELINE = "pipeline"
    TIMEOUT = "timeout"


OPEN = (RunStatus.QUEUED, RunStatus.RUNNING)
"""Where a run stands that has not ended."""


class ById(msgspec.Struct, frozen=True):
    """Selects the thread with this identifier."""

    thread_id: UUID


class Latest(msgspec.Struct, frozen=True):
    """Selects the contact's newest thread, if its newest event is no older than `active_within`."""

    active_within: timedelta | None = None


class ByExternalId(msgspec.Struct, frozen=True):
    """Selects the thread that another system knows by this identifier."""

    external_id: str


class New(msgspec.Struct, frozen=True):
    """Creates a thread. `config` replaces the inbound `thread_config`; `external_id` lets `ByExternalId` find it."""

    config: Mapping[str, Any] | None = None
    external_id: str | None = None


Selector = ById | Latest | ByExternalId | New


class ContextLimits(msgspec.Struct, frozen=True):
    """How much of a thread a context holds.

    `events`: the newest `events` of `comm.*`, and the newest twice as many of any type; 0 means all. `bytes`: the most
    that the events' JSON text may take together; older ones that are not `comm.*` are left out first.
    """

    events: int = 200
    bytes: int = 1_048_576


class Idempotency(msgspec.Struct, frozen=True):
    """What makes a repeated request known. Both are digests.

    `key`: who asked, for which contact, with which key. `body`: all that was asked.
    """

    key: UUID
    body: UUID


class RunPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One inbound message, and how it is to be accepted.

    `run_id` is made by `uuid7`, so that stores can find old runs by it. `selectors` are tried in order. `acting_for` is
    the one contact that the caller may act for (None: any). `conversation_start` says that a new thread is greeted
    before the message enters it. `queue_limit` is the number of runs that may wait in one thread.

    `caller` is a digest of the provider and subject of who asked. `background` says that nobody waits for the run, so
    that another process may take it over while it has not started. `webhook_url` is kept for whoever takes it over.
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


class ThreadRecord(msgspec.Struct, frozen=True, gc=False):
    """A thread as its reader sees it. `created_at` is in UTC; `thread_config` is JSON text."""

    thread_id: UUID
    contact_id: str | None
    created_at: datetime
    thread_config: bytes | str


class Snapshot(msgspec.Struct, frozen=True):
    """The events that a context begins with, oldest first. `truncated`: the thread has more."""

    rows: list[EventRow]
    truncated: bool


class Accepted(msgspec.Struct, frozen=True):
    """A run that the store took.

    `status` is `running` when the message entered the thread at once (`snapshot` then ends with it), `queued` when the
    run waits for its turn (`snapshot` is None) or for the conversation start (`snapshot` is the new thread).
    `stored` are the rows that this transaction wrote: not the message, where a run answers one that is stored already.
    """

    thread: ThreadRecord
    created_new_thread: bool
    status: RunStatus
    snapshot: Snapshot | None
    stored: list[EventRow]


class Started(msgspec.Struct, frozen=True):
    """A run whose message entered the thread now. `stored` are the rows that this transaction wrote."""

    snapshot: Snapshot
    stored: list[EventRow]


class Outcome(msgspec.Struct, frozen=True):
    """How a run ends: a final status, the outgoing events (only `completed` has any), and what went wrong.

    `streamed` is the number of live items that were told beside the stored events. `failure` says why a run failed; it
    is None for every other status.
    """

    status: RunStatus
    events: tuple[NewEvent, ...] = ()
    error: str | None = None
    streamed: int = 0
    failure: FailureKind | None = None


class Settled(msgspec.Struct, frozen=True):
    """What a store did when it was told to end a run.

    `counted`: this call ended it. `status`: what the run is now (None: its thread is gone). `next_run`: the thread's
    oldest open run if it waits, which may start now. `stored` are the rows that this transaction wrote.
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


class StoredRun(msgspec.Struct, frozen=True):
    """A run as its reader sees it. Times are in UTC.

    `events` are what it sent, if it completed. `streamed` is None while nobody knows: the run is open, or was ended by
    other means than `finish` (its process died, it was cancelled). `failure` says why it failed, if the store knows: a
    run that an older version stored has none.
    """

    run_id: UUID
    thread_id: UUID
    contact_id: str | None
    status: RunStatus
    created_new_thread: bool
    accepted_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    error: str | None
    streamed: int | None
    events: list[EventRecord]
    failure: FailureKind | None = None


class AdoptedRun(msgspec.Struct, frozen=True):
    """A background run of a dead process that is now this one's, and still has to be started."""

    run_id: UUID
    thread_id: UUID
    contact_id: str | None
    message: NewEvent
    caller: UUID | None
    webhook_url: str | None


class ThreadPage(msgspec.Struct, frozen=True):
    """Threads of a contact, newest first. `next` is the cursor of the following page, None at the end."""

    threads: list[ThreadRecord]
    next: str | None


class EventPage(msgspec.Struct, frozen=True):
    """Events of a thread, oldest first. `next` is the cursor of the following page, None at the end."""

    events: list[EventRecord]
    next: str | None
