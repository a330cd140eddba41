"""What an AG-UI client sends: of its RunAgentInput, what an answer needs."""

from typing import Annotated, Any

import msgspec

from jimsapi.api.protocol import Turn
from jimsapi.asgi.errors import ValidationError


class Message(msgspec.Struct):
    """A message of the conversation so far. The content of a user's is text, or a list of parts."""

    role: str
    content: Any = None


class RunAgentInput(msgspec.Struct, rename="camel"):
    """A request to run an agent. Names are the client's own: any text, for its threads and for its runs."""

    thread_id: Annotated[str, msgspec.Meta(min_length=1)]
    run_id: str
    messages: list[Message]


def turn_of(asked: RunAgentInput) -> Turn:
    """The newest message, which has to be the user's; all before it were sent earlier.

    Raises `ValidationError` if there is none, or if it has no text.
    """
    for place in reversed(range(len(asked.messages))):
        message = asked.messages[place]
        if message.role == "user":
            text = _text(message.content)
            if text is None:
                raise _fault("The message of the user has no text", place, "content")
            return Turn(text, thread=asked.thread_id)
        if message.role == "assistant":
            break
    raise _fault("The newest message has to be the user's")


def _text(content: Any) -> str | None:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)]
    return "\n".join(texts) if texts else None


def _fault(message: str, *place: str | int) -> ValidationError:
    loc = ["body", "messages", *place]
    return ValidationError([{"type": "value_error", "loc": loc, "msg": message, "input": None}])
