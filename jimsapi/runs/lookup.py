"""Reading, watching and cancelling runs, limited to those that the caller may see."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from uuid import UUID

from jimsapi.runs.admission import Admission
from jimsapi.runs.errors import RunEnded, ScopeMissing, ServerDraining
from jimsapi.runs.flow import POLL_EVERY
from jimsapi.runs.keys import caller_of
from jimsapi.runs.live import LiveRun
from jimsapi.runs.peers import ASK_EVERY
from jimsapi.runs.result import answer_to_repeat, stored_result
from jimsapi.runs.scopes import CHAT, THREADS
from jimsapi.runs.service import RunService
from jimsapi.runs.stream import THE_END, Ended, Read, Reader, RunStarted, RunStream, replay
from jimsapi.threads.errors import DomainError, RunNotFound
from jimsapi.threads.run import OPEN, StoredRun


class Runs:
    """Reads, watches and cancels the runs that a caller may see.

    A caller may see its own runs and, with the scope `threads`, those of other callers. A caller that is bound to one
    contact may see only that contact's runs. For other runs, every method raises `RunNotFound`.
    """

    def __init__(self, service: RunService) -> None:
        self._service = service

    async def run(self, admission: Admission, run_id: UUID) -> StoredRun:
        """Return one run. Raises `ScopeMissing` if the caller has neither `chat` nor `threads`."""
        identity = admission.identity
        if not (identity.may(CHAT) or identity.may(THREADS)):
            raise ScopeMissing(CHAT)
        caller = None if identity.may(THREADS) else caller_of(admission)
        return self._service.disclosure.stored(await self._service.store.run(run_id, identity.contact_id, caller))

    async def cancel(self, admission: Admission, run_id: UUID) -> None:
        """Cancel a run. No further events of it are stored, except what it has used of models.

        Raises `RunEnded` if the run has ended.
        """
        await self.run(admission, run_id)
        settled = await self._service.cancel(run_id)
        if settled.status is None:
            raise RunNotFound(run_id)
        if not settled.counted:
            raise RunEnded(run_id, settled.status)

    async def watch(self, admission: Admission, run_id: UUID, after: int = 0) -> AsyncIterator[Read] | None:
        """Iterate over the items of a run's stream that follow position `after`; None if `after` is the last position.

        The items come from memory if this process has them, otherwise from the store.
        """
        stored = await self.run(admission, run_id)
        return None if after == THE_END else self.follow(stored, after)

    def follow(self, run: StoredRun, after: int = 0) -> AsyncIterator[Read]:
        """Iterate over the items of a run's stream that follow position `after`.

        It checks no permissions: the caller of this function has found out that its own caller may see the run.
        """
        stream = self._service.watch(run.run_id)
        return self._poll_store(run, after) if stream is None else self._reader(stream, run.run_id, after)

    async def of(self, admission: Admission, run: LiveRun, after: int = 0) -> AsyncIterator[Read]:
        """Do the same for a run that the caller began, or for the earlier run with the same idempotency key."""
        stream = run.stream if run.known_as is run.run_id else None
        if (stream := stream or self._service.watch(run.known_as)) is not None:
            return self._reader(stream, run.known_as, after)
        return self._poll_store(await self.run(admission, run.known_as), after, repeated=run.known_as is not run.run_id)

    def _reader(self, stream: RunStream, run_id: UUID, after: int) -> Reader:
        return Reader(stream, run_id, after, self._read_store)

    async def _read_store(self, run_id: UUID, after: int) -> AsyncIterator[Read]:
        """Iterate over the items after position `after` that the store has. The run may have ended."""
        try:
            run = self._service.disclosure.stored(await self._service.store.run(run_id, None, None))
        except DomainError as error:
            yield THE_END, Ended(error)
            return
        async for found in self._poll_store(run, after):
            yield found

    async def _poll_store(self, run: StoredRun, after: int, *, repeated: bool = False) -> AsyncIterator[Read]:
        """Iterate over the items of a run of another process. `repeated`: the caller sent its message again."""
        if after < 1:
            after = 1
            yield after, RunStarted(run.run_id, run.thread_id, run.created_new_thread)
        now = asyncio.get_running_loop().time
        ask_at = now()
        while run.status in OPEN:
            was_live = False
            if now() >= ask_at:
                ask_at = now() + ASK_EVERY
                async with aclosing(self._service.watch_elsewhere(run.run_id, after)) as items:
                    async for found in items:
                        after, was_live = found[0], True
                        yield found
            if self._service.draining:
                yield THE_END, Ended(ServerDraining())
                return
            if not was_live:  # otherwise the store has the rest by now
                await asyncio.sleep(POLL_EVERY)
            status = run.status
            try:
                run = self._service.disclosure.stored(await self._service.store.run(run.run_id, None, None))
            except DomainError as error:
                yield THE_END, Ended(error)
                return
            if run.status is not status:  # a process has just started it, and has its live items
                ask_at = now()
        async for found in replay(run, after, answer_to_repeat(run) if repeated else stored_result(run)):
            yield found
