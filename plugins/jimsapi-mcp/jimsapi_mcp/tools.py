"""The tools: their names, descriptions and schemas, and the arguments of a call."""

import inspect
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

import msgspec

from jimsapi.asgi import ValidationError, convert_body
from jimsapi.runs import RunService, pipeline_name
from jimsapi.wire import refusal_of
from jimsapi_mcp.results import OUTPUT_SCHEMA

LONGEST_WAIT = 50
"""Seconds that `chat_get` may wait. Clients in TypeScript give a request up after 60."""

Model = TypeVar("Model", bound=msgspec.Struct)


class ChatArguments(msgspec.Struct):
    """The arguments of `chat` and `chat_start`."""

    message: str = ""
    thread: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    answers: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None


class RunArguments(msgspec.Struct):
    """The argument of `chat_cancel`."""

    run_id: str


class GetArguments(msgspec.Struct):
    """The arguments of `chat_get`: a run, or a thread whose newest run is meant."""

    run_id: str | None = None
    thread: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    wait: Annotated[int, msgspec.Meta(ge=0, le=LONGEST_WAIT)] = 0


class ArgumentsRefused(Exception):
    """The arguments of a call are not those of its tool. The text is for a model, which can correct them."""


_THREAD = "Continues a conversation: the thread_id of an earlier result, or a name of your own. Omit it to begin one."
_MESSAGE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "message": {"type": "string", "description": "What you say to the agent."},
        "thread": {"type": "string", "description": _THREAD},
        "answers": {
            "type": "object",
            "description": "Answers to questions of an earlier result, by question_id, in place of a message.",
        },
        "metadata": {"type": "object", "description": "Facts about this request for the agent, such as a locale."},
    },
    "required": ["message"],
}
_RUN: dict[str, Any] = {"type": "string", "description": "The run_id of an earlier result."}
_RUN_SCHEMA: dict[str, Any] = {"type": "object", "properties": {"run_id": _RUN}, "required": ["run_id"]}
_WAIT: dict[str, Any] = {
    "type": "integer",
    "minimum": 0,
    "maximum": LONGEST_WAIT,
    "description": "Seconds to wait for the answer, 0 by default.",
}
_OF_THREAD: dict[str, Any] = {"type": "string", "description": "Without run_id: the thread whose newest call is meant."}
_GET_SCHEMA: dict[str, Any] = {"type": "object", "properties": {"run_id": _RUN, "thread": _OF_THREAD, "wait": _WAIT}}


class Tools:
    """The tools of an app. `name` is that of the first one, with which the names of the others begin.

    `title` and `description` are those of the server's options; without them they come from the app and its pipeline.
    """

    def __init__(self, service: RunService, name: str, title: str | None, description: str | None) -> None:
        self.chat, self.start, self.get, self.cancel = name, f"{name}_start", f"{name}_get", f"{name}_cancel"
        pipeline = service.app.pipeline
        self.title = title or service.app.name or pipeline_name(pipeline)
        self.description = (
            description or service.app.description or _documentation(pipeline) or f"Talks to the agent {self.title}."
        )

    def names(self) -> tuple[str, ...]:
        """Return the names of all tools."""
        return self.chat, self.start, self.get, self.cancel

    def listed(self) -> list[dict[str, Any]]:
        """Return the tools as MCP lists them."""
        reading = {"readOnlyHint": True, "openWorldHint": False}
        return [
            self._tool(self.chat, self.title, f"{self.description}\n\nReturns the answer.", _MESSAGE_SCHEMA),
            self._tool(
                self.start,
                f"{self.title}: start",
                f"Does what {self.chat} does, for long work: it returns a run_id at once, and the work goes on. "
                f"{self.get} returns the answer.",
                _MESSAGE_SCHEMA,
            ),
            self._tool(
                self.get,
                f"{self.title}: get",
                f"Returns the state of a call of {self.start} or {self.chat}, and its answer when it has one.",
                _GET_SCHEMA,
                reading,
            ),
            self._tool(
                self.cancel,
                f"{self.title}: cancel",
                f"Stops a call of {self.start} or {self.chat} that still works.",
                _RUN_SCHEMA,
                {"destructiveHint": True, "idempotentHint": True, "openWorldHint": False},
            ),
        ]

    def _tool(
        self, name: str, title: str, description: str, schema: dict[str, Any], annotations: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        tool = {
            "name": name,
            "title": title,
            "description": description,
            "inputSchema": schema,
            "outputSchema": OUTPUT_SCHEMA,
        }
        return tool if annotations is None else {**tool, "annotations": annotations}


def chat_arguments(arguments: Mapping[str, Any]) -> ChatArguments:
    """Return the arguments of a message. Raises `ArgumentsRefused`."""
    found = _converted(arguments, ChatArguments)
    if not (found.message or found.answers):
        raise ArgumentsRefused("message: Say something to the agent; the message is empty")
    if found.answers and found.thread is None:
        raise ArgumentsRefused("thread: Answers need the thread_id of the result that has the questions")
    return found


def run_arguments(arguments: Mapping[str, Any]) -> RunArguments:
    """Return the argument that names a run. Raises `ArgumentsRefused`."""
    return _converted(arguments, RunArguments)


def get_arguments(arguments: Mapping[str, Any]) -> GetArguments:
    """Return the arguments of a look at a run. Raises `ArgumentsRefused`."""
    found = _converted(arguments, GetArguments)
    if found.run_id is None and found.thread is None:
        raise ArgumentsRefused("run_id: Pass the run_id of an earlier result, or the thread of the call")
    return found


def _converted(arguments: Mapping[str, Any], model: type[Model]) -> Model:
    try:
        return convert_body(arguments, model)
    except ValidationError as fault:
        raise ArgumentsRefused(refusal_of(fault.status, {"detail": fault.detail}).text) from None


def _documentation(pipeline: Any) -> str | None:
    """Return the docstring of a pipeline that is a function. That of an object is about its class."""
    return inspect.getdoc(pipeline) if inspect.isroutine(pipeline) else None
