"""The messages that the agent reads, from the events of a thread."""

from collections.abc import Sequence
from typing import Any

from pydantic_ai import ModelMessage, ModelRequest, ModelResponse
from pydantic_ai.messages import TextPart, ToolCallPart, ToolReturnPart, UserPromptPart

from jimsapi import Event


def history(events: Sequence[Event]) -> list[ModelMessage]:
    """Return the messages of a thread and the tool calls, oldest first."""
    found: list[ModelMessage] = []
    for event in events:
        data = event.event_data
        if not isinstance(data, dict):
            continue  # another program may write anything
        if event.event_type == "tool.call":
            found += call_messages(data)
        elif event.event_type.startswith("comm.") and isinstance(data.get("content"), str):
            if data["role"] == "user":
                found.append(ModelRequest([UserPromptPart(data["content"])]))
            else:
                found.append(ModelResponse([TextPart(data["content"])]))
    return found


def call_messages(data: dict[str, Any]) -> list[ModelMessage]:
    """Return a tool call and its result, from the data of an event `tool.call`."""
    call = ToolCallPart(data["name"], data["arguments"], tool_call_id=data["id"])
    result = {"error": data["error"]} if "error" in data else data["result"]
    return [ModelResponse([call]), ModelRequest([ToolReturnPart(data["name"], result, tool_call_id=data["id"])])]
