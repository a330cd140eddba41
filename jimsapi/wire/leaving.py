"""Clients that disconnect before the answer has ended. In some protocols they want the run to stop.

A run continues without its client unless its route says otherwise, so only routes that call these functions cancel it.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from jimsapi.runs.live import LiveRun
from jimsapi.runs.service import RunService
from jimsapi.runs.tasks import ServiceTask
from jimsapi.threads.errors import StoreUnavailable
from jimsapi.threads.run import OPEN

_AGAIN = 0.05
"""Seconds between two attempts to cancel a run that the store has not accepted yet."""

logger = logging.getLogger("jimsapi.api")

_cancelling: set[asyncio.Task[None]] = set()


async def watch_leaving(
    chunks: AsyncGenerator[bytes, None], run: LiveRun, on_left: Callable[[], None]
) -> AsyncGenerator[bytes, None]:
    """Yield the chunks of an answer. Calls `on_left` if the client disconnects while the run is open."""
    try:
        async with aclosing(chunks):
            async for chunk in chunks:
                yield chunk
    except (GeneratorExit, asyncio.CancelledError):
        if run.status in OPEN:
            on_left()
        raise


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
