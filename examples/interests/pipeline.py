"""The pipelines: what happens between a message and its answer."""

import asyncio
from typing import Any

from jimsapi import StatusEvent, ThreadContext

from .answer import Answer, answer_question, examples
from .graph import open_graph
from .model import configured_model
from .question import read_question
from .tables import data_folder

THRESHOLD = 0.8
"""A field that readers of `rag.query_processed` expect. It is about vector search, and there is none here."""


async def greet(ctx: ThreadContext) -> None:
    """Start a conversation: say what can be asked."""
    graph = await asyncio.to_thread(open_graph, data_folder())
    ctx.send_message(f"Hello! {examples(graph)}")


async def answer_interests(ctx: ThreadContext) -> None:
    """Answer the newest message, and say in `rag.query_processed` how the answer came about."""
    await ctx.update_agent_status(StatusEvent("Asking the graph", "searching"))
    messages = _said_by_user(ctx)
    # In a thread: reading names and asking the database take the processor, and other conversations must go on.
    answer = await asyncio.to_thread(_look_up, messages)
    text, technical_info = await _phrase(ctx, messages[-1], answer)
    ctx.send_message(text)
    ctx.send_event(
        "rag.query_processed",
        {"query": messages[-1], "answer": text, "technical_info": technical_info, "threshold": THRESHOLD},
    )


def _said_by_user(ctx: ThreadContext) -> list[str]:
    """The person's messages, oldest first; at least one, which may be empty."""
    contents = [said.get("content") for said in ctx.history if said.get("role") == "user"]
    return [content if isinstance(content, str) else "" for content in contents] or [""]


def _look_up(messages: list[str]) -> Answer:
    graph = open_graph(data_folder())
    return answer_question(read_question(messages, graph.people, graph.interests), graph)


async def _phrase(ctx: ThreadContext, question: str, answer: Answer) -> tuple[str, dict[str, Any]]:
    """The words of the answer, the model's if there is one, and the technical facts."""
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
        # Without rows there is nothing to phrase, and a model would be tempted to find some.
        return answer.full(), technical_info
    await ctx.update_agent_status(StatusEvent("Writing the answer", "writing"))
    phrasing = await model.phrase(question, answer)
    technical_info["model_stats"] = {model.name: {"requests_count": 1, **phrasing.tokens}}
    if phrasing.text is None:
        technical_info["model_error"] = phrasing.error
    else:
        technical_info["model_used"] = model.name
    return answer.full(phrasing.text), technical_info
