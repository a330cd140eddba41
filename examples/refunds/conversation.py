"""The conversation that a model reads, from the events of a thread."""

import json
from collections.abc import Sequence
from typing import Any

from jimsapi import Event

from .model import Message


def conversation(events: Sequence[Event]) -> list[Message]:
    """Return the messages of a thread and the tool calls, oldest first.

    The thread is the only memory of the agent. So a model also reads what other programs have written there, and a
    fork of the thread continues from what it has.
    """
    messages: list[Message] = []
    for event in events:
        data = event.event_data
        if not isinstance(data, dict):
            continue  # another program may write anything
        if event.event_type == "tool.call":
            result = {"error": data["error"]} if "error" in data else data["result"]
            messages += call_messages(data["id"], data["name"], data["arguments"], result)
        elif event.event_type.startswith("comm.") and isinstance(data.get("content"), str):
            messages.append({"role": data["role"], "content": data["content"]})
    return messages


def call_messages(call_id: str, name: str, arguments: dict[str, Any], result: Any) -> list[Message]:
    """Return the messages that a model reads of a call: the call and its result. APIs refuse one without the other."""
    function = {"name": name, "arguments": json.dumps(arguments)}
    return [
        {"role": "assistant", "tool_calls": [{"id": call_id, "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": call_id, "content": json.dumps(result)},
    ]
