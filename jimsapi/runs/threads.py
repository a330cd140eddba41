"""Threads as their callers read, fork, change, rate and delete them, limited to those that the identity may see."""

from collections.abc import Sequence
from datetime import date
from uuid import UUID

import msgspec

from jimsapi.runs.admission import Admission
from jimsapi.runs.errors import ContactForbidden
from jimsapi.runs.inbound import check_contact, check_text
from jimsapi.runs.live import Stop
from jimsapi.runs.service import RunService
from jimsapi.threads.errors import EventNotFound, InvalidCursor, KeyMismatch, ThreadNotFound
from jimsapi.threads.event import id_beside, position_of, row_id, row_time
from jimsapi.threads.facts import FEEDBACK, Feedback, Rating, ThreadChange, ThreadFacts, ThreadSummary
from jimsapi.threads.identity import Identity
from jimsapi.threads.ids import derived_id
from jimsapi.threads.run import EventPage, ThreadPage, ThreadRecord
from jimsapi.threads.search import NO_FILTER, SearchPage, SearchQuery, ThreadFilter
from jimsapi.threads.store import ThreadStore, decode_id_cursor, encode_id_cursor, take_page
from jimsapi.threads.usage import DayTotal, ModelTotal, UsageHolder


class FeedbackPage(msgspec.Struct, frozen=True):
    """A page of ratings, in the order of their events. `next` is the cursor of the next page; None on the last page."""

    feedback: list[Feedback]
    next: str | None


class ThreadService:
    """Reads, forks, changes, rates and deletes the threads that an identity may see, and deletes contacts.

    An identity that is bound to one contact sees only the threads of that contact.
    """

    def __init__(self, runs: RunService) -> None:
        self._runs = runs

    @property
    def _store(self) -> ThreadStore:
        return self._runs.store  # read each time, since a plugin may replace the store

    async def threads(
        self,
        identity: Identity,
        contact_id: str,
        limit: int,
        after: str | None,
        archived: bool | None = None,
        only: ThreadFilter = NO_FILTER,
    ) -> ThreadPage:
        """Return a page of a contact's threads, newest first: `limit` threads, after the cursor `after` if it is given.

        `archived`: only threads that are archived, or that are not; None for all. `only`: other conditions.

        Raises `ContactForbidden`, `InputRefused` (invalid contact) or `InvalidCursor`.
        """
        check_contact(identity, contact_id)
        with self._runs.outage.noted():
            return await self._store.threads(contact_id, limit, after, archived, only)

    async def search(
        self,
        identity: Identity,
        query: SearchQuery,
        contact_id: str,
        limit: int,
        after: str | None,
        archived: bool | None = None,
        only: ThreadFilter = NO_FILTER,
    ) -> SearchPage:
        """Return a page of those of a contact's threads in which a message or the title matches, newest first.

        The other arguments and the errors are as for `threads`. A query without phrases finds nothing. It also raises
        `StoreLacks` if the store cannot search.
        """
        check_contact(identity, contact_id)
        if not query.phrases:
            return SearchPage([], None)
        with self._runs.outage.noted():
            return await self._store.search(query, contact_id, limit, after, archived, only)

    async def thread(self, identity: Identity, thread_id: UUID) -> ThreadRecord:
        """Return one thread. Raises `ThreadNotFound`, also if the identity may not see the thread."""
        with self._runs.outage.noted():
            return await self._store.thread(thread_id, identity.contact_id)

    async def summaries(self, threads: Sequence[ThreadRecord]) -> list[ThreadSummary]:
        """Return what lists show of threads that the identity sees, in the same order."""
        with self._runs.outage.noted():
            return await self._store.summaries([thread.thread_id for thread in threads])

    async def fork(
        self, identity: Identity, thread_id: UUID, event_id: UUID | None = None, *, before: bool = False
    ) -> ThreadRecord:
        """Make a thread that begins as another one does, up to the event `event_id`, or `before` it.

        A fork before a message does not have the events beside the message either. Raises `ThreadNotFound` or
        `EventNotFound`.
        """
        return await self._runs.fork(thread_id, identity.contact_id, event_id, before=before)

    async def fork_once(
        self, admission: Admission, thread_id: UUID, event_id: UUID | None, key: str, *, before: bool = False
    ) -> ThreadRecord:
        """Fork a thread as `fork` does, once for each idempotency key of a caller and a thread.

        The identifier of the fork is derived from the key, so every process finds it again. Raises as `fork` does, and
        `KeyMismatch` if the caller has used the key to fork this thread in another place.
        """
        identity = admission.identity
        parts = (admission.provider or "", identity.subject, str(thread_id), key)
        place = "all" if event_id is None else "before" if before else "at"
        with self._runs.outage.noted():
            for other in ("all", "at", "before"):
                if other != place and await self._has(derived_id("fork", *parts, other)):
                    raise KeyMismatch
        fork_id = derived_id("fork", *parts, place)
        await self._runs.fork(thread_id, identity.contact_id, event_id, before=before, fork_id=fork_id)
        # It may be the fork of an earlier request. The caller may have been bound to another contact then.
        fork = await self.thread(identity, fork_id)
        if event_id is not None:
            await self._check_place(fork, thread_id, event_id, before=before)
        return fork

    async def _has(self, thread_id: UUID) -> bool:
        try:
            await self._store.thread(thread_id, None)
        except ThreadNotFound:
            return False
        return True

    async def _check_place(self, fork: ThreadRecord, parent_id: UUID, event_id: UUID, *, before: bool) -> None:
        """Raise `KeyMismatch` if a fork does not end at or before this event of its parent."""
        [summary] = await self.summaries([fork])
        parent = summary.facts.parent
        with self._runs.outage.noted():
            # The events of the parent from the end of the fork on. The parent may have been deleted since.
            ids = [event_id, id_beside(event_id, 1)] if before else [event_id]
            rows = await self._store.events_by_id(parent_id, ids)
            if parent is None or not rows:
                return
            last = min(rows, key=row_time)
            if before:
                [last] = await self._store.load_events(parent_id, position_of(last), 1)
        if row_id(last) != parent.event_id:
            raise KeyMismatch

    async def change(self, identity: Identity, thread_id: UUID, change: ThreadChange) -> ThreadFacts:
        """Change what was said of a thread. Raises `ThreadNotFound`, or `InputRefused` for an invalid title."""
        if change.title not in (None, msgspec.UNSET):
            check_text("title", change.title)
        with self._runs.outage.noted():
            return await self._store.change_thread(thread_id, identity.contact_id, change)

    async def rate(self, identity: Identity, thread_id: UUID, event_id: UUID, rating: Rating | None) -> None:
        """Set the rating of an event; None removes it. Best-effort sinks get it as an event that is not stored.

        Raises `ThreadNotFound`, `EventNotFound`, or `InputRefused` for an invalid comment.
        """
        if rating is not None and rating.comment is not None:
            check_text("comment", rating.comment)
        with self._runs.outage.noted():
            await self._store.rate(thread_id, identity.contact_id, event_id, rating)
        given = {"rating": None} if rating is None else {"rating": rating.rating, "comment": rating.comment}
        self._runs.tell_sinks(thread_id, FEEDBACK, {"event_id": str(event_id), **given})

    async def feedback(
        self, identity: Identity, thread_id: UUID, limit: int = 100, after: str | None = None
    ) -> FeedbackPage:
        """Return a page of the ratings of a thread's events, in the order of the events.

        Raises `ThreadNotFound` or `InvalidCursor`.
        """
        with self._runs.outage.noted():
            last = None if after is None else decode_id_cursor("feedback", after)
            try:
                found = await self._store.feedback(thread_id, identity.contact_id, limit + 1, last)
            except EventNotFound:
                raise InvalidCursor from None
        page, more = take_page(found, limit, lambda given: given.rating.comment)
        return FeedbackPage(page, encode_id_cursor("feedback", page[-1].event_id) if more else None)

    async def events(self, identity: Identity, thread_id: UUID, limit: int, after: str | None) -> EventPage:
        """Return a page of a thread's events, oldest first. Raises `ThreadNotFound` or `InvalidCursor`."""
        with self._runs.outage.noted():
            return await self._store.events(thread_id, identity.contact_id, limit, after)

    async def thread_usage(self, identity: Identity, thread_id: UUID) -> list[ModelTotal]:
        """Return what the runs of a thread have used, by model. Raises `ThreadNotFound`."""
        with self._runs.outage.noted():
            return await self._store.thread_usage(thread_id, identity.contact_id)

    async def usage(self, identity: Identity, holder: UsageHolder, first: date, last: date) -> list[DayTotal]:
        """Return what a contact or a caller has used from the day `first` to `last` (UTC), by day and model.

        Raises `ContactForbidden` if the identity is bound to another contact, or if `holder` has none.
        """
        if holder.contact_id is not None:
            check_contact(identity, holder.contact_id)
        elif identity.contact_id is not None:
            raise ContactForbidden
        with self._runs.outage.noted():
            return await self._store.usage(holder, first, last)

    async def delete_thread(self, identity: Identity, thread_id: UUID) -> None:
        """Delete a thread with its events and runs, and stop its open runs. Raises `ThreadNotFound`."""
        with self._runs.outage.noted():
            open_runs = await self._store.delete_thread(thread_id, identity.contact_id)
        self._runs.stop_runs(open_runs, Stop.DELETED)

    async def delete_contact(self, identity: Identity, contact_id: str) -> None:
        """Delete all threads of a contact, as `delete_thread` does. Raises `ContactForbidden` or `InputRefused`."""
        check_contact(identity, contact_id)
        with self._runs.outage.noted():
            open_runs = await self._store.delete_contact(contact_id)
        self._runs.stop_runs(open_runs, Stop.DELETED)
