"""Metrics in many versions: some that keep the contract, and some that each break one thing.

The tests install this module as the distribution `acme-gauge`; the option `--gauge-version` chooses.
"""

import threading
from collections import Counter
from collections.abc import Iterable
from typing import Any

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from jimsapi import Options, Secret, hookimpl, option
from jimsapi.plugins import RunRecord, Settings


class GaugeOptions(Options, prefix="gauge"):
    token: Secret | None = option(help="What the place asks for.")
    version: str = option("Sound", help="The class that registers.")


class Sound(Collector):
    """Counts runs by their status."""

    name = "acme_gauge_runs"
    text = "Runs."

    def __init__(self, settings: Settings) -> None:
        self.token = settings.get(GaugeOptions).token
        self.counts: Counter[str] = Counter()

    def register(self, registry: CollectorRegistry) -> None:
        registry.register(self)

    def on_run(self, record: RunRecord) -> None:
        self.counts[self.label(record)] += 1

    def label(self, record: RunRecord) -> str:
        return record.status

    def describe(self) -> Iterable[Metric]:
        return self.collect()

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily(self.name, self.text, labels=("label",))
        for label, count in list(self.counts.items()):
            family.add_metric((label,), count)
        return [family]


class RegistersNothing(Sound):
    def register(self, registry: CollectorRegistry) -> None:
        pass


class AlwaysThere(Sound):
    """It registers whether it is configured or not."""


class NameOfAnyPlugin(Sound):
    name = "runs"


class WithoutText(Sound):
    text = ""


class InTheSharedRegistry(Sound):
    def register(self, registry: CollectorRegistry) -> None:
        super().register(registry)
        Gauge("acme_gauge_shared", "In the registry of the process.")


RUNS_OF_THE_PROCESS = Gauge("acme_gauge_of_process", "In the registry of the process, since the import.")


class OfTheModule(Sound):
    def register(self, registry: CollectorRegistry) -> None:
        registry.register(RUNS_OF_THE_PROCESS)


class OnlyInTheMainThread(Sound):
    def collect(self) -> Iterable[Metric]:
        assert threading.current_thread() is threading.main_thread()
        return super().collect()


class NamesThreads(Sound):
    def label(self, record: RunRecord) -> str:
        return f"thread {record.thread_id}"


class GrowsWithRuns(Sound):
    def label(self, record: RunRecord) -> str:
        return str(record.run_id)


class ShowsTheToken(Sound):
    def label(self, record: RunRecord) -> str:
        return self.token.reveal() if self.token else ""


class TakesANameOfTheServer(Sound):
    name = "jims_http_requests"


@hookimpl
def jimsapi_options() -> type[Options]:
    return GaugeOptions


def made(settings: Settings) -> Any:
    return globals()[settings.get(GaugeOptions).version](settings)


@hookimpl
def jimsapi_observer(settings: Settings) -> Any:
    return settings.shared(made) if settings.get(GaugeOptions).token else None


@hookimpl
def jimsapi_metrics(registry: CollectorRegistry, settings: Settings) -> None:
    options = settings.get(GaugeOptions)
    if options.token or options.version == "AlwaysThere":
        settings.shared(made).register(registry)
