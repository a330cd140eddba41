"""Adapts a JIMS app: its pipelines get a context of jims-core, and their events are copied to jimsapi's context."""

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
from jimsapi.plugins import StartError
from jimsapi.runs import Pipeline as JimsapiPipeline
from jimsapi.runs import pipeline_name
from jimsapi_jims.usage import RunUsage, install, of_run, recording

logger = logging.getLogger("jimsapi.jims")


def adapt(app: jims_core.app.JimsApp, *, store: str | None) -> JimsApp:
    """Wrap a JIMS app. `store` is the URL of its threads; None means the store of `--store`.

    Unless `--context-events` is set, a context has all events of its thread, because a JIMS app may compute its state
    from any of them. Raises `StartError` if a pipeline is not callable.
    """
    _warn_of_overrides(type(app))
    install()
    start = app.conversation_start_pipeline
    return JimsApp(
        JimsPipeline(app.pipeline, "pipeline"),
        conversation_start_pipeline=None if start is None else JimsPipeline(start, "conversation_start_pipeline"),
        store=store,
        context_events=0,
        # Clients of jims-api know an answer without these events, and may take the first event for the message.
        private_events=("model.usage",),
    )


def _warn_of_overrides(cls: type[jims_core.app.JimsApp]) -> None:
    if cls.new_thread is not jims_core.app.JimsApp.new_thread:
        logger.warning(
            "%s overrides new_thread, which jims-api calls for each new thread; jimsapi does not call it, because it "
            "stores a thread together with its first message: move that code to a pipeline",
            cls.__qualname__,
        )


class JimsPipeline:
    """A jimsapi pipeline that calls a pipeline of jims-core. `name` is the name of that pipeline."""

    def __init__(self, pipeline: Pipeline, role: str) -> None:
        if not callable(pipeline):
            raise StartError(f"the JIMS app's {role} is a {type(pipeline).__name__}: it must be `async def (ctx)`")
        self.name = pipeline_name(cast("JimsapiPipeline", pipeline))
        self._pipeline = pipeline

    async def __call__(self, ctx: ThreadContext) -> None:
        with recording(ctx) as run:
            context = jims_context(ctx, run)
            await self._pipeline(context)
        ctx.outgoing_events.extend(context.outgoing_events)


def jims_context(ctx: ThreadContext, run: RunUsage) -> JimsContext:
    """Return the context that jims-core would create for the same thread.

    Its statuses are forwarded to `ctx`, and so is what its models use.
    """
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
        llm=of_run(LLMProvider(), run),
        thread_config=ctx.thread_config,
        status_updater=_StatusForwarder(ctx),
    )


class _StatusForwarder(StatusUpdater):
    """Forwards a pipeline's statuses to jimsapi's context.

    A pipeline may copy its context or send it to another process. A copy forwards to the same context. After pickling,
    statuses are dropped.
    """

    def __init__(self, ctx: ThreadContext) -> None:
        self._ctx = ctx

    def __deepcopy__(self, memo: object) -> "_StatusForwarder":
        return self

    def __reduce__(self) -> tuple[type[StatusUpdater], tuple[()]]:
        return StatusUpdater, ()

    async def update_status(self, status: JimsStatusEvent | str) -> None:
        if isinstance(status, JimsStatusEvent):
            await self._ctx.update_agent_status(StatusEvent(status.message, status.status_type))
        else:
            await self._ctx.update_agent_status(status)
