"""Pipelines as Sentry sees them: a scope of their own, a span in the trace, and tags on what they raise."""

import sentry_sdk

from jimsapi import ThreadContext
from jimsapi.runs.pipeline import Pipeline
from jimsapi_sentry.events import PipelineCall, current_call


def report_pipeline(pipeline: Pipeline, name: str) -> Pipeline:
    """Call `pipeline` in a scope that knows its thread. `name` is what metrics call the pipeline."""

    async def reported(ctx: ThreadContext) -> None:
        call = PipelineCall({"thread_id": str(ctx.thread_id), "pipeline": name})
        token = current_call.set(call)
        try:
            # What the pipeline itself tells Sentry, a tag or a user, stays with this call.
            with (
                sentry_sdk.isolation_scope(),
                sentry_sdk.start_span(op="jims.pipeline", name="jims.run_pipeline_with_context") as span,
            ):
                span.set_data("jims.thread.id", str(ctx.thread_id))
                span.set_data("jims.pipeline", name)
                await pipeline(ctx)
        except BaseException as error:
            call.mark(error)
            raise
        finally:
            current_call.reset(token)

    return reported
