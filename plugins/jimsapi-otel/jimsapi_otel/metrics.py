"""The process's meter provider, for the metrics of agents. A thread of the SDK exports them every minute."""

from uuid import uuid4

from opentelemetry import metrics
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource

from jimsapi.plugins import StartError

INSTANCE = "service.instance.id"


def export_metrics(resource: Resource) -> MeterProvider:
    """Create the meter provider, with the resource of the tracer provider. Raises `StartError`.

    The metrics of a process need an identifier of its own: those of replicas and workers would replace each other.
    """
    if INSTANCE not in resource.attributes:
        resource = resource.merge(Resource({INSTANCE: str(uuid4())}))
    try:
        reader = PeriodicExportingMetricReader(OTLPMetricExporter())
    except ValueError as error:
        raise StartError(f"an OpenTelemetry variable is invalid: {error}; correct it, or unset it") from error
    provider = MeterProvider([reader], resource, shutdown_on_exit=False)
    metrics.set_meter_provider(provider)
    return provider
