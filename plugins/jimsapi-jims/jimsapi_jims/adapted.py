"""A JIMS app as one of jimsapi's: its pipelines get jims-core's own context, and what they send goes back to ours."""

import logging
from typing import cast

import jims_core.app
from jims_core.llms.llm_provider import LLMProvider
from jims_core.schema import Pipeline
from jims_core.thread.schema import CommunicationEvent, EventEnvelope
from jims_core.thread.thread_context import StatusEvent as JimsStatusEvent
from jims_core.thread.thread_context import StatusUpdater
from jims_core.thread.thread_context import ThreadContext as JimsContext

from jimsapi import JimsApp, StatusEvent, ThreadContext
from jimsapi.plugins.errors import StartError
from jimsapi.runs.pipeline import Pipeline as OurPipeline
from jimsapi.runs.pipeline import pipeline_name

logger = logging.getLogger("jimsapi.jims")


def adapt(app: jims_core.app.JimsApp, *, store: str | None) -> JimsApp:
    """Wrap a JIMS app. `store` is the URL of its threads; None leaves it to `--store`.

    A context holds all events of its thread unless `--context-events` says otherwise, for JIMS apps may fold their
    state from any of them. Raises `StartError` for a pipeline that cannot be called.
    """
    _warn_of_overrides(type(app))
    start = app.conversation_start_pipeline
    return JimsApp(
        JimsPipeline(app.pipeline, "pipeline"),
        conversation_start_pipeline=None if start is None else JimsPipeline(start, "conversation_start_pipeline"),
        store=store,
        context_events=0,
    )


def _warn_of_overrides(cls: type[jims_core.app.JimsApp]) -> None:
    if cls.new_thread is not jims_core.app.JimsApp.new_thread:
        logger.warning(
            "%s overrides new_thread, which jims-api calls for each new thread; jimsapi does not, since it stores a "
            "thread together with its first message: do in a pipeline what it does",
            cls.__qualname__,
        )


class JimsPipeline:
    """A pipeline that is written for jims-core, called as one of ours is. `name` is that of the pipeline itself."""

    def __init__(self, pipeline: Pipeline, role: str) -> None:
        if not callable(pipeline):
            raise StartError(f"the JIMS app's {role} is a {type(pipeline).__name__}: it must be `async def (ctx)`")
        self.name = pipeline_name(cast("OurPipeline", pipeline))
        self._pipeline = pipeline

    async def __call__(self, ctx: ThreadContext) -> None:
        context = jims_context(ctx)
        await self._pipeline(context)
        ctx.outgoing_events.extend(context.outgoing_events)


def jims_context(ctx: ThreadContext) -> JimsContext:
    """Make the context that jims-core would make of the same thread. Its statuses go to `ctx`."""
    return JimsContext(
        thread_id=ctx.thread_id,
        history=[
            cast(CommunicationEvent, dict(event.event_data))
            for event in ctx.events
            if event.event_type.startswith("comm.") and isinstance(event.event_data, dict)
        ],
        events=[
            EventEnvelope(
                thread_id=ctx.thread_id,
                event_id=event.event_id,
                created_at=event.created_at,
                event_type=event.event_type,
                event_data=event.event_data,
            )
            for event in ctx.events
        ],
        llm=LLMProvider(),
        thread_config=ctx.thread_config,
        status_updater=_Statuses(ctx),
    )


class _Statuses(StatusUpdater):
    """Tells our context what a pipeline says of its progress.

    A pipeline may copy its context, or send it to another process: a copy tells the same, what was pickled nobody.
    """

    def __init__(self, ctx: ThreadContext) -> None:
        self._ctx = ctx

    def __deepcopy__(self, memo: object) -> "_Statuses":
        return self

    def __reduce__(self) -> tuple[type[StatusUpdater], tuple[()]]:
        return StatusUpdater, ()

    async def update_status(self, status: JimsStatusEvent | str) -> None:
        if isinstance(status, JimsStatusEvent):
            await self._ctx.update_agent_status(StatusEvent(status.message, status.status_type))
        else:
            await self._ctx.update_agent_status(status)
