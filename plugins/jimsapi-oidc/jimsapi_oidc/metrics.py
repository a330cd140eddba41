"""The plugin's metrics."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from jimsapi.plugins import Settings

FETCH_OUTCOMES = ("ok", "timeout", "unreachable", "status", "malformed")
VERIFICATION_OUTCOMES = (
    "verified", "cached", "malformed", "header", "key", "signature", "time", "audience", "claims", "scopes",
    "unavailable",
)  # fmt: skip


class Counts(Collector):
    """The counts of one app. Requests update plain numbers; a scrape converts them to Prometheus metric families."""

    def __init__(self) -> None:
        self.fetches: Counter[str] = Counter(dict.fromkeys(FETCH_OUTCOMES, 0))
        self.verifications: Counter[str] = Counter(dict.fromkeys(VERIFICATION_OUTCOMES, 0))
        self.keys = 0
        self.keys_fetched_at: float | None = None
        """The time of the last successful fetch, by `time.monotonic`."""

    def describe(self) -> Iterable[Metric]:
        """The metrics, from which the registry reads the names to detect duplicates."""
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        # A scrape runs in another thread while the event loop counts. `list` copies each mapping atomically.
        fetches = CounterMetricFamily(
            "jims_oidc_jwks_fetches", "Fetches of the issuer's keys, by outcome.", labels=("outcome",)
        )
        for outcome, count in list(self.fetches.items()):
            fetches.add_metric((outcome,), count)
        yield fetches
        verifications = CounterMetricFamily(
            "jims_oidc_verifications", "Checks of the issuer's tokens, by outcome.", labels=("outcome",)
        )
        for outcome, count in list(self.verifications.items()):
            verifications.add_metric((outcome,), count)
        yield verifications
        yield GaugeMetricFamily("jims_oidc_keys", "Keys of the issuer that are in use.", value=self.keys)
        age = GaugeMetricFamily("jims_oidc_keys_age_seconds", "Seconds since the issuer's keys were last fetched.")
        fetched_at = self.keys_fetched_at
        if fetched_at is not None:
            age.add_metric((), time.monotonic() - fetched_at)
        yield age


def counts_of(settings: "Settings") -> Counts:
    """Return new counts. The hooks of one app share them by `settings.shared(counts_of)`."""
    return Counts()
