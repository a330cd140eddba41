"""The body of the requests of `useChat`: the fields that an answer needs."""

from typing import Annotated, Any

import msgspec

from jimsapi.asgi import ValidationError
from jimsapi.wire import Turn, newest_of_user


class Part(msgspec.Struct):
    """A part of a message. Parts of the type `text` have its text."""

    type: str
    text: str | None = None


class UIMessage(msgspec.Struct):
    """A message of the chat."""

    role: str
    parts: list[Part]
    metadata: Any = None


class ChatRequest(msgspec.Struct):
    """The body of `DefaultChatTransport`. `id` is the client's name of the chat, any text."""

    id: Annotated[str, msgspec.Meta(min_length=1)]
    messages: list[UIMessage]


def turn_of(body: ChatRequest) -> Turn:
    """Return the newest message of the user.

    Raises `ValidationError` if there is none, if it has no text, or if it has a file: if the file were ignored, the
    answer would mislead.
    """
    index = newest_of_user([message.role for message in body.messages])
    message = body.messages[index]
    if any(part.type == "file" for part in message.parts):
        raise _invalid(index, "This server accepts only text: send no files")
    texts = [part.text for part in message.parts if part.type == "text" and part.text is not None]
    if not texts:
        raise _invalid(index, "The message of the user has no text")
    metadata = message.metadata if isinstance(message.metadata, dict) else None
    return Turn("\n".join(texts), thread=body.id, metadata=metadata)


def _invalid(index: int, message: str) -> ValidationError:
    loc = ["body", "messages", index, "parts"]
    return ValidationError([{"type": "value_error", "loc": loc, "msg": message, "input": None}])
