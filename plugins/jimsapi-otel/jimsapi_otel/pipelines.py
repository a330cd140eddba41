"""A span for each call of a pipeline, under the names that jims-core has given it, so that dashboards stay."""

from dataclasses import replace

from opentelemetry import trace
from opentelemetry.trace import StatusCode

from jimsapi import ThreadContext
from jimsapi.service.pipeline import Pipeline, pipeline_name
from jimsapi.service.run import RunService
from jimsapi_otel.errors import error_type, note_error

SPAN = "jims.run_pipeline_with_context"


def trace_pipelines(service: RunService) -> None:
    """Put `TracedPipeline` around the pipelines of a service that has not begun to answer."""
    app = service.app
    start = app.conversation_start_pipeline
    service.app = replace(
        app,
        pipeline=TracedPipeline(app.pipeline, app.name or pipeline_name(app.pipeline)),
        conversation_start_pipeline=None if start is None else TracedPipeline(start, pipeline_name(start)),
    )


class TracedPipeline:
    """Calls a pipeline in a span that is current meanwhile. `name` is that of the pipeline."""

    def __init__(self, pipeline: Pipeline, name: str) -> None:
        self.name = name
        self._pipeline = pipeline
        self._tracer = trace.get_tracer("jimsapi")

    async def __call__(self, ctx: ThreadContext) -> None:
        attributes = {"jims.thread.id": str(ctx.thread_id), "jims.pipeline": self.name}
        with self._tracer.start_as_current_span(
            SPAN, attributes=attributes, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                await self._pipeline(ctx)
            except BaseException as error:
                note_error(span, error, f"Pipeline execution failed: {error_type(error)}")
                raise
            span.set_status(StatusCode.OK)
