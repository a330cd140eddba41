"""A run while this process works on it, and what observers are told when it ends."""

import asyncio
import enum
import math
from collections.abc import Awaitable, Coroutine, Sequence
from typing import Any
from uuid import UUID

import msgspec

from jimsapi.runs.identity import Admission
from jimsapi.runs.inbound import Inbound
from jimsapi.runs.quota import Account
from jimsapi.runs.result import RunResult
from jimsapi.runs.stream import Gap, RunStarted, RunStream, StreamVoice
from jimsapi.runs.tasks import PipelineTask, ServiceTask
from jimsapi.threads.context import ThreadContext
from jimsapi.threads.event import NewEvent
from jimsapi.threads.ids import uuid7
from jimsapi.threads.run import Idempotency, RunStatus, Selector, ThreadRecord

LET_GO_AFTER = 0.5
"""Seconds that a pipeline has to end after it was cancelled; then the run goes on without it."""


class PipelineTiming(msgspec.Struct, frozen=True):
    """One pipeline's work within a run: its name, how long it took in seconds, whether it succeeded."""

    pipeline: str
    duration: float
    succeeded: bool


class RunRecord(msgspec.Struct, frozen=True):
    """A run that ended, as observers see it. Times are in seconds; `thread_id` is None if no thread took it."""

    run_id: UUID
    thread_id: UUID | None
    status: RunStatus
    waited: float
    duration: float
    pipelines: tuple[PipelineTiming, ...]
    provider: str | None


class Stop(enum.Enum):
    """Why a run is told to end early.

    `DRAINED`: the process ends, or something cut off the flow of the run. `DELETED`: its thread is gone.
    """

    TIMED_OUT = enum.auto()
    CANCELLED = enum.auto()
    DELETED = enum.auto()
    DRAINED = enum.auto()


class LiveRun:
    """A run that this process works on: its caller's answer, its place in the queue, its pipeline.

    Its methods fill its fields; others only read them.

    - `answer` is there to be looked at. Whoever waits for the answer awaits `heard()`.
    - `stream` is there if somebody watches the run. It ends with the answer.
    - `taken` is there if somebody waits for a thread to take the message. It is done, and gone, once a thread has taken
      the message or never will. Each waits under `asyncio.shield`: one that is cancelled would cancel it for all.
    - `known_as` is the run that answers: another one, if the caller sent the message before with the same key.
    - `pipeline` is the task of the pipeline that was started last. It has to end by `deadline` (the loop's time).
    """

    __slots__ = (
        "_turn",
        "account",
        "admission",
        "answer",
        "background",
        "began",
        "context",
        "created_new_thread",
        "deadline",
        "idempotency",
        "inbound",
        "known_as",
        "message",
        "pipeline",
        "run_id",
        "selectors",
        "status",
        "stop_reason",
        "stream",
        "taken",
        "task",
        "thread",
        "timings",
        "waited",
        "woken",
    )

    def __init__(
        self,
        inbound: Inbound,
        admission: Admission,
        loop: asyncio.AbstractEventLoop,
        *,
        run_id: UUID | None = None,
        account: Account | None = None,
        background: bool = False,
        message: NewEvent | None = None,
        selectors: Sequence[Selector] | None = None,
        idempotency: Idempotency | None = None,
    ) -> None:
        self.run_id = self.known_as = run_id or uuid7()
        self.inbound = inbound
        self.admission = admission
        self.account = account
        self.background = background
        self.message = message
        self.selectors = selectors
        self.idempotency = idempotency
        self.stream: RunStream | None = None
        self.taken: asyncio.Future[None] | None = None
        self.answer: asyncio.Future[RunResult] = loop.create_future()
        self.began = loop.time()
        self.waited = 0.0
        self.thread: ThreadRecord | None = None
        self.created_new_thread = False
        self.status = RunStatus.QUEUED
        self.context: ThreadContext | None = None
        self.pipeline: PipelineTask | None = None
        self.woken: asyncio.Future[None] | None = None
        self.stop_reason: Stop | None = None
        self.task: ServiceTask[None] | None = None
        self.timings: tuple[PipelineTiming, ...] = ()
        self.deadline = math.inf
        self._turn: asyncio.Event | None = None

    @property
    def turn(self) -> asyncio.Event:
        """Set when the run may ask to start, or has to end. Made when first asked for: most runs never wait."""
        if self._turn is None:
            self._turn = asyncio.Event()
        return self._turn

    @property
    def thread_id(self) -> UUID | None:
        """The thread that took the run, once the store has said so."""
        return None if self.thread is None else self.thread.thread_id

    def launch(self, flow: Coroutine[Any, Any, None]) -> None:
        """Begin the task in which the run is answered."""
        self.task = ServiceTask.begin(flow, loop=self.answer.get_loop())

    def tell(self, stream: RunStream) -> None:
        """Tell this stream all that the run says. No thread has taken the message yet."""
        self.stream = stream

    def expect_thread(self) -> None:
        """Let others wait on `taken` until a thread has taken the message."""
        self.taken = self.answer.get_loop().create_future()

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for the answer, watches the run, or waits for a thread to take it."""
        is_watched = self.stream is not None and not self.stream.is_over
        return not self.answer.done() or is_watched or self.taken is not None

    def enter(self, thread: ThreadRecord, created_new_thread: bool) -> None:
        """A thread has taken the message: tell whoever watches, or waits for that."""
        self.thread = thread
        self.created_new_thread = created_new_thread
        if self.stream is not None:
            self.stream.put(RunStarted(self.run_id, thread.thread_id, created_new_thread))
        self.let_in()

    def watch(self, stream: RunStream) -> None:
        """Tell this stream what the run says from now on. A thread has taken the message already."""
        assert self.thread is not None
        self.stream = stream
        stream.put(RunStarted(self.run_id, self.thread.thread_id, self.created_new_thread))
        if self.status is RunStatus.RUNNING and self.pipeline is not None and not self.pipeline.done():
            stream.put(Gap(None))  # what it said so far was heard by nobody
            if self.context is not None:
                self.context.watch(StreamVoice(stream))

    def follow(self, run_id: UUID) -> None:
        """Another run answers: the same message came before, with the same key."""
        self.known_as = run_id
        self.let_in()

    def end_wait(self) -> None:
        """The run has its turn, or leaves the queue: note how long it waited."""
        self.waited = self.answer.get_loop().time() - self.began

    def begin_running(self) -> None:
        """The message is in the thread."""
        self.status = RunStatus.RUNNING

    def begin_pipeline(self, task: PipelineTask, context: ThreadContext, deadline: float) -> asyncio.Future[None]:
        """A pipeline works on the run from now on, until `deadline` by the loop's time.

        Returns what is done once the pipeline has ended, or is let go.
        """
        self.context = context
        self.pipeline = task
        self.deadline = deadline
        self.woken = woken = self.answer.get_loop().create_future()
        task.add_done_callback(self.wake)
        return woken

    def end_pipeline(self, timing: PipelineTiming) -> None:
        """The pipeline has ended, or is let go: nobody stops it for its time any more, and observers are told of it."""
        self.deadline = math.inf
        self.timings += (timing,)

    def end_as(self, status: RunStatus) -> None:
        """The run has ended."""
        self.status = status

    def forget_conversation(self) -> None:
        """Let go of the context: whoever reads the answer slowly holds the run."""
        self.context = None

    def heard(self) -> Awaitable[RunResult]:
        """What to await for the answer. One of several who share a run by its key cannot cancel it for the others."""
        return self.answer if self.idempotency is None else asyncio.shield(self.answer)  # a shield costs a chat 4 %

    def record(self, duration: float) -> RunRecord:
        """What observers are told of the run, which has ended after `duration` seconds."""
        provider = self.admission.provider
        return RunRecord(self.run_id, self.thread_id, self.status, self.waited, duration, self.timings, provider)

    def answer_with(self, answer: RunResult | BaseException) -> None:
        """Answer the caller, and whoever watches, if they still wait. The first word counts."""
        if self.stream is not None:
            self.stream.end(answer)
        self.let_in()
        if self.answer.done():
            return
        if isinstance(answer, BaseException):
            self.answer.set_exception(answer)
            self.answer.exception()  # a caller that is gone by now must not be reported as one that forgot to look
        else:
            self.answer.set_result(answer)

    def let_in(self) -> None:
        """Tell whoever waits for it that a thread has taken the message, or will not."""
        if self.taken is not None:
            self.taken.set_result(None)
            self.taken = None

    def stop(self, reason: Stop) -> None:
        """Tell the run to end: a waiting one leaves the queue, a pipeline is cancelled, then let go."""
        if self.stop_reason is not None:
            return
        self.stop_reason = reason
        self.turn.set()
        if self.context is not None:
            self.context.close()
        if self.pipeline is not None and not self.pipeline.done():
            self.pipeline.end()
            self.pipeline.get_loop().call_later(LET_GO_AFTER, self.wake)

    def wake(self, _: object = None) -> None:
        """Go on: the pipeline ended, or is let go."""
        if self.woken is not None and not self.woken.done():
            self.woken.set_result(None)
