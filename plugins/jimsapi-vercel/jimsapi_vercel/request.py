"""The body of the requests of `useChat`: the fields that an answer needs."""

from typing import Annotated, Any

import msgspec

from jimsapi.asgi import ValidationError
from jimsapi.wire import NotAFile, Turn, file_of_url, newest_of_user


class Part(msgspec.Struct, rename="camel"):
    """A part of a message. Parts of the type `text` have its text, and those of the type `file` a file."""

    type: str
    text: str | None = None
    url: str | None = None
    media_type: str | None = None
    filename: str | None = None


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

    Raises `ValidationError` if there is none, if it has neither a text nor a file, or if the content of a file is not
    in the message.
    """
    index = newest_of_user([message.role for message in body.messages])
    message = body.messages[index]
    try:
        files = [
            file_of_url(p.url or "", p.filename or "", p.media_type or "") for p in message.parts if p.type == "file"
        ]
    except NotAFile as error:
        raise _invalid(index, str(error)) from None
    texts = [part.text for part in message.parts if part.type == "text" and part.text is not None]
    if not (texts or files):
        raise _invalid(index, "The message of the user has no text")
    metadata = message.metadata if isinstance(message.metadata, dict) else None
    return Turn("\n".join(texts), thread=body.id, metadata=metadata, files=files, answers_in_text=True)


def _invalid(index: int, message: str) -> ValidationError:
    loc = ["body", "messages", index, "parts"]
    return ValidationError([{"type": "value_error", "loc": loc, "msg": message, "input": None}])
