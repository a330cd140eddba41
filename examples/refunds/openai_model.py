"""A model behind any server that speaks chat completions."""

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

from openai import AsyncOpenAI

from .model import Call, Message, Usage
from .tools import INSTRUCTIONS, TOOLS


class OpenAIModel:
    """Streams the replies of a model."""

    def __init__(self, client: AsyncOpenAI, name: str) -> None:
        self._client = client
        self._name = name

    async def reply(self, messages: Sequence[Message]) -> AsyncIterator[str | Call | Usage]:
        """Answer a conversation. Raises `openai.OpenAIError`."""
        stream = await self._client.chat.completions.create(
            model=self._name,
            messages=cast(Any, [{"role": "system", "content": INSTRUCTIONS}, *messages]),
            tools=cast(Any, TOOLS),
            stream=True,
            stream_options={"include_usage": True},
        )
        calls: dict[int, _Pieces] = {}
        async for chunk in stream:
            for choice in chunk.choices:
                if choice.delta.content:
                    yield choice.delta.content
                for piece in choice.delta.tool_calls or ():
                    calls.setdefault(piece.index, _Pieces()).add(piece)
            if chunk.usage is not None:
                details = chunk.usage.prompt_tokens_details
                yield Usage(
                    self._name,
                    chunk.usage.prompt_tokens,
                    chunk.usage.completion_tokens,
                    (details and details.cached_tokens) or 0,
                )
        for pieces in calls.values():
            yield pieces.call()


class _Pieces:
    """One tool call, which arrives in pieces: the arguments are text that is JSON only when it is complete."""

    def __init__(self) -> None:
        self._id = self._name = self._arguments = ""

    def add(self, piece: Any) -> None:
        self._id = piece.id or self._id
        self._name = piece.function.name or self._name
        self._arguments += piece.function.arguments or ""

    def call(self) -> Call:
        try:
            arguments = json.loads(self._arguments or "{}")
        except ValueError:
            arguments = None
        # Models write invalid JSON now and then. The tool then refuses the call, and the model tries again.
        return Call(self._id, self._name, arguments if isinstance(arguments, dict) else {})
