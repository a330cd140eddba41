"""A store that fails."""

from uuid import UUID

from jimsapi.stores.memory import MemoryStore
from jimsapi.threads.errors import StoreUnavailable
from jimsapi.threads.run import Outcome, Settled


class Failing(MemoryStore):
    """Does not take an ending while `down`."""

    down = True

    async def finish(self, run_id: UUID, owner: UUID, outcome: Outcome) -> Settled:
        if self.down:
            raise StoreUnavailable("the disk is full")
        return await super().finish(run_id, owner, outcome)
