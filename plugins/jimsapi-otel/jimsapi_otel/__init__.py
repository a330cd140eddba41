"""OpenTelemetry traces: a span for each request, each pipeline, and each write to the store.

OpenTelemetry's standard variables enable it; the plugin has no options. This module has the hooks. It imports
OpenTelemetry only if the variables enable it.
"""

import logging
import os
from typing import TYPE_CHECKING

from jimsapi import hookimpl
from jimsapi.plugins import StartError
from jimsapi_otel.variables import is_on, obstacle

if TYPE_CHECKING:
    from collections.abc import Callable

    from jimsapi.asgi import ASGIApp
    from jimsapi.runs import Pipeline
    from jimsapi.threads import ThreadStore
    from jimsapi_otel.exporting import Exporting

logger = logging.getLogger("jimsapi.otel")


@hookimpl
def jimsapi_observer() -> "Exporting | None":
    if (reason := obstacle(os.environ)) is not None:
        logger.warning("NO TRACES ARE EXPORTED: %s", reason)
    if not is_on(os.environ):
        return None
    try:
        from jimsapi_otel.exporting import Exporting
    except ValueError as error:  # importing OpenTelemetry loads the propagators
        raise StartError(f"OTEL_PROPAGATORS: {error} Unset it, or install the package that provides it") from error
    return Exporting()


@hookimpl
def jimsapi_asgi_wrapper() -> "Callable[[ASGIApp], ASGIApp] | None":
    if not is_on(os.environ):
        return None
    from jimsapi_otel.requests import trace_requests

    return trace_requests


@hookimpl
def jimsapi_pipeline_wrapper() -> "Callable[[Pipeline, str], Pipeline] | None":
    if not is_on(os.environ):
        return None
    from jimsapi_otel.pipelines import trace_pipeline

    return trace_pipeline


@hookimpl
def jimsapi_store_wrapper() -> "Callable[[ThreadStore], ThreadStore] | None":
    if not is_on(os.environ):
        return None
    from jimsapi_otel.store import trace_store

    return trace_store
