"""Stored conversations as the UI messages of the AI SDK."""

from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from jimsapi.asgi import Request
from jimsapi.threads import NewEvent
from jimsapi.wire import (
    Answered,
    MessagePiece,
    ModelUsed,
    PersonAsked,
    ReasoningPiece,
    SourceNamed,
    SpokenItem,
    ToolEnded,
    ToolStarted,
    UserSaid,
    file_url,
)


def ui_messages(request: Request, said: Iterable[UserSaid | Answered]) -> list[dict[str, Any]]:
    """Return a conversation as `useChat` takes it for `messages`."""
    return [_question(request, one) if isinstance(one, UserSaid) else _answer(one) for one in said]


def _question(request: Request, said: UserSaid) -> dict[str, Any]:
    files = [
        {"type": "file", "mediaType": file.type, "filename": file.name, "url": file_url(request, file)}
        for file in said.files
    ]
    return {"id": said.message_id, "role": "user", "parts": [*files, {"type": "text", "text": said.text}]}


def _answer(answered: Answered) -> dict[str, Any]:
    message: dict[str, Any] = {"id": answered.answer_id, "role": "assistant", "parts": _parts(answered.items)}
    used = [item for item in answered.items if isinstance(item, ModelUsed)]
    if used:
        message["metadata"] = {"usage": usage_of(used)}
    return message


def usage_of(used: Sequence[ModelUsed]) -> dict[str, int]:
    """Return the sum of what calls of models have used, by the names of the AI SDK."""
    sent, received = sum(one.input_tokens for one in used), sum(one.output_tokens for one in used)
    cached = sum(one.cached_tokens for one in used)
    return {"inputTokens": sent, "outputTokens": received, "totalTokens": sent + received, "cachedInputTokens": cached}


def _parts(items: Iterable[SpokenItem]) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    calls: dict[Any, dict[str, Any]] = {}
    for item in items:
        match item:
            case MessagePiece(_, text):
                parts.append({"type": "text", "text": text, "state": "done"})
            case ReasoningPiece(_, text):
                parts.append({"type": "reasoning", "text": text, "state": "done"})
            case ToolStarted(event_id, name, arguments):
                calls[event_id] = {
                    "type": "dynamic-tool",
                    "toolCallId": event_id,
                    "toolName": name,
                    "providerExecuted": True,
                    "input": arguments,
                }
                parts.append(calls[event_id])
            case ToolEnded(event_id, result, None):
                calls[event_id].update(state="output-available", output=result)
            case ToolEnded(event_id, _, error):
                calls[event_id].update(state="output-error", errorText=error)
            case SourceNamed(event_id, str(url), title):
                parts.append({"type": "source-url", "sourceId": event_id, "url": url, **_titled(title)})
            case SourceNamed(event_id, None, title):
                document = {"type": "source-document", "sourceId": event_id, "mediaType": "text/plain"}
                parts.append({**document, **_titled(title)})
            case PersonAsked(_, question):
                parts.append({"type": "text", "text": item.text, "state": "done"})
                parts.append({"type": "data-question", "id": question.question_id, "data": question.shown()})
            case NewEvent(event_id, event_type, data):
                parts.append({"type": f"data-{event_type}", "id": event_id, "data": orjson.Fragment(data)})
    return parts


def _titled(title: str | None) -> dict[str, str]:
    return {"title": title} if title else {}
