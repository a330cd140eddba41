"""Compares a store with a model in plain dicts: after random histories, both must return the same results.

The model implements every rule itself. It must not call `jimsapi.threads.transitions`, as the stores do, since a wrong
rule would then be compared with itself.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, TypeVar, cast
from uuid import UUID

import orjson
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec import UNSET, UnsetType

from jimsapi.threads.errors import (
    EventNotFound,
    IdentifierTaken,
    KeyMismatch,
    KeyUsed,
    QueueFull,
    RunClosed,
    RunNotFound,
    StoreUnavailable,
    ThreadNotFound,
)
from jimsapi.threads.event import (
    THREAD_CREATED,
    USER_MESSAGE,
    NewEvent,
    beside_message,
    id_beside,
    id_with_room,
    message_event,
    move_beside,
)
from jimsapi.threads.facts import OPENING, ForkPlan, Parent, Rating, ThreadChange, ThreadPlan
from jimsapi.threads.ids import uuid7
from jimsapi.threads.outbox import Outbox
from jimsapi.threads.questions import QUESTION_ANSWERED, QUESTION_ASKED, answer_id
from jimsapi.threads.run import (
    OPEN,
    Accepted,
    AdoptedRun,
    ByExternalId,
    ById,
    ContextLimits,
    FailureKind,
    Idempotency,
    Latest,
    New,
    Outcome,
    RunFilter,
    RunPlan,
    RunStatus,
    Selector,
    Settled,
)
from jimsapi.threads.search import ThreadFilter, ThreadMatch, parse_query
from jimsapi.threads.store import KEEP_KEYS, ThreadStore
from jimsapi.threads.usage import NO_CALLER, UsageHolder, UsageTotal

T = TypeVar("T")
Reopen = Callable[[ThreadStore], AbstractAsyncContextManager[ThreadStore]]

OWNERS = (uuid7(), uuid7())
SINK = "machine"
CONTACTS = ("ann", "bob", "")
CALLERS = (uuid7(), None)
BODY, OTHER_BODY = UUID(int=1), UUID(int=2)
QUEUE_LIMIT = 2
LONG, NEVER = timedelta(days=1), timedelta(seconds=-60)
"""Limits for the age of a thread's newest event: one that every thread meets, and one that none meets."""
RECOVERS_WITHIN = 20.0
"""Seconds in which a store must recover after a disturbance."""

_contacts = st.sampled_from(CONTACTS)
_owners = st.sampled_from(OWNERS)
_picks = st.integers(0, 11)
_counts = st.integers(0, 3)
_SELECTIONS = ("usual", "new", "external", "id", "own id", "own id or new", "active", "quiet", "any", "last")
_rarely = st.sampled_from([False, False, False, True])


@dataclass(eq=False)
class _Thread:
    contact_id: str
    external_id: str | None
    events: list[tuple[UUID, str]] = field(default_factory=list)
    open: list["_Run"] = field(default_factory=list)
    thread_id: UUID | None = None
    title: str | None = None
    archived: bool = False
    metadata: bytes = b"{}"
    parent: Parent | None = None
    ratings: dict[UUID, int] = field(default_factory=dict)
    usage: dict[str, UsageTotal] = field(default_factory=dict)

    def next_run(self) -> UUID | None:
        waits = bool(self.open) and self.open[0].status is RunStatus.QUEUED
        return self.open[0].plan.run_id if waits else None

    def open_questions(self) -> list[UUID]:
        known = {event_id for event_id, _ in self.events}
        asked = [event_id for event_id, event_type in self.events if event_type == QUESTION_ASKED]
        return [event_id for event_id in asked if answer_id(event_id) not in known]

    def is_listed(self, contact: str, archived: bool | None, wanted: dict[str, Any], parent: UUID | None) -> bool:
        metadata = orjson.loads(self.metadata)
        return (
            self.contact_id == contact
            and archived in (None, self.archived)
            and all(metadata.get(key) == value for key, value in wanted.items())
            and (parent is None or (self.parent is not None and self.parent.thread_id == parent))
        )

    def match(self, text: str, texts: dict[UUID, str]) -> UUID | str | None:
        """Return the newest message that matches, else "title" if the title does. `text` is one of a few queries."""
        words = text.lower().strip('"')
        for event_id, event_type in reversed(self.events):
            if event_type.startswith("comm.") and event_id in texts:  # those of `create` have no text
                say, number = texts[event_id].lower().strip("!").split()
                found = {say, number, f"{say} {number}"} | ({f"{number} {say}"} if '"' not in text else set())
                if words in found:
                    return event_id
        return "title" if words == {"t": "t", "ü": "u"}.get(self.title or "") else None


@dataclass(eq=False)
class _Run:
    plan: RunPlan
    thread: _Thread
    status: RunStatus
    created_new_thread: bool
    owner: UUID
    message: NewEvent
    continues: bool = False
    started: bool = False
    streamed: int | None = None
    error: str | None = None
    failure: FailureKind | None = None
    sent: list[tuple[UUID, str]] = field(default_factory=list)
    restarts: int = 0

    def is_left(self, max_restarts: int) -> bool:
        """Whether the run, of a dead process, is left to be taken over."""
        may_restart = self.status is RunStatus.RUNNING and self.restarts < max_restarts
        return self.plan.background and (self.status is RunStatus.QUEUED or may_restart)

    def wait_again(self) -> None:
        """Wait, if the run has started, for another start with the message that is in the thread."""
        if self.status is RunStatus.RUNNING:
            self.status = RunStatus.QUEUED
            self.started = False
            self.continues = True
            self.restarts += 1

    def with_beside(self) -> list[tuple[UUID, str]]:
        """The events beside the message, then the message."""
        beside = [
            (id_beside(self.message.event_id, number), event.event_type)
            for number, event in enumerate(self.plan.beside, 1)
        ]
        return [*beside, (self.message.event_id, self.message.event_type)]

    def entered(self) -> list[tuple[UUID, str]]:
        """The events that enter the thread when the run starts."""
        return [] if self.continues else self.with_beside()

    def context(self) -> list[tuple[UUID, str]]:
        if not self.continues:
            return self.thread.events
        moved = self.with_beside()
        return [event for event in self.thread.events if event not in moved] + moved

    def end(self, status: RunStatus) -> None:
        self.status = status
        self.thread.open.remove(self)


def run_store_machine(
    open_store: Callable[[], AbstractAsyncContextManager[ThreadStore]],
    recover: Callable[[ThreadStore, UUID], Awaitable[int]],
    adopt: Callable[[ThreadStore, UUID], Awaitable[list[AdoptedRun]]],
    disturb: Callable[[ThreadStore], Awaitable[None]],
    reopen: Reopen | None = None,
) -> None:
    """Run random histories on stores. `JIMSAPI_STORE_EXAMPLES` is their number (default 60).

    `reopen` opens the data of a closed store again. It is None if the store loses everything when it is closed.
    """

    class Machine(StoreMachine):
        def __init__(self) -> None:
            super().__init__(open_store, recover, adopt, disturb, reopen)

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=int(os.environ.get("JIMSAPI_STORE_EXAMPLES", "60")),
            stateful_step_count=30,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


class _RetryingStore:
    """A store whose methods retry while the store is unavailable, as the run service does."""

    def __init__(self, store: ThreadStore | Outbox) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._store, name)

        async def call(*arguments: Any) -> Any:
            async with asyncio.timeout(RECOVERS_WITHIN):
                while True:
                    try:
                        return await method(*arguments)
                    except StoreUnavailable:
                        await asyncio.sleep(0.01)

        return call


class StoreMachine(RuleBasedStateMachine):
    """Each rule makes the same change to the store and to the model, and compares the results."""

    def __init__(
        self,
        open_store: Callable[[], AbstractAsyncContextManager[ThreadStore]],
        recover: Callable[[ThreadStore, UUID], Awaitable[int]],
        adopt: Callable[[ThreadStore, UUID], Awaitable[list[AdoptedRun]]],
        disturb: Callable[[ThreadStore], Awaitable[None]],
        reopen: Reopen | None,
    ) -> None:
        super().__init__()
        self._loop = asyncio.Runner()
        self._reopen = reopen
        self._opened: AbstractAsyncContextManager[ThreadStore] | None = open_store()
        self._recover = recover
        self._adopt = adopt
        self._disturb = disturb
        self._opened_store = self._do(self._opened.__aenter__())
        self.store = cast(ThreadStore, _RetryingStore(self._opened_store))
        self.threads: list[_Thread] = []
        self.runs: list[_Run] = []
        self.forgotten: list[UUID] = []
        self.keys: dict[UUID, tuple[UUID, _Run]] = {}
        self.texts: dict[UUID, str] = {}
        self.usage: dict[tuple[str, UUID, str], UsageTotal] = {}
        self.caller_usage: dict[tuple[UUID, str], UsageTotal] = {}
        self.has_sink = False
        self.max_restarts = 0
        self.received: dict[UUID, list[UUID]] = {}

    def teardown(self) -> None:
        try:
            if self._opened is not None:
                for run in self.runs:
                    self._compare_run(run)
                if self.has_sink:
                    self._do(self._compare_outbox())
        finally:
            self._close()
            self._loop.close()

    def _close(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            self._do(opened.__aexit__(None, None, None))

    def _do(self, call: Awaitable[T]) -> T:
        async def wait() -> T:
            return await call

        return self._loop.run(wait())

    # Rules

    @initialize(
        owner=_owners,
        waiting=_counts,
        background=st.booleans(),
        greets=st.booleans(),
        has_sink=st.booleans(),
        max_restarts=_counts,
    )
    def begin(
        self, owner: UUID, waiting: int, background: bool, greets: bool, has_sink: bool, max_restarts: int
    ) -> None:
        """Begin with a thread that has some runs with keys, since most rules need one."""
        self.max_restarts = max_restarts
        self.has_sink = has_sink and self._opened_store.outbox is not None
        if self.has_sink:
            self._do(self._outbox.register(SINK))
            assert self._do(self._outbox.hold(SINK, OWNERS[0], 3600.0))
        for number in range(1 + waiting):
            selectors: tuple[Selector, ...] = (Latest(), New())
            key = Idempotency(uuid7(), BODY)
            self._accept(self._plan("ann", owner, selectors, None, number, greets, background, key))

    @rule(
        contact=_contacts,
        owner=_owners,
        selection=st.sampled_from(_SELECTIONS),
        pick=_picks,
        greets=st.booleans(),
        background=st.booleans(),
        keyed=st.booleans(),
    )
    def accept(
        self, contact: str, owner: UUID, selection: str, pick: int, greets: bool, background: bool, keyed: bool
    ) -> None:
        named = ById(self._thread_id(pick))
        selectors: tuple[Selector, ...] = {
            "usual": (Latest(), New()),
            "new": (New(),),
            "external": (ByExternalId("x"), New(external_id="x")),
            "id": (named,),
            "own id": (named,),
            "own id or new": (named, New()),
            "active": (Latest(LONG), New()),
            "quiet": (Latest(NEVER), New()),
            "any": (ById(uuid7()), ByExternalId("y"), Latest(NEVER), Latest(), named),
            "last": (Latest(),),
        }[selection]
        acting_for = contact if selection in ("external", "own id", "own id or new", "any") else None
        key = Idempotency(uuid7(), BODY) if keyed else None
        self._accept(self._plan(contact, owner, selectors, acting_for, pick, greets, background, key))

    @precondition(lambda self: self.threads)
    @rule(owner=_owners, pick=_picks, background=st.booleans(), keyed=st.booleans())
    def accept_behind_others(self, owner: UUID, pick: int, background: bool, keyed: bool) -> None:
        busy = [thread for thread in self.threads if thread.open] or self.threads
        thread = busy[pick % len(busy)]
        assert thread.thread_id is not None
        key = Idempotency(uuid7(), BODY) if keyed else None
        self._accept(
            self._plan(thread.contact_id, owner, (ById(thread.thread_id),), None, pick, False, background, key)
        )

    @precondition(lambda self: self.keys)
    @rule(owner=_owners, pick=_picks, background=st.booleans(), any_key=_rarely, other=_rarely, stranger=_rarely)
    def repeat(self, owner: UUID, pick: int, background: bool, any_key: bool, other: bool, stranger: bool) -> None:
        """Repeat a request with its key: mostly an equal request, and mostly one without an answer."""
        keys = list(self.keys) if any_key else self._unanswered() or list(self.keys)
        self._repeat(keys[-1 - pick % len(keys)], owner, pick, background, other, stranger)

    def _unanswered(self) -> list[UUID]:
        """Return the keys of runs that ended without an answer."""
        ends = (RunStatus.INTERRUPTED, RunStatus.CANCELLED)
        return [key for key, (_, run) in self.keys.items() if run in self.runs and run.status in ends]

    def _repeat(self, key: UUID, owner: UUID, pick: int, background: bool, other: bool, stranger: bool) -> None:
        body, run = self.keys[key]
        contact = CONTACTS[pick % len(CONTACTS)] if stranger else run.thread.contact_id
        again = Idempotency(key, OTHER_BODY if other and body == BODY else BODY)
        selectors: tuple[Selector, ...] = (Latest(), New())
        self._accept(self._plan(contact, owner, selectors, contact, pick, bool(pick % 2), background, again))

    def _thread_id(self, pick: int) -> UUID:
        """Return the identifier of a thread, or an unknown one if there are no threads."""
        thread_id = self.threads[pick % len(self.threads)].thread_id if self.threads else None
        return thread_id or uuid7()

    def _plan(
        self,
        contact: str,
        owner: UUID,
        selectors: tuple[Selector, ...],
        acting_for: str | None,
        pick: int,
        greets: bool,
        background: bool,
        key: Idempotency | None,
    ) -> RunPlan:
        message_id = id_with_room()
        if key is not None and key.key in self.keys:  # equal requests have an equal message
            self.texts[message_id] = self.texts[self.keys[key.key][1].message.event_id]
        message = message_event("comm.user_message", self._new_text(message_id), message_id)
        # Equal requests have an equal number of events beside the message.
        beside_count = (pick if key is None else key.key.int >> 4) % 3
        beside = beside_message(message.event_id, [(f"message.part{number}", {}) for number in range(beside_count)])
        return RunPlan(
            run_id=uuid7(),
            owner=owner,
            contact_id=contact,
            acting_for=acting_for,
            selectors=selectors,
            message=message,
            beside=beside,
            thread_config=b"{}",
            conversation_start=greets,
            queue_limit=QUEUE_LIMIT,
            caller=CALLERS[pick % 2],
            background=background,
            webhook_url=f"https://{pick}" if greets else None,
            idempotency=key,
        )

    def _accept(self, plan: RunPlan) -> None:
        key = plan.idempotency
        before, refusal = self._check_key(key)
        thread: _Thread | None = None
        if before is not None:
            thread = before.thread
            refusal = self._refuse(plan, thread)
        elif refusal is None:
            thread, refusal = self._select(plan)
        if refusal is not None:
            with pytest.raises(type(refusal)) as refused:
                self._do(self.store.accept(plan))
            for name in ("run_id", "open_run"):
                assert getattr(refused.value, name, None) == getattr(refusal, name, None)
            if before is None:
                assert getattr(refused.value, "thread_id", None) == getattr(refusal, "thread_id", None)
            self.forgotten.append(plan.run_id)
            return
        accepted = self._do(self.store.accept(plan))
        created = thread is None
        if thread is None:
            external_id = next(one.external_id for one in plan.selectors if isinstance(one, New))
            thread = _Thread(plan.contact_id, external_id, thread_id=accepted.thread.thread_id)
            thread.events.append((_id(accepted.stored[0].event_id), THREAD_CREATED))
            self.threads.append(thread)
        greets = created and plan.conversation_start
        status = RunStatus.QUEUED if thread.open or greets else RunStatus.RUNNING
        run = _Run(plan, thread, status, created, plan.owner, plan.message if before is None else before.message)
        run.continues = before is not None
        thread.open.append(run)
        self.runs.append(run)
        if key is not None:
            self.keys[key.key] = (key.body, run)
        if status is RunStatus.RUNNING:
            run.started = True
            thread.events += run.entered()
        self._compare_acceptance(accepted, run)

    def _check_key(self, key: Idempotency | None) -> tuple[_Run | None, Exception | None]:
        """Return the run whose message is answered again, or the error for the message, or neither."""
        body, run = self.keys.get(key.key, (None, None)) if key is not None else (None, None)
        if key is None or run is None or run not in self.runs:
            return None, None
        cancelled_before_start = run.status is RunStatus.CANCELLED and not run.started
        if cancelled_before_start and not run.continues:
            return None, None
        if body != key.body:
            return None, KeyMismatch()
        if cancelled_before_start or run.status is RunStatus.INTERRUPTED:
            return run, None
        return None, KeyUsed(run.plan.run_id)

    def _select(self, plan: RunPlan) -> tuple[_Thread | None, Exception | None]:
        """Return the thread that the plan's selectors find (None: a new one), or the error for the message."""
        missing_id: UUID | None = None
        for selector in plan.selectors:
            found: list[_Thread] = []
            named: UUID | None = None
            match selector:
                case New():
                    return None, None
                case Latest(active_within):
                    if active_within != NEVER:
                        found = [one for one in self.threads if one.contact_id == plan.contact_id]
                case ByExternalId(external_id):
                    found = [one for one in self.threads if one.external_id == external_id]
                case ById(thread_id):
                    missing_id = named = thread_id
                    found = [one for one in self.threads if one.thread_id == thread_id]
            if found:
                return found[-1], self._refuse(plan, found[-1], named)
        return None, ThreadNotFound(missing_id)

    def _refuse(self, plan: RunPlan, thread: _Thread, named: UUID | None = None) -> Exception | None:
        if plan.acting_for not in (None, thread.contact_id):
            return ThreadNotFound(named)
        if len(thread.open) > QUEUE_LIMIT:
            return QueueFull(QUEUE_LIMIT, thread.open[0].plan.run_id)
        return None

    @precondition(lambda self: self.runs)
    @rule(pick=_picks)
    def accept_again(self, pick: int) -> None:
        run = self._pick(pick)
        self._compare_acceptance(self._do(self.store.accept(run.plan)), run)

    def _compare_acceptance(self, accepted: Accepted, run: _Run) -> None:
        assert accepted.thread.thread_id == run.thread.thread_id
        assert accepted.thread.contact_id == run.thread.contact_id
        assert accepted.created_new_thread == run.created_new_thread
        assert accepted.status is run.status
        begins = run.created_new_thread and not run.continues
        stored = run.thread.events[:1] if begins else []
        if run.status is RunStatus.RUNNING:
            stored = [*stored, *run.entered()]
        assert _pairs(accepted.stored) == stored
        has_context = run.status is RunStatus.RUNNING or (begins and run.status is RunStatus.QUEUED)
        assert (accepted.snapshot is not None) == has_context
        if accepted.snapshot is not None:
            assert _pairs(accepted.snapshot.rows) == run.context()

    @precondition(lambda self: self.runs)
    @rule(pick=_picks, stranger=_rarely, count=_counts, reuses=_rarely, any_run=_rarely)
    def start(self, pick: int, stranger: bool, count: int, reuses: bool, any_run: bool) -> None:
        run = self._pick(pick, None if any_run else RunStatus.QUEUED)
        if run.status is RunStatus.RUNNING and not stranger:
            return  # the result of a second start depends on the first; the contract has a case for it
        events = [NewEvent(uuid7(), "rag.greeted", b"{}") for _ in range(count)]
        used = _usage(pick)
        events += used
        taken = reuses and bool(run.thread.events)
        if taken:
            events.append(NewEvent(run.thread.events[0][0], "rag.greeted", b"{}"))
        call = self.store.start(run.plan.run_id, self._owner(run, stranger), events, ContextLimits())
        if run.status not in OPEN or stranger:
            with pytest.raises(RunClosed):
                self._do(call)
        elif run.thread.open[0] is not run:
            assert self._do(call) is None
        elif taken:
            with pytest.raises(IdentifierTaken):
                self._do(call)
        else:
            started = self._do(call)
            assert started is not None
            entered = [(event.event_id, event.event_type) for event in events] + run.entered()
            run.status = RunStatus.RUNNING
            run.started = True
            run.thread.events += entered
            self._count(used, run.thread, run.plan.caller)
            assert _pairs(started.stored) == entered
            assert _pairs(started.snapshot.rows) == run.context()

    @precondition(lambda self: self.runs)
    @rule(
        pick=_picks,
        stranger=_rarely,
        status=st.sampled_from([status for status in RunStatus if status not in OPEN]),
        kind=st.sampled_from(FailureKind),
        count=_counts,
        reuses=_rarely,
        any_run=_rarely,
    )
    def finish(
        self, pick: int, stranger: bool, status: RunStatus, kind: FailureKind, count: int, reuses: bool, any_run: bool
    ) -> None:
        run = self._pick(pick, None if any_run else RunStatus.RUNNING)
        events = [self._new_message() for _ in range(count)]
        taken = reuses and bool(run.thread.events)
        if taken:
            events.append(NewEvent(run.thread.events[-1][0], "rag.x", b"{}"))
        failed = status is RunStatus.FAILED
        usage = _usage(pick)
        events += _usage(pick + 1)
        outcome = Outcome(
            status, tuple(events), "went wrong" if failed else None, count, kind if failed else None, usage
        )
        call = self.store.finish(run.plan.run_id, self._owner(run, stranger), outcome)
        if run.status is not RunStatus.RUNNING or stranger:
            assert self._do(call) == Settled(False, run.status, run.thread.next_run(), [])
            return
        entering = usage
        if status is RunStatus.COMPLETED:
            if taken:
                with pytest.raises(IdentifierTaken):
                    self._do(call)
                return
            entering = tuple(events)
        entered = [(event.event_id, event.event_type) for event in entering]
        settled = self._do(call)
        run.end(status)
        run.thread.events += entered
        self._count(entering, run.thread, run.plan.caller)
        run.sent, run.streamed = entered if status is RunStatus.COMPLETED else [], count
        run.error, run.failure = outcome.error, outcome.failure
        assert (settled.counted, settled.status, settled.next_run) == (True, status, run.thread.next_run())
        assert _pairs(settled.stored) == entered

    @precondition(lambda self: self.runs)
    @rule(pick=_picks, status=st.sampled_from([None, None, *OPEN]))
    def cancel(self, pick: int, status: RunStatus | None) -> None:
        self._cancel(self._pick(pick, status))

    @precondition(lambda self: self.threads)
    @rule(pick=_picks, contact=st.none() | _contacts, count=_counts, reuses=_rarely, repeats=_rarely)
    def append(self, pick: int, contact: str | None, count: int, reuses: bool, repeats: bool) -> None:
        """Append events, perhaps again, or with one that the thread has."""
        thread = self.threads[pick % len(self.threads)]
        assert thread.thread_id is not None
        events = [*(NewEvent(uuid7(), "rag.noted", b"{}") for _ in range(count)), *_usage(pick)]
        run = self._pick(pick) if self.runs and pick % 2 else None
        run_id = None if run is None else run.plan.run_id
        taken = reuses and count > 0
        if taken:
            events.append(NewEvent(thread.events[-1][0], "rag.noted", b"{}"))
        if contact not in (None, thread.contact_id):
            with pytest.raises(ThreadNotFound):
                self._do(self.store.append(thread.thread_id, contact, events))
            return
        if taken:
            with pytest.raises(IdentifierTaken):
                self._do(self.store.append(thread.thread_id, contact, events, run_id))
            return
        added = [(event.event_id, event.event_type) for event in events]
        for _ in range(1 + repeats):
            assert _pairs(self._do(self.store.append(thread.thread_id, contact, events, run_id))) == added
        thread.events += added
        self._count(events, thread, None if run is None else run.plan.caller)

    @rule(contact=_contacts, caller=st.sampled_from([caller for caller in CALLERS if caller]), pick=_picks)
    def add_usage(self, contact: str, caller: UUID, pick: int) -> None:
        """Add usage outside of threads, twice for the same run."""
        events, run_id = _usage(pick), uuid7()
        for _ in range(2):
            self._do(self.store.add_usage(run_id, contact, caller, events))
        self._count(events, None, caller, contact)

    def _count(
        self, events: Sequence[NewEvent], thread: _Thread | None, caller: UUID | None, contact: str = ""
    ) -> None:
        for event in events:
            if event.event_type == "model.usage":
                data = orjson.loads(event.data)
                model, caller = data.get("model", ""), caller or NO_CALLER
                total = UsageTotal(1, data.get("input_tokens", 0), 0, 0, data.get("cost", 0.0))
                if thread is not None:
                    contact = thread.contact_id
                    thread.usage[model] = thread.usage.get(model, UsageTotal()) + total
                self.usage[contact, caller, model] = self.usage.get((contact, caller, model), UsageTotal()) + total
                self.caller_usage[caller, model] = self.caller_usage.get((caller, model), UsageTotal()) + total

    @rule(contact=_contacts, count=_counts)
    def create(self, contact: str, count: int) -> None:
        """Create a thread without a run, twice with the same identifier."""
        events = (
            NewEvent(uuid7(), THREAD_CREATED, b"{}"),
            *(NewEvent(uuid7(), "comm.user_message", b"{}") for _ in range(count)),
        )
        plan = ThreadPlan(
            thread_id=uuid7(), contact_id=contact, events=events, thread_config=b"{}", metadata=b'{"a":2}'
        )
        entered = [(event.event_id, event.event_type) for event in events]
        created = self._do(self.store.create(plan))
        assert (created.thread.thread_id, created.thread.contact_id) == (plan.thread_id, contact)
        assert _pairs(created.stored) == entered
        again = self._do(self.store.create(plan))
        assert (again.thread, _pairs(again.stored)) == (created.thread, entered)
        thread = _Thread(contact, None, list(entered), thread_id=plan.thread_id)
        thread.metadata = plan.metadata
        self.threads.append(thread)

    @precondition(lambda self: self.threads)
    @rule(pick=_picks, answers=st.booleans())
    def ask_or_answer(self, pick: int, answers: bool) -> None:
        """Ask a question, or answer an open one."""
        thread = self.threads[pick % len(self.threads)]
        assert thread.thread_id is not None
        waiting = thread.open_questions()
        if answers and waiting:
            event = NewEvent(answer_id(waiting[0]), QUESTION_ANSWERED, b"{}")
        else:
            event_id = uuid7()
            question = {"question_id": event_id, "key": "k", "text": "?", "turn": event_id}
            event = NewEvent(event_id, QUESTION_ASKED, orjson.dumps(question))
        added = [(event.event_id, event.event_type)]
        assert _pairs(self._do(self.store.append(thread.thread_id, None, [event]))) == added
        thread.events += added

    @rule(
        contact=_contacts,
        text=st.sampled_from(["say", '"say w1"', '"w1 say"', "w0", "W2 say", "t", "U", "nothing"]),
        limit=st.integers(1, 3),
        archived=st.sampled_from([None, None, True, False]),
        wanted=st.sampled_from([{}, {}, {"a": 1}, {"a": 2}]),
        of=st.none() | st.none() | _picks,
    )
    def search(
        self, contact: str, text: str, limit: int, archived: bool | None, wanted: dict[str, Any], of: int | None
    ) -> None:
        """Search the threads of a contact, and list those that the same filter finds."""
        parent = None if of is None or not self.threads else self.threads[of % len(self.threads)].thread_id
        listed = [one for one in reversed(self.threads) if one.is_listed(contact, archived, wanted, parent)]
        expected = [(one.thread_id, match) for one in listed if (match := one.match(text, self.texts)) is not None]
        query, only = parse_query(text), ThreadFilter(wanted, parent)
        assert query is not None
        found, after = [], None
        while True:
            matches = self._do(self.store.search(query, contact, limit, after, archived, only))
            found += [(one.thread.thread_id, _match(one)) for one in matches.matches]
            after = matches.next
            if after is None:
                break
            assert len(matches.matches) == limit
        assert found == expected
        threads = self._do(self.store.threads(contact, 1000, None, archived, only)).threads
        assert [thread.thread_id for thread in threads] == [one.thread_id for one in listed]

    @precondition(lambda self: self.threads)
    @rule(pick=_picks, contact=st.none() | _contacts, at=st.none() | _picks, before=st.booleans(), unknown=_rarely)
    def fork(self, pick: int, contact: str | None, at: int | None, before: bool, unknown: bool) -> None:
        """Fork a thread, twice with the same identifier: at or before one of its events, or at the end."""
        parent = self.threads[pick % len(self.threads)]
        assert parent.thread_id is not None
        position = len(parent.events) - 1 if at is None else at % len(parent.events)
        event_id = None if at is None else uuid7() if unknown else parent.events[position][0]
        plan = ForkPlan(
            thread_id=uuid7(), parent_id=parent.thread_id, acting_for=contact, event_id=event_id, before=before
        )
        events = parent.events[: position + (at is None or not before)]
        if contact not in (None, parent.contact_id):
            with pytest.raises(ThreadNotFound):
                self._do(self.store.fork(plan))
        elif (at is not None and unknown) or not events:
            with pytest.raises(EventNotFound):
                self._do(self.store.fork(plan))
        else:
            forked = self._do(self.store.fork(plan))
            assert (forked.thread_id, forked.contact_id) == (plan.thread_id, parent.contact_id)
            assert self._do(self.store.fork(plan)) == forked
            thread = _Thread(parent.contact_id, None, list(events), thread_id=plan.thread_id)
            thread.metadata, thread.parent = parent.metadata, Parent(parent.thread_id, events[-1][0])
            self.threads.append(thread)

    @precondition(lambda self: self.threads)
    @rule(
        pick=_picks,
        contact=st.none() | _contacts,
        title=st.sampled_from([UNSET, None, "t", "ü"]),
        archived=st.sampled_from([UNSET, True, False]),
        metadata=st.sampled_from([UNSET, b"{}", b'{"a":1}']),
    )
    def change_thread(
        self,
        pick: int,
        contact: str | None,
        title: str | UnsetType | None,
        archived: bool | UnsetType,
        metadata: bytes | UnsetType,
    ) -> None:
        thread = self.threads[pick % len(self.threads)]
        assert thread.thread_id is not None
        call = self.store.change_thread(thread.thread_id, contact, ThreadChange(title, archived, metadata))
        if contact not in (None, thread.contact_id):
            with pytest.raises(ThreadNotFound):
                self._do(call)
            return
        self._do(call)
        thread.title = thread.title if title is UNSET else title
        thread.archived = thread.archived if archived is UNSET else archived
        thread.metadata = thread.metadata if metadata is UNSET else metadata

    @precondition(lambda self: self.threads)
    @rule(pick=_picks, contact=st.none() | _contacts, at=_picks, rating=st.sampled_from([None, 1, -1]), unknown=_rarely)
    def rate(self, pick: int, contact: str | None, at: int, rating: int | None, unknown: bool) -> None:
        thread = self.threads[pick % len(self.threads)]
        assert thread.thread_id is not None
        event_id = uuid7() if unknown else thread.events[at % len(thread.events)][0]
        call = self.store.rate(thread.thread_id, contact, event_id, None if rating is None else Rating(rating))
        if contact not in (None, thread.contact_id):
            with pytest.raises(ThreadNotFound):
                self._do(call)
        elif unknown:
            with pytest.raises(EventNotFound):
                self._do(call)
        else:
            self._do(call)
            thread.ratings.pop(event_id, None)
            if rating is not None:
                thread.ratings[event_id] = rating

    @rule(owner=_owners, pick=_picks, background=st.booleans())
    def cancel_and_repeat(self, owner: UUID, pick: int, background: bool) -> None:
        """Cancel an open run, if possible one that continues an interrupted run, and repeat its request."""
        held = [(run.continues, key) for key, (_, run) in self.keys.items() if run in self.runs and run.status in OPEN]
        if held:
            _, key = sorted(held)[-1 - pick % len(held)]
            self._cancel(self.keys[key][1])
            self._repeat(key, owner, pick, background, False, False)

    def _cancel(self, run: _Run) -> None:
        counted = run.status in OPEN
        if counted:
            run.end(RunStatus.CANCELLED)
        settled = self._do(self.store.cancel(run.plan.run_id))
        assert settled == Settled(counted, run.status, run.thread.next_run(), [])

    @rule(owner=_owners, pick=_picks)
    def heartbeat(self, owner: UUID, pick: int) -> None:
        mine = [run for run in self.runs if run.owner == owner and run.status in OPEN]
        dead = [run for index, run in enumerate(mine) if index == pick]
        for run in dead:
            run.end(RunStatus.INTERRUPTED if run.status is RunStatus.RUNNING else RunStatus.CANCELLED)
        live = {run.plan.run_id for run in mine if run not in dead}
        may_start = {run.thread.next_run() for run in dead} - {None}
        assert set(self._do(self.store.heartbeat(owner, live))) == may_start

    @rule(owner=_owners)
    def recover(self, owner: UUID) -> None:
        self._opened_store.max_restarts = self.max_restarts
        of_others = [run for run in self.runs if run.owner != owner and run.status in OPEN]
        dead = [run for run in of_others if not run.is_left(self.max_restarts)]
        for run in dead:
            if run.status is RunStatus.QUEUED:
                run.thread.events += run.entered()
            if run.restarts:
                starts = run.restarts + 1
                run.error = f"The run was interrupted: it was started {starts} times, and its server died each time"
            run.end(RunStatus.INTERRUPTED)
        assert self._do(self._recover(self.store, owner)) == len(dead)

    @rule(owner=_owners)
    def adopt(self, owner: UUID) -> None:
        self._opened_store.max_restarts = self.max_restarts
        orphans = [run for run in self.runs if run.owner != owner and run.is_left(self.max_restarts)]
        adopted = self._do(self._adopt(self.store, owner))
        expected: list[AdoptedRun] = []
        for run in orphans:
            run.owner = owner
            run.wait_again()
            thread, plan = run.thread, run.plan
            assert thread.thread_id is not None
            expected.append(
                AdoptedRun(
                    plan.run_id,
                    thread.thread_id,
                    thread.contact_id,
                    run.message,
                    plan.caller,
                    plan.webhook_url,
                    move_beside(plan.beside, plan.message, run.message.event_id),
                    run.restarts,
                )
            )
        # The runs of each thread are in order. The store may choose the order of the threads.
        assert sorted(adopted, key=lambda one: one.thread_id) == sorted(expected, key=lambda one: one.thread_id)

    @rule(owner=_owners, repeats=_counts, pick=_picks, background=st.booleans())
    def take_over(self, owner: UUID, repeats: int, pick: int, background: bool) -> None:
        """Start another process after a crash. Clients repeat their requests."""
        self.recover(owner)
        self.adopt(owner)
        for key in self._unanswered()[:repeats]:
            self._repeat(key, owner, pick, background, False, False)

    @precondition(lambda self: self.runs)
    @rule(pick=_picks, contact=st.none() | _contacts, caller=st.sampled_from(CALLERS))
    def read_run(self, pick: int, contact: str | None, caller: UUID | None) -> None:
        run = self._pick(pick)
        if contact not in (None, run.thread.contact_id) or caller not in (None, run.plan.caller):
            with pytest.raises(RunNotFound):
                self._do(self.store.run(run.plan.run_id, contact, caller))
        else:
            self._compare_run(run)

    def _compare_run(self, run: _Run) -> None:
        seen = self._do(self.store.run(run.plan.run_id, None, None))
        assert (seen.run_id, seen.thread_id) == (run.plan.run_id, run.thread.thread_id)
        assert seen.contact_id == run.thread.contact_id
        assert (seen.status, seen.created_new_thread) == (run.status, run.created_new_thread)
        assert (seen.started_at is not None, seen.finished_at is not None) == (run.started, run.status not in OPEN)
        assert (seen.streamed, seen.error, seen.failure) == (run.streamed, run.error, run.failure)
        assert seen.restarts == run.restarts
        assert _pairs(seen.events) == run.sent

    @rule(
        acting_for=st.none() | _contacts,
        contact=st.none() | _contacts,
        pick=st.none() | _picks,
        statuses=st.lists(st.sampled_from(RunStatus), unique=True, max_size=2),
        limit=st.integers(1, 4),
    )
    def list_runs(
        self, acting_for: str | None, contact: str | None, pick: int | None, statuses: list[RunStatus], limit: int
    ) -> None:
        thread = self.threads[pick % len(self.threads)] if pick is not None and self.threads else None
        only = RunFilter(tuple(statuses), contact, None if thread is None else thread.thread_id)
        if thread is not None and acting_for not in (None, thread.contact_id):
            with pytest.raises(ThreadNotFound):
                self._do(self.store.runs(acting_for, limit, None, only))
            return
        expected = [
            (run.plan.run_id, run.status)
            for run in sorted(self.runs, key=lambda run: run.plan.run_id, reverse=True)
            if acting_for in (None, run.thread.contact_id)
            and contact in (None, run.thread.contact_id)
            and thread in (None, run.thread)
            and run.status in (statuses or RunStatus)
        ]
        page = self._do(self.store.runs(acting_for, limit, None, only))
        listed = page.runs
        if page.next is not None:
            listed = [*listed, *self._do(self.store.runs(acting_for, 1000, page.next, only)).runs]
        assert len(page.runs) == min(limit, len(expected))
        assert [(run.run_id, run.status) for run in listed] == expected

    @precondition(lambda self: self.threads)
    @rule(pick=_picks, contact=st.none() | _contacts, chance=_picks)
    def delete_thread(self, pick: int, contact: str | None, chance: int) -> None:
        if chance > 3:
            return  # with frequent deletions, a history would test little else
        thread = self.threads[pick % len(self.threads)]
        assert thread.thread_id is not None
        call = self.store.delete_thread(thread.thread_id, contact)
        if contact not in (None, thread.contact_id):
            with pytest.raises(ThreadNotFound):
                self._do(call)
        else:
            assert self._do(call) == self._drop(thread)

    @rule(contact=_contacts, chance=_picks)
    def delete_contact(self, contact: str, chance: int) -> None:
        if chance > 3:
            return
        threads = [thread for thread in self.threads if thread.contact_id == contact]
        open_runs = self._do(self.store.delete_contact(contact))
        assert sorted(open_runs) == sorted(run for thread in threads for run in self._drop(thread))
        self.usage = {key: total for key, total in self.usage.items() if key[0] != contact}

    @rule(everything=st.booleans(), keys=st.booleans())
    def purge(self, everything: bool, keys: bool) -> None:
        ended = [run for run in self.runs if everything and run.status not in OPEN]
        age = timedelta(seconds=-60) if everything else timedelta(days=1)
        if keys:
            self._opened_store.keep_keys = timedelta(seconds=-60)
            self.keys.clear()
        assert self._do(self.store.purge(age)) == len(ended)
        self._opened_store.keep_keys = KEEP_KEYS
        self._forget(ended)

    @precondition(lambda self: self._reopen is not None)
    @rule(owner=_owners, chance=_picks)
    def reopen(self, owner: UUID, chance: int) -> None:
        """Close the store, and open its data again. The processes that own its runs stay the same.

        Then repeat a request with its key, since only that shows whether the store has kept the key.
        """
        if chance > 3:
            return  # opening a store may take long
        assert self._reopen is not None
        self._close()
        opened = self._reopen(self._opened_store)
        self._opened_store = self._do(opened.__aenter__())
        self._opened = opened
        self.store = cast(ThreadStore, _RetryingStore(self._opened_store))
        if self.keys:
            self._repeat(list(self.keys)[-1], owner, chance, background=False, other=False, stranger=False)

    @rule(chance=_picks)
    def disturb(self, chance: int) -> None:
        if chance <= 2:
            self._do(self._disturb(self._opened_store))

    @precondition(lambda self: self.has_sink)
    @rule(limit=st.integers(1, 20))
    def deliver(self, limit: int) -> None:
        """Deliver some events to a durable sink."""
        self._do(self._receive(limit))

    @property
    def _outbox(self) -> Outbox:
        outbox = self._opened_store.outbox
        assert outbox is not None
        return cast(Outbox, _RetryingStore(outbox))

    async def _receive(self, limit: int) -> bool:
        batch = await self._outbox.read(SINK, limit)
        for event in batch.events:
            self.received.setdefault(event.thread_id, []).append(_id(event.row.event_id))
        return batch.after is not None and await self._outbox.advance(SINK, OWNERS[0], batch.after)

    async def _compare_outbox(self) -> None:
        """Check that the sink receives all events of each thread, once and in order."""
        async with asyncio.timeout(RECOVERS_WITHIN):
            waits = True
            while waits:
                await asyncio.sleep(0)
                waits = await self._receive(1000) or (await self._outbox.sinks())[0].waiting > 0
        for thread in self.threads:
            assert self.received[cast(UUID, thread.thread_id)] == [event_id for event_id, _ in thread.events]

    # Invariants

    @invariant()
    def the_store_matches_the_model(self) -> None:
        self._do(self._compare())

    async def _compare(self) -> None:
        counts = {contact: sum(one.contact_id == contact for one in self.threads) for contact in CONTACTS}
        contacts = (await self.store.contacts(None, 1000, None)).contacts
        assert {one.contact_id: one.threads for one in contacts} == {name: n for name, n in counts.items() if n}
        for contact in CONTACTS:
            page = await self.store.threads(contact, 1000, None)
            mine = [thread.thread_id for thread in reversed(self.threads) if thread.contact_id == contact]
            assert [thread.thread_id for thread in page.threads] == mine
        for thread in self.threads:
            assert thread.thread_id is not None
            events = (await self.store.events(thread.thread_id, None, 1000, None)).events
            assert _pairs(events) == thread.events
            times = [event.created_at for event in events]
            assert times == sorted(set(times))
            assert sum(run.status is RunStatus.RUNNING for run in thread.open) <= 1
        thread_ids = [cast(UUID, thread.thread_id) for thread in self.threads]
        for thread, summary in zip(self.threads, await self.store.summaries(thread_ids), strict=True):
            facts = summary.facts
            assert (facts.title, facts.archived_at is not None) == (thread.title, thread.archived)
            assert facts.parent == thread.parent
            assert orjson.loads(facts.metadata) == orjson.loads(thread.metadata)
            messages = [event for event in thread.events if event[1].startswith("comm.")]
            from_user = [event for event in messages[:OPENING] if event[1] == USER_MESSAGE]
            shown = [[] if row is None else _pairs([row]) for row in (summary.first, summary.newest)]
            assert shown == [(from_user or messages)[:1], messages[-1:]]
            forks = [one for one in self.threads if one.parent and one.parent.thread_id == thread.thread_id]
            assert (summary.forks, summary.questions) == (len(forks), min(20, len(thread.open_questions())))
            ratings = [
                (event_id, thread.ratings[event_id]) for event_id, _ in thread.events if event_id in thread.ratings
            ]
            feedback = await self.store.feedback(cast(UUID, thread.thread_id), None)
            assert [(one.event_id, one.rating.rating) for one in feedback] == ratings
            used = await self.store.thread_usage(cast(UUID, thread.thread_id), None)
            assert [(one.model, one.total) for one in used] == sorted(thread.usage.items())
        await self._compare_usage()
        known = {run.plan.run_id: run for run in self.runs}
        run_ids = [*known, *self.forgotten]
        outcome = Outcome(RunStatus.FAILED)
        stranger = uuid7()
        for run_id, seen in zip(
            run_ids, await asyncio.gather(*[self.store.finish(one, stranger, outcome) for one in run_ids]), strict=True
        ):
            run = known.get(run_id)
            expected = Settled(False, None, None) if run is None else Settled(False, run.status, run.thread.next_run())
            assert seen == expected

    def _new_text(self, message_id: UUID) -> str:
        """Return the text of a new message."""
        return self.texts.setdefault(message_id, f"Say w{len(self.texts) % 4}!")

    def _new_message(self) -> NewEvent:
        message_id = uuid7()
        data = orjson.dumps({"content": self._new_text(message_id)})
        return NewEvent(message_id, "comm.assistant_message", data)

    async def _compare_usage(self) -> None:
        for caller in (*filter(None, CALLERS), NO_CALLER):
            expected = {model: total for (one, model), total in self.caller_usage.items() if one == caller}
            assert await self._used(UsageHolder(caller=caller)) == expected
            for contact in CONTACTS:
                own = {key[2]: total for key, total in self.usage.items() if key[:2] == (contact, caller)}
                assert await self._used(UsageHolder(contact, caller)) == own

    async def _used(self, holder: UsageHolder) -> dict[str, UsageTotal]:
        totals: dict[str, UsageTotal] = {}
        for one in await self.store.usage(holder, date(2000, 1, 1), date(2100, 1, 1)):  # midnight may pass meanwhile
            totals[one.model] = totals.get(one.model, UsageTotal()) + one.total
        return totals

    def _pick(self, pick: int, status: RunStatus | None = None) -> _Run:
        """Return a run, with this status if there is one."""
        runs = [run for run in self.runs if run.status is status] or self.runs
        return runs[-1 - pick % len(runs)]

    def _owner(self, run: _Run, stranger: bool) -> UUID:
        return next(owner for owner in OWNERS if (owner != run.owner) == stranger)

    def _drop(self, thread: _Thread) -> list[UUID]:
        open_runs = [run.plan.run_id for run in thread.open]
        self._forget([run for run in self.runs if run.thread is thread])
        self.threads.remove(thread)
        return open_runs

    def _forget(self, runs: list[_Run]) -> None:
        self.forgotten += [run.plan.run_id for run in runs]
        self.runs = [run for run in self.runs if run not in runs]


def _match(found: ThreadMatch) -> UUID | str:
    """Return the message that a search found, or "title"."""
    return "title" if found.event is None else _id(found.event.event_id)


def _usage(pick: int) -> tuple[NewEvent, ...]:
    """Return no, one or two events of usage. Their costs are sums of powers of two, which add up exactly."""
    data = [b"{}", b'{"model":"a","input_tokens":3,"cost":0.25}', b'{"model":"b","input_tokens":5}']
    return tuple(NewEvent(uuid7(), "model.usage", data[(pick + number) % 3]) for number in range(pick % 3))


def _pairs(rows: Any) -> list[tuple[UUID, str]]:
    return [(_id(row.event_id), row.event_type) for row in rows]


def _id(event_id: UUID | str) -> UUID:
    return event_id if isinstance(event_id, UUID) else UUID(event_id)
