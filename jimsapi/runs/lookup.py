"""Runs as whoever asks may see, watch and cancel them: whose they are is part of what the store is asked."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from uuid import UUID

from jimsapi.runs.errors import RunEnded, ScopeMissing, ServerDraining
from jimsapi.runs.flow import LOOK_EVERY
from jimsapi.runs.identity import CHAT, THREADS, Admission
from jimsapi.runs.keys import caller_of
from jimsapi.runs.live import LiveRun
from jimsapi.runs.service import RunService
from jimsapi.runs.stream import THE_END, Ended, Read, Reader, RunStarted, RunStream, replay
from jimsapi.threads.errors import DomainError, RunNotFound
from jimsapi.threads.run import OPEN, StoredRun


class Runs:
    """Runs as a caller may see them: its own, and with the scope `threads` those of others.

    A bound caller sees its own contact's alone. For a run that the caller may not see every method raises
    `RunNotFound`.
    """

    def __init__(self, service: RunService) -> None:
        self._service = service

    async def run(self, admission: Admission, run_id: UUID) -> StoredRun:
        """One run. Raises `ScopeMissing` for a caller that has neither `chat` nor `threads`."""
        identity = admission.identity
        if not (identity.may(CHAT) or identity.may(THREADS)):
            raise ScopeMissing(CHAT)
        caller = None if identity.may(THREADS) else caller_of(admission)
        return self._service.disclosure.stored(await self._service.store.run(run_id, identity.contact_id, caller))

    async def cancel(self, admission: Admission, run_id: UUID) -> None:
        """Cancel a run; nothing of it is stored any more. Raises `RunEnded` if it has ended."""
        await self.run(admission, run_id)
        settled = await self._service.cancel(run_id)
        if settled.status is None:
            raise RunNotFound(run_id)
        if not settled.counted:
            raise RunEnded(run_id, settled.status)

    async def watch(self, admission: Admission, run_id: UUID, after: int = 0) -> AsyncIterator[Read] | None:
        """What follows on position `after` in the stream of a run, as it comes; None if that was the last.

        Told from memory while it is there, else from the store.
        """
        stored = await self.run(admission, run_id)
        if after == THE_END:
            return None
        stream = self._service.watch(run_id)
        return self._of_another_process(stored, after) if stream is None else self._reader(stream, run_id, after)

    async def of(self, admission: Admission, run: LiveRun, after: int = 0) -> AsyncIterator[Read]:
        """The same for a run that the caller has begun, or begun before with the same idempotency key."""
        stream = run.stream if run.known_as is run.run_id else None
        if (stream := stream or self._service.watch(run.known_as)) is not None:
            return self._reader(stream, run.known_as, after)
        return self._of_another_process(await self.run(admission, run.known_as), after)

    def _reader(self, stream: RunStream, run_id: UUID, after: int) -> Reader:
        return Reader(stream, after, partial(self._of_store, run_id))

    async def _of_store(self, run_id: UUID, after: int) -> AsyncIterator[Read]:
        """What follows on a position in the stream of a run that may have ended, as far as the store knows it."""
        try:
            run = await self._service.store.run(run_id, None, None)
        except DomainError as error:
            yield THE_END, Ended(error)
            return
        async for found in self._of_another_process(run, after):
            yield found

    async def _of_another_process(self, run: StoredRun, after: int) -> AsyncIterator[Read]:
        if after < 1:
            after = 1
            yield after, RunStarted(run.run_id, run.thread_id, run.created_new_thread)
        while run.status in OPEN:
            if self._service.draining:
                yield THE_END, Ended(ServerDraining())
                return
            await asyncio.sleep(LOOK_EVERY)
            try:
                run = self._service.disclosure.stored(await self._service.store.run(run.run_id, None, None))
            except DomainError as error:
                yield THE_END, Ended(error)
                return
        async for found in replay(run, after):
            yield found
