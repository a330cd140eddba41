"""The limits of runs."""

from datetime import timedelta

import msgspec

from jimsapi.runs.quota import QuotaLimits
from jimsapi.threads.run import ContextLimits


class RunLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of runs. `queue_timeout` and `run_timeout` are in seconds.

    - `context` limits the size of a context.
    - `thread_queue` runs may wait in one thread. If `reject_busy` is set, none may.
    - `queue_timeout` limits the wait for a turn, and `run_timeout` the work of the pipelines.
    - `max_runs` runs may be open in the process.
    - `keep_runs` is how long a run is stored after its end.
    - `expire_threads` is how long a thread is stored after its newest event; None: for ever.
    - `quota` has the limits of one caller.
    """

    context: ContextLimits = ContextLimits()
    thread_queue: int = 256
    reject_busy: bool = False
    queue_timeout: float = 60.0
    run_timeout: float = 300.0
    max_runs: int = 1000
    keep_runs: timedelta = timedelta(days=30)
    expire_threads: timedelta | None = None
    quota: QuotaLimits = QuotaLimits()
