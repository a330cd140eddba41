"""Showing metrics: this app's registry, then what else the process registered, as text or on a port of its own."""

import threading
from collections.abc import Iterator
from wsgiref.simple_server import WSGIServer

from prometheus_client import REGISTRY, CollectorRegistry, generate_latest, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from jimsapi.plugins.errors import StartError
from jimsapi.plugins.options import Options, option
from jimsapi.service.run import RunService
from jimsapi.service.watchdog import Watchdog


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


def metrics_text(registry: CollectorRegistry) -> str:
    """The metrics in Prometheus's text format."""
    return generate_latest(WholeRegistry(registry)).decode()


class MetricsPort:
    """A thread that answers scrapes on a port of its own."""

    def __init__(self, host: str, port: int, registry: CollectorRegistry) -> None:
        self._server: WSGIServer
        self._thread: threading.Thread
        try:
            self._server, self._thread = start_http_server(port, host, WholeRegistry(registry))
        except OSError as error:
            raise StartError(
                f"the metrics port {host}:{port} cannot be opened: {error.strerror or error}; "
                "give another --metrics-port, or 0 for none"
            ) from error

    @property
    def port(self) -> int:
        """The port that is open."""
        return self._server.server_port

    def close(self) -> None:
        """Close the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
