"""The body of `POST /v1/responses`, and the items that clients send."""

from typing import Any

import msgspec
import orjson

from jimsapi.asgi import ValidationError
from jimsapi.runs import storable_json
from jimsapi.threads import Event, SentFile
from jimsapi.wire import NotAFile, file_of_base64, file_of_url, named_file

WITHOUT_EFFECT = (
    "context_management", "frequency_penalty", "include", "instructions", "max_output_tokens", "max_tool_calls",
    "moderation", "parallel_tool_calls", "presence_penalty", "prompt_cache_key", "prompt_cache_options",
    "prompt_cache_retention", "reasoning", "service_tier", "temperature", "tool_choice", "tools", "top_logprobs",
    "top_p", "truncation",
)  # fmt: skip
"""Fields of the API that have no effect, because the pipeline decides these."""

MOST_ITEMS = 1000
"""The most items of an input."""
MOST_NAMED = 20
"""The most items without effect that are named: a long history may have very many."""

USER_MESSAGE = "comm.user_message"
ASSISTANT_MESSAGE = "comm.assistant_message"

_KEPT = {("message", "user"), ("message", "assistant"), ("reasoning", "none"), ("mcp_call", "none")}
"""The types and roles of items that threads keep."""


class ResponseRequest(msgspec.Struct):
    """The body of a request for a response. Fields that are not listed are ignored."""

    input: str | list[dict[str, Any]]
    model: str | None = None
    stream: bool | None = None
    background: bool | None = None
    store: bool | None = None
    conversation: str | dict[str, Any] | None = None
    previous_response_id: str | None = None
    metadata: dict[str, Any] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    include: list[str] | None = None
    text: dict[str, Any] | None = None
    prompt: dict[str, Any] | None = None


class Approval(msgspec.Struct, frozen=True):
    """The answer to a request for approval. `place` is where it is in the body."""

    request_id: str
    approve: bool
    reason: str
    place: str


class Message(msgspec.Struct):
    """A message of the user: its text, the files within it, and the identifiers of files that the server has."""

    text: str
    files: list[SentFile] = []
    file_ids: list[str] = []


class Input(msgspec.Struct):
    """What a request says.

    `messages` and `approvals` are those after the last item of the assistant. `earlier` are the items before the last
    message of the user, with their places in the body.
    """

    messages: list[Message]
    approvals: list[Approval]
    earlier: list[tuple[str, dict[str, Any]]]

    def all_new(self) -> Message:
        """Return all messages as one, for a thread that has the earlier items."""
        return Message(
            "\n\n".join(message.text for message in self.messages if message.text),
            [file for message in self.messages for file in message.files],
            [file_id for message in self.messages for file_id in message.file_ids],
        )


def check_count(value: Any) -> None:
    """Raise `ValidationError` if the body of a request, as decoded JSON, has too many items to read them."""
    items = value.get("input") if isinstance(value, dict) else None
    if isinstance(items, list) and len(items) > MOST_ITEMS:
        text = f"Send at most {MOST_ITEMS} items, not {len(items)}: a thread has the earlier ones"
        raise refused("input", text)


def check_fields(body: ResponseRequest) -> None:
    """Raise `ValidationError` for options that are not supported: if they were ignored, the answer would mislead."""
    if (body.text or {}).get("format", {"type": "text"}) not in (None, {"type": "text"}):
        raise refused("text.format", "Answers are text: omit text.format")
    if any("logprobs" in name for name in body.include or ()):
        raise refused("include", "Answers have no logprobs: omit them from include")
    if body.prompt:
        raise refused("prompt", "This server has no prompt templates: send the message as input")
    if body.conversation and body.previous_response_id:
        raise refused("previous_response_id", "Send conversation or previous_response_id, and not both")
    if body.store is False:
        for field in ("conversation", "previous_response_id", "background"):
            if getattr(body, field):
                raise refused("store", f"With {field} the response is stored: omit store, or {field}")


def conversation_of(body: ResponseRequest) -> str | None:
    """Return the identifier of the conversation that a request names. Raises `ValidationError`."""
    named = body.conversation
    if isinstance(named, dict):
        named = named.get("id")
        if not isinstance(named, str):
            raise refused("conversation.id", "A conversation is named by its id")
    return named or None


def read_input(value: str | list[dict[str, Any]]) -> Input:
    """Return what a request says.

    Raises `ValidationError` if neither a message nor an approval follows the last item of the assistant, and for parts
    of messages that this server does not take.
    """
    if isinstance(value, str):
        return Input([Message(value)], [], [])
    items = [(f"input.{index}", item) for index, item in enumerate(value)]
    begin = 0
    for index, (place, item) in enumerate(items):
        if _kind(item) == "item_reference":
            text = "This server resolves no item_reference: send the items, or name a previous_response_id"
            raise refused(place, text)
        if not _is_new(item):
            begin = index + 1
    new = items[begin:]
    messages = [_message(place, item) for place, item in new if _role(item) == "user"]
    approvals = [_approval(place, item) for place, item in new if _kind(item) == "mcp_approval_response"]
    if not (messages or approvals):
        raise refused("input", "There is no message of the user after the last item of the assistant")
    of_user = [index for index, (_, item) in enumerate(items) if _role(item) == "user"]
    return Input(messages, approvals, items[: of_user[-1] if messages else begin])


def earlier_events(said: Input) -> tuple[list[Event], list[str]]:
    """Return the events for the items before the last message, and the places of the first items that have none.

    Raises `InputRefused` if an item cannot be stored.
    """
    events: list[Event] = []
    ignored: list[str] = []
    for place, item in said.earlier:
        event = _event_or_none(place, item)
        if event is not None:
            events.append(event)
        elif len(ignored) < MOST_NAMED:
            ignored.append(place)
    return events, ignored


def _event_or_none(place: str, item: dict[str, Any]) -> Event | None:
    if (_kind(item), _role(item)) not in _KEPT:  # there may be many of them, and an error costs more
        return None
    try:
        return event_of_item(place, item)
    except ValidationError:
        return None


def event_of_item(place: str, item: dict[str, Any]) -> Event:
    """Return the event for an item that a client adds to a conversation.

    Raises `ValidationError` for other items, and `InputRefused` if the event cannot be stored.
    """
    event = _event(place, item)
    storable_json(place, event.event_data)
    return event


def _event(place: str, item: dict[str, Any]) -> Event:
    match _kind(item), _role(item):
        case "message", "user":
            message = _message(place, item)
            if message.files or message.file_ids:
                raise refused(place, "Send a file with a message that is answered, as the input of a response")
            return Event(event_type=USER_MESSAGE, event_data={"role": "user", "content": message.text})
        case "message", "assistant":
            text = _text_of_assistant(place, item.get("content"))
            return Event(event_type=ASSISTANT_MESSAGE, event_data={"role": "assistant", "content": text})
        case "reasoning", _:
            return Event(event_type="model.reasoning", event_data={"content": _summary(place, item.get("summary"))})
        case "mcp_call", _:
            return Event(event_type="tool.call", event_data=_call(place, item))
    raise refused(place, f"This server keeps no items of the type {_kind(item)[:100]} and the role {_role(item)[:100]}")


def refused(place: str, text: str) -> ValidationError:
    """Return the error for a field that this server does not take."""
    return ValidationError([{"type": "unsupported", "loc": ["body", *place.split(".")], "msg": text, "input": None}])


def _kind(item: dict[str, Any]) -> str:
    return str(item.get("type") or "message")


def _role(item: dict[str, Any]) -> str:
    return str(item.get("role") or "none") if _kind(item) == "message" else "none"


def _is_new(item: dict[str, Any]) -> bool:
    """Return whether an item may come from the client: a message of any role but the assistant's, or an approval."""
    return _kind(item) == "mcp_approval_response" or (_kind(item) == "message" and _role(item) != "assistant")


def _approval(place: str, item: dict[str, Any]) -> Approval:
    match item:
        case {"approval_request_id": str(request_id), "approve": bool(approve), **more}:
            reason = more.get("reason")
            return Approval(request_id, approve, reason if isinstance(reason, str) else "", place)
    raise refused(place, "An approval must have an approval_request_id and approve, which is true or false")


def _message(place: str, item: dict[str, Any]) -> Message:
    content = item.get("content")
    if isinstance(content, str):
        return Message(content)
    if not isinstance(content, list) or not content:
        raise refused(f"{place}.content", "A message must be a text, or a list of parts")
    texts: list[str] = []
    message = Message("")
    for number, part in enumerate(content):
        at = f"{place}.content.{number}"
        try:
            match part:
                case {"type": "input_text" | "text", "text": str(text)}:
                    texts.append(text)
                case {"type": "input_image" | "input_file", "file_id": str(file_id)}:
                    message.file_ids.append(file_id)
                case {"type": "input_image", "image_url": str(url)}:
                    _add(message, url, "")
                case {"type": "input_file", "file_data": str(url), **more} | {
                    "type": "input_file", "file_url": str(url), **more
                }:  # fmt: skip
                    _add(message, url, _string(more.get("filename")))
                case {"type": "input_audio", "input_audio": {"data": str(data), "format": str(kind)}}:
                    message.files.append(file_of_base64(data, f"audio.{kind}", f"audio/{kind}"))
                case {"type": str(kind)}:
                    raise refused(at, f"This server takes no part of the type {kind[:100]} with these fields")
                case _:
                    raise refused(at, "A part of a message must have a type")
        except NotAFile as error:
            raise refused(at, str(error)) from None
    message.text = "\n".join(texts)
    return message


def _add(message: Message, url: str, name: str) -> None:
    """Add the file in a URL, or the one of this server that it names. Raises `NotAFile`."""
    file_id = named_file(url)
    if file_id is None:
        message.files.append(file_of_url(url, name))
    else:
        message.file_ids.append(file_id)


def _text_of_assistant(place: str, content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    texts = [part["text"] for part in parts if isinstance(part.get("text"), str)]
    if not texts:
        raise refused(f"{place}.content", "A message of the assistant must have a text")
    return "\n".join(texts)


def _summary(place: str, summary: Any) -> str:
    if summary is not None and not isinstance(summary, list):
        raise refused(f"{place}.summary", "The summary of a reasoning is a list of parts")
    parts = [part for part in summary or () if isinstance(part, dict)]
    return "".join(_string(part.get("text")) for part in parts)


def _call(place: str, item: dict[str, Any]) -> dict[str, Any]:
    """Return the data of the event for a tool call."""
    try:
        arguments = orjson.loads(_string(item.get("arguments")) or "{}")
    except orjson.JSONDecodeError:
        raise refused(f"{place}.arguments", "The arguments of a call are the JSON text of an object") from None
    if not isinstance(arguments, dict) or not isinstance(item.get("name"), str):
        raise refused(place, "A call must have a name, and the JSON text of an object as its arguments")
    error = item.get("error")
    text = None if error is None else _error_text(error)
    return {
        "id": _string(item.get("id")),
        "name": item["name"],
        "arguments": arguments,
        "result": item.get("output"),
        "error": text,
        "duration": 0.0,
    }


def _error_text(error: Any) -> str:
    parts = error.get("content") if isinstance(error, dict) else error
    if isinstance(parts, list):
        return "".join(_string(part.get("text")) for part in parts if isinstance(part, dict))
    return parts if isinstance(parts, str) else orjson.dumps(error).decode()


def _string(value: Any) -> str:
    return value if isinstance(value, str) else ""
