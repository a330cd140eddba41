"""The process's meter provider, for the metrics of agents. A thread of the SDK exports them every minute."""

import logging

from opentelemetry import metrics
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource

from jimsapi.plugins import StartError

logger = logging.getLogger("jimsapi.otel")


def export_metrics(resource: Resource) -> MeterProvider:
    """Create the meter provider, with the resource of the tracer provider. Raises `StartError`."""
    try:
        reader = PeriodicExportingMetricReader(OTLPMetricExporter())
    except ValueError as error:
        raise StartError(f"an OpenTelemetry variable is invalid: {error}; correct it, or unset it") from error
    provider = MeterProvider([reader], resource, shutdown_on_exit=False)
    metrics.set_meter_provider(provider)
    return provider
