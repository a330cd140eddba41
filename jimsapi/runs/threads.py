"""Reading and deleting threads, for whoever asks: the identity's contact is part of what the store is asked."""

from uuid import UUID

from jimsapi.runs.errors import ContactForbidden
from jimsapi.runs.identity import Identity
from jimsapi.runs.inbound import check_contact_id
from jimsapi.runs.live import Stop
from jimsapi.runs.service import RunService
from jimsapi.threads.run import EventPage, ThreadPage, ThreadRecord
from jimsapi.threads.store import ThreadStore


class ThreadService:
    """Threads, events and contacts as an identity may see them. A bound identity sees its own contact's alone."""

    def __init__(self, runs: RunService) -> None:
        self._runs = runs

    @property
    def _store(self) -> ThreadStore:
        return self._runs.store  # which a plugin may have put something around

    async def threads(self, identity: Identity, contact_id: str, limit: int, after: str | None) -> ThreadPage:
        """A page of a contact's threads, newest first. Raises `ContactForbidden`, `InputRefused`, `InvalidCursor`."""
        _check_contact(identity, contact_id)
        with self._runs.outage.noted():
            return await self._store.threads(contact_id, limit, after)

    async def thread(self, identity: Identity, thread_id: UUID) -> ThreadRecord:
        """One thread. Raises `ThreadNotFound`, also for one of a contact that the identity may not see."""
        with self._runs.outage.noted():
            return await self._store.thread(thread_id, identity.contact_id)

    async def events(self, identity: Identity, thread_id: UUID, limit: int, after: str | None) -> EventPage:
        """A page of a thread's events, oldest first. Raises `ThreadNotFound`, `InvalidCursor`."""
        with self._runs.outage.noted():
            return await self._store.events(thread_id, identity.contact_id, limit, after)

    async def delete_thread(self, identity: Identity, thread_id: UUID) -> None:
        """Delete a thread with its events and runs; open runs end. Raises `ThreadNotFound`."""
        with self._runs.outage.noted():
            open_runs = await self._store.delete_thread(thread_id, identity.contact_id)
        self._runs.stop_runs(open_runs, Stop.DELETED)

    async def delete_contact(self, identity: Identity, contact_id: str) -> None:
        """Delete all threads of a contact, if there are any. Raises `ContactForbidden`, `InputRefused`."""
        _check_contact(identity, contact_id)
        with self._runs.outage.noted():
            open_runs = await self._store.delete_contact(contact_id)
        self._runs.stop_runs(open_runs, Stop.DELETED)


def _check_contact(identity: Identity, contact_id: str) -> None:
    if identity.contact_id is not None and contact_id != identity.contact_id:
        raise ContactForbidden
    check_contact_id(contact_id)
