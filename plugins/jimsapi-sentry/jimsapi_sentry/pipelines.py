"""Wraps pipelines: each call has a scope of its own, a span in the trace, and tags on its errors."""

import sentry_sdk

from jimsapi import ThreadContext
from jimsapi.runs import Pipeline
from jimsapi_sentry.events import PipelineCall, current_call


def report_pipeline(pipeline: Pipeline, name: str) -> Pipeline:
    """Return a pipeline that calls `pipeline` in a scope with its thread. `name` is the pipeline's name in metrics."""

    async def reported(ctx: ThreadContext) -> None:
        call = PipelineCall({"thread_id": str(ctx.thread_id), "pipeline": name})
        token = current_call.set(call)
        try:
            # Tags and users that the pipeline sets itself belong only to this call.
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
