"""The memory store, which loses all threads when the process ends. For tests, trials and benchmarks."""

import asyncio
from bisect import bisect_left, bisect_right, insort
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import islice, takewhile
from operator import attrgetter, itemgetter
from types import TracebackType
from typing import Self, assert_never, cast
from uuid import UUID

import msgspec

from jimsapi.stores.memory_outbox import HistoryPage, MemoryOutbox
from jimsapi.stores.memory_subscriptions import MemorySubscriptions
from jimsapi.threads.activity import MODEL_USAGE
from jimsapi.threads.errors import (
    EventNotFound,
    IdentifierTaken,
    InvalidCursor,
    QueueFull,
    RunClosed,
    RunNotFound,
    ThreadNotFound,
)
from jimsapi.threads.event import (
    EPOCH,
    EPOCH_UTC,
    STATE_PREFIX,
    THREAD_CREATED,
    Event,
    EventRow,
    NewEvent,
    time_after,
    utc_now,
)
from jimsapi.threads.facts import (
    MAX_FORKS,
    MAX_QUESTIONS,
    NO_FACTS,
    NO_SUMMARY,
    Created,
    Feedback,
    ForkPlan,
    Parent,
    Rating,
    ThreadChange,
    ThreadFacts,
    ThreadPlan,
    ThreadSummary,
)
from jimsapi.threads.ids import uuid7
from jimsapi.threads.outbox import OutboxEvent
from jimsapi.threads.questions import QUESTION_ASKED, count_open
from jimsapi.threads.run import (
    COMPLETED,
    NO_RUN_FILTER,
    QUEUED,
    RUNNING,
    Accepted,
    AdoptedRun,
    ByExternalId,
    ById,
    ContactPage,
    ContactRecord,
    ContextLimits,
    EventPage,
    EventRecord,
    FailureKind,
    Idempotency,
    Latest,
    ListedRun,
    New,
    Outcome,
    RunFilter,
    RunPage,
    RunPlan,
    RunStatus,
    Settled,
    Snapshot,
    Started,
    StoredRun,
    ThreadPage,
    ThreadQuery,
    ThreadRecord,
)
from jimsapi.threads.search import (
    NO_FILTER,
    SearchPage,
    SearchQuery,
    ThreadFilter,
    ThreadMatch,
    message_text,
    text_matches,
)
from jimsapi.threads.storable import storable_text
from jimsapi.threads.store import (
    KEEP_KEYS,
    CommitRecord,
    decode_contact_cursor,
    decode_cursor,
    decode_id_cursor,
    encode_contact_cursor,
    encode_cursor,
    encode_id_cursor,
    take_page,
    take_sized,
)
from jimsapi.threads.transfer import (
    Activity,
    CallerUsage,
    ContactUsage,
    EndedRun,
    KeyRecord,
    Record,
    RecordKind,
    SubscriptionRecord,
    WholeEvent,
    WholeThread,
    thread_size,
)
from jimsapi.threads.transitions import (
    KeyHolder,
    Start,
    accepted_status,
    answer_again,
    cancel_counts,
    changed_facts,
    config_of_new,
    enters_late,
    finish_counts,
    has_context,
    interrupted_error,
    is_adoptable,
    is_full,
    is_next,
    judge_start,
    keys_known_since,
    may_restart,
    may_see,
    opening_message,
    orphan_status,
    select_thread,
    stored_events,
    was_active,
)
from jimsapi.threads.usage import (
    MAX_USAGE_CONTACT,
    NO_CALLER,
    DayTotal,
    ModelTotal,
    UsageHolder,
    UsageTotal,
    sum_usage,
    usage_by_model,
)
from jimsapi.threads.window import COMM_PREFIX, choose, end_with, window_size

_NO_DATA = b"{}"
_UNKNOWN = UUID(int=0)
"""Stands for the owner of a run that another store has ended."""
_NO_TIME = datetime.min.isoformat()
_ONE_OPERATION = CommitRecord(1, 0.0, False)
# The rows of this store have a `UUID` and a `datetime`. Functions in Python would be slower than these two.
_id: Callable[[EventRow], int] = attrgetter("event_id.int")
_time: Callable[[EventRow], datetime] = attrgetter("created_at")
_UNINDEXED_EVENTS = 64
"""The most events of a thread without an index. For so few, a search of the list is as fast."""
_COMPARED_AT_ONCE = 65_536
"""The bytes of messages that a search compares before other work goes on."""


class _Index:
    """The index of a thread: its event identifiers, the positions of `comm.*` events, of questions, and of the
    newest states.

    Identifiers are integers, because the hash of a `UUID` is computed in Python at ten times the cost.
    """

    __slots__ = ("asked", "comm", "event_ids", "states")

    def __init__(self, rows: Sequence[EventRow]) -> None:
        self.event_ids: set[int] = set()
        self.comm: list[int] = []
        self.asked: list[int] = []
        self.states: dict[str, int] = {}
        self.add(rows, 0)

    def add(self, rows: Iterable[EventRow], first: int) -> None:
        """Add rows to the index. `first` is the position of the first row in the thread."""
        for position, row in enumerate(rows, first):
            self.event_ids.add(_id(row))
            if row.event_type.startswith(COMM_PREFIX):
                self.comm.append(position)
            elif row.event_type.startswith(STATE_PREFIX):
                self.states[row.event_type] = position
            elif row.event_type == QUESTION_ASKED:
                self.asked.append(position)


class _Thread(msgspec.Struct, eq=False, gc=False):
    """A thread: its events in order, the bytes of their text, and the identifiers of its open runs, oldest first.

    Threads and runs are not tracked by the garbage collector (`gc=False`), and have few containers: a store may have
    many threads, and the collector would visit all of them again and again. So references must not form a cycle: a run
    refers to its thread, but a thread does not refer to its runs. Threads with more than `_UNINDEXED_EVENTS` events
    have an `index`. `names` has the domains and names of events of other JIMS programs.
    """

    record: ThreadRecord
    external_id: str | None
    rows: list[EventRow]
    size: int
    facts: ThreadFacts = NO_FACTS
    feedback: dict[int, Feedback] | None = None
    usage: Mapping[str, UsageTotal] | None = None
    names: dict[int, tuple[str | None, str | None]] | None = None
    index: _Index | None = None
    open: tuple[int, ...] = ()
    deleted: bool = False

    def active_at(self) -> datetime | None:
        return _time(self.rows[-1]) if self.rows else None

    def refuse_known(self, events: Sequence[NewEvent]) -> None:
        ids = self.event_ids()
        taken = [event.event_id for event in events if event.event_id.int in ids]
        if taken:
            raise IdentifierTaken(taken)

    def event_ids(self) -> Collection[int]:
        return list(map(_id, self.rows)) if self.index is None else self.index.event_ids

    def append(self, events: Sequence[NewEvent], now: datetime) -> list[EventRow]:
        """Append events, each with a later time than the one before it. Returns their rows."""
        rows = self.rows
        newest = _time(rows[-1]) if rows else None
        added: list[EventRow] = []
        for event in events:
            newest = time_after(newest, now)
            added.append(EventRow(event.event_id, newest, event.event_type, event.data))
            self.size += len(event.data)
        if self.index is not None:
            self.index.add(added, len(rows))
        rows += added
        if self.index is None and len(rows) > _UNINDEXED_EVENTS:
            self.index = _Index(rows)
        return added

    def snapshot(self, limits: ContextLimits) -> Snapshot:
        rows = self.rows
        if limits.events == 0 or (len(rows) <= window_size(limits) and self.size <= limits.bytes):
            return Snapshot(rows[:], False)
        index = self.index or _Index(rows)
        edge = max(0, len(rows) - window_size(limits))
        comm = index.comm[-limits.events :]
        chosen = choose(
            rows[edge:][::-1],
            [rows[position] for position in comm[: bisect_left(comm, edge)][::-1]],
            [rows[position] for position in sorted(index.states.values(), reverse=True) if position < edge],
            limits,
        )
        return Snapshot(chosen, len(chosen) < len(rows))

    def snapshot_for(self, run: "_Run", limits: ContextLimits) -> Snapshot:
        """Return the context of a run whose message is in the thread."""
        snapshot = self.snapshot(limits)
        return end_with(snapshot, self.rows_of(run.entering_ids())) if run.continues else snapshot

    def newest_questions(self) -> list[EventRow]:
        if self.index is not None:
            return [self.rows[position] for position in self.index.asked[-MAX_QUESTIONS:]]
        return [row for row in self.rows if row.event_type == QUESTION_ASKED][-MAX_QUESTIONS:]

    def rows_of(self, event_ids: Collection[int]) -> list[EventRow]:
        """Return the rows of these events, in the order of the thread."""
        if self.index is not None and self.index.event_ids.isdisjoint(event_ids):
            return []
        return [row for row in self.rows if _id(row) in event_ids]


class _Run(msgspec.Struct, eq=False, gc=False):
    """A run. `continues`: its message was in the thread before the run. `entering` has the events beside its message,
    then the message, while the run is open.

    `sent_from` and `sent_to` are the positions of the events that `finish` stored. The run does not have the rows
    themselves, so that deleting the thread releases them.
    """

    run_id: UUID
    owner: UUID
    thread: _Thread
    status: RunStatus
    entering: tuple[NewEvent, ...]
    message_id: UUID
    created_new_thread: bool
    continues: bool
    caller: UUID | None
    background: bool
    webhook_url: str | None
    accepted_at: datetime
    started_at: datetime | None
    ended_at: datetime | None = None
    error: str | None = None
    failure: FailureKind | None = None
    streamed: int | None = None
    sent_from: int = 0
    sent_to: int = 0
    restarts: int = 0

    def entering_ids(self) -> set[int]:
        return {event.event_id.int for event in self.entering}

    def record(self) -> ListedRun:
        thread = self.thread.record
        return ListedRun(
            self.run_id,
            thread.thread_id,
            thread.contact_id,
            self.status,
            self.accepted_at.replace(tzinfo=UTC),
            self.started_at and self.started_at.replace(tzinfo=UTC),
            self.ended_at and self.ended_at.replace(tzinfo=UTC),
            self.failure,
        )


class _Key(msgspec.Struct, frozen=True, gc=False):
    """An idempotency key: the last run that was accepted with it, the digest of its request, and the time."""

    run_id: UUID
    body: UUID
    used_at: datetime


class MemoryStore:
    """A `ThreadStore` in the memory of the process. Its methods never wait, so each is one transaction."""

    def __init__(self) -> None:
        self.name = "memory:"
        self.on_commit: Callable[[CommitRecord], None] | None = None
        self.on_turn: Callable[[UUID], None] | None = None
        self.keep_keys = KEEP_KEYS
        self.max_restarts = 0
        self._threads: dict[int, _Thread] = {}
        self._contacts: dict[str, list[_Thread]] = {}
        self._external_ids: dict[str, list[_Thread]] = {}
        self._forks: Counter[UUID] = Counter()  # the number of forks of each thread
        self._runs: dict[int, _Run] = {}
        self._open: dict[int, _Run] = {}
        self._ended: deque[_Run] = deque()
        self._keys: dict[int, _Key] = {}  # in the order of their last use
        self._contact_usage: dict[str, dict[tuple[date, str, UUID], UsageTotal]] = {}
        self._caller_usage: dict[UUID, dict[tuple[date, str], UsageTotal]] = {}
        self.outbox = MemoryOutbox(self._committed, self._history, self._has_event, self._has_run)
        self.subscriptions = MemorySubscriptions(self._committed, self._has_run)
        self._config = _NO_DATA  # the newest thread's config; the next thread shares it if it has an equal one

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass

    async def ping(self) -> None:
        """Do nothing, since memory is always available."""

    async def accept(self, plan: RunPlan) -> Accepted:
        earlier = self._run(plan.run_id)
        if earlier is not None:
            return self._accepted_before(earlier, plan)
        now = utc_now()
        interrupted = None if plan.idempotency is None else self._interrupted(plan.idempotency, now)
        continues = False
        if interrupted is None:
            thread = select_thread(plan, lambda selector: self._find(selector, plan.contact_id, now), _contact_of)
        else:
            thread = self._get(interrupted.thread.record.thread_id, plan.acting_for)
            plan = answer_again(plan, interrupted.message_id)
            continues = interrupted.message_id.int in thread.event_ids()
        created = isinstance(thread, New)
        if isinstance(thread, New):
            thread = self._create_thread(plan, thread, now)
        elif is_full(len(thread.open), plan.queue_limit):
            raise QueueFull(plan.queue_limit, self._open[thread.open[0]].run_id)
        entering = (*plan.beside, plan.message)
        if not (created or continues):
            thread.refuse_known(entering)
        stored = thread.rows[:] if created else []
        status = accepted_status(len(thread.open), is_greeted=created and plan.conversation_start)
        if status is RUNNING and not continues:
            stored += thread.append(entering, now)
        if self.outbox.keeps:
            self._add_to_outbox(thread, stored, plan.run_id)
        run = _Run(
            plan.run_id,
            plan.owner,
            thread,
            status,
            entering,
            plan.message.event_id,
            created,
            continues,
            plan.caller,
            plan.background,
            plan.webhook_url,
            now,
            now if status is RUNNING else None,
        )
        snapshot = thread.snapshot_for(run, plan.context) if has_context(status, created) else None
        thread.open = (*thread.open, run.run_id.int)
        self._runs[run.run_id.int] = self._open[run.run_id.int] = run
        if plan.idempotency is not None:
            self._store_key(plan.idempotency, run, now)
        self._committed()
        return Accepted(thread.record, created, status, snapshot, stored)

    def _accepted_before(self, run: _Run, plan: RunPlan) -> Accepted:
        thread = run.thread
        stored = thread.rows[:1] if run.created_new_thread and not run.continues else []
        if run.status is RUNNING and not run.continues:
            # The message may not be the newest row, since `recover` may have added another run's message after it.
            stored = stored + thread.rows_of(run.entering_ids())
        with_context = has_context(run.status, run.created_new_thread, run.continues)
        snapshot = thread.snapshot_for(run, plan.context) if with_context else None
        return Accepted(thread.record, run.created_new_thread, run.status, snapshot, stored)

    def _interrupted(self, idempotency: Idempotency, now: datetime) -> _Run | None:
        """Return the interrupted run with this key, whose message a new run answers; None if the key is free.

        Raises `KeyUsed` or `KeyMismatch`.
        """
        key = self._keys.get(idempotency.key.int)
        if key is None or key.used_at < keys_known_since(now, self.keep_keys):
            return None
        run = self._run(key.run_id)
        if run is None:
            return None
        holder = KeyHolder(run.run_id, key.body, run.status, run.started_at is not None, run.continues)
        return run if holder.is_continued_by(idempotency.body) else None

    def _store_key(self, idempotency: Idempotency, run: _Run, now: datetime) -> None:
        self._keys.pop(idempotency.key.int, None)  # to the end of the order
        self._keys[idempotency.key.int] = _Key(run.run_id, idempotency.body, now)

    def _find(self, selector: ById | Latest | ByExternalId, contact_id: str, now: datetime) -> _Thread | None:
        """Return the thread that a selector finds, without checking permissions."""
        if isinstance(selector, Latest):  # not `match`, which takes several times as long
            threads = self._contacts.get(contact_id)
            if not threads:
                return None
            within = selector.active_within
            if within is None:
                return threads[-1]
            newest = threads[-1].active_at() or threads[-1].record.created_at.replace(tzinfo=None)
            return threads[-1] if was_active(newest, now, within) else None
        if isinstance(selector, ById):
            return self._threads.get(selector.thread_id.int)
        if isinstance(selector, ByExternalId):
            threads = self._external_ids.get(selector.external_id)
            return threads[-1] if threads else None
        assert_never(selector)  # a plugin's resolver may return anything

    def _create_thread(self, plan: RunPlan, new: New, now: datetime) -> _Thread:
        config = config_of_new(plan, new)
        if config != self._config:
            self._config = config
        thread = self._add_thread(uuid7(), plan.contact_id, self._config, now)
        if new.external_id is not None:
            self._set_external_id(thread, new.external_id)
        thread.rows.append(EventRow(uuid7(), now, THREAD_CREATED, _NO_DATA))
        thread.size = len(_NO_DATA)
        return thread

    def _set_external_id(self, thread: _Thread, external_id: str) -> None:
        thread.external_id = external_id
        self._external_ids.setdefault(external_id, []).append(thread)

    def _add_thread(self, thread_id: UUID, contact_id: str | None, config: bytes | str, now: datetime) -> _Thread:
        """Add a thread without events, the newest of its contact."""
        siblings = [] if contact_id is None else self._contacts.setdefault(contact_id, [])
        created_at = time_after(siblings[-1].record.created_at if siblings else None, EPOCH_UTC + (now - EPOCH))
        thread = _Thread(ThreadRecord(thread_id, contact_id, created_at, config), None, [], 0)
        self._threads[thread_id.int] = thread
        siblings.append(thread)
        return thread

    async def start(
        self, run_id: UUID, owner: UUID, events: Sequence[NewEvent], context: ContextLimits
    ) -> Started | None:
        run = self._open.get(run_id.int)
        if run is None:
            raise RunClosed
        thread = run.thread
        decision = judge_start(run.status, is_owner=run.owner == owner, is_oldest=thread.open[0] == run_id.int)
        if decision is Start.AGAIN:
            ids = {event.event_id.int for event in events}
            if not run.continues:
                ids |= run.entering_ids()
            return Started(thread.snapshot_for(run, context), thread.rows_of(ids))
        if decision is Start.LATER:
            return None
        entering = [*events] if run.continues else [*events, *run.entering]
        thread.refuse_known(entering)
        now = utc_now()
        stored = thread.append(entering, now)
        self._add_to_outbox(thread, stored, run_id)
        self._count_usage(events, thread, run.caller, now)
        run.status = RUNNING
        run.started_at = now
        self._committed()
        return Started(thread.snapshot_for(run, context), stored)

    async def finish(self, run_id: UUID, owner: UUID, outcome: Outcome) -> Settled:
        run = self._run(run_id)
        if run is None:
            return Settled(False, None, None)
        thread = run.thread
        if not finish_counts(run.status, is_owner=run.owner == owner):
            return Settled(False, run.status, self._next_run(thread))
        now = utc_now()
        stored: list[EventRow] = []
        if events := stored_events(outcome):
            thread.refuse_known(events)
            stored = thread.append(events, now)
            if self.outbox.keeps:
                self._add_to_outbox(thread, stored, run_id)
            for event in events:  # saves nearly every answer two calls
                if event.event_type == MODEL_USAGE:
                    self._count_usage(events, thread, run.caller, now)
                    break
            if outcome.status is COMPLETED:
                run.sent_to = len(thread.rows)
                run.sent_from = run.sent_to - len(stored)
        if outcome.error is not None:
            run.error = storable_text(outcome.error)
        run.failure = outcome.failure
        run.streamed = outcome.streamed
        self._end(run, outcome.status, now)
        self._committed()
        return Settled(True, run.status, self._next_run(thread), stored)

    async def append(
        self, thread_id: UUID, acting_for: str | None, events: Sequence[NewEvent], run_id: UUID | None = None
    ) -> list[EventRow]:
        thread = self._get(thread_id, acting_for)
        found = thread.rows_of({event.event_id.int for event in events})
        if len(found) == len(events):
            return found
        thread.refuse_known(events)
        now = utc_now()
        stored = thread.append(events, now)
        self._add_to_outbox(thread, stored, run_id)
        run = None if run_id is None else self._run(run_id)
        self._count_usage(events, thread, None if run is None else run.caller, now)
        self._committed()
        return stored

    async def cancel(self, run_id: UUID) -> Settled:
        run = self._run(run_id)
        if run is None:
            return Settled(False, None, None)
        if not cancel_counts(run.status):
            return Settled(False, run.status, self._next_run(run.thread))
        self._end(run, RunStatus.CANCELLED, utc_now())
        self._committed()
        return Settled(True, run.status, self._next_run(run.thread))

    async def heartbeat(self, owner: UUID, live: Collection[UUID]) -> list[UUID]:
        now = utc_now()
        orphans = [run for run in self._open.values() if run.owner == owner and run.run_id not in live]
        for run in orphans:
            self._end(run, orphan_status(run.status), now, at_once=True)
        self._committed()
        may_start = (self._next_run(run.thread) for run in orphans)
        return list(dict.fromkeys(run_id for run_id in may_start if run_id is not None))

    async def recover(self, owner: UUID) -> int:
        now = utc_now()
        dead = [run for run in self._open.values() if run.owner != owner]
        orphans = [run for run in dead if not (_waits(run) or self._may_restart(run))]
        for run in orphans:
            run.error = interrupted_error(run.restarts)
            if enters_late(run.status) and run.message_id.int not in run.thread.event_ids():
                self._add_to_outbox(run.thread, run.thread.append(run.entering, now), run.run_id)
            self._end(run, RunStatus.INTERRUPTED, now, at_once=True)
        self._committed()
        return len(orphans)

    async def adopt(self, owner: UUID) -> list[AdoptedRun]:
        adopted: list[AdoptedRun] = []
        for run in self._open.values():  # in the order of acceptance
            if run.owner == owner:
                continue
            if self._may_restart(run):
                run.status, run.started_at, run.continues = QUEUED, None, True
                run.restarts += 1
            if _waits(run):
                run.owner = owner
                thread = run.thread.record
                adopted.append(
                    AdoptedRun(
                        run.run_id,
                        thread.thread_id,
                        thread.contact_id,
                        run.entering[-1],
                        run.caller,
                        run.webhook_url,
                        run.entering[:-1],
                        run.restarts,
                    )
                )
        self._committed()
        return adopted

    def _may_restart(self, run: _Run) -> bool:
        return (
            may_restart(run.status, background=run.background, restarts=run.restarts, max_restarts=self.max_restarts)
            and run.message_id.int in run.thread.event_ids()
        )

    async def run(self, run_id: UUID, acting_for: str | None, caller: UUID | None) -> StoredRun:
        run = self._run(run_id)
        if run is None or not may_see(run.thread.record.contact_id, acting_for) or caller not in (None, run.caller):
            raise RunNotFound(run_id)
        thread = run.thread.record
        return StoredRun(
            run_id=run_id,
            thread_id=thread.thread_id,
            contact_id=thread.contact_id,
            status=run.status,
            created_new_thread=run.created_new_thread,
            accepted_at=run.accepted_at.replace(tzinfo=UTC),
            started_at=run.started_at and run.started_at.replace(tzinfo=UTC),
            finished_at=run.ended_at and run.ended_at.replace(tzinfo=UTC),
            error=run.error,
            streamed=run.streamed,
            events=[_event_record(row) for row in run.thread.rows[run.sent_from : run.sent_to]],
            failure=run.failure,
            message_id=run.message_id,
            restarts=run.restarts,
        )

    async def runs(
        self, acting_for: str | None, limit: int, after: str | None, only: RunFilter = NO_RUN_FILTER
    ) -> RunPage:
        if only.thread_id is not None:
            self._get(only.thread_id, acting_for)
        edge = None if after is None else decode_id_cursor("runs", after).int
        ids = sorted((run_id for run_id in self._runs if edge is None or run_id < edge), reverse=True)
        found = list(islice(self._listed(ids, acting_for, only), limit + 1))
        page = found[:limit]
        return RunPage(page, encode_id_cursor("runs", page[-1].run_id) if len(found) > limit else None)

    def _listed(self, ids: Iterable[int], acting_for: str | None, only: RunFilter) -> Iterator[ListedRun]:
        """Yield those of the runs that a list has."""
        for run_id in ids:
            run = self._runs[run_id]
            thread = run.thread.record
            if (
                not run.thread.deleted
                and only.thread_id in (None, thread.thread_id)
                and may_see(thread.contact_id, acting_for)
                and may_see(thread.contact_id, only.contact_id)
                and only.caller in (None, run.caller)
                and only.accepts(run.status, run.accepted_at.replace(tzinfo=UTC))
            ):
                yield run.record()

    async def contacts(self, acting_for: str | None, limit: int, after: str | None) -> ContactPage:
        edge = None if after is None else decode_contact_cursor(after)
        listed = sorted(contact for contact in self._contacts if edge is None or contact > edge)
        found = [contact for contact in listed if may_see(contact, acting_for)]
        page = [self._contact(contact) for contact in found[:limit]]
        return ContactPage(page, encode_contact_cursor(page[-1].contact_id) if len(found) > limit else None)

    def _contact(self, contact_id: str) -> ContactRecord:
        threads = self._contacts[contact_id]
        active_at = max((_time(thread.rows[-1]) for thread in threads if thread.rows), default=None)
        return ContactRecord(contact_id, len(threads), active_at and active_at.replace(tzinfo=UTC))

    async def find_thread(self, query: ThreadQuery) -> ThreadRecord:
        now = utc_now()
        thread = select_thread(query, lambda selector: self._find(selector, query.contact_id, now), _contact_of)
        if isinstance(thread, New):
            raise ThreadNotFound
        return thread.record

    async def events_by_id(self, thread_id: UUID, event_ids: Sequence[UUID]) -> list[EventRow]:
        thread = self._threads.get(thread_id.int)
        if thread is None:
            return []
        found = {_id(row): row for row in thread.rows_of({event_id.int for event_id in event_ids})}
        return [found[event_id.int] for event_id in event_ids if event_id.int in found]

    async def thread(self, thread_id: UUID, acting_for: str | None) -> ThreadRecord:
        return self._get(thread_id, acting_for).record

    async def threads(
        self,
        contact_id: str,
        limit: int,
        after: str | None,
        archived: bool | None = None,
        only: ThreadFilter = NO_FILTER,
    ) -> ThreadPage:
        older = (thread.record for thread in self._newest_first("threads", contact_id, after, archived, only))
        page, more = take_page(older, limit, attrgetter("thread_config"))
        return ThreadPage(page, _write_cursor("threads", page[-1].created_at.replace(tzinfo=None)) if more else None)

    async def search(
        self,
        query: SearchQuery,
        contact_id: str,
        limit: int,
        after: str | None,
        archived: bool | None = None,
        only: ThreadFilter = NO_FILTER,
    ) -> SearchPage:
        """Search without an index: it reads all messages until the page is full. Other work goes on meanwhile."""
        threads = list(self._newest_first("search", contact_id, after, archived, only))
        found: list[ThreadMatch] = []
        for match in _matches(threads, query):
            if match is None:
                await asyncio.sleep(0)
                continue
            found.append(match)
            if len(found) > limit:
                break
        page, more = take_sized(found, limit, attrgetter("size"))
        last = _write_cursor("search", page[-1].thread.created_at.replace(tzinfo=None)) if more else None
        return SearchPage(page, last)

    def _newest_first(
        self, kind: str, contact_id: str, after: str | None, archived: bool | None, only: ThreadFilter
    ) -> Iterator[_Thread]:
        """Return the threads of a contact that a list of this kind may have, after the cursor `after`."""
        threads = self._contacts.get(contact_id, [])
        end = len(threads)
        if after is not None:
            end = bisect_left(threads, _read_cursor(kind, after).replace(tzinfo=UTC), key=_created_at)
        older = (threads[position] for position in range(end - 1, -1, -1))
        return (thread for thread in older if only.accepts(thread.facts, archived))

    async def events(self, thread_id: UUID, acting_for: str | None, limit: int, after: str | None) -> EventPage:
        rows = self._get(thread_id, acting_for).rows
        begin = 0 if after is None else bisect_right(rows, _read_cursor("events", after), key=_time)
        page, more = take_page(islice(rows, begin, None), limit, attrgetter("data"))
        return EventPage(
            [_event_record(row) for row in page], _write_cursor("events", _time(page[-1])) if more else None
        )

    async def load_events(self, thread_id: UUID, before: Event | None, limit: int) -> list[EventRow]:
        thread = self._threads.get(thread_id.int)
        if thread is None:
            return []
        end = len(thread.rows) if before is None else bisect_left(thread.rows, before.created_at, key=_time)
        return thread.rows[max(0, end - max(0, limit)) : end]

    async def create(self, plan: ThreadPlan) -> Created:
        thread = self._threads.get(plan.thread_id.int)
        if thread is not None:
            return Created(thread.record, await self.events_by_id(plan.thread_id, [e.event_id for e in plan.events]))
        now = utc_now()
        thread = self._add_thread(plan.thread_id, plan.contact_id, plan.thread_config, now)
        thread.facts = msgspec.structs.replace(thread.facts, metadata=plan.metadata)
        stored = thread.append(plan.events, now)
        self._add_to_outbox(thread, stored, None)
        self._committed()
        return Created(thread.record, stored)

    async def fork(self, plan: ForkPlan) -> ThreadRecord:
        earlier = self._threads.get(plan.thread_id.int)
        if earlier is not None:
            return earlier.record
        parent = self._get(plan.parent_id, plan.acting_for)
        end = len(parent.rows)
        if plan.event_id is not None:
            found = parent.rows_of({plan.event_id.int})
            if not found:
                raise EventNotFound(plan.event_id)
            end = bisect_left(parent.rows, _time(found[0]), key=_time) + (not plan.before)
        if not end:
            raise EventNotFound
        rows = parent.rows[:end]
        facts = msgspec.structs.replace(
            parent.facts, title=None, archived_at=None, parent=Parent(plan.parent_id, cast(UUID, rows[-1].event_id))
        )
        record = parent.record
        fork = self._add_thread(plan.thread_id, record.contact_id, record.thread_config, utc_now())
        fork.rows, fork.size, fork.facts = rows, sum(len(row.data or b"") for row in rows), facts
        self._forks[plan.parent_id] += 1
        if len(rows) > _UNINDEXED_EVENTS:
            fork.index = _Index(rows)
        if plan.keeps_external_id and parent.external_id is not None:
            self._set_external_id(fork, parent.external_id)
        self._add_to_outbox(fork, rows, None)
        self._committed()
        return fork.record

    async def change_thread(self, thread_id: UUID, acting_for: str | None, change: ThreadChange) -> ThreadFacts:
        thread = self._get(thread_id, acting_for)
        thread.facts = changed_facts(thread.facts, change, utc_now().replace(tzinfo=UTC))
        self._committed()
        return thread.facts

    async def rate(self, thread_id: UUID, acting_for: str | None, event_id: UUID, rating: Rating | None) -> None:
        thread = self._get(thread_id, acting_for)
        if event_id.int not in thread.event_ids():
            raise EventNotFound(event_id)
        feedback = thread.feedback = thread.feedback or {}
        if rating is None:
            feedback.pop(event_id.int, None)
        else:
            feedback[event_id.int] = Feedback(event_id, rating, utc_now().replace(tzinfo=UTC))
        self._committed()

    async def feedback(
        self, thread_id: UUID, acting_for: str | None, limit: int | None = None, after: UUID | None = None
    ) -> list[Feedback]:
        thread = self._get(thread_id, acting_for)
        feedback = thread.feedback or {}
        rated = thread.rows_of(feedback.keys())
        if after is not None:
            last = thread.rows_of({after.int})
            if not last:
                raise EventNotFound(after)
            rated = rated[bisect_right(rated, _time(last[0]), key=_time) :]
        return [feedback[_id(row)] for row in rated[:limit]]

    async def summaries(self, thread_ids: Sequence[UUID]) -> list[ThreadSummary]:
        return [self._summary(self._threads.get(thread_id.int)) for thread_id in thread_ids]

    def _summary(self, thread: _Thread | None) -> ThreadSummary:
        if thread is None:
            return NO_SUMMARY
        messages = (row for row in thread.rows if row.event_type.startswith(COMM_PREFIX))
        newest = (row for row in reversed(thread.rows) if row.event_type.startswith(COMM_PREFIX))
        active_at = thread.active_at()
        ids = thread.event_ids()
        return ThreadSummary(
            thread.facts,
            opening_message(messages),
            next(newest, None),
            active_at and active_at.replace(tzinfo=UTC),
            min(MAX_FORKS, self._forks.get(thread.record.thread_id, 0)),
            count_open(thread.newest_questions(), lambda event_id: event_id.int in ids, datetime.now(UTC)),
        )

    async def thread_usage(self, thread_id: UUID, acting_for: str | None) -> list[ModelTotal]:
        usage = self._get(thread_id, acting_for).usage or {}
        return [ModelTotal(model, usage[model]) for model in sorted(usage)]

    async def usage(self, holder: UsageHolder, first: date, last: date) -> list[DayTotal]:
        totals: dict[tuple[date, str], UsageTotal] = {}
        if holder.contact_id is not None:
            for (day, model, caller), total in self._contact_usage.get(holder.contact_id, {}).items():
                if holder.caller in (None, caller):
                    totals[day, model] = totals.get((day, model), UsageTotal()) + total
        elif holder.caller is not None:
            totals = self._caller_usage.get(holder.caller, {})
        return [
            DayTotal(*key, total) for key, total in sorted(totals.items(), key=itemgetter(0)) if first <= key[0] <= last
        ]

    async def add_usage(self, run_id: UUID, contact_id: str, caller: UUID, events: Sequence[NewEvent]) -> None:
        if run_id.int not in self._keys:
            now = utc_now()
            self._keys[run_id.int] = _Key(run_id, run_id, now)
            self._add_usage(usage_by_model(events), contact_id, caller, now)
        self._committed()

    async def delete_thread(self, thread_id: UUID, acting_for: str | None) -> list[UUID]:
        thread = self._get(thread_id, acting_for)
        self._leave_contact(thread)
        open_runs = self._forget(thread)
        self._committed()
        return open_runs

    async def delete_contact(self, contact_id: str) -> list[UUID]:
        open_runs = [run_id for thread in self._contacts.pop(contact_id, []) for run_id in self._forget(thread)]
        self._contact_usage.pop(contact_id, None)
        self._committed()
        return open_runs

    async def expire(self, older_than: timedelta) -> int:
        cutoff = utc_now() - older_than
        expired = [
            thread
            for thread in self._threads.values()
            if not thread.open and thread.rows and _time(thread.rows[-1]) < cutoff
        ]
        for thread in expired:
            self._leave_contact(thread)
            self._forget(thread)
        self._committed()
        return len(expired)

    async def purge(self, older_than: timedelta) -> int:
        now = utc_now()
        cutoff = now - older_than
        purged = 0
        while self._ended and (ended_at := self._ended[0].ended_at) is not None and ended_at < cutoff:
            run = self._ended.popleft()
            if self._runs.get(run.run_id.int) is run:
                del self._runs[run.run_id.int]
                purged += not run.thread.deleted
        known_since = keys_known_since(now, self.keep_keys)
        for key, _ in list(takewhile(lambda item: item[1].used_at < known_since, self._keys.items())):
            del self._keys[key]
        self._committed()
        return purged

    async def activity(self) -> Activity:
        return Activity(len(self._open), 0)

    async def count_threads(self) -> int:
        return len(self._threads)

    async def export_threads(self, after: UUID | None, limit: int) -> list[WholeThread]:
        ids = sorted(thread_id for thread_id in self._threads if after is None or thread_id > after.int)
        runs = self._ended_runs(ids[:limit])
        threads = (_whole_thread(self._threads[thread_id], runs.get(thread_id, [])) for thread_id in ids[:limit])
        return take_sized(threads, limit, thread_size)[0]

    async def export_by_id(self, thread_ids: Sequence[UUID]) -> list[WholeThread]:
        ids = [thread_id.int for thread_id in thread_ids if thread_id.int in self._threads]
        runs = self._ended_runs(ids)
        return [_whole_thread(self._threads[thread_id], runs.get(thread_id, [])) for thread_id in ids]

    def _ended_runs(self, thread_ids: Collection[int]) -> dict[int, list[_Run]]:
        """Return the ended runs of each of these threads, in the order of their identifiers."""
        runs: dict[int, list[_Run]] = {thread_id: [] for thread_id in thread_ids}
        for run_id in sorted(self._runs):
            run = self._runs[run_id]
            thread_id = run.thread.record.thread_id.int
            if run.ended_at is not None and not run.thread.deleted and thread_id in runs:
                runs[thread_id].append(run)
        return runs

    async def import_threads(self, threads: Sequence[WholeThread]) -> int:
        new = [whole for whole in threads if whole.thread_id.int not in self._threads]
        for whole in new:
            self._import(whole)
        self._ended = deque(sorted(self._ended, key=_ended_at))
        self._committed()
        return len(new)

    def _import(self, whole: WholeThread) -> None:
        created_at = whole.created_at.astimezone(UTC)
        record = ThreadRecord(whole.thread_id, whole.contact_id, created_at, whole.thread_config)
        rows = [EventRow(event.event_id, event.created_at, event.event_type, event.data) for event in whole.events]
        thread = _Thread(record, whole.external_id, rows, thread_size(whole), whole.facts)
        thread.feedback = {given.event_id.int: given for given in whole.feedback}
        thread.usage = {used.model: used.total for used in whole.usage}
        thread.names = {event.event_id.int: (event.event_domain, event.event_name) for event in whole.events}
        if len(rows) > _UNINDEXED_EVENTS:
            thread.index = _Index(rows)
        self._threads[whole.thread_id.int] = thread
        if whole.contact_id is not None:
            insort(self._contacts.setdefault(whole.contact_id, []), thread, key=_created_at)
        if whole.external_id is not None:
            insort(self._external_ids.setdefault(whole.external_id, []), thread, key=_created_at)
        if whole.facts.parent is not None:
            self._forks[whole.facts.parent.thread_id] += 1
        for ended in whole.runs:
            self._runs[ended.run_id.int] = run = _imported_run(thread, ended)
            self._ended.append(run)

    async def export_records(self, kind: RecordKind, after: Record | None, limit: int) -> list[Record]:
        records = sorted(self._records(kind), key=attrgetter("position"))
        return [record for record in records if after is None or record.position > after.position][:limit]

    def _records(self, kind: RecordKind) -> list[Record]:
        if kind is ContactUsage:
            return [
                ContactUsage(contact_id, day, model, caller, total)
                for contact_id, totals in self._contact_usage.items()
                for (day, model, caller), total in totals.items()
            ]
        if kind is CallerUsage:
            return [
                CallerUsage(caller, day, model, total)
                for caller, totals in self._caller_usage.items()
                for (day, model), total in totals.items()
            ]
        if kind is SubscriptionRecord:
            return [*self.subscriptions.records()]
        return [
            KeyRecord(UUID(int=key), used.body, used.run_id, used.used_at.replace(tzinfo=UTC))
            for key, used in self._keys.items()
        ]

    async def import_records(self, records: Sequence[Record]) -> None:
        for record in records:
            match record:
                case ContactUsage(contact_id, day, model, caller, total):
                    self._contact_usage.setdefault(contact_id, {}).setdefault((day, model, caller), total)
                case CallerUsage(caller, day, model, total):
                    self._caller_usage.setdefault(caller, {}).setdefault((day, model), total)
                case KeyRecord(key, body, run_id, used_at):
                    self._keys.setdefault(key.int, _Key(run_id, body, used_at.replace(tzinfo=None)))
                case SubscriptionRecord():
                    self.subscriptions.import_record(record)
        self._keys = dict(sorted(self._keys.items(), key=lambda item: item[1].used_at))
        self._committed()

    def _add_to_outbox(self, thread: _Thread, rows: Sequence[EventRow], run_id: UUID | None) -> None:
        if self.outbox.keeps:
            self.outbox.add(thread.record.thread_id, thread.record.contact_id, rows, run_id)

    def _has_event(self, thread_id: UUID, event_id: UUID) -> bool:
        thread = self._threads.get(thread_id.int)
        return thread is not None and event_id.int in thread.event_ids()

    def _has_run(self, run_id: UUID) -> bool:
        return self._run(run_id) is not None

    def _history(self, since: datetime, after: str, limit: int) -> HistoryPage:
        """Return events since a time for a sink, and the position after them; None if there are no more."""
        thread_id, _, time = after.partition(" ")
        last_thread, last_time = int(thread_id or "0", 16), datetime.fromisoformat(time or _NO_TIME)
        found: list[OutboxEvent] = []
        for key in sorted(key for key in self._threads if key >= last_thread):
            thread = self._threads[key]
            begin = bisect_left(thread.rows, since, key=_time)
            if key == last_thread:
                begin = max(begin, bisect_right(thread.rows, last_time, key=_time))
            record = thread.record
            rows = thread.rows[begin : begin + limit - len(found)]
            found += [OutboxEvent(record.thread_id, record.contact_id, None, row) for row in rows]
            if len(found) == limit:
                return found, f"{key:x} {_time(found[-1].row).isoformat()}"
        return found, None

    def _count_usage(self, events: Sequence[NewEvent], thread: _Thread, caller: UUID | None, now: datetime) -> None:
        """Add what events say of usage to the totals of their thread, its contact and the caller."""
        if used := usage_by_model(events):
            thread.usage = sum_usage(thread.usage or {}, used)
            self._add_usage(used, thread.record.contact_id, caller or NO_CALLER, now)

    def _add_usage(self, used: Mapping[str, UsageTotal], contact_id: str | None, caller: UUID, now: datetime) -> None:
        day = now.date()
        by_caller = self._caller_usage.setdefault(caller, {})
        for model, total in used.items():
            by_caller[day, model] = by_caller.get((day, model), UsageTotal()) + total
            if contact_id is not None and len(contact_id.encode()) <= MAX_USAGE_CONTACT:
                by_contact = self._contact_usage.setdefault(contact_id, {})
                key = day, model, caller
                by_contact[key] = by_contact.get(key, UsageTotal()) + total

    def _get(self, thread_id: UUID, acting_for: str | None) -> _Thread:
        thread = self._threads.get(thread_id.int)
        if thread is None or not may_see(thread.record.contact_id, acting_for):
            raise ThreadNotFound(thread_id)
        return thread

    def _run(self, run_id: UUID) -> _Run | None:
        run = self._runs.get(run_id.int)
        return None if run is None or run.thread.deleted else run

    def _next_run(self, thread: _Thread) -> UUID | None:
        """Return the run of a thread that may start now, if there is one."""
        if not thread.open:
            return None
        oldest = self._open[thread.open[0]]
        return oldest.run_id if is_next(oldest.status) else None

    def _end(self, run: _Run, status: RunStatus, now: datetime, *, at_once: bool = False) -> None:
        run.status = status
        run.ended_at = now
        run.entering = ()
        run_id = run.run_id.int
        run.thread.open = tuple([other for other in run.thread.open if other != run_id])
        del self._open[run_id]
        self._ended.append(run)
        if run.webhook_url is not None and not run.thread.deleted:
            self.outbox.add_webhook(run.run_id, run.webhook_url, run.caller, at_once=at_once)

    def _leave_contact(self, thread: _Thread) -> None:
        """Remove a thread from the threads of its contact."""
        contact_id = thread.record.contact_id
        if contact_id is None:
            return
        siblings = self._contacts[contact_id]
        siblings.remove(thread)
        if not siblings:
            del self._contacts[contact_id]

    def _forget(self, thread: _Thread) -> list[UUID]:
        """Delete a thread. Returns the runs that were open.

        After that, `_run` no longer finds its runs. The next purge removes them.
        """
        del self._threads[thread.record.thread_id.int]
        thread.deleted = True
        if thread.facts.parent is not None:
            parent_id = thread.facts.parent.thread_id
            self._forks[parent_id] -= 1
            if not self._forks[parent_id]:
                del self._forks[parent_id]
        if thread.external_id is not None:
            threads = self._external_ids[thread.external_id]
            threads.remove(thread)
            if not threads:
                del self._external_ids[thread.external_id]
        open_runs = [self._open[run_id] for run_id in thread.open]
        for run in open_runs:
            self._end(run, RunStatus.CANCELLED, utc_now())
        thread.rows.clear()
        thread.index = None
        return [run.run_id for run in open_runs]

    def _committed(self) -> None:
        if self.on_commit is not None:
            self.on_commit(_ONE_OPERATION)


def _matches(threads: Iterable[_Thread], query: SearchQuery) -> Iterator[ThreadMatch | None]:
    """Yield each thread that matches with its newest message that does. Yield None when other work may go on."""
    compared = 0
    for thread in threads:
        found = False
        for row in reversed(thread.rows):
            compared += len(row.data or b"")
            if compared > _COMPARED_AT_ONCE:
                compared = 0
                yield None
                if thread.deleted:
                    break
            if found := text_matches(message_text(row), query):
                yield ThreadMatch(thread.record, row)
                break
        if not found and not thread.deleted and text_matches(thread.facts.title, query):
            yield ThreadMatch(thread.record, None)


def _whole_thread(thread: _Thread, runs: Sequence[_Run]) -> WholeThread:
    """Return a thread with its ended runs for another store."""
    record, names = thread.record, thread.names or {}
    feedback, usage = thread.feedback or {}, thread.usage or {}
    config = record.thread_config
    return WholeThread(
        thread_id=record.thread_id,
        contact_id=record.contact_id,
        external_id=thread.external_id,
        created_at=record.created_at.astimezone().replace(tzinfo=None),
        thread_config=config if isinstance(config, bytes) else config.encode(),
        facts=thread.facts,
        events=[
            WholeEvent(
                cast(UUID, row.event_id),
                _time(row),
                row.event_type,
                *names.get(_id(row), (None, None)),
                cast(bytes | None, row.data),
            )
            for row in thread.rows
        ],
        runs=[_ended_run(run) for run in runs],
        feedback=[feedback[event_id] for event_id in sorted(feedback)],
        usage=[ModelTotal(model, usage[model]) for model in sorted(usage)],
    )


def _ended_run(run: _Run) -> EndedRun:
    sent = run.thread.rows[run.sent_from : run.sent_to]
    return EndedRun(
        run_id=run.run_id,
        status=run.status,
        created_new_thread=run.created_new_thread,
        accepted_at=run.accepted_at.replace(tzinfo=UTC),
        started_at=run.started_at and run.started_at.replace(tzinfo=UTC),
        finished_at=_ended_at(run).replace(tzinfo=UTC),
        error=run.error,
        failure=run.failure,
        message_id=run.message_id,
        continues=run.continues,
        caller=run.caller,
        background=run.background,
        webhook_url=run.webhook_url,
        sent_at=_time(sent[0]) if sent else None,
        sent=len(sent),
        streamed=run.streamed,
        restarts=run.restarts,
    )


def _imported_run(thread: _Thread, ended: EndedRun) -> _Run:
    first = 0 if ended.sent_at is None else bisect_left(thread.rows, ended.sent_at, key=_time)
    return _Run(
        ended.run_id,
        _UNKNOWN,
        thread,
        ended.status,
        (),
        ended.message_id,
        ended.created_new_thread,
        ended.continues,
        ended.caller,
        ended.background,
        ended.webhook_url,
        ended.accepted_at.replace(tzinfo=None),
        ended.started_at and ended.started_at.replace(tzinfo=None),
        ended.finished_at.replace(tzinfo=None),
        ended.error,
        ended.failure,
        ended.streamed,
        first,
        first + ended.sent,
        ended.restarts,
    )


def _waits(run: _Run) -> bool:
    return is_adoptable(run.status, background=run.background)


def _ended_at(run: _Run) -> datetime:
    return cast(datetime, run.ended_at)


def _contact_of(thread: _Thread) -> str | None:
    return thread.record.contact_id


def _event_record(row: EventRow) -> EventRecord:
    return EventRecord(cast(UUID, row.event_id), _time(row).replace(tzinfo=UTC), row.event_type, row.data)


def _created_at(thread: _Thread) -> datetime:
    return thread.record.created_at


def _write_cursor(kind: str, created_at: datetime) -> str:
    return encode_cursor(kind, created_at.isoformat(" ", "microseconds"))


def _read_cursor(kind: str, cursor: str) -> datetime:
    found, created_at = decode_cursor(cursor, 2)
    try:
        position = datetime.fromisoformat(created_at)
    except ValueError:
        raise InvalidCursor from None
    if found != kind or position.tzinfo is not None:
        raise InvalidCursor
    return position
