"""What `useChat` sends: of its body, what an answer needs."""

from typing import Annotated

import msgspec

from jimsapi.api.protocol import Turn
from jimsapi.asgi.errors import ValidationError


class Part(msgspec.Struct):
    """A part of a message; those of the type `text` are what was said."""

    type: str
    text: str | None = None


class UIMessage(msgspec.Struct):
    """A message of the chat so far."""

    role: str
    parts: list[Part]


class ChatRequest(msgspec.Struct):
    """The body of `DefaultChatTransport`. `id` is the client's own name of the chat: any text."""

    id: Annotated[str, msgspec.Meta(min_length=1)]
    messages: list[UIMessage]


def turn_of(asked: ChatRequest) -> Turn:
    """The newest message, which has to be the user's; all before it were sent earlier.

    Raises `ValidationError` if there is none, or if it has no text.
    """
    for place in reversed(range(len(asked.messages))):
        message = asked.messages[place]
        if message.role == "user":
            texts = [part.text for part in message.parts if part.type == "text" and part.text is not None]
            if not texts:
                raise _fault("The message of the user has no text", place, "parts")
            return Turn("\n".join(texts), thread=asked.id)
        if message.role == "assistant":
            break
    raise _fault("The newest message has to be the user's")


def _fault(message: str, *place: str | int) -> ValidationError:
    loc = ["body", "messages", *place]
    return ValidationError([{"type": "value_error", "loc": loc, "msg": message, "input": None}])
