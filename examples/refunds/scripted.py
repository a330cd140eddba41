"""A model that follows a script, so that the example runs without a model, and its tests without luck."""

import json
import re
from collections.abc import AsyncIterator, Sequence
from typing import Any

from .model import Call, Message, Usage
from .tools import REFUSED


class ScriptedModel:
    """Knows orders and refunds, in one language, and streams word by word."""

    async def reply(self, messages: Sequence[Message]) -> AsyncIterator[str | Call | Usage]:
        """Answer a conversation."""
        text, calls = decide(messages)
        for piece in pieces(text):
            yield piece
        for call in calls:
            yield call
        yield usage(messages, text)


def pieces(text: str) -> list[str]:
    """Return the words of a text, each with the space before it."""
    return re.findall(r"\s*\S+", text)


def usage(messages: Sequence[Message], text: str) -> Usage:
    """Return an invented usage: a token a word."""
    words = sum(len(str(message.get("content") or "").split()) for message in messages)
    return Usage("scripted", words, len(text.split()))


def decide(messages: Sequence[Message]) -> tuple[str, list[Call]]:
    """Return what to say next, which may be nothing, and the tools to call, if any."""
    newest = messages[-1]
    if newest["role"] == "tool":
        return _after_tool(messages, _result(newest["content"]))
    if "at once" in newest["content"]:  # as models do that do not look first, and call several tools in one reply
        wanted = re.findall(r"(find )?(\d+)", newest["content"])
        return "", _calls(messages, [("find_order" if find else "refund", number) for find, number in wanted])
    numbers = [number for text in _said(messages) for number in re.findall(r"\d+", text)]
    if not numbers:
        return "Which order is it? Please write its number.", []
    return "Let me look.", _calls(messages, [("find_order", numbers[-1])])


def _after_tool(messages: Sequence[Message], result: dict[str, Any]) -> tuple[str, list[Call]]:
    if "error" in result:
        return "I cannot do that, sorry: " + result["error"] + ".", []
    if "refused" in result:
        return "Then everything stays as it is.", []
    if "receipt" in result:
        return f"Done: you get {result['amount']} EUR back. Your receipt is {result['receipt']}.", []
    if result["refunded"]:
        return f"Order {result['number']} was refunded already.", []
    if re.search("refund|money back", _said(messages)[-1], re.IGNORECASE):
        return "", _calls(messages, [("refund", result["number"])])
    return f"Order {result['number']} is a {result['item']} for {result['price']} EUR.", []


def _result(content: str) -> dict[str, Any]:
    """Return what a tool has returned. Some frameworks write errors and refusals as plain text."""
    try:
        found = json.loads(content)
    except ValueError:
        found = content
    if isinstance(found, dict):
        return found
    return {"refused": found} if REFUSED in found else {"error": found}


def _said(messages: Sequence[Message]) -> list[str]:
    return [message["content"] for message in messages if message["role"] == "user"]


def _calls(messages: Sequence[Message], wanted: Sequence[tuple[str, Any]]) -> list[Call]:
    first = 1 + sum(message["role"] == "tool" for message in messages)
    return [Call(f"call_{place}", name, {"number": int(number)}) for place, (name, number) in enumerate(wanted, first)]
