"""Metrics of the checks. A scrape converts plain counters to Prometheus metric families."""

from collections.abc import Iterable, Iterator
from typing import get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from jimsapi_authentik.circuit import State
from jimsapi_authentik.client import OUTCOMES
from jimsapi_authentik.provider import Authentik

LOOKUPS = ("hit", "shared", "asked")


class AuthentikCollector(Collector):
    """The metrics of one app's provider. Every sample exists from the start, so that `rate` sees the first event."""

    def __init__(self, provider: Authentik) -> None:
        self._provider = provider

    def describe(self) -> Iterable[Metric]:
        """The metrics, from which the registry reads the names to detect duplicates."""
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        client = self._provider.client
        calls = CounterMetricFamily("jims_authentik_calls", "HTTP calls to Authentik, by outcome.", labels=["outcome"])
        for outcome in OUTCOMES:
            calls.add_metric([outcome], client.calls[outcome])
        yield calls
        lookups = CounterMetricFamily(
            "jims_authentik_lookups",
            "Checks of tokens: from the cache (hit), by a running check (shared), by a new check (asked).",
            labels=["result"],
        )
        for result in LOOKUPS:
            lookups.add_metric([result], self._provider.lookups[result])
        yield lookups
        state = GaugeMetricFamily(
            "jims_authentik_circuit_state", "1 for the current state of the circuit breaker.", labels=["state"]
        )
        for name in get_args(State):
            state.add_metric([name], float(client.circuit.state == name))
        yield state
        yield CounterMetricFamily(
            "jims_authentik_circuit_openings",
            "How often the circuit breaker has opened.",
            value=client.circuit.openings,
        )
