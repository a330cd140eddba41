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
        self._guarded: dict[int, _Guarded] = {}  # by the collector's id, since collectors may be equal
        self.register(_Failures(self.failures))

    def register(self, collector: Collector) -> None:
        """Register a collector. Raises `ValueError` if one of its metrics has the name of another."""
        if id(collector) not in self._guarded or hasattr(collector, "describe"):
            guarded = _Guarded(collector, self.failures, self.owner)
            super().register(guarded)
            self._guarded[id(collector)] = guarded

    def unregister(self, collector: Collector) -> None:
        """Remove a collector. Raises `KeyError` if it is not registered."""
        super().unregister(self._guarded.pop(id(collector)))


class _Failures(Collector):
    """How often a scrape was without the metrics of a collector."""

    def __init__(self, failures: Counter[str]) -> None:
        self._failures = failures

    def describe(self) -> Iterable[Metric]:
        """The metric, from which the registry reads the name to detect duplicates."""
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        failures = CounterMetricFamily(
            "jims_metrics_failures", "Scrapes without the metrics of a collector that raised.", labels=("plugin",)
        )
        for owner, count in list(self._failures.items()):
            failures.add_metric((owner,), count)
        yield failures


class _Guarded(Collector):
    """A registered collector, whose errors are counted."""

    def __init__(self, collector: Collector, failures: Counter[str], owner: str) -> None:
        self._collector = collector
        self._failures = failures
        self._owner = owner
        self._failed = False
        if hasattr(collector, "describe"):  # a registry asks whether a collector has this method
            self.describe = collector.describe

    def collect(self) -> Iterable[Metric]:
        try:
            return [_check_metric(metric) for metric in self._collector.collect()]
        except (Exception, SystemExit) as error:
            self._failures[self._owner] += 1
            if not self._failed:
                self._failed = True
                text = "a metrics collector of %s failed; its later failures are counted, and not logged"
                logger.error(text, self._owner, exc_info=error)
            return ()


def _check_metric(metric: Metric) -> Metric:
    """Return a metric that can be written. Raises `TypeError` or `ValueError` for any other."""
    for sample in metric.samples:
        float(sample.value)
        for label in sample.labels.values():
            if not isinstance(label, str):
                raise TypeError(f"the metric {metric.name} has a label that is not text but {type(label).__name__}")
    return metric
