"""The body of AG-UI's requests: the fields of RunAgentInput that an answer needs."""

from typing import Annotated, Any

import msgspec

from jimsapi.asgi import ValidationError
from jimsapi.threads import SentFile
from jimsapi.wire import Listed, NotAFile, Turn, file_of_base64, file_of_url, named_file, newest_of_user


class Message(msgspec.Struct):
    """A message of the conversation. The content of a user's message is a text or a list of parts.

    Its `id` is the client's, or that of an event of the thread.
    """

    role: str
    content: Any = None
    id: Any = None


class Resumed(msgspec.Struct, rename="camel"):
    """What a person did with an interrupt. If its `status` is `resolved`, `payload` is the answer to the question."""

    interrupt_id: str
    status: str
    payload: Any = None


class RunAgentInput(msgspec.Struct, rename="camel"):
    """A request to run an agent. The client chooses `thread_id` and `run_id`; they may be any text.

    `resume` has the answers to questions. The pipeline reads `state`, `context` and `forwarded_props` in
    `ctx.metadata`, by the names of the protocol. `tools` are
    those of the page, which the server cannot call.
    """

    thread_id: Annotated[str, msgspec.Meta(min_length=1)]
    run_id: str
    messages: list[Message]
    state: Any = None
    context: Any = None
    forwarded_props: Any = None
    tools: Any = None
    resume: list[Resumed] | None = None


_MEDIA = frozenset(("image", "audio", "video", "document", "binary"))


def turn_of(body: RunAgentInput) -> Turn:
    """Return the newest message of the user, or the answers to questions.

    Raises `ValidationError` if there is neither, or if the message has neither a text nor a file, or if the content of
    a file is not in the message.
    """
    sent = {"state": body.state, "context": body.context, "forwardedProps": body.forwarded_props}
    metadata = {name: value for name, value in sent.items() if value}
    if body.resume:  # the newest message is then that of an earlier run
        return Turn("", thread=body.thread_id, metadata=metadata, answers=_answers(body.resume))
    index = newest_of_user([message.role for message in body.messages])
    place: list[str | int] = ["messages", index, "content"]
    content = body.messages[index].content
    parts = [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    try:
        media = [part for part in parts if _text(part.get("type")) in _MEDIA]
        named = [file_id for part in media if (file_id := _named(part)) is not None]
        files = [_file(part) for part in media if _named(part) is None]
    except NotAFile as error:
        raise _invalid(place, str(error)) from None
    texts = [part["text"] for part in parts if isinstance(part.get("text"), str)]
    text = content if isinstance(content, str) else "\n".join(texts)
    if not (isinstance(content, str) or texts or media):
        raise _invalid(place, "The message of the user has no text")
    return Turn(
        text,
        thread=body.thread_id,
        metadata=metadata,
        files=files,
        file_ids=named,
        client_id=_text(body.messages[index].id) or None,
    )


def listed_in(body: RunAgentInput, turn: Turn) -> Listed | None:
    """Return the list of messages in which a turn comes; None if it has answers, or its message has no identifier."""
    if turn.client_id is None:
        return None
    index = newest_of_user([message.role for message in body.messages])
    named = [message for message in body.messages[:index] if _text(message.id)]
    said = [message for message in named if message.role in ("user", "assistant")]
    of_user = [message for message in said if message.role == "user"]
    return Listed(
        turn.client_id,
        turn.message,
        earlier=frozenset(message.id for message in named),
        follows=said[-1].id if said else None,
        newest_of_user=of_user[-1].id if of_user else None,
    )


def _named(part: dict[str, Any]) -> str | None:
    """Return the identifier of a file of this server that a part names by its URL."""
    source = part.get("source", part)
    return named_file(_text(source.get("value") or source.get("url"))) if isinstance(source, dict) else None


def _file(part: dict[str, Any]) -> SentFile:
    """Return the file of a part: its content is in `source`, or, in a part of the type `binary`, in the part itself."""
    source = part.get("source", part)
    name = _text(part.get("filename"))
    match source:
        case {"type": "data", "value": str(data)} | {"type": "binary", "data": str(data)}:
            return file_of_base64(data, name, _text(source.get("mimeType")))
        case {"type": "url", "value": str(url)} | {"type": "binary", "url": str(url)}:
            return file_of_url(url, name, _text(source.get("mimeType")))
    raise NotAFile("The content of a file must be in the message, in base64")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _answers(resume: list[Resumed]) -> dict[str, Any]:
    answers = {one.interrupt_id: one.payload for one in resume if one.status == "resolved"}
    if not answers:
        raise _invalid(["resume"], "No interrupt is resolved: send a message instead, which closes the questions")
    return answers


def _invalid(place: list[str | int], message: str) -> ValidationError:
    return ValidationError([{"type": "value_error", "loc": ["body", *place], "msg": message, "input": None}])
