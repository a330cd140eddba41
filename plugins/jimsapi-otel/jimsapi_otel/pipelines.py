"""A span for each call of a pipeline, with the names of jims-core, so that existing dashboards work."""

from opentelemetry import trace
from opentelemetry.trace import StatusCode

from jimsapi import ThreadContext
from jimsapi.runs import Pipeline
from jimsapi_otel.errors import error_type, note_error

SPAN = "jims.run_pipeline_with_context"


def trace_pipeline(pipeline: Pipeline, name: str) -> Pipeline:
    """Return a pipeline that calls `pipeline` in a current span. `name` is the pipeline's name in metrics."""
    tracer = trace.get_tracer("jimsapi")

    async def traced(ctx: ThreadContext) -> None:
        attributes = {"jims.thread.id": str(ctx.thread_id), "jims.pipeline": name}
        with tracer.start_as_current_span(
            SPAN, attributes=attributes, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                await pipeline(ctx)
            except BaseException as error:
                note_error(span, error, f"Pipeline execution failed: {error_type(error)}")
                raise
            span.set_status(StatusCode.OK)

    return traced
