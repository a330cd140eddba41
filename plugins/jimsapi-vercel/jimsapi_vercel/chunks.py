"""Encodes a run's stream as the AI SDK's UI message stream."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

import orjson

from jimsapi.asgi import Request
from jimsapi.runs import RunCancelled, Status
from jimsapi.threads import NewEvent
from jimsapi.wire import (
    Failed,
    FilesSent,
    Finished,
    MessageEnded,
    MessagePiece,
    MessageStarted,
    ModelUsed,
    PersonAsked,
    PiecesMissed,
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
from jimsapi_vercel.approvals import Approval, call_of, is_approval

_OF_SERVER = {"dynamic": True, "providerExecuted": True}
HEADERS = {"x-vercel-ai-ui-message-stream": "v1"}
"""The headers of an answer, by which clients know the protocol."""


async def chunks_of(
    request: Request,
    message_id: str,
    speech: AsyncIterator[SpokenItem | PiecesMissed],
    *,
    approvals: bool = False,
    answered: Sequence[Approval] = (),
) -> AsyncGenerator[bytes, None]:
    """Yield a run as one UI message, with the id `message_id`. Each message of the run is a part of it.

    It is the id of the run, so a client that resumes the run updates the same UI message, and does not add a second
    one. If approvals began the run, `answered`, it is the id of the message that has them, which the run continues.
    With `approvals`, questions that are approvals are chunks of a tool.
    """
    yield _chunk("start", messageId=message_id)
    yield _chunk("start-step")
    for approval in answered:
        if approval.approved:
            yield _chunk("tool-output-available", toolCallId=approval.question_id, output=approval.value, **_OF_SERVER)
        else:
            yield _chunk("tool-output-denied", toolCallId=approval.question_id)
    usage = {"inputTokens": 0, "outputTokens": 0, "totalTokens": 0, "cachedInputTokens": 0}
    async for item in speech:
        match item:
            case Status(text, kind):
                yield _chunk("data-status", data={"status": text, "type": kind}, transient=True)
            case MessageStarted(part_id):
                yield _chunk("text-start", id=part_id)
            case MessagePiece(part_id, text):
                yield _chunk("text-delta", id=part_id, delta=text)
            case MessageEnded(part_id):
                yield _chunk("text-end", id=part_id)
            case ReasoningStarted(part_id):
                yield _chunk("reasoning-start", id=part_id)
            case ReasoningPiece(part_id, text):
                yield _chunk("reasoning-delta", id=part_id, delta=text)
            case ReasoningEnded(part_id):
                yield _chunk("reasoning-end", id=part_id)
            case ToolStarted(event_id, name, arguments):
                # The client runs a tool that is not `providerExecuted`, and `dynamic` are those without a schema there.
                tool = {"toolCallId": event_id, "toolName": name, **_OF_SERVER}
                yield _chunk("tool-input-start", **tool)
                yield _chunk("tool-input-available", **tool, input=arguments)
            case ToolEnded(event_id, result, None):
                yield _chunk("tool-output-available", toolCallId=event_id, output=result, **_OF_SERVER)
            case ToolEnded(event_id, _, error_text):
                yield _chunk("tool-output-error", toolCallId=event_id, errorText=error_text, **_OF_SERVER)
            case FilesSent(_, files):
                for file in files:
                    # The client rejects a chunk of this type with other fields, such as the file's name.
                    named = {"jimsapi": {"filename": file.name}}
                    url = file_url(request, file)
                    yield _chunk("file", url=url, mediaType=file.type, providerMetadata=named)
            case SourceNamed(event_id, str(url), title):
                yield _chunk("source-url", sourceId=event_id, url=url, **({"title": title} if title else {}))
            case SourceNamed(event_id, None, title):
                yield _chunk("source-document", sourceId=event_id, mediaType="text/plain", title=title)
            case ModelUsed(_, input_tokens, output_tokens, cached_tokens):
                usage["inputTokens"] += input_tokens
                usage["outputTokens"] += output_tokens
                usage["totalTokens"] += input_tokens + output_tokens
                usage["cachedInputTokens"] += cached_tokens
                yield _chunk("message-metadata", messageMetadata={"usage": usage})
            case PersonAsked(_, question) if approvals and is_approval(question):
                call = call_of(question)
                tool = {"toolCallId": call["toolCallId"], "toolName": call["toolName"], **_OF_SERVER}
                yield _chunk("tool-input-start", **tool)
                yield _chunk("tool-input-available", **tool, input=call["input"])
                yield _chunk("tool-approval-request", approvalId=call["toolCallId"], toolCallId=call["toolCallId"])
            case PersonAsked(event_id, question):
                yield _chunk("text-start", id=event_id)
                yield _chunk("text-delta", id=event_id, delta=item.text)
                yield _chunk("text-end", id=event_id)
                yield _chunk("data-question", id=question.question_id, data=question.shown())
            case NewEvent(event_id, event_type, data):
                yield _chunk(f"data-{event_type}", id=event_id, data=orjson.Fragment(data))
            case Finished():
                yield _chunk("finish-step")
                yield _chunk("finish", finishReason="stop")
            case Failed(RunCancelled()):
                yield _chunk("abort")
            case Failed(error):
                yield _chunk("error", errorText=failure(request, error)[1])
    yield b"data: [DONE]\n\n"


def _chunk(kind: str, **fields: Any) -> bytes:
    return data_event({"type": kind, **fields})
