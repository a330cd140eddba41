"""Exposes metrics, of the app's registry and of the process's default registry, as text or on a port of their own."""

import asyncio
import gzip
import logging
from collections.abc import Collection, Iterator, Sequence

from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder, gzip_accepted
from prometheus_client.registry import Collector

from jimsapi.asgi.app import App
from jimsapi.asgi.connection import Request
from jimsapi.asgi.open_work import OpenWork
from jimsapi.asgi.response import Response
from jimsapi.plugins.errors import StartError
from jimsapi.plugins.options import Options, option
from jimsapi.runs.durable_sinks import DurableSink, DurableSinks
from jimsapi.runs.service import RunService
from jimsapi.runs.sinks import SinkQueue
from jimsapi.runs.watchdog import Watchdog

logger = logging.getLogger("jimsapi.metrics")


DEFAULT_METRICS_HOST = "0.0.0.0"


class MetricsOptions(Options, prefix="metrics"):
    """Where Prometheus scrapes."""

    host: str = option(DEFAULT_METRICS_HOST, help="The address of the metrics port.")
    port: int = option(8000, minimum=0, maximum=65535, help="The port of the Prometheus metrics; 0 means none.")


class ServiceCollector(Collector):
    """The state of the run service, and of the open streams and WebSockets of an app, at the time of a scrape."""

    def __init__(self, service: RunService, open_work: OpenWork, version: str) -> None:
        self._service = service
        self._open_work = open_work
        self._version = version

    def collect(self) -> Iterator[Metric]:
        service, open_work = self._service, self._open_work
        build = GaugeMetricFamily("jims_build_info", "1, with the version of jimsapi.", labels=("version",))
        build.add_metric((self._version,), 1)
        yield build
        yield GaugeMetricFamily("jims_runs_open", "Runs that the process works on.", value=service.open_runs)
        yield GaugeMetricFamily("jims_runs_waiting", "Open runs that wait for their turn.", value=service.waiting_runs)
        yield GaugeMetricFamily(
            "jims_run_oldest_seconds",
            "Age of the run that is open longest; 0 without runs.",
            value=service.oldest_run_seconds,
        )
        yield GaugeMetricFamily(
            "jims_run_oldest_running_seconds",
            "Seconds since the start of the run that started first; 0 if none runs.",
            value=service.oldest_running_seconds,
        )
        yield GaugeMetricFamily(
            "jims_run_oldest_waiting_seconds",
            "Seconds that a run has waited for its turn at most; 0 if none waits.",
            value=service.oldest_waiting_seconds,
        )
        yield GaugeMetricFamily(
            "jims_run_timeout_seconds", "The time limit of pipelines.", value=service.limits.run_timeout
        )
        yield GaugeMetricFamily("jims_streams_open", "Streams that are being sent.", value=open_work.stream_count)
        yield GaugeMetricFamily("jims_websockets_open", "WebSockets that are open.", value=open_work.websocket_count)
        refused = CounterMetricFamily("jims_messages_refused", "Messages refused by a limit.", labels=("limit",))
        for limit, count in list(service.refusals.counts.items()):
            refused.add_metric((limit,), count)
        yield refused
        yield GaugeMetricFamily(
            "jims_draining", "1 while the server shuts down.", value=float(service.draining or service.drain_announced)
        )
        yield GaugeMetricFamily(
            "jims_pipelines_abandoned",
            "Pipelines that go on although their runs have ended.",
            value=service.abandoned_pipelines,
        )
        sinks = CounterMetricFamily("jims_sink_events", "Events by outcome.", labels=("sink", "outcome"))
        of_both_kinds: Sequence[SinkQueue | DurableSink] = (*service.sinks, *service.durable_sinks.sinks)
        for sink in of_both_kinds:
            for outcome, count in list(sink.outcomes.items()):
                sinks.add_metric((sink.name, outcome), count)
        yield sinks
        yield from _durable_sinks(service.durable_sinks)
        waiting = 0 if service.webhooks is None else service.webhooks.waiting
        yield GaugeMetricFamily(
            "jims_webhooks_waiting", "Webhooks that wait for their first call or a retry.", value=waiting
        )
        in_store = 0 if service.webhooks is None else service.webhooks.in_store
        yield GaugeMetricFamily(
            "jims_webhooks_stored", "Webhooks in the store that wait for their first call or a retry.", value=in_store
        )
        webhooks = CounterMetricFamily("jims_webhook_deliveries", "Webhooks by outcome.", labels=("outcome",))
        outcomes = service.subscriptions.outcomes.copy()
        if service.webhooks is not None:
            outcomes.update(service.webhooks.outcomes)
        for outcome, count in outcomes.items():
            webhooks.add_metric((outcome,), count)
        yield webhooks


def _durable_sinks(sinks: DurableSinks) -> Iterator[Metric]:
    lag = GaugeMetricFamily(
        "jims_sink_lag_seconds", "How long the oldest event has waited for a durable sink.", labels=("sink",)
    )
    waiting = GaugeMetricFamily(
        "jims_sink_waiting_events", "About how many events a durable sink has not received.", labels=("sink",)
    )
    dead = GaugeMetricFamily("jims_sink_dead_letters", "Events that a durable sink refused.", labels=("sink",))
    for state in sinks.states:
        lag.add_metric((state.name,), sinks.lags[state.name])
        waiting.add_metric((state.name,), state.waiting)
        dead.add_metric((state.name,), state.dead)
    yield from (lag, waiting, dead)


class LoopCollector(Collector):
    """The delay of the event loop. A scrape in another thread can read it while the loop is blocked."""

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


class CombinedRegistry(CollectorRegistry):
    """The metrics of an app's registry, and those of the process's default registry that the app does not have.

    For example, jims-core registers pipeline metrics of the same names in the default registry.
    """

    def __init__(self, own: CollectorRegistry) -> None:
        super().__init__()
        self._own = own

    def collect(self) -> Iterator[Metric]:
        own_names = set()
        for family in self._own.collect():
            own_names.add(family.name)
            yield family
        for family in _default_metrics():
            if family.name not in own_names:
                yield family


def _default_metrics() -> Iterator[Metric]:
    """The metrics of the process's default registry, up to a collector of the app that raises."""
    try:
        yield from REGISTRY.collect()
    except Exception:
        logger.exception("a collector of the process's default registry failed; the metrics after it are left out")


class FilteredRegistry(Collector):
    """The metrics of a registry with some names: names of samples, as in the query parameter `name[]`, or of families.

    prometheus_client's own filter does not work with `CombinedRegistry`, because no collector registers there.
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
                filtered = Metric(family.name, family.documentation, family.type)
                filtered.samples = samples
                yield filtered


def metrics_text(registry: CollectorRegistry) -> str:
    """Return the metrics in Prometheus's text format."""
    return generate_latest(CombinedRegistry(registry)).decode()


class Exposition:
    """Encodes the metrics in the format that a scraper accepts.

    Scrapes in the same pass of the event loop share one response, so that many scrapers at once cost as much as one.
    """

    def __init__(self, registry: Collector) -> None:
        self._registry = registry
        self._responses: dict[tuple[str, bool, frozenset[str]], Response] = {}

    def answer(self, request: Request) -> Response:
        """Return the answer to a scrape: text or OpenMetrics, with or without gzip, filtered if there is a `name[]`.

        It must be called in an event loop.
        """
        make, content_type = choose_encoder(",".join(request.headers.getlist("accept")))
        compressed = gzip_accepted(",".join(request.headers.getlist("accept-encoding")))
        names = frozenset(request.query.getlist("name[]"))
        key = (content_type, compressed, names)
        if key not in self._responses:
            if not self._responses:
                asyncio.get_running_loop().call_soon(self._responses.clear)
            headers = {"vary": "accept, accept-encoding"}
            text = make(FilteredRegistry(self._registry, names) if names else self._registry)
            if compressed:
                text, headers["content-encoding"] = gzip.compress(text), "gzip"
            self._responses[key] = Response(text, 200, headers, content_type)
        return self._responses[key]


def metrics_app(metrics: Collector) -> App:
    """Return the app of the metrics port. It answers any path with the metrics, as prometheus_client's server does."""
    app = App(title="jimsapi metrics")
    exposition = Exposition(metrics)

    @app.get("/", public=True, probe=True)
    @app.get("/{path:path}", public=True, probe=True)
    async def answer(request: Request) -> Response:
        return exposition.answer(request)

    return app


class MetricsPort:
    """Answers scrapes on its own port and in its own thread, so that a blocked main event loop does not delay them.

    Raises `StartError` if the port cannot be opened.
    """

    def __init__(self, host: str, port: int, metrics: Collector) -> None:
        from jimsapi.server.thread import ServerThread  # it imports uvicorn, which an embedded app may not need

        try:
            self._server = ServerThread(metrics_app(metrics), host, port, "metrics port")
        except OSError as error:
            raise StartError(unusable_port(host, port, error)) from error

    @property
    def port(self) -> int:
        """The number of the open port."""
        return self._server.port

    def close(self) -> None:
        """Close the port. Waits a short time for answers that are being sent."""
        self._server.close()


def unusable_port(host: str, port: int, error: OSError) -> str:
    """Return the message for the operator if the metrics port cannot be opened."""
    return (
        f"the metrics port {host}:{port} cannot be opened: {error.strerror or error}; "
        "give another --metrics-port, or 0 for none"
    )
