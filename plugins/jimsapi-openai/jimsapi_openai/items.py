"""What a run says and does as the items of a response, and the events of a stream that bring them."""

from collections.abc import Iterable, Iterator
from typing import Any
from uuid import UUID

import msgspec
import orjson

from jimsapi.asgi import Request
from jimsapi.threads import NewEvent
from jimsapi.wire import (
    Answered,
    MessageEnded,
    MessagePiece,
    MessageStarted,
    ModelUsed,
    PersonAsked,
    ReasoningEnded,
    ReasoningPiece,
    ReasoningStarted,
    SourceNamed,
    SpokenItem,
    ToolEnded,
    ToolStarted,
    UserSaid,
    button_texts,
    file_url,
)
from jimsapi_openai.ids import approval_id, item_id

SERVER_LABEL = "jimsapi"
"""The `server_label` of calls that the pipeline makes, and of its questions."""

_R = "response."


class _OpenText(msgspec.Struct):
    """A message or a reasoning whose pieces arrive: its item, its place in the output, and its text so far."""

    item: dict[str, Any]
    index: int
    pieces: list[str] = []

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def place(self) -> dict[str, Any]:
        return {"item_id": self.item["id"], "output_index": self.index}


class Speech:
    """Converts spoken items to the items of a response, `output`, and to the events that bring them.

    `thread_id` is the thread of the run, None for a run outside of every thread. Its questions cannot be answered. If
    `as_functions` is true, tool calls are the pairs that Open WebUI shows, and questions are only texts.
    """

    def __init__(self, thread_id: UUID | None, *, as_functions: bool = False) -> None:
        self.output: list[dict[str, Any]] = []
        self.used: list[ModelUsed] = []
        self._thread_id = thread_id
        self._as_functions = as_functions
        self._message: _OpenText | None = None
        self._message_ended: UUID | None = None
        self._reasoning: _OpenText | None = None
        self._calls: dict[UUID, tuple[dict[str, Any], int]] = {}
        self._sources: list[dict[str, Any]] = []

    @property
    def text(self) -> str:
        """The texts of all messages."""
        return "".join(part["text"] for item in self.output if item["type"] == "message" for part in item["content"])

    def next(self, item: SpokenItem) -> Iterator[dict[str, Any]]:
        """Yield the events that bring the next item."""
        if self._message_ended is not None:  # its buttons come after it
            if isinstance(item, NewEvent) and item.event_id == self._message_ended:
                yield from self._piece("".join(f"\n- {text}" for text in button_texts(item)))
            yield from self._end_message()
        match item:
            case MessageStarted(message_id):
                yield from self._start_message(message_id)
            case MessagePiece(_, text):
                yield from self._piece(text)
            case MessageEnded(message_id):
                self._message_ended = message_id
            case ReasoningStarted(event_id):
                yield from self._start_reasoning(event_id)
            case ReasoningPiece(_, text):
                yield from self._reason(text)
            case ReasoningEnded():
                yield from self._end_reasoning()
            case ToolStarted():
                yield from self._start_call(item)
            case ToolEnded():
                yield from self._end_call(item)
            case SourceNamed(_, str(url), title):
                self._sources.append(_citation(url, title))
            case ModelUsed():
                self.used.append(item)
            case PersonAsked():
                yield from self._ask(item)

    def end(self) -> Iterator[dict[str, Any]]:
        """Yield the events that end what is open. Sources that no message followed are those of the last message."""
        yield from self._end_message()
        messages = [item for item in self.output if item["type"] == "message"]
        if messages and messages[-1]["content"]:
            messages[-1]["content"][0]["annotations"].extend(self._sources)
        self._sources = []

    def _add(self, item: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.output.append(item)
        index = len(self.output) - 1
        return index, {"type": _R + "output_item.added", "output_index": index, "item": _copy(item)}

    def _start_message(self, message_id: UUID) -> Iterator[dict[str, Any]]:
        item = {
            "id": item_id("msg", message_id),
            "type": "message",
            "status": "in_progress",
            "role": "assistant",
            "content": [],
        }
        index, added = self._add(item)
        self._message = _OpenText(item, index)
        yield added
        yield {
            "type": _R + "content_part.added",
            **self._message.place,
            "content_index": 0,
            "part": _output_text("", []),
        }

    def _piece(self, text: str) -> Iterator[dict[str, Any]]:
        if self._message is not None and text:
            self._message.pieces.append(text)
            place = {**self._message.place, "content_index": 0}
            yield {"type": _R + "output_text.delta", **place, "delta": text, "logprobs": []}

    def _end_message(self) -> Iterator[dict[str, Any]]:
        self._message_ended = None
        if self._message is None:
            return
        open_text, self._message = self._message, None
        place = {**open_text.place, "content_index": 0}
        citations, self._sources = self._sources, []
        for number, citation in enumerate(citations):
            event_type = _R + "output_text.annotation.added"
            yield {"type": event_type, **place, "annotation_index": number, "annotation": citation}
        part = _output_text(open_text.text, citations)
        yield {"type": _R + "output_text.done", **place, "text": open_text.text, "logprobs": []}
        yield {"type": _R + "content_part.done", **place, "part": _copy(part)}
        open_text.item.update(status="completed", content=[part])
        yield self._done(open_text.index)

    def _start_reasoning(self, event_id: UUID) -> Iterator[dict[str, Any]]:
        item = {"id": item_id("rs", event_id), "type": "reasoning", "status": "in_progress", "summary": []}
        index, added = self._add(item)
        self._reasoning = _OpenText(item, index)
        yield added
        part = {"type": "summary_text", "text": ""}
        place = {**self._reasoning.place, "summary_index": 0}
        yield {"type": _R + "reasoning_summary_part.added", **place, "part": part}

    def _reason(self, text: str) -> Iterator[dict[str, Any]]:
        if self._reasoning is not None and text:
            self._reasoning.pieces.append(text)
            place = {**self._reasoning.place, "summary_index": 0}
            yield {"type": _R + "reasoning_summary_text.delta", **place, "delta": text}

    def _end_reasoning(self) -> Iterator[dict[str, Any]]:
        if self._reasoning is None:
            return
        open_text, self._reasoning = self._reasoning, None
        place = {**open_text.place, "summary_index": 0}
        part = {"type": "summary_text", "text": open_text.text}
        yield {"type": _R + "reasoning_summary_text.done", **place, "text": open_text.text}
        yield {"type": _R + "reasoning_summary_part.done", **place, "part": part}
        open_text.item.update(status="completed", summary=[part])
        yield self._done(open_text.index)

    def _start_call(self, call: ToolStarted) -> Iterator[dict[str, Any]]:
        arguments = orjson.dumps(call.arguments).decode()
        kind = "function_call" if self._as_functions else "mcp_call"
        item: dict[str, Any] = {"id": item_id("fc" if self._as_functions else "mcp", call.event_id), "type": kind}
        item |= {"name": call.name, "arguments": "", "status": "in_progress"}
        if self._as_functions:
            item["call_id"] = f"call_{call.event_id.hex}"
        else:
            item |= {"server_label": SERVER_LABEL, "output": None, "error": None, "approval_request_id": None}
        index, added = self._add(item)
        self._calls[call.event_id] = (item, index)
        place = {"item_id": item["id"], "output_index": index}
        yield added
        if not self._as_functions:
            yield {"type": _R + "mcp_call.in_progress", **place}
        yield {"type": f"{_R}{kind}_arguments.delta", **place, "delta": arguments}
        named = {"name": call.name} if self._as_functions else {}
        yield {"type": f"{_R}{kind}_arguments.done", **place, "arguments": arguments, **named}
        item["arguments"] = arguments
        if self._as_functions:
            item["status"] = "completed"
            yield self._done(index)

    def _end_call(self, call: ToolEnded) -> Iterator[dict[str, Any]]:
        item, index = self._calls.pop(call.event_id)
        if self._as_functions:
            output = [{"type": "input_text", "text": call.error or _as_text(call.result)}]
            of_call = {"id": item_id("fco", call.event_id), "type": "function_call_output", "call_id": item["call_id"]}
            index, added = self._add({**of_call, "status": "completed", "output": output})
            yield added
            yield self._done(index)
            return
        if call.error is None:
            item.update(status="completed", output=_as_text(call.result))
        else:
            content = [{"type": "text", "text": call.error}]
            item.update(status="failed", error={"type": "mcp_tool_execution_error", "content": content})
        ending = "completed" if call.error is None else "failed"
        yield {"type": f"{_R}mcp_call.{ending}", "item_id": item["id"], "output_index": index}
        yield self._done(index)

    def _ask(self, asked: PersonAsked) -> Iterator[dict[str, Any]]:
        """Yield the question as a text, which every client shows, and then as a request for approval."""
        yield from self._start_message(asked.event_id)
        yield from self._piece(asked.text)
        yield from self._end_message()
        if self._thread_id is None or self._as_functions:
            return
        question = asked.question
        item = {
            "id": approval_id(self._thread_id, question.question_id),
            "type": "mcp_approval_request",
            "server_label": SERVER_LABEL,
            "name": question.key,
            "arguments": orjson.dumps(question.shown()).decode(),
        }
        index, added = self._add(item)
        yield added
        yield self._done(index)

    def _done(self, index: int) -> dict[str, Any]:
        return {"type": _R + "output_item.done", "output_index": index, "item": _copy(self.output[index])}


def speech_of(thread_id: UUID | None, items: Iterable[SpokenItem], *, as_functions: bool = False) -> Speech:
    """Return what stored items say, whole."""
    speech = Speech(thread_id, as_functions=as_functions)
    for item in items:
        for _ in speech.next(item):
            pass
    for _ in speech.end():
        pass
    return speech


def items_of(request: Request, thread_id: UUID, said: Iterable[UserSaid | Answered]) -> list[dict[str, Any]]:
    """Return the items of a part of a conversation, oldest first."""
    items: list[dict[str, Any]] = []
    for one in said:
        items += [user_item(request, one)] if isinstance(one, UserSaid) else speech_of(thread_id, one.items).output
    return items


def user_item(request: Request, said: UserSaid) -> dict[str, Any]:
    """Return a message of the user as an item. Its files are links to this server."""
    content: list[dict[str, Any]] = [{"type": "input_text", "text": said.text}] if said.text or not said.files else []
    for file in said.files:
        url = file_url(request, file)
        if file.type.startswith("image/"):
            content.append({"type": "input_image", "image_url": url, "detail": "auto"})
        else:
            content.append({"type": "input_file", "filename": file.name, "file_url": url})
    message_id = item_id("msg", said.message_id)
    return {"id": message_id, "type": "message", "status": "completed", "role": "user", "content": content}


def _output_text(text: str, annotations: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": annotations, "logprobs": []}


def _citation(url: str, title: str | None) -> dict[str, Any]:
    """A source. It belongs to the whole text, so its place in the text is empty."""
    return {"type": "url_citation", "url": url, "title": title or url, "start_index": 0, "end_index": 0}


def _as_text(result: Any) -> str:
    return result if isinstance(result, str) else orjson.dumps(result).decode()


def _copy(item: dict[str, Any]) -> dict[str, Any]:
    """Return an item as it is now, since `output` changes it later. What is in it is replaced, never changed."""
    return dict(item)
