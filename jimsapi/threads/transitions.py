"""The rules by which threads and runs change, the same for every store.

A store reads what a rule needs, calls the function, and writes what the function decided. A store that decides in SQL
names in its statement the function that the statement follows. The random histories of `jimsapi.testing` compare every
store with one model.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from enum import Enum
from itertools import islice
from typing import TypeVar
from uuid import UUID

import msgspec

from jimsapi.threads.errors import KeyMismatch, KeyUsed, RunClosed, ThreadNotFound
from jimsapi.threads.event import USER_MESSAGE, EventRow, NewEvent, move_beside
from jimsapi.threads.facts import OPENING, ThreadChange, ThreadFacts
from jimsapi.threads.run import (
    COMPLETED,
    OPEN,
    QUEUED,
    RUNNING,
    ByExternalId,
    ById,
    Latest,
    New,
    Outcome,
    RunPlan,
    RunStatus,
    ThreadQuery,
)
from jimsapi.threads.storable import dump_storable

Thread = TypeVar("Thread")

# Which thread


def may_see(contact_id: str | None, acting_for: str | None) -> bool:
    """Return whether a caller that may act for the contact `acting_for` (None: any) sees threads of `contact_id`."""
    return acting_for is None or contact_id == acting_for


def select_thread(
    plan: RunPlan | ThreadQuery,
    find: Callable[[ById | Latest | ByExternalId], Thread | None],
    contact_of: Callable[[Thread], str | None],
) -> Thread | New:
    """Return the thread that the plan's selectors find, or the `New` if none before it finds one.

    `find` looks up one selector. `Latest` finds threads of `plan.contact_id` only, so it needs no permission.

    Raises:
        ThreadNotFound: the first thread found is not of `plan.acting_for`, or there is none and no `New`. The error
            names the thread only if the plan does.
    """
    missing_id = None
    for selector in plan.selectors:
        if isinstance(selector, New):
            return selector
        thread = find(selector)
        if thread is not None:
            if not isinstance(selector, Latest) and not may_see(contact_of(thread), plan.acting_for):
                raise ThreadNotFound(selector.thread_id if isinstance(selector, ById) else None)
            return thread
        if isinstance(selector, ById):
            missing_id = selector.thread_id
    raise ThreadNotFound(missing_id)


def was_active(newest_event: datetime, now: datetime, active_within: timedelta) -> bool:
    """Return whether `Latest(active_within)` finds a thread whose newest event has the time `newest_event`."""
    return newest_event >= now - active_within


def config_of_new(plan: RunPlan, new: New) -> bytes:
    """Return the `thread_config` of a thread that is created, as JSON text."""
    return plan.thread_config if new.config is None else dump_storable(dict(new.config))


# What an idempotency key means


def keys_known_since(now: datetime, keep_keys: timedelta) -> datetime:
    """Return the earliest time of known keys: a key is known if its last run was accepted then or later."""
    return now - keep_keys


class KeyHolder(msgspec.Struct, frozen=True):
    """The last run with an idempotency key, which a store reads when a request has the same key.

    `started`: its message entered the thread. `continues`: it answers a message that was in the thread before the run.
    """

    run_id: UUID
    body: UUID
    status: RunStatus
    started: bool
    continues: bool

    def is_continued_by(self, body: UUID) -> bool:
        """Return whether a new run answers the message of this run. If not, the key is free.

        `body` is the digest of the new request, which has the same key.

        Raises:
            KeyMismatch: this run is for another request.
            KeyUsed: this run answers the request.
        """
        cancelled_before_start = self.status is RunStatus.CANCELLED and not self.started
        if cancelled_before_start and not self.continues:
            return False
        if body != self.body:
            raise KeyMismatch
        if cancelled_before_start or self.status is RunStatus.INTERRUPTED:
            return True
        raise KeyUsed(self.run_id)


def answer_again(plan: RunPlan, message_id: UUID) -> RunPlan:
    """Return the plan for a run that answers the message of an interrupted run. The message keeps its identifier.

    The new run is in the same thread. The message enters the thread only if the thread no longer has it, with the
    events beside it.
    """
    message = NewEvent(message_id, plan.message.event_type, plan.message.data)
    return msgspec.structs.replace(plan, message=message, beside=move_beside(plan.beside, plan.message, message_id))


# What accepting a message does


def is_full(open_runs: int, queue_limit: int) -> bool:
    """Return whether a thread with this number of open runs rejects another. The oldest open run does not wait."""
    return open_runs > queue_limit


def accepted_status(open_runs: int, *, is_greeted: bool) -> RunStatus:
    """Return the first status of a run in a thread that has this number of other open runs.

    If it is `running`, the message enters the thread at once. `is_greeted`: the thread is new, and its conversation
    start comes before the message.
    """
    return QUEUED if open_runs or is_greeted else RUNNING


def has_context(status: RunStatus, created_new_thread: bool, continues: bool = False) -> bool:
    """Return whether `accept` returns a context, for the pipeline or for a conversation start.

    It is the same if `accept` is called again for the run. `continues`: the message was in the thread before; so was
    the conversation start of a run that is started again.
    """
    return status is RUNNING or (status is QUEUED and created_new_thread and not continues)


# Which run may start


class Start(Enum):
    """What `start` does with an open run."""

    NOW = "now"
    LATER = "later"
    """Older runs of the thread are still open."""
    AGAIN = "again"
    """The run has started already. The service repeats the call because it did not get the result."""


def judge_start(status: str, *, is_owner: bool, is_oldest: bool) -> Start:
    """Decide what `start` does for a run. `is_oldest`: no older run of its thread is open.

    Raises:
        RunClosed: the run has ended, or the caller does not own it.
    """
    if status not in OPEN or not is_owner:
        raise RunClosed
    if status == RUNNING:
        return Start.AGAIN
    return Start.NOW if is_oldest else Start.LATER


def is_next(status: str) -> bool:
    """Return whether the oldest open run of a thread, with this status, may start now. No other run may."""
    return status == QUEUED


# How a run ends


def finish_counts(status: str, *, is_owner: bool) -> bool:
    """Return whether `finish` ends a run with this status."""
    return status == RUNNING and is_owner


def stored_events(outcome: Outcome) -> Sequence[NewEvent]:
    """Return the events of an outcome that enter the thread."""
    return outcome.events if outcome.status is COMPLETED else outcome.usage


def cancel_counts(status: str) -> bool:
    """Return whether `cancel` ends a run with this status."""
    return status in OPEN


# How open runs end or continue if no process works on them
#
#   call        whose runs                running         queued                             queued, in the background
#   heartbeat   its own, not `live`       `interrupted`   `cancelled`                        `cancelled`
#   recover     those of dead owners      `interrupted`   `interrupted`, its message enters  unchanged
#   adopt       those of dead owners      unchanged       unchanged                          the caller owns it
#
# `recover` leaves a background run that is running if it may start again (`may_restart`). `adopt` makes it `queued`, at
# its place in the queue: its next start does not add its message again.
#
# If workers do the background runs, `adopt` leaves them to `NOBODY`, and a worker claims them (`threads/work.py`).
#
# A process that drains leaves its queued background runs open for `adopt`. It counts them as `live` until it ends.


def orphan_status(status: str) -> RunStatus:
    """Return the status with which `heartbeat` ends an open run that its owner does not work on."""
    return RunStatus.INTERRUPTED if status == RUNNING else RunStatus.CANCELLED


def is_adoptable(status: str, *, background: bool) -> bool:
    """Return whether an open run of a dead owner is left for `adopt`. `recover` ends all others as `interrupted`."""
    return background and status == QUEUED


def may_restart(status: str, *, background: bool, restarts: int, max_restarts: int) -> bool:
    """Return whether a started run of a dead owner, whose message its thread still has, is left for `adopt`.

    `restarts`: how often the run was restarted before.
    """
    return background and status == RUNNING and restarts < max_restarts


def interrupted_error(restarts: int) -> str | None:
    """Return the `error` with which `recover` ends a run that was restarted so often. None if it never was."""
    if not restarts:
        return None
    return f"The run was interrupted: it was started {restarts + 1} times, and its server died each time"


def enters_late(status: str) -> bool:
    """Return whether `recover` adds the message of a run that it ends to the thread, if the thread does not have it."""
    return status == QUEUED


# What is said of a thread


def changed_facts(facts: ThreadFacts, change: ThreadChange, now: datetime) -> ThreadFacts:
    """Return the facts after a change at the time `now` (UTC). A thread that is archived again keeps its time."""
    archived_at = facts.archived_at
    if change.archived is not msgspec.UNSET:
        archived_at = (archived_at or now) if change.archived else None
    return ThreadFacts(
        facts.title if change.title is msgspec.UNSET else change.title,
        archived_at,
        facts.metadata if change.metadata is msgspec.UNSET else change.metadata,
        facts.parent,
    )


def opening_message(messages: Iterable[EventRow]) -> EventRow | None:
    """Return the message that is `ThreadSummary.first`. `messages` are those of a thread, oldest first."""
    opening = list(islice(messages, OPENING))
    return next((row for row in opening if row.event_type == USER_MESSAGE), opening[0] if opening else None)
