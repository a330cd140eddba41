"""Calls of pipelines. Each call has its own task. It is cancelled at its deadline, and abandoned if it ignores that."""

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast
from uuid import UUID

from jimsapi.runs.announcer import Announcer
from jimsapi.runs.disclosure import Disclosure
from jimsapi.runs.ending import Ending, only_asks
from jimsapi.runs.files import FilesOfRun, MessageFiles
from jimsapi.runs.live import LiveRun, PipelineTiming, Stop
from jimsapi.runs.outage import OutageLog
from jimsapi.runs.pipeline import JimsApp, Pipeline, pipeline_name
from jimsapi.runs.registry import Registry
from jimsapi.runs.stream import StreamOutput
from jimsapi.runs.tasks import PipelineTask, current_pipeline
from jimsapi.threads.context import ContextOfRun, ThreadContext
from jimsapi.threads.event import EventRow, NewEvent
from jimsapi.threads.message_files import FileKeeper
from jimsapi.threads.run import RUNNING, Snapshot, ThreadRecord
from jimsapi.threads.storable import load_stored
from jimsapi.threads.store import ThreadStore

logger = logging.getLogger("jimsapi.runs")

FAILED_WHILE_STOPPED = "run %s: the pipeline failed while it was stopped"


class PipelineCalls:
    """Calls the pipelines of an app for runs. `run_timeout` is in seconds, for the error of runs that time out.

    `resources` is what the app's `lifespan` yielded, for the contexts of pipelines.
    """

    def __init__(
        self,
        app: JimsApp,
        store: ThreadStore,
        runs: Registry,
        disclosure: Disclosure,
        run_timeout: float,
        resources: Any,
        announcer: Announcer,
        outage: OutageLog,
    ) -> None:
        self.app = app
        self.store = store
        self.files: MessageFiles | None = None
        self._announcer = announcer
        self._outage = outage
        self._resources = resources
        self._runs = runs
        self._disclosure = disclosure
        self._run_timeout = run_timeout
        start = app.conversation_start_pipeline
        # The names in metrics. They do not change if `wrap` replaces the pipelines.
        self._name = app.name or pipeline_name(app.pipeline)
        self._start_name = "" if start is None else pipeline_name(start)
        self._abandoned: set[PipelineTask] = set()
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = math.inf

    @property
    def abandoned(self) -> tuple[PipelineTask, ...]:
        """The pipelines that ignored their cancellation and still run, although their run has ended."""
        return tuple(self._abandoned)

    def wrap(self, wrap: Callable[[Pipeline, str], Pipeline]) -> None:
        """Replace each pipeline by the one that `wrap(pipeline, name)` returns."""
        start = self.app.conversation_start_pipeline
        self.app = replace(
            self.app,
            pipeline=wrap(self.app.pipeline, self._name),
            conversation_start_pipeline=None if start is None else wrap(start, self._start_name),
        )

    def end(self) -> None:
        """Cancel the abandoned pipelines again, and stop the timer of deadlines. Called when the service exits."""
        for task in self._abandoned:
            task.end()
        self._set_alarm(math.inf)

    def answer(
        self, run: LiveRun, thread: ThreadRecord, snapshot: Snapshot, deadline: float
    ) -> Coroutine[Any, Any, Ending]:
        """Call the pipeline that answers messages. It is stopped at `deadline` (the loop's time)."""
        return self._call(run, self.app.pipeline, self._name, thread, snapshot, deadline)

    async def greet(self, run: LiveRun, thread: ThreadRecord, snapshot: Snapshot, deadline: float) -> Ending | None:
        """Call the conversation start pipeline. Returns None if the app has none."""
        pipeline = self.app.conversation_start_pipeline
        if pipeline is None:
            return None
        return await self._call(run, pipeline, self._start_name, thread, snapshot, deadline)

    async def _call(
        self, run: LiveRun, pipeline: Pipeline, name: str, thread: ThreadRecord, snapshot: Snapshot, deadline: float
    ) -> Ending:
        """Call a pipeline, and wait until it ends or is abandoned."""
        if run.stop_reason is not None:
            return Ending.stopped(run, self._run_timeout)
        loop = run.loop
        began = loop.time()
        context = self._context(run, thread, snapshot)
        if run.stream is not None and run.status is RUNNING:  # a conversation start is not streamed
            context.watch(StreamOutput(run.stream))
        task = PipelineTask.begin(
            invoke(pipeline, context, loop), loop=loop, pipeline=name, run_id=run.run_id, thread_id=thread.thread_id
        )
        run.begin_pipeline(task, context, deadline)
        if deadline < self._alarm_at:
            self._set_alarm(deadline)
        await task.ended
        ending = self._ending(run, task, context)
        context.close()
        run.end_pipeline(PipelineTiming(name, loop.time() - began, ending.error is None))
        return ending

    def _context(self, run: LiveRun, thread: ThreadRecord, snapshot: Snapshot) -> ThreadContext:
        files: FileKeeper | None = run.files_in_memory
        if run.in_thread:
            files = None if self.files is None else FilesOfRun(self.files, self.store, thread.thread_id)
        of_run = ContextOfRun(
            thread_config=load_stored(thread.thread_config),
            truncated=snapshot.truncated,
            load_events=self.store.load_events,
            resources=self._resources,
            run_id=run.run_id,
            contact_id=thread.contact_id,
            identity=run.identity,
            error_text=self._disclosure.tool_error,
            beside=run.entering[:-1],
            turn_store=partial(self._open_turn, run) if run.in_thread else None,
            file_reader=None if files is None else files.store,
            file_keeper=files,
        )
        context = ThreadContext(thread.thread_id, snapshot.rows, of_run)
        if run.trace_context is not None:
            context.trace_context = run.trace_context
        return context

    def _open_turn(self, run: LiveRun, thread_id: UUID) -> "_OpenTurn":
        return _OpenTurn(self.store, self._announcer, self._outage, run, thread_id)

    def _ending(self, run: LiveRun, task: PipelineTask, context: ThreadContext) -> Ending:
        if not task.done():
            logger.error("run %s: its pipeline ignored the cancellation; the run ends without it", run.run_id)
            self._abandoned.add(task)
            task.add_done_callback(self._forget)
        if run.stop_reason is not None:
            _note_fault(run, task)
            return Ending.stopped(run, self._run_timeout, context)
        return Ending.of(run, task, context, self._disclosure)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._abandoned.discard(cast(PipelineTask, task))
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.info("an abandoned pipeline ended with %s", type(error).__name__)

    def _set_alarm(self, at: float) -> None:
        """Set the timer that stops overdue runs to `at` (the loop's time). All runs share it, which saves its cost."""
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = at
        self._alarm = None if at == math.inf else asyncio.get_running_loop().call_at(at, self._stop_overdue)

    def _stop_overdue(self) -> None:
        # A loop may fire a timer slightly early.
        now = max(asyncio.get_running_loop().time(), self._alarm_at)
        next_deadline = math.inf
        for run in self._runs:
            if run.deadline <= now:
                run.stop(Stop.TIMED_OUT)
            elif run.deadline < next_deadline:
                next_deadline = run.deadline
        self._set_alarm(next_deadline)


def _note_fault(run: LiveRun, task: PipelineTask) -> None:
    """Log the exception with which the pipeline of a stopped run ended, unless it is the end of a run that asks.

    Otherwise asyncio would log it later, as one that was never retrieved.
    """
    fault = task.exception() if task.done() and not task.cancelled() else None
    if fault is not None and not only_asks(fault):
        identifiers = {"run_id": str(run.run_id), "thread_id": str(run.thread_id)}  # for error reporting
        logger.warning(FAILED_WHILE_STOPPED, run.run_id, exc_info=fault, extra=identifiers)


class _OpenTurn:
    """The `TurnStore` of a run.

    It outlasts an outage of the store, as long as the run may take. Otherwise the turn would lose the result of
    something that has happened, and do it again.
    """

    __slots__ = ("_announcer", "_outage", "_run", "_store", "_thread_id")

    def __init__(
        self, store: ThreadStore, announcer: Announcer, outage: OutageLog, run: LiveRun, thread_id: UUID
    ) -> None:
        self._store = store
        self._announcer = announcer
        self._outage = outage
        self._run = run
        self._thread_id = thread_id

    async def find(self, event_ids: Sequence[UUID]) -> list[EventRow]:
        """Return those of these events that the thread has."""
        return await self._outage.outlast(partial(self._store.events_by_id, self._thread_id, event_ids))

    async def append(self, events: Sequence[NewEvent]) -> list[EventRow]:
        """Add events to the thread."""
        append = partial(self._store.append, self._thread_id, None, events, self._run.run_id)
        stored = await self._outage.outlast(append)
        contact_id = None if self._run.thread is None else self._run.thread.contact_id
        self._announcer.stored(self._thread_id, stored, contact_id, self._run.run_id)
        return stored


async def invoke(pipeline: Pipeline, context: ThreadContext, loop: asyncio.AbstractEventLoop) -> Any:
    """Call a pipeline, in its own `PipelineTask`, and return what it returns.

    Raises what the pipeline raises, and `RuntimeError` in place of `SystemExit` and `KeyboardInterrupt`.
    """
    task: Any = asyncio.current_task(loop)  # a `PipelineTask`
    task.begun = True
    token = current_pipeline.set(task)
    try:
        return await pipeline(context)
    except (SystemExit, KeyboardInterrupt) as error:
        # asyncio raises these two again in the event loop, which would end the server.
        raise RuntimeError(f"the pipeline raised {type(error).__name__}") from error
    finally:
        task.wake()
        try:  # noqa: SIM105 # it costs a run nothing, unlike `suppress`
            current_pipeline.reset(token)  # otherwise the task and its context form a reference cycle
        except ValueError:  # the garbage collector closes a pipeline that never ended, in another context
            pass
