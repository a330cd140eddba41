"""What the plugin counts, as Prometheus families."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from jimsapi_oidc import OidcOptions

FETCH_OUTCOMES = ("ok", "timeout", "unreachable", "status", "malformed")
VERIFICATION_OUTCOMES = (
    "verified", "cached", "malformed", "header", "key", "signature", "time", "audience", "claims", "scopes",
    "unavailable",
)  # fmt: skip


class Counts(Collector):
    """Counts of one app. They are plain numbers on the path of a request; a scrape makes families of them."""

    def __init__(self) -> None:
        self.fetches: Counter[str] = Counter(dict.fromkeys(FETCH_OUTCOMES, 0))
        self.verifications: Counter[str] = Counter(dict.fromkeys(VERIFICATION_OUTCOMES, 0))
        self.keys = 0
        self.keys_fetched_at: float | None = None
        """When the keys came, by `time.monotonic`."""

    def describe(self) -> Iterable[Metric]:
        """Names for the registry to hold against others'."""
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        # A scrape runs in a thread of its own while the loop counts: each mapping is copied in one step first.
        fetches = CounterMetricFamily(
            "jims_oidc_jwks_fetches", "Fetches of the issuer's keys, by what became of them.", labels=("outcome",)
        )
        for outcome, count in list(self.fetches.items()):
            fetches.add_metric((outcome,), count)
        yield fetches
        verifications = CounterMetricFamily(
            "jims_oidc_verifications", "Tokens of the issuer that were looked at, by outcome.", labels=("outcome",)
        )
        for outcome, count in list(self.verifications.items()):
            verifications.add_metric((outcome,), count)
        yield verifications
        yield GaugeMetricFamily("jims_oidc_keys", "Keys of the issuer that are in use.", value=self.keys)
        age = GaugeMetricFamily("jims_oidc_keys_age_seconds", "Seconds since the issuer last gave its keys.")
        fetched_at = self.keys_fetched_at
        if fetched_at is not None:
            age.add_metric((), time.monotonic() - fetched_at)
        yield age


_COUNTS: "WeakKeyDictionary[OidcOptions, Counts]" = WeakKeyDictionary()


def counts_of(options: "OidcOptions") -> Counts:
    """The counts of the app whose resolved options these are.

    A plugin is one module for all apps of a process, and two of its hooks share the counts of each app.
    """
    return _COUNTS.setdefault(options, Counts())
