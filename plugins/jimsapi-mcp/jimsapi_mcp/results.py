"""What a call of a tool returns: a text for models, and the same facts as structured content."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import msgspec

from jimsapi.runs import LiveRun, RunResult
from jimsapi.threads import FileFacts, NewEvent, Question, RunStatus, StoredRun
from jimsapi.wire import SourceNamed, agent_items, event_data_json, files_of, one_text
from jimsapi_mcp.files import described

OPEN = (RunStatus.QUEUED, RunStatus.RUNNING)

_QUESTION_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "question_id": {"type": "string"},
        "key": {"type": "string"},
        "text": {"type": "string"},
        "options": {"type": ["array", "null"], "items": {"type": "string"}},
        "schema": {"type": ["object", "null"]},
        "expires_at": {"type": ["string", "null"]},
    },
    "required": ["question_id", "key", "text"],
}
_SOURCE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"url": {"type": ["string", "null"]}, "title": {"type": ["string", "null"]}},
}
_FILE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "uri": {"type": "string"},
        "name": {"type": "string"},
        "type": {"type": "string"},
        "size": {"type": "integer"},
    },
    "required": ["uri", "name", "type", "size"],
}
OUTPUT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "run_id": {"type": "string", "description": "Identifies this call, for chat_get and chat_cancel."},
        "thread_id": {"type": "string", "description": "Pass it as `thread` to continue this conversation."},
        "status": {"type": "string", "enum": [status.value for status in RunStatus]},
        "text": {"type": "string", "description": "The answer. Empty while the agent works."},
        "questions": {
            "type": "array",
            "items": _QUESTION_SCHEMA,
            "description": "What the agent asks a person before it goes on.",
        },
        "sources": {"type": "array", "items": _SOURCE_SCHEMA},
        "files": {
            "type": "array",
            "items": _FILE_SCHEMA,
            "description": "What the agent has sent. Read the uri as a resource.",
        },
        "error": {"type": ["string", "null"]},
    },
    "required": ["run_id", "thread_id", "status", "text", "questions"],
}
"""The schema of the structured content of every tool."""


class Outcome(msgspec.Struct, frozen=True):
    """The state of a run, for a result.

    `text` is its answer, and `error` why it has none. `asked` are the questions with which it ended, and `files` those
    that it has sent.
    """

    run_id: UUID
    thread_id: UUID
    status: RunStatus
    text: str = ""
    asked: Sequence[Question] = ()
    sources: Sequence[Mapping[str, Any]] = ()
    files: Sequence[FileFacts] = ()
    error: str | None = None

    @property
    def failed(self) -> bool:
        """Whether the run has no answer and gets none."""
        return self.error is not None


def outcome_of_result(result: RunResult) -> Outcome:
    """Return the outcome of a run that has just completed."""
    sources = [{"url": item.url, "title": item.title} for item in agent_items(result) if isinstance(item, SourceNamed)]
    text, asked = one_text(result), result.questions()
    files = [file for sent in files_of(result) for file in sent.files]
    return Outcome(result.run_id, result.thread_id, RunStatus.COMPLETED, text, asked, sources, files)


def outcome_of_failure(run: LiveRun, thread_id: UUID, text: str) -> Outcome:
    """Return the outcome of a run that has just ended without an answer."""
    return Outcome(run.known_as, thread_id, run.status, error=text)


def outcome_of_stored(run: StoredRun) -> Outcome:
    """Return the outcome of a run as it is stored now."""
    if run.status is RunStatus.COMPLETED:
        events = [NewEvent(one.event_id, one.event_type, event_data_json(one.event_data)) for one in run.events]
        return outcome_of_result(RunResult(run.run_id, run.thread_id, run.created_new_thread, [], tuple(events)))
    error = None if run.status in OPEN else run.error or f"The run was {run.status.value}"
    return Outcome(run.run_id, run.thread_id, run.status, error=error)


def tool_result(outcome: Outcome, questions: Sequence[Question], note: str = "") -> dict[str, Any]:
    """Return the result of a call. `questions` are those that are open, and `note` is more text for models."""
    texts = [outcome.error or outcome.text, note]
    return {
        "content": [{"type": "text", "text": "\n\n".join(text for text in texts if text)}],
        "structuredContent": _structured(outcome, questions),
        "isError": outcome.failed,
    }


def refused_result(text: str) -> dict[str, Any]:
    """Return the result of a call that began nothing. The text says what a model can do about it."""
    return {"content": [{"type": "text", "text": text}], "isError": True}


def _structured(outcome: Outcome, questions: Sequence[Question]) -> dict[str, Any]:
    structured: dict[str, Any] = {
        "run_id": str(outcome.run_id),
        "thread_id": str(outcome.thread_id),
        "status": outcome.status.value,
        "text": outcome.text,
        "questions": [question.shown() for question in questions],
    }
    if outcome.sources:
        structured["sources"] = list(outcome.sources)
    if outcome.files:
        structured["files"] = [described(file) for file in outcome.files]
    if outcome.error is not None:
        structured["error"] = outcome.error
    return structured
