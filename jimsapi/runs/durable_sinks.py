"""Durable sinks: what each receives is in the outbox of the store until it has received it.

A process that holds a sink reads its next events, delivers them, and moves the sink on. It goes on after an outage, and
another process continues if this one ends. So a sink receives every event at least once, and the events of a thread in
their order; an event that it receives again has the same identifier.
"""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from uuid import UUID

from jimsapi.runs.plugin_code import PLUGIN_EXITS, own_task_is_cancelled
from jimsapi.runs.sinks import BATCH_LIMIT, DELIVERY_TIMEOUT, EventRefused, EventSink
from jimsapi.runs.tasks import EndlessTask
from jimsapi.threads.errors import StoreUnavailable, StoreUnusable
from jimsapi.threads.event import SinkEvent, row_id, sink_event
from jimsapi.threads.outbox import MAX_SINK_NAME, Outbox, OutboxEvent, Refused, SinkState
from jimsapi.threads.store import ThreadStore

logger = logging.getLogger("jimsapi.sinks")

EventId = tuple[UUID, UUID]
"""A thread, and an event of it. A fork has events of its parent."""

HOLD = 30.0
"""Seconds for which a process holds a sink. If it dies, another process continues after this time."""
RENEW_EVERY = 10.0
"""Seconds after which it holds the sink for `HOLD` again. A delivery and a pause together are shorter than `HOLD`."""
POLL_EVERY = 1.0
"""Seconds after which a process looks for events that another one stored."""
LOOK_EVERY = 10.0
"""Seconds between two looks at how far the sinks are, for the metrics."""
LONGEST_PAUSE = 60.0
"""The most seconds between two attempts to deliver the same events."""
PROBE_AFTER = 3
"""After so many failed attempts in succession, the events of a batch are delivered one by one: perhaps one of them is
the cause."""
PROBED = 10
"""The most events that fail in one probe before it ends."""
GIVE_UP_AFTER = 5
"""An event that failed while the sink accepted others, and then again and again, so often in all, is a dead letter."""


class DurableSink:
    """A sink, and the task of this process that works for it.

    `outcomes` counts events as `delivered`, `retried` (an attempt failed, and is repeated) and `refused` (they became
    dead letters). `state` is what the store knew of the sink when it was last asked.
    """

    def __init__(self, sink: EventSink, name: str | None = None) -> None:
        self.name = name or sink.name
        self.outcomes: Counter[str] = Counter()
        self.state: SinkState | None = None
        self._sink = sink
        self._stored = asyncio.Event()
        self._idle = asyncio.Event()
        self._held_until = 0.0
        self._at_once = BATCH_LIMIT
        self._suspects: Counter[EventId] = Counter()
        self._worker = EndlessTask(self._work, f"durable event sink {self.name}")

    @property
    def waiting(self) -> int:
        """About how many events wait for the sink, as the store knew a short time ago. Any thread may read it."""
        return 0 if self.state is None else self.state.waiting

    @property
    def dead_letters(self) -> int:
        """The number of events that the sink refused, as the store knew a short time ago. Any thread may read it."""
        return 0 if self.state is None else self.state.dead

    @property
    def lag(self) -> float:
        """For how many seconds the oldest event has waited; 0 if none waits. Any thread may read it."""
        oldest = None if self.state is None else self.state.oldest
        return 0.0 if oldest is None else max(0.0, (datetime.now(UTC) - oldest).total_seconds())

    def start(self, outbox: Outbox, owner: UUID) -> None:
        """Work for the sink in the running loop, whenever no other process does."""
        self._outbox = outbox
        self._owner = owner
        self._worker.start()

    def wake(self) -> None:
        """Look for events at once, since this process has stored some."""
        self._idle.clear()
        self._stored.set()

    async def flush(self, seconds: float) -> None:
        """Wait up to `seconds` until nothing waits for the sink. What still waits is delivered after the next start."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._idle.wait()

    async def stop(self) -> None:
        """Stop working for the sink, so that another process may continue at once."""
        await self._worker.stop(1.0)
        with suppress(StoreUnavailable, TimeoutError):
            async with asyncio.timeout(1.0):
                await self._outbox.release(self.name, self._owner)

    async def _work(self) -> None:
        while True:
            self._stored.clear()
            try:
                moved = await self._holds() and await self._deliver_next()
            except StoreUnavailable:
                moved = False  # the runs log the outage
            if not moved:
                self._idle.set()
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL_EVERY):
                        await self._stored.wait()

    async def _holds(self) -> bool:
        """Return whether this process holds the sink, and make it hold the sink if no other does."""
        now = asyncio.get_running_loop().time()
        if now < self._held_until - HOLD + RENEW_EVERY:
            return True
        held = await self._outbox.hold(self.name, self._owner, HOLD)
        self._held_until = now + HOLD if held else 0.0
        return held

    async def _deliver_next(self) -> bool:
        """Deliver the next events, and move the sink on. Returns False if there are none."""
        batch = await self._outbox.read(self.name, BATCH_LIMIT)
        if batch.after is None:
            return False
        refused = await self._deliver(batch.events)
        if refused is None or not await self._outbox.advance(self.name, self._owner, batch.after, refused):
            self._held_until = 0.0
            return False
        self._suspects.clear()
        return True

    async def _deliver(self, left: list[OutboxEvent]) -> list[Refused] | None:
        """Deliver events, however long it takes. Returns those that were refused; None if another process took over."""
        refused: list[Refused] = []
        failures = 0
        while left:
            if not await self._holds():
                return None
            chunk = left[: self._at_once]
            error = await self._attempt(chunk)
            if error is None:
                left = left[len(chunk) :]
                self._at_once = min(BATCH_LIMIT, 2 * self._at_once)
                failures = 0
                continue
            if found := _refused_by(error, chunk):
                refused += [self._refuse(event, str(error)) for event in found]
                left = _without(left, map(_id, found))
                continue
            if isinstance(error, TimeoutError):  # perhaps the sink needs more time for so many events
                self._at_once = max(1, len(chunk) // 2)
            failures += 1
            self._log(failures, error)
            if failures >= PROBE_AFTER:
                delivered, given_up = await self._probe(left)
                refused += given_up
                left = _without(left, (*delivered, *(_id(refusal.event) for refusal in given_up)))
            if left and not await self._pause(failures):
                return None
        return refused

    async def _attempt(self, events: Sequence[OutboxEvent]) -> BaseException | None:
        """Deliver events once. Returns what the sink raised; None if it has them."""
        decoded = [_decoded(event) for event in events]
        try:
            async with asyncio.timeout(DELIVERY_TIMEOUT):
                await self._sink.deliver(decoded)
        except (Exception, *PLUGIN_EXITS) as error:
            if own_task_is_cancelled():
                raise
            self.outcomes["retried"] += len(events)
            return error
        self.outcomes["delivered"] += len(events)
        return None

    async def _probe(self, events: Sequence[OutboxEvent]) -> tuple[list[EventId], list[Refused]]:
        """Deliver events one by one. Returns what was delivered, and what is given up.

        After an event that fails, the later ones of its thread wait.
        """
        delivered: list[EventId] = []
        given_up: list[Refused] = []
        failed: dict[UUID, tuple[OutboxEvent, BaseException]] = {}
        for event in events:
            if len(failed) == PROBED or not await self._holds():
                break
            if event.thread_id in failed:
                continue
            error = await self._attempt([event])
            if error is None:
                delivered.append(_id(event))
            elif _refused_by(error, [event]):
                given_up.append(self._refuse(event, str(error)))
            else:
                failed[event.thread_id] = (event, error)
        for event, error in failed.values():
            # If no event was delivered, the sink may be down, and that is no fault of the event.
            if delivered or self._suspects[_id(event)]:
                self._suspects[_id(event)] += 1
            if self._suspects[_id(event)] >= GIVE_UP_AFTER:
                given_up.append(self._refuse(event, f"{type(error).__name__}: {error}"))
        return delivered, given_up

    def _refuse(self, event: OutboxEvent, reason: str) -> Refused:
        self.outcomes["refused"] += 1
        text = "event sink %s does not accept event %s of thread %s: %s; `jimsapi sinks dead %s` lists such events"
        logger.error(text, self.name, event.row.event_id, event.thread_id, reason, self.name)
        return Refused(event, reason)

    def _log(self, failures: int, error: BaseException) -> None:
        """Log the failures whose number is a power of two, since an outage may take hours."""
        if failures & (failures - 1) == 0:
            text = "event sink %s failed %d times; its events wait: %s: %s"
            logger.error(text, self.name, failures, type(error).__name__, error)

    async def _pause(self, failures: int) -> bool:
        """Wait before the next attempt. Returns False if another process took over."""
        # The random factor spreads the attempts of sinks that failed at the same time.
        left = min(LONGEST_PAUSE, 2.0 ** min(failures - 1, 10)) * random.uniform(0.5, 1.0)
        while left > 0:
            await asyncio.sleep(min(left, RENEW_EVERY))
            left -= RENEW_EVERY
            if not await self._holds():
                return False
        return True


class DurableSinks:
    """The durable sinks of a process. `store` has the outbox; `owner` is the process."""

    def __init__(self, sinks: Iterable[DurableSink], store: ThreadStore, owner: UUID) -> None:
        self.sinks = tuple(sinks)
        self.store = store
        self._owner = owner
        self._look = EndlessTask(self._look_at_states, "states of event sinks")

    async def start(self) -> None:
        """Register the sinks, and work for them. Raises `StoreUnusable` if that is not possible."""
        outbox = getattr(self.store, "outbox", None)
        if not self.sinks:
            return
        names = ", ".join(sink.name for sink in self.sinks)
        if outbox is None:
            raise StoreUnusable(
                f"{self.store.name} has no outbox, which these sinks need: {names}; upgrade the plugin of the store"
            )
        for sink in self.sinks:
            if not 0 < len(sink.name) <= MAX_SINK_NAME:
                raise StoreUnusable(
                    f"the name of the event sink {sink.name!r} must have 1 to {MAX_SINK_NAME} characters"
                )
        try:
            for sink in self.sinks:
                await outbox.register(sink.name)
            states = await outbox.sinks()
        except StoreUnavailable as error:
            raise StoreUnusable(f"{self.store.name}: these sinks cannot be registered: {names}: {error}") from error
        for unknown in sorted({state.name for state in states} - {sink.name for sink in self.sinks}):
            text = (
                "events wait for the sink %s, which is not configured; if it is no longer used: jimsapi sinks remove %s"
            )
            logger.warning(text, unknown, unknown)
        if not outbox.lasting:
            text = "%s ends with the process, and so does what waits for these sinks: %s"
            logger.warning(text, self.store.name, names)
        for sink in self.sinks:
            sink.start(outbox, self._owner)
        self._look.start()

    def wake(self) -> None:
        """Let the sinks look for events at once, since this process has stored some."""
        for sink in self.sinks:
            sink.wake()

    async def stop(self) -> None:
        """Stop working for the sinks. What waits is kept."""
        if self.sinks:
            await self._look.stop(1.0)
            await asyncio.gather(*(sink.stop() for sink in self.sinks))

    async def _look_at_states(self) -> None:
        while True:
            with suppress(StoreUnavailable):
                states = {state.name: state for state in await self.store.outbox.sinks()}
                for sink in self.sinks:
                    sink.state = states.get(sink.name)
            await asyncio.sleep(LOOK_EVERY)


def _id(event: OutboxEvent) -> EventId:
    return event.thread_id, row_id(event.row)


def _refused_by(error: BaseException, events: Iterable[OutboxEvent]) -> list[OutboxEvent]:
    """Return those of the events that a sink refused for ever."""
    return (
        [event for event in events if row_id(event.row) in error.event_ids] if isinstance(error, EventRefused) else []
    )


def _decoded(event: OutboxEvent) -> SinkEvent:
    return sink_event(event.thread_id, event.contact_id, event.run_id, event.row)


def _without(events: Iterable[OutboxEvent], ids: Iterable[EventId]) -> list[OutboxEvent]:
    left_out = set(ids)
    return [event for event in events if _id(event) not in left_out]
