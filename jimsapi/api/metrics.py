"""Showing metrics: this app's registry, then what else the process registered, as text or on a port of its own."""

import asyncio
import gzip
from collections.abc import Collection, Iterator

from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder, gzip_accepted
from prometheus_client.registry import Collector

from jimsapi.asgi.app import App
from jimsapi.asgi.connection import Request
from jimsapi.asgi.response import Response
from jimsapi.plugins.errors import StartError
from jimsapi.plugins.options import Options, option
from jimsapi.runs.service import RunService
from jimsapi.runs.watchdog import Watchdog


class MetricsOptions(Options, prefix="metrics"):
    """Where Prometheus scrapes."""

    host: str = option("0.0.0.0", help="The address of the metrics port.")
    port: int = option(8000, minimum=0, maximum=65535, help="The port of the Prometheus metrics; 0 means none.")


class ServiceCollector(Collector):
    """What the run service is doing at the moment of a scrape."""

    def __init__(self, service: RunService) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        service = self._service
        yield GaugeMetricFamily("jims_runs_open", "Runs that the process works on.", value=service.open_runs)
        yield GaugeMetricFamily("jims_runs_waiting", "Open runs that wait for their turn.", value=service.waiting_runs)
        yield GaugeMetricFamily("jims_draining", "1 while the server shuts down.", value=float(service.draining))
        yield GaugeMetricFamily(
            "jims_pipelines_abandoned",
            "Pipelines that go on although their runs have ended.",
            value=service.abandoned_pipelines,
        )
        sinks = CounterMetricFamily("jims_sink_events", "Events by what became of them.", labels=("sink", "outcome"))
        for sink in service.sinks:
            for outcome, count in list(sink.outcomes.items()):
                sinks.add_metric((sink.name, outcome), count)
        yield sinks
        pending = 0 if service.webhooks is None else service.webhooks.waiting
        yield GaugeMetricFamily("jims_webhooks_waiting", "Webhooks that are to be called, again or yet.", value=pending)
        webhooks = CounterMetricFamily(
            "jims_webhook_deliveries", "Webhooks by what became of them.", labels=("outcome",)
        )
        if service.webhooks is not None:
            for outcome, count in list(service.webhooks.outcomes.items()):
                webhooks.add_metric((outcome,), count)
        yield webhooks


class LoopCollector(Collector):
    """How late the event loop is. It may be asked from another thread while the loop is blocked."""

    def __init__(self, watchdog: Watchdog) -> None:
        self._watchdog = watchdog

    def collect(self) -> Iterator[Metric]:
        watchdog = self._watchdog
        lag = HistogramMetricFamily("jims_event_loop_lag_seconds", "Seconds that timers of the event loop fired late.")
        lag.add_metric((), watchdog.lag.buckets(), watchdog.lag.total)
        yield lag
        yield GaugeMetricFamily(
            "jims_event_loop_late_seconds",
            "Seconds that the event loop is late at this moment.",
            value=watchdog.current_lag,
        )
        yield CounterMetricFamily(
            "jims_event_loop_blocks", "Calls that blocked the event loop for most of a second.", value=watchdog.blocks
        )


class WholeRegistry(CollectorRegistry):
    """An app's registry, then the process's default one without the families that the app's already gave.

    jims-core, for one, registers the same pipeline metrics there.
    """

    def __init__(self, own: CollectorRegistry) -> None:
        super().__init__()
        self._own = own

    def collect(self) -> Iterator[Metric]:
        given = set()
        for family in self._own.collect():
            given.add(family.name)
            yield family
        for family in REGISTRY.collect():
            if family.name not in given:
                yield family


class OnlyNamed(Collector):
    """What a registry gives of some names: of samples, as prometheus_client understands `name[]`, or of whole families.

    prometheus_client's own restriction does not know `WholeRegistry`, which no collector registers with.
    """

    def __init__(self, registry: Collector, names: Collection[str]) -> None:
        self._registry = registry
        self._names = names

    def collect(self) -> Iterator[Metric]:
        for family in self._registry.collect():
            if family.name in self._names:
                yield family
                continue
            samples = [sample for sample in family.samples if sample.name in self._names]
            if samples:
                some = Metric(family.name, family.documentation, family.type)
                some.samples = samples
                yield some


def metrics_text(registry: CollectorRegistry) -> str:
    """The metrics in Prometheus's text format."""
    return generate_latest(WholeRegistry(registry)).decode()


class Exposition:
    """Makes the metrics in the format that a scraper asks for.

    What is asked in one pass of the event loop shares one text, so that many scrapers at once cost as much as one.
    """

    def __init__(self, registry: Collector) -> None:
        self._registry = registry
        self._made: dict[tuple[str, bool, frozenset[str]], Response] = {}

    def answer(self, request: Request) -> Response:
        """The answer to a scrape, in the running event loop: text or OpenMetrics, with gzip or without, of all metrics
        or of those that `name[]` names."""
        make, content_type = choose_encoder(",".join(request.headers.getlist("accept")))
        compressed = gzip_accepted(",".join(request.headers.getlist("accept-encoding")))
        names = frozenset(request.query.getlist("name[]"))
        asked = (content_type, compressed, names)
        if asked not in self._made:
            if not self._made:
                asyncio.get_running_loop().call_soon(self._made.clear)
            headers = {"vary": "accept, accept-encoding"}
            text = make(OnlyNamed(self._registry, names) if names else self._registry)
            if compressed:
                text, headers["content-encoding"] = gzip.compress(text), "gzip"
            self._made[asked] = Response(text, 200, headers, content_type)
        return self._made[asked]


def metrics_app(registry: CollectorRegistry) -> App:
    """What answers on the metrics port: the metrics, at any path, as prometheus_client's own server does."""
    app = App(title="jimsapi metrics")
    exposition = Exposition(WholeRegistry(registry))

    @app.get("/", public=True, probe=True)
    @app.get("/{path:path}", public=True, probe=True)
    async def metrics(request: Request) -> Response:
        return exposition.answer(request)

    return app


class MetricsPort:
    """Answers scrapes on a port of its own, in one thread, also while the main event loop is blocked."""

    def __init__(self, host: str, port: int, registry: CollectorRegistry) -> None:
        from jimsapi.server.thread import ServerThread  # it brings in uvicorn, which an embedded app may do without

        try:
            self._server = ServerThread(metrics_app(registry), host, port, "metrics port")
        except OSError as error:
            raise StartError(unusable_port(host, port, error)) from error

    @property
    def port(self) -> int:
        """The port that is open."""
        return self._server.port

    def close(self) -> None:
        """Close the port. Waits for the answers that are being sent, but not for long."""
        self._server.close()


def unusable_port(host: str, port: int, error: OSError) -> str:
    """Why the metrics port cannot be opened, for the operator."""
    return (
        f"the metrics port {host}:{port} cannot be opened: {error.strerror or error}; "
        "give another --metrics-port, or 0 for none"
    )
