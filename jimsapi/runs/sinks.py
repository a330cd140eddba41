"""Event sinks. Each gets a copy of every event after it is stored. The failure of a sink does not affect runs.

There are two kinds. What a best-effort sink could not receive is lost; its queue is here. What a durable sink could not
receive is delivered later (`jimsapi.runs.durable_sinks`).
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Protocol

from jimsapi.runs.plugin_code import PLUGIN_EXITS, own_task_is_cancelled
from jimsapi.runs.tasks import EndlessTask
from jimsapi.threads.event import Event, SinkEvent

logger = logging.getLogger("jimsapi.sinks")

QUEUE_LIMIT = 10_000
"""The most events that wait for one sink. If there are more, new ones are dropped and counted."""
QUEUE_BYTES = 64 * 1024 * 1024
"""The most bytes of event data that wait for one sink. A single event may be larger."""
BATCH_LIMIT = 500
DELIVERY_TIMEOUT = 10.0
"""Seconds that a sink has for one batch."""


class EventRefused(Exception):
    """A durable sink raises it: the destination will never accept some events of the batch.

    They become dead letters with this reason, and the other events of the batch are delivered again without them. The
    reason must not contain a secret. A sink that raises any other exception receives the same events again later.

    `ids` has the thread and the identifier of each event, since a fork has events of its parent.
    """

    def __init__(self, reason: str, events: Iterable[Event]) -> None:
        super().__init__(reason)
        self.ids = frozenset((event.thread_id, event.event_id) for event in events)


class EventSink(Protocol):
    """Receives copies of stored events. `name` is its label in logs and metrics.

    A sink with an attribute `durable = True` receives every event at least once, also after an outage or the end of a
    process, and those of a thread in their order. It receives the same events again, perhaps fewer at a time, until
    `deliver` returns. Its name is its identity in the store.
    """

    name: str

    async def deliver(self, events: Sequence[SinkEvent]) -> None: ...


def is_durable(sink: EventSink) -> bool:
    """Return whether a sink receives every event, and not only what it can receive at once."""
    return getattr(sink, "durable", False) is True


class SinkQueue:
    """A best-effort sink, the queue of its events, and the task that delivers them in order.

    `outcomes` counts events as `delivered`, `failed` (the sink raised or took too long) and `dropped` (its queue was
    full).
    """

    def __init__(self, sink: EventSink, name: str | None = None) -> None:
        self.name = name or sink.name
        self.outcomes: Counter[str] = Counter()
        self._sink = sink
        self._queue: asyncio.Queue[tuple[SinkEvent, int]] = asyncio.Queue(QUEUE_LIMIT)
        self._bytes = 0
        self._worker = EndlessTask(self._work, f"event sink {self.name}")

    @property
    def waiting(self) -> int:
        """The number of events that wait for a delivery. Any thread may read it."""
        return self._queue.qsize()

    def start(self) -> None:
        """Start the delivery in the running loop."""
        self._worker.start()

    def put(self, events: Sequence[tuple[SinkEvent, int]]) -> None:
        """Add events, each with the size of its data in bytes, without waiting. Drops events if the queue is full."""
        for event, size in events:
            if self._queue.full() or (self._bytes and self._bytes + size > QUEUE_BYTES):
                if not self.outcomes["dropped"]:
                    logger.warning("event sink %s does not keep up: events are dropped", self.name)
                self.outcomes["dropped"] += 1
            else:
                self._queue.put_nowait((event, size))
                self._bytes += size

    async def flush(self, seconds: float) -> None:
        """Wait up to `seconds` until every event in the queue was delivered or failed."""
        try:
            async with asyncio.timeout(seconds):
                await self._queue.join()
        except TimeoutError:
            logger.warning("event sink %s: %d events were not delivered", self.name, self._queue.qsize())

    async def stop(self) -> None:
        """Stop the delivery. Events that still wait are lost."""
        await self._worker.stop(1.0)

    async def _work(self) -> None:
        while True:
            items = [await self._queue.get()]
            while len(items) < BATCH_LIMIT and not self._queue.empty():
                items.append(self._queue.get_nowait())
            batch = [event for event, _ in items]
            try:
                async with asyncio.timeout(DELIVERY_TIMEOUT):
                    await self._sink.deliver(batch)
            except (Exception, *PLUGIN_EXITS) as error:
                if own_task_is_cancelled():
                    raise
                self.outcomes["failed"] += len(batch)
                logger.error("event sink %s failed: %s: %s", self.name, type(error).__name__, error)
            else:
                self.outcomes["delivered"] += len(batch)
            finally:
                self._bytes -= sum(size for _, size in items)
                for _ in items:
                    self._queue.task_done()
