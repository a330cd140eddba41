"""Requests of both eras as they go over the wire, and what is read in the responses."""

import json
from collections.abc import Mapping
from typing import Any

import httpx

PATH = "/mcp"
META = "io.modelcontextprotocol/"
BOTH = "application/json, text/event-stream"
TASKS: dict[str, Any] = {"extensions": {"io.modelcontextprotocol/tasks": {}}}
FORMS: dict[str, Any] = {"elicitation": {}}
_NAMES = {"tools/call": "name", "resources/read": "uri", "tasks/get": "taskId", "tasks/update": "taskId"}
_NAMES["tasks/cancel"] = "taskId"

Json = dict[str, Any]


def message(method: str, params: Mapping[str, Any] | None = None, id: int | str | None = 1) -> Json:
    """A request, or a notification if it has no identifier."""
    body: Json = {"jsonrpc": "2.0", "method": method}
    if id is not None:
        body["id"] = id
    return body if params is None else {**body, "params": dict(params)}


def modern(
    method: str,
    params: Mapping[str, Any] | None = None,
    *,
    id: int | str = 1,
    capabilities: Mapping[str, Any] | None = None,
    meta: Mapping[str, Any] | None = None,
    headers: Mapping[str, str | None] | None = None,
    accept: str = BOTH,
) -> Json:
    """The arguments of `post` for a request of 2026-07-28. A header that is None is left out."""
    known = {f"{META}protocolVersion": "2026-07-28", f"{META}clientCapabilities": capabilities or {}}
    body = message(method, {**(params or {}), "_meta": {**known, **(meta or {})}}, id)
    sent: dict[str, str | None] = {"mcp-protocol-version": "2026-07-28", "mcp-method": method, "accept": accept}
    if method in _NAMES:
        sent["mcp-name"] = str((params or {}).get(_NAMES[method]))
    sent.update(headers or {})
    return {"json": body, "headers": {name: value for name, value in sent.items() if value is not None}}


def legacy(
    method: str,
    params: Mapping[str, Any] | None = None,
    *,
    id: int | str | None = 1,
    session: str | None = None,
    headers: Mapping[str, str] | None = None,
    accept: str = BOTH,
) -> Json:
    """The arguments of `post` for a message of an earlier client."""
    sent = {"accept": accept, **(headers or {})}
    if session is not None:
        sent |= {"mcp-session-id": session, "mcp-protocol-version": "2025-11-25"}
    return {"json": message(method, params, id), "headers": sent}


def chat(text: str, **arguments: Any) -> Json:
    """The parameters of a call of `chat`."""
    return {"name": "chat", "arguments": {"message": text, **arguments}}


def tool(name: str, **arguments: Any) -> Json:
    """The parameters of a call of a tool."""
    return {"name": name, "arguments": arguments}


def events(answer: httpx.Response) -> list[Json]:
    """The messages of a stream, of which there is nothing but lines with data."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream"), answer.text
    return [json.loads(block.removeprefix("data: ")) for block in answer.text.split("\n\n") if block.startswith("data")]


def result(answer: httpx.Response) -> Json:
    """The result in a response, which may be the last message of a stream."""
    assert answer.status_code == 200, answer.text
    is_stream = answer.headers["content-type"].startswith("text/event-stream")
    body = events(answer)[-1] if is_stream else answer.json()
    assert "result" in body, body
    found: Json = body["result"]
    return found


def error(answer: httpx.Response, status: int) -> Json:
    """The error in a response."""
    assert answer.status_code == status, answer.text
    found: Json = answer.json()["error"]
    return found


def text(found: Mapping[str, Any]) -> str:
    """The text of a tool's result."""
    [content] = found["content"]
    assert content["type"] == "text"
    return str(content["text"])


async def start_session(
    client: httpx.AsyncClient, capabilities: Mapping[str, Any] | None = None, **headers: str
) -> str:
    """Begin a session of an earlier client. Returns its identifier."""
    params = {
        "protocolVersion": "2025-11-25",
        "capabilities": capabilities or {},
        "clientInfo": {"name": "t", "version": "1"},
    }
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = await client.post(PATH, **legacy("initialize", params, headers=sent))
    assert answer.status_code == 200, answer.text
    return str(answer.headers["mcp-session-id"])
