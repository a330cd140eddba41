"""Removes secrets from OpenTelemetry's own log lines, which quote URLs, headers and requests."""

import logging
import re

_HEADERS_LOGGER = "opentelemetry.util.re"
_LOGGERS_OF_VARIABLES = (
    _HEADERS_LOGGER,
    "opentelemetry.exporter.otlp.proto.http.metric_exporter",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.sdk.metrics._internal.export",
    "opentelemetry.sdk._shared_internal",
)
_LOGGERS_OF_REQUESTS = (
    "opentelemetry.baggage.propagation",
    "opentelemetry.trace.propagation.tracecontext",
    "opentelemetry.trace.span",
)
"""Loggers that warn of each fault in a request's headers. Any client could fill the log with these warnings."""

_QUERY = re.compile(r"\?[^\s'\")]+")


def redact_logs() -> None:
    """Keep keys and the headers of requests out of OpenTelemetry's own log lines."""
    for name in _LOGGERS_OF_VARIABLES:
        logging.getLogger(name).addFilter(_without_secrets)
    for name in _LOGGERS_OF_REQUESTS:
        logging.getLogger(name).setLevel(logging.ERROR)


def _without_secrets(record: logging.LogRecord) -> bool:
    if record.name == _HEADERS_LOGGER:
        text = (
            "a header in OTEL_EXPORTER_OTLP_HEADERS or OTEL_EXPORTER_OTLP_TRACES_HEADERS is ignored: "
            "write it name=value, with the value URL-encoded"
        )
    else:
        text = _QUERY.sub("?***", record.getMessage())
    if record.exc_info and record.exc_info[0] is not None:  # the exception's text may quote the URL too
        text += f" ({record.exc_info[0].__name__})"
        record.exc_info = None
    record.msg, record.args = text, ()
    return True
