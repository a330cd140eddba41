"""Encodes a run's stream as AG-UI events."""

from collections.abc import AsyncIterator
from typing import Any

import orjson

from jimsapi.asgi import Request
from jimsapi.runs import Status
from jimsapi.threads import NewEvent
from jimsapi.wire import Failed, Finished, MessageEnded, MessagePiece, MessageStarted, SpokenItem, data_event, failure
from jimsapi_agui.request import RunAgentInput


async def agui_events(request: Request, body: RunAgentInput, speech: AsyncIterator[SpokenItem]) -> AsyncIterator[bytes]:
    """Yield the items of a run as AG-UI events, encoded as server-sent events.

    A status is a step, which ends before the next item: AG-UI's client rejects the end of a run within a step.
    """
    run = {"threadId": body.thread_id, "runId": body.run_id}
    yield _event("RUN_STARTED", run)
    step: dict[str, str] | None = None
    async for item in speech:
        if step is not None:
            yield _event("STEP_FINISHED", step)
            step = None
        match item:
            case Status(text, _):
                step = {"stepName": text}
                yield _event("STEP_STARTED", step)
            case MessageStarted(message_id):
                yield _event("TEXT_MESSAGE_START", {"messageId": message_id, "role": "assistant"})
            case MessagePiece(message_id, text):
                if text:  # clients before 1.0 reject an empty delta
                    yield _event("TEXT_MESSAGE_CONTENT", {"messageId": message_id, "delta": text})
            case MessageEnded(message_id):
                yield _event("TEXT_MESSAGE_END", {"messageId": message_id})
            case NewEvent(_, event_type, data):
                yield _event("CUSTOM", {"name": event_type, "value": orjson.Fragment(data)})
            case Finished():
                yield _event("RUN_FINISHED", {**run, "outcome": {"type": "success"}})
            case Failed(error):
                status, text = failure(request, error)
                yield _event("RUN_ERROR", {"message": text, "code": str(status)})


def _event(kind: str, fields: dict[str, Any]) -> bytes:
    return data_event({"type": kind, **fields})
