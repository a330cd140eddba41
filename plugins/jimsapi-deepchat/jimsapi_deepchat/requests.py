"""What Deep Chat sends, and the one message of it that is new."""

from typing import Any

import msgspec
import orjson

from jimsapi.asgi.body import decode_json
from jimsapi.asgi.errors import HTTPError, ValidationError
from jimsapi.asgi.validation import convert_body
from jimsapi.wire.turn import Turn


class DeepChatRequest(msgspec.Struct):
    """The body. `contact_id`, `chat_id` and `stream` come from the component's `additionalBodyProps`."""

    messages: list[dict[str, Any]]
    contact_id: str | None = None
    chat_id: str | None = None
    stream: bool | None = None


def read_frame(frame: str | bytes) -> DeepChatRequest:
    """A message of a WebSocket: the body as JSON, encoded once, or twice as the component does; else plain text.

    Raises `HTTPError` for a binary frame, `ValidationError` for a faulty body.
    """
    if isinstance(frame, bytes):
        raise HTTPError(415, "A frame is text")
    return read_value(decode_json(frame.encode()) if _is_json(frame) else frame)


def read_value(value: Any) -> DeepChatRequest:
    """A body that is JSON already; a text is one that was encoded again, or the message itself.

    Raises `ValidationError` for a faulty one.
    """
    if isinstance(value, str):
        value = decode_json(value.encode()) if value.startswith("{") else {"messages": [{"text": value}]}
    return convert_body(value, DeepChatRequest)


def new_turn(body: DeepChatRequest, thread: str | None = None) -> Turn:
    """The newest message of the person; `thread` names the conversation if the body does not.

    Raises `ValidationError` if there is none, or one that is more than text.
    """
    for index in range(len(body.messages) - 1, -1, -1):
        message = body.messages[index]
        if message.get("role", "user") == "user":
            text = message.get("text")
            if message.get("files"):
                raise _fault(index, "files", "This server takes text alone: send no files")
            if not isinstance(text, str):
                raise _fault(index, "text", "A message has a text")
            return Turn(text, thread=body.chat_id or thread, user=body.contact_id or None)
    raise ValidationError(
        [{"type": "missing", "loc": ["body", "messages"], "msg": "There is no message of a user", "input": None}]
    )


def _is_json(frame: str) -> bool:
    """Whether a frame is a body; a person's words are JSON by accident only."""
    if frame.startswith("{"):
        return True
    try:
        return isinstance(orjson.loads(frame), str)
    except orjson.JSONDecodeError:
        return False


def _fault(index: int, field: str, message: str) -> ValidationError:
    loc = ["body", "messages", index, field]
    return ValidationError([{"type": "unsupported", "loc": loc, "msg": message, "input": None}])
