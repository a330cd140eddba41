"""The flow of a run, from an inbound message to a stored outcome. Read `RunFlow.answer` from top to bottom.

A run is a task of the service, not of the caller's connection: if the caller disconnects, the run continues. The
pipeline has a task of its own, so that stopping a pipeline never interrupts a call to the store.

A result passes through these types:

- `Ending`: how a pipeline ended. It holds an `Outcome` for the store, and an error or messages for the caller.
- `Outcome`: what `ThreadStore.finish` stores: the final status, the outgoing events and the text of the error.
- `Settled`: what `ThreadStore.finish` and `cancel` return: whether the call ended the run, the run's status, and the
  next run of the thread.
- `RunResult`: the answer to the caller if the run completed. Otherwise the caller gets a `DomainError`.
- `StoredRun`: a run as read from the store. `stored_result` converts it to a `RunResult` or a `DomainError`.
- `Ended`: the last item of a run's stream. It holds the `RunResult` or the error for clients that watch the run.

There are two ways to wait for an answer. Both return the `RunResult` or raise the error:

- `RunService.chat` begins a run and waits for it. It is for code that needs only the answer.
- `LiveRun.wait_for_answer()` waits for a run that `RunService.begin` returned. It is for code that also needs the run,
  such as protocol plugins, which read its identifier, thread and stream.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar
from uuid import UUID

import msgspec

from jimsapi.runs.announcer import Announcer
from jimsapi.runs.calls import PipelineCalls
from jimsapi.runs.disclosure import Disclosure
from jimsapi.runs.ending import Ending, ended_by_others, usage_of
from jimsapi.runs.errors import (
    QuestionClosed,
    QueueTimedOut,
    RunBroken,
    RunCancelled,
    RunInterrupted,
    ServerDraining,
    ThreadBusy,
    exception_text,
)
from jimsapi.runs.files import MessageFiles, find_files, validate_files
from jimsapi.runs.keys import caller_of
from jimsapi.runs.limits import RunLimits
from jimsapi.runs.live import LiveRun, Stop
from jimsapi.runs.outage import RETRY_STORE_AFTER, OutageLog
from jimsapi.runs.plugin_code import PLUGIN_EXITS
from jimsapi.runs.questions import ANSWERED, Questions, asked_before
from jimsapi.runs.quota import Quota, QuotaExceeded
from jimsapi.runs.refusals import Refusals
from jimsapi.runs.registry import Registry
from jimsapi.runs.resolver import Resolvers, ThreadResolver
from jimsapi.runs.result import RunResult, answer_to_repeat
from jimsapi.runs.spending import Spending
from jimsapi.runs.stream import Streams
from jimsapi.runs.work import Workers
from jimsapi.threads.activity import MODEL_USAGE
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
from jimsapi.threads.event import EventRow, NewEvent
from jimsapi.threads.facts import MAX_TITLE, ForkPlan, ThreadChange, ThreadPlan
from jimsapi.threads.ids import derived_id, uuid7
from jimsapi.threads.message_files import FilesInMemory
from jimsapi.threads.run import (
    NOBODY,
    OPEN,
    QUEUED,
    Accepted,
    ById,
    Outcome,
    RunPlan,
    RunStatus,
    Selector,
    Settled,
    Snapshot,
    Started,
    ThreadRecord,
)
from jimsapi.threads.storable import storable_text
from jimsapi.threads.store import ThreadStore

logger = logging.getLogger("jimsapi.runs")

Result = TypeVar("Result")

POLL_EVERY = 0.5
"""Seconds between two reads of a run that another process works on."""


class RunFlow:
    """Answers messages: `answer` is the flow of one run. All runs of a service share one `RunFlow`."""

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
        spending: Spending | None,
        disclosure: Disclosure,
        outage: OutageLog,
        refusals: Refusals,
    ) -> None:
        self.store = store
        self._owner = owner
        self._resolvers = Resolvers(resolvers)
        self._limits = limits
        self._calls = calls
        self._runs = runs
        self._streams = streams
        self._announcer = announcer
        self._questions = Questions(store, announcer)
        self._quota = quota
        self._spending = spending
        self._disclosure = disclosure
        self._outage = outage
        self._refusals = refusals
        self.files: MessageFiles | None = None
        self.workers: Workers | None = None
        self.leaving = False
        """Whether the service is exiting. A flow that is cancelled then stores nothing more."""

    def use(self, store: ThreadStore) -> None:
        """Replace the store, for example by one that a plugin wraps."""
        self.store = self._questions.store = store

    async def answer(self, run: LiveRun, thread_config: bytes) -> None:
        """Answer a message: accept it; greet, or wait for the turn; call the pipeline; store the outcome.

        `thread_config` is JSON text, for a thread that is created. Errors become the run's answer. Only a cancellation
        while the service exits is raised.
        """
        loop = run.loop
        try:
            accepted = await self._accept(run, thread_config)
            if run.hands_over:
                await self._announce(run)
                return
            has_answers = len(run.entering) > 1 and run.answers_questions  # the length saves most runs the call
            deadline = loop.time() + self._limits.run_timeout
            ending: Ending | None = None
            if accepted.snapshot is None:
                await self._wait_for_turn(run)
                if has_answers:
                    await self._check_question(run, accepted.thread)
                snapshot = await self._start(run, accepted.thread, ())
                deadline = loop.time() + self._limits.run_timeout
            elif accepted.status is QUEUED:
                snapshot, ending = await self._greet(run, accepted, accepted.snapshot, deadline)
            else:
                snapshot = accepted.snapshot
                if has_answers:
                    await self._check_question(run, accepted.thread)
            run.begin_running()
            if ending is None:
                if has_answers:
                    snapshot = await self._questions.of_turn(accepted.thread, snapshot, run.entering)
                elif asked := asked_before(snapshot.rows):
                    snapshot = await self._questions.settle(run, accepted.thread, snapshot, asked)
                ending = await self._calls.answer(run, accepted.thread, snapshot, deadline)
            await self._finish(run, accepted, ending)
        except KeyUsed as used:
            if run.hands_over:  # its caller waits for the identifier and not for the answer
                run.follow(used.run_id)
            else:
                await self._follow(run, used.run_id)
        except DomainError as error:
            if isinstance(error, StoreUnavailable):
                self._outage.refused(error)
            self._refusals.count(error)
            run.answer_with(error)
        except Exception:
            logger.exception("run %s failed inside the server", run.run_id)
            run.answer_with(RunBroken())
        except PLUGIN_EXITS as cause:
            if self.leaving:
                raise
            await self._end_cancelled_flow(run, cause)
        finally:
            self.close(run)

    async def _announce(self, run: LiveRun) -> None:
        """Leave a run that the store has accepted to the workers. Its caller has its answer, the identifier."""
        assert self.workers is not None
        await self.workers.announce([run.run_id])

    async def _end_cancelled_flow(self, run: LiveRun, cause: BaseException) -> None:
        """End a run in the store whose flow was cancelled by a plugin's or pipeline's code.

        Otherwise the run would stay open and block its thread.
        """
        self._stop_cancelled_flow(run, cause)
        await self._interrupt(run, () if run.context is None else usage_of(run.context))

    async def _interrupt(self, run: LiveRun, usage: tuple[NewEvent, ...] = ()) -> None:
        """End a run when this process does not know whether the message entered the thread.

        If the message is in the thread, the store marks the run `interrupted`. A retry with the same idempotency key
        then starts a new run for that message. Otherwise the store marks the run `cancelled`.
        """
        outcome = Outcome(RunStatus.INTERRUPTED, error=str(RunInterrupted()), usage=usage)
        try:
            settled = await self._repeat_until_stored(run, partial(self.store.finish, run.run_id, self._owner, outcome))
        except IdentifierTaken:  # the usage is that of a conversation start, which the thread has
            await self._interrupt(run)
            return
        if settled.status is QUEUED:
            settled = await self._repeat_until_stored(run, partial(self.store.cancel, run.run_id))
        self._record_end(run, settled)

    def _stop_cancelled_flow(self, run: LiveRun, cause: BaseException) -> None:
        text = "run %s is interrupted: a %s from the code of a plugin or pipeline reached it"
        logger.error(text, run.run_id, type(cause).__name__, exc_info=cause)
        run.stop(Stop.DRAINED)
        run.answer_with(RunInterrupted())

    async def answer_once(self, run: LiveRun, thread_config: bytes, history: Sequence[NewEvent]) -> None:
        """Answer a message outside of every thread. Nothing is stored. Errors are handled as in `answer`.

        `history` comes before the message in the context.
        """
        try:
            if self._spending is not None and (refusal := await self._over_budget(run, self._spending)) is not None:
                raise refusal
            thread = ThreadRecord(uuid7(), run.inbound.contact_id, datetime.now(UTC), thread_config)
            run.begin_running()
            run.enter(thread, True)
            named = await find_files(run.inbound, (), self.files) if run.inbound.files else []
            sent = validate_files(run.sent_files, self.files) if run.sent_files else []
            if self.files is not None:
                memory = FilesInMemory(sent, run.inbound.contact_id, self.files.check, self.files.store)
                run.keep_files_in_memory(memory, named)
            rows = [
                EventRow(event.event_id, datetime.now(), event.event_type, event.data)
                for event in (*history, *run.entering)
            ]
            deadline = run.loop.time() + self._limits.run_timeout
            ending = await self._calls.answer(run, thread, Snapshot(rows, False), deadline)
            run.end_as(ending.outcome.status)
            answer = ending.error or ending.result(run, self._disclosure)
            if usage := ending.usage():
                await self._add_usage(run, usage, answer)
            run.answer_with(answer)
        except DomainError as error:
            self._refusals.count(error)
            run.answer_with(error)
        except Exception:
            logger.exception("run %s failed inside the server", run.run_id)
            run.answer_with(RunBroken())
        except PLUGIN_EXITS as cause:
            if self.leaving:
                raise
            self._stop_cancelled_flow(run, cause)
        finally:
            self.close(run)

    async def _over_budget(self, run: LiveRun, spending: Spending) -> QuotaExceeded | None:
        """Return the error for a caller whose budget is used up; None if it is not."""
        try:
            run.note_budgets(await spending.check(self.store, run.admission, run.inbound.contact_id))
            return None
        except QuotaExceeded as refusal:
            if self._quota is not None and run.quota_keys is not None:
                self._quota.put_back(run.quota_keys)
            return refusal

    async def _add_usage(self, run: LiveRun, usage: Sequence[NewEvent], answer: RunResult | DomainError) -> None:
        """Add what a run outside of threads used to the totals. If the store is not available, `answer` goes first."""
        run.count_usage(usage)
        caller = caller_of(run.admission)
        add = partial(self.store.add_usage, run.run_id, run.inbound.contact_id, caller, usage)
        try:
            await add()
        except StoreUnavailable as error:
            self._outage.refused(error)
            run.answer_with(answer)
            await asyncio.sleep(RETRY_STORE_AFTER[0])
            await self._outage.outlast(add)

    async def _accept(self, run: LiveRun, thread_config: bytes) -> Accepted:
        inbound = run.inbound
        refusal: QuotaExceeded | None = None
        if self._spending is not None and not run.adopted:  # an adopted run was checked before
            refusal = await self._over_budget(run, self._spending)
            if refusal is not None and (run.idempotency is None or run.sent_files or inbound.answers):
                raise refusal
        makes = run.makes if refusal is None else None
        acting_for = run.admission.identity.contact_id
        if refusal is not None:  # without selectors, the store finds only the run of a request that is repeated
            selectors: Sequence[Selector] = ()
        elif run.selectors is None:
            selectors = await self._resolvers.resolve(inbound, run.admission, self.store)
        else:
            selectors = run.selectors
        files = await find_files(inbound, run.sent_files, self.files) if inbound.files or run.sent_files else []
        if makes is not None:
            selectors = (ById(await self._make_thread(run, self._plan(run, (), acting_for, thread_config), makes)),)
        if inbound.answers:
            answering = await self._questions.answer(run, selectors)
            selectors, acting_for = (ById(answering.thread.thread_id),), None
            run.answer_questions(answering.entering, hides_answer=answering.is_of_other_contact)
        if files:
            run.add_files(files)
        plan = self._plan(run, selectors, acting_for, thread_config)
        try:
            # An adopted run, which has its message already, has no caller who could retry.
            accepted = await (self._accept_adopted(run, plan) if run.adopted else self.store.accept(plan))
        except ThreadNotFound:
            raise (refusal or ThreadNotFound(inbound.thread_id)) from None
        except IdentifierTaken:
            if run.answers_questions:
                raise _answered_already(run) from None
            raise
        except QueueFull as full:
            if self._limits.reject_busy:
                raise ThreadBusy(full.open_run) from None
            raise
        run.enter(accepted.thread, accepted.created_new_thread)
        thread = accepted.thread
        self._announcer.stored(thread.thread_id, accepted.stored, thread.contact_id, run.run_id)
        return accepted

    def _plan(
        self, run: LiveRun, selectors: Sequence[Selector], acting_for: str | None, thread_config: bytes
    ) -> RunPlan:
        inbound = run.inbound
        wants_start = inbound.run_conversation_start_on_new_thread
        return RunPlan(
            run_id=run.run_id,
            owner=NOBODY if run.hands_over else self._owner,
            contact_id=inbound.contact_id,
            acting_for=acting_for,
            selectors=tuple(selectors),
            message=run.entering[-1],
            beside=run.entering[:-1],
            thread_config=thread_config,
            conversation_start=wants_start and self._calls.app.conversation_start_pipeline is not None,
            queue_limit=0 if self._limits.reject_busy else self._limits.thread_queue,
            context=self._limits.context,
            caller=caller_of(run.admission),
            background=run.background,
            webhook_url=inbound.webhook_url,
            idempotency=run.idempotency,
        )

    async def _make_thread(self, run: LiveRun, plan: RunPlan, makes: ForkPlan | ThreadPlan) -> UUID:
        """Make a thread for a message, and return its identifier. Raises `KeyUsed` for a request that is repeated.

        `plan` is that of the message, without selectors: so the store finds only the run of a repeated request. The
        thread of a request with a key has the same identifier each time. If the process ends before the message is
        accepted, a repetition makes no other thread.
        """
        key = run.idempotency
        if key is not None:
            with suppress(ThreadNotFound):
                await self.store.accept(plan)
            makes = msgspec.structs.replace(makes, thread_id=derived_id("thread", key.key.hex, key.body.hex))
        if isinstance(makes, ForkPlan):
            await self.store.fork(makes)
        else:
            created = await self.store.create(makes)
            self._announcer.stored(makes.thread_id, created.stored, created.thread.contact_id)
        return makes.thread_id

    async def _accept_adopted(self, run: LiveRun, plan: RunPlan) -> Accepted:
        """Retry until the store accepts an adopted run. At a drain the run is left to the next process."""
        while True:
            try:
                return await self.store.accept(plan)
            except StoreUnavailable as error:
                self._outage.refused(error)
            await asyncio.sleep(RETRY_STORE_AFTER[-1])
            if run.stop_reason is Stop.DRAINED:
                self._runs.hand_over(run.run_id)
                raise ServerDraining

    async def _follow(self, run: LiveRun, run_id: UUID) -> None:
        """Wait for the run `run_id`, which has the same idempotency key, and answer with its answer."""
        run.follow(run_id)
        try:
            while (stored := await self.store.run(run_id, None, None)).status in OPEN:
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL_EVERY):
                        await run.turn.wait()
                if run.stop_reason is not None:
                    raise ServerDraining
            run.answer_with(answer_to_repeat(self._disclosure.stored(stored)))
        except DomainError as error:
            run.answer_with(error)

    async def _wait_for_turn(self, run: LiveRun) -> None:
        """Wait until all earlier runs of the thread have ended.

        When the server drains, a background run stays in the queue for the next process; other runs are stored as
        `cancelled`.

        Raises:
            QueueTimedOut: the run waited longer than `queue_timeout` seconds.
            DomainError: the run was stopped; the error says why.
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
            # The stored run is `cancelled`, since it never started. At a drain its caller gets `RunInterrupted`: it may
            # send the message again.
            raise Ending.stopped(run, self._limits.run_timeout).error or RunCancelled()

    async def _check_question(self, run: LiveRun, thread: ThreadRecord) -> None:
        """Cancel the run and raise `QuestionClosed` if another request has closed or answered its question meanwhile.

        If the store is not available, the run goes on: its next write to the store handles that.
        """
        try:
            with suppress(StoreUnavailable):
                await self._questions.check_open(thread, run.entering[-1])
        except QuestionClosed:
            await self._leave_queue(run)
            raise

    async def _leave_queue(self, run: LiveRun) -> Settled:
        """Store a run that has not started as `cancelled`, so that the next run of its thread has its turn."""
        settled = await self._repeat_until_stored(run, partial(self.store.cancel, run.run_id))
        self._record_end(run, settled)
        return settled

    async def _start(self, run: LiveRun, thread: ThreadRecord, events: Sequence[NewEvent]) -> Snapshot:
        """Add `events` and then the message to the thread as soon as it is the run's turn. Returns the context."""
        try:
            while (started := await self._try_start(run, events)) is None:
                await self._wait_for_turn(run)
        except RunClosed:
            if run.background:
                await self._follow_if_taken_over(run, thread)
            raise ended_by_others(await self._leave_queue(run), thread) from None
        except IdentifierTaken:
            if not run.answers_questions:
                raise
            await self._leave_queue(run)
            raise _answered_already(run) from None
        except StoreUnavailable as error:
            run.answer_with(error)
            await self._interrupt(run)
            raise
        if events:
            run.count_usage(events)
        self._announcer.stored(thread.thread_id, started.stored, thread.contact_id, run.run_id)
        return started.snapshot

    async def _follow_if_taken_over(self, run: LiveRun, thread: ThreadRecord) -> None:
        """Raise `KeyUsed` if another process took the run over because this process seemed dead.

        `answer` then waits for the other process's answer.
        """
        try:
            status = (await self.store.run(run.run_id, None, None)).status
        except RunNotFound:
            raise ThreadNotFound(thread.thread_id) from None
        if status not in (RunStatus.CANCELLED, RunStatus.INTERRUPTED):
            raise KeyUsed(run.run_id)

    async def _follow_if_restarted(self, run: LiveRun, thread: ThreadRecord, ending: Ending) -> None:
        """Raise `KeyUsed` if another process started the run again because this process seemed dead."""
        try:
            restarts = (await self.store.run(run.run_id, None, None)).restarts
        except (RunNotFound, StoreUnavailable):
            return
        if restarts == run.restarts:
            return
        await self._store_usage(run, thread, ending)
        run.end_as(QUEUED)  # it has not ended: the other process continues it
        raise KeyUsed(run.run_id)

    async def _try_start(self, run: LiveRun, events: Sequence[NewEvent]) -> Started | None:
        # `turn` is cleared before the call, so that a turn that comes during the call is not lost. If the run was
        # stopped, `turn` stays set: nothing else would wake the run.
        if run.stop_reason is None:
            run.turn.clear()
        try:
            return await self.store.start(run.run_id, self._owner, events, self._limits.context)
        except StoreUnavailable:
            if not run.background:
                raise
        # The caller of a background run got 202 and does not send the message again, so the run waits for the store.
        await asyncio.sleep(RETRY_STORE_AFTER[-1])
        run.turn.set()
        return None

    async def _greet(
        self, run: LiveRun, accepted: Accepted, snapshot: Snapshot, deadline: float
    ) -> tuple[Snapshot, Ending | None]:
        """Call the conversation start pipeline, then add its events and the message to the thread.

        If that pipeline failed or was stopped, only the message enters, and the run ends with that pipeline's ending.
        Returns the context, and the ending if the run is to end with it.
        """
        greeting = await self._calls.greet(run, accepted.thread, snapshot, deadline)
        if greeting is None:  # another process, whose app has a conversation start, accepted the run
            return await self._start(run, accepted.thread, ()), None
        try:
            snapshot = await self._start(run, accepted.thread, greeting.outcome.events)
        except IdentifierTaken as taken:
            greeting = greeting.refused(run, taken, self._disclosure)
            snapshot = await self._start(run, accepted.thread, ())
        except DomainError:  # the run was cancelled meanwhile, for example
            await self._store_usage(run, accepted.thread, greeting)
            raise
        return snapshot, None if greeting.error is None else greeting

    async def _finish(self, run: LiveRun, accepted: Accepted, ending: Ending) -> None:
        """Store the outcome, then answer the caller. If the store is not available, the caller gets that error."""
        if run.context is not None and run.context.title is not None:
            await self._store_title(run, accepted.thread, run.context.title)
        try:
            settled = await self._settle(run, ending.outcome)
        except IdentifierTaken as taken:
            ending = ending.refused(run, taken, self._disclosure)
            settled = await self._settle(run, ending.outcome)
        thread = accepted.thread
        if not settled.counted and run.background:
            await self._follow_if_restarted(run, thread, ending)
        self._record_end(run, settled)
        for row in settled.stored:  # saves nearly every run two calls
            if row.event_type == MODEL_USAGE:
                run.count_usage(settled.stored)
                break
        self._announcer.stored(thread.thread_id, settled.stored, thread.contact_id, run.run_id)
        if not settled.counted and settled.status is not None:
            await self._store_usage(run, thread, ending)
        if settled.status is not ending.outcome.status:
            run.answer_with(ended_by_others(settled, thread))
        else:
            run.answer_with(ending.error or ending.result(run, self._disclosure))

    async def _store_title(self, run: LiveRun, thread: ThreadRecord, title: str) -> None:
        try:
            change = ThreadChange(title=storable_text(str(title))[:MAX_TITLE] or None)
        except Exception as error:  # of the title's `str`; that must not cost the message its answer
            logger.warning("run %s: its title is not stored: %s", run.run_id, exception_text(error))
            return
        with suppress(ThreadNotFound):  # the thread was deleted
            await self._repeat_until_stored(run, partial(self.store.change_thread, thread.thread_id, None, change))

    async def _store_usage(self, run: LiveRun, thread: ThreadRecord, ending: Ending) -> None:
        """Store what the pipeline of a run used that another call or process ended."""
        usage = ending.usage()
        if not usage:
            return
        append = partial(self.store.append, thread.thread_id, None, usage, run.run_id)
        run.count_usage(usage)
        with suppress(IdentifierTaken, ThreadNotFound):  # or the thread was deleted
            stored = await self._repeat_until_stored(run, append)
            self._announcer.stored(thread.thread_id, stored, thread.contact_id, run.run_id)

    async def _settle(self, run: LiveRun, outcome: Outcome) -> Settled:
        if run.stream is not None:
            outcome = msgspec.structs.replace(outcome, streamed=run.stream.item_count - 1)
        try:
            return await self.store.finish(run.run_id, self._owner, outcome)
        except StoreUnavailable as error:
            finish = partial(self.store.finish, run.run_id, self._owner, outcome)
            return await self._store_later(run, error, finish)

    def _record_end(self, run: LiveRun, settled: Settled) -> None:
        run.end_as(settled.status or RunStatus.CANCELLED)
        self._runs.wake(settled.next_run)

    async def _repeat_until_stored(self, run: LiveRun, write: Callable[[], Awaitable[Result]]) -> Result:
        """Call `write` until the store has stored how the run ended.

        A run that stays open blocks its thread, even after a cause such as a full disk is gone.
        """
        try:
            return await write()
        except StoreUnavailable as error:
            return await self._store_later(run, error, write)

    async def _store_later(
        self, run: LiveRun, error: StoreUnavailable, write: Callable[[], Awaitable[Result]]
    ) -> Result:
        self._outage.refused(error)
        run.answer_with(error)
        logger.error("run %s: its outcome could not be stored; the server retries: %s", run.run_id, error)
        await asyncio.sleep(RETRY_STORE_AFTER[0])
        return await self._outage.outlast(write)

    def close(self, run: LiveRun) -> None:
        """Remove a run that has ended: release its limits, close its stream, and notify observers and its webhook."""
        if self.leaving and run.status in OPEN:
            self._runs.hand_over(run.run_id)  # a heartbeat may still run
        if not self._runs.remove(run):
            return
        if self._quota is not None and run.quota_keys is not None:
            self._quota.release(run.quota_keys)
        if run.is_awaited:  # its flow was cancelled while the service exited
            run.answer_with(RunInterrupted())
        now = run.loop.time()
        if run.stream is not None:
            self._streams.close(run.run_id, now)
        run.forget_conversation()
        self._announcer.ended(run, now - run.began)


def _answered_already(run: LiveRun) -> QuestionClosed:
    return QuestionClosed(", ".join(sorted(run.inbound.answers or {})), ANSWERED)
