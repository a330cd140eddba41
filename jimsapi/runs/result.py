"""How a run ended, as its caller is told."""

from collections.abc import Iterable
from uuid import UUID

import msgspec
import orjson

from jimsapi.runs.errors import PipelineFailed, RunCancelled, RunInterrupted, RunTimedOut
from jimsapi.threads.errors import DomainError
from jimsapi.threads.event import ASSISTANT_MESSAGE, NewEvent
from jimsapi.threads.run import RunStatus, StoredRun


class RunResult(msgspec.Struct, frozen=True):
    """The answer to a message: what the run sent, as it was stored."""

    run_id: UUID
    thread_id: UUID
    created_new_thread: bool
    assistant_messages: list[str]
    events: tuple[NewEvent, ...]


def stored_result(run: StoredRun) -> RunResult | DomainError:
    """What the caller of a run that has ended was told, or would have been. The run must not be open."""
    match run.status:
        case RunStatus.COMPLETED:
            events = tuple(NewEvent(event.event_id, event.event_type, _data(event.event_data)) for event in run.events)
            return RunResult(run.run_id, run.thread_id, run.created_new_thread, list(_messages(events)), events)
        case RunStatus.INTERRUPTED:
            return RunInterrupted()
        case RunStatus.CANCELLED:
            return RunCancelled()
    text = run.error or ""
    return PipelineFailed.told(text) if text.startswith(PipelineFailed.PREFIX) else RunTimedOut.told(text)


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
