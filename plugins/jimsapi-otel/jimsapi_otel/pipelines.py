"""A span for each call of a pipeline, with the names of jims-core, so that existing dashboards work."""

from opentelemetry import context, propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, StatusCode

from jimsapi import ThreadContext
from jimsapi.runs import Pipeline
from jimsapi.threads import QuestionAsked, TraceContext
from jimsapi_otel.errors import error_type, note_error

SPAN = "jims.run_pipeline_with_context"


def trace_pipeline(pipeline: Pipeline, name: str) -> Pipeline:
    """Return a pipeline that calls `pipeline` in a current span. `name` is the pipeline's name in metrics."""
    tracer = trace.get_tracer("jimsapi")

    async def traced(ctx: ThreadContext) -> None:
        attributes = {"jims.thread.id": str(ctx.thread_id), "jims.pipeline": name}
        parent, links = _continued(ctx.trace_context)
        with tracer.start_as_current_span(
            SPAN,
            parent,
            attributes=attributes,
            links=links,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                await pipeline(ctx)
            except QuestionAsked:
                span.set_status(StatusCode.OK)  # the run completes, with the question in its answer
                raise
            except BaseException as error:
                note_error(span, error, f"Pipeline execution failed: {error_type(error)}")
                raise
            span.set_status(StatusCode.OK)

    return traced


def _continued(trace_context: TraceContext | None) -> tuple[Context | None, list[Link]]:
    """Return the parent of a run whose message names its trace, and a link to the span of the request.

    The parent is None, for the current span, if the message names no trace. This is what the semantic conventions for
    MCP specify. The propagators that the operator has chosen decide whether a trace is continued, as for headers.
    """
    if trace_context is None:
        return None, []
    carrier = {"traceparent": trace_context.traceparent, "tracestate": trace_context.tracestate}
    current = trace.get_current_span().get_span_context()
    parent = propagate.extract(carrier, context.get_current())
    if trace.get_current_span(parent).get_span_context() == current:
        return None, []
    return parent, [Link(current)] if current.is_valid else []
