"""The protocols by which people send messages to the planned bot and answer its questions, each in its own form."""

import json
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NamedTuple

import httpx


class Said(NamedTuple):
    """What a server said: a status, and the text of a question or of an answer."""

    status: int
    text: str


class Protocol(NamedTuple):
    """How a message, or answers by the identifiers of their questions, are sent, and what an answer says.

    `body` is called with the contact, the message, and the answers; one of the last two is None. If `answers_by_id` is
    false, a person answers by a message. If `names_thread` is true, its first message begins a thread of its own, so
    that other protocols continue the thread, and it does not continue theirs.
    """

    name: str
    path: str
    body: Callable[[str, str | None, dict[str, str] | None], dict[str, Any]]
    read: Callable[[httpx.Response], Said]
    answers_by_id: bool = False
    names_thread: bool = False

    async def send(
        self,
        client: httpx.AsyncClient,
        port: int,
        contact: str,
        message: str | None,
        answers: dict[str, str] | None,
        key: str | None,
    ) -> Said:
        """Send and wait for the answer. Raises `httpx.TransportError` if it does not come, or is cut."""
        headers = {} if key is None else {"idempotency-key": key}
        body = self.body(contact, message, answers)
        return self.read(await client.post(f"http://127.0.0.1:{port}{self.path}", json=body, headers=headers))


def _chunks(response: httpx.Response) -> list[Any]:
    return [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]


def _chat_body(contact: str, message: str | None, answers: dict[str, str] | None) -> dict[str, Any]:
    sent = {"message": message} if answers is None else {"answers": answers}
    return {"contact_id": contact, **sent}


def _read_chat(response: httpx.Response) -> Said:
    if response.status_code != 200:
        return Said(response.status_code, response.text)
    answer = response.json()
    questions = [question["text"] for question in answer.get("questions", ())]
    return Said(200, "\n".join([*answer["assistant_messages"], *questions]))


def _agui_body(contact: str, message: str | None, answers: dict[str, str] | None) -> dict[str, Any]:
    messages = [] if message is None else [{"id": "1", "role": "user", "content": message}]
    body = {"threadId": contact, "runId": "r", "messages": messages, "tools": [], "context": [], "state": {}}
    resume = [
        {"interruptId": question_id, "status": "resolved", "payload": value}
        for question_id, value in (answers or {}).items()
    ]
    return {**body, "forwardedProps": {}, **({"resume": resume} if resume else {})}


def _read_agui(response: httpx.Response) -> Said:
    if response.status_code != 200:
        return Said(response.status_code, response.text)
    chunks = _chunks(response)
    last: dict[str, Any] = chunks[-1] if chunks else {"type": ""}
    if last["type"] == "RUN_ERROR":
        return Said(int(last["code"]), last["message"])
    if last["type"] != "RUN_FINISHED":
        raise httpx.RemoteProtocolError("the stream was cut")
    questions = [interrupt["message"] for interrupt in last["outcome"].get("interrupts", ())]
    return Said(
        200, "".join(chunk["delta"] for chunk in chunks if chunk["type"] == "TEXT_MESSAGE_CONTENT") or questions[0]
    )


def _openai_body(contact: str, message: str | None, answers: dict[str, str] | None) -> dict[str, Any]:
    return {"model": "m", "user": contact, "messages": [{"role": "user", "content": message}]}


def _read_openai(response: httpx.Response) -> Said:
    if response.status_code != 200:
        return Said(response.status_code, response.text)
    return Said(200, _without_options(response.json()["choices"][0]["message"]["content"]))


def _deepchat_body(contact: str, message: str | None, answers: dict[str, str] | None) -> dict[str, Any]:
    return {"messages": [{"role": "user", "text": message}], "contact_id": contact}


def _read_deepchat(response: httpx.Response) -> Said:
    if response.status_code != 200:
        return Said(response.status_code, response.text)
    return Said(200, response.json()["text"])


def _vercel_body(contact: str, message: str | None, answers: dict[str, str] | None) -> dict[str, Any]:
    return {"id": contact, "messages": [{"id": "1", "role": "user", "parts": [{"type": "text", "text": message}]}]}


def _read_vercel(response: httpx.Response) -> Said:
    if response.status_code != 200:
        return Said(response.status_code, response.text)
    chunks = _chunks(response)
    errors = [chunk["errorText"] for chunk in chunks if chunk["type"] == "error"]
    if errors:  # the protocol's errors within a stream have no status
        return Said(503, errors[0])
    if not chunks or chunks[-1]["type"] != "finish":
        raise httpx.RemoteProtocolError("the stream was cut")
    return Said(200, _without_options("".join(chunk["delta"] for chunk in chunks if chunk["type"] == "text-delta")))


def _without_options(text: str) -> str:
    return text.partition("\n")[0]


CHAT = Protocol("chat", "/api/v1/chat", _chat_body, _read_chat, answers_by_id=True)
_OF_PLUGINS = {
    "jimsapi_openai": Protocol("chat completions", "/v1/chat/completions", _openai_body, _read_openai),
    "jimsapi_deepchat": Protocol("Deep Chat", "/deep-chat", _deepchat_body, _read_deepchat),
    "jimsapi_agui": Protocol("AG-UI", "/ag-ui", _agui_body, _read_agui, answers_by_id=True, names_thread=True),
    "jimsapi_vercel": Protocol("AI SDK", "/ai-sdk/chat", _vercel_body, _read_vercel, names_thread=True),
}


def protocols() -> list[Protocol]:
    """Those that a server of this environment speaks."""
    return [CHAT, *(protocol for module, protocol in _OF_PLUGINS.items() if find_spec(module) is not None)]
