"""The requests to `/v1/chat/completions`, and the newest message in them."""

from typing import Any

import msgspec

from jimsapi.asgi import Connection, ValidationError
from jimsapi.wire import Turn

TASK = "### Task:"
"""The beginning of Open WebUI's own prompts, for example for titles, tags and follow-up questions."""
WITH_DOCUMENTS = TASK + "\nRespond to the user query"
"""The beginning of a user's message to which Open WebUI has added documents or results of a web search."""

_OPEN_WEBUI = b"x-openwebui-"


_WITHOUT_EFFECT = (
    "audio", "frequency_penalty", "function_call", "functions", "logit_bias", "max_completion_tokens", "max_tokens",
    "parallel_tool_calls", "prediction", "presence_penalty", "reasoning_effort", "seed", "service_tier", "stop",
    "temperature", "tool_choice", "tools", "top_logprobs", "top_p", "verbosity", "web_search_options",
)  # fmt: skip
"""Fields of the API that have no effect, because the pipeline decides these."""


class ChatRequest(msgspec.Struct):
    """The body of a request. `messages` is the client's whole conversation. Fields that are not listed are ignored."""

    messages: list[dict[str, Any]]
    model: str | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    user: str | None = None
    n: int | None = None
    response_format: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    logprobs: bool | None = None
    modalities: list[str] | None = None

    @property
    def wants_usage(self) -> bool:
        """Whether a stream must end with the usage."""
        return bool(self.stream_options and self.stream_options.get("include_usage"))


def new_turn(request: Connection, body: ChatRequest) -> Turn:
    """Return the newest message of the user. The thread has the earlier ones.

    Raises `ValidationError` for options that are not supported: if they were ignored, the client would misinterpret the
    answer.
    """
    if body.n is not None and body.n != 1:
        raise _validation_error("n", "The server sends one answer to a message: omit n")
    if body.response_format is not None and body.response_format.get("type", "text") != "text":
        raise _validation_error("response_format", "Answers are text: omit response_format")
    if body.logprobs:
        raise _validation_error("logprobs", "Answers have no logprobs: omit logprobs")
    if body.modalities and body.modalities != ["text"]:
        raise _validation_error("modalities", "Answers are text: omit modalities")
    message = _newest_message(body.messages)
    task = message.startswith(TASK) and not message.startswith(WITH_DOCUMENTS)
    once = task and any(name.startswith(_OPEN_WEBUI) for name, _ in request.headers.raw)
    return Turn(message, user=body.user or None, once=once, metadata=body.metadata)


def without_effect(body: Any) -> list[str]:
    """Return those fields of a body, as decoded JSON, that have no effect on the answer."""
    return [name for name in _WITHOUT_EFFECT if isinstance(body, dict) and body.get(name) not in (None, [], {})]


def _newest_message(messages: list[dict[str, Any]]) -> str:
    for index in range(len(messages) - 1, -1, -1):
        if messages[index].get("role") == "user":
            return _text(messages[index].get("content"), f"messages.{index}.content")
    raise _validation_error("messages", "There is no message with the role user")


def _text(content: Any, place: str) -> str:
    """The text of a message: a string, or text parts, which are joined with line ends."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        raise _validation_error(place, "A message must be a text, or a list of parts of the type text")
    texts = []
    for part in content:
        match part:
            case {"type": "text", "text": str(text)}:
                texts.append(text)
            case {"type": str(kind)} if kind != "text":
                raise _validation_error(place, f"This server accepts only text: omit parts of the type {kind[:100]}")
            case _:
                raise _validation_error(
                    place, "A part of a message must have a type, and a part of the type text also a text"
                )
    return "\n".join(texts)


def _validation_error(place: str, message: str) -> ValidationError:
    return ValidationError([{"type": "unsupported", "loc": ["body", *place.split(".")], "msg": message, "input": None}])
