"""OpenTelemetry traces: a span for each request, each pipeline, and each write to the store, and what agents do.

OpenTelemetry's standard variables enable it. The options add the spans and metrics of agents. This module has the
options and the hooks. It imports OpenTelemetry only if the variables enable it.
"""

import logging
import os
from typing import TYPE_CHECKING, Any, Literal

from jimsapi import Options, hookimpl, option
from jimsapi.plugins import OptionError, Settings, StartError
from jimsapi_otel.variables import captures_content, content_obstacle, exports_metrics, is_on, obstacle

if TYPE_CHECKING:
    from collections.abc import Callable

    from jimsapi.asgi import ASGIApp
    from jimsapi.runs import Pipeline
    from jimsapi.threads import ThreadStore
    from jimsapi_otel.exporting import Exporting

logger = logging.getLogger("jimsapi.otel")


class OtelOptions(Options, prefix="otel"):
    """Spans and metrics of agents. OpenTelemetry's own variables name the collector."""

    genai: bool = option(help="Also export spans and metrics of agents, tools and models (GenAI conventions).")
    genai_content: bool = option(help="Put messages, and arguments and results of tools, into the spans of agents.")
    genai_usage: Literal["spans", "none"] = option(
        "spans", help="Whether ctx.usage makes spans and metrics; none if the client of your models makes them."
    )

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        if self.genai_content and not self.genai:
            raise OptionError("--otel-genai-content needs --otel-genai, whose spans have the content")


@hookimpl
def jimsapi_options() -> type[Options]:
    return OtelOptions


@hookimpl
def jimsapi_observer(settings: Settings) -> "Exporting | None":
    genai = settings.get(OtelOptions).genai
    _warn(genai=genai)
    if not is_on(os.environ):
        return None
    try:
        from jimsapi_otel.exporting import Exporting
    except ValueError as error:  # importing OpenTelemetry loads the propagators
        raise StartError(f"OTEL_PROPAGATORS: {error} Unset it, or install the package that provides it") from error
    return Exporting(metrics=genai and exports_metrics(os.environ))


@hookimpl
def jimsapi_asgi_wrapper() -> "Callable[[ASGIApp], ASGIApp] | None":
    if not is_on(os.environ):
        return None
    from jimsapi_otel.requests import trace_requests

    return trace_requests


@hookimpl
def jimsapi_pipeline_wrapper(settings: Settings) -> "Callable[[Pipeline, str], Pipeline] | None":
    if not is_on(os.environ):
        return None
    from jimsapi_otel.pipelines import trace_pipeline

    options = settings.get(OtelOptions)
    if not options.genai:
        return trace_pipeline
    from jimsapi_otel.agents import Agents

    content = options.genai_content or captures_content(os.environ)
    agents = Agents(content=content, models=options.genai_usage == "spans")
    return lambda pipeline, name: trace_pipeline(agents.trace(pipeline, name), name)


@hookimpl
def jimsapi_store_wrapper() -> "Callable[[ThreadStore], ThreadStore] | None":
    if not is_on(os.environ):
        return None
    from jimsapi_otel.store import trace_store

    return trace_store


def _warn(*, genai: bool) -> None:
    """Log why something is not exported that the operator has asked for."""
    if (reason := obstacle(os.environ)) is not None:
        logger.warning("NO TRACES ARE EXPORTED: %s", reason)
    elif genai and not is_on(os.environ):
        logger.warning("NO TRACES ARE EXPORTED: --otel-genai needs a collector; set OTEL_EXPORTER_OTLP_ENDPOINT")
    if genai and (reason := content_obstacle(os.environ)) is not None:
        logger.warning("SPANS HAVE NO CONTENT: %s", reason)
