"""What runs may take."""

from datetime import timedelta

import msgspec

from jimsapi.runs.quota import QuotaLimits
from jimsapi.threads.run import ContextLimits


class RunLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What runs may take: times in seconds, `thread_queue` runs waiting in a thread, `max_runs` open in the process.

    `reject_busy`: a thread that works on a message takes no other. `quota` is what one caller may ask for.
    """

    context: ContextLimits = ContextLimits()
    thread_queue: int = 256
    reject_busy: bool = False
    queue_timeout: float = 60.0
    run_timeout: float = 300.0
    max_runs: int = 1000
    keep_runs: timedelta = timedelta(days=30)
    quota: QuotaLimits = QuotaLimits()
