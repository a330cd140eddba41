"""Reads OpenTelemetry's standard variables to find out whether traces are exported.

Sources: "OpenTelemetry Environment Variable Specification" and "OpenTelemetry Protocol Exporter". The SDK itself reads
the other settings, such as endpoints, headers, certificates, sampling and propagators.
"""

from collections.abc import Mapping

PROTOCOL = "http/protobuf"
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_EXPORTER = "OTEL_TRACES_EXPORTER"
_METRIC_ENDPOINTS = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_METRIC_PROTOCOLS = ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_METRIC_EXPORTER = "OTEL_METRICS_EXPORTER"
CONTENT = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
_CONTENT_ON_SPANS = ("span_only", "span_and_event", "true")
_NO_CONTENT = ("", "no_content", "false")


def is_on(environ: Mapping[str, str]) -> bool:
    """Return whether traces are exported: the variables name an endpoint or the exporter `otlp`, and are valid."""
    return _is_wanted(environ) and obstacle(environ) is None


def obstacle(environ: Mapping[str, str]) -> str | None:
    """Return why requested traces are not exported, for the operator; None if they are, or if none are requested."""
    if not _is_wanted(environ):
        return None
    exporters = _exporters(environ)
    if exporters and "otlp" not in exporters:
        return f"{_EXPORTER} is {','.join(exporters)}, but only otlp is supported; set it to otlp or to none"
    for name in _PROTOCOLS:
        protocol = environ.get(name, "").strip()
        if protocol == PROTOCOL:
            break
        if protocol:
            return (
                f"{name} is {protocol}, but only {PROTOCOL} is supported; set it to that, and the endpoint to the "
                "collector's port for HTTP, usually 4318"
            )
    return _endpoint_obstacle(environ)


def exports_metrics(environ: Mapping[str, str]) -> bool:
    """Return whether the metrics of agents are exported, if their spans are.

    They are not if only an endpoint for traces is set: a collector of traces alone would refuse them every minute.
    """
    exporters = _exporters(environ, _METRIC_EXPORTER)
    if exporters and "otlp" not in exporters:
        return False
    protocol = next((text for name in _METRIC_PROTOCOLS if (text := environ.get(name, "").strip())), PROTOCOL)
    has_endpoint = any(environ.get(name, "").strip() for name in _METRIC_ENDPOINTS)
    return protocol == PROTOCOL and (has_endpoint or bool(exporters))


def captures_content(environ: Mapping[str, str]) -> bool:
    """Return whether the variable of OpenTelemetry's own instrumentations asks for content on spans."""
    return environ.get(CONTENT, "").strip().lower() in _CONTENT_ON_SPANS


def content_obstacle(environ: Mapping[str, str]) -> str | None:
    """Return why the value of that variable has no effect, for the operator; None if it has one, or is not set."""
    value = environ.get(CONTENT, "").strip()
    if value.lower() in (*_CONTENT_ON_SPANS, *_NO_CONTENT):
        return None
    return f"{CONTENT} is {value}, but only spans can have content; set it to SPAN_ONLY or to NO_CONTENT"


def _endpoint_obstacle(environ: Mapping[str, str]) -> str | None:
    for name in _ENDPOINTS:
        endpoint = environ.get(name, "").strip()
        if endpoint:
            is_url = endpoint.lower().startswith(("http://", "https://"))
            return None if is_url else f"{name} is not a URL; begin it with http:// or https://"
    return None


def _is_wanted(environ: Mapping[str, str]) -> bool:
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporters = _exporters(environ)
    if exporters:
        return exporters != ["none"]
    return any(environ.get(name, "").strip() for name in _ENDPOINTS)


def _exporters(environ: Mapping[str, str], variable: str = _EXPORTER) -> list[str]:
    return [name.strip().lower() for name in environ.get(variable, "").split(",") if name.strip()]
