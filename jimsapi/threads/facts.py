"""What a store knows of a thread beside its events: its title, its metadata, and the thread that it was forked from."""

from datetime import datetime
from uuid import UUID

import msgspec

from jimsapi.threads.event import EventRow, NewEvent
from jimsapi.threads.run import ThreadRecord

MAX_TITLE = 500
"""The most characters of a title."""
MAX_FORKS = 1000
"""The most forks of a thread that a summary counts."""
MAX_QUESTIONS = 20
"""The number of a thread's newest questions of which a summary counts those that are open."""


FEEDBACK = "thread.feedback"
"""The type of the event that sinks get when an event is rated. Its data are `event_id`, `rating` and `comment`."""


class Parent(msgspec.Struct, frozen=True, gc=False):
    """The thread that a thread was forked from, and the newest event that the fork got from it."""

    thread_id: UUID
    event_id: UUID


class ThreadFacts(msgspec.Struct, frozen=True, gc=False):
    """The title, archive time, metadata and parent of a thread.

    `archived_at` is in UTC. `metadata` is the JSON text of an object.
    """

    title: str | None = None
    archived_at: datetime | None = None
    metadata: bytes | str = b"{}"
    parent: Parent | None = None


class ThreadChange(msgspec.Struct, frozen=True, omit_defaults=True):
    """The argument of `ThreadStore.change_thread`. What is UNSET stays as it is.

    `title`: None removes it. `metadata` is the JSON text of an object, which replaces the one before.
    """

    title: str | msgspec.UnsetType | None = msgspec.UNSET
    archived: bool | msgspec.UnsetType = msgspec.UNSET
    metadata: bytes | msgspec.UnsetType = msgspec.UNSET


class ForkPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The argument of `ThreadStore.fork`.

    - `thread_id` is the identifier of the new thread, made by `uuid7`. A store that has it repeats its result.
    - `parent_id` is the thread that is forked, and `acting_for` the only contact that the caller may act for.
    - `event_id` is the last event of the parent that the new thread has, or with `before` the first that it has not.
      None: it has all events.
    - `keeps_external_id`: the new thread has the external identifier of the parent, so `ByExternalId` finds it from now
      on, as the newest thread with that identifier.
    """

    thread_id: UUID
    parent_id: UUID
    acting_for: str | None
    event_id: UUID | None = None
    before: bool = False
    keeps_external_id: bool = False


class ThreadPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The argument of `ThreadStore.create`: a thread that begins without a run.

    - `thread_id` is the identifier of the new thread. A store that has it repeats its result.
    - `events` are the first events of the thread; the first of them is `THREAD_CREATED`.
    - `thread_config` and `metadata` are the JSON texts of objects.
    """

    thread_id: UUID
    contact_id: str
    events: tuple[NewEvent, ...]
    thread_config: bytes
    metadata: bytes = b"{}"


class Created(msgspec.Struct, frozen=True):
    """The result of `ThreadStore.create`: the thread, and the rows of its first events."""

    thread: ThreadRecord
    stored: list[EventRow]


OPENING = 20
"""The number of messages at the beginning of a thread among which `ThreadSummary.first` is."""


class ThreadSummary(msgspec.Struct, frozen=True):
    """What a list shows of a thread: its facts, the first and the newest of its messages, and the time of its newest
    event in UTC. `first` and `newest` are events `comm.*`; None if it has none.

    `first` is the first `comm.user_message` among the first `OPENING` messages, because an app may begin each thread
    with the same greeting; without one it is the first message. `forks` is the number of its forks, at most
    `MAX_FORKS`, and `questions` that of its open questions, among the newest `MAX_QUESTIONS`.
    """

    facts: ThreadFacts
    first: EventRow | None
    newest: EventRow | None
    active_at: datetime | None
    forks: int = 0
    questions: int = 0


class Rating(msgspec.Struct, frozen=True):
    """What a person thinks of an event: `rating` is 1 or -1."""

    rating: int
    comment: str | None = None


class Feedback(msgspec.Struct, frozen=True):
    """The rating of an event, and the time in UTC at which it was given."""

    event_id: UUID
    rating: Rating
    given_at: datetime


NO_FACTS = ThreadFacts()
NO_SUMMARY = ThreadSummary(NO_FACTS, None, None, None)
