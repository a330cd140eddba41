"""Pipelines as Sentry sees them: a scope of their own, a span in the trace, and tags on what they raise."""

from dataclasses import replace

import sentry_sdk

from jimsapi import ThreadContext
from jimsapi.service.pipeline import Pipeline, pipeline_name
from jimsapi.service.run import RunService
from jimsapi_sentry.events import PipelineCall, current_call


def report_pipelines(service: RunService) -> None:
    """Put `ReportedPipeline` around the pipelines of a service that has not begun to answer."""
    app = service.app
    start = app.conversation_start_pipeline
    service.app = replace(
        app,
        pipeline=ReportedPipeline(app.pipeline, app.name or pipeline_name(app.pipeline)),
        conversation_start_pipeline=None if start is None else ReportedPipeline(start, pipeline_name(start)),
    )


class ReportedPipeline:
    """Calls a pipeline in a scope that knows its thread. `name` is that of the pipeline."""

    def __init__(self, pipeline: Pipeline, name: str) -> None:
        self.name = name
        self._pipeline = pipeline

    async def __call__(self, ctx: ThreadContext) -> None:
        call = PipelineCall({"thread_id": str(ctx.thread_id), "pipeline": self.name})
        token = current_call.set(call)
        try:
            # What the pipeline itself tells Sentry, a tag or a user, stays with this call.
            with (
                sentry_sdk.isolation_scope(),
                sentry_sdk.start_span(op="jims.pipeline", name="jims.run_pipeline_with_context") as span,
            ):
                span.set_data("jims.thread.id", str(ctx.thread_id))
                span.set_data("jims.pipeline", self.name)
                await self._pipeline(ctx)
        except BaseException as error:
            call.mark(error)
            raise
        finally:
            current_call.reset(token)
