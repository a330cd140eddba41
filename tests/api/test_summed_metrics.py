"""The sum of the metrics of several processes: counters add up, and ages and limits are the highest."""

from collections.abc import Iterable

import pytest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from jimsapi.api.summed_metrics import counters, summed


def process(requests: float, oldest: float, started: float) -> list[Metric]:
    counted = CounterMetricFamily("jims_http_requests", "Requests.", labels=("status",))
    counted.add_metric(("200",), requests)
    lag = HistogramMetricFamily("jims_event_loop_lag_seconds", "Lag.")
    lag.add_metric((), [("0.1", requests), ("+Inf", requests + 1)], 2.5)
    return [
        counted,
        lag,
        GaugeMetricFamily("jims_runs_open", "Open.", value=requests),
        GaugeMetricFamily("jims_run_oldest_seconds", "Oldest.", value=oldest),
        GaugeMetricFamily("process_start_time_seconds", "Start.", value=started),
    ]


def values(metrics: Iterable[Metric]) -> dict[str, float]:
    return {
        sample.name + "".join(sample.labels.values()): sample.value for family in metrics for sample in family.samples
    }


def test_counters_and_gauges_add_up_and_ages_are_the_highest() -> None:
    assert values(summed([process(3, 10, 100), process(4, 5, 50)])) == {
        "jims_http_requests_total200": 7,
        "jims_event_loop_lag_seconds_bucket0.1": 7,
        "jims_event_loop_lag_seconds_bucket+Inf": 9,
        "jims_event_loop_lag_seconds_count": 9,
        "jims_event_loop_lag_seconds_sum": 5,
        "jims_runs_open": 7,
        "jims_run_oldest_seconds": 10,
        "process_start_time_seconds": 50,
    }


@pytest.mark.parametrize(
    "name",
    [
        "jims_oidc_keys",
        "jims_oidc_keys_age_seconds",
        "jims_authentik_circuit_state",
        "plugin_cache_age_seconds",
        "plugin_hit_ratio",
        "plugin_build_info",
    ],
)
def test_ages_states_and_what_all_processes_read_at_one_place_are_the_highest(name: str) -> None:
    processes = [[GaugeMetricFamily(name, "A gauge of a plugin.", value=value)] for value in (1, 3, 2)]
    assert values(summed(processes)) == {name: 3}


def test_labels_of_one_process_alone_stay() -> None:
    other = CounterMetricFamily("jims_http_requests", "Requests.", labels=("status",))
    other.add_metric(("503",), 2)
    found = values(summed([process(1, 0, 0), [other]]))
    assert (found["jims_http_requests_total200"], found["jims_http_requests_total503"]) == (1, 2)


def test_of_a_process_that_has_ended_only_what_it_counted_stays() -> None:
    left = values(counters(process(3, 10, 100)))
    assert left["jims_http_requests_total200"] == 3
    assert not {"jims_runs_open", "jims_run_oldest_seconds"} & left.keys()
