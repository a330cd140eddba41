"""Reads OpenTelemetry's standard variables to find out whether traces are exported.

Sources: "OpenTelemetry Environment Variable Specification" and "OpenTelemetry Protocol Exporter". The SDK itself reads
the other settings, such as endpoints, headers, certificates, sampling and propagators.
"""

from collections.abc import Mapping

PROTOCOL = "http/protobuf"
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_EXPORTER = "OTEL_TRACES_EXPORTER"


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


def _exporters(environ: Mapping[str, str]) -> list[str]:
    return [name.strip().lower() for name in environ.get(_EXPORTER, "").split(",") if name.strip()]
