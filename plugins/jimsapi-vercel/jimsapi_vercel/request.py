"""The body of the requests of `useChat`: the fields that an answer needs."""

from typing import Annotated

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


class ChatRequest(msgspec.Struct):
    """The body of `DefaultChatTransport`. `id` is the client's name of the chat, any text."""

    id: Annotated[str, msgspec.Meta(min_length=1)]
    messages: list[UIMessage]


def turn_of(body: ChatRequest) -> Turn:
    """Return the newest message of the user. Raises `ValidationError` if there is none, or if it has no text."""
    index = newest_of_user([message.role for message in body.messages])
    texts = [part.text for part in body.messages[index].parts if part.type == "text" and part.text is not None]
    if not texts:
        loc = ["body", "messages", index, "parts"]
        message = "The message of the user has no text"
        raise ValidationError([{"type": "value_error", "loc": loc, "msg": message, "input": None}])
    return Turn("\n".join(texts), thread=body.id)
