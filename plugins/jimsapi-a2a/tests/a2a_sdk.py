"""The official Python client, as tests use it."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import httpx
from a2a.client import Client, ClientConfig, ClientFactory
from a2a.types import (
    Message,
    Part,
    Role,
    SendMessageConfiguration,
    SendMessageRequest,
    StreamResponse,
    Task,
    TaskPushNotificationConfig,
    TaskState,
)

BINDINGS = ("JSONRPC", "HTTP+JSON")
SILENCE = 5.0
"""Seconds after which the SDK's HTTP client gives up, if it is not told otherwise."""


@asynccontextmanager
async def connected(
    url: str, binding: str, *, streaming: bool = True, headers: Mapping[str, str] | None = None
) -> AsyncIterator[Client]:
    """A client that has read the card of the agent at `url`, with the SDK's own limit of a silence."""
    async with httpx.AsyncClient(headers=dict(headers or {}), timeout=SILENCE, trust_env=False) as http:
        config = ClientConfig(httpx_client=http, streaming=streaming, supported_protocol_bindings=[binding])
        yield await ClientFactory(config).create_from_url(url)


def message(text: str, *, message_id: str | None = None, parts: list[Part] | None = None, **fields: Any) -> Message:
    """A message of the user. `fields` are `context_id` and `task_id`."""
    return Message(
        message_id=message_id or str(uuid4()), role=Role.ROLE_USER, parts=parts or [Part(text=text)], **fields
    )


def request(
    text: str,
    *,
    at_once: bool = False,
    push: TaskPushNotificationConfig | None = None,
    history: int | None = None,
    **fields: Any,
) -> SendMessageRequest:
    """A request to send a message, whose fields are those of `message`."""
    configuration = SendMessageConfiguration(return_immediately=at_once)
    if history is not None:
        configuration.history_length = history
    if push is not None:
        configuration.task_push_notification_config.CopyFrom(push)
    return SendMessageRequest(message=message(text, **fields), configuration=configuration)


async def send(client: Client, text: str, **fields: Any) -> Task:
    """Send a message by a client that does not stream, and return the task."""
    [answer] = [event async for event in client.send_message(request(text, **fields))]
    assert answer.HasField("task"), answer
    return answer.task


async def events(client: Client, text: str, **fields: Any) -> list[StreamResponse]:
    """Send a message by a client that streams, and return the whole stream."""
    return [event async for event in client.send_message(request(text, **fields))]


def state(task: Task) -> str:
    """The state of a task, such as `completed`."""
    return str(TaskState.Name(task.status.state)).removeprefix("TASK_STATE_").lower()


def texts(task: Task) -> list[str]:
    """The texts of the artifacts of a task."""
    return ["".join(part.text for part in artifact.parts) for artifact in task.artifacts]


def streamed(stream: list[StreamResponse]) -> tuple[list[str], str]:
    """The states that a stream has told, and the text of its artifacts."""
    told, text = [], ""
    for event in stream:
        if event.HasField("task"):
            told.append(state(event.task))
            text += "".join(texts(event.task))
        elif event.HasField("status_update"):
            told.append(TaskState.Name(event.status_update.status.state).removeprefix("TASK_STATE_").lower())
        elif event.HasField("artifact_update"):
            text += "".join(part.text for part in event.artifact_update.artifact.parts)
    return told, text
