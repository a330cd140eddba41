"""The service that answers messages, with its start and its shutdown. The API and protocol plugins call it."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, aclosing
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from jimsapi.runs.admission import PUBLIC, Admission
from jimsapi.runs.announcer import Announcer
from jimsapi.runs.calls import PipelineCalls
from jimsapi.runs.disclosure import Disclosure
from jimsapi.runs.durable_sinks import DurableSink, DurableSinks
from jimsapi.runs.errors import ContactForbidden, ServerDraining, TooManyRuns
from jimsapi.runs.files import MessageFiles
from jimsapi.runs.flow import RunFlow
from jimsapi.runs.housekeeping import Housekeeping
from jimsapi.runs.inbound import Inbound, check_contact_id, check_inbound, entering, storable_json, thread_metadata
from jimsapi.runs.keys import idempotency
from jimsapi.runs.limits import RunLimits
from jimsapi.runs.live import ABANDON_AFTER, LiveRun, RunRecord, Stop
from jimsapi.runs.observers import Observers
from jimsapi.runs.outage import OutageLog
from jimsapi.runs.peers import Peers
from jimsapi.runs.pipeline import JimsApp, Pipeline
from jimsapi.runs.quota import Allowance, Quota, QuotaKeys, QuotaLimits
from jimsapi.runs.refusals import Refusals
from jimsapi.runs.registry import Registry
from jimsapi.runs.replicas import Replicas
from jimsapi.runs.resolver import ThreadResolver
from jimsapi.runs.result import RunResult
from jimsapi.runs.shared_quota import SharedQuota
from jimsapi.runs.sinks import QUEUE_LIMIT, SinkQueue
from jimsapi.runs.spending import Spending
from jimsapi.runs.state import limits_state, runs_state
from jimsapi.runs.stream import Read, RunStream, Streams
from jimsapi.runs.subscriptions import Notifier, Subscriptions
from jimsapi.runs.work import Worker, Workers, WorkQueue
from jimsapi.threads.errors import DomainError, InputRefused, KeyMismatch, RunNotFound, StoreUnavailable
from jimsapi.threads.event import (
    MESSAGE_CLIENT_ID,
    THREAD_CREATED,
    EventRow,
    NewEvent,
    encode_events,
    id_beside,
    row_id,
    utc_now,
)
from jimsapi.threads.facts import ForkPlan, ThreadPlan
from jimsapi.threads.ids import uuid7
from jimsapi.threads.message_files import SentFile
from jimsapi.threads.prices import prices
from jimsapi.threads.run import OPEN, QUEUED, RUNNING, AdoptedRun, ById, Selector, Settled, ThreadRecord
from jimsapi.threads.storable import dump_storable
from jimsapi.threads.store import ThreadStore
from jimsapi.threads.trace_context import TraceContext
from jimsapi.threads.usage import UsageTotal

if TYPE_CHECKING:
    from jimsapi.runs.webhooks import Webhooks  # imports an HTTP client, which servers without webhooks do not need

logger = logging.getLogger("jimsapi.runs")

FLUSH_WITHIN = 1.0
"""Seconds that sinks and webhooks have at a shutdown to deliver their queues."""


class RunService:
    """Answers messages with one `JimsApp` and one store.

    - `resolvers` are called in order. The first that returns selectors decides.
    - `sinks` get the stored events. `durable_sinks` get them from the outbox of the store.
    - `on_run` get the record of each run that has ended.
    - `webhooks` calls the `webhook_url` of a run that has ended. If it is None, the service rejects such messages.
    - `subscriptions` calls the receivers that plugins have subscribed to runs. By default, its calls are not signed.
    - `disclosure` decides what callers read of a failure, and of events. By default, it hides the app's private events.
    - `peers` are other processes that answer messages with the same store, whose live streams this one reads.
      `replicas` are those that the links of plugins reach. The first link that carries notices shares the rate limits.
    - `resources` is what the `lifespan` of the app yielded. The service does not enter it.

    The service is an async context manager. Entering it ends the runs that dead processes left open and starts the
    heartbeat; it raises `StoreUnusable` if the store is not available for that. Call `drain` before you exit it.
    """

    def __init__(
        self,
        app: JimsApp,
        store: ThreadStore,
        resolvers: Sequence[ThreadResolver],
        *,
        limits: RunLimits | None = None,
        sinks: Sequence[SinkQueue] = (),
        durable_sinks: Sequence[DurableSink] = (),
        on_run: Observers[RunRecord] | Sequence[Callable[[RunRecord], None]] = (),
        webhooks: "Webhooks | None" = None,
        subscriptions: Subscriptions | None = None,
        disclosure: Disclosure | None = None,
        resources: Any = None,
        peers: Peers | None = None,
        replicas: Sequence[Replicas] = (),
    ) -> None:
        self._built_store = store
        """The store without the wrappers of plugins, which may not pass on `on_turn` and `max_restarts`."""
        self.limits = limits or RunLimits()
        self.disclosure = disclosure or Disclosure(private_events=app.private_events)
        self.outage = OutageLog()
        self.refusals = Refusals()
        self.draining = False
        self.drain_announced = False
        """Whether a drain will begin soon: the service answers everything, but readiness probes get 503."""
        self.owner = uuid7()
        self.peers = peers
        self.replicas = tuple(replicas)
        self._shared_quota = _shared_quota(self.limits.quota, self.replicas)
        quota = self._shared_quota or Quota(self.limits.quota)
        self.quota = quota if quota.policies else None
        budgets = self.limits.quota.budgets
        self._spending = Spending(budgets, quota.policies) if budgets else None
        self.streams = Streams(self.disclosure.is_private)
        self._runs = Registry()
        observers = on_run if isinstance(on_run, Observers) else Observers(on_run)
        subscriptions = subscriptions or Subscriptions()
        subscriptions.store = store
        self._announcer = Announcer(
            sinks,
            DurableSinks(durable_sinks, store, self.owner, self.disclosure.redact),
            observers,
            webhooks,
            subscriptions,
        )
        self._calls = PipelineCalls(
            app, store, self._runs, self.disclosure, self.limits.run_timeout, resources, self._announcer, self.outage
        )
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
            self._spending,
            self.disclosure,
            self.outage,
            self.refusals,
        )
        self._housekeeping = Housekeeping(
            store,
            self.owner,
            self._runs,
            self.streams,
            self.outage,
            self.limits.keep_runs,
            self.limits.expire_threads,
            self._take_over,
        )
        self._end_checks: set[asyncio.Task[None]] = set()
        self._worker: Worker | None = None

    async def __aenter__(self) -> "RunService":
        self._loop = asyncio.get_running_loop()
        if self._spending is not None:
            await self._load_prices()
        self._built_store.on_turn = self._on_store_notice
        self._built_store.max_restarts = self.app.restarts
        await self._housekeeping.start()
        await self._announcer.start()
        for others in self._elsewhere:
            await others.serve(self.watch)
        if self._shared_quota is not None:
            await self._shared_quota.start()
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
            await asyncio.wait(tasks, timeout=ABANDON_AFTER)
        await self._housekeeping.stop(ABANDON_AFTER)
        for run in self._runs:  # tasks that did not start, or do not end
            self._flow.close(run)
        if self._shared_quota is not None:
            await self._shared_quota.stop()
        for others in self._elsewhere:
            await others.close()
        await self._announcer.stop()

    async def _load_prices(self) -> None:
        """Load prices if there is a budget for costs."""
        if self.limits.quota.cost_budget is not None and not await asyncio.to_thread(prices.load):
            logger.info(
                "--cost-budget counts only calls whose cost the pipeline gives: pip install jimsapi[prices] has prices "
                "for the others"
            )

    @property
    def store(self) -> ThreadStore:
        """The store of threads and runs, with the wrappers of plugins around it."""
        return self._flow.store

    @store.setter
    def store(self, store: ThreadStore) -> None:
        self._flow.use(store)
        self._calls.store = self._housekeeping.store = self._announcer.durable_sinks.store = store
        self.subscriptions.store = store
        if self._worker is not None:
            self._worker.store = store

    def use_files(self, files: MessageFiles) -> None:
        """Let messages have files. A plugin with a file store calls it from `jimsapi_routes`."""
        self._flow.files = files
        self._calls.files = files

    def use_workers(self, queue: WorkQueue) -> None:
        """Leave background runs to workers, which receive them by `queue`. A plugin calls it from `jimsapi_routes`.

        In a worker, the runs of the queue are done here.
        """
        if self._flow.workers is not None:
            raise ValueError(f"two plugins have work queues: {self._flow.workers.queue.name} and {queue.name}")
        self._flow.workers = self._housekeeping.workers = Workers(queue)

    def worker(self) -> Worker | None:
        """Return what does the runs of the queue while it is entered; None if no plugin has called `use_workers`."""
        workers = self._flow.workers
        if workers is not None:
            take_over, at_once = self._take_over, self.limits.max_runs
            self._worker = Worker(workers.queue, self.store, self.owner, self._runs, self.outage, take_over, at_once)
        return self._worker

    @property
    def files(self) -> MessageFiles | None:
        """The files of the server, as a plugin has given them to `use_files`; None if it stores none."""
        return self._flow.files

    @property
    def app(self) -> JimsApp:
        """The app, with pipelines as `wrap_pipelines` has replaced them."""
        return self._calls.app

    @property
    def sinks(self) -> tuple[SinkQueue, ...]:
        """The best-effort event sinks."""
        return self._announcer.sinks

    @property
    def durable_sinks(self) -> DurableSinks:
        """The durable event sinks."""
        return self._announcer.durable_sinks

    @property
    def webhooks(self) -> "Webhooks | None":
        """The component that calls webhooks; None if webhooks are not configured."""
        return self._announcer.webhooks

    @property
    def subscriptions(self) -> Subscriptions:
        """The receivers that plugins have subscribed to runs."""
        return self._announcer.subscriptions

    def use_notifier(self, notifier: Notifier) -> None:
        """Let a plugin notify receivers of its own of what becomes of runs. It calls this from `jimsapi_routes`.

        `subscriptions.add` adds a receiver. Raises `ValueError` if another plugin has the same kind.
        """
        self.subscriptions.use(notifier)

    def wrap_pipelines(self, wrap: Callable[[Pipeline, str], Pipeline]) -> None:
        """Replace each pipeline by the one that `wrap(pipeline, name)` returns, for example to add a tracing span.

        Call it before the first request; plugins implement `jimsapi_pipeline_wrapper`. The last wrapper is the
        outermost. `name` is the pipeline's name in metrics, which does not change. A wrapper must raise what the
        pipeline raises.
        """
        self._calls.wrap(wrap)

    def allowances(self, run: LiveRun) -> Sequence[Allowance]:
        """Return what is left of each limit and budget of the run's caller; empty if there are none."""
        if self.quota is None or run.quota_keys is None:
            return ()
        allowances = self.quota.allowances(run.quota_keys, self._loop.time())
        if self._spending is None or not run.budgets_left:
            return allowances
        used = sum(run.usage.values(), UsageTotal())
        return [*allowances, *self._spending.after(run.budgets_left, used)]

    @property
    def open_runs(self) -> int:
        """The number of runs that this process works on, including those that wait."""
        return len(self._runs)

    @property
    def waiting_runs(self) -> int:
        """The number of runs of this process whose message is not in its thread yet."""
        return self._runs.waiting

    @property
    def oldest_run_seconds(self) -> float:
        """The age in seconds of the run that is open longest; 0 without runs. Any thread may read it."""
        return self._longest([run.began for run in self._runs])

    @property
    def oldest_running_seconds(self) -> float:
        """For how many seconds the run that started first has been running; 0 without one. Any thread may read it."""
        return self._longest([run.began + run.waited for run in self._runs if run.status is RUNNING])

    @property
    def oldest_waiting_seconds(self) -> float:
        """For how many seconds a run has waited for its turn at most; 0 if none waits. Any thread may read it."""
        return self._longest([run.began for run in self._runs if run.status is QUEUED])

    def _longest(self, since: Sequence[float]) -> float:
        return max(0.0, self._loop.time() - min(since)) if since else 0.0

    @property
    def abandoned_pipelines(self) -> int:
        """The number of pipelines that ignored their cancellation and still run, although their run has ended."""
        return len(self._calls.abandoned)

    def state(self) -> Iterator[str]:
        """Yield what the service works on, in lines for an operator. Any thread may read them."""
        runs = list(self._runs)
        yield from limits_state(self.limits, runs, self.quota, self.streams)
        for sink in self.sinks:
            yield f"event sink {sink.name}: {sink.waiting} of {QUEUE_LIMIT} events wait"
        for durable in self.durable_sinks.sinks:
            yield f"durable event sink {durable.name}: about {durable.waiting} events wait"
        if self.webhooks is not None:
            yield f"webhooks: {self.webhooks.waiting} wait"
        yield from runs_state(runs, self._calls.abandoned, self._loop.time())

    async def chat(self, inbound: Inbound, admission: Admission) -> RunResult:
        """Answer a message: begin a run and wait for its result. If the caller is cancelled, the run continues.

        Raises:
            ContactForbidden, InputRefused, ServerDraining, TooManyRuns, QuotaExceeded: nothing was stored.
            ThreadNotFound, QueueFull, ThreadBusy, QueueTimedOut: the message did not enter the thread.
            PipelineFailed, RunTimedOut: the message is in the thread, an answer is not.
            RunCancelled, RunInterrupted: if the run had started, the message is in the thread, an answer is not.
                Otherwise the message did not enter the thread.
            StoreUnavailable: the store is not available.
            RunBroken: the server or a plugin failed.
        """
        return await self.begin(inbound, admission).wait_for_answer()

    def begin(
        self,
        inbound: Inbound,
        admission: Admission,
        *,
        watched: bool = False,
        background: bool = False,
        key: str | None = None,
        selectors: Sequence[Selector] | None = None,
        files: Sequence[SentFile] = (),
        answers_in_text: bool = False,
        client_id: str | None = None,
        makes: ForkPlan | ThreadPlan | None = None,
        trace_context: TraceContext | None = None,
    ) -> LiveRun:
        """Begin a run and return it at once. To wait for the answer, await `LiveRun.wait_for_answer()`.

        A budget that is used up ends the run with `QuotaExceeded`: that needs the totals of the store.

        - `watched`: the run has a stream from its start.
        - `background`: no caller waits for the run. It waits for its turn without a time limit, and another process may
          take it over before it starts. It has a stream, too. If workers do background runs (`use_workers`), the
          returned run ends as soon as it is accepted, without an answer.
        - `key`: the idempotency key. If this process works on a run with the same key, it returns that run.
        - `selectors` select the thread. If it is None, the resolvers do.
        - `files` came within the message. They are stored before it is.
        - `answers_in_text`: if the thread has one open question, and the text of the message is an answer to it, then
          it is that answer. The thread has the message, too. For protocols without a place for answers.
        - `client_id`: the identifier of the message at the client, stored beside it. A plugin finds the
          message by it later.
        - `makes` is a thread that is made for the message, in place of the one that `selectors` find: a fork, or a
          thread that begins with other events. It is made when the message has passed all limits, and once for a
          request that is repeated with the same `key`. The answers of a message are to questions that this thread has.
        - `trace_context` is the trace that the run continues, if the message itself has one. The pipeline reads it as
          `ctx.trace_context`. It is not stored, so a process that takes over the run does not have it.

        Raises:
            ContactForbidden, InputRefused, ServerDraining, TooManyRuns, QuotaExceeded: nothing was stored.
            KeyMismatch: the run with this key is for another request.
        """
        thread_config = self._check(inbound, admission)
        if client_id is None:
            events = entering(inbound, has_files=True) if files else entering(inbound)
        else:
            known = (MESSAGE_CLIENT_ID, {"client_id": client_id, "key": key})
            events = entering(inbound, has_files=bool(files), more=[known])
        digests = None if key is None else idempotency(key, inbound, admission, selectors, files)
        if digests is not None and (existing := self._runs.with_key(digests.key)) is not None:
            if existing.idempotency != digests:
                raise KeyMismatch
            if (watched or background) and existing.stream is None and existing.thread is None:
                existing.attach(self.streams.open(existing.run_id))  # early enough for every item of the run
            return existing
        quota_keys = self._admit(inbound, admission)
        hands_over = background and not watched and self._flow.workers is not None
        run = LiveRun(
            inbound,
            admission,
            self._loop,
            events,
            quota_keys,
            background,
            selectors,
            digests,
            files,
            answers_in_text,
            makes,
            hands_over=hands_over,
            trace_context=trace_context,
        )
        if (watched or background) and not hands_over:
            run.attach(self.streams.open(run.run_id))
        if watched or background or digests is not None:
            run.expect_acceptance()
        self._launch(run, self._flow.answer(run, thread_config))
        return run

    def answer_once(
        self,
        inbound: Inbound,
        admission: Admission,
        *,
        watched: bool = False,
        files: Sequence[SentFile] = (),
        history: Sequence[NewEvent] = (),
        trace_context: TraceContext | None = None,
    ) -> LiveRun:
        """Begin to answer a message outside of every thread. The pipeline sees `history`, then this message.

        Nothing is stored. It has the same limits and metrics, and raises the same errors, as `begin`. `trace_context`
        is that of `begin`.
        """
        thread_config = self._check(inbound, admission)
        events = entering(inbound, has_files=True) if files else entering(inbound)
        quota_keys = self._admit(inbound, admission)
        run = LiveRun(
            inbound,
            admission,
            self._loop,
            events,
            quota_keys=quota_keys,
            in_thread=False,
            sent_files=files,
            trace_context=trace_context,
        )
        if watched:
            run.attach(self.streams.open(run.run_id, in_store=False))
            run.expect_acceptance()
        self._launch(run, self._flow.answer_once(run, thread_config, history))
        return run

    def _check(self, inbound: Inbound, admission: Admission) -> bytes:
        if admission is None:
            raise TypeError(
                "A run needs the admission of its caller, and a public route has none: declare the route with "
                'scope="chat" in place of public=True. An auth provider can check a secret in the body; see '
                '"Reading the body" in docs/write-an-auth-plugin.md.'
            )
        bound_to = admission.identity.contact_id
        if bound_to is not None and inbound.contact_id != bound_to:
            raise ContactForbidden
        thread_config = check_inbound(inbound)
        if inbound.webhook_url is not None:
            self._check_webhook(inbound.webhook_url)
        return thread_config

    def _check_webhook(self, url: str) -> None:
        if self.webhooks is None:
            message = "This server does not call webhooks: its operator has to set --webhook-secret"
            raise InputRefused("webhook_url", "webhooks_off", message, None)
        self.webhooks.check(url)

    def _admit(self, inbound: Inbound, admission: Admission) -> QuotaKeys | None:
        """Check all limits for a new run. Returns the keys under which the limits count it."""
        if self.draining:
            raise ServerDraining
        try:
            if len(self._runs) >= self.limits.max_runs:
                raise TooManyRuns(self.limits.max_runs)
            # The quota is checked last, so that a message that another check rejects does not count.
            return None if self.quota is None else self.quota.acquire(admission, inbound.contact_id, self._loop.time())
        except DomainError as error:
            self.refusals.count(error)
            raise

    def _launch(self, run: LiveRun, flow: Coroutine[Any, Any, None]) -> None:
        # The run is registered before the store accepts it: the heartbeat ends open runs that are not registered.
        self._runs.add(run)
        run.launch(flow)

    async def append(self, thread_id: UUID, events: Iterable[Any], admission: Admission) -> list[UUID]:
        """Append events to a thread outside of a run, and return their identifiers. Sinks get them.

        `events` are `Event`s, or objects with `event_type` and `event_data`. Runs of the thread do not wait for them,
        and a pipeline that works now does not see them. The route that calls it checks the scopes of `admission`.

        Raises:
            ThreadNotFound: the thread does not exist, or the caller may not act for its contact.
            UnstorableEvent: an event cannot be stored. Nothing is stored.
            IdentifierTaken: the thread has some of the events, but not all. Nothing is stored. If it has all, the call
                repeats an earlier one.
            StoreUnavailable: the store is not available.
        """
        encoded = encode_events(events)
        with self.outage.noted():
            stored = await self.store.append(thread_id, admission.identity.contact_id, encoded)
        self._announcer.stored(thread_id, stored, admission.identity.contact_id)
        return [event.event_id for event in encoded]

    async def create_thread(
        self,
        contact_id: str,
        admission: Admission,
        *,
        thread_id: UUID | None = None,
        thread_config: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        events: Iterable[Any] = (),
    ) -> ThreadRecord:
        """Create a thread without a run, the newest of its contact, and return it. Sinks get its events.

        It counts as a message of the caller's limits.

        `events` are those of `append`. If there is a thread `thread_id` already, the call repeats an earlier one. The
        route that calls it checks the scopes of `admission`.

        Raises:
            ContactForbidden, InputRefused, QuotaExceeded, ServerDraining, UnstorableEvent: nothing is stored.
            StoreUnavailable: the store is not available.
        """
        if admission.identity.contact_id not in (None, contact_id):
            raise ContactForbidden
        check_contact_id(contact_id)
        if self.draining:
            raise ServerDraining
        if self.quota is not None:  # it counts as a message, and as a run that ends at once
            self.quota.release(self.quota.acquire(admission, contact_id, self._loop.time()))
        plan = ThreadPlan(
            thread_id=uuid7() if thread_id is None else thread_id,
            contact_id=contact_id,
            events=(NewEvent(uuid7(), THREAD_CREATED, b"{}"), *encode_events(events)),
            thread_config=storable_json("thread_config", dict(thread_config or {})),
            metadata=thread_metadata(dict(metadata or {})),
        )
        with self.outage.noted():
            created = await self.store.create(plan)
        self._announcer.stored(created.thread.thread_id, created.stored, created.thread.contact_id)
        return created.thread

    def count_message(self, admission: Admission, contact_id: str) -> None:
        """Count a request that begins no run as a message of the caller's rate limits.

        Protocols call it for requests that make the server call somebody. Raises `QuotaExceeded`.
        """
        if self.quota is None:
            return
        try:
            self.quota.acquire(admission, contact_id, self._loop.time(), has_run=False)
        except DomainError as error:
            self.refusals.count(error)
            raise

    async def fork(
        self,
        thread_id: UUID,
        acting_for: str | None,
        event_id: UUID | None = None,
        *,
        before: bool = False,
        fork_id: UUID | None = None,
    ) -> ThreadRecord:
        """Make a thread that begins as another one does, as `ThreadStore.fork` describes.

        A fork before a message does not have the events beside the message either. If there is a thread `fork_id`
        already, the call repeats an earlier one.

        Raises `ThreadNotFound`, `EventNotFound` or `StoreUnavailable`.
        """
        with self.outage.noted():
            plan = await self.plan_fork(thread_id, acting_for, event_id, before=before)
            if fork_id is not None:
                plan = msgspec.structs.replace(plan, thread_id=fork_id)
            return await self.store.fork(plan)

    async def plan_fork(
        self,
        thread_id: UUID,
        acting_for: str | None,
        event_id: UUID | None = None,
        *,
        before: bool = False,
        keeps_external_id: bool = False,
    ) -> ForkPlan:
        """Return the plan of a fork, for `begin`. Raises `StoreUnavailable`."""
        if before and event_id is not None:
            beside = await self.store.events_by_id(thread_id, [id_beside(event_id, 1)])
            event_id = row_id(beside[0]) if beside else event_id
        return ForkPlan(
            thread_id=uuid7(),
            parent_id=thread_id,
            acting_for=acting_for,
            event_id=event_id,
            before=before,
            keeps_external_id=keeps_external_id,
        )

    def tell_sinks(self, thread_id: UUID, event_type: str, data: Mapping[str, Any]) -> None:
        """Give best-effort sinks an event of a thread that the thread does not have."""
        row = EventRow(uuid7(), utc_now(), event_type, dump_storable(data))
        self._announcer.stored(thread_id, [row])

    def watch(self, run_id: UUID) -> RunStream | None:
        """Return the stream of a run that this process works on, or worked on recently; None for other runs."""
        stream = self.streams.get(run_id)
        if stream is not None:
            return stream
        run = self._runs.get(run_id)
        if run is None or run.thread is None or run.hands_over:
            return None
        stream = self.streams.open(run_id)
        run.watch(stream)
        return stream

    def watch_thread(self, thread_id: UUID, on_change: Callable[[], None]) -> AbstractContextManager[None]:
        """Return a context in which `on_change` is called when this process has stored events of a thread.

        It is also called when a run of the thread has ended here. It must neither wait nor raise: it wakes a task that
        reads the store. What other processes store calls nothing, so that task should also read from time to time.
        """
        return self._announcer.watch(thread_id, on_change)

    @property
    def _elsewhere(self) -> "Sequence[Peers | Replicas]":
        return self.replicas if self.peers is None else (self.peers, *self.replicas)

    def is_read_elsewhere(self, run_id: UUID) -> bool:
        """Return whether another process reads the live items of a run of this one, or did a short time ago."""
        return any(others.is_read(run_id) for others in self._elsewhere)

    async def watch_elsewhere(self, run_id: UUID, after: int) -> AsyncGenerator[Read, None]:
        """Iterate over the live items of a run after a position, if a process that this one can ask works on it."""
        for others in self._elsewhere:
            was_live = False
            async with aclosing(others.watch(run_id, after)) as items:
                async for found in items:
                    was_live = True
                    yield found
            if was_live:
                return

    async def cancel(self, run_id: UUID) -> Settled:
        """Cancel a run, whichever process works on it. After that, none of its events are stored, except its usage.

        The returned `Settled` says whether this call ended the run. Raises `StoreUnavailable`.
        """
        with self.outage.noted():
            settled = await self.store.cancel(run_id)
        if settled.counted:
            self.stop_runs([run_id], Stop.CANCELLED)
            self._runs.wake(settled.next_run)
        return settled

    def _on_store_notice(self, run_id: UUID) -> None:
        """Handle the store's notice that another process has ended or taken over a run, or that it may start."""
        run = self._runs.get(run_id)
        if run is None:
            return
        if run.status is QUEUED:
            run.turn.set()
        else:  # the notice may be a late one of its turn, so this reads what became of the run
            task = self._loop.create_task(self._stop_if_lost(run))
            self._end_checks.add(task)
            task.add_done_callback(self._end_checks.discard)

    async def _stop_if_lost(self, run: LiveRun) -> None:
        try:
            stored = await self.store.run(run.run_id, None, None)
            if stored.status not in OPEN or stored.restarts != run.restarts:
                run.stop(Stop.CANCELLED)
        except RunNotFound:
            run.stop(Stop.DELETED)
        except StoreUnavailable:
            pass  # if the run was ended or taken over, its `finish` does not count

    def stop_runs(self, run_ids: Iterable[UUID], reason: Stop) -> None:
        """Stop those of `run_ids` that this process works on."""
        self._runs.stop(run_ids, reason)

    def interrupt(self) -> None:
        """Stop every live run now. `Stop.DRAINED` says what becomes of it."""
        self._runs.stop([run.run_id for run in self._runs], Stop.DRAINED)

    async def drain(self, seconds: float) -> None:
        """Reject new messages, wait up to `seconds` for live runs, stop the others, and flush sinks and webhooks.

        `Stop.DRAINED` says what becomes of those that are stopped.
        """
        self.draining = True
        for others in self._elsewhere:
            others.stop_watching()  # readers of other processes' runs get the error of a shutdown, and connect anew
        self._housekeeping.stop_adopting()
        if self._worker is not None:
            self._worker.stop_receiving()
        if not await self._runs.emptied(seconds):
            logger.warning("%d runs did not end within %g s and are stopped: %s", len(self._runs), seconds, self._runs)
            self.interrupt()
            if not await self._runs.emptied(ABANDON_AFTER + FLUSH_WITHIN):
                text = "the outcomes of %d runs are not stored; the next start or another server marks them interrupted"
                logger.error(text, len(self._runs))
        await self._announcer.flush(FLUSH_WITHIN)

    async def adopt(self) -> None:
        """Adopt the background runs of dead processes that wait or may start again, now and after each heartbeat.

        Call it when everything that observes runs has started. If there are workers, these runs are left to them. Then
        it raises `StoreUnusable` if the store cannot do that.
        """
        await self._housekeeping.adopt()

    def _take_over(self, adopted: AdoptedRun) -> None:
        run = _live_run(adopted, self._loop, self.streams)
        self._launch(run, self._flow.answer(run, b"{}"))


def _shared_quota(limits: QuotaLimits, replicas: Sequence[Replicas]) -> SharedQuota | None:
    """Return a quota that counts what other replicas admit; None if no link or no limit needs it."""
    links = [link for one in replicas if (link := one.notice_link) is not None]
    if not links or (limits.rate is None and limits.identity_rate is None):
        return None
    return SharedQuota(limits, links[0])  # by two links, the same notice would count twice


def _live_run(adopted: AdoptedRun, loop: asyncio.AbstractEventLoop, streams: Streams) -> LiveRun:
    """Make a live run of an adopted one. The store has the other parts of its plan."""
    inbound = Inbound(contact_id=adopted.contact_id or "", message="", webhook_url=adopted.webhook_url)
    run = LiveRun(
        inbound,
        PUBLIC,
        loop,
        (*adopted.beside, adopted.message),
        run_id=adopted.run_id,
        background=True,
        adopted=adopted,
        selectors=(ById(adopted.thread_id),),
    )
    run.attach(streams.open(run.run_id))
    run.turn.set()  # its turn may have come while no process worked on it
    return run
