"""The methods of a store by which workers do the background runs that servers accept."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol
from uuid import UUID

from jimsapi.threads.run import AdoptedRun


class WorkStore(Protocol):
    """The methods of a `ThreadStore` that hands background runs to workers, which are other processes.

    A store that only one process can open does not need them. A store that has them also follows these rules:

    - `accept` with the owner `NOBODY` stores the run as `queued`, also if its thread has no other open run.
    - In a new thread without a conversation start, such a run continues its message, which enters the thread at once.
    - `adopt` with the owner `NOBODY` leaves the background runs of dead processes to workers. With any other owner, it
      also takes over runs of `NOBODY` that have waited as long as a process is silent until it counts as dead.
    - `recover` leaves the runs of `NOBODY`.
    - `accept` of a run that has another owner by now returns no snapshot, so that only that owner does it.
    """

    async def claim(self, run_id: UUID, owner: UUID) -> AdoptedRun | None:
        """Make `owner` the owner of a run of `NOBODY`, if it is the oldest open run of its thread.

        Returns None if it is not, and if the run has another owner or is not `queued`. If `owner` has claimed the run
        before, the call repeats that one. The service adds the run to those of its heartbeat before it calls this.
        """

    async def unclaimed(self, older_than: timedelta, limit: int) -> Sequence[UUID]:
        """Return runs that can be claimed, accepted longer ago than `older_than`: the oldest ones, at most `limit`."""
