"""The answer to the caller of a run, also of one that is read from the store."""

from collections.abc import Iterable
from uuid import UUID

import msgspec
import orjson

from jimsapi.runs.errors import PipelineFailed, RunCancelled, RunInterrupted, RunTimedOut
from jimsapi.threads.errors import DomainError
from jimsapi.threads.event import ASSISTANT_MESSAGE, NewEvent
from jimsapi.threads.questions import CONTACT, QUESTION_ASKED, Question, load_question
from jimsapi.threads.run import FailureKind, RunStatus, StoredRun


class RunResult(msgspec.Struct, frozen=True):
    """The answer to a message: the events that the run sent, as they are stored, and their assistant messages."""

    run_id: UUID
    thread_id: UUID
    created_new_thread: bool
    assistant_messages: list[str]
    events: tuple[NewEvent, ...]

    def questions(self) -> list[Question]:
        """Return the questions with which the run ended."""
        asked = [event for event in self.events if event.event_type == QUESTION_ASKED]
        return [question for event in asked if (question := load_question(event)) is not None]


def hidden(answer: RunResult | BaseException, contact_id: str) -> RunResult | BaseException:
    """Return the answer for a contact that may answer a question of another contact's thread, and not read the thread.

    Of the events it has the questions that this contact may answer, and of a failure no text of the pipeline.
    """
    if isinstance(answer, PipelineFailed):
        return PipelineFailed.with_text(f"{PipelineFailed.PREFIX}the conversation is another contact's")
    if isinstance(answer, BaseException):
        return answer
    events = tuple(
        event
        for event in answer.events
        if event.event_type == QUESTION_ASKED
        and (question := load_question(event)) is not None
        and question.answerable_by == f"{CONTACT}{contact_id}"
    )
    return msgspec.structs.replace(answer, assistant_messages=[], events=events)


def stored_result(run: StoredRun) -> RunResult | DomainError:
    """Return the answer to the caller of a stored run. The run must have ended."""
    match run.status:
        case RunStatus.COMPLETED:
            events = tuple(NewEvent(event.event_id, event.event_type, _data(event.event_data)) for event in run.events)
            return RunResult(run.run_id, run.thread_id, run.created_new_thread, list(_messages(events)), events)
        case RunStatus.INTERRUPTED:
            return RunInterrupted.with_text(run.error) if run.error else RunInterrupted()
        case RunStatus.CANCELLED:
            return RunCancelled()
    text = run.error or ""
    return PipelineFailed.with_text(text) if run.failure is FailureKind.PIPELINE else RunTimedOut.with_text(text)


def answer_to_repeat(run: StoredRun) -> RunResult | DomainError:
    """Return the answer to a caller that sent the message of a stored run again, with its key. The run must have ended.

    If the message did not enter its thread, the key is free again. The answer then asks the caller to send it again.
    """
    answer = stored_result(run)
    return RunInterrupted() if isinstance(answer, RunCancelled) and run.started_at is None else answer


def _data(stored: bytes | str | None) -> bytes:
    if stored is None:
        return b"null"
    return stored if isinstance(stored, bytes) else stored.encode()


def _messages(events: Iterable[NewEvent]) -> Iterable[str]:
    for event in events:
        if event.event_type == ASSISTANT_MESSAGE:
            data = orjson.loads(event.data)
            if isinstance(data, dict):
                yield str(data.get("content", ""))
