"""Pipelines: the code that answers, and the app that carries it."""

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator
from contextlib import aclosing, closing, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

from jimsapi.runs.worker_threads import WorkerThreads
from jimsapi.threads.context import ThreadContext

Pipeline = Callable[[ThreadContext], Awaitable[Any]]
Deltas = Callable[[ThreadContext], AsyncIterator[str]]
"""A pipeline that is an async generator: what it yields is streamed."""
Blocking = Callable[[ThreadContext], Any]
"""A pipeline that is a plain function: it works in a thread. If it makes a generator, what that yields is streamed."""

THREADS = 40
"""Pipelines that work in threads at once, if an app does not say how many."""


@dataclass(frozen=True, init=False)
class JimsApp:
    """What is served: a pipeline, and what belongs to it.

    `pipeline` and `conversation_start_pipeline` are `async def (ctx)`, or objects with an async `__call__`. One that
    yields is a generator of the pieces of a message, each of which goes to `ctx.stream`; the attribute then holds the
    pipeline that does so. A plain `def (ctx)` works in a thread, so that it may block. With `threaded` an async one
    does so too, in an event loop of its own. Up to `threads` messages are answered in threads at once; others wait for
    a thread, as part of their run. `name` is the metric label; by default the pipeline's own name. `store` is a
    store's URL and `context_events` the number of `comm.*` events in a context, both overridden by the options
    `--store` and `--context-events`.

    Raises:
        TypeError: a pipeline is not a callable that takes a context.
        ValueError: `threads` is less than 1.
    """

    pipeline: Pipeline
    conversation_start_pipeline: Pipeline | None
    name: str | None
    store: str | None = field(repr=False)  # it may hold a password
    context_events: int | None

    def __init__(
        self,
        pipeline: Pipeline | Deltas | Blocking,
        *,
        conversation_start_pipeline: Pipeline | Deltas | Blocking | None = None,
        name: str | None = None,
        store: str | None = None,
        context_events: int | None = None,
        threaded: bool = False,
        threads: int = THREADS,
    ) -> None:
        if threads < 1:
            raise ValueError(f"threads is {threads}: a pipeline needs at least one")
        made = partial(_awaitable, threads=WorkerThreads(threads), threaded=threaded)
        start = conversation_start_pipeline
        values = {
            "pipeline": made(pipeline, "pipeline"),
            "conversation_start_pipeline": None if start is None else made(start, "conversation_start_pipeline"),
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
        await _stream_async(ctx, cast("AsyncGenerator[str, None]", self._deltas(ctx)))


class Threaded:
    """A plain function, called in a thread. `name` is that of the function.

    The function may be a wrapper that only makes a generator or a coroutine, as a lambda or a decorator does. A
    generator is read in the thread; a coroutine and an async generator work in the service's loop.
    """

    def __init__(self, function: Blocking, threads: WorkerThreads) -> None:
        self.name = pipeline_name(function)
        self._function = function
        self._threads = threads

    async def __call__(self, ctx: ThreadContext) -> None:
        ctx.speak_from_threads()
        returned = await self._threads.run(partial(self._work, ctx))
        if inspect.isawaitable(returned):
            await returned
        elif inspect.isasyncgen(returned):
            await _stream_async(ctx, cast("AsyncGenerator[str, None]", returned))

    def _work(self, ctx: ThreadContext) -> Any:
        returned = self._function(ctx)
        if inspect.isawaitable(returned) or not inspect.isgenerator(returned):
            return returned
        with closing(cast("Generator[str, None, None]", returned)) as deltas:
            for delta in deltas:
                ctx.stream(delta)
        return None


class ThreadedLoop:
    """An async pipeline, called in a thread with an event loop of its own. `name` is that of the pipeline."""

    def __init__(self, pipeline: Pipeline, threads: WorkerThreads) -> None:
        self.name = pipeline_name(pipeline)
        self._pipeline = pipeline
        self._threads = threads

    async def __call__(self, ctx: ThreadContext) -> None:
        ctx.speak_from_threads()
        call = _LoopCall(self._pipeline, ctx)
        await self._threads.run(call.work, call.cancel)


class _LoopCall:
    """One call of a pipeline in its own loop, which the loop of the service can cancel."""

    def __init__(self, pipeline: Pipeline, ctx: ThreadContext) -> None:
        self._pipeline = pipeline
        self._ctx = ctx
        self._cancelled = False
        self._task: asyncio.Task[None] | None = None

    def work(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        self._task = asyncio.current_task()
        if self._cancelled:  # since the loop was being made
            raise asyncio.CancelledError
        await self._pipeline(self._ctx)

    def cancel(self) -> None:
        self._cancelled = True
        if self._task is not None:
            with suppress(RuntimeError):  # its loop is closed: it has ended
                self._task.get_loop().call_soon_threadsafe(self._task.cancel)


async def _stream_async(ctx: ThreadContext, deltas: AsyncGenerator[str, None]) -> None:
    # Closed here and now, whatever happens: a generator that is left to be collected cleans up nobody knows when.
    async with aclosing(deltas):
        async for delta in deltas:
            await ctx.stream(delta)


def pipeline_name(pipeline: Pipeline | Deltas | Blocking) -> str:
    """The name of a pipeline in metrics and logs: its `__name__`, else its `name`, else its class's name."""
    for attribute in ("__name__", "name"):
        name = getattr(pipeline, attribute, None)
        if isinstance(name, str) and name:
            return name
    return type(pipeline).__name__


def _is(kind: Callable[[Any], bool], value: object) -> bool:
    """Whether a callable, or the `__call__` of an object, is a function of this kind."""
    return kind(value) or (not isinstance(value, type) and kind(getattr(value, "__call__", None)))  # noqa: B004


def takes_context(function: Any) -> bool:
    """Whether a callable needs one argument: a pipeline does; a factory takes none, or only optional ones."""
    try:
        signature = inspect.signature(function)
        signature.bind(None)
    except (TypeError, ValueError):
        return False
    first = next(iter(signature.parameters.values()))
    return first.default is inspect.Parameter.empty


def _awaitable(
    pipeline: Pipeline | Deltas | Blocking, role: str, *, threads: WorkerThreads, threaded: bool
) -> Pipeline:
    """A pipeline of any kind, as one that the service can await."""
    awaited: Pipeline
    if _is(inspect.isasyncgenfunction, pipeline):
        awaited = Streaming(cast(Deltas, pipeline))
    elif _is(inspect.iscoroutinefunction, pipeline):
        awaited = cast(Pipeline, pipeline)
    elif isinstance(pipeline, type) or not callable(pipeline) or not takes_context(pipeline):
        raise TypeError(f"{role} must be a function of one argument, the context, or such an object, not {pipeline!r}")
    else:
        return Threaded(pipeline, threads)
    return ThreadedLoop(awaited, threads) if threaded else awaited
