"""Notifies sinks and watchers of stored events, and observers, webhooks and subscriptions of runs that ended."""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING
from uuid import UUID

from jimsapi.runs.durable_sinks import DurableSinks
from jimsapi.runs.live import LiveRun, RunRecord
from jimsapi.runs.observers import Observers
from jimsapi.runs.sinks import SinkQueue
from jimsapi.runs.subscriptions import Subscriptions
from jimsapi.threads.event import EventRow, sink_event
from jimsapi.threads.run import QUEUED

if TYPE_CHECKING:
    from jimsapi.runs.webhooks import Webhooks  # imports an HTTP client, which servers without webhooks do not need

logger = logging.getLogger("jimsapi.runs")


class Announcer:
    """Notifies sinks, observers, webhooks and subscriptions. All but observers have queues: no run waits for them."""

    def __init__(
        self,
        sinks: Sequence[SinkQueue],
        durable_sinks: DurableSinks,
        on_run: Observers[RunRecord],
        webhooks: "Webhooks | None",
        subscriptions: Subscriptions,
    ) -> None:
        self.sinks = tuple(sinks)
        self.durable_sinks = durable_sinks
        self._has_sinks = bool(self.sinks or durable_sinks.sinks)
        self.webhooks = webhooks
        self.subscriptions = subscriptions
        self._on_run = on_run
        self._watchers: dict[UUID, list[Callable[[], None]]] = {}

    @contextmanager
    def watch(self, thread_id: UUID, on_change: Callable[[], None]) -> Iterator[None]:
        """Return a context in which `on_change` is called after events of a thread are stored, and after its runs."""
        watchers = self._watchers.setdefault(thread_id, [])
        watchers.append(on_change)
        try:
            yield
        finally:
            watchers.remove(on_change)
            if not watchers:
                del self._watchers[thread_id]

    async def start(self) -> None:
        """Start the delivery to sinks in the running loop. Raises `StoreUnusable` if one cannot be durable."""
        await self.durable_sinks.start()
        if self.webhooks is not None:
            self.webhooks.start()
        self.subscriptions.start()
        for sink in self.sinks:
            sink.start()

    async def flush(self, seconds: float) -> None:
        """Wait up to `seconds` until the queues of the sinks, webhooks and subscriptions are delivered."""
        webhooks = () if self.webhooks is None else (self.webhooks,)
        queues = (*self.sinks, *self.durable_sinks.sinks, *webhooks, self.subscriptions)
        await asyncio.gather(*(queue.flush(seconds) for queue in queues))

    async def stop(self) -> None:
        """Stop all deliveries. Events that still wait for best-effort sinks are dropped."""
        await self.durable_sinks.stop()
        for sink in self.sinks:
            await sink.stop()
        if self.webhooks is not None:
            await self.webhooks.stop()
        await self.subscriptions.stop()

    def stored(
        self,
        thread_id: UUID,
        rows: Sequence[EventRow],
        contact_id: str | None = None,
        run_id: UUID | None = None,
    ) -> None:
        """Put stored events into the queues of the sinks."""
        self.subscriptions.changed(thread_id)
        if self._watchers:
            self._wake(thread_id)
        if not (rows and self._has_sinks):
            return
        self.durable_sinks.wake()
        if self.sinks:
            events = [(sink_event(thread_id, contact_id, run_id, row), len(row.data or b"")) for row in rows]
            for sink in self.sinks:
                sink.put(events)

    def ended(self, run: LiveRun, duration: float) -> None:
        """Call the webhook, the subscriptions and the observers of a run that ended after `duration` seconds."""
        if run.thread is None:
            return
        if run.background and run.status is QUEUED:
            return  # it has not ended: another process continues it
        if run.inbound.webhook_url is not None:
            self._call_webhook(run.run_id, run.inbound.webhook_url)
        self.subscriptions.changed(run.thread.thread_id)
        if self._watchers:
            self._wake(run.thread.thread_id)
        if self._on_run.calls:
            self._on_run.notify(run.record(duration))

    def _wake(self, thread_id: UUID) -> None:
        for on_change in tuple(self._watchers.get(thread_id, ())):
            on_change()

    def _call_webhook(self, run_id: UUID, url: str) -> None:
        if self.webhooks is not None:
            self.webhooks.put(run_id, url)
        else:  # a process that calls webhooks accepted the run, and this one took it over
            logger.warning("run %s: its webhook is not called, because --webhook-secret is not set", run_id)
