"""What the run service works on, in lines for an operator. They have identifiers, places in code and numbers.

They have no texts of messages, no contacts, and nothing else that a caller or a pipeline has chosen.
"""

import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from operator import attrgetter
from uuid import UUID

from jimsapi.asgi.stack import where_frame, where_task
from jimsapi.runs.limits import RunLimits
from jimsapi.runs.live import LiveRun
from jimsapi.runs.quota import Quota
from jimsapi.runs.stream import ALL_BYTES, Streams
from jimsapi.runs.tasks import PipelineTask, current_pipeline
from jimsapi.runs.worker_threads import working_threads
from jimsapi.threads.run import QUEUED

MAX_RUNS = 50
"""The number of runs that are listed: those that are open longest."""


def limits_state(limits: RunLimits, runs: Sequence[LiveRun], quota: Quota | None, streams: Streams) -> Iterator[str]:
    """Yield how much of each limit is in use."""
    waiting = Counter(run.thread_id for run in runs if run.status is QUEUED and run.thread_id is not None)
    longest = max(waiting.values(), default=0)
    yield f"--max-runs: {len(runs)} of {limits.max_runs}"
    yield f"--thread-queue: at most {longest} of {limits.thread_queue} wait in one thread"
    if quota is not None:
        for name, count in quota.counted():
            yield f"limit {name}: counts {count} callers or contacts now"
    yield f"streams of runs: {len(streams)} are kept, with {streams.size} of {ALL_BYTES} bytes"


def runs_state(runs: Sequence[LiveRun], abandoned: Sequence[PipelineTask], now: float) -> Iterator[str]:
    """Yield a line for each run, and for each abandoned pipeline, with the place where it is. `now` is the loop's time.

    Any thread may read them, also while the event loop is blocked.
    """
    threads = dict(_places_in_threads())
    for run in heapq.nsmallest(MAX_RUNS, runs, key=attrgetter("began")):
        yield _run(run, now, threads)
    if len(runs) > MAX_RUNS:
        yield f"and {len(runs) - MAX_RUNS} more runs, which began later"
    for task in abandoned[:MAX_RUNS]:
        yield f"abandoned {task}: {threads.get(task.run_id) or where_task(task)}"
    if len(abandoned) > MAX_RUNS:
        yield f"and {len(abandoned) - MAX_RUNS} more abandoned pipelines"


def _places_in_threads() -> Iterator[tuple[UUID, str]]:
    """Yield the identifiers of the runs whose pipelines work in threads, and where each is."""
    for context, innermost, outermost in working_threads():
        pipeline = context.get(current_pipeline)
        if pipeline is not None:
            yield pipeline.run_id, f"in a thread, {where_frame(innermost, outermost)}"


def _run(run: LiveRun, now: float, threads: dict[UUID, str]) -> str:
    pipeline = run.pipeline
    if pipeline is None or pipeline.done():
        pipeline = None
    task = pipeline or run.task
    place = threads.get(run.run_id) or ("has not begun" if task is None else where_task(task))
    parts = [
        f"run {run.run_id}",
        f"thread {run.thread_id}" if run.thread_id is not None else "without a thread",
        run.status.value,
        f"open for {now - run.began:.1f} s",
        f"waited {run.waited:.1f} s" if run.status is not QUEUED else "",
        "in the background" if run.background else "",
        f"pipeline {pipeline.pipeline}" if pipeline is not None else "",
        f"is being stopped ({run.stop_reason.name.lower()})" if run.stop_reason is not None else "",
    ]
    return f"{', '.join(filter(None, parts))}: {place}"
