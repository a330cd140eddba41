"""Clients that disconnect before the answer has ended. In some protocols they want the run to stop.

A run continues without its client unless its route says otherwise, so only routes that call these functions cancel it.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from typing import Any

from jimsapi.runs.live import LiveRun
from jimsapi.runs.service import RunService
from jimsapi.runs.tasks import ServiceTask
from jimsapi.threads.errors import StoreUnavailable
from jimsapi.threads.run import OPEN

_AGAIN = 0.05
"""Seconds between two attempts to cancel a run that the store has not accepted yet."""

logger = logging.getLogger("jimsapi.api")

_cancelling: set[asyncio.Task[None]] = set()


def watch_leaving(
    chunks: AsyncGenerator[bytes, None], run: LiveRun, on_left: Callable[[], None]
) -> AsyncGenerator[bytes, None]:
    """Return the chunks of an answer. Calls `on_left` if the client disconnects while the run is open.

    The client has disconnected if the generator is closed before its end, also before its first chunk.
    """
    return _WatchedChunks(chunks, run, on_left)


class _WatchedChunks(AsyncGenerator[bytes, None]):
    """The chunks of an answer.

    This is a class, since Python runs none of the code of a generator function if the generator is closed at once.
    """

    __slots__ = ("_chunks", "_has_ended", "_on_left", "_run")

    def __init__(self, chunks: AsyncGenerator[bytes, None], run: LiveRun, on_left: Callable[[], None]) -> None:
        self._chunks = chunks
        self._run = run
        self._on_left = on_left
        self._has_ended = False

    async def __anext__(self) -> bytes:
        return await self.asend(None)

    async def asend(self, value: None) -> bytes:
        try:
            return await self._chunks.asend(value)
        except asyncio.CancelledError:
            await self.aclose()
            raise
        except BaseException:  # also at the end of the chunks
            self._has_ended = True
            raise

    async def athrow(self, *error: Any) -> bytes:
        return await self._chunks.athrow(*error)

    async def aclose(self) -> None:
        try:
            await self._chunks.aclose()
        finally:
            if not self._has_ended:
                self._has_ended = True
                if self._run.status in OPEN:
                    self._on_left()


def stop_left(service: RunService, run: LiveRun) -> None:
    """Cancel an open run whose client has left.

    Nothing happens if the run has its answer, or an idempotency key, because another request may wait for the answer.
    Nothing happens either while the server shuts down, because the server then closes connections itself.
    """
    answered = run.answer.done() and not run.answer.cancelled()
    if answered or run.status not in OPEN or run.idempotency is not None or service.draining:
        return
    task = ServiceTask.begin(_cancel(service, run), loop=run.loop, name="jimsapi-cancel-left")
    _cancelling.add(task)  # a loop does not keep its tasks
    task.add_done_callback(_cancelling.discard)


async def _cancel(service: RunService, run: LiveRun) -> None:
    try:
        settled = await service.cancel(run.run_id)
        while settled.status is None and run.in_thread and not run.answer.done():  # the store has not accepted it yet
            await asyncio.sleep(_AGAIN)
            settled = await service.cancel(run.run_id)
    except StoreUnavailable as error:
        logger.warning("run %s continues without its client, because it could not be cancelled: %s", run.run_id, error)
