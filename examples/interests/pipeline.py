"""The pipelines: they answer messages."""

import asyncio
from typing import Any

from jimsapi import StatusEvent, ThreadContext

from .answer import Answer, answer_question, examples
from .graph import open_graph
from .model import configured_model
from .question import read_question
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
    # In a thread, because finding names and querying the database would block other conversations.
    answer = await asyncio.to_thread(_look_up, messages)
    text, technical_info = await _phrase(ctx, messages[-1], answer)
    ctx.send_message(text)
    ctx.send_event(
        "rag.query_processed",
        {"query": messages[-1], "answer": text, "technical_info": technical_info, "threshold": THRESHOLD},
    )


def _user_messages(ctx: ThreadContext) -> list[str]:
    """Return the person's messages, oldest first: at least one, which may be empty."""
    contents = [message.get("content") for message in ctx.history if message.get("role") == "user"]
    return [content if isinstance(content, str) else "" for content in contents] or [""]


def _look_up(messages: list[str]) -> Answer:
    graph = open_graph(data_folder())
    return answer_question(read_question(messages, graph.people, graph.interests), graph)


async def _phrase(ctx: ThreadContext, question: str, answer: Answer) -> tuple[str, dict[str, Any]]:
    """Return the text of the answer, by the model if there is one, and the technical facts."""
    technical_info: dict[str, Any] = {
        "vts_queries": [],
        "cypher_queries": [*answer.cypher],
        "num_vts_queries": 0,
        "num_cypher_queries": len(answer.cypher),
        "model_used": "none",
        "model_stats": {},
    }
    model = configured_model()
    if model is None or not answer.names:
        # Without rows there is nothing to phrase, and a model might invent some.
        return answer.full(), technical_info
    await ctx.update_agent_status(StatusEvent("Writing the answer", "writing"))
    phrasing = await model.phrase(question, answer)
    technical_info["model_stats"] = {model.name: {"requests_count": 1, **phrasing.tokens}}
    if phrasing.text is None:
        technical_info["model_error"] = phrasing.error
    else:
        technical_info["model_used"] = model.name
    return answer.full(phrasing.text), technical_info
