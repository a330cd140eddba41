"""A chat that does what the tools of MCP's conformance suite do, and a server at which the suite calls it.

A chat has one tool, which takes a message. So a call of a tool of the suite becomes a message on its way to the server,
and the list of tools has those of the suite, too; all else goes through as it is.
"""

import asyncio
import json
import threading
import time
from types import TracebackType
from typing import Any, Self

import uvicorn

from jimsapi import JimsApp, ThreadContext, create_api
from tests.ports import free_port

FLAGS = {"ok": {"type": "boolean"}, "confirm": {"type": "boolean"}}
DEFAULTS: dict[str, Any] = {
    "name": {"type": "string", "default": "John Doe"},
    "age": {"type": "integer", "default": 30},
    "score": {"type": "number", "default": 95.5},
    "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
    "verified": {"type": "boolean", "default": True},
}
OPTIONS = ["option1", "option2", "option3"]
TITLED = [{"const": f"value{number}", "title": f"Option {number}"} for number in (1, 2, 3)]
ENUMS: dict[str, Any] = {
    "untitledSingle": {"type": "string", "enum": OPTIONS},
    "titledSingle": {"type": "string", "oneOf": TITLED},
    "legacyEnum": {"type": "string", "enum": ["opt1", "opt2"], "enumNames": ["Option One", "Option Two"]},
    "untitledMulti": {"type": "array", "items": {"type": "string", "enum": OPTIONS}},
    "titledMulti": {"type": "array", "items": {"anyOf": TITLED}},
}
USER = {"username": {"type": "string"}, "email": {"type": "string"}}
NAME = {"name": {"type": "string"}}


def form(fields: dict[str, Any], *required: str) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": list(required)}


QUESTIONS: dict[str, tuple[tuple[str, dict[str, Any]], ...]] = {
    "test_elicitation": (("Please provide your information", form(USER, "username")),),
    "test_elicitation_sep1034_defaults": (("Please check the defaults", form(DEFAULTS)),),
    "test_elicitation_sep1330_enums": (("Please choose", form(ENUMS)),),
    "test_input_required_result_elicitation": (("What is your name?", form(NAME, "name")),),
    "test_input_required_result_capabilities": (("What is your name?", form(NAME, "name")),),
    "test_input_required_result_request_state": (("Please confirm", form({"ok": {"type": "boolean"}}, "ok")),),
    "test_input_required_result_tampered_state": (("Please confirm", form({"ok": {"type": "boolean"}}, "ok")),),
    "test_input_required_result_multi_round": (
        ("Step 1: What is your name?", form(NAME, "name")),
        ("Step 2: What is your favorite color?", form({"color": {"type": "string"}}, "color")),
    ),
    "test_streaming_elicitation": (("What is your name?", form(NAME, "name")),),
    "test_tool_with_task": (("What is your name?", form(NAME, "name")),),
    "confirm_delete": (("Delete it?", form({"confirm": {"type": "boolean"}}, "confirm")),),
}
NAMES = (
    *QUESTIONS, "test_simple_text", "test_error_handling", "test_tool_with_progress", "test_logging_tool", "greet",
    "slow_compute", "failing_job", "protocol_error_job", "multi_input",
)  # fmt: skip


async def use(ctx: ThreadContext) -> None:
    """Does what the tool does that the message names."""
    call = json.loads(ctx.get_last_user_message() or "{}")
    name, arguments = call["name"], call["arguments"]
    match name:
        case "test_error_handling" | "failing_job" | "protocol_error_job":
            raise RuntimeError("This tool intentionally returns an error for testing")
        case "test_tool_with_progress":
            for percent in (0, 50, 100):
                await ctx.update_agent_status(f"{percent}/100")
                await asyncio.sleep(0.05)
        case "greet":
            ctx.send_message(f"Hello, {arguments['name']}!")
        case "slow_compute":
            await asyncio.sleep(arguments["seconds"])
        case "multi_input":
            both = (ctx.ask(key, f"What is {key}?", schema=form(FLAGS)) for key in ("first", "second"))
            ctx.send_message(json.dumps(await asyncio.gather(*both)))
    for key, (text, schema) in enumerate(QUESTIONS.get(name, ())):
        ctx.send_message(json.dumps(await ctx.ask(str(key), text, schema=schema)))
    ctx.send_message(f"{name} is done")


class ConformanceServer:
    """The chat, served at `url` from entering to leaving."""

    def __init__(self) -> None:
        self._api = create_api(JimsApp(use, name="conformance"), store="memory:")
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}/mcp"
        where: dict[str, Any] = {"host": "127.0.0.1", "port": self._port}
        self._server = uvicorn.Server(uvicorn.Config(self._app, interface="asgi3", log_config=None, **where))
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive()
            time.sleep(0.005)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join()

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._api(scope, receive, send)
            return
        method, scope, body = renamed(scope, await read_body(receive))
        read = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive_again() -> Any:
            return read.pop() if read else await receive()

        await self._api(scope, receive_again, ToolsAdded(send) if method == "tools/list" else send)


class ToolsAdded:
    """Sends on a list of tools with those of the suite."""

    def __init__(self, send: Any) -> None:
        self._send = send
        self._start: Any = None
        self._body = b""

    async def __call__(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            return
        self._body += message.get("body", b"")
        if message.get("more_body"):
            return
        answer = json.loads(self._body)
        tools = answer.get("result", {}).get("tools", [])
        described = {"description": "A tool of the suite", "inputSchema": {"type": "object"}}
        tools += [{"name": name, **described} for name in NAMES if tools]
        body = json.dumps(answer).encode()
        others = [(name, value) for name, value in self._start["headers"] if name != b"content-length"]
        length = (b"content-length", str(len(body)).encode())
        await self._send({**self._start, "headers": [*others, length]})
        await self._send({"type": "http.response.body", "body": body})


async def read_body(receive: Any) -> bytes:
    """The whole body of a request."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


def renamed(scope: Any, body: bytes) -> tuple[str | None, Any, bytes]:
    """The method of a request, and the request with a call of a tool of the suite as a call of ours."""
    try:
        message = json.loads(body)
    except ValueError:
        return None, scope, body
    if not isinstance(message, dict):
        return None, scope, body
    params = message.get("params") or {}
    name = params.get("name")
    if message.get("method") == "tools/call" and name in NAMES:
        text = json.dumps({"name": name, "arguments": params.get("arguments") or {}})
        message = {**message, "params": {**params, "name": "chat", "arguments": {"message": text}}}
        body = json.dumps(message).encode()
        new = {b"mcp-name": lambda sent: b"chat" if sent.strip() == name.encode() else sent}
        new[b"content-length"] = lambda _: str(len(body)).encode()
        headers = [(key, new.get(key, lambda sent: sent)(value)) for key, value in scope["headers"]]
        scope = {**scope, "headers": headers}
    method: str | None = message.get("method")
    return method, scope, body
