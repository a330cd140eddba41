"""Pipelines: the code that answers, and the app that carries it."""

import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, cast

from jimsapi.threads.context import ThreadContext

Pipeline = Callable[[ThreadContext], Awaitable[Any]]
Deltas = Callable[[ThreadContext], AsyncIterator[str]]
"""A pipeline that is an async generator: what it yields is streamed."""


@dataclass(frozen=True, init=False)
class JimsApp:
    """What is served: a pipeline, and what belongs to it.

    `pipeline` and `conversation_start_pipeline` are `async def (ctx)`, or objects with an async `__call__`. One that
    yields is an async generator of the pieces of a message, each of which goes to `ctx.stream`; the attribute then
    holds the pipeline that does so. `name` is the metric label; by default the pipeline's own name. `store` is a
    store's URL and `context_events` the number of `comm.*` events in a context, both overridden by the options
    `--store` and `--context-events`.

    Raises:
        TypeError: a pipeline is not an async callable.
    """

    pipeline: Pipeline
    conversation_start_pipeline: Pipeline | None
    name: str | None
    store: str | None = field(repr=False)  # it may hold a password
    context_events: int | None

    def __init__(
        self,
        pipeline: Pipeline | Deltas,
        *,
        conversation_start_pipeline: Pipeline | Deltas | None = None,
        name: str | None = None,
        store: str | None = None,
        context_events: int | None = None,
    ) -> None:
        start = conversation_start_pipeline
        values = {
            "pipeline": _awaitable(pipeline, "pipeline"),
            "conversation_start_pipeline": None if start is None else _awaitable(start, "conversation_start_pipeline"),
            "name": name,
            "store": store,
            "context_events": context_events,
        }
        for field_name, value in values.items():
            object.__setattr__(self, field_name, value)


def is_pipeline(value: object) -> bool:
    """Whether `value` is an async function or async generator function, or an object whose `__call__` is one."""
    return _is(inspect.iscoroutinefunction, value) or _is(inspect.isasyncgenfunction, value)


class Streaming:
    """An async generator of the pieces of a message, called as every pipeline is. `name` is that of the generator."""

    def __init__(self, deltas: Deltas) -> None:
        self.name = pipeline_name(deltas)
        self._deltas = deltas

    async def __call__(self, ctx: ThreadContext) -> None:
        # Closed here and now, whatever happens: a generator that is left to be collected cleans up nobody knows when.
        async with aclosing(cast("AsyncGenerator[str, None]", self._deltas(ctx))) as deltas:
            async for delta in deltas:
                await ctx.stream(delta)


def pipeline_name(pipeline: Pipeline | Deltas) -> str:
    """The name of a pipeline in metrics and logs: its `__name__`, else its `name`, else its class's name."""
    for attribute in ("__name__", "name"):
        name = getattr(pipeline, attribute, None)
        if isinstance(name, str) and name:
            return name
    return type(pipeline).__name__


def _is(kind: Callable[[Any], bool], value: object) -> bool:
    """Whether a callable, or the `__call__` of an object, is a function of this kind."""
    return kind(value) or (not isinstance(value, type) and kind(getattr(value, "__call__", None)))  # noqa: B004


def _awaitable(pipeline: Pipeline | Deltas, role: str) -> Pipeline:
    if _is(inspect.isasyncgenfunction, pipeline):
        return Streaming(cast(Deltas, pipeline))
    if not _is(inspect.iscoroutinefunction, pipeline):
        raise TypeError(f"{role} must be `async def (ctx)` or an object with an async __call__, not {pipeline!r}")
    return cast(Pipeline, pipeline)
