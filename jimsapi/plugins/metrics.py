"""The registry of an app's metrics. A collector of a plugin that raises does not fail the scrape."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

logger = logging.getLogger("jimsapi.metrics")


class MetricsRegistry(CollectorRegistry):
    """A registry that leaves out the metrics of a collector that raises, and counts that.

    `owner` is the text that names the plugin whose collectors are registered now, for logs and for the counter's label.
    """

    def __init__(self, owner: str) -> None:
        super().__init__()
        self.owner = owner
        self.failures: Counter[str] = Counter()
        self._guarded: dict[Collector, _Guarded] = {}

    def register(self, collector: Collector) -> None:
        """Register a collector. Raises `ValueError` if one of its metrics has the name of another."""
        guarded = _Guarded(collector, self, self.owner)
        super().register(guarded)
        self._guarded[collector] = guarded

    def unregister(self, collector: Collector) -> None:
        """Remove a collector. Raises `KeyError` if it is not registered."""
        super().unregister(self._guarded.pop(collector))

    def collect(self) -> Iterator[Metric]:
        yield from super().collect()
        failures = CounterMetricFamily(
            "jims_metrics_failures", "Scrapes without the metrics of a collector that raised.", labels=("plugin",)
        )
        for owner, count in list(self.failures.items()):
            failures.add_metric((owner,), count)
        yield failures


class _Guarded(Collector):
    """A registered collector, whose errors are counted."""

    def __init__(self, collector: Collector, registry: MetricsRegistry, owner: str) -> None:
        self._collector = collector
        self._registry = registry
        self._owner = owner
        self._failed = False
        if hasattr(collector, "describe"):  # a registry asks whether a collector has this method
            self.describe = collector.describe

    def collect(self) -> Iterable[Metric]:
        try:
            return list(self._collector.collect())
        except Exception as error:
            self._registry.failures[self._owner] += 1
            if not self._failed:
                self._failed = True
                text = "a metrics collector of %s failed; its later failures are counted, and not logged"
                logger.error(text, self._owner, exc_info=error)
            return ()
