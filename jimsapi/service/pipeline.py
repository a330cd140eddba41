"""Pipelines: the code that answers, and the app that carries it."""

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from jimsapi.threads.context import ThreadContext

Pipeline = Callable[[ThreadContext], Awaitable[Any]]


@dataclass(frozen=True)
class JimsApp:
    """What is served: a pipeline, and what belongs to it.

    `pipeline` and `conversation_start_pipeline` are `async def (ctx)`, or objects with an async `__call__`. `name` is
    the metric label; by default the pipeline's own name. `store` is a store's URL and `context_events` the number of
    `comm.*` events in a context, both overridden by the options `--store` and `--context-events`.

    Raises:
        TypeError: a pipeline is not an async callable.
    """

    pipeline: Pipeline
    conversation_start_pipeline: Pipeline | None = field(default=None, kw_only=True)
    name: str | None = field(default=None, kw_only=True)
    store: str | None = field(default=None, kw_only=True, repr=False)  # it may hold a password
    context_events: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        _require_async(self.pipeline, "pipeline")
        if self.conversation_start_pipeline is not None:
            _require_async(self.conversation_start_pipeline, "conversation_start_pipeline")


def is_pipeline(value: object) -> bool:
    """Whether `value` is an async callable: a coroutine function, or an object with an async `__call__`."""
    return inspect.iscoroutinefunction(value) or (
        not isinstance(value, type) and inspect.iscoroutinefunction(getattr(value, "__call__", None))  # noqa: B004
    )


def pipeline_name(pipeline: Pipeline) -> str:
    """The name of a pipeline in metrics and logs: its `__name__`, else its `name`, else its class's name."""
    for attribute in ("__name__", "name"):
        name = getattr(pipeline, attribute, None)
        if isinstance(name, str) and name:
            return name
    return type(pipeline).__name__


def _require_async(pipeline: object, role: str) -> None:
    if not is_pipeline(pipeline):
        raise TypeError(f"{role} must be `async def (ctx)` or an object with an async __call__, not {pipeline!r}")
