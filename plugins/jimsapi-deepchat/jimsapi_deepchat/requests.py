"""The requests of Deep Chat, and the newest message in them."""

import re
from typing import Any

import msgspec
import orjson

from jimsapi.asgi import HTTPError, Request, ValidationError, convert_body, decode_json
from jimsapi.asgi.forms import read_form
from jimsapi.threads import SentFile
from jimsapi.wire import Turn

FILES = "files"
"""The name of the fields of a form that have files."""
OCTETS = "application/octet-stream"
NO_VALUES = ("null", "undefined")
"""Texts that the component writes into a form for values that the page does not have."""

_MESSAGE = re.compile("message[0-9]{1,6}")


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


async def read_form_turn(request: Request) -> tuple[Turn, bool]:
    """Return the newest message of a form, which the component sends if the message has files, and its `stream`.

    The fields `message1` and so on are messages as JSON; the last one is missing if it has no text. Earlier ones have
    their files, as texts. Raises `ValidationError` if a field is invalid, and as `read_form` does.
    """
    async with read_form(request, max_text=request.max_body) as form:
        fields = dict(form)
        named = sorted((name for name in fields if _MESSAGE.fullmatch(name)), key=lambda name: int(name[7:]))
        body = {
            "messages": [decode_json(fields[name].encode()) for name in named],
            **{name: fields.get(name) for name in ("contact_id", "chat_id") if fields.get(name) not in NO_VALUES},
            "stream": fields.get("stream") == "true",
        }
        files = [SentFile(file.filename, file.content_type or OCTETS, await file.read()) for file in form.files(FILES)]
    converted = convert_body(body, DeepChatRequest)
    last = converted.messages[-1] if converted.messages else {}
    is_earlier = last.get("files") and not last.get("text")
    if not converted.messages or last.get("role", "user") != "user" or is_earlier:
        converted.messages.append({"text": ""})
    return msgspec.structs.replace(new_turn(converted), files=files), bool(converted.stream)


def new_turn(body: DeepChatRequest, thread: str | None = None) -> Turn:
    """Return the newest message of the user. `thread` is the name of the conversation if the body has none.

    Raises `ValidationError` if there is no such message, or if it has no text, or files that are not in a form.
    """
    for index in range(len(body.messages) - 1, -1, -1):
        message = body.messages[index]
        if message.get("role", "user") == "user":
            text = message.get("text")
            if message.get("files"):
                raise _validation_error(index, "files", "Send files in a form, as the component does")
            if not isinstance(text, str):
                raise _validation_error(index, "text", "A message must have a text")
            return Turn(text, thread=body.chat_id or thread, user=body.contact_id or None, answers_in_text=True)
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
