"""Stored conversations as the UI messages of the AI SDK."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson

from jimsapi.asgi import Request
from jimsapi.threads import FileFacts, NewEvent, Question
from jimsapi.wire import (
    Answered,
    FilesSent,
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
from jimsapi_vercel.approvals import approves, call_of, is_approval


def ui_messages(
    request: Request, said: Sequence[UserSaid | Answered], *, approvals: bool = False
) -> list[dict[str, Any]]:
    """Return a conversation as `useChat` takes it for `messages`.

    With `approvals`, a question that is an approval is a tool call, if it is open or was answered without a
    message. The answer is then in that call, and what follows it is in the same message.
    """
    answers = {one.answer.question_id: one.answer.value for one in said if isinstance(one, UserSaid) and one.answer}
    messages: list[dict[str, Any]] = []
    calls: dict[UUID, Any] = {}  # of the newest message
    continues = False
    for one in said:
        if isinstance(one, UserSaid):
            continues = one.answer is not None and one.answer.question_id in calls
            if not continues:
                messages.append(_question(request, one))
                calls = {}
            continue
        shown = _approvals(one, answers, is_newest=one is said[-1]) if approvals else {}
        # A question that is asked again, since another was answered, is in the message already.
        message = _answer(request, one, {key: None if key in calls else call for key, call in shown.items()})
        calls = {**calls, **shown}
        if continues:
            _continue(messages[-1], message)
        else:
            messages.append(message)
    return messages


def _approvals(answered: Answered, answers: Mapping[UUID, Any], *, is_newest: bool) -> dict[UUID, dict[str, Any]]:
    """Return the parts of an answer's questions that are approvals, by question."""
    now = datetime.now(UTC)
    parts: dict[UUID, dict[str, Any]] = {}
    for item in answered.items:
        if not (isinstance(item, PersonAsked) and is_approval(item.question)):
            continue
        question = item.question
        is_open = is_newest and not question.has_expired(now)
        if is_open or question.question_id in answers:
            parts[question.question_id] = _approval(question, answers)
    return parts


def _approval(question: Question, answers: Mapping[UUID, Any]) -> dict[str, Any]:
    call = {"type": "dynamic-tool", "providerExecuted": True, **call_of(question)}
    approval: dict[str, Any] = {"id": call["toolCallId"]}
    if question.question_id not in answers:
        return {**call, "state": "approval-requested", "approval": approval}
    value = answers[question.question_id]
    if approves(call["input"], value):
        return {**call, "state": "output-available", "output": value, "approval": {**approval, "approved": True}}
    return {**call, "state": "output-denied", "approval": {**approval, "approved": False}}


def _continue(message: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Add another step to a message."""
    message["parts"] += [{"type": "step-start"}, *more["parts"]]
    if "metadata" in more:
        message["metadata"] = more["metadata"]


def _question(request: Request, said: UserSaid) -> dict[str, Any]:
    files = [_file(request, file) for file in said.files]
    return {"id": said.message_id, "role": "user", "parts": [*files, {"type": "text", "text": said.text}]}


def _file(request: Request, file: FileFacts) -> dict[str, Any]:
    return {"type": "file", "mediaType": file.type, "filename": file.name, "url": file_url(request, file)}


def _answer(request: Request, answered: Answered, approvals: Mapping[UUID, dict[str, Any] | None]) -> dict[str, Any]:
    parts = _parts(request, answered.items, approvals)
    message: dict[str, Any] = {"id": answered.answer_id, "role": "assistant", "parts": parts}
    used = [item for item in answered.items if isinstance(item, ModelUsed)]
    if used:
        message["metadata"] = {"usage": usage_of(used)}
    return message


def usage_of(used: Sequence[ModelUsed]) -> dict[str, int]:
    """Return the sum of what model calls have used, by the names of the AI SDK."""
    sent, received = sum(one.input_tokens for one in used), sum(one.output_tokens for one in used)
    cached = sum(one.cached_tokens for one in used)
    return {"inputTokens": sent, "outputTokens": received, "totalTokens": sent + received, "cachedInputTokens": cached}


def _parts(
    request: Request, items: Iterable[SpokenItem], approvals: Mapping[UUID, dict[str, Any] | None]
) -> list[dict[str, Any]]:
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
            case FilesSent(_, files):
                parts.extend(_file(request, file) for file in files)
            case SourceNamed(event_id, str(url), title):
                parts.append({"type": "source-url", "sourceId": event_id, "url": url, **_titled(title)})
            case SourceNamed(event_id, None, title):
                document = {"type": "source-document", "sourceId": event_id, "mediaType": "text/plain"}
                parts.append({**document, **_titled(title)})
            case PersonAsked(_, question) if question.question_id in approvals:
                if (part := approvals[question.question_id]) is not None:
                    parts.append(part)
            case PersonAsked(_, question):
                parts.append({"type": "text", "text": item.text, "state": "done"})
                parts.append({"type": "data-question", "id": question.question_id, "data": question.shown()})
            case NewEvent(event_id, event_type, data):
                parts.append({"type": f"data-{event_type}", "id": event_id, "data": orjson.Fragment(data)})
    return parts


def _titled(title: str | None) -> dict[str, str]:
    return {"title": title} if title else {}
