"""The requests to `/v1/chat/completions`, and the newest message in them."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from jimsapi.asgi import Connection, ValidationError
from jimsapi.threads import SentFile
from jimsapi.wire import NotAFile, Turn, file_of_base64, file_of_url

TASK = "### Task:"
"""The beginning of Open WebUI's own prompts, for example for titles, tags and follow-up questions."""
WITH_DOCUMENTS = TASK + "\nRespond to the user query"
"""The beginning of a user's message to which Open WebUI has added documents or results of a web search."""

_OPEN_WEBUI = b"x-openwebui-"


WITHOUT_EFFECT = (
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
    message, files = _newest_message(body.messages)
    once = is_task(request, message)
    return Turn(message, user=body.user or None, once=once, metadata=body.metadata, files=files, answers_in_text=True)


def is_task(request: Connection, message: str) -> bool:
    """Return whether a message is a prompt of Open WebUI's own."""
    return message.startswith(TASK) and not message.startswith(WITH_DOCUMENTS) and is_of_open_webui(request)


def is_of_open_webui(request: Connection) -> bool:
    """Return whether Open WebUI has sent a request."""
    return any(name.startswith(_OPEN_WEBUI) for name, _ in request.headers.raw)


def without_effect(body: Any, names: Sequence[str] = WITHOUT_EFFECT) -> list[str]:
    """Return those of the fields `names` of a body, as decoded JSON, that have no effect on the answer."""
    return [name for name in names if isinstance(body, dict) and body.get(name) not in (None, [], {})]


def _newest_message(messages: list[dict[str, Any]]) -> tuple[str, list[SentFile]]:
    for index in range(len(messages) - 1, -1, -1):
        if messages[index].get("role") == "user":
            return _content(messages[index].get("content"), f"messages.{index}.content")
    raise _validation_error("messages", "There is no message with the role user")


def _content(content: Any, place: str) -> tuple[str, list[SentFile]]:
    """Return the text and the files of a message: it is a string, or parts, whose texts are joined with line ends."""
    if isinstance(content, str):
        return content, []
    if not isinstance(content, list) or not content:
        raise _validation_error(place, "A message must be a text, or a list of parts")
    texts: list[str] = []
    files: list[SentFile] = []
    for part in content:
        try:
            match part:
                case {"type": "text", "text": str(text)}:
                    texts.append(text)
                case {"type": str(kind)} if kind in _FILES:
                    files.append(_FILES[kind](part))
                case {"type": str(kind)} if kind != "text":
                    raise _validation_error(place, f"This server does not know parts of the type {kind[:100]}")
                case _:
                    raise _validation_error(
                        place, "A part of a message must have a type, and a part of the type text also a text"
                    )
        except NotAFile as error:
            raise _validation_error(place, str(error)) from None
    return "\n".join(texts), files


def _image(part: dict[str, Any]) -> SentFile:
    match part:
        case {"image_url": {"url": str(url)}}:
            return file_of_url(url)
    raise NotAFile("A part of the type image_url must have an image_url with a url")


def _audio(part: dict[str, Any]) -> SentFile:
    match part:
        case {"input_audio": {"data": str(data), "format": str(kind)}}:
            return file_of_base64(data, f"audio.{kind}", f"audio/{kind}")
    raise NotAFile("A part of the type input_audio must have an input_audio with data and format")


def _document(part: dict[str, Any]) -> SentFile:
    match part:
        case {"file": {"file_data": str(url), **more}}:
            name = more.get("filename")
            return file_of_url(url, name if isinstance(name, str) else "")
    raise NotAFile("A part of the type file must have a file with file_data: this server knows no file_id of OpenAI")


_FILES: dict[str, Callable[[dict[str, Any]], SentFile]] = {
    "image_url": _image,
    "input_audio": _audio,
    "file": _document,
}


def _validation_error(place: str, message: str) -> ValidationError:
    return ValidationError([{"type": "unsupported", "loc": ["body", *place.split(".")], "msg": message, "input": None}])
