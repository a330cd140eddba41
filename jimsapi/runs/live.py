"""Live runs, which are the runs that this process works on, and their records for observers."""

import asyncio
import enum
import math
from collections.abc import Awaitable, Coroutine, Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

import msgspec

from jimsapi.runs.admission import Admission
from jimsapi.runs.inbound import Inbound
from jimsapi.runs.quota import Allowance, QuotaKeys
from jimsapi.runs.result import RunResult, hidden
from jimsapi.runs.stream import Gap, RunStarted, RunStream, StreamOutput
from jimsapi.runs.tasks import PipelineTask, ServiceTask
from jimsapi.threads.context import ThreadContext
from jimsapi.threads.event import EventRow, NewEvent, add_beside
from jimsapi.threads.facts import ForkPlan, ThreadPlan
from jimsapi.threads.file_store import StoredFile
from jimsapi.threads.identity import Identity
from jimsapi.threads.ids import uuid7
from jimsapi.threads.message_files import MESSAGE_FILES, FilesInMemory, SentFile, files_data
from jimsapi.threads.questions import MESSAGE_ANSWERS
from jimsapi.threads.run import QUEUED, RUNNING, AdoptedRun, Idempotency, RunStatus, Selector, ThreadRecord
from jimsapi.threads.trace_context import TraceContext
from jimsapi.threads.usage import NO_USAGE, UsageTotal, sum_usage, usage_by_model

ABANDON_AFTER = 0.5
"""Seconds that a pipeline has to end after it was cancelled. After that the run ends without it."""


class PipelineTiming(msgspec.Struct, frozen=True):
    """One call of a pipeline within a run: the pipeline's name, the duration in seconds, and whether it succeeded."""

    pipeline: str
    duration: float
    succeeded: bool


class RunRecord(msgspec.Struct, frozen=True):
    """The record of a run that ended, for observers.

    `waited` (in the queue) and `duration` are in seconds. `provider` is the auth provider that admitted the caller.
    `usage` is what the run has used, by model. A pipeline may make up names of models.
    """

    run_id: UUID
    thread_id: UUID | None
    status: RunStatus
    waited: float
    duration: float
    pipelines: tuple[PipelineTiming, ...]
    provider: str | None
    usage: Mapping[str, UsageTotal] = NO_USAGE


class Stop(enum.Enum):
    """Why a run is stopped early.

    `DRAINED`: the process shuts down, or the flow of the run was cancelled. A run that has started is then stored as
    `interrupted`, one that waits for its turn as `cancelled`, and a background run that waits stays `queued`.
    `CANCELLED`: a caller, or another process, cancelled it. `DELETED`: the thread was deleted.
    """

    TIMED_OUT = enum.auto()
    CANCELLED = enum.auto()
    DELETED = enum.auto()
    DRAINED = enum.auto()


class LiveRun:
    """A run that this process works on: the answer to its caller, its turn in the queue, and its pipeline.

    Only the methods of this class set its fields. Other code reads them:

    - `entering` has the events that enter the thread when the run starts: those beside its message, then the message.
    - `adopted` is what the store returned of the run if another process accepted the message and died. Otherwise None.
    - `hands_over`: a worker does the run. This process only accepts its message.
    - `answers_in_text`: the message may be the answer to a question, because the protocol has no other place for it.
    - `sent_files` came within the message. `files_in_memory` has them, and those that the pipeline saves, if the run
      has no thread. It is None if the server stores no files.
    - `in_thread`: the run belongs to a thread. If not, nothing of it is stored.
    - `answer` is a future. Read it if it is done. To wait for the answer, await `wait_for_answer()`.
    - `stream` is the run's stream, None if the run is not watched. It ends with the answer.
    - `acceptance` is a future, None if no code waits for a thread. It is done, and removed, when a thread accepts the
      message or the run ends without one. Await it under `asyncio.shield`, since several tasks may share it.
    - `known_as` is the identifier of the run that answers. It is another run's if that run has the same idempotency
      key.
    - `pipeline` is the task of the pipeline that was started last. The run is stopped at `deadline` (the loop's time).
    - `loop` is the event loop of the service. In Python 3.11 `asyncio.get_running_loop` makes a system call each time.
    - `began` is the loop's time; `waited` is in seconds.
    - `trace_context` is the trace that the message named, if its protocol has one there.
    - `budgets_left` is what was left of the caller's budgets before the run, and `usage` what the run has used of
      models, by model.
    """

    __slots__ = (
        "_turn",
        "acceptance",
        "admission",
        "adopted",
        "answer",
        "answers_in_text",
        "background",
        "began",
        "budgets_left",
        "context",
        "created_new_thread",
        "deadline",
        "entering",
        "files_in_memory",
        "hands_over",
        "hides_answer",
        "idempotency",
        "in_thread",
        "inbound",
        "known_as",
        "loop",
        "makes",
        "pipeline",
        "quota_keys",
        "run_id",
        "selectors",
        "sent_files",
        "status",
        "stop_reason",
        "stream",
        "task",
        "thread",
        "timings",
        "trace_context",
        "usage",
        "waited",
    )

    def __init__(
        self,
        inbound: Inbound,
        admission: Admission,
        loop: asyncio.AbstractEventLoop,
        entering: tuple[NewEvent, ...],
        quota_keys: QuotaKeys | None = None,
        background: bool = False,
        selectors: Sequence[Selector] | None = None,
        idempotency: Idempotency | None = None,
        sent_files: Sequence[SentFile] = (),
        answers_in_text: bool = False,
        makes: ForkPlan | ThreadPlan | None = None,
        *,
        run_id: UUID | None = None,
        adopted: AdoptedRun | None = None,
        in_thread: bool = True,
        hands_over: bool = False,
        trace_context: TraceContext | None = None,
    ) -> None:
        self.run_id = self.known_as = run_id or uuid7()
        self.loop = loop
        self.inbound = inbound
        self.admission = admission
        self.quota_keys = quota_keys
        self.background = background
        self.adopted = adopted
        self.in_thread = in_thread
        self.hands_over = hands_over
        self.trace_context = trace_context
        self.hides_answer = False
        self.answers_in_text = answers_in_text
        self.makes = makes
        self.entering = entering
        self.sent_files = sent_files
        self.files_in_memory: FilesInMemory | None = None
        self.selectors = selectors
        self.idempotency = idempotency
        self.stream: RunStream | None = None
        self.acceptance: asyncio.Future[None] | None = None
        self.answer: asyncio.Future[RunResult] = loop.create_future()
        self.began = loop.time()
        self.waited = 0.0
        self.thread: ThreadRecord | None = None
        self.created_new_thread = False
        self.status = QUEUED
        self.context: ThreadContext | None = None
        self.pipeline: PipelineTask | None = None
        self.stop_reason: Stop | None = None
        self.task: ServiceTask[None] | None = None
        self.timings: tuple[PipelineTiming, ...] = ()
        self.budgets_left: tuple[Allowance, ...] = ()
        self.usage = NO_USAGE
        self.deadline = math.inf
        self._turn: asyncio.Event | None = None

    @property
    def turn(self) -> asyncio.Event:
        """The event that is set when the run may start or must stop. Created on first use: most runs never wait."""
        if self._turn is None:
            self._turn = asyncio.Event()
        return self._turn

    @property
    def thread_id(self) -> UUID | None:
        """The identifier of the run's thread; None until the store has accepted the run."""
        return None if self.thread is None else self.thread.thread_id

    @property
    def identity(self) -> Identity | None:
        """The caller's identity; None for an adopted run, whose caller sent the message to another process."""
        return None if self.adopted else self.admission.identity

    @property
    def restarts(self) -> int:
        """How often the run was started before by processes that have died."""
        return 0 if self.adopted is None else self.adopted.restarts

    @property
    def answers_questions(self) -> bool:
        """Whether answers to questions began the run, and not only a message."""
        if len(self.entering) == 1:  # as most have
            return False
        return any(event.event_type == MESSAGE_ANSWERS for event in self.entering[:-1])

    def answer_questions(self, entering: tuple[NewEvent, ...], *, hides_answer: bool = False) -> None:
        """Set what enters the thread: the answers of a person to questions of the thread.

        `hides_answer`: the caller may answer a question of this thread, but not read the thread.
        """
        self.entering = entering
        self.hides_answer = hides_answer

    def add_files(self, files: Sequence[StoredFile]) -> None:
        """Set the files of the message, which enter the thread beside it."""
        self.entering = add_beside(self.entering, MESSAGE_FILES, files_data(files))
        self.sent_files = ()  # they are stored

    @property
    def has_files(self) -> bool:
        """Whether the message has files."""
        return any(event.event_type == MESSAGE_FILES for event in self.entering)

    def keep_files_in_memory(self, memory: FilesInMemory, named: Sequence[StoredFile]) -> None:
        """Let the pipeline read the files in `memory`, which came within the message, and save others there.

        `named` are those of the message that the server has.
        """
        self.files_in_memory = memory
        if named or memory.files:
            self.add_files([*named, *memory.files])

    def launch(self, flow: Coroutine[Any, Any, None]) -> None:
        """Start the task that answers the run."""
        self.task = ServiceTask.begin(flow, loop=self.loop, name="run")

    def attach(self, stream: RunStream) -> None:
        """Send all items of the run to `stream`. Call this only before the store accepts the message."""
        self.stream = stream

    def expect_acceptance(self) -> None:
        """Create `acceptance`, so that callers can wait until a thread accepts the message."""
        self.acceptance = self.loop.create_future()

    @property
    def is_awaited(self) -> bool:
        """Whether the answer is not set yet, the stream is not over, or callers await `acceptance`."""
        if not self.answer.done() or self.acceptance is not None:
            return True
        return self.stream is not None and not self.stream.is_over

    def enter(self, thread: ThreadRecord, created_new_thread: bool) -> None:
        """Record the thread that accepted the message. Notifies the stream and the tasks that await `acceptance`."""
        self.thread = thread
        self.created_new_thread = created_new_thread
        if self.stream is not None:
            self.stream.put(RunStarted(self.run_id, thread.thread_id, created_new_thread))
        self.mark_accepted()

    def watch(self, stream: RunStream) -> None:
        """Send the following items of the run to `stream`. Call this only after the store has accepted the message."""
        assert self.thread is not None
        self.stream = stream
        stream.put(RunStarted(self.run_id, self.thread.thread_id, self.created_new_thread))
        if self.status is RUNNING and self.pipeline is not None and not self.pipeline.done():
            stream.put(Gap(None))  # earlier items were not recorded
            if self.context is not None:
                self.context.watch(StreamOutput(stream))

    def follow(self, run_id: UUID) -> None:
        """Record that the run `run_id` answers, because it has the same idempotency key."""
        self.known_as = run_id
        self.mark_accepted()

    def end_wait(self) -> None:
        """Record how long the run waited in the queue."""
        self.waited = self.loop.time() - self.began

    def begin_running(self) -> None:
        """Set the status to `running`: the message is in the thread."""
        self.status = RUNNING

    def begin_pipeline(self, task: PipelineTask, context: ThreadContext, deadline: float) -> None:
        """Record the task of a pipeline that has started. The run is stopped at `deadline` (the loop's time)."""
        self.context = context
        self.pipeline = task
        self.deadline = deadline

    def end_pipeline(self, timing: PipelineTiming) -> None:
        """Record that the pipeline has ended or was abandoned, and remove the deadline. Observers get `timing`."""
        self.deadline = math.inf
        self.timings += (timing,)

    def note_budgets(self, left: tuple[Allowance, ...]) -> None:
        """Set what is left of the caller's budgets before the run."""
        self.budgets_left = left

    def count_usage(self, events: Iterable[NewEvent | EventRow]) -> None:
        """Add up the model usage that events record."""
        if used := usage_by_model(events):
            self.usage = sum_usage(self.usage, used)

    def end_as(self, status: RunStatus) -> None:
        """Set the final status."""
        self.status = status

    def forget_conversation(self) -> None:
        """Release the context, since a client that reads the answer slowly keeps the run in memory."""
        self.context = None

    async def wait_for_answer(self) -> RunResult:
        """Wait for the answer and return it. Raises the `DomainError` with which the run ends.

        Cancelling the wait cancels neither the run nor the answer: code may wait for a while, and wait again later.
        Several callers may share a run by its idempotency key.
        """
        await asyncio.wait((self.answer,))
        return self.answer.result()

    def wait_once(self) -> Awaitable[RunResult]:
        """As `wait_for_answer`, for code that alone waits for this run, and waits once.

        Cancelling the wait does not cancel the run, but nobody can wait for its answer again.
        """
        # To protect the answer adds 4 % to the cost of a chat, so only answers that callers may share are protected.
        return self.answer if self.idempotency is None else self.wait_for_answer()

    def record(self, duration: float) -> RunRecord:
        """Return the record for observers. The run has ended after `duration` seconds."""
        provider = self.admission.provider
        return RunRecord(
            self.run_id, self.thread_id, self.status, self.waited, duration, self.timings, provider, self.usage
        )

    def answer_with(self, answer: RunResult | BaseException) -> None:
        """Set the answer, and end the stream with it. Only the first call has an effect."""
        if self.hides_answer:
            answer = hidden(answer, self.inbound.contact_id)
        if self.stream is not None:
            self.stream.end(answer)
        self.mark_accepted()
        if self.answer.done():
            return
        if isinstance(answer, BaseException):
            self.answer.set_exception(answer)
            self.answer.exception()  # otherwise asyncio logs an unread error if the caller has disconnected
        else:
            self.answer.set_result(answer)

    def mark_accepted(self) -> None:
        """Complete `acceptance`: a thread has accepted the message, or the run ends without one."""
        if self.acceptance is not None:
            self.acceptance.set_result(None)
            self.acceptance = None

    def stop(self, reason: Stop) -> None:
        """Stop the run. A waiting run wakes, and its flow sets its status. A pipeline is cancelled, and abandoned if it
        does not end.
        """
        if self.stop_reason is not None:
            return
        self.stop_reason = reason
        self.turn.set()
        if self.context is not None:
            self.context.close()
        if self.pipeline is not None and not self.pipeline.done():
            self.pipeline.end()
            self.pipeline.get_loop().call_later(ABANDON_AFTER, self.pipeline.wake)
