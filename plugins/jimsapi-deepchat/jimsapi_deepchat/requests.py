"""The requests of Deep Chat, and the newest message in them."""

from typing import Any

import msgspec
import orjson

from jimsapi.asgi import HTTPError, ValidationError, convert_body, decode_json
from jimsapi.wire import Turn


class DeepChatRequest(msgspec.Struct):
    """The body of a request. The component sends `contact_id`, `chat_id` and `stream` if a page sets them in
    `additionalBodyProps`."""

    messages: list[dict[str, Any]]
    contact_id: str | None = None
    chat_id: str | None = None
    stream: bool | None = None


def read_frame(frame: str | bytes) -> DeepChatRequest:
    """Decode a WebSocket frame: JSON, JSON in a JSON string as the component sends it, or plain text.

    Raises `HTTPError` for a binary frame, and `ValidationError` for an invalid body.
    """
    if isinstance(frame, bytes):
        raise HTTPError(415, "A frame must be text")
    return read_value(decode_json(frame.encode()) if _is_json(frame) else frame)


def read_value(value: Any) -> DeepChatRequest:
    """Convert a JSON value to a body. A string is a body that is encoded as JSON again, or the text of a message.

    Raises `ValidationError` if it is invalid.
    """
    if isinstance(value, str):
        value = decode_json(value.encode()) if value.startswith("{") else {"messages": [{"text": value}]}
    return convert_body(value, DeepChatRequest)


def new_turn(body: DeepChatRequest, thread: str | None = None) -> Turn:
    """Return the newest message of the user. `thread` is the name of the conversation if the body has none.

    Raises `ValidationError` if there is no such message, or if it has files or no text.
    """
    for index in range(len(body.messages) - 1, -1, -1):
        message = body.messages[index]
        if message.get("role", "user") == "user":
            text = message.get("text")
            if message.get("files"):
                raise _validation_error(index, "files", "This server accepts only text: send no files")
            if not isinstance(text, str):
                raise _validation_error(index, "text", "A message must have a text")
            return Turn(text, thread=body.chat_id or thread, user=body.contact_id or None)
    raise ValidationError(
        [{"type": "missing", "loc": ["body", "messages"], "msg": "There is no message of the user", "input": None}]
    )


def _is_json(frame: str) -> bool:
    """Whether a frame is a body in JSON, and not the text of a message."""
    if frame.startswith("{"):
        return True
    try:
        return isinstance(orjson.loads(frame), str)
    except orjson.JSONDecodeError:
        return False


def _validation_error(index: int, field: str, message: str) -> ValidationError:
    loc = ["body", "messages", index, field]
    return ValidationError([{"type": "unsupported", "loc": loc, "msg": message, "input": None}])
