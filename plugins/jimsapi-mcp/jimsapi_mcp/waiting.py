"""Waits for what becomes of a question: calls that wait for a person, and several calls that wait for one run."""

import asyncio
from contextlib import AbstractContextManager, suppress
from functools import partial
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from jimsapi.runs import LiveRun, RunService
from jimsapi.wire import stop_left

TICK = 1.0
"""Seconds between two looks at what this process knows itself, such as whether the server shuts down."""
READ_AFTER = 1.0
"""Seconds between two reads of the store for what other processes have stored. A long wait reads less often: after
`READ_SHARE` of the time that it has lasted, and after `READ_AT_LATEST` seconds."""
READ_SHARE = 0.05
READ_AT_LATEST = 10.0


class ThreadWatch:
    """Says when to read a thread in the store again: when this process has changed it, and from time to time.

    It watches the thread from entering to leaving. `news` is set when it has changed; others may set it, too.
    """

    def __init__(self, service: RunService, thread_id: UUID, news: asyncio.Event | None = None) -> None:
        self._news = news or asyncio.Event()
        self._watch: AbstractContextManager[None] = service.watch_thread(thread_id, self._news.set)

    def __enter__(self) -> Self:
        self._watch.__enter__()
        self._began = asyncio.get_running_loop().time()
        self._due = self._began + READ_AFTER
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._watch.__exit__(kind, error, traceback)

    async def tick(self, at_most: float = TICK) -> bool:
        """Wait for news, up to `TICK` and `at_most` seconds. Returns whether to read the store now."""
        with suppress(TimeoutError):
            async with asyncio.timeout(min(TICK, at_most)):
                await self._news.wait()
        now = asyncio.get_running_loop().time()
        if not self._news.is_set() and now < self._due:
            return False
        self._news.clear()
        self._due = now + min(max(READ_AFTER, (now - self._began) * READ_SHARE), READ_AT_LATEST)
        return True


class WaitingCalls:
    """The calls of this process that wait for each run, and whose clients cancel it by leaving.

    A request that a client repeats waits for the run of the first one. So the run is cancelled when the last of them
    has left.
    """

    def __init__(self, service: RunService) -> None:
        self._service = service
        self._runs: dict[UUID, LiveRun] = {}
        self._counts: dict[UUID, int] = {}

    def begin(self, run: LiveRun) -> None:
        """Note the call that has begun a run, or shares it by its idempotency key. Follow it up with `leave`."""
        if run.answer.done():
            return
        if run.run_id not in self._runs:
            self._runs[run.run_id] = run
            self._counts[run.run_id] = 0
            run.answer.add_done_callback(partial(self._forget, run.run_id))
        self._counts[run.run_id] += 1

    def join(self, run_id: UUID) -> LiveRun | None:
        """Note another call that waits for a run, and return the run. None if no call of this process has begun it."""
        run = self._runs.get(run_id)
        if run is not None:
            self._counts[run_id] += 1
        return run

    def leave(self, run: LiveRun) -> None:
        """Note that the client of a call has left. Cancels the run if no other call waits for it."""
        if run.run_id in self._counts:
            self._counts[run.run_id] -= 1
        if not self._counts.get(run.run_id):
            stop_left(self._service, run)

    def _forget(self, run_id: UUID, _: "asyncio.Future[Any]") -> None:
        del self._runs[run_id], self._counts[run_id]
