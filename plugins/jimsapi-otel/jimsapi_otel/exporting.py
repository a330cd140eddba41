"""The process's tracer provider: its spans go out in batches, by a thread of the SDK's, never by a request."""

import asyncio
import importlib.metadata
import logging
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from jimsapi.asgi.record import RequestRecord
from jimsapi.plugins.errors import StartError
from jimsapi_otel.discretion import keep_discreet
from jimsapi_otel.requests import end_request

logger = logging.getLogger("jimsapi.otel")

FLUSH_WITHIN = 2.0
"""Seconds that a shutdown waits for the last batch."""

_ours: TracerProvider | None = None


class Exporting:
    """An observer while it is entered: it makes the tracer provider, and tells spans how their requests ended.

    OpenTelemetry allows a process one provider, once. So the first app makes it, later ones share it, and it is
    flushed at the end of each, not shut down. A provider that the process has already, of the host's or of
    `opentelemetry-instrument`, is used as it is.
    """

    async def __aenter__(self) -> Self:
        global _ours
        keep_discreet()
        if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            _ours = _provider()
            trace.set_tracer_provider(_ours)
        elif _ours is None:
            logger.info("the process has a tracer provider already: spans go where that sends them")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if _ours is not None:
            await _flush(_ours)

    def on_request(self, record: RequestRecord) -> None:
        """Tell the request's span what was answered."""
        end_request(record)


def _provider() -> TracerProvider:
    version = importlib.metadata.version("jimsapi")
    given = OTELResourceDetector().detect().attributes
    resource = Resource.create({"service.name": "jimsapi", "service.version": version, **given})
    # Not shut down at the exit: that waits up to 30 s for a collector that is gone. The end of an app flushes.
    try:
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    except ValueError as error:
        raise StartError(f"a variable of OpenTelemetry's is faulty: {error}; mend it, or unset it") from error
    return provider


async def _flush(provider: TracerProvider) -> None:
    """Send what waits. The SDK's own flush knows no time limit, so it gets a thread that nobody has to wait for."""
    loop = asyncio.get_running_loop()
    flushed = asyncio.Event()

    def flush() -> None:
        try:
            provider.force_flush()
        except Exception as error:
            logger.warning("the last spans could not be sent: %s", type(error).__name__)
        with suppress(RuntimeError):  # the loop is closed: nobody waited any longer
            loop.call_soon_threadsafe(flushed.set)

    threading.Thread(target=flush, name="otel-flush", daemon=True).start()
    try:
        async with asyncio.timeout(FLUSH_WITHIN):
            await flushed.wait()
    except TimeoutError:
        logger.warning("the collector did not take the last spans within %g s; they are lost", FLUSH_WITHIN)
