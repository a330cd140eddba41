"""A collector for tests: a server that receives OTLP exports over HTTP and decodes them."""

import gzip
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

TRACES, METRICS = "/v1/traces", "/v1/metrics"


@dataclass
class Exported:
    """A span as it was exported; ids are hex."""

    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    trace_state: str
    status: int
    description: str
    attributes: dict[str, Any]
    events: list[tuple[str, dict[str, Any]]]
    resource: dict[str, Any]
    links: list[str]
    seconds: float


@dataclass
class Measured:
    """The points of a histogram with the same attributes, as they were exported last."""

    name: str
    unit: str
    attributes: dict[str, Any]
    count: int
    sum: float
    bounds: list[float]
    resource: dict[str, Any]


class Collector:
    """Listens on a free port."""

    def __init__(self) -> None:
        self.received: list[tuple[str, bytes]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def spans(self) -> list[Exported]:
        """What was exported so far."""
        return [span for path, body in self.received if path == TRACES for span in _spans(body)]

    @property
    def raw(self) -> list[bytes]:
        """The bodies of all exports."""
        return [body for _, body in self.received]

    @property
    def paths(self) -> list[str]:
        """The paths of all exports."""
        return [path for path, _ in self.received]

    @property
    def measured(self) -> list[Measured]:
        """The histograms, by name and attributes."""
        found = [one for path, body in self.received if path == METRICS for one in _measured(body)]
        return list({(one.name, repr(sorted(one.attributes.items()))): one for one in found}.values())

    def named(self, name: str) -> list[Exported]:
        return [span for span in self.spans if span.name == name]

    def take(self, path: str, body: bytes) -> None:
        self.received.append((path, body))

    def clear(self) -> None:
        self.received.clear()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _handler(collector: Collector) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            collector.take(self.path, gzip.decompress(body) if self.headers["content-encoding"] == "gzip" else body)
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def _spans(body: bytes) -> Iterator[Exported]:
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Exported(
                    name=span.name,
                    kind=span.kind,
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    trace_state=span.trace_state,
                    status=span.status.code,
                    description=span.status.message,
                    attributes=_values(span.attributes),
                    events=[(event.name, _values(event.attributes)) for event in span.events],
                    resource=_values(resource.resource.attributes),
                    links=[link.span_id.hex() for link in span.links],
                    seconds=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
                )


def _measured(body: bytes) -> Iterator[Measured]:
    for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                for point in metric.histogram.data_points:
                    yield Measured(
                        name=metric.name,
                        unit=metric.unit,
                        attributes=_values(point.attributes),
                        count=point.count,
                        sum=point.sum,
                        bounds=list(point.explicit_bounds),
                        resource=_values(resource.resource.attributes),
                    )


def _values(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}
