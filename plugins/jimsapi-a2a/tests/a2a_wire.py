"""Requests of A2A as they are on the wire, by JSON-RPC."""

from typing import Any
from uuid import uuid4

import httpx

PATH = "/a2a"
VERSION = {"a2a-version": "1.0"}


def message(text: str, **fields: Any) -> dict[str, Any]:
    """A message of the user. `fields` are further ones, such as `taskId`."""
    return {"messageId": str(uuid4()), "role": "ROLE_USER", "parts": [{"text": text}], **fields}


async def call(client: httpx.AsyncClient, method: str, params: Any, **headers: str) -> Any:
    """Call a method, and return its response. Fails unless that is one of JSON-RPC."""
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    response = await client.post(PATH, json=body, headers={**VERSION, **headers})
    assert response.status_code == 200, (response.status_code, response.text)
    answer = response.json()
    assert (answer["jsonrpc"], answer["id"]) == ("2.0", 1)
    return answer


async def result(client: httpx.AsyncClient, method: str, params: Any, **headers: str) -> Any:
    """Call a method, and return its result."""
    answer = await call(client, method, params, **headers)
    assert "result" in answer, answer
    return answer["result"]


async def error(client: httpx.AsyncClient, method: str, params: Any, **headers: str) -> Any:
    """Call a method, and return its error."""
    answer = await call(client, method, params, **headers)
    assert "error" in answer, answer
    return answer["error"]


async def send(client: httpx.AsyncClient, text: str, *, push: Any = None, at_once: bool = True, **fields: Any) -> Any:
    """Send a message, and return its task. `push` is the configuration of a push notification."""
    headers = fields.pop("headers", {})
    configuration: dict[str, Any] = {"returnImmediately": at_once}
    if push is not None:
        configuration["taskPushNotificationConfig"] = push
    params = {"message": message(text, **fields), "configuration": configuration}
    return (await result(client, "SendMessage", params, **headers))["task"]
