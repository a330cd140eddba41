"""Pipelines, which answer messages, and the app that has them."""

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, closing, suppress
from copy import copy
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, cast

from jimsapi.runs.skill import Skill
from jimsapi.runs.worker_threads import WorkerThreads
from jimsapi.threads.context import ThreadContext
from jimsapi.threads.event import ASSISTANT_MESSAGE, ASSISTANT_MESSAGE_WITH_BUTTONS, USER_MESSAGE
from jimsapi.threads.questions import QUESTION_ASKED

Pipeline = Callable[[ThreadContext], Awaitable[Any]]
"""Answers a message: it reads the context and sends events with it."""
Deltas = Callable[[ThreadContext], AsyncIterator[str]]
"""A pipeline that is an async generator. The text that it yields is streamed."""
Blocking = Callable[[ThreadContext], Any]
"""A pipeline that is a plain function. It runs in a worker thread. If it returns a generator, its text is streamed."""

_NEVER_PRIVATE = (ASSISTANT_MESSAGE, ASSISTANT_MESSAGE_WITH_BUTTONS, USER_MESSAGE, QUESTION_ASKED)

THREADS = 40
"""The default number of pipelines that run in worker threads at once."""


@dataclass(frozen=True, init=False)
class JimsApp:
    """The app that a server serves: a pipeline and its settings.

    `pipeline` and `conversation_start_pipeline` are functions of one parameter, the context, or objects with such a
    `__call__`:

    - `async def`: it runs in the event loop of the server. If `threaded` is set, it runs in a worker thread, with an
      event loop of its own.
    - `def`: it runs in a worker thread, so it may block.
    - If it yields, it is a generator of the pieces of a message, and each piece goes to `ctx.stream`. The attribute
      then holds a pipeline that does so.

    Up to `threads` pipelines run in worker threads at once. Other runs wait for a thread, and that wait counts as part
    of their run time. `name` is the label in metrics; by default it is the pipeline's own name. `store` is a store's
    URL, and `context_events` the number of `comm.*` events in a context. The options `--store` and `--context-events`
    override these two.

    `private_events` are types of events that callers do not get, such as `("state.*", "agent.*")`: `*` stands for any
    text. They are stored, and sinks get them. Callers with the scope `threads` read them among the events of the
    thread. Answers, streams, runs and webhooks do not have them. Messages (`comm.*`) and questions cannot be private.

    `restarts` is how often a background run starts again after its process has died while the pipeline worked on it.
    It is 0 by default: such a run is `interrupted`. If you set it, the pipeline must be able to do its work again; see
    `ctx.once`.

    `lifespan` is a function without parameters that returns an async context manager, as `@asynccontextmanager` makes
    one. The server enters it before the first message and exits it after the last. The value that it yields, such as a
    client that all runs share, is `ctx.resources`. If a plugin makes the app from an object that is an async context
    manager, that object is its `lifespan`.

    Raises:
        TypeError: a pipeline is not a callable that takes a context.
        ValueError: `threads` is less than 1, `restarts` is less than 0, or `private_events` has a pattern that messages
            match.
    """

    pipeline: Pipeline
    conversation_start_pipeline: Pipeline | None
    name: str | None
    store: str | None = field(repr=False)  # it may contain a password
    context_events: int | None
    lifespan: Callable[[], AbstractAsyncContextManager[Any]] | None
    private_events: tuple[str, ...]
    restarts: int
    description: str | None
    skills: tuple[Skill, ...]

    def __init__(
        self,
        pipeline: Pipeline | Deltas | Blocking,
        *,
        conversation_start_pipeline: Pipeline | Deltas | Blocking | None = None,
        name: str | None = None,
        store: str | None = None,
        context_events: int | None = None,
        lifespan: Callable[[], AbstractAsyncContextManager[Any]] | None = None,
        private_events: Sequence[str] = (),
        restarts: int = 0,
        threaded: bool = False,
        threads: int = THREADS,
        description: str | None = None,
        skills: Sequence[Skill] = (),
    ) -> None:
        if threads < 1:
            raise ValueError(f"threads is {threads}: a pipeline needs at least one")
        if restarts < 0:
            raise ValueError(f"restarts is {restarts}: it is the number of starts after the first one")
        convert = partial(_awaitable, threads=WorkerThreads(threads), threaded=threaded)
        start = conversation_start_pipeline
        values = {
            "pipeline": convert(pipeline, "pipeline"),
            "conversation_start_pipeline": None if start is None else convert(start, "conversation_start_pipeline"),
            "name": name,
            "store": store,
            "context_events": context_events,
            "lifespan": lifespan,
            "private_events": _private(private_events),
            "restarts": restarts,
            "description": description,
            "skills": _skills(skills),
        }
        for field_name, value in values.items():
            object.__setattr__(self, field_name, value)

    def with_lifespan(self, lifespan: Callable[[], AbstractAsyncContextManager[Any]]) -> "JimsApp":
        """Return a copy of the app that has this `lifespan`."""
        copied = copy(self)
        object.__setattr__(copied, "lifespan", lifespan)
        return copied


def is_pipeline(value: object) -> bool:
    """Return whether `value` is an async function or async generator function, or an object with such a `__call__`."""
    return _is_kind(inspect.iscoroutinefunction, value) or _is_kind(inspect.isasyncgenfunction, value)


class Streaming:
    """A pipeline that streams the pieces that an async generator yields. `name` is that of the generator."""

    def __init__(self, deltas: Deltas) -> None:
        self.name = pipeline_name(deltas)
        self._deltas = deltas

    async def __call__(self, ctx: ThreadContext) -> None:
        await _stream_async(ctx, cast("AsyncGenerator[str, None]", self._deltas(ctx)))


class Threaded:
    """A pipeline that calls a plain function in a worker thread. `name` is that of the function.

    The function may return a generator, which is read in the thread. It may also return a coroutine or an async
    generator, as a lambda or a decorator does; these run in the event loop of the service.
    """

    def __init__(self, function: Blocking, threads: WorkerThreads) -> None:
        self.name = pipeline_name(function)
        self._function = function
        self._threads = threads

    async def __call__(self, ctx: ThreadContext) -> Any:
        ctx.speak_from_threads()
        returned = await self._threads.run(partial(self._work, ctx))
        if inspect.isawaitable(returned):
            return await returned
        if inspect.isasyncgen(returned):
            return await _stream_async(ctx, cast("AsyncGenerator[str, None]", returned))
        return returned

    def _work(self, ctx: ThreadContext) -> Any:
        returned = self._function(ctx)
        if inspect.isawaitable(returned) or not inspect.isgenerator(returned):
            return returned
        with closing(cast("Generator[str, None, None]", returned)) as deltas:
            for delta in deltas:
                ctx.stream(delta)
        return None


class ThreadedLoop:
    """A pipeline that runs an async one in a worker thread with its own event loop. `name` is the async one's."""

    def __init__(self, pipeline: Pipeline, threads: WorkerThreads) -> None:
        self.name = pipeline_name(pipeline)
        self._pipeline = pipeline
        self._threads = threads

    async def __call__(self, ctx: ThreadContext) -> Any:
        ctx.speak_from_threads()
        call = _LoopCall(self._pipeline, ctx)
        return await self._threads.run(call.work, call.cancel)


class _LoopCall:
    """One call of a pipeline in a loop of its own. The loop of the service can cancel it."""

    def __init__(self, pipeline: Pipeline, ctx: ThreadContext) -> None:
        self._pipeline = pipeline
        self._ctx = ctx
        self._cancelled = False
        self._task: asyncio.Task[Any] | None = None

    def work(self) -> Any:
        return asyncio.run(self._main())

    async def _main(self) -> Any:
        self._task = asyncio.current_task()
        if self._cancelled:  # while the loop was created
            raise asyncio.CancelledError
        return await self._pipeline(self._ctx)

    def cancel(self) -> None:
        self._cancelled = True
        if self._task is not None:
            with suppress(RuntimeError):  # the loop is closed, so the pipeline has ended
                self._task.get_loop().call_soon_threadsafe(self._task.cancel)


async def _stream_async(ctx: ThreadContext, deltas: AsyncGenerator[str, None]) -> None:
    # Without `aclosing`, the generator would run its cleanup only when the garbage collector finds it.
    async with aclosing(deltas):
        async for delta in deltas:
            await ctx.stream(delta)


def pipeline_name(pipeline: Pipeline | Deltas | Blocking) -> str:
    """Return the name of a pipeline in metrics and logs: its `__name__`, its `name`, or the name of its class."""
    for attribute in ("__name__", "name"):
        name = getattr(pipeline, attribute, None)
        if isinstance(name, str) and name:
            return name
    return type(pipeline).__name__


def _private(patterns: Sequence[str]) -> tuple[str, ...]:
    if isinstance(patterns, str):
        raise TypeError(f"private_events must be a sequence of patterns, such as ({patterns!r},), not a str")
    for pattern in patterns:
        if any(fnmatchcase(shown, pattern) for shown in _NEVER_PRIVATE) or pattern.startswith("comm."):
            raise ValueError(
                f"private_events has {pattern!r}, but messages (comm.*) and {QUESTION_ASKED} cannot be private"
            )
    return tuple(patterns)


def _skills(skills: Sequence[Skill]) -> tuple[Skill, ...]:
    for skill in skills:
        if not isinstance(skill, Skill):
            raise TypeError(f"skills must have objects of the class Skill only, not {skill!r}")
    return tuple(skills)


def _is_kind(kind: Callable[[Any], bool], value: object) -> bool:
    """Return whether `kind` is true for a callable, or for the `__call__` of an object."""
    return kind(value) or (not isinstance(value, type) and kind(getattr(value, "__call__", None)))  # noqa: B004


def takes_context(function: Any) -> bool:
    """Return whether a callable needs exactly one argument, as a pipeline does.

    A factory of an app has no parameters, or only optional ones.
    """
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
    """Convert a pipeline of any kind to one that the service can await. `role` names it in errors."""
    awaited: Pipeline
    if _is_kind(inspect.isasyncgenfunction, pipeline):
        awaited = Streaming(cast(Deltas, pipeline))
    elif _is_kind(inspect.iscoroutinefunction, pipeline):
        awaited = cast(Pipeline, pipeline)
    elif isinstance(pipeline, type) or not callable(pipeline) or not takes_context(pipeline):
        raise TypeError(f"{role} must be a function of one argument, the context, or such an object, not {pipeline!r}")
    else:
        return Threaded(pipeline, threads)
    return ThreadedLoop(awaited, threads) if threaded else awaited
