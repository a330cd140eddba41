"""Histograms of durations, in the form that Prometheus reads."""

from bisect import bisect_left


class Histogram:
    """Counts observations by bucket. `bounds` are the buckets' upper bounds, and `total` is the sum, in seconds."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Count a duration in seconds."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds

    @property
    def count(self) -> int:
        """The number of observations."""
        return sum(self.counts)

    def add(self, other: "Histogram") -> None:
        """Add the observations of another histogram with the same bounds."""
        self.counts = [mine + others for mine, others in zip(self.counts, other.counts, strict=True)]
        self.total += other.total

    def buckets(self) -> list[tuple[str, float]]:
        """Return cumulative counts by upper bound, in the form that Prometheus reads."""
        cumulative, running = [], 0
        for bound, count in zip((*map(_text, self.bounds), "+Inf"), list(self.counts), strict=True):
            running += count
            cumulative.append((bound, float(running)))
        return cumulative


def _text(bound: float) -> str:
    return str(float(bound))
