"""Tasks that pipelines cannot cancel: those of the service, and those of other pipelines.

Any code in the event loop can call `cancel()` on any task. If a pipeline cancels all tasks to clean up, it would also
cancel the runs of other callers and the service's own tasks. So these tasks ignore a cancellation by a pipeline that
they do not belong to. The service cancels them with `end()`.
"""

import asyncio
import logging
import sys
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from types import FrameType
from typing import Any, TypeVar
from uuid import UUID

Result = TypeVar("Result")

RESTART_AFTER = 1.0
"""Seconds after which work that ended unexpectedly starts again."""

logger = logging.getLogger("jimsapi.tasks")

current_pipeline: ContextVar["PipelineTask | None"] = ContextVar("jimsapi_pipeline", default=None)
"""The task of the current pipeline. It is set in that task, and in everything that the pipeline starts."""

# A pipeline may start work in a scope that a task of the service has entered, such as the task group of a client that
# all runs share. The scope then cancels that task, from a task or a callback with the context of that pipeline, exactly
# as a pipeline does that cancels all tasks. A mark on tasks, by their context or by a task factory, cannot distinguish
# the two. The module that calls `cancel` can; a test for each module fails if a new version moves the call.
# The alternative is to remove these tasks from `asyncio.all_tasks()` (`asyncio._unregister_task`). That makes no chat
# faster, hides the tasks from debuggers, and a loop that ends does not cancel them.
_SCOPES = ("asyncio.taskgroups", "asyncio.timeouts", "anyio.")
"""Modules that cancel a task only if it has entered one of their scopes: its own code has requested that."""


class _ProtectedTask(asyncio.Task[Result]):
    """A task that a pipeline cannot cancel, unless it is the pipeline's own task or the pipeline made it.

    The context variable `current_pipeline` shows to which pipeline code belongs. Tasks, timers and threads inherit it.
    When a pipeline has ended, the code that it started is background work of the app, and can cancel every task.
    """

    # `begin` sets it. Without slots, Python would make a dictionary for each task.
    __slots__ = ("_made_by",)

    _made_by: "PipelineTask | None"

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel the task. Returns False if it is done, or if another pipeline calls; the latter is also logged."""
        canceller = current_pipeline.get()
        if canceller is None or canceller is self or canceller is self._made_by or canceller.done() or self.done():
            return self._cancel(msg)
        frame = sys._getframe(1)
        if frame.f_globals.get("__name__", "").startswith(_SCOPES):
            return self._cancel(msg)
        _log_refusal(self, canceller, frame)
        return False

    def end(self) -> None:
        """Cancel the task, even if a pipeline calls. For the service only."""
        self._cancel(None)

    def _cancel(self, msg: Any | None) -> bool:
        return super().cancel(msg)


class ServiceTask(_ProtectedTask[Result]):
    """A task of the service; use `begin` to make one. No pipeline can cancel it except one that made it."""

    __slots__ = ()

    @classmethod
    def begin(
        cls, work: Coroutine[Any, Any, Result], *, loop: asyncio.AbstractEventLoop, name: str | None = None
    ) -> "ServiceTask[Result]":
        """Start `work` in a new task of the service."""
        task = cls(work, loop=loop, name=name)
        task._made_by = current_pipeline.get()
        return task


class PipelineTask(_ProtectedTask[Any]):
    """The task of one call of a pipeline; use `begin` to make one.

    Other pipelines cannot cancel it. `pipeline` is the pipeline's name in metrics. `ended` is a future that is done
    when the pipeline has ended or is abandoned. The work sets `begun` at its beginning, and calls `wake` at its end.
    """

    __slots__ = ("begun", "ended", "pipeline", "refusal_logged", "run_id", "thread_id")

    begun: bool
    ended: asyncio.Future[None]
    pipeline: str
    run_id: UUID
    thread_id: UUID
    refusal_logged: bool

    @classmethod
    def begin(
        cls,
        work: Coroutine[Any, Any, Any],
        *,
        loop: asyncio.AbstractEventLoop,
        pipeline: str,
        run_id: UUID,
        thread_id: UUID,
    ) -> "PipelineTask":
        """Start the call of a pipeline in a new task."""
        task = cls(work, loop=loop, name=pipeline)
        task.begun = False
        task.ended = loop.create_future()
        task.pipeline = pipeline
        task.run_id = run_id
        task.thread_id = thread_id
        task._made_by = current_pipeline.get()
        task.refusal_logged = False
        return task

    def wake(self, _: object = None) -> None:
        """Complete `ended`: the pipeline has ended, or did not end in time."""
        if not self.ended.done():
            self.ended.set_result(None)

    def _cancel(self, msg: Any | None) -> bool:
        if not self.begun and not self.done():
            # Its work never begins, so it cannot call `wake`. For other tasks, a callback would cost another turn of
            # the event loop.
            self.add_done_callback(self.wake)
        return super()._cancel(msg)

    def __str__(self) -> str:
        return f"pipeline {self.pipeline} (run {self.run_id}, thread {self.thread_id})"


class EndlessTask:
    """A task that runs until it is stopped. If its work ends or fails, the work starts again after a pause."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        self._work = work
        self._name = name
        self._task: ServiceTask[None] | None = None
        self._restart: asyncio.TimerHandle | None = None
        self._stopped = False

    def start(self) -> None:
        """Start the work in the running loop."""
        self._restart = None
        self._task = ServiceTask.begin(self._work(), loop=asyncio.get_running_loop(), name=self._name)
        self._task.add_done_callback(self._ended)

    async def stop(self, seconds: float) -> None:
        """Cancel the work, and wait up to `seconds` until it has ended."""
        self._stopped = True
        if self._restart is not None:
            self._restart.cancel()
        if self._task is not None:
            self._task.end()
            await asyncio.wait({self._task}, timeout=seconds)

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if self._stopped:
            return
        cause = "was cancelled" if task.cancelled() else "ended"
        logger.error("%s %s; it restarts in %g s", self._name, cause, RESTART_AFTER, exc_info=error)
        self._restart = task.get_loop().call_later(RESTART_AFTER, self.start)


def task_text(task: asyncio.Task[Any] | None) -> str:
    """Return the text that names a task in a log line."""
    if task is None:
        return "a callback"
    if (pipeline := pipeline_of(task)) is not None:
        return str(pipeline) if pipeline is task else f"a task of {pipeline}"
    coroutine = task.get_coro()
    return f"task {task.get_name()} ({getattr(coroutine, '__qualname__', type(coroutine).__name__)})"


def pipeline_of(task: asyncio.Task[Any]) -> PipelineTask | None:
    """Return the pipeline whose task this is; from Python 3.12 on, also the pipeline that started the task."""
    if isinstance(task, PipelineTask):
        return task
    context = getattr(task, "get_context", None)  # from Python 3.12 on
    return None if context is None else context().get(current_pipeline)


def _log_refusal(refused: asyncio.Task[Any], canceller: PipelineTask, frame: FrameType) -> None:
    """Log the pipeline, the task and the line of a refused cancellation.

    Only the first one of each pipeline is logged, since a pipeline may cancel thousands of tasks.
    """
    if canceller.refusal_logged:
        return
    canceller.refusal_logged = True
    logger.error(
        "%s cancelled %s, at %s:%d: that task continues, because a pipeline cannot cancel tasks of others",
        canceller if asyncio.current_task(refused.get_loop()) is canceller else f"a task of {canceller}",
        task_text(refused),
        frame.f_code.co_filename,
        frame.f_lineno,
    )
