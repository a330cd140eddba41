"""The rules by which threads and runs change, the same for every store.

A store reads what a rule needs, calls the function, and writes what the function decided. A store that decides in SQL
names in its statement the function that the statement follows. The random histories of `jimsapi.testing` compare every
store with one model.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TypeVar

from jimsapi.threads.errors import ThreadNotFound
from jimsapi.threads.run import ByExternalId, ById, Latest, New, RunPlan
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
