"""Encodes a run's stream as AG-UI events."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

import msgspec
import orjson

from jimsapi.asgi import Request
from jimsapi.runs import Status
from jimsapi.threads import NewEvent, Question
from jimsapi.wire import (
    Failed,
    FilesSent,
    Finished,
    MessageEnded,
    MessagePiece,
    MessageStarted,
    ModelUsed,
    PersonAsked,
    ReasoningEnded,
    ReasoningPiece,
    ReasoningStarted,
    SourceNamed,
    SpokenItem,
    ToolEnded,
    ToolStarted,
    data_event,
    failure,
    file_url,
)
from jimsapi_agui.request import RunAgentInput


async def agui_events(
    request: Request, body: RunAgentInput, speech: AsyncIterator[SpokenItem]
) -> AsyncGenerator[bytes, None]:
    """Yield the items of a run as AG-UI events, encoded as server-sent events.

    A status is a step, which ends before the next item: AG-UI's client rejects the end of a run within a step. A call
    of a tool has a result, without which a client would run the tool.
    """
    run = {"threadId": body.thread_id, "runId": body.run_id}
    yield _event("RUN_STARTED", run)
    step: dict[str, str] | None = None
    used: list[dict[str, Any]] = []
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
            case ReasoningStarted(event_id):
                yield _event("REASONING_START", {"messageId": event_id})
                yield _event("REASONING_MESSAGE_START", {"messageId": event_id, "role": "reasoning"})
            case ReasoningPiece(event_id, text):
                if text:
                    yield _event("REASONING_MESSAGE_CONTENT", {"messageId": event_id, "delta": text})
            case ReasoningEnded(event_id):
                yield _event("REASONING_MESSAGE_END", {"messageId": event_id})
                yield _event("REASONING_END", {"messageId": event_id})
            case ToolStarted(event_id, name, arguments):
                yield _event("TOOL_CALL_START", {"toolCallId": event_id, "toolCallName": name})
                yield _event("TOOL_CALL_ARGS", {"toolCallId": event_id, "delta": _json(arguments)})
                yield _event("TOOL_CALL_END", {"toolCallId": event_id})
            case ToolEnded(event_id, result, error_text):
                content = (result if isinstance(result, str) else _json(result)) if error_text is None else error_text
                ended = {"messageId": f"{event_id}-result", "toolCallId": event_id, "content": content, "role": "tool"}
                yield _event("TOOL_CALL_RESULT", ended)
            case FilesSent(message_id, files):
                named = [{**msgspec.to_builtins(file), "url": file_url(request, file)} for file in files]
                yield _event("CUSTOM", {"name": "message.files", "value": {"message_id": message_id, "files": named}})
            case SourceNamed(_, url, title):
                yield _event("CUSTOM", {"name": "answer.source", "value": {"url": url, "title": title}})
            case ModelUsed(model, input_tokens, output_tokens):
                used.append({"model": model, "inputTokens": input_tokens, "outputTokens": output_tokens})
            case PersonAsked():
                pass  # an interrupt at the end
            case NewEvent(_, event_type, data):
                yield _event("CUSTOM", {"name": event_type, "value": orjson.Fragment(data)})
            case Finished(result):
                usage = {"usage": used} if used else {}
                yield _event("RUN_FINISHED", {**run, "outcome": _outcome(result.questions()), **usage})
            case Failed(error):
                status, text = failure(request, error)
                yield _event("RUN_ERROR", {"message": text, "code": str(status)})


async def snapshot_events(
    body: RunAgentInput, messages: Sequence[dict[str, Any]], questions: Sequence[Question]
) -> AsyncGenerator[bytes, None]:
    """Yield a run that only shows the messages of the conversation, and its open questions."""
    run = {"threadId": body.thread_id, "runId": body.run_id}
    yield _event("RUN_STARTED", run)
    yield _event("MESSAGES_SNAPSHOT", {"messages": messages})
    yield _event("RUN_FINISHED", {**run, "outcome": _outcome(questions)})


def _outcome(questions: Sequence[Question]) -> dict[str, Any]:
    """How a run ended: with its questions as interrupts, if it has any."""
    if not questions:
        return {"type": "success"}
    return {"type": "interrupt", "interrupts": [_interrupt(question) for question in questions]}


def _interrupt(question: Question) -> dict[str, Any]:
    form = {"type": "string"} if question.options is None else {"type": "string", "enum": question.options}
    interrupt = {
        "id": question.question_id,
        "reason": question.key,
        "message": question.text,
        "responseSchema": question.schema or form,
    }
    return interrupt if question.expires_at is None else {**interrupt, "expiresAt": question.expires_at}


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _event(kind: str, fields: dict[str, Any]) -> bytes:
    return data_event({"type": kind, **fields})
