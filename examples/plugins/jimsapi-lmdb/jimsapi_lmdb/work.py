"""What each method of the store does in its transaction. `jimsapi.threads.transitions` decides."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import groupby, islice, takewhile
from typing import Any
from uuid import UUID

import lmdb
import msgspec
from jimsapi.threads import (
    MAX_FORKS,
    MAX_QUESTIONS,
    NO_CALLER,
    QUESTION_ASKED,
    THREAD_CREATED,
    Accepted,
    AdoptedRun,
    ByExternalId,
    ById,
    ContactPage,
    ContactRecord,
    ContextLimits,
    Created,
    DayTotal,
    Event,
    EventNotFound,
    EventPage,
    EventRecord,
    EventRow,
    FailureKind,
    Feedback,
    ForkPlan,
    IdentifierTaken,
    InvalidCursor,
    Latest,
    ListedRun,
    ModelTotal,
    New,
    NewEvent,
    Outcome,
    Parent,
    QueueFull,
    Rating,
    RunClosed,
    RunFilter,
    RunNotFound,
    RunPage,
    RunPlan,
    RunStatus,
    SearchPage,
    SearchQuery,
    Settled,
    Snapshot,
    Started,
    StoredRun,
    ThreadChange,
    ThreadFacts,
    ThreadFilter,
    ThreadMatch,
    ThreadNotFound,
    ThreadPage,
    ThreadPlan,
    ThreadQuery,
    ThreadRecord,
    ThreadSummary,
    UsageHolder,
    UsageTotal,
    choose,
    config_of_new,
    count_open,
    decode_contact_cursor,
    decode_cursor,
    decode_id_cursor,
    encode_contact_cursor,
    encode_cursor,
    encode_id_cursor,
    end_with,
    may_see,
    message_text,
    orphan_status,
    storable_text,
    take_page,
    take_sized,
    text_matches,
    usage_by_model,
)
from jimsapi.threads import transitions as rules

from jimsapi_lmdb.tables import (
    LAST,
    Facts,
    Run,
    StoredEvent,
    StoredRating,
    Table,
    Thread,
    Total,
    digest,
    microseconds_of,
    number_of,
    packed,
    stored,
    time_of,
)


class Work:
    """One transaction. `now` is greater than that of every earlier one of the process."""

    def __init__(self, transaction: lmdb.Transaction, databases: dict[str, Any], now: int) -> None:
        self._now = now
        tables = {name: Table(transaction, database) for name, database in databases.items()}
        self._threads, self._contacts, self._externals = tables["threads"], tables["contacts"], tables["externals"]
        self._events, self._identifiers = tables["events"], tables["identifiers"]
        self._comm, self._states = tables["comm"], tables["states"]
        self._runs, self._queue, self._thread_runs = tables["runs"], tables["queue"], tables["thread_runs"]
        self._keys, self._facts, self._feedback = tables["keys"], tables["facts"], tables["feedback"]
        self._forks, self._asked = tables["forks"], tables["asked"]
        self._thread_usage, self._contact_usage = tables["thread_usage"], tables["contact_usage"]
        self._caller_usage = tables["caller_usage"]

    # Messages and their runs

    def accept(self, plan: RunPlan, new_ids: tuple[UUID, UUID], keep_keys: timedelta) -> Accepted:
        """Accept a message. `new_ids` are for a new thread and its first event."""
        if (run := self._find_run(plan.run_id.bytes)) is not None:
            return self._accepted(run, plan.context)
        continued = self._continued(plan, keep_keys)
        if continued is not None:
            plan = rules.answer_again(plan, UUID(bytes=continued.message.event_id))
            thread, created = self._thread(continued.thread_id), list[int]()
            if not may_see(thread.contact_id, plan.acting_for):
                raise ThreadNotFound
        else:
            found = rules.select_thread(plan, lambda selector: self._select(plan, selector), lambda one: one.contact_id)
            thread, created = self._create(plan, found, new_ids) if isinstance(found, New) else (found, [])
        run = self._add_run(
            plan, thread, created, continues=continued is not None and self._has(thread, plan.message.event_id)
        )
        if plan.idempotency is not None:
            self._keys.put(plan.idempotency.key.bytes, packed(self._now) + run.run_id)
        return self._accepted(run, plan.context)

    def _continued(self, plan: RunPlan, keep_keys: timedelta) -> Run | None:
        """Return the run whose message this one answers again. Raises `KeyUsed` and `KeyMismatch`."""
        if plan.idempotency is None or (value := self._keys.get(plan.idempotency.key.bytes)) is None:
            return None
        since = rules.keys_known_since(time_of(self._now), keep_keys)
        run = self._find_run(value[8:])
        if run is None or run.body is None or number_of(value[:8]) < microseconds_of(since):
            return None
        holder = rules.KeyHolder(
            UUID(bytes=run.run_id), UUID(bytes=run.body), RunStatus(run.status), run.in_thread, run.continues
        )
        return run if holder.is_continued_by(plan.idempotency.body) else None

    def _select(self, plan: RunPlan | ThreadQuery, selector: ById | Latest | ByExternalId) -> Thread | None:
        if isinstance(selector, ById):
            return self._find_thread(selector.thread_id.bytes)
        if isinstance(selector, ByExternalId):
            return self._newest(self._externals, selector.external_id)
        thread = self._newest(self._contacts, plan.contact_id)
        if thread is None or selector.active_within is None:
            return thread
        recent = rules.was_active(time_of(thread.newest), time_of(self._now), selector.active_within)
        return thread if recent else None

    def _newest(self, index: Table, text: str) -> Thread | None:
        for key, _ in index.backward(digest(text)):
            return self._thread(key[-16:])
        return None

    def _create(self, plan: RunPlan, new: New, new_ids: tuple[UUID, UUID]) -> tuple[Thread, list[int]]:
        thread_id, event_id = new_ids
        config = config_of_new(plan, new)
        thread = Thread(thread_id.bytes, plan.contact_id, self._now, config, new.external_id)
        for index, key in self._index_keys(thread):
            index.put(key)
        return thread, self._append(thread, [StoredEvent(event_id.bytes, THREAD_CREATED, b"{}")])

    def _index_keys(self, thread: Thread) -> Iterator[tuple[Table, bytes]]:
        position = packed(thread.created) + thread.thread_id
        yield self._contacts, digest(thread.contact_id) + position
        if thread.external_id is not None:
            yield self._externals, digest(thread.external_id) + position

    def _add_run(self, plan: RunPlan, thread: Thread, created: list[int], *, continues: bool) -> Run:
        waiting = [value for _, value in self._queue.forward(thread.thread_id)]
        if rules.is_full(len(waiting), plan.queue_limit):
            raise QueueFull(plan.queue_limit, UUID(bytes=waiting[0]) if waiting else None)
        greeted = bool(created) and plan.conversation_start
        run = Run(
            run_id=plan.run_id.bytes,
            thread_id=thread.thread_id,
            owner=plan.owner.bytes,
            number=self._now,
            message=stored(plan.message),
            status=RunStatus.QUEUED.value,
            created_new_thread=bool(created),
            continues=continues,
            background=plan.background,
            accepted=self._now,
            caller=plan.caller.bytes if plan.caller else None,
            webhook_url=plan.webhook_url,
            body=plan.idempotency.body.bytes if plan.idempotency else None,
            created=created,
            beside=[stored(event) for event in plan.beside],
        )
        self._queue.put(run.thread_id + packed(run.number), run.run_id)
        self._thread_runs.put(run.thread_id + run.run_id)
        if rules.accepted_status(len(waiting), is_greeted=greeted) == RunStatus.RUNNING:
            self._enter(run, thread, [])
        self._put_run(run)
        return run

    def _accepted(self, run: Run, limits: ContextLimits) -> Accepted:
        thread, status = self._thread(run.thread_id), RunStatus(run.status)
        is_running = status is RunStatus.RUNNING
        snapshot = None
        if rules.has_context(status, run.created_new_thread, run.continues):
            snapshot = self._context_of(run, thread, limits) if is_running else self._context(thread, limits)
        message = run.entered[-len(run.beside) - 1 :] if is_running and not run.continues else []
        rows = self._rows(run.thread_id, [*([] if run.continues else run.created), *message])
        return Accepted(_thread_record(thread), run.created_new_thread, status, snapshot, rows)

    def start(self, run_id: UUID, owner: UUID, events: Sequence[NewEvent], limits: ContextLimits) -> Started | None:
        """Start a run when it is its turn."""
        run = self._find_run(run_id.bytes)
        if run is None:
            raise RunClosed
        is_oldest = self._oldest(run.thread_id) == run.run_id
        turn = rules.judge_start(run.status, is_owner=run.owner == owner.bytes, is_oldest=is_oldest)
        if turn is rules.Start.LATER:
            return None
        thread = self._thread(run.thread_id)
        if turn is rules.Start.NOW:
            self._enter(run, thread, [stored(event) for event in events])
            self._count_usage(events, thread, run.caller)
            self._put_run(run)
        return Started(self._context_of(run, thread, limits), self._rows(run.thread_id, run.entered))

    def _enter(self, run: Run, thread: Thread, events: Sequence[StoredEvent]) -> None:
        """Begin a run: its message enters the thread, after `events`, with the events beside it."""
        message = () if run.continues else (*run.beside, run.message)
        run.entered = self._append(thread, [*events, *message])
        run.status, run.started, run.in_thread = RunStatus.RUNNING.value, self._now, True

    def finish(self, run_id: UUID, owner: UUID, outcome: Outcome) -> Settled:
        """End a running run with its events."""
        run = self._find_run(run_id.bytes)
        if run is None or not rules.finish_counts(run.status, is_owner=run.owner == owner.bytes):
            return self._settled(run)
        thread, events = self._thread(run.thread_id), rules.stored_events(outcome)
        times = self._append(thread, [stored(event) for event in events])
        self._count_usage(events, thread, run.caller)
        run.sent = times if outcome.status is RunStatus.COMPLETED else []
        run.error = None if outcome.error is None else storable_text(outcome.error)
        run.streamed = outcome.streamed
        run.failure = outcome.failure.value if outcome.failure else None
        self._end(run, outcome.status)
        return self._settled(run, counted=True, times=times)

    def append(
        self, thread_id: UUID, acting_for: str | None, events: Sequence[NewEvent], run_id: UUID | None
    ) -> list[EventRow]:
        """Append events outside of a run, unless an earlier call has done so."""
        thread = self._visible(thread_id, acting_for)
        times = self._times(thread, [event.event_id.bytes for event in events])
        if len(times) < len(events):
            times = self._append(thread, [stored(event) for event in events])
            run = None if run_id is None else self._find_run(run_id.bytes)
            self._count_usage(events, thread, None if run is None else run.caller)
        return self._rows(thread.thread_id, times)

    def cancel(self, run_id: UUID) -> Settled:
        """End an open run."""
        run = self._find_run(run_id.bytes)
        if run is None or not rules.cancel_counts(run.status):
            return self._settled(run)
        self._end(run, RunStatus.CANCELLED)
        return self._settled(run, counted=True)

    def _settled(self, run: Run | None, *, counted: bool = False, times: Sequence[int] = ()) -> Settled:
        if run is None:
            return Settled(False, None, None)
        rows = self._rows(run.thread_id, times)
        return Settled(counted, RunStatus(run.status), self._next(run.thread_id), rows)

    def _end(self, run: Run, status: RunStatus) -> None:
        run.status, run.finished = status.value, self._now
        self._queue.delete(run.thread_id + packed(run.number))
        self._put_run(run)

    def heartbeat(self, owner: UUID, live: Collection[UUID]) -> list[UUID]:
        """End the runs of an owner that it does not work on."""
        orphans = [run for run in self._open_runs() if run.owner == owner.bytes and UUID(bytes=run.run_id) not in live]
        for run in orphans:
            self._end(run, orphan_status(run.status))
        started = [self._next(thread_id) for thread_id in {run.thread_id: None for run in orphans}]
        return [run_id for run_id in started if run_id is not None]

    def recover(self, owner: UUID, max_restarts: int) -> int:
        """End the runs of dead owners."""
        ended = [run for run in self._of_others(owner) if not (_waits(run) or _may_restart(run, max_restarts))]
        for run in ended:
            run.error = rules.interrupted_error(run.restarts)
            if rules.enters_late(run.status) and not run.continues:
                self._append(self._thread(run.thread_id), [*run.beside, run.message])
                run.in_thread = True
            self._end(run, RunStatus.INTERRUPTED)
        return len(ended)

    def adopt(self, owner: UUID, max_restarts: int) -> list[AdoptedRun]:
        """Make an owner the owner of the background runs of dead ones that wait or may start again."""
        adopted = [run for run in self._of_others(owner) if _waits(run) or _may_restart(run, max_restarts)]
        for run in adopted:
            if not _waits(run):
                run.status, run.started = RunStatus.QUEUED.value, None
                run.continues, run.in_thread = True, False
                run.restarts += 1
            run.owner = owner.bytes
            self._put_run(run)
        return [self._adopted(run) for run in adopted]

    def _adopted(self, run: Run) -> AdoptedRun:
        *beside, message = [
            NewEvent(UUID(bytes=event.event_id), event.type, event.data) for event in (*run.beside, run.message)
        ]
        contact_id = self._thread(run.thread_id).contact_id
        caller = UUID(bytes=run.caller) if run.caller else None
        return AdoptedRun(
            UUID(bytes=run.run_id),
            UUID(bytes=run.thread_id),
            contact_id,
            message,
            caller,
            run.webhook_url,
            tuple(beside),
            run.restarts,
        )

    def _of_others(self, owner: UUID) -> list[Run]:
        """One process at a time opens the store, so all other owners are dead."""
        return [run for run in self._open_runs() if run.owner != owner.bytes]

    def _open_runs(self) -> list[Run]:
        return [self._run(value) for _, value in self._queue.forward(b"")]

    def _oldest(self, thread_id: bytes) -> bytes | None:
        return next((value for _, value in self._queue.forward(thread_id)), None)

    def _next(self, thread_id: bytes) -> UUID | None:
        oldest = self._oldest(thread_id)
        return UUID(bytes=oldest) if oldest is not None and rules.is_next(self._run(oldest).status) else None

    # Reading

    def run(self, run_id: UUID, acting_for: str | None, caller: UUID | None) -> StoredRun:
        """Return one run."""
        run = self._find_run(run_id.bytes)
        if run is None or (caller is not None and run.caller != caller.bytes):
            raise RunNotFound(run_id)
        thread = self._thread(run.thread_id)
        if not may_see(thread.contact_id, acting_for):
            raise RunNotFound(run_id)
        return StoredRun(
            run_id=run_id,
            thread_id=UUID(bytes=run.thread_id),
            contact_id=thread.contact_id,
            status=RunStatus(run.status),
            created_new_thread=run.created_new_thread,
            accepted_at=time_of(run.accepted).replace(tzinfo=UTC),
            started_at=None if run.started is None else time_of(run.started).replace(tzinfo=UTC),
            finished_at=None if run.finished is None else time_of(run.finished).replace(tzinfo=UTC),
            error=run.error,
            streamed=run.streamed,
            events=[_record(at, self._event(run.thread_id, at)) for at in run.sent],
            failure=FailureKind(run.failure) if run.failure else None,
            message_id=UUID(bytes=run.message.event_id),
            restarts=run.restarts,
        )

    def runs(self, acting_for: str | None, limit: int, after: str | None, only: RunFilter) -> RunPage:
        """Return a page of runs, newest first."""
        if only.thread_id is not None:
            self._visible(only.thread_id, acting_for)
        before = b"" if after is None else decode_id_cursor("runs", after).bytes
        found = list(islice(self._listed_runs(before, acting_for, only), limit + 1))
        page = found[:limit]
        return RunPage(page, encode_id_cursor("runs", page[-1].run_id) if len(found) > limit else None)

    def _listed_runs(self, before: bytes, acting_for: str | None, only: RunFilter) -> Iterator[ListedRun]:
        """Yield the runs of a list. It examines all older runs until the page is full."""
        for key, _ in self._runs.backward(b"", before):
            run = self._run(key)
            record = _run_record(run, self._thread(run.thread_id).contact_id)
            if (
                only.thread_id in (None, record.thread_id)
                and may_see(record.contact_id, acting_for)
                and may_see(record.contact_id, only.contact_id)
                and (only.caller is None or run.caller == only.caller.bytes)
                and only.accepts(record.status, record.accepted_at)
            ):
                yield record

    def contacts(self, acting_for: str | None, limit: int, after: str | None) -> ContactPage:
        """Return a page of contacts, in the order of their digests."""
        edge = b"" if after is None else digest(decode_contact_cursor(after)) + LAST
        found: list[ContactRecord] = []
        for _, keys in groupby((key for key, _ in self._contacts.forward(b"", edge)), lambda key: key[:32]):
            threads = [self._thread(key[-16:]) for key in keys]
            contact_id = threads[0].contact_id
            if may_see(contact_id, acting_for):
                active_at = time_of(max(thread.newest for thread in threads)).replace(tzinfo=UTC)
                found.append(ContactRecord(contact_id, len(threads), active_at))
            if len(found) > limit:
                break
        page = found[:limit]
        return ContactPage(page, encode_contact_cursor(page[-1].contact_id) if len(found) > limit else None)

    def find_thread(self, query: ThreadQuery) -> ThreadRecord:
        """Return the thread that selectors find."""
        found = rules.select_thread(query, lambda selector: self._select(query, selector), lambda one: one.contact_id)
        if isinstance(found, New):
            raise ThreadNotFound
        return _thread_record(found)

    def events_by_id(self, thread_id: UUID, event_ids: Sequence[UUID]) -> list[EventRow]:
        """Return those of the events that a thread has."""
        thread = self._find_thread(thread_id.bytes)
        times = [] if thread is None else self._times(thread, [event_id.bytes for event_id in event_ids])
        return self._rows(thread_id.bytes, times)

    def thread(self, thread_id: UUID, acting_for: str | None) -> ThreadRecord:
        """Return one thread."""
        return _thread_record(self._visible(thread_id, acting_for))

    def _visible(self, thread_id: UUID, acting_for: str | None) -> Thread:
        thread = self._find_thread(thread_id.bytes)
        if thread is None or not may_see(thread.contact_id, acting_for):
            raise ThreadNotFound(thread_id)
        return thread

    def threads(
        self, contact_id: str, limit: int, after: str | None, archived: bool | None, only: ThreadFilter
    ) -> ThreadPage:
        """Return a page of a contact's threads, newest first."""
        found = self._listed("threads", contact_id, after, archived, only)
        page, more = take_page(found, limit, lambda thread: thread.config)
        return ThreadPage([_thread_record(thread) for thread in page], _cursor("threads", page[-1]) if more else None)

    def search(
        self,
        query: SearchQuery,
        contact_id: str,
        limit: int,
        after: str | None,
        archived: bool | None,
        only: ThreadFilter,
    ) -> SearchPage:
        """Return a page of the threads that match. Without an index, it reads messages until the page is full."""
        listed = self._listed("search", contact_id, after, archived, only)
        found = ((one, match) for one in listed if (match := self._match(one, query)) is not None)
        page, more = take_sized(found, limit, lambda item: item[1].size)
        return SearchPage([match for _, match in page], _cursor("search", page[-1][0]) if more else None)

    def _listed(
        self, kind: str, contact_id: str, after: str | None, archived: bool | None, only: ThreadFilter
    ) -> Iterator[Thread]:
        """Return the threads of a contact that a list of this kind may have, newest first."""
        prefix = digest(contact_id)
        before = prefix + _position(kind, after, 24) if after is not None else b""
        threads = (self._thread(key[-16:]) for key, _ in self._contacts.backward(prefix, before))
        return (thread for thread in threads if only.accepts(_thread_facts(self._facts_of(thread.thread_id)), archived))

    def _match(self, thread: Thread, query: SearchQuery) -> ThreadMatch | None:
        for key, _ in self._comm.backward(thread.thread_id):
            [row] = self._rows(thread.thread_id, [number_of(key[16:])])
            if text_matches(message_text(row), query):
                return ThreadMatch(_thread_record(thread), row)
        title = self._facts_of(thread.thread_id).title
        return ThreadMatch(_thread_record(thread), None) if text_matches(title, query) else None

    def events(self, thread_id: UUID, acting_for: str | None, limit: int, after: str | None) -> EventPage:
        """Return a page of a thread's events, oldest first."""
        prefix = self._visible(thread_id, acting_for).thread_id
        start = prefix + _position("events", after, 8) if after is not None else b""
        found = ((number_of(key[16:]), _event(value)) for key, value in self._events.forward(prefix, start))
        page, more = take_page(found, limit, lambda item: item[1].data)
        last = encode_cursor("events", packed(page[-1][0]).hex()) if more else None
        return EventPage([_record(at, event) for at, event in page], last)

    def load_events(self, thread_id: UUID, before: Event | None, limit: int) -> list[EventRow]:
        """Return the newest events that are older than `before`, oldest first."""
        end = thread_id.bytes + packed(microseconds_of(before.created_at)) if before else b""
        return list(islice(self._newest_rows(thread_id.bytes, end), max(0, limit)))[::-1]

    def _newest_rows(self, thread_id: bytes, before: bytes = b"") -> Iterator[EventRow]:
        for key, value in self._events.backward(thread_id, before):
            yield _event(value).row(number_of(key[16:]))

    def _context(self, thread: Thread, limits: ContextLimits) -> Snapshot:
        if limits.events == 0:
            return Snapshot(list(self._newest_rows(thread.thread_id))[::-1], truncated=False)
        window = list(islice(self._newest_rows(thread.thread_id), 2 * limits.events))
        edge = microseconds_of(window[-1].created_at)  # type: ignore[arg-type]
        comm = [number_of(key[16:]) for key, _ in islice(self._comm.backward(thread.thread_id), limits.events)]
        states = [number_of(value) for _, value in self._states.forward(thread.thread_id)]
        older_comm = self._rows(thread.thread_id, [at for at in comm if at < edge])
        older_states = self._rows(thread.thread_id, sorted((at for at in states if at < edge), reverse=True))
        rows = choose(window, older_comm, older_states, limits)
        return Snapshot(rows, len(rows) < thread.count)

    def _context_of(self, run: Run, thread: Thread, limits: ContextLimits) -> Snapshot:
        """Return the context of a run that has started. If it answers an earlier message, that comes last."""
        if not run.continues:
            return self._context(thread, limits)
        times = self._times(thread, [event.event_id for event in (*run.beside, run.message)])
        return end_with(self._context(thread, limits), self._rows(thread.thread_id, times))

    # Threads without runs, forks, and what is said of a thread

    def create(self, plan: ThreadPlan) -> Created:
        """Make a thread without a run."""
        thread = self._find_thread(plan.thread_id.bytes)
        if thread is None:
            thread = Thread(plan.thread_id.bytes, plan.contact_id, self._now, plan.thread_config, None)
            for index, key in self._index_keys(thread):
                index.put(key)
            self._append(thread, [stored(event) for event in plan.events])
            self._put_facts(thread, Facts(metadata=plan.metadata))
        times = self._times(thread, [event.event_id.bytes for event in plan.events])
        return Created(_thread_record(thread), self._rows(thread.thread_id, times))

    def fork(self, plan: ForkPlan) -> ThreadRecord:
        """Make a thread that begins as another one does."""
        if (earlier := self._find_thread(plan.thread_id.bytes)) is not None:
            return _thread_record(earlier)
        parent = self._visible(plan.parent_id, plan.acting_for)
        end = parent.newest
        if plan.event_id is not None:
            found = self._times(parent, [plan.event_id.bytes])
            if not found:
                raise EventNotFound(plan.event_id)
            end = found[0] - plan.before
        events = ((number_of(key[16:]), _event(value)) for key, value in self._events.forward(parent.thread_id))
        copied = list(takewhile(lambda item: item[0] <= end, events))
        if not copied:
            raise EventNotFound
        external_id = parent.external_id if plan.keeps_external_id else None
        fork = Thread(plan.thread_id.bytes, parent.contact_id, self._now, parent.config, external_id)
        for index, key in self._index_keys(fork):
            index.put(key)
        for at, event in copied:
            self._put_event(fork, at, event)
        self._put_thread(fork)
        metadata = self._facts_of(parent.thread_id).metadata
        self._put_facts(fork, Facts(metadata=metadata, parent=parent.thread_id, parent_event=copied[-1][1].event_id))
        return _thread_record(fork)

    def change_thread(self, thread_id: UUID, acting_for: str | None, change: ThreadChange) -> ThreadFacts:
        """Change what was said of a thread, and return it."""
        thread = self._visible(thread_id, acting_for)
        now = time_of(self._now).replace(tzinfo=UTC)
        facts = rules.changed_facts(_thread_facts(self._facts_of(thread.thread_id)), change, now)
        archived = None if facts.archived_at is None else microseconds_of(facts.archived_at)
        metadata = facts.metadata if isinstance(facts.metadata, bytes) else facts.metadata.encode()
        parent = (facts.parent.thread_id.bytes, facts.parent.event_id.bytes) if facts.parent else (None, None)
        self._put_facts(thread, Facts(facts.title, archived, metadata, *parent))
        return facts

    def rate(self, thread_id: UUID, acting_for: str | None, event_id: UUID, rating: Rating | None) -> None:
        """Set the rating of an event; None removes it."""
        thread = self._visible(thread_id, acting_for)
        if not self._has(thread, event_id):
            raise EventNotFound(event_id)
        key = thread.thread_id + event_id.bytes
        if rating is None:
            self._feedback.delete(key)
        else:
            given = StoredRating(rating.rating, rating.comment, self._now)
            self._feedback.put(key, msgspec.msgpack.encode(given))

    def feedback(
        self, thread_id: UUID, acting_for: str | None, limit: int | None, after: UUID | None
    ) -> list[Feedback]:
        """Return the ratings of a thread's events after the event `after`, in the order of the events."""
        thread = self._visible(thread_id, acting_for)
        edge = 0
        if after is not None:
            times = self._times(thread, [after.bytes])
            if not times:
                raise EventNotFound(after)
            edge = times[0]
        found = {key[16:]: value for key, value in self._feedback.forward(thread.thread_id)}
        rated = sorted(zip(self._times(thread, found), found, strict=True))
        return [_feedback(key, found[key]) for at, key in rated if at > edge][:limit]

    def summaries(self, thread_ids: Sequence[UUID]) -> list[ThreadSummary]:
        """Return what lists show of threads."""
        return [self._summary(thread_id.bytes) for thread_id in thread_ids]

    def _summary(self, thread_id: bytes) -> ThreadSummary:
        thread = self._find_thread(thread_id)
        oldest_first, newest_first = [
            (row for key, _ in keys for row in self._rows(thread_id, [number_of(key[16:])]))
            for keys in (self._comm.forward(thread_id), self._comm.backward(thread_id))
        ]
        first, newest = rules.opening_message(oldest_first), next(newest_first, None)
        active_at = None if thread is None else time_of(thread.newest).replace(tzinfo=UTC)
        facts = _thread_facts(self._facts_of(thread_id))
        forks = sum(1 for _ in islice(self._forks.forward(thread_id), MAX_FORKS))
        return ThreadSummary(facts, first, newest, active_at, forks, self._count_questions(thread_id))

    def _count_questions(self, thread_id: bytes) -> int:
        times = [number_of(key[16:]) for key, _ in islice(self._asked.backward(thread_id), MAX_QUESTIONS)]

        def has_event(event_id: UUID) -> bool:
            return self._identifiers.get(thread_id + event_id.bytes) is not None

        return count_open(self._rows(thread_id, times), has_event, datetime.now(UTC))

    def _facts_of(self, thread_id: bytes) -> Facts:
        value = self._facts.get(thread_id)
        return Facts() if value is None else msgspec.msgpack.decode(value, type=Facts)

    def _put_facts(self, thread: Thread, facts: Facts) -> None:
        self._facts.put(thread.thread_id, msgspec.msgpack.encode(facts))
        if facts.parent is not None:
            self._forks.put(facts.parent + thread.thread_id)

    # Deleting

    def expire(self, older_than: timedelta) -> int:
        """Delete threads whose newest event is old."""
        cutoff = self._now - older_than // timedelta(microseconds=1)
        threads = [self._thread(key) for key, _ in self._threads.forward(b"")]
        open_threads = {key[:16] for key, _ in self._queue.forward(b"")}
        old = [one for one in threads if one.newest < cutoff and one.thread_id not in open_threads]
        for thread in old:
            self._delete(thread)
        return len(old)

    def delete_thread(self, thread_id: UUID, acting_for: str | None) -> list[UUID]:
        """Delete a thread with its events and runs."""
        return self._delete(self._visible(thread_id, acting_for))

    def delete_contact(self, contact_id: str) -> list[UUID]:
        """Delete all threads of a contact."""
        for key in [key for key, _ in self._contact_usage.forward(digest(contact_id))]:
            self._contact_usage.delete(key)
        keys = [key for key, _ in self._contacts.forward(digest(contact_id))]
        return [run_id for key in keys for run_id in self._delete(self._thread(key[-16:]))]

    def _delete(self, thread: Thread) -> list[UUID]:
        open_runs = [UUID(bytes=value) for _, value in self._queue.forward(thread.thread_id)]
        for key, _ in self._thread_runs.forward(thread.thread_id):
            self._runs.delete(key[16:])
        kept = self._events, self._identifiers, self._comm, self._states, self._queue, self._thread_runs
        parent = self._facts_of(thread.thread_id).parent
        if parent is not None:
            self._forks.delete(parent + thread.thread_id)
        for table in (*kept, self._asked, self._facts, self._feedback, self._thread_usage):
            for key in [key for key, _ in table.forward(thread.thread_id)]:
                table.delete(key)
        for index, key in self._index_keys(thread):
            index.delete(key)
        self._threads.delete(thread.thread_id)
        return open_runs

    def purge(self, older_than: timedelta, keep_keys: timedelta) -> int:
        """Delete the records of old runs, and old keys."""
        cutoff = self._now - older_than // timedelta(microseconds=1)
        runs = (self._run(key) for key, _ in self._runs.forward(b""))
        old = [run for run in runs if run.finished is not None and run.finished < cutoff]
        for run in old:
            self._runs.delete(run.run_id)
            self._thread_runs.delete(run.thread_id + run.run_id)
        since = microseconds_of(rules.keys_known_since(time_of(self._now), keep_keys))
        for key in [key for key, value in self._keys.forward(b"") if number_of(value[:8]) < since]:
            self._keys.delete(key)
        return len(old)

    # Usage

    def thread_usage(self, thread_id: UUID, acting_for: str | None) -> list[ModelTotal]:
        """Return what the runs of a thread have used."""
        thread = self._visible(thread_id, acting_for)
        totals = [_total(value) for _, value in self._thread_usage.forward(thread.thread_id)]
        return sorted((ModelTotal(one.model, one.total) for one in totals), key=lambda one: one.model)

    def usage(self, holder: UsageHolder, first: date, last: date) -> list[DayTotal]:
        """Return what a contact or a caller has used from one day to another."""
        by_contact = holder.contact_id is not None
        table = self._contact_usage if by_contact else self._caller_usage
        caller = b"" if holder.caller is None else holder.caller.bytes
        prefix = digest(holder.contact_id) if holder.contact_id is not None else caller
        end = len(prefix) + 8
        totals: dict[tuple[date, str], UsageTotal] = {}
        # No key is as short as the position before the first day.
        for key, value in table.forward(prefix, prefix + packed(first.toordinal())):
            day = date.fromordinal(number_of(key[len(prefix) : end]))
            if day > last:
                break
            if not by_contact or key[end:].startswith(caller):
                one = _total(value)
                totals[day, one.model] = totals.get((day, one.model), UsageTotal()) + one.total
        return [DayTotal(day, model, totals[day, model]) for day, model in sorted(totals)]

    def add_usage(self, run_id: UUID, contact_id: str, caller: UUID, events: Sequence[NewEvent]) -> None:
        """Add the usage of a run outside of threads. It is noted among the keys, so that it counts once."""
        if self._keys.get(run_id.bytes) is None:
            self._keys.put(run_id.bytes, packed(self._now) + run_id.bytes)
            self._add_usage(usage_by_model(events), contact_id, caller.bytes)

    def _count_usage(self, events: Sequence[NewEvent], thread: Thread, caller: bytes | None) -> None:
        """Add what stored events say of usage to the totals."""
        used = usage_by_model(events)
        for model, total in used.items():
            _add(self._thread_usage, thread.thread_id + digest(model), model, total)
        self._add_usage(used, thread.contact_id, caller or NO_CALLER.bytes)

    def _add_usage(self, used: Mapping[str, UsageTotal], contact_id: str, caller: bytes) -> None:
        day = packed(time_of(self._now).toordinal())
        for model, total in used.items():
            _add(self._contact_usage, digest(contact_id) + day + caller + digest(model), model, total)
            _add(self._caller_usage, caller + day + digest(model), model, total)

    # Records

    def _append(self, thread: Thread, events: Sequence[StoredEvent]) -> list[int]:
        """Add events to a thread. Returns their times. Raises `IdentifierTaken`."""
        taken = [UUID(bytes=one.event_id) for one in events if self._has(thread, UUID(bytes=one.event_id))]
        if taken:
            raise IdentifierTaken(taken)
        times = []
        for event in events:
            self._put_event(thread, max(self._now, thread.newest + 1), event)
            times.append(thread.newest)
        self._put_thread(thread)
        return times

    def _put_event(self, thread: Thread, at: int, event: StoredEvent) -> None:
        """Add an event with its time. `_put_thread` comes after the last one."""
        thread.newest = at
        thread.count += 1
        key = thread.thread_id + packed(at)
        self._events.put(key, msgspec.msgpack.encode(event))
        self._identifiers.put(thread.thread_id + event.event_id, packed(at))
        if event.type.startswith("comm."):
            self._comm.put(key)
        elif event.type.startswith("state.set."):
            self._states.put(thread.thread_id + digest(event.type), packed(at))
        elif event.type == QUESTION_ASKED:
            self._asked.put(key)

    def _put_thread(self, thread: Thread) -> None:
        self._threads.put(thread.thread_id, msgspec.msgpack.encode(thread))

    def _times(self, thread: Thread, event_ids: Iterable[bytes]) -> list[int]:
        """Return the times of those events that the thread has."""
        found = (self._identifiers.get(thread.thread_id + event_id) for event_id in event_ids)
        return [number_of(at) for at in found if at is not None]

    def _has(self, thread: Thread, event_id: UUID) -> bool:
        return self._identifiers.get(thread.thread_id + event_id.bytes) is not None

    def _rows(self, thread_id: bytes, times: Iterable[int]) -> list[EventRow]:
        return [self._event(thread_id, at).row(at) for at in times]

    def _event(self, thread_id: bytes, at: int) -> StoredEvent:
        value = self._events.get(thread_id + packed(at))
        assert value is not None
        return _event(value)

    def _find_thread(self, thread_id: bytes) -> Thread | None:
        value = self._threads.get(thread_id)
        return None if value is None else msgspec.msgpack.decode(value, type=Thread)

    def _thread(self, thread_id: bytes) -> Thread:
        thread = self._find_thread(thread_id)
        assert thread is not None
        return thread

    def _find_run(self, run_id: bytes) -> Run | None:
        value = self._runs.get(run_id)
        return None if value is None else msgspec.msgpack.decode(value, type=Run)

    def _run(self, run_id: bytes) -> Run:
        run = self._find_run(run_id)
        assert run is not None
        return run

    def _put_run(self, run: Run) -> None:
        self._runs.put(run.run_id, msgspec.msgpack.encode(run))


def _waits(run: Run) -> bool:
    return rules.is_adoptable(run.status, background=run.background)


def _may_restart(run: Run, max_restarts: int) -> bool:
    return rules.may_restart(run.status, background=run.background, restarts=run.restarts, max_restarts=max_restarts)


def _total(value: bytes) -> Total:
    return msgspec.msgpack.decode(value, type=Total)


def _add(table: Table, key: bytes, model: str, total: UsageTotal) -> None:
    value = table.get(key)
    before = UsageTotal() if value is None else _total(value).total
    table.put(key, msgspec.msgpack.encode(Total(model, before + total)))


def _run_record(run: Run, contact_id: str) -> ListedRun:
    return ListedRun(
        UUID(bytes=run.run_id),
        UUID(bytes=run.thread_id),
        contact_id,
        RunStatus(run.status),
        time_of(run.accepted).replace(tzinfo=UTC),
        None if run.started is None else time_of(run.started).replace(tzinfo=UTC),
        None if run.finished is None else time_of(run.finished).replace(tzinfo=UTC),
        FailureKind(run.failure) if run.failure else None,
    )


def _event(value: bytes) -> StoredEvent:
    return msgspec.msgpack.decode(value, type=StoredEvent)


def _thread_record(thread: Thread) -> ThreadRecord:
    created_at = time_of(thread.created).replace(tzinfo=UTC)
    return ThreadRecord(UUID(bytes=thread.thread_id), thread.contact_id, created_at, thread.config)


def _thread_facts(facts: Facts) -> ThreadFacts:
    archived_at = None if facts.archived is None else time_of(facts.archived).replace(tzinfo=UTC)
    parent = None
    if facts.parent is not None and facts.parent_event is not None:
        parent = Parent(UUID(bytes=facts.parent), UUID(bytes=facts.parent_event))
    return ThreadFacts(facts.title, archived_at, facts.metadata, parent)


def _feedback(event_id: bytes, value: bytes) -> Feedback:
    stored_rating = msgspec.msgpack.decode(value, type=StoredRating)
    rating = Rating(stored_rating.rating, stored_rating.comment)
    return Feedback(UUID(bytes=event_id), rating, time_of(stored_rating.given).replace(tzinfo=UTC))


def _record(at: int, event: StoredEvent) -> EventRecord:
    return EventRecord(UUID(bytes=event.event_id), time_of(at).replace(tzinfo=UTC), event.type, event.data)


def _cursor(kind: str, thread: Thread) -> str:
    return encode_cursor(kind, (packed(thread.created) + thread.thread_id).hex())


def _position(kind: str, cursor: str, size: int) -> bytes:
    """Return the key in a cursor. Raises `InvalidCursor`."""
    found, text = decode_cursor(cursor, 2)
    try:
        position = bytes.fromhex(text)
    except ValueError:
        raise InvalidCursor from None
    if found != kind or len(position) != size:
        raise InvalidCursor
    return position
