"""What people, pipelines and tools said, as attributes of spans. Used only if the operator has switched it on.

The forms are those of the conventions: `gen-ai-input-messages.json` and `gen-ai-output-messages.json`.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from opentelemetry.trace import Span

from jimsapi import ThreadContext
from jimsapi.plugins import redact
from jimsapi.threads import (
    ASSISTANT_MESSAGE,
    ASSISTANT_MESSAGE_WITH_BUTTONS,
    MODEL_REASONING,
    RunClosed,
    storable_text,
)

MAX_TEXT = 100_000
"""Characters of one text. Longer ones are cut, since a collector may refuse a large request with all of its spans."""

_PARTS = {ASSISTANT_MESSAGE: "text", ASSISTANT_MESSAGE_WITH_BUTTONS: "text", MODEL_REASONING: "reasoning"}


class Conversation:
    """The message of a run, and what the pipeline says in answer."""

    def __init__(self) -> None:
        self._parts: list[dict[str, str]] = []

    def add(self, event_type: str, data: Mapping[str, Any]) -> None:
        """Add an event of the pipeline, if it is a message or reasoning."""
        kind = _PARTS.get(event_type)
        if kind is not None and isinstance(content := data.get("content"), str):
            self._parts.append({"type": kind, "content": as_text(content)})

    def describe(self, span: Span, ctx: ThreadContext, *, failed: bool) -> None:
        """Set the messages of a run whose pipeline has ended as attributes of its span."""
        with suppress(RunClosed):
            ctx.end_message()
        said = ctx.answered or ctx.get_last_user_message()
        if said:
            parts = [{"type": "text", "content": as_text(said)}]
            span.set_attribute("gen_ai.input.messages", _json([{"role": "user", "parts": parts}]))
        if self._parts:
            reason = "error" if failed else "stop"
            message = {"role": "assistant", "parts": self._parts, "finish_reason": reason}
            span.set_attribute("gen_ai.output.messages", _json([message]))


def as_text(value: Any) -> str:
    """Return a text as it is, and any other value as JSON: without secrets of this server, and cut if it is long."""
    text = value if isinstance(value, str) else _json(value)
    text = redact(text)
    if len(text) > MAX_TEXT:
        text = f"{text[:MAX_TEXT]}…"
    # The exporter encodes a batch as a whole, so a lone surrogate would cost other spans.
    return storable_text(text)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
