"""A server of a model, as strict as the real ones: it speaks chat completions, and follows the script of `refunds`."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

from examples.refunds.scripted import decide, pieces, usage
from jimsapi.asgi import App, EventStreamResponse, HTTPError, Request, ServerSentEvent
from jimsapi.server.thread import ServerThread

KEY = "sk-test"
TOOLS = {"find_order", "refund"}


class ModelServer:
    """`requests` are those that it has accepted, and `refusals` the reasons for which it has refused others."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.refusals: list[str] = []
        self.app = App()
        self.app.post("/v1/chat/completions", public=True)(self.complete)

    async def complete(self, request: Request) -> EventStreamResponse:
        """Answer a conversation."""
        body = await request.json()
        fault = "a wrong key" if request.headers.get("authorization") != f"Bearer {KEY}" else fault_of(body)
        if fault is not None:
            self.refusals.append(fault)
            raise HTTPError(400, fault)
        self.requests.append(body)
        return EventStreamResponse(chunks(body))

    @property
    def conversations(self) -> list[list[dict[str, Any]]]:
        """The messages of each request, without the instructions."""
        return [[one for one in body["messages"] if one["role"] != "system"] for body in self.requests]


@contextmanager
def serving() -> Iterator[tuple[ModelServer, dict[str, str]]]:
    """Serve it. Yields the server, and the variables by which an example finds it."""
    server = ModelServer()
    thread = ServerThread(server.app, "127.0.0.1", 0, "model")
    url = f"http://127.0.0.1:{thread.port}/v1"
    try:
        yield (
            server,
            {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": KEY, "OPENAI_MODEL": "scripted", "NO_PROXY": "127.0.0.1"},
        )
    finally:
        thread.close()


def fault_of(body: dict[str, Any]) -> str | None:
    """Return why a real server would refuse a request; None if it would accept it."""
    if {tool["function"]["name"] for tool in body.get("tools", ())} != TOOLS:
        return "not the tools of the agent"
    if not body.get("stream") or not body.get("stream_options", {}).get("include_usage"):
        return "neither streamed nor with usage"
    first, *others = body["messages"]
    if first["role"] != "system" or any(message["role"] == "system" for message in others):
        return "the instructions are not the first message, once"
    open_calls: set[str] = set()
    for message in others:
        if message["role"] == "tool":
            if message["tool_call_id"] not in open_calls:
                return f"a result without its call: {message}"
            open_calls.remove(message["tool_call_id"])
        elif open_calls:
            return f"calls without results: {open_calls}"
        open_calls |= {call["id"] for call in message.get("tool_calls") or ()}
    return f"calls without results: {open_calls}" if open_calls else None


async def chunks(body: dict[str, Any]) -> AsyncIterator[ServerSentEvent]:
    """Stream a reply. The arguments of a call come in two pieces, as those of real servers do."""
    messages = [message for message in body["messages"] if message["role"] != "system"]
    text, calls = decide(messages)
    for piece in pieces(text):
        yield chunk({"content": piece})
    for index, call in enumerate(calls):
        arguments = json.dumps(call.arguments)
        function = {"name": call.name, "arguments": arguments[:5]}
        yield chunk({"tool_calls": [{"index": index, "id": call.id, "type": "function", "function": function}]})
        yield chunk({"tool_calls": [{"index": index, "function": {"arguments": arguments[5:]}}]})
    yield chunk({}, finish="tool_calls" if calls else "stop")
    used = usage(messages, text)
    tokens = {
        "prompt_tokens": used.input_tokens,
        "completion_tokens": used.output_tokens,
        "total_tokens": used.input_tokens + used.output_tokens,
        "prompt_tokens_details": {"cached_tokens": 1},
    }
    yield event({"choices": [], "usage": tokens})
    yield ServerSentEvent("[DONE]")


def chunk(delta: dict[str, Any], finish: str | None = None) -> ServerSentEvent:
    return event({"choices": [{"index": 0, "delta": {"role": "assistant", **delta}, "finish_reason": finish}]})


def event(data: dict[str, Any]) -> ServerSentEvent:
    about = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "scripted"}
    return ServerSentEvent(json.dumps({**about, **data}))
