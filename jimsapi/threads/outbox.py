"""The outbox of a store: what durable sinks have not received yet, and the webhooks that are not called yet.

While at least one durable sink is registered, a store adds a row for each event to its outbox, in the transaction that
stores the event. Each sink has a position in the outbox, so an event is kept until all of them have passed it. The rows
refer to the events of threads. So the outbox has no copy of what people wrote, and what is deleted from a thread is no
longer delivered.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

import msgspec

from jimsapi.threads.event import EventRow

MAX_SINK_NAME = 100
"""Characters of the name of a durable sink."""
MAX_REASON = 500
"""Characters of the reason of a dead letter that are kept."""
WEBHOOK_HOLD = 60.0
"""Seconds for which a process has the webhook of a run that it ended, or that it took."""
WEBHOOKS_OF_A_CALLER = 16
"""The most webhooks of one caller that a process takes at once, so that others have their turn."""


class OutboxEvent(msgspec.Struct, frozen=True, gc=False):
    """A stored event with its thread, its contact, and the run that stored it.

    `run_id` is None if the event was stored outside of a run, and if a sink reads it from the history.
    """

    thread_id: UUID
    contact_id: str | None
    run_id: UUID | None
    row: EventRow


class OutboxBatch(msgspec.Struct, frozen=True):
    """The next events of a sink, in the order of each thread, and the position after them.

    `after` is opaque, and belongs into `Outbox.advance`. If it is None, there is nothing to do. A batch may have a
    position and no events, for example because they were deleted. `replayed`: the events are dead letters that the sink
    receives once more.
    """

    events: list[OutboxEvent]
    after: str | None
    replayed: bool = False


class Refused(msgspec.Struct, frozen=True):
    """An event that a sink did not accept, and why."""

    event: OutboxEvent
    reason: str


class DeadLetter(msgspec.Struct, frozen=True):
    """An event that a sink did not accept, and that waits for a decision.

    `number` identifies it in the store. `again`: the sink will receive it once more. `failed_at` is in UTC.
    """

    number: int
    thread_id: UUID
    event_id: UUID
    run_id: UUID | None
    event_type: str
    reason: str
    failed_at: datetime
    again: bool


class SinkState(msgspec.Struct, frozen=True):
    """What a store knows of a durable sink.

    - `waiting`: about how many rows of the outbox the sink has not passed. Those of the history do not count.
    - `oldest`: since when the oldest of them waits, in UTC; None if none waits.
    - `dead`: the number of its dead letters.
    - `history`: the time in UTC since which it reads the history of all threads; None if it does not, or has read it.
    - `owner` works for the sink until `held_until` (UTC). Both are None if no process does.
    """

    name: str
    waiting: int
    oldest: datetime | None
    dead: int
    history: datetime | None
    owner: UUID | None
    held_until: datetime | None


class DueWebhook(msgspec.Struct, frozen=True):
    """The webhook of a run that has ended, which was called `calls` times so far."""

    run_id: UUID
    url: str
    calls: int


class Outbox(Protocol):
    """The outbox of a `ThreadStore`, its attribute `outbox`. Each method that writes is one durable transaction.

    Any method may raise `StoreUnavailable`, and may then be called again.

    `lasting`: whether what is in it outlasts the process.

    The order of a sink is: its dead letters that are replayed, then the history that it reads, and then the rows of the
    outbox. Within a thread, the events of the history and of the outbox are each in the order of the thread. An event
    may come more than once, as the history may have what the outbox has, and as a process may end after it delivered.

    If a run ends that has a `webhook_url`, the same transaction adds its webhook. It is due after `WEBHOOK_HOLD`
    seconds, in which the process that ended the run calls it. If the process of the run is dead, it is due at once.
    """

    lasting: bool

    async def register(self, sink: str) -> None:
        """Add a sink, whose position is the end of the outbox. Does nothing if it is registered."""

    async def remove(self, sink: str) -> bool:
        """Remove a sink, with its dead letters. Returns whether it was registered."""

    async def sinks(self) -> list[SinkState]:
        """Return the registered sinks, in the order of their names."""

    async def hold(self, sink: str, owner: UUID, seconds: float) -> bool:
        """Make `owner` the only process that works for the sink, for so many seconds from now.

        Returns False if another owner works for it, or if it is not registered. The owner repeats the call in time.
        """

    async def release(self, sink: str, owner: UUID) -> None:
        """Let another process work for the sink at once. Does nothing if `owner` does not work for it."""

    async def read(self, sink: str, limit: int) -> OutboxBatch:
        """Return the next events of the sink, at most `limit`. The batch is empty if the sink is not registered."""

    async def advance(self, sink: str, owner: UUID, after: str, refused: Sequence[Refused] = ()) -> bool:
        """Move the sink to the position `after` of a batch, and make dead letters of the `refused` events.

        Returns False, and changes nothing, if `owner` does not work for the sink any longer. A position in a history
        that the sink does not read any longer, since it was rewound meanwhile, changes nothing either. Rows of the
        outbox that all sinks have passed are deleted.
        """

    async def rewind(self, sink: str, since: datetime) -> bool:
        """Let the sink read all events of the store since a time in UTC, thread by thread, before it goes on.

        Returns False if the sink is not registered.
        """

    async def dead_letters(self, sink: str, limit: int, after: int = 0) -> list[DeadLetter]:
        """Return the dead letters of a sink with numbers above `after`, in the order of their numbers."""

    async def replay(self, sink: str, numbers: Sequence[int] | None = None) -> int:
        """Let the sink receive these dead letters once more; None means all. Returns their number."""

    async def drop(self, sink: str, numbers: Sequence[int] | None = None) -> int:
        """Delete these dead letters; None means all. Returns their number."""

    async def take_webhooks(self, limit: int, seconds: float) -> list[DueWebhook]:
        """Return webhooks that are due, at most `limit`. They are due again after so many seconds.

        Callers take turns: those of one caller are at most `WEBHOOKS_OF_A_CALLER`. Webhooks of runs that were purged or
        deleted are forgotten.
        """

    async def delay_webhooks(self, calls: Mapping[UUID, int], seconds: float) -> int:
        """Make the webhooks of these runs due after so many seconds, and note how often each was called so far.

        Returns how many of them the store has.
        """

    async def end_webhook(self, run_id: UUID) -> None:
        """Forget the webhook of a run, which was called or is given up."""

    async def count_webhooks(self) -> int:
        """Return the number of webhooks that were not called yet and not given up."""
