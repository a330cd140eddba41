"""Calls of the agent by raw HTTP, in both bindings."""

import itertools
import json
from typing import Any

import httpx

VERSION = {"A2A-Version": "1.0"}
_numbers = itertools.count(1)


def text_message(text: str, *, message_id: str | None = None, **fields: Any) -> dict[str, Any]:
    """Return the parameters of a message with a text. `fields` are those of the message, in camelCase."""
    parts = fields.pop("parts", [{"text": text}])
    named = message_id or f"message-{next(_numbers)}"
    return {"message": {"messageId": named, "role": "ROLE_USER", "parts": parts, **fields}}


async def call(client: httpx.AsyncClient, method: str, params: Any = None, **headers: str) -> httpx.Response:
    """Call a method by JSON-RPC, and return its response."""
    body = {"jsonrpc": "2.0", "id": next(_numbers), "method": method, "params": {} if params is None else params}
    return await client.post("/a2a", json=body, headers={**VERSION, **_dashed(headers)})


async def result(client: httpx.AsyncClient, method: str, params: Any = None, **headers: str) -> Any:
    """Return the result of a method."""
    answer = (await call(client, method, params, **headers)).json()
    assert "error" not in answer, answer
    return answer["result"]


async def error(client: httpx.AsyncClient, method: str, params: Any = None, **headers: str) -> dict[str, Any]:
    """Return the error of a method, which has the status 200."""
    response = await call(client, method, params, **headers)
    assert response.status_code == 200, response.text
    answer = response.json()
    assert answer.keys() == {"jsonrpc", "id", "error"}, answer
    found: dict[str, Any] = answer["error"]
    assert found["data"][0]["@type"] == "type.googleapis.com/google.rpc.ErrorInfo"
    return found


async def send(client: httpx.AsyncClient, text: str, **fields: Any) -> dict[str, Any]:
    """Send a message, wait for its task, and return the task. `headers` are those of the request."""
    headers = fields.pop("headers", {})
    configuration = fields.pop("configuration", None)
    params = text_message(text, **fields)
    if configuration is not None:
        params["configuration"] = configuration
    task: dict[str, Any] = (await result(client, "SendMessage", params, **headers))["task"]
    return task


async def stream(client: httpx.AsyncClient, text: str, **fields: Any) -> list[dict[str, Any]]:
    """Send a message, and return the events of its stream."""
    headers = fields.pop("headers", {})
    return events(await call(client, "SendStreamingMessage", text_message(text, **fields), **headers))


def events(response: httpx.Response) -> list[dict[str, Any]]:
    """Return the results in the stream of a response by JSON-RPC."""
    assert response.headers["content-type"].startswith("text/event-stream"), response.text
    found = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: ")]
    assert len({one["id"] for one in found}) == 1
    return [one["result"] for one in found]


def texts(task: dict[str, Any]) -> list[str]:
    """Return the texts of a task's artifacts."""
    return [part["text"] for artifact in task["artifacts"] for part in artifact["parts"] if "text" in part]


def state(task: dict[str, Any]) -> str:
    """Return the state of a task, without what all states begin with."""
    found: str = task["status"]["state"]
    return found.removeprefix("TASK_STATE_")


def summary(found: list[dict[str, Any]]) -> list[str]:
    """Return the events of a stream in short."""
    return [_short(event) for event in found]


def _short(event: dict[str, Any]) -> str:
    [(kind, value)] = event.items()
    if kind == "artifactUpdate":
        part = value["artifact"]["parts"][0]
        sign = ("+" if value["append"] else "") + ("." if value["lastChunk"] else "")
        return f"{sign}{part.get('text', part.get('data'))}"
    said = [part.get("text") for part in value["status"].get("message", {"parts": []})["parts"] if "text" in part]
    return " ".join([kind, state(value), *said])


def _dashed(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}
