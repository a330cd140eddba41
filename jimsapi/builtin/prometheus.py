"""Metrics: requests update plain counters, and a scrape converts these to Prometheus metric families."""

from collections import defaultdict
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from jimsapi.plugins import AdmissionRecord, CommitRecord, RequestRecord, RunRecord, hookimpl
from jimsapi.runs import Histogram
from jimsapi.threads import UsageTotal

PIPELINE_BUCKETS = (0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600)
REQUEST_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600)
WAIT_BUCKETS = (0.01, 0.1, 0.5, 1, 2, 5, 10, 30, 60)
MAX_MODELS = 50
"""The models that metrics of usage name, since a pipeline may make up names. Later ones count as `OTHER`."""
OTHER = "other"
COMMIT_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5)


class Metrics(Collector):
    """The observer that counts, and the Prometheus collector that exposes the counts."""

    def __init__(self) -> None:
        self._requests: dict[tuple[str, str, int], Histogram] = {}
        self._admissions: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._runs: defaultdict[str, int] = defaultdict(int)
        self._pipelines: dict[tuple[str, str], Histogram] = {}
        self._waits = Histogram(WAIT_BUCKETS)
        self._without_wait = 0
        self._usage: dict[str, UsageTotal] = {}
        self._commits = self._failed_commits = 0
        self._operations = 0
        self._commit_seconds = Histogram(COMMIT_BUCKETS)

    def on_request(self, record: RequestRecord) -> None:
        labels = record.method, record.route, record.status
        histogram = self._requests.get(labels)
        if histogram is None:
            histogram = self._requests[labels] = Histogram(REQUEST_BUCKETS)
        histogram.observe(record.duration)

    def on_admission(self, record: AdmissionRecord) -> None:
        self._admissions[record.provider, record.outcome] += 1

    def on_run(self, record: RunRecord) -> None:
        self._runs[record.status] += 1
        if record.waited:
            self._waits.observe(record.waited)
        else:  # saves most runs the look-up of the bucket
            self._without_wait += 1
        for timing in record.pipelines:
            labels = "success" if timing.succeeded else "failure", timing.pipeline
            histogram = self._pipelines.get(labels)
            if histogram is None:
                histogram = self._pipelines[labels] = Histogram(PIPELINE_BUCKETS)
            histogram.observe(timing.duration)
        for model, total in record.usage.items():
            label = model if model in self._usage or len(self._usage) < MAX_MODELS else OTHER
            self._usage[label] = self._usage.get(label, UsageTotal()) + total

    def on_commit(self, record: CommitRecord) -> None:
        if record.failed:
            self._failed_commits += 1
        else:
            self._commits += 1
        self._operations += record.operations
        self._commit_seconds.observe(record.duration)

    def describe(self) -> Iterable[Metric]:
        """Return the metrics. The registry reads their names to detect duplicates."""
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        # A scrape runs in another thread while the event loop counts. `list` copies each mapping atomically.
        requests = CounterMetricFamily(
            "jims_http_requests",
            "Requests answered, by method, route template and status.",
            labels=("method", "route", "status"),
        )
        by_route: dict[str, Histogram] = {}
        for (method, route, status), histogram in list(self._requests.items()):
            requests.add_metric((method, route, str(status)), histogram.count)
            by_route.setdefault(route, Histogram(REQUEST_BUCKETS)).add(histogram)
        yield requests
        seconds = HistogramMetricFamily(
            "jims_http_request_duration_seconds",
            "Seconds from a request's head to its answer's end.",
            labels=("route",),
        )
        for route, histogram in by_route.items():
            seconds.add_metric((route,), histogram.buckets(), histogram.total)
        yield seconds
        admissions = CounterMetricFamily(
            "jims_auth_decisions", "Decisions of auth providers about requests.", labels=("provider", "outcome")
        )
        for (provider, outcome), count in list(self._admissions.items()):
            admissions.add_metric((provider, outcome), count)
        yield admissions
        yield from self._collect_runs()
        yield from self._collect_usage()
        commits = CounterMetricFamily("jims_store_commits", "Durable transactions of the store.", labels=("outcome",))
        for outcome, count in (("ok", self._commits), ("failed", self._failed_commits)):
            if count:
                commits.add_metric((outcome,), count)
        yield commits
        operations = CounterMetricFamily("jims_store_operations", "Operations that shared those transactions.")
        operations.add_metric((), self._operations)
        yield operations
        commit = HistogramMetricFamily("jims_store_commit_duration_seconds", "Seconds that a transaction took.")
        commit.add_metric((), self._commit_seconds.buckets(), self._commit_seconds.total)
        yield commit

    def _collect_runs(self) -> Iterator[Metric]:
        runs = CounterMetricFamily("jims_runs", "Runs that ended, by their last status.", labels=("status",))
        for status, count in list(self._runs.items()):
            runs.add_metric((status,), count)
        yield runs
        pipelines = CounterMetricFamily(
            "jims_pipeline_runs", "Total number of pipeline runs", labels=("status", "pipeline")
        )
        for labels, histogram in list(self._pipelines.items()):
            pipelines.add_metric(labels, histogram.count)
        yield pipelines
        duration = HistogramMetricFamily(
            "jims_pipeline_run_duration_seconds", "Duration of pipeline runs in seconds", labels=("status", "pipeline")
        )
        for labels, histogram in list(self._pipelines.items()):
            duration.add_metric(labels, histogram.buckets(), histogram.total)
        yield duration
        waited = Histogram(WAIT_BUCKETS)
        waited.add(self._waits)
        waited.counts[0] += self._without_wait
        wait = HistogramMetricFamily("jims_run_wait_seconds", "Seconds that a run waited for its turn in its thread.")
        wait.add_metric((), waited.buckets(), waited.total)
        yield wait

    def _collect_usage(self) -> Iterator[Metric]:
        calls = CounterMetricFamily("jims_model_calls", "Model calls that pipelines reported.", labels=("model",))
        tokens = CounterMetricFamily(
            "jims_model_tokens",
            "Tokens that models read (input) and wrote (output); cached ones are among the input.",
            labels=("model", "kind"),
        )
        cost = CounterMetricFamily(
            "jims_model_cost_dollars", "US dollars that model calls cost, as far as it is known.", labels=("model",)
        )
        for model, total in list(self._usage.items()):
            calls.add_metric((model,), total.calls)
            tokens.add_metric((model, "input"), total.input_tokens)
            tokens.add_metric((model, "output"), total.output_tokens)
            tokens.add_metric((model, "cached"), total.cached_tokens)
            cost.add_metric((model,), total.cost)
        yield from (calls, tokens, cost)


class PrometheusPlugin:
    """The metrics of one app: the observer and the collector are the same object."""

    def __init__(self) -> None:
        self._metrics = Metrics()

    @hookimpl
    def jimsapi_observer(self) -> Metrics:
        return self._metrics

    @hookimpl
    def jimsapi_metrics(self, registry: CollectorRegistry) -> None:
        registry.register(self._metrics)
