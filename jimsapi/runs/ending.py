"""How a pipeline ended: the outcome to store, and the answer for the caller."""

import asyncio
import logging
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import msgspec

from jimsapi.runs.disclosure import Disclosure
from jimsapi.runs.errors import RunCancelled, RunInterrupted, RunTimedOut
from jimsapi.runs.live import LiveRun, Stop
from jimsapi.runs.result import RunResult
from jimsapi.threads.activity import MODEL_USAGE
from jimsapi.threads.context import ThreadContext
from jimsapi.threads.errors import DomainError, IdentifierTaken, ThreadNotFound, UnstorableEvent
from jimsapi.threads.event import ASSISTANT_MESSAGE, NewEvent, encode_events
from jimsapi.threads.questions import QUESTION_ASKED, QuestionAsked
from jimsapi.threads.run import COMPLETED, FailureKind, Outcome, RunStatus, Settled, ThreadRecord

logger = logging.getLogger("jimsapi.runs")

# Constant texts, since error reporting groups errors by them.
FAILED = "run %s: the pipeline failed"
UNSTORABLE = "run %s: the pipeline sent an event that cannot be stored"
UNREADABLE = "run %s: the events of the pipeline cannot be read"
CAUGHT = "run %s: the pipeline went on after it had asked a person: it must not catch QuestionAsked"
RETURNED = "run %s: the pipeline sent nothing and returned a text, which nobody gets: call ctx.send_message(text)"


class Ending(msgspec.Struct, frozen=True):
    """How a pipeline ended: the `Outcome` to store, and for the caller either `error` or `assistant_messages`."""

    outcome: Outcome
    error: DomainError | None = None
    assistant_messages: list[str] = []

    @classmethod
    def failed(
        cls,
        run: LiveRun,
        fault: BaseException,
        disclosure: Disclosure,
        usage: tuple[NewEvent, ...],
        log_text: str = FAILED,
    ) -> "Ending":
        """Return the ending of a pipeline that raised, or sent an event that cannot be stored.

        Logs `fault` with its traceback. `disclosure` decides how much of it the caller reads. `usage` is stored.
        """
        identifiers = {"run_id": str(run.run_id), "thread_id": str(run.thread_id)}  # for error reporting
        logger.error(log_text, run.run_id, exc_info=fault, extra=identifiers)
        error = disclosure.failure(run.run_id, fault)
        return cls(Outcome(RunStatus.FAILED, error=str(error), failure=FailureKind.PIPELINE, usage=usage), error)

    @classmethod
    def stopped(cls, run: LiveRun, run_timeout: float, context: ThreadContext | None = None) -> "Ending":
        """Return the ending of a run that was stopped before its pipeline ended. `run_timeout` is in seconds.

        A run that was stopped while it waited for its turn has another status: see `RunFlow._wait_for_turn`.

        `context` is that of the pipeline, None if the pipeline did not begin.
        """
        error: DomainError
        failure: FailureKind | None = None
        if run.stop_reason is Stop.TIMED_OUT:
            error, status, failure = RunTimedOut(run_timeout), RunStatus.FAILED, FailureKind.TIMEOUT
        elif run.stop_reason is Stop.DRAINED:
            error, status = RunInterrupted(), RunStatus.INTERRUPTED
        elif run.stop_reason is Stop.DELETED:
            error, status = ThreadNotFound(run.thread_id), RunStatus.CANCELLED
        else:
            error, status = RunCancelled(), RunStatus.CANCELLED
        usage = () if context is None else usage_of(context)
        return cls(Outcome(status, error=str(error), failure=failure, usage=usage), error)

    @classmethod
    def of(cls, run: LiveRun, task: asyncio.Task[Any], context: ThreadContext, disclosure: Disclosure) -> "Ending":
        """Return the ending of a pipeline that was not stopped. `task` is its task, and `context` has its events."""
        fault = RuntimeError("the pipeline cancelled itself") if task.cancelled() else task.exception()
        log_text = FAILED
        try:
            if fault is None or only_asks(fault):
                outgoing = context.complete()
                if not outgoing:
                    _check_returned(run, task)
                elif getattr(outgoing[-1], "event_type", "") == QUESTION_ASKED:
                    _check_asking(run, fault)
                events = tuple(encode_events(outgoing))
                return cls(Outcome(COMPLETED, events), None, _assistant_messages(outgoing))
        except UnstorableEvent as unstorable:
            fault, log_text = unstorable, UNSTORABLE
        except BaseException as error:  # events may be objects of the app's own classes, whose attributes can raise
            fault, log_text = error, UNREADABLE
        return cls.failed(run, fault, disclosure, usage_of(context), log_text)

    def refused(self, run: LiveRun, taken: IdentifierTaken, disclosure: Disclosure) -> "Ending":
        """Return the failure that replaces this ending, because the thread already has some of its events."""
        types = [event.event_type for event in self.outcome.events if event.event_id in taken.event_ids]
        fault = UnstorableEvent(types[0] if types else "unknown", "its event_id is in the thread already")
        usage = tuple(event for event in self.usage() if event.event_id not in taken.event_ids)
        return Ending.failed(run, fault, disclosure, usage, UNSTORABLE)

    def usage(self) -> tuple[NewEvent, ...]:
        """Return what the pipeline used of models."""
        sent = (event for event in self.outcome.events if event.event_type == MODEL_USAGE)
        return (*sent, *self.outcome.usage)

    def result(self, run: LiveRun, disclosure: Disclosure) -> RunResult:
        """Return the answer for the caller of a run that completed. It has no private events."""
        assert run.thread is not None
        events = self.outcome.events
        if disclosure.private_events:
            events = tuple(disclosure.public(events))
        return RunResult(run.run_id, run.thread.thread_id, run.created_new_thread, self.assistant_messages, events)


def usage_of(context: ThreadContext) -> tuple[NewEvent, ...]:
    """Return what a pipeline that did not complete used of models. It was paid for, so it is stored.

    Events of the pipeline's own that cannot be stored are left out: nothing of them is to fail the outcome.
    """
    usage: dict[int, NewEvent] = {}
    outgoing: Any = context.outgoing_events
    for event in outgoing if isinstance(outgoing, Iterable) else ():
        with suppress(BaseException):  # events may be objects of the app's own classes, whose attributes can raise
            if event.event_type == MODEL_USAGE:
                usage.update((encoded.event_id.int, encoded) for encoded in encode_events([event]))
    return tuple(usage.values())


def _check_asking(run: LiveRun, fault: BaseException | None) -> None:
    """Log that a pipeline has caught the end of its run. Raises `RuntimeError` if a conversation start asks."""
    if run.status is not RunStatus.RUNNING:
        raise RuntimeError("a conversation start cannot ask a person: ask in the pipeline that answers messages")
    if fault is None:
        logger.warning(CAUGHT, run.run_id)


def _check_returned(run: LiveRun, task: asyncio.Task[Any]) -> None:
    """Log that a pipeline that sent nothing has returned its answer."""
    if task.exception() is None and isinstance(task.result(), str):
        logger.warning(RETURNED, run.run_id)


def only_asks(fault: BaseException) -> bool:
    """Return whether a pipeline ended because it asked a person. Several of its tasks may have asked."""
    if isinstance(fault, BaseExceptionGroup):
        return all(only_asks(one) for one in fault.exceptions)
    return isinstance(fault, QuestionAsked)


def ended_by_others(settled: Settled, thread: ThreadRecord) -> DomainError:
    """Return the error for the caller of a run that another call or process ended: `settled` has its status."""
    if settled.status is None:
        return ThreadNotFound(thread.thread_id)
    return RunInterrupted() if settled.status is RunStatus.INTERRUPTED else RunCancelled()


def _assistant_messages(outgoing: Iterable[Any]) -> list[str]:
    return [
        str(event.event_data.get("content", ""))
        for event in outgoing
        if event.event_type == ASSISTANT_MESSAGE and isinstance(event.event_data, dict)
    ]
