"""The messages that the graph begins with, from the events of a thread."""

import json
from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolCall, ToolMessage

from jimsapi import Event


def messages(events: Sequence[Event]) -> list[AnyMessage]:
    """Return the messages of a thread and the tool calls, oldest first."""
    found: list[AnyMessage] = []
    for event in events:
        data = event.event_data
        if not isinstance(data, dict):
            continue  # another program may write anything
        if event.event_type == "tool.call":
            found += call_messages(data)
        elif event.event_type.startswith("comm.") and isinstance(data.get("content"), str):
            found.append((HumanMessage if data["role"] == "user" else AIMessage)(data["content"]))
    return found


def call_messages(data: dict[str, Any]) -> list[AnyMessage]:
    """Return a tool call and its result, from the data of an event `tool.call`."""
    result = {"error": data["error"]} if "error" in data else data["result"]
    call = ToolCall(name=data["name"], args=data["arguments"], id=data["id"])
    return [AIMessage("", tool_calls=[call]), ToolMessage(json.dumps(result), tool_call_id=data["id"])]
