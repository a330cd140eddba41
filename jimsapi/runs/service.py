"""The flow of a run: from an inbound message to a stored outcome, in `RunService._run`, top to bottom.

A run is a task of the service, not of the connection that asked for it: a caller that hangs up cancels nothing. The
pipeline is a task of its own below it, so that stopping a pipeline never cuts a call to the store in half.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, cast
from uuid import UUID

import msgspec

from jimsapi.runs.disclosure import Disclosure
from jimsapi.runs.ending import Ending, ended_by_others
from jimsapi.runs.errors import (
    ContactForbidden,
    QueueTimedOut,
    RunBroken,
    RunCancelled,
    RunInterrupted,
    ServerDraining,
    ThreadBusy,
    TooManyRuns,
)
from jimsapi.runs.foreign import ENDINGS, being_cancelled
from jimsapi.runs.identity import PUBLIC, Admission
from jimsapi.runs.inbound import Inbound, check_inbound
from jimsapi.runs.keys import caller_of, idempotency
from jimsapi.runs.live import LET_GO_AFTER, LiveRun, PipelineTiming, RunRecord, Stop
from jimsapi.runs.observers import notify
from jimsapi.runs.outage import OutageLog
from jimsapi.runs.pipeline import JimsApp, Pipeline, pipeline_name
from jimsapi.runs.quota import Allowance, Quota, QuotaLimits
from jimsapi.runs.result import RunResult, stored_result
from jimsapi.runs.sinks import SinkQueue
from jimsapi.runs.stream import Gap, RunStarted, RunStream, Streams, StreamVoice
from jimsapi.runs.tasks import EndlessTask, PipelineTask, ServiceTask, current_pipeline
from jimsapi.threads.context import ThreadContext
from jimsapi.threads.errors import (
    DomainError,
    IdentifierTaken,
    InputRefused,
    KeyMismatch,
    KeyUsed,
    QueueFull,
    RunClosed,
    RunNotFound,
    StoreUnavailable,
    StoreUnusable,
    ThreadNotFound,
)
from jimsapi.threads.event import EventRow, NewEvent, decode_row, message_event
from jimsapi.threads.ids import uuid7
from jimsapi.threads.run import (
    OPEN,
    Accepted,
    AdoptedRun,
    ById,
    ContextLimits,
    Outcome,
    RunPlan,
    RunStatus,
    Selector,
    Settled,
    Snapshot,
    Started,
    ThreadRecord,
)
from jimsapi.threads.storable import load_stored
from jimsapi.threads.store import ThreadStore

if TYPE_CHECKING:
    from jimsapi.runs.webhooks import Webhooks  # only where they are configured: it brings in an HTTP client

logger = logging.getLogger("jimsapi.runs")

HEARTBEAT_EVERY = 5.0
PURGE_EVERY = 3600.0
RETRY_STORE_AFTER = (0.1, 0.2, 0.5, 1.0)
"""Seconds between attempts to store an outcome; the last one repeats."""
FLUSH_WITHIN = 1.0
"""Seconds that sinks and webhooks have at a shutdown for what waits."""
LOOK_EVERY = 0.5
"""Seconds between looks at a run that another process works on."""


class ThreadResolver(Protocol):
    """Says which thread an inbound message belongs to."""

    name: str

    async def resolve(self, inbound: Inbound) -> Sequence[Selector] | None: ...


class RunLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What runs may take: times in seconds, `thread_queue` runs waiting in a thread, `max_runs` open in the process.

    `reject_busy`: a thread that works on a message takes no other. `quota` is what one caller may ask for.
    """

    context: ContextLimits = ContextLimits()
    thread_queue: int = 256
    reject_busy: bool = False
    queue_timeout: float = 60.0
    run_timeout: float = 300.0
    max_runs: int = 1000
    keep_runs: timedelta = timedelta(days=30)
    quota: QuotaLimits = QuotaLimits()


class RunService:
    """Answers messages: one `JimsApp` over one store.

    `resolvers` are asked in order; the first that returns selectors decides alone. Every one of `on_run` is told of
    each run that ended, and `webhooks` call whom its caller named. `disclosure` makes the text of a
    pipeline's failure. Enter the service to recover what a dead process left behind and to start its housekeeping;
    `drain` it before you leave it. Entering raises `StoreUnusable` if the store fails at that.
    """

    def __init__(
        self,
        app: JimsApp,
        store: ThreadStore,
        resolvers: Sequence[ThreadResolver],
        *,
        limits: RunLimits | None = None,
        sinks: Sequence[SinkQueue] = (),
        on_run: Sequence[Callable[[RunRecord], None]] = (),
        webhooks: "Webhooks | None" = None,
        disclosure: Disclosure | None = None,
    ) -> None:
        self.app = app
        self.store = store
        self.limits = limits or RunLimits()
        self.sinks = tuple(sinks)
        self.webhooks = webhooks
        self.disclosure = disclosure or Disclosure()
        self.outage = OutageLog()
        self.draining = False
        self._adopts = False
        self.owner = uuid7()
        quota = Quota(self.limits.quota)
        self.quota = quota if quota.policies else None
        self._resolvers = tuple(resolvers)
        self._on_run = tuple(on_run)
        start = app.conversation_start_pipeline
        # What metrics show, whatever is put around the pipelines later.
        self._pipeline_name = app.name or pipeline_name(app.pipeline)
        self._start_name = "" if start is None else pipeline_name(start)
        self.streams = Streams()
        self._runs: dict[UUID, LiveRun] = {}
        self._by_key: dict[UUID, LiveRun] = {}
        self._let_go: set[PipelineTask] = set()
        self._looks: set[asyncio.Task[None]] = set()
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = math.inf
        # No heartbeat may come between the store's word that runs are ours and their registration here.
        self._ownership = asyncio.Lock()
        self._idle = asyncio.Event()
        self._idle.set()
        self._housekeeping = EndlessTask(self._keep_house, "housekeeping")
        self._leaving = False

    async def __aenter__(self) -> "RunService":
        self._loop = asyncio.get_running_loop()
        self.store.on_turn = self._hear
        try:
            interrupted = await self.store.recover(self.owner)
        except StoreUnavailable as error:
            raise StoreUnusable(f"{self.store.name}: what an earlier process left cannot be read: {error}") from error
        if interrupted:
            logger.warning("%d runs of an earlier process were open; they are marked interrupted", interrupted)
        for sink in self.sinks:
            sink.start()
        self._housekeeping.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._leaving = True
        tasks = {run.task for run in self._runs.values() if run.task is not None}
        for run in self._runs.values():
            if run.context is not None:
                run.context.close()
        for task in tasks | self._let_go:  # those were waited for once; they must not hold up the exit
            task.end()
        if tasks:
            await asyncio.wait(tasks, timeout=LET_GO_AFTER)
        await self._housekeeping.stop(LET_GO_AFTER)
        for run in list(self._runs.values()):  # their tasks had not begun, or do not end
            self._close(run)
        self._set_alarm(math.inf)
        for sink in self.sinks:
            await sink.stop()
        if self.webhooks is not None:
            await self.webhooks.stop()

    def wrap_pipelines(self, wrap: Callable[[Pipeline, str], Pipeline]) -> None:
        """Put something around each pipeline, such as a span: `wrap(pipeline, name)` returns what is called instead.

        For `jimsapi_routes`, before the first request; the wrapper of the last plugin is the outermost. `name` is the
        pipeline's in metrics, which stays, and what the pipeline raises must be raised on.
        """
        start = self.app.conversation_start_pipeline
        self.app = replace(
            self.app,
            pipeline=wrap(self.app.pipeline, self._pipeline_name),
            conversation_start_pipeline=None if start is None else wrap(start, self._start_name),
        )

    def allowances(self, run: LiveRun) -> Sequence[Allowance]:
        """What is left now of the limits of who asked for a run; empty if there are none."""
        if self.quota is None or run.account is None:
            return ()
        return self.quota.allowances(run.account, self._loop.time())

    @property
    def open_runs(self) -> int:
        """Runs that this process works on now, waiting ones included."""
        return len(self._runs)

    @property
    def waiting_runs(self) -> int:
        """Runs of this process whose message is not in its thread yet."""
        return sum(run.status is RunStatus.QUEUED for run in list(self._runs.values()))

    @property
    def abandoned_pipelines(self) -> int:
        """Pipelines that swallowed their cancellation and run on without a run."""
        return len(self._let_go)

    async def chat(self, inbound: Inbound, admission: Admission) -> RunResult:
        """Answer a message. The run goes on if the caller is cancelled while it waits.

        Raises:
            ContactForbidden, InputRefused, ServerDraining, TooManyRuns, QuotaExceeded: nothing was stored.
            ThreadNotFound, QueueFull, ThreadBusy, QueueTimedOut, RunCancelled: the message did not enter the thread.
            PipelineFailed, RunTimedOut, RunInterrupted: the message is in the thread, an answer is not.
            StoreUnavailable: the store does not answer now.
        """
        return await asyncio.shield(self.begin(inbound, admission).answer)

    def begin(
        self,
        inbound: Inbound,
        admission: Admission,
        *,
        watched: bool = False,
        background: bool = False,
        key: str | None = None,
        selectors: Sequence[Selector] | None = None,
    ) -> LiveRun:
        """Begin a run and return at once; its `answer` is a future. Raises what `chat` raises before storing.

        A `watched` run has a stream from its start. A `background` run is one that nobody waits for: it waits for its
        turn as long as it takes, and another process may take it over before it has started. With the idempotency
        `key` of a message that was sent before, the run is that message's; another message with it is refused with
        `KeyMismatch`. `selectors` say which thread it is; without them the resolvers do.
        """
        thread_config = self._check(inbound, admission)
        identified = None if key is None else idempotency(key, inbound, admission, selectors)
        if identified is not None and (same := self._by_key.get(identified.key)) is not None:
            if same.idempotency != identified:
                raise KeyMismatch
            if (watched or background) and same.stream is None and same.thread is None:
                same.stream = self.streams.open(same.run_id)  # in time for all that it is going to say
            return same
        run = self._admit(inbound, admission)
        run.background = background
        run.selectors = selectors
        if watched or background:
            run.stream = self.streams.open(run.run_id)
        if watched or background or identified is not None:
            run.taken = self._loop.create_future()
        if identified is not None:
            run.idempotency = identified
            self._by_key[identified.key] = run
        self._launch(run, self._run(run, thread_config))
        return run

    def answer_once(self, inbound: Inbound, admission: Admission, *, watched: bool = False) -> LiveRun:
        """Begin to answer a message outside of every thread: the pipeline sees it alone, and nothing is stored.

        The same limits hold, the same is counted, and the same is raised as by `begin`.
        """
        thread_config = self._check(inbound, admission)
        run = self._admit(inbound, admission)
        if watched:
            run.stream = self.streams.open(run.run_id, in_store=False)
            run.taken = self._loop.create_future()
        self._launch(run, self._run_once(run, thread_config))
        return run

    def _check(self, inbound: Inbound, admission: Admission) -> bytes:
        bound_to = admission.identity.contact_id
        if bound_to is not None and inbound.contact_id != bound_to:
            raise ContactForbidden
        thread_config = check_inbound(inbound)
        if inbound.webhook_url is not None:
            self._check_webhook(inbound.webhook_url)
        return thread_config

    def _check_webhook(self, url: str) -> None:
        if self.webhooks is None:
            message = "This server calls no webhooks: whoever runs it has to set --webhook-secret"
            raise InputRefused("webhook_url", "webhooks_off", message, None)
        self.webhooks.check(url)

    def _admit(self, inbound: Inbound, admission: Admission) -> LiveRun:
        """A run within all limits."""
        if self.draining:
            raise ServerDraining
        if len(self._runs) >= self.limits.max_runs:
            raise TooManyRuns(self.limits.max_runs)
        # The last to be asked, so that whom somebody else refuses has taken nothing of it.
        account = None if self.quota is None else self.quota.take(admission, inbound.contact_id, self._loop.time())
        run = LiveRun(inbound, admission, self._loop)
        run.account = account
        return run

    def _launch(self, run: LiveRun, flow: Coroutine[Any, Any, None]) -> None:
        # Registered before the store hears of it: the heartbeat takes an open run that is not here for an orphan.
        self._runs[run.run_id] = run
        self._idle.clear()
        run.task = ServiceTask.begin(flow, loop=self._loop)

    def watch(self, run_id: UUID) -> RunStream | None:
        """The stream of a run that this process works on, or has worked on a while ago; None for all others."""
        stream = self.streams.get(run_id)
        if stream is None and (run := self._runs.get(run_id)) is not None and run.thread is not None:
            stream = run.stream = self.streams.open(run_id)
            stream.put(RunStarted(run_id, run.thread.thread_id, run.created_new_thread))
            if run.status is RunStatus.RUNNING and run.pipeline is not None and not run.pipeline.done():
                stream.put(Gap(None))  # what it said so far was heard by nobody
                if run.context is not None:
                    run.context.watch(StreamVoice(stream))
        return stream

    async def cancel(self, run_id: UUID) -> Settled:
        """Cancel a run, whichever process works on it. The store's word counts: nothing is stored after it."""
        with self.outage.noted():
            settled = await self.store.cancel(run_id)
        if settled.counted:
            self.stop_runs([run_id], Stop.CANCELLED)
            self._wake(settled.next_run)
        return settled

    async def _run(self, run: LiveRun, thread_config: bytes) -> None:
        """The flow of a run: accept; greet, or wait for the turn; answer; store the outcome."""
        try:
            accepted = await self._accept(run, thread_config)
            deadline = self._loop.time() + self.limits.run_timeout
            ending: Ending | None = None
            if accepted.snapshot is None:
                await self._wait_for_turn(run)
                snapshot = await self._start(run, accepted.thread, ())
                deadline = self._loop.time() + self.limits.run_timeout
            elif accepted.status is RunStatus.QUEUED:
                snapshot, ending = await self._greet(run, accepted, accepted.snapshot, deadline)
            else:
                snapshot = accepted.snapshot
            run.status = RunStatus.RUNNING
            if ending is None:
                ending = await self._call(run, self.app.pipeline, accepted.thread, snapshot, deadline)
            await self._finish(run, accepted, ending)
        except KeyUsed as used:
            await self._follow(run, used.run_id)
        except DomainError as error:
            if isinstance(error, StoreUnavailable):
                self.outage.refused(error)
            run.answer_with(error)
        except Exception:
            logger.exception("run %s failed inside the server", run.run_id)
            run.answer_with(RunBroken())
        except ENDINGS as cause:
            if self._leaving:
                raise
            await self._end_cut_off(run, cause)
        finally:
            self._close(run)

    async def _end_cut_off(self, run: LiveRun, cause: BaseException) -> None:
        """Store an outcome for a run whose flow somebody else's code has cut off: its thread must not stay locked."""
        self._stop_cut_off(run, cause)
        if run.status is RunStatus.RUNNING:
            outcome = Outcome(RunStatus.INTERRUPTED, error=str(RunInterrupted()))
            settled = await self._insist(run, partial(self.store.finish, run.run_id, self.owner, outcome))
        else:
            settled = await self._insist(run, partial(self.store.cancel, run.run_id))
        run.status = settled.status or RunStatus.CANCELLED
        self._wake(settled.next_run)

    def _stop_cut_off(self, run: LiveRun, cause: BaseException) -> None:
        text = "run %s is interrupted: a %s of somebody else's code reached it"
        logger.error(text, run.run_id, type(cause).__name__, exc_info=cause)
        run.stop(Stop.DRAINED)
        run.answer_with(RunInterrupted())

    async def _run_once(self, run: LiveRun, thread_config: bytes) -> None:
        """The same flow for a message that is in no thread."""
        try:
            inbound = run.inbound
            message = message_event(inbound.event_type, inbound.message)
            run.thread = thread = ThreadRecord(uuid7(), inbound.contact_id, datetime.now(UTC), thread_config)
            run.status = RunStatus.RUNNING
            if run.stream is not None:
                run.stream.put(RunStarted(run.run_id, thread.thread_id, True))
            run.let_in()
            row = EventRow(message.event_id, datetime.now(), message.event_type, message.data)
            deadline = self._loop.time() + self.limits.run_timeout
            ending = await self._call(run, self.app.pipeline, thread, Snapshot([row], False), deadline)
            run.status = ending.outcome.status
            run.answer_with(ending.error or ending.result(run))
        except Exception:
            logger.exception("run %s failed inside the server", run.run_id)
            run.answer_with(RunBroken())
        except ENDINGS as cause:
            if self._leaving:
                raise
            self._stop_cut_off(run, cause)
        finally:
            self._close(run)

    async def _accept(self, run: LiveRun, thread_config: bytes) -> Accepted:
        inbound = run.inbound
        wants_start = inbound.run_conversation_start_on_new_thread
        plan = RunPlan(
            run_id=run.run_id,
            owner=self.owner,
            contact_id=inbound.contact_id,
            acting_for=run.admission.identity.contact_id,
            selectors=await self._resolve(inbound) if run.selectors is None else tuple(run.selectors),
            message=run.message or message_event(inbound.event_type, inbound.message),
            thread_config=thread_config,
            conversation_start=wants_start and self.app.conversation_start_pipeline is not None,
            queue_limit=0 if self.limits.reject_busy else self.limits.thread_queue,
            context=self.limits.context,
            caller=caller_of(run.admission),
            background=run.background,
            webhook_url=inbound.webhook_url,
            idempotency=run.idempotency,
        )
        try:
            accepted = await self.store.accept(plan)
        except ThreadNotFound:
            raise ThreadNotFound(inbound.thread_id) from None
        except QueueFull as full:
            if self.limits.reject_busy:
                raise ThreadBusy(full.open_run) from None
            raise
        run.thread = accepted.thread
        run.created_new_thread = accepted.created_new_thread
        if run.stream is not None:
            run.stream.put(RunStarted(run.run_id, accepted.thread.thread_id, accepted.created_new_thread))
        run.let_in()
        self._publish(accepted.thread.thread_id, accepted.stored)
        return accepted

    async def _follow(self, run: LiveRun, run_id: UUID) -> None:
        """Answer with what another run has answered, or will: its message came before, with the same key."""
        run.known_as = run_id
        run.let_in()
        try:
            while (stored := await self.store.run(run_id, None, None)).status in OPEN:
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_EVERY):
                        await run.turn.wait()
                if run.stop_reason is not None:
                    raise ServerDraining
            run.answer_with(stored_result(self.disclosure.stored(stored)))
        except DomainError as error:
            run.answer_with(error)

    async def _resolve(self, inbound: Inbound) -> tuple[Selector, ...]:
        for resolver in self._resolvers:
            try:
                selectors = await resolver.resolve(inbound)
            except ENDINGS as error:
                if being_cancelled():
                    raise
                raise RuntimeError(f"resolver {resolver!r} raised {type(error).__name__}") from error
            if selectors is not None:
                return tuple(selectors)
        raise ThreadNotFound(inbound.thread_id)

    async def _wait_for_turn(self, run: LiveRun) -> None:
        """Wait until all that came before in the thread is done. Raises why the run leaves the queue instead."""
        try:
            async with asyncio.timeout(None if run.background else self.limits.queue_timeout):
                await run.turn.wait()
        except TimeoutError:
            await self._leave_queue(run)
            raise QueueTimedOut(self.limits.queue_timeout) from None
        finally:
            run.waited = self._loop.time() - run.began
        if run.stop_reason is not None:
            if run.background and run.stop_reason is Stop.DRAINED:
                raise ServerDraining  # the process that comes after this one goes on with it
            await self._leave_queue(run)
            raise Ending.stopped(run, self.limits.run_timeout).error or RunCancelled()

    async def _leave_queue(self, run: LiveRun) -> Settled:
        settled = await self._insist(run, partial(self.store.cancel, run.run_id))
        run.status = settled.status or RunStatus.CANCELLED
        self._wake(settled.next_run)
        return settled

    async def _start(self, run: LiveRun, thread: ThreadRecord, events: Sequence[NewEvent]) -> Snapshot:
        """Let the message enter the thread, after `events`."""
        try:
            while (started := await self._try_start(run, events)) is None:
                await self._wait_for_turn(run)
        except RunClosed:
            if run.background:
                await self._follow_if_taken_over(run, thread)
            raise ended_by_others(await self._leave_queue(run), thread) from None
        except StoreUnavailable as error:
            run.answer_with(error)
            await self._leave_queue(run)
            raise
        self._publish(thread.thread_id, started.stored)
        return started.snapshot

    async def _follow_if_taken_over(self, run: LiveRun, thread: ThreadRecord) -> None:
        """Raise `KeyUsed` for a run that another process goes on with, or did: to that one this process seemed dead."""
        try:
            status = (await self.store.run(run.run_id, None, None)).status
        except RunNotFound:
            raise ThreadNotFound(thread.thread_id) from None
        if status not in (RunStatus.CANCELLED, RunStatus.INTERRUPTED):
            raise KeyUsed(run.run_id)

    async def _try_start(self, run: LiveRun, events: Sequence[NewEvent]) -> Started | None:
        # Cleared before the store is asked, for a turn that comes while it answers must not be lost; a stop is kept,
        # since nobody would wake the run again.
        if run.stop_reason is None:
            run.turn.clear()
        try:
            return await self.store.start(run.run_id, self.owner, events, self.limits.context)
        except StoreUnavailable:
            if not run.background:
                raise
        # Its caller was answered with 202 and does not send the message again: the run waits for the store.
        await asyncio.sleep(RETRY_STORE_AFTER[-1])
        run.turn.set()
        return None

    async def _greet(
        self, run: LiveRun, accepted: Accepted, snapshot: Snapshot, deadline: float
    ) -> tuple[Snapshot, Ending | None]:
        """Run the conversation start, then let the message enter. If it failed, its ending is the run's."""
        if self.app.conversation_start_pipeline is None:  # another process, which had one, accepted the run
            return await self._start(run, accepted.thread, ()), None
        greeting = await self._call(run, self.app.conversation_start_pipeline, accepted.thread, snapshot, deadline)
        try:
            snapshot = await self._start(run, accepted.thread, greeting.outcome.events)
        except IdentifierTaken as taken:
            greeting = greeting.refused(run, taken, self.disclosure)
            snapshot = await self._start(run, accepted.thread, ())
        return snapshot, None if greeting.error is None else greeting

    async def _call(
        self, run: LiveRun, pipeline: Pipeline, thread: ThreadRecord, snapshot: Snapshot, deadline: float
    ) -> Ending:
        """Run a pipeline until it ends, or until it was stopped and did not end in time."""
        if run.stop_reason is not None:
            return Ending.stopped(run, self.limits.run_timeout)
        name = self._pipeline_name if pipeline is self.app.pipeline else self._start_name
        loop = self._loop
        began = loop.time()
        run.context = context = ThreadContext(
            thread.thread_id,
            snapshot.rows,
            thread_config=load_stored(thread.thread_config),
            truncated=snapshot.truncated,
            load_events=partial(self.store.load_events, thread.thread_id),
        )
        if run.stream is not None and run.status is RunStatus.RUNNING:  # a conversation start says nothing there
            context.watch(StreamVoice(run.stream))
        run.woken = loop.create_future()
        run.pipeline = task = PipelineTask.begin(
            _invoke(pipeline, context), loop=loop, pipeline=name, run_id=run.run_id, thread_id=thread.thread_id
        )
        task.add_done_callback(run.wake)
        run.deadline = deadline
        if deadline < self._alarm_at:
            self._set_alarm(deadline)
        await run.woken
        run.deadline = math.inf
        ending = self._ending(run, task, context)
        context.close()
        run.timings += (PipelineTiming(name, loop.time() - began, ending.error is None),)
        return ending

    def _set_alarm(self, at: float) -> None:
        """Look at `at` for runs that take too long. One timer serves all: setting one for each run is dear."""
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = at
        self._alarm = None if at == math.inf else self._loop.call_at(at, self._stop_overdue)

    def _stop_overdue(self) -> None:
        now = max(self._loop.time(), self._alarm_at)  # loops may fire a timer a moment early
        following = math.inf
        for run in self._runs.values():
            if run.deadline <= now:
                run.stop(Stop.TIMED_OUT)
            elif run.deadline < following:
                following = run.deadline
        self._set_alarm(following)

    def _ending(self, run: LiveRun, task: PipelineTask, context: ThreadContext) -> Ending:
        if not task.done():
            logger.error("run %s: its pipeline swallowed the cancellation; the run goes on without it", run.run_id)
            self._let_go.add(task)
            task.add_done_callback(self._forget)
        if run.stop_reason is not None:
            return Ending.stopped(run, self.limits.run_timeout)
        return Ending.of(run, task, context, self.disclosure)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._let_go.discard(cast(PipelineTask, task))
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.info("a pipeline that was let go ended with %s", type(error).__name__)

    async def _finish(self, run: LiveRun, accepted: Accepted, ending: Ending) -> None:
        """Store the outcome, then answer. While the store does not take it, the caller gets the store's error."""
        try:
            settled = await self._settle(run, ending.outcome)
        except IdentifierTaken as taken:
            ending = ending.refused(run, taken, self.disclosure)
            settled = await self._settle(run, ending.outcome)
        run.status = settled.status or RunStatus.CANCELLED
        self._wake(settled.next_run)
        thread = accepted.thread
        self._publish(thread.thread_id, settled.stored)
        if settled.status is not ending.outcome.status:
            run.answer_with(ended_by_others(settled, thread))
        else:
            run.answer_with(ending.error or ending.result(run))

    async def _settle(self, run: LiveRun, outcome: Outcome) -> Settled:
        if run.stream is not None:
            outcome = msgspec.structs.replace(outcome, streamed=run.stream.told - 1)
        return await self._insist(run, partial(self.store.finish, run.run_id, self.owner, outcome))

    async def _insist(self, run: LiveRun, end: Callable[[], Awaitable[Settled]]) -> Settled:
        """Repeat until the store has ended the run: a thread must not stay locked because the disk was full."""
        attempt = 0
        while True:
            try:
                return await end()
            except StoreUnavailable as error:
                self.outage.refused(error)
                run.answer_with(error)
                if attempt == 0:
                    logger.error("run %s: its end could not be stored and is tried again: %s", run.run_id, error)
            await asyncio.sleep(RETRY_STORE_AFTER[min(attempt, len(RETRY_STORE_AFTER) - 1)])
            attempt += 1

    def _hear(self, run_id: UUID) -> None:
        """Look after a run that another process has told something of: it may start, or was ended."""
        run = self._runs.get(run_id)
        if run is None:
            return
        if run.status is RunStatus.QUEUED:
            run.turn.set()
        else:  # word of its turn may come late, so that the store is asked whether it was ended
            task = self._loop.create_task(self._stop_if_ended(run))
            self._looks.add(task)
            task.add_done_callback(self._looks.discard)

    async def _stop_if_ended(self, run: LiveRun) -> None:
        try:
            if (await self.store.run(run.run_id, None, None)).status not in OPEN:
                run.stop(Stop.CANCELLED)
        except RunNotFound:
            run.stop(Stop.DELETED)
        except StoreUnavailable:
            pass  # its finish will not count

    def _wake(self, run_id: UUID | None) -> None:
        """Give the next run of a thread its turn, if it is ours."""
        if run_id is not None and (run := self._runs.get(run_id)) is not None:
            run.turn.set()

    def _publish(self, thread_id: UUID, rows: Sequence[EventRow]) -> None:
        if self.sinks and rows:
            events = [(decode_row(thread_id, row), len(row.data or b"")) for row in rows]
            for sink in self.sinks:
                sink.put(events)

    def _close(self, run: LiveRun) -> None:
        if self._runs.pop(run.run_id, None) is None:
            return
        if self.quota is not None and run.account is not None:
            self.quota.give_back(run.account)
        run.answer_with(RunInterrupted())  # heard only by a caller whose run was cut off at the exit
        if run.stream is not None:
            self.streams.close(run.run_id, self._loop.time())
        run.context = None  # it holds a conversation, and whoever reads the answer slowly holds the run
        if run.idempotency is not None:
            del self._by_key[run.idempotency.key]
        if not self._runs:
            self._idle.set()
        if run.thread is None:
            return
        if run.background and run.status is RunStatus.QUEUED:
            return  # it has not ended: another process goes on with it
        if run.inbound.webhook_url is not None:
            self._call_webhook(run.run_id, run.inbound.webhook_url)
        if not self._on_run:
            return
        record = RunRecord(
            run.run_id,
            run.thread.thread_id,
            run.status,
            run.waited,
            self._loop.time() - run.began,
            run.timings,
            run.admission.provider,
        )
        notify(self._on_run, record)

    def _call_webhook(self, run_id: UUID, url: str) -> None:
        if self.webhooks is not None:
            self.webhooks.put(run_id, url)
        else:  # an earlier process, which called webhooks, accepted the run
            logger.warning("run %s: its webhook is not called, for --webhook-secret is not set", run_id)

    def stop_runs(self, run_ids: Iterable[UUID], reason: Stop) -> None:
        """Tell those of `run_ids` that this process works on to end early."""
        for run_id in run_ids:
            if (run := self._runs.get(run_id)) is not None:
                run.stop(reason)

    def interrupt(self) -> None:
        """Stop every open run now; those that have started are stored as `interrupted`."""
        self.stop_runs(list(self._runs), Stop.DRAINED)

    async def drain(self, seconds: float) -> None:
        """Take no new run, let the open ones end for `seconds`, interrupt the rest, and flush sinks and webhooks."""
        self.draining = True
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            logger.warning("%d runs did not end within %g s and are interrupted", len(self._runs), seconds)
            self.interrupt()
            try:
                async with asyncio.timeout(LET_GO_AFTER + FLUSH_WITHIN):
                    await self._idle.wait()
            except TimeoutError:
                logger.error("%d runs could not be stored; the next start marks them", len(self._runs))
        told = (*self.sinks, *(() if self.webhooks is None else (self.webhooks,)))
        await asyncio.gather(*(each.flush(FLUSH_WITHIN) for each in told))

    async def adopt(self) -> None:
        """Take over background runs that dead processes accepted and did not start.

        To be called once all that watches runs stands in its place; from then on every heartbeat does.
        """
        self._adopts = True
        async with self._ownership:
            for adopted in await self.store.adopt(self.owner):
                if adopted.run_id not in self._runs:
                    run = _adopted(adopted, self._loop, self.streams)
                    self._launch(run, self._run(run, b"{}"))

    async def _keep_house(self) -> None:
        """Say that this process lives, end its orphaned runs, and forget old ones, until cancelled."""
        purge_at = self._loop.time()
        while True:
            try:
                self.streams.tidy(self._loop.time())
                async with self._ownership:
                    may_start = await self.store.heartbeat(self.owner, self._runs.keys())
                self.outage.works()
                for run_id in may_start:
                    self._wake(run_id)
                if self._adopts:
                    await self.adopt()
                if self._loop.time() >= purge_at:
                    await self.store.purge(self.limits.keep_runs)
                    purge_at = self._loop.time() + PURGE_EVERY
            except StoreUnavailable as error:
                self.outage.refused(error)
            except (Exception, *ENDINGS):
                if being_cancelled():
                    raise
                logger.exception("housekeeping failed; it is tried again")
            await asyncio.sleep(HEARTBEAT_EVERY)


async def _invoke(pipeline: Pipeline, context: ThreadContext) -> None:
    token = current_pipeline.set(cast(PipelineTask, asyncio.current_task()))
    try:
        await pipeline(context)
    except (SystemExit, KeyboardInterrupt) as error:
        # asyncio lets these two through a task and out of the loop: a pipeline would take the server down.
        raise RuntimeError(f"the pipeline raised {type(error).__name__}") from error
    finally:
        current_pipeline.reset(token)  # the task's context holds the task: a cycle would stay until it is collected


def _adopted(adopted: AdoptedRun, loop: asyncio.AbstractEventLoop, streams: Streams) -> LiveRun:
    """A run of a dead process, to be gone on with here. The store has all that its plan would say anew."""
    inbound = Inbound(contact_id=adopted.contact_id or "", message="", webhook_url=adopted.webhook_url)
    run = LiveRun(inbound, PUBLIC, loop, adopted.run_id)
    run.background = True
    run.message = adopted.message
    run.selectors = (ById(adopted.thread_id),)
    run.stream = streams.open(run.run_id)
    run.turn.set()  # its turn may have come while nobody was there to be told
    return run
