"""The process's tracer provider. A thread of the SDK exports the spans in batches; requests do not wait for it."""

import asyncio
import importlib.metadata
import logging
import threading
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from jimsapi.asgi import RequestRecord
from jimsapi.plugins import StartError
from jimsapi_otel.redaction import redact_logs
from jimsapi_otel.requests import end_request

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics import MeterProvider

logger = logging.getLogger("jimsapi.otel")

FLUSH_WITHIN = 2.0
"""Seconds for which a shutdown waits for the last batch."""

_own_provider: TracerProvider | None = None
_own_meters: "MeterProvider | None" = None


class Exporting:
    """Creates the tracer provider when it is entered. As an observer, it sets the outcome of each request's span.

    OpenTelemetry allows one provider in a process, which can be set once. So the first app creates it and later apps
    share it. It is flushed at the end of each app and not shut down. If the process already has a provider, from the
    host or from `opentelemetry-instrument`, that one is used without changes. The same holds for the meter provider,
    which is created if `metrics` is set.
    """

    def __init__(self, *, metrics: bool = False) -> None:
        self._metrics = metrics

    async def __aenter__(self) -> Self:
        global _own_provider, _own_meters
        redact_logs()
        if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            _own_provider = _create_provider()
            trace.set_tracer_provider(_own_provider)
        elif _own_provider is None:
            logger.info("the process already has a tracer provider, which exports the spans")
        if self._metrics and _own_provider is not None and _own_meters is None:
            from jimsapi_otel.metrics import export_metrics

            _own_meters = export_metrics(_own_provider.resource)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if _own_provider is not None:
            await _flush(_own_provider, _own_meters)

    def on_request(self, record: RequestRecord) -> None:
        """Set the outcome of the request's span."""
        end_request(record)


def _create_provider() -> TracerProvider:
    version = importlib.metadata.version("jimsapi")
    from_environment = OTELResourceDetector().detect().attributes
    resource = Resource.create({"service.name": "jimsapi", "service.version": version, **from_environment})
    # A shutdown at exit would wait up to 30 s for an unreachable collector. The end of each app flushes instead.
    try:
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    except ValueError as error:
        raise StartError(f"an OpenTelemetry variable is invalid: {error}; correct it, or unset it") from error
    return provider


async def _flush(provider: TracerProvider, meters: "MeterProvider | None") -> None:
    """Send the waiting spans and the metrics, within `FLUSH_WITHIN`.

    The SDK's flush has no time limit, so it runs in a thread.
    """
    loop = asyncio.get_running_loop()
    flushed = asyncio.Event()

    def flush() -> None:
        try:
            provider.force_flush()
            if meters is not None:
                meters.force_flush()
        except Exception as error:
            logger.warning("cannot send the last spans: %s", type(error).__name__)
        with suppress(RuntimeError):  # the loop is closed, and nothing awaits the event
            loop.call_soon_threadsafe(flushed.set)

    threading.Thread(target=flush, name="otel-flush", daemon=True).start()
    try:
        async with asyncio.timeout(FLUSH_WITHIN):
            await flushed.wait()
    except TimeoutError:
        logger.warning("the collector did not accept the last spans within %g s; they are lost", FLUSH_WITHIN)
