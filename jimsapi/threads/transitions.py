"""The rules by which threads and runs change, the same for every store.

A store reads what a rule needs, calls the function, and writes what the function decided. A store that decides in SQL
names in its statement the function that the statement follows. The random histories of `jimsapi.testing` compare every
store with one model.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from enum import Enum
from typing import TypeVar
from uuid import UUID

import msgspec

from jimsapi.threads.errors import KeyMismatch, KeyUsed, RunClosed, ThreadNotFound
from jimsapi.threads.event import NewEvent
from jimsapi.threads.run import OPEN, ByExternalId, ById, Latest, New, Outcome, RunPlan, RunStatus
from jimsapi.threads.storable import dump_storable

Thread = TypeVar("Thread")

# Which thread


def may_see(contact_id: str | None, acting_for: str | None) -> bool:
    """Whether a caller that may act for the contact `acting_for` (None: any) sees the threads of `contact_id`."""
    return acting_for is None or contact_id == acting_for


def select_thread(
    plan: RunPlan,
    find: Callable[[ById | Latest | ByExternalId], Thread | None],
    contact_of: Callable[[Thread], str | None],
) -> Thread | New:
    """Return the thread that the plan's selectors find, or the `New` if none before it finds one.

    `find` looks up one selector. `Latest` finds threads of `plan.contact_id` only, so it needs no permission.

    Raises:
        ThreadNotFound: the first thread found is not of `plan.acting_for`, or there is none and no `New`. The error
            names the thread only if the plan does.
    """
    asked_for = None
    for selector in plan.selectors:
        if isinstance(selector, New):
            return selector
        thread = find(selector)
        named = selector.thread_id if isinstance(selector, ById) else None
        if thread is not None:
            if not isinstance(selector, Latest) and not may_see(contact_of(thread), plan.acting_for):
                raise ThreadNotFound(named)
            return thread
        asked_for = named or asked_for
    raise ThreadNotFound(asked_for)


def was_active(newest_event: datetime, now: datetime, active_within: timedelta) -> bool:
    """Whether `Latest` finds a thread with this newest event."""
    return newest_event >= now - active_within


def config_of_new(plan: RunPlan, new: New) -> bytes:
    """The `thread_config` of a thread that is created."""
    return plan.thread_config if new.config is None else dump_storable(dict(new.config))


# What an idempotency key means


def keys_known_since(now: datetime, keep_keys: timedelta) -> datetime:
    """A key is known if a run took it then or later."""
    return now - keep_keys


class KeyHolder(msgspec.Struct, frozen=True):
    """The run that took an idempotency key last, as a store finds it when the key comes again.

    `started`: its message entered the thread. `continues`: it answers a message that was in the thread before it.
    """

    run_id: UUID
    body: UUID
    status: RunStatus
    started: bool
    continues: bool

    def is_continued_by(self, body: UUID) -> bool:
        """Whether a request with this key and `body` goes on with this run's message; if not, the key is free.

        Raises:
            KeyMismatch: it is not the request that this run was made for.
            KeyUsed: this run answers it.
        """
        given_up = self.status is RunStatus.CANCELLED and not self.started
        if given_up and not self.continues:
            return False
        if body != self.body:
            raise KeyMismatch
        if given_up or self.status is RunStatus.INTERRUPTED:
            return True
        raise KeyUsed(self.run_id)


def answer_again(plan: RunPlan, message_id: UUID) -> RunPlan:
    """The plan of a run that answers the message of an interrupted one: the message keeps its identifier.

    The thread is that of the interrupted run, and the message enters only if the thread no longer has it.
    """
    message = NewEvent(message_id, plan.message.event_type, plan.message.data)
    return msgspec.structs.replace(plan, message=message)


# What accepting a message does


def is_full(open_runs: int, queue_limit: int) -> bool:
    """Whether a thread with so many open runs refuses another one: the oldest open run does not wait."""
    return open_runs > queue_limit


def accepted_status(open_runs: int, *, is_greeted: bool) -> RunStatus:
    """The status of a run in a thread with so many other open runs.

    A running run's message enters the thread at once. `is_greeted`: the thread is new, and its conversation start comes
    before the message.
    """
    return RunStatus.QUEUED if open_runs or is_greeted else RunStatus.RUNNING


def has_context(status: RunStatus, created_new_thread: bool) -> bool:
    """Whether `accept` returns a context, also when it is asked again: for the pipeline or for a conversation start."""
    return status is RunStatus.RUNNING or (status is RunStatus.QUEUED and created_new_thread)


# Which run may start


class Start(Enum):
    """What `start` does with an open run."""

    NOW = "now"
    LATER = "later"
    """Others are still before it."""
    AGAIN = "again"
    """It has started already; the caller asks again because the answer was lost."""


def judge_start(status: str, *, is_owner: bool, is_oldest: bool) -> Start:
    """Decide what `start` does for a run. `is_oldest`: no older run of its thread is open.

    Raises:
        RunClosed: the run has ended, or the caller does not own it.
    """
    if status not in OPEN or not is_owner:
        raise RunClosed
    if status == RunStatus.RUNNING:
        return Start.AGAIN
    return Start.NOW if is_oldest else Start.LATER


def is_next(status: str) -> bool:
    """Whether the oldest open run of a thread may start now. No other run of the thread may."""
    return status == RunStatus.QUEUED


# How a run ends


def finish_counts(status: str, *, is_owner: bool) -> bool:
    """Whether `finish` ends a run."""
    return status == RunStatus.RUNNING and is_owner


def stored_events(outcome: Outcome) -> Sequence[NewEvent]:
    """The events of an outcome that enter the thread."""
    return outcome.events if outcome.status is RunStatus.COMPLETED else ()


def cancel_counts(status: str) -> bool:
    """Whether `cancel` ends a run."""
    return status in OPEN


# What becomes of open runs that no process works on
#
#   call        whose runs                running         queued                             queued, in the background
#   heartbeat   its own, not `live`       `interrupted`   `cancelled`                        `cancelled`
#   recover     those of dead owners      `interrupted`   `interrupted`, its message enters  unchanged
#   adopt       those of dead owners      unchanged       unchanged                          the caller owns it
#
# A process that drains leaves its queued background runs open for `adopt`. It counts them as `live` until it ends.


def orphan_status(status: str) -> RunStatus:
    """How `heartbeat` ends an open run that its owner does not work on."""
    return RunStatus.INTERRUPTED if status == RunStatus.RUNNING else RunStatus.CANCELLED


def is_adoptable(status: str, *, background: bool) -> bool:
    """Whether an open run of a dead owner waits for `adopt`. `recover` ends all others as `interrupted`."""
    return background and status == RunStatus.QUEUED


def enters_late(status: str) -> bool:
    """Whether `recover` appends the message of a run that it ends, unless the thread has it already."""
    return status == RunStatus.QUEUED
