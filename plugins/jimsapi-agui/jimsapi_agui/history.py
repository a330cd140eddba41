"""Stored conversations as the messages of AG-UI."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import orjson

from jimsapi.asgi import Request
from jimsapi.threads import Question
from jimsapi.wire import (
    Answered,
    MessagePiece,
    PersonAsked,
    ReasoningPiece,
    SpokenItem,
    ToolEnded,
    ToolStarted,
    UserSaid,
    file_url,
)

_MEDIA = ("image", "audio", "video")


def messages_of(request: Request, said: Iterable[UserSaid | Answered]) -> list[dict[str, Any]]:
    """Return the messages of a conversation."""
    messages: list[dict[str, Any]] = []
    for one in said:
        if isinstance(one, UserSaid):
            messages.append({"id": one.message_id, "role": "user", "content": _content(request, one)})
        else:
            messages.extend(_answer(one.items))
    return messages


def open_questions(said: Iterable[UserSaid | Answered]) -> list[Question]:
    """Return the questions with which the newest answer ends, without those that have expired."""
    *_, newest = [None, *said]
    if not isinstance(newest, Answered):
        return []
    now = datetime.now(UTC)
    asked = [item.question for item in newest.items if isinstance(item, PersonAsked)]
    return [question for question in asked if not question.has_expired(now)]


def _content(request: Request, said: UserSaid) -> Any:
    if not said.files:
        return said.text
    files = [
        {"type": _kind(file.type), "source": {"type": "url", "value": file_url(request, file), "mimeType": file.type}}
        for file in said.files
    ]
    return [*([{"type": "text", "text": said.text}] if said.text else []), *files]


def _kind(media_type: str) -> str:
    main = media_type.partition("/")[0]
    return main if main in _MEDIA else "document"


def _answer(items: Iterable[SpokenItem]) -> Iterator[dict[str, Any]]:
    for item in items:
        match item:
            case MessagePiece(message_id, text):
                yield {"id": message_id, "role": "assistant", "content": text}
            case ReasoningPiece(event_id, text):
                yield {"id": event_id, "role": "reasoning", "content": text}
            case ToolStarted(event_id, name, arguments):
                function = {"name": name, "arguments": orjson.dumps(arguments).decode()}
                call = {"id": event_id, "type": "function", "function": function}
                yield {"id": f"{event_id}-call", "role": "assistant", "toolCalls": [call]}
            case ToolEnded(event_id, result, error):
                text = result if isinstance(result, str) else orjson.dumps(result).decode()
                content = text if error is None else error
                yield {"id": f"{event_id}-result", "role": "tool", "toolCallId": event_id, "content": content}
