"""The flow of a run, from an inbound message to a stored outcome: `RunFlow.answer`, top to bottom.

A run is a task of the service, not of the connection that asked for it: a caller that hangs up cancels nothing. The
pipeline is a task of its own below it, so that stopping a pipeline never cuts a call to the store in half.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

import msgspec

from jimsapi.runs.announcer import Announcer
from jimsapi.runs.calls import PipelineCalls
from jimsapi.runs.disclosure import Disclosure
from jimsapi.runs.ending import Ending, ended_by_others
from jimsapi.runs.errors import QueueTimedOut, RunBroken, RunCancelled, RunInterrupted, ServerDraining, ThreadBusy
from jimsapi.runs.foreign import ENDINGS
from jimsapi.runs.keys import caller_of
from jimsapi.runs.limits import RunLimits
from jimsapi.runs.live import LiveRun, Stop
from jimsapi.runs.outage import OutageLog
from jimsapi.runs.quota import Quota
from jimsapi.runs.registry import Registry
from jimsapi.runs.resolver import ThreadResolver, resolve
from jimsapi.runs.result import stored_result
from jimsapi.runs.stream import Streams
from jimsapi.threads.errors import (
    DomainError,
    IdentifierTaken,
    KeyUsed,
    QueueFull,
    RunClosed,
    RunNotFound,
    StoreUnavailable,
    ThreadNotFound,
)
from jimsapi.threads.event import EventRow, NewEvent, message_event
from jimsapi.threads.ids import uuid7
from jimsapi.threads.run import (
    OPEN,
    Accepted,
    Outcome,
    RunPlan,
    RunStatus,
    Settled,
    Snapshot,
    Started,
    ThreadRecord,
)
from jimsapi.threads.store import ThreadStore

logger = logging.getLogger("jimsapi.runs")

RETRY_STORE_AFTER = (0.1, 0.2, 0.5, 1.0)
"""Seconds between attempts to store an outcome; the last one repeats."""
LOOK_EVERY = 0.5
"""Seconds between looks at a run that another process works on."""


class RunFlow:
    """Answers messages: `answer` is the flow of one run. Many are under way at a time, and share what is here."""

    def __init__(
        self,
        store: ThreadStore,
        owner: UUID,
        resolvers: Sequence[ThreadResolver],
        limits: RunLimits,
        calls: PipelineCalls,
        runs: Registry,
        streams: Streams,
        announcer: Announcer,
        quota: Quota | None,
        disclosure: Disclosure,
        outage: OutageLog,
    ) -> None:
        self.store = store
        self._owner = owner
        self._resolvers = tuple(resolvers)
        self._limits = limits
        self._calls = calls
        self._runs = runs
        self._streams = streams
        self._announcer = announcer
        self._quota = quota
        self._disclosure = disclosure
        self._outage = outage
        self.leaving = False
        """Whether the service ends: then a flow that is cut off stores nothing more."""

    async def answer(self, run: LiveRun, thread_config: bytes) -> None:
        """The flow of a run: accept; greet, or wait for the turn; answer; store the outcome."""
        loop = asyncio.get_running_loop()
        try:
            accepted = await self._accept(run, thread_config)
            deadline = loop.time() + self._limits.run_timeout
            ending: Ending | None = None
            if accepted.snapshot is None:
                await self._wait_for_turn(run)
                snapshot = await self._start(run, accepted.thread, ())
                deadline = loop.time() + self._limits.run_timeout
            elif accepted.status is RunStatus.QUEUED:
                snapshot, ending = await self._greet(run, accepted, accepted.snapshot, deadline)
            else:
                snapshot = accepted.snapshot
            run.begin_running()
            if ending is None:
                ending = await self._calls.answer(run, accepted.thread, snapshot, deadline)
            await self._finish(run, accepted, ending)
        except KeyUsed as used:
            await self._follow(run, used.run_id)
        except DomainError as error:
            if isinstance(error, StoreUnavailable):
                self._outage.refused(error)
            run.answer_with(error)
        except Exception:
            logger.exception("run %s failed inside the server", run.run_id)
            run.answer_with(RunBroken())
        except ENDINGS as cause:
            if self.leaving:
                raise
            await self._end_cut_off(run, cause)
        finally:
            self.close(run)

    async def _end_cut_off(self, run: LiveRun, cause: BaseException) -> None:
        """Store an outcome for a run whose flow somebody else's code has cut off: its thread must not stay locked."""
        self._stop_cut_off(run, cause)
        await self._interrupt(run)

    async def _interrupt(self, run: LiveRun) -> None:
        """End a run of which nobody here knows whether its message is in the thread.

        If it is, the run is interrupted and not cancelled, so that a repeat under its key can still be answered.
        """
        outcome = Outcome(RunStatus.INTERRUPTED, error=str(RunInterrupted()))
        settled = await self._insist(run, partial(self.store.finish, run.run_id, self._owner, outcome))
        if settled.status is RunStatus.QUEUED:
            settled = await self._insist(run, partial(self.store.cancel, run.run_id))
        self._note_end(run, settled)

    def _stop_cut_off(self, run: LiveRun, cause: BaseException) -> None:
        text = "run %s is interrupted: a %s of somebody else's code reached it"
        logger.error(text, run.run_id, type(cause).__name__, exc_info=cause)
        run.stop(Stop.DRAINED)
        run.answer_with(RunInterrupted())

    async def answer_once(self, run: LiveRun, thread_config: bytes) -> None:
        """The same flow for a message that is in no thread."""
        try:
            inbound = run.inbound
            message = message_event(inbound.event_type, inbound.message)
            thread = ThreadRecord(uuid7(), inbound.contact_id, datetime.now(UTC), thread_config)
            run.begin_running()
            run.enter(thread, True)
            row = EventRow(message.event_id, datetime.now(), message.event_type, message.data)
            deadline = asyncio.get_running_loop().time() + self._limits.run_timeout
            ending = await self._calls.answer(run, thread, Snapshot([row], False), deadline)
            run.end_as(ending.outcome.status)
            run.answer_with(ending.error or ending.result(run))
        except Exception:
            logger.exception("run %s failed inside the server", run.run_id)
            run.answer_with(RunBroken())
        except ENDINGS as cause:
            if self.leaving:
                raise
            self._stop_cut_off(run, cause)
        finally:
            self.close(run)

    async def _accept(self, run: LiveRun, thread_config: bytes) -> Accepted:
        inbound = run.inbound
        wants_start = inbound.run_conversation_start_on_new_thread
        plan = RunPlan(
            run_id=run.run_id,
            owner=self._owner,
            contact_id=inbound.contact_id,
            acting_for=run.admission.identity.contact_id,
            selectors=await resolve(self._resolvers, inbound) if run.selectors is None else tuple(run.selectors),
            message=run.message or message_event(inbound.event_type, inbound.message),
            thread_config=thread_config,
            conversation_start=wants_start and self._calls.app.conversation_start_pipeline is not None,
            queue_limit=0 if self._limits.reject_busy else self._limits.thread_queue,
            context=self._limits.context,
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
            if self._limits.reject_busy:
                raise ThreadBusy(full.open_run) from None
            raise
        run.enter(accepted.thread, accepted.created_new_thread)
        self._announcer.stored(accepted.thread.thread_id, accepted.stored)
        return accepted

    async def _follow(self, run: LiveRun, run_id: UUID) -> None:
        """Answer with what another run has answered, or will: its message came before, with the same key."""
        run.follow(run_id)
        try:
            while (stored := await self.store.run(run_id, None, None)).status in OPEN:
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_EVERY):
                        await run.turn.wait()
                if run.stop_reason is not None:
                    raise ServerDraining
            answer = stored_result(self._disclosure.stored(stored))
            if isinstance(answer, RunCancelled) and stored.started_at is None:
                answer = RunInterrupted()  # the message never came into its thread: whoever repeats it is answered
            run.answer_with(answer)
        except DomainError as error:
            run.answer_with(error)

    async def _wait_for_turn(self, run: LiveRun) -> None:
        """Wait until all that came before in the thread is done.

        Raises why the run leaves the queue instead. At a drain a background run is left in the queue for the next
        process, and others leave it.
        """
        try:
            async with asyncio.timeout(None if run.background else self._limits.queue_timeout):
                await run.turn.wait()
        except TimeoutError:
            await self._leave_queue(run)
            raise QueueTimedOut(self._limits.queue_timeout) from None
        finally:
            run.end_wait()
        if run.stop_reason is not None:
            if run.background and run.stop_reason is Stop.DRAINED:
                self._runs.hand_over(run.run_id)
                raise ServerDraining
            await self._leave_queue(run)
            # The caller is told why the run was stopped; the run itself is `cancelled`, since it never started.
            raise Ending.stopped(run, self._limits.run_timeout).error or RunCancelled()

    async def _leave_queue(self, run: LiveRun) -> Settled:
        settled = await self._insist(run, partial(self.store.cancel, run.run_id))
        self._note_end(run, settled)
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
            await self._interrupt(run)
            raise
        self._announcer.stored(thread.thread_id, started.stored)
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
            return await self.store.start(run.run_id, self._owner, events, self._limits.context)
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
        """Run the conversation start, then let the message enter.

        If the start failed, or was stopped, the message enters all the same, and the ending of the start is the run's.
        """
        greeting = await self._calls.greet(run, accepted.thread, snapshot, deadline)
        if greeting is None:  # another process, whose app greets, accepted the run
            return await self._start(run, accepted.thread, ()), None
        try:
            snapshot = await self._start(run, accepted.thread, greeting.outcome.events)
        except IdentifierTaken as taken:
            greeting = greeting.refused(run, taken, self._disclosure)
            snapshot = await self._start(run, accepted.thread, ())
        return snapshot, None if greeting.error is None else greeting

    async def _finish(self, run: LiveRun, accepted: Accepted, ending: Ending) -> None:
        """Store the outcome, then answer. While the store does not take it, the caller gets the store's error."""
        try:
            settled = await self._settle(run, ending.outcome)
        except IdentifierTaken as taken:
            ending = ending.refused(run, taken, self._disclosure)
            settled = await self._settle(run, ending.outcome)
        self._note_end(run, settled)
        thread = accepted.thread
        self._announcer.stored(thread.thread_id, settled.stored)
        if settled.status is not ending.outcome.status:
            run.answer_with(ended_by_others(settled, thread))
        else:
            run.answer_with(ending.error or ending.result(run))

    async def _settle(self, run: LiveRun, outcome: Outcome) -> Settled:
        if run.stream is not None:
            outcome = msgspec.structs.replace(outcome, streamed=run.stream.told - 1)
        return await self._insist(run, partial(self.store.finish, run.run_id, self._owner, outcome))

    def _note_end(self, run: LiveRun, settled: Settled) -> None:
        run.end_as(settled.status or RunStatus.CANCELLED)
        self._runs.wake(settled.next_run)

    async def _insist(self, run: LiveRun, end: Callable[[], Awaitable[Settled]]) -> Settled:
        """Repeat until the store has ended the run: a thread must not stay locked because the disk was full."""
        attempt = 0
        while True:
            try:
                return await end()
            except StoreUnavailable as error:
                self._outage.refused(error)
                run.answer_with(error)
                if attempt == 0:
                    logger.error("run %s: its end could not be stored and is tried again: %s", run.run_id, error)
            await asyncio.sleep(RETRY_STORE_AFTER[min(attempt, len(RETRY_STORE_AFTER) - 1)])
            attempt += 1

    def close(self, run: LiveRun) -> None:
        """End a run: nobody waits for it any more, and whoever wants to know that it has ended is told."""
        if not self._runs.remove(run):
            return
        if self._quota is not None and run.account is not None:
            self._quota.give_back(run.account)
        if run.is_awaited:  # it was cut off at the exit
            run.answer_with(RunInterrupted())
        now = asyncio.get_running_loop().time()
        if run.stream is not None:
            self._streams.close(run.run_id, now)
        run.forget_conversation()
        self._announcer.ended(run, now - run.began)
