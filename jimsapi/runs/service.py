"""The service that answers messages: what the API asks of it, and its begin and end."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from jimsapi.runs.announcer import Announcer
from jimsapi.runs.calls import PipelineCalls
from jimsapi.runs.disclosure import Disclosure
from jimsapi.runs.errors import ContactForbidden, ServerDraining, TooManyRuns
from jimsapi.runs.flow import RunFlow
from jimsapi.runs.housekeeping import Housekeeping
from jimsapi.runs.identity import PUBLIC, Admission
from jimsapi.runs.inbound import Inbound, check_inbound
from jimsapi.runs.keys import idempotency
from jimsapi.runs.limits import RunLimits
from jimsapi.runs.live import LET_GO_AFTER, LiveRun, RunRecord, Stop
from jimsapi.runs.outage import OutageLog
from jimsapi.runs.pipeline import JimsApp, Pipeline
from jimsapi.runs.quota import Account, Allowance, Quota
from jimsapi.runs.registry import Registry
from jimsapi.runs.resolver import ThreadResolver
from jimsapi.runs.result import RunResult
from jimsapi.runs.sinks import SinkQueue
from jimsapi.runs.stream import RunStream, Streams
from jimsapi.threads.errors import InputRefused, KeyMismatch, RunNotFound, StoreUnavailable
from jimsapi.threads.ids import uuid7
from jimsapi.threads.run import OPEN, AdoptedRun, ById, RunStatus, Selector, Settled
from jimsapi.threads.store import ThreadStore

if TYPE_CHECKING:
    from jimsapi.runs.webhooks import Webhooks  # only where they are configured: it brings in an HTTP client

logger = logging.getLogger("jimsapi.runs")

FLUSH_WITHIN = 1.0
"""Seconds that sinks and webhooks have at a shutdown for what waits."""


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
        self.limits = limits or RunLimits()
        self.disclosure = disclosure or Disclosure()
        self.outage = OutageLog()
        self.draining = False
        self.owner = uuid7()
        quota = Quota(self.limits.quota)
        self.quota = quota if quota.policies else None
        self.streams = Streams()
        self._runs = Registry()
        self._announcer = Announcer(sinks, on_run, webhooks)
        self._calls = PipelineCalls(app, store, self._runs, self.disclosure, self.limits.run_timeout)
        self._flow = RunFlow(
            store,
            self.owner,
            resolvers,
            self.limits,
            self._calls,
            self._runs,
            self.streams,
            self._announcer,
            self.quota,
            self.disclosure,
            self.outage,
        )
        self._housekeeping = Housekeeping(
            store, self.owner, self._runs, self.streams, self.outage, self.limits.keep_runs, self._take_over
        )
        self._looks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "RunService":
        self._loop = asyncio.get_running_loop()
        self.store.on_turn = self._hear
        await self._housekeeping.start()
        self._announcer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._flow.leaving = True
        tasks = {run.task for run in self._runs if run.task is not None}
        for run in self._runs:
            if run.context is not None:
                run.context.close()
        for task in tasks:
            task.end()
        self._calls.end()
        if tasks:
            await asyncio.wait(tasks, timeout=LET_GO_AFTER)
        await self._housekeeping.stop(LET_GO_AFTER)
        for run in self._runs:  # their tasks had not begun, or do not end
            self._flow.close(run)
        await self._announcer.stop()

    @property
    def store(self) -> ThreadStore:
        """Where threads and runs are kept. A plugin may put a store of its own around it in `jimsapi_routes`."""
        return self._flow.store

    @store.setter
    def store(self, store: ThreadStore) -> None:
        self._flow.store = self._calls.store = self._housekeeping.store = store

    @property
    def app(self) -> JimsApp:
        """What is served, with all that was put around its pipelines."""
        return self._calls.app

    @property
    def sinks(self) -> tuple[SinkQueue, ...]:
        """The queues of those who are told of each stored event."""
        return self._announcer.sinks

    @property
    def webhooks(self) -> "Webhooks | None":
        """What calls the webhooks of runs, if the server does."""
        return self._announcer.webhooks

    def wrap_pipelines(self, wrap: Callable[[Pipeline, str], Pipeline]) -> None:
        """Put something around each pipeline, such as a span: `wrap(pipeline, name)` returns what is called instead.

        For `jimsapi_routes`, before the first request; the wrapper of the last plugin is the outermost. `name` is the
        pipeline's in metrics, which stays, and what the pipeline raises must be raised on.
        """
        self._calls.wrap(wrap)

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
        return self._runs.waiting

    @property
    def abandoned_pipelines(self) -> int:
        """Pipelines that swallowed their cancellation and run on without a run."""
        return self._calls.abandoned

    async def chat(self, inbound: Inbound, admission: Admission) -> RunResult:
        """Answer a message. The run goes on if the caller is cancelled while it waits.

        Raises:
            ContactForbidden, InputRefused, ServerDraining, TooManyRuns, QuotaExceeded: nothing was stored.
            ThreadNotFound, QueueFull, ThreadBusy, QueueTimedOut: the message did not enter the thread.
            PipelineFailed, RunTimedOut: the message is in the thread, an answer is not.
            RunCancelled, RunInterrupted: the same, if the run had started; else the message did not enter the thread.
            StoreUnavailable: the store does not answer now.
        """
        return await asyncio.shield(self.begin(inbound, admission).answer)  # others may watch the run meanwhile

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
        if identified is not None and (same := self._runs.with_key(identified.key)) is not None:
            if same.idempotency != identified:
                raise KeyMismatch
            if (watched or background) and same.stream is None and same.thread is None:
                same.tell(self.streams.open(same.run_id))  # in time for all that it is going to say
            return same
        account = self._admit(inbound, admission)
        run = LiveRun(
            inbound,
            admission,
            self._loop,
            account=account,
            background=background,
            selectors=selectors,
            idempotency=identified,
        )
        if watched or background:
            run.tell(self.streams.open(run.run_id))
        if watched or background or identified is not None:
            run.expect_thread()
        self._launch(run, self._flow.answer(run, thread_config))
        return run

    def answer_once(self, inbound: Inbound, admission: Admission, *, watched: bool = False) -> LiveRun:
        """Begin to answer a message outside of every thread: the pipeline sees it alone, and nothing is stored.

        The same limits hold, the same is counted, and the same is raised as by `begin`.
        """
        thread_config = self._check(inbound, admission)
        run = LiveRun(inbound, admission, self._loop, account=self._admit(inbound, admission))
        if watched:
            run.tell(self.streams.open(run.run_id, in_store=False))
            run.expect_thread()
        self._launch(run, self._flow.answer_once(run, thread_config))
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

    def _admit(self, inbound: Inbound, admission: Admission) -> Account | None:
        """Look whether a run is within all limits. Returns the account from which the caller's limits took it."""
        if self.draining:
            raise ServerDraining
        if len(self._runs) >= self.limits.max_runs:
            raise TooManyRuns(self.limits.max_runs)
        # The last to be asked, so that whom somebody else refuses has taken nothing of it.
        return None if self.quota is None else self.quota.take(admission, inbound.contact_id, self._loop.time())

    def _launch(self, run: LiveRun, flow: Coroutine[Any, Any, None]) -> None:
        # Registered before the store hears of it: the heartbeat takes an open run that is not here for an orphan.
        self._runs.add(run)
        run.launch(flow)

    def watch(self, run_id: UUID) -> RunStream | None:
        """The stream of a run that this process works on, or has worked on a while ago; None for all others."""
        stream = self.streams.get(run_id)
        if stream is None and (run := self._runs.get(run_id)) is not None and run.thread is not None:
            stream = self.streams.open(run_id)
            run.watch(stream)
        return stream

    async def cancel(self, run_id: UUID) -> Settled:
        """Cancel a run, whichever process works on it. The store's word counts: nothing is stored after it."""
        with self.outage.noted():
            settled = await self.store.cancel(run_id)
        if settled.counted:
            self.stop_runs([run_id], Stop.CANCELLED)
            self._runs.wake(settled.next_run)
        return settled

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

    def stop_runs(self, run_ids: Iterable[UUID], reason: Stop) -> None:
        """Tell those of `run_ids` that this process works on to end early."""
        self._runs.stop(run_ids, reason)

    def interrupt(self) -> None:
        """Stop every open run now; those that have started are stored as `interrupted`."""
        self._runs.stop([run.run_id for run in self._runs], Stop.DRAINED)

    async def drain(self, seconds: float) -> None:
        """Take no new run, let the open ones end for `seconds`, stop the rest, and flush sinks and webhooks.

        What becomes of a run that is stopped: one that has started is `interrupted`. A background run that waits for
        its turn stays `queued`, and the next process continues it. Another one that waits is `cancelled`.
        """
        self.draining = True
        self._housekeeping.stop_adopting()
        if not await self._runs.emptied(seconds):
            logger.warning("%d runs did not end within %g s and are stopped", len(self._runs), seconds)
            self.interrupt()
            if not await self._runs.emptied(LET_GO_AFTER + FLUSH_WITHIN):
                logger.error("%d runs could not be stored; the next start marks them", len(self._runs))
        await self._announcer.flush(FLUSH_WITHIN)

    async def adopt(self) -> None:
        """Take over background runs that dead processes accepted and did not start.

        To be called once all that watches runs stands in its place; from then on every heartbeat does.
        """
        await self._housekeeping.adopt()

    def _take_over(self, adopted: AdoptedRun) -> None:
        run = _adopted(adopted, self._loop, self.streams)
        self._launch(run, self._flow.answer(run, b"{}"))


def _adopted(adopted: AdoptedRun, loop: asyncio.AbstractEventLoop, streams: Streams) -> LiveRun:
    """A run of a dead process, to be gone on with here. The store has all that its plan would say anew."""
    inbound = Inbound(contact_id=adopted.contact_id or "", message="", webhook_url=adopted.webhook_url)
    run = LiveRun(
        inbound,
        PUBLIC,
        loop,
        run_id=adopted.run_id,
        background=True,
        message=adopted.message,
        selectors=(ById(adopted.thread_id),),
    )
    run.tell(streams.open(run.run_id))
    run.turn.set()  # its turn may have come while nobody was there to be told
    return run
