"""Counts of refused messages, by the limit that refused them."""

from collections import Counter

from jimsapi.runs.errors import QueueTimedOut, ThreadBusy, TooManyRuns
from jimsapi.runs.quota import QuotaExceeded
from jimsapi.threads.errors import DomainError, QueueFull

_LIMITS: dict[type[DomainError], str] = {
    TooManyRuns: "max-runs",
    QueueFull: "thread-queue",
    ThreadBusy: "thread-busy",
    QueueTimedOut: "queue-timeout",
}


class Refusals:
    """The number of refused messages by limit. The limits of callers have the names that answers show."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def count(self, error: DomainError) -> None:
        """Count `error` if a limit raised it."""
        if isinstance(error, QuotaExceeded):
            self.counts.update(one.policy.name for one in error.exhausted if not one.remaining)
        elif (limit := _LIMITS.get(type(error))) is not None:
            self.counts[limit] += 1
