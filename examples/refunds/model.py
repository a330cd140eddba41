"""The interface of a model, and which one this process uses."""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

Message = dict[str, Any]
"""A message in the form of chat completions, which most servers of models read."""


@dataclass(frozen=True)
class Call:
    """A tool call that the model wants."""

    id: str
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Usage:
    """The tokens that one reply of a model has used."""

    model: str
    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0


class Model(Protocol):
    """A language model."""

    def reply(self, messages: Sequence[Message]) -> AsyncIterator[str | Call | Usage]:
        """Answer a conversation: pieces of text as they come, the tool calls, and the usage at the end."""


@asynccontextmanager
async def open_model() -> AsyncIterator[Model]:
    """Open the model of this process: that of `OPENAI_BASE_URL`, `OPENAI_API_KEY` and `OPENAI_MODEL`, else a script."""
    if not is_configured():
        from .scripted import ScriptedModel

        yield ScriptedModel()
        return
    # Imported here, so that the script runs without the package.
    from openai import AsyncOpenAI

    from .openai_model import OpenAIModel

    async with AsyncOpenAI(api_key=api_key()) as client:
        yield OpenAIModel(client, model_name())


def is_configured() -> bool:
    """Return whether the environment names a server of models. An empty variable counts as unset."""
    return bool(os.environ.get("OPENAI_BASE_URL") or os.environ.get("OPENAI_API_KEY"))


def api_key() -> str:
    """Return the key. Many servers of your own need none, but the clients refuse an empty one."""
    return os.environ.get("OPENAI_API_KEY") or "none"


def model_name() -> str:
    """Return the name of the model."""
    return os.environ.get("OPENAI_MODEL") or "gpt-4.1-mini"
