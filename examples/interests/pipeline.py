"""The pipelines: they answer messages."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from jimsapi import StatusEvent, ThreadContext

from .answer import Answer, answer_message, examples
from .graph import Graph, open_graph
from .model import Model, configured_model
from .question import Message, read_message
from .tables import data_folder

THRESHOLD = 0.8
"""A field that readers of `rag.query_processed` expect. It is for vector search, which this example does not use."""


async def greet(ctx: ThreadContext) -> None:
    """Start a conversation with examples of questions."""
    graph = await asyncio.to_thread(open_graph, data_folder())
    ctx.send_message(f"Hello! {examples(graph)}")


async def answer_interests(ctx: ThreadContext) -> None:
    """Answer the newest message, and report in `rag.query_processed` how the answer was found."""
    await ctx.update_agent_status(StatusEvent("Asking the graph", "searching"))
    messages = _user_messages(ctx)
    # In threads, because finding names and querying the database would block other conversations.
    graph = await asyncio.to_thread(open_graph, data_folder())
    message = await asyncio.to_thread(read_message, messages, graph.people, graph.interests)
    use = _ModelUse(configured_model())
    if use.model is not None and message.is_open:
        message = await _read_by_model(ctx, messages[-1], message, graph, use)
    answer = await asyncio.to_thread(answer_message, message, graph)
    text = await _phrase(ctx, messages[-1], answer, use)
    ctx.send_message(text)
    ctx.send_event(
        "rag.query_processed",
        {"query": messages[-1], "answer": text, "technical_info": _technical_info(answer, use), "threshold": THRESHOLD},
    )


def _user_messages(ctx: ThreadContext) -> list[str]:
    """Return the person's messages, oldest first: at least one, which may be empty."""
    contents = [message.get("content") for message in ctx.history if message.get("role") == "user"]
    return [content if isinstance(content, str) else "" for content in contents] or [""]


@dataclass
class _ModelUse:
    """The configured model, and what it was used for in this run."""

    model: Model | None
    used: bool = False
    requests: int = 0
    tokens: dict[str, int] = field(default_factory=dict)
    error: str | None = None

    def add(self, tokens: dict[str, int], error: str | None, *, used: bool) -> None:
        """Add one request."""
        self.requests += 1
        for kind, count in tokens.items():
            self.tokens[kind] = self.tokens.get(kind, 0) + count
        self.error = error or self.error
        self.used = self.used or used


async def _read_by_model(ctx: ThreadContext, question: str, message: Message, graph: Graph, use: _ModelUse) -> Message:
    """Return the message with the query that the model reads in it; the message itself if the model reads none."""
    assert use.model is not None
    await ctx.update_agent_status(StatusEvent("Reading the question", "reading"))
    reading = await use.model.read(question, graph.people, graph.interests)
    use.add(reading.tokens, reading.error, used=reading.query is not None)
    return message if reading.query is None else Message(message.language, reading.query, loosely=True)


async def _phrase(ctx: ThreadContext, question: str, answer: Answer, use: _ModelUse) -> str:
    """Return the text of the answer, by the model if there is one."""
    if use.model is None or not answer.names:
        # Without rows there is nothing to phrase, and a model might invent some.
        return answer.full()
    await ctx.update_agent_status(StatusEvent("Writing the answer", "writing"))
    phrasing = await use.model.phrase(question, answer)
    use.add(phrasing.tokens, phrasing.error, used=phrasing.text is not None)
    return answer.full(phrasing.text)


def _technical_info(answer: Answer, use: _ModelUse) -> dict[str, Any]:
    info: dict[str, Any] = {
        "vts_queries": [],
        "cypher_queries": [*answer.cypher],
        "num_vts_queries": 0,
        "num_cypher_queries": len(answer.cypher),
        "model_used": use.model.name if use.model and use.used else "none",
        "model_stats": {use.model.name: {"requests_count": use.requests, **use.tokens}}
        if use.model and use.requests
        else {},
    }
    if use.error is not None:
        info["model_error"] = use.error
    return info
