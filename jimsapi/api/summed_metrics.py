"""The sum of the metrics of several processes."""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prometheus_client.core import Metric
from prometheus_client.samples import Sample

_HIGHEST_BY_ENDING: Final = ("_info", "_seconds", "_state", "_ratio")
"""Endings of the names of gauges that do not count anything, such as ages, limits and states. All processes together
have the highest value of them, and the sum of other gauges."""
_HIGHEST: Final = frozenset(
    (
        "jims_draining",
        "jims_oidc_keys",
        "jims_sink_dead_letters",
        "jims_sink_waiting_events",
        "jims_webhooks_stored",
    )
)
"""Gauges that each process reads from the same store or the same issuer. The highest value is the newest, or nearly."""
_LOWEST: Final = frozenset(("process_start_time_seconds",))
_COUNTED: Final = frozenset(("counter", "histogram", "gaugehistogram", "summary"))

Combine = Callable[[float, float], float]


def summed(processes: Iterable[Iterable[Metric]]) -> Iterator[Metric]:
    """Yield the metrics of all processes together, in the order of the first process that has each."""
    families: dict[str, Metric] = {}
    values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], Sample]] = {}
    for metrics in processes:
        for family in metrics:
            if family.name not in families:
                families[family.name] = Metric(family.name, family.documentation, family.type, family.unit)
            samples = values.setdefault(family.name, {})
            for sample in family.samples:
                key = (sample.name, tuple(sorted(sample.labels.items())))
                former = samples.get(key)
                if former is not None:
                    value = _combine(sample.name)(former.value, sample.value)
                    sample = former._replace(value=value, exemplar=sample.exemplar or former.exemplar)
                samples[key] = sample
    for name, family in families.items():
        family.samples = list(values[name].values())
        yield family


def counters(metrics: Iterable[Metric]) -> Iterator[Metric]:
    """Yield the metrics that only grow, which stay when their process has ended."""
    return (family for family in metrics if family.type in _COUNTED)


def _combine(sample: str) -> Combine:
    if sample in _LOWEST or sample.endswith("_created"):
        return min
    if sample in _HIGHEST or sample.endswith(_HIGHEST_BY_ENDING):
        return max
    return _add


def _add(one: float, other: float) -> float:
    return one + other
