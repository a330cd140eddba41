"""The body of AG-UI's requests: the fields of RunAgentInput that an answer needs."""

from typing import Annotated, Any

import msgspec

from jimsapi.asgi import ValidationError
from jimsapi.wire import Turn, newest_of_user


class Message(msgspec.Struct):
    """A message of the conversation. The content of a user's message is a text or a list of parts."""

    role: str
    content: Any = None


class RunAgentInput(msgspec.Struct, rename="camel"):
    """A request to run an agent. The client chooses `thread_id` and `run_id`; they may be any text."""

    thread_id: Annotated[str, msgspec.Meta(min_length=1)]
    run_id: str
    messages: list[Message]


def turn_of(body: RunAgentInput) -> Turn:
    """Return the newest message of the user. Raises `ValidationError` if there is none, or if it has no text."""
    index = newest_of_user([message.role for message in body.messages])
    text = _text(body.messages[index].content)
    if text is None:
        loc = ["body", "messages", index, "content"]
        message = "The message of the user has no text"
        raise ValidationError([{"type": "value_error", "loc": loc, "msg": message, "input": None}])
    return Turn(text, thread=body.thread_id)


def _text(content: Any) -> str | None:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)]
    return "\n".join(texts) if texts else None
