"""The body of the requests of `useChat`: the fields that an answer needs."""

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from jimsapi.asgi import ValidationError
from jimsapi.threads import SentFile
from jimsapi.wire import NotAFile, Replaced, Turn, file_of_url, named_file, newest_of_user
from jimsapi_vercel.approvals import Approval, approval_of

REGENERATE = "regenerate-message"
"""The `trigger` of a request that only asks for another answer."""


class Approved(msgspec.Struct):
    """What a person did with an approval. Its `id` is that of a question."""

    id: str
    approved: bool | None = None


class Part(msgspec.Struct, rename="camel"):
    """A part of a message. Parts of the type `text` have its text, and those of the type `file` a file.

    A part with the state `approval-responded` is a tool call that a person has approved or denied.
    """

    type: str
    text: str | None = None
    url: str | None = None
    media_type: str | None = None
    filename: str | None = None
    state: str | None = None
    input: Any = None
    approval: Approved | None = None


class UIMessage(msgspec.Struct):
    """A message of the chat."""

    role: str
    parts: list[Part]
    id: str = ""
    metadata: Any = None


class ChatRequest(msgspec.Struct):
    """The body of `DefaultChatTransport`. `id` is the client's name of the chat, any text. `message_id` names a message
    that was edited, or whose answer is regenerated."""

    id: Annotated[str, msgspec.Meta(min_length=1)]
    messages: list[UIMessage]
    trigger: str | None = None
    message_id: str | None = msgspec.field(default=None, name="messageId")


def approvals_in(body: ChatRequest) -> list[Approval]:
    """Return what a person did with the approvals in the newest message, if it is the assistant's.

    Only its last step counts, as in the SDK: earlier steps have been answered. Raises `ValidationError` if an approval
    is of no question.
    """
    if not body.messages or body.messages[-1].role != "assistant":
        return []
    found: list[Approval] = []
    for part in reversed(body.messages[-1].parts):
        if part.type == "step-start":
            break
        responded = part.approval
        if part.state != "approval-responded" or responded is None or responded.approved is None:
            continue
        approval = approval_of(responded.id, part.input, responded.approved)
        if approval is None:
            raise _invalid(len(body.messages) - 1, "An approval is of a tool that is no question of this server")
        found.append(approval)
    return found[::-1]


def turn_of(body: ChatRequest, approvals: Sequence[Approval] = ()) -> Turn:
    """Return the newest message of the user, or the answers of a person who has approved or denied something.

    Raises `ValidationError` if there is neither, if the message has neither a text nor a file, or if the content of a
    file is not in the message.
    """
    if approvals:
        return Turn("", thread=body.id, answers={one.question_id: one.value for one in approvals})
    index = newest_of_user([message.role for message in body.messages])
    message = body.messages[index]
    try:
        named, files = _files(message.parts)
    except NotAFile as error:
        raise _invalid(index, str(error)) from None
    texts = _texts(message)
    if not (texts or files or named):
        raise _invalid(index, "The message of the user has no text")
    metadata = message.metadata if isinstance(message.metadata, dict) else None
    return Turn(
        "\n".join(texts),
        thread=body.id,
        metadata=metadata,
        files=files,
        file_ids=named,
        answers_in_text=body.trigger != REGENERATE,
        client_id=message.id or None,
    )


def replaced_by(body: ChatRequest) -> Replaced | None:
    """Return the message that the newest message of the user replaces; None if it is a new message.

    To regenerate an answer, the client cuts its messages after that of the user. An edited message has the identifier
    of the message that it replaces.
    """
    index = newest_of_user([message.role for message in body.messages])
    message = body.messages[index]
    regenerates = body.trigger == REGENERATE
    if not regenerates and (not message.id or body.message_id != message.id):
        return None
    position = sum(earlier.role == "user" for earlier in body.messages[:index])
    return Replaced(message.id, position, "\n".join(_texts(message)) if regenerates else None)


def _texts(message: UIMessage) -> list[str]:
    return [part.text for part in message.parts if part.type == "text" and part.text is not None]


def _files(parts: Sequence[Part]) -> tuple[list[str], list[SentFile]]:
    """Return the identifiers of files that the server has, and the files in the message. Raises `NotAFile`."""
    named: list[str] = []
    files: list[SentFile] = []
    for part in parts:
        if part.type != "file":
            continue
        file_id = named_file(part.url or "")
        if file_id is None:
            files.append(file_of_url(part.url or "", part.filename or "", part.media_type or ""))
        else:
            named.append(file_id)
    return named, files


def _invalid(index: int, message: str) -> ValidationError:
    loc = ["body", "messages", index, "parts"]
    return ValidationError([{"type": "value_error", "loc": loc, "msg": message, "input": None}])
