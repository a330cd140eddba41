"""Durable sinks: what each receives is in the outbox of the store until it has received it.

A process that holds a sink reads its next events, delivers them, and moves the sink on. It goes on after an outage, and
another process continues if this one ends. So a sink receives every event at least once, and the events of a thread in
their order; an event that it receives again has the same identifier.
"""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from uuid import UUID

import msgspec

from jimsapi.runs.plugin_code import PLUGIN_EXITS, own_task_is_cancelled
from jimsapi.runs.sinks import BATCH_LIMIT, DELIVERY_TIMEOUT, EventRefused, EventSink
from jimsapi.runs.tasks import EndlessTask
from jimsapi.threads.errors import StoreUnavailable, StoreUnusable
from jimsapi.threads.event import SinkEvent, row_id, sink_event
from jimsapi.threads.outbox import MAX_SINK_NAME, Outbox, OutboxBatch, OutboxEvent, Refused, SinkState
from jimsapi.threads.store import ThreadStore

logger = logging.getLogger("jimsapi.sinks")

EventId = tuple[UUID, UUID]
"""A thread, and an event of it. A fork has events of its parent."""

HOLD = 30.0
"""Seconds for which a process holds a sink. If it dies, another process continues after this time."""
RENEW_EVERY = 10.0
"""Seconds after which it holds the sink for `HOLD` again. A delivery and a pause together are shorter than `HOLD`."""
TRY_EVERY = 5.0
"""Seconds after which a process tries again to hold a sink that another one holds."""
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
"""An event that failed so often, each time while the sink accepted others, becomes a dead letter."""
MOST_AHEAD = 10_000
"""The most events that are delivered ahead of one that fails."""


class _Suspect(msgspec.Struct):
    """An event that failed while the sink accepted others. The later events of its thread wait.

    `accepted` is how many attempts the sink had accepted when the event failed last. `retry_at` is the loop's time.
    """

    event_id: UUID
    accepted: int
    retry_at: float
    failures: int = 1


class DurableSink:
    """A sink, and the task of this process that works for it.

    `outcomes` counts events as `delivered`, `retried` (an attempt failed, and is repeated) and `refused` (they became
    dead letters). `state` is what the store knew of the sink when it was last asked.

    The process reads the next events anew for each attempt, so what was deleted meanwhile is not delivered. It moves
    the sink on past events that are done. `_done` are the events that are delivered or given up, but not passed yet,
    since one before them is not done.
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
        self._failures = 0
        self._accepted = 0
        self._done: dict[EventId, Refused | None] = {}
        self._suspects: dict[UUID, _Suspect] = {}
        self._worker = EndlessTask(self._work, f"durable event sink {self.name}")

    @property
    def waiting(self) -> int:
        """About how many events wait for the sink, as the store knew a short time ago. Any thread may read it."""
        return 0 if self.state is None else self.state.waiting

    def start(self, outbox: Outbox, owner: UUID, redact: Callable[[str], str]) -> None:
        """Work for the sink in the running loop, whenever no other process does. `redact` removes secrets from text."""
        self._outbox = outbox
        self._owner = owner
        self._redact = redact
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
                pause = await self._step()
            except StoreUnavailable:
                pause = POLL_EVERY  # the runs log the outage
            if pause:
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._stored.wait()

    async def _step(self) -> float:
        """Do what can be done now. Returns for how many seconds to wait for new events then."""
        if not await self._holds():
            self._forget()
            self._idle.set()
            return TRY_EVERY
        batch = await self._outbox.read(self.name, BATCH_LIMIT + len(self._done))
        if batch.after is None:
            self._forget()
            self._idle.set()
            return POLL_EVERY
        left = [event for event in batch.events if _id(event) not in self._done]
        if batch.replayed:
            await self._deliver_again(left)
        else:
            await self._retry_suspects(left)
            await self._deliver([event for event in left if event.thread_id not in self._suspects])
        if not await self._pass(batch):
            self._forget()
            return TRY_EVERY
        if self._failures:
            await self._pause(self._failures)
            return 0.0
        return self._until_retry() if self._waits_for_suspects(batch) else 0.0

    async def _holds(self) -> bool:
        """Return whether this process holds the sink, and make it hold the sink if no other does."""
        now = asyncio.get_running_loop().time()
        if now < self._held_until - HOLD + RENEW_EVERY:
            return True
        held = await self._outbox.hold(self.name, self._owner, HOLD)
        self._held_until = now + HOLD if held else 0.0
        return held

    def _forget(self) -> None:
        """Forget everything about the events that wait: there are none, or another process works for the sink."""
        self._done.clear()
        self._suspects.clear()
        self._failures = 0

    async def _deliver(self, events: Sequence[OutboxEvent]) -> None:
        """Deliver some of the next events, of threads without a suspect."""
        if not events or len(self._done) >= MOST_AHEAD:
            self._failures = 0
            return
        chunk = events[: self._at_once]
        error = await self._attempt(chunk)
        if error is None:
            self._at_once = min(BATCH_LIMIT, 2 * self._at_once)
            self._failures = 0
        elif isinstance(error, TimeoutError) and len(chunk) > 1:
            self._at_once = len(chunk) // 2  # perhaps the sink needs more time for so many events
        elif not self._refused_some(error, chunk):
            self._failures += 1
            self._log(error)
            if self._failures >= PROBE_AFTER:
                await self._probe(events)

    async def _deliver_again(self, letters: Sequence[OutboxEvent]) -> None:
        """Deliver dead letters that are replayed. Those that fail again are dead letters again."""
        if not letters:
            return
        error = await self._attempt(letters)
        if error is None:
            self._failures = 0
        elif not self._refused_some(error, letters):
            self._failures += 1
            self._log(error)
            if self._failures >= PROBE_AFTER:
                self._failures = 0
                for letter in letters:
                    error = await self._attempt([letter])
                    if error is not None:
                        self._refuse(letter, error)

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
        self._accepted += 1
        self._done.update(dict.fromkeys(map(_id, events)))
        return None

    async def _probe(self, events: Sequence[OutboxEvent]) -> None:
        """Deliver events one by one. If the sink accepts some, those that fail are suspects.

        If it accepts none, it may be down, and that is no fault of the events. After an event that fails, the later
        ones of its thread wait.
        """
        accepted = self._accepted
        failed: dict[UUID, tuple[OutboxEvent, BaseException]] = {}
        for event in events:
            if len(failed) == PROBED or not await self._holds():
                break
            if event.thread_id not in failed:
                error = await self._attempt([event])
                if error is not None and not self._refused_some(error, [event]):
                    failed[event.thread_id] = (event, error)
        if self._accepted == accepted:
            return
        self._failures = 0
        for event, error in failed.values():
            text = "event sink %s fails with event %s of thread %s, and accepts others; the thread waits: %s: %s"
            logger.error(text, self.name, event.row.event_id, event.thread_id, type(error).__name__, error)
            suspect = _Suspect(row_id(event.row), self._accepted, self._retry_at(1))
            self._suspects[event.thread_id] = suspect

    async def _retry_suspects(self, left: Sequence[OutboxEvent]) -> None:
        """Deliver suspects again that have waited long enough."""
        first = {event.thread_id: event for event in reversed(left)}
        now = asyncio.get_running_loop().time()
        for thread_id, suspect in list(self._suspects.items()):
            event = first.get(thread_id)
            if event is None or row_id(event.row) != suspect.event_id:  # it was deleted
                del self._suspects[thread_id]
            elif suspect.retry_at <= now and await self._holds():
                await self._retry(suspect, event)

    async def _retry(self, suspect: _Suspect, event: OutboxEvent) -> None:
        accepted = self._accepted
        error = await self._attempt([event])
        if error is None or self._refused_some(error, [event]):
            del self._suspects[event.thread_id]
            return
        if accepted > suspect.accepted:  # otherwise the sink may be down
            suspect.failures += 1
            suspect.accepted = accepted
        suspect.retry_at = self._retry_at(suspect.failures)
        if suspect.failures >= GIVE_UP_AFTER:
            del self._suspects[event.thread_id]
            self._refuse(event, error)

    def _refused_some(self, error: BaseException, events: Sequence[OutboxEvent]) -> bool:
        """Note which events the sink refused for ever. Returns whether it refused any."""
        found = [event for event in events if isinstance(error, EventRefused) and _id(event) in error.ids]
        for event in found:
            self._refuse(event, error)
        return bool(found)

    def _refuse(self, event: OutboxEvent, error: BaseException) -> None:
        """Give an event up: it becomes a dead letter when the sink passes it."""
        self.outcomes["refused"] += 1
        reason = str(error) if isinstance(error, EventRefused) else f"{type(error).__name__}: {error}"
        text = "event sink %s does not accept event %s of thread %s: %s; `jimsapi sinks dead %s` lists such events"
        logger.error(text, self.name, event.row.event_id, event.thread_id, reason, self.name)
        self._done[_id(event)] = Refused(event, self._redact(reason))

    async def _pass(self, batch: OutboxBatch) -> bool:
        """Move the sink past the events that are done, up to the first that is not.

        Returns False if another process works for the sink.
        """
        count = next((n for n, event in enumerate(batch.events) if _id(event) not in self._done), len(batch.events))
        if batch.events and not count:
            return True
        if count < len(batch.events):
            batch = await self._outbox.read(self.name, count)
        if batch.after is None or any(_id(event) not in self._done for event in batch.events):
            return True  # somebody has rewound the sink, or replays dead letters
        refused = [refusal for event in batch.events if (refusal := self._done[_id(event)]) is not None]
        if not await self._outbox.advance(self.name, self._owner, batch.after, refused):
            self._held_until = 0.0
            return False
        for event in batch.events:
            self._done.pop(_id(event), None)  # a history may have an event twice
        return True

    def _waits_for_suspects(self, batch: OutboxBatch) -> bool:
        """Whether all that is left of a batch waits for suspects, or for room."""
        if len(self._done) >= MOST_AHEAD:
            return True
        return bool(self._suspects) and all(
            _id(event) in self._done or event.thread_id in self._suspects for event in batch.events
        )

    def _until_retry(self) -> float:
        now = asyncio.get_running_loop().time()
        retries = (suspect.retry_at - now for suspect in self._suspects.values())
        return max(0.001, min((POLL_EVERY, *retries)))

    def _retry_at(self, failures: int) -> float:
        return asyncio.get_running_loop().time() + _pause_after(failures)

    def _log(self, error: BaseException) -> None:
        """Log the failures whose number is a power of two, since an outage may take hours."""
        if self._failures & (self._failures - 1) == 0:
            text = "event sink %s failed %d times; its events wait: %s: %s"
            logger.error(text, self.name, self._failures, type(error).__name__, error)

    async def _pause(self, failures: int) -> None:
        """Wait before the next attempt, and hold the sink meanwhile."""
        left = _pause_after(failures)
        while left > 0 and await self._holds():
            await asyncio.sleep(min(left, RENEW_EVERY))
            left -= RENEW_EVERY


class DurableSinks:
    """The durable sinks of a process. `store` has the outbox; `owner` is the process.

    `states` is what the store knew of all registered sinks when it was last asked, and `lags` is for how many seconds
    the oldest event had then waited for each of them, by its name. `redact` removes secrets from the reasons of dead
    letters.
    """

    def __init__(
        self,
        sinks: Iterable[DurableSink],
        store: ThreadStore,
        owner: UUID,
        redact: Callable[[str], str] = lambda text: text,
    ) -> None:
        self.sinks = tuple(sinks)
        self.store = store
        self.states: Sequence[SinkState] = ()
        self.lags: Mapping[str, float] = {}
        self._owner = owner
        self._redact = redact
        self._look = EndlessTask(self._look_again, "states of event sinks")

    async def start(self) -> None:
        """Register the sinks, and work for them. Raises `StoreUnusable` if that is not possible."""
        outbox = self.store.outbox
        names = ", ".join(sink.name for sink in self.sinks)
        if outbox is None and self.sinks:
            raise StoreUnusable(f"{self.store.name} has no outbox, which these sinks need: {names}; use another store")
        if outbox is None:
            return
        self._refuse_names()
        try:
            for sink in self.sinks:
                await outbox.register(sink.name)
            self._show(await outbox.sinks())
        except StoreUnavailable as error:
            raise StoreUnusable(f"{self.store.name}: these sinks cannot be registered: {names}: {error}") from error
        for state in self.states:
            if all(state.name != sink.name for sink in self.sinks):
                text = (
                    "events wait for the sink %s, which is not configured; if nobody uses it: jimsapi sinks remove %s"
                )
                logger.warning(text, state.name, state.name)
        if self.sinks and not outbox.lasting:
            text = "%s ends with the process, and so does what waits for these sinks: %s"
            logger.warning(text, self.store.name, names)
        for sink in self.sinks:
            sink.start(outbox, self._owner, self._redact)
        if self.states:
            self._look.start()

    def _refuse_names(self) -> None:
        for sink in self.sinks:
            if not 0 < len(sink.name) <= MAX_SINK_NAME:
                text = f"the name of the event sink {sink.name!r} must have 1 to {MAX_SINK_NAME} characters"
                raise StoreUnusable(text)
            if sum(sink.name == other.name for other in self.sinks) > 1:
                raise StoreUnusable(
                    f"two durable event sinks are named {sink.name}, and would share what waits for them: leave one "
                    "of their plugins out with --without-plugin, or give it another name"
                )

    def wake(self) -> None:
        """Let the sinks look for events at once, since this process has stored some."""
        for sink in self.sinks:
            sink.wake()

    async def stop(self) -> None:
        """Stop working for the sinks. What waits is kept."""
        await self._look.stop(1.0)
        await asyncio.gather(*(sink.stop() for sink in self.sinks))

    async def _look_again(self) -> None:
        outbox = self.store.outbox
        assert outbox is not None  # `start` checked it
        while True:
            await asyncio.sleep(LOOK_EVERY)
            with suppress(StoreUnavailable):
                states = await outbox.sinks()
                self._show(states)
                for sink in self.sinks:
                    if sink.state is None:
                        text = (
                            "event sink %s is not registered any more; it is registered anew, without what has waited"
                        )
                        logger.error(text, sink.name)
                        await outbox.register(sink.name)

    def _show(self, states: Sequence[SinkState]) -> None:
        self.states = states
        # An event that waited at that moment may be delivered by now, so a lag does not grow until the next look.
        self.lags = {state.name: lag_of(state) for state in states}
        by_name = {state.name: state for state in states}
        for sink in self.sinks:
            sink.state = by_name.get(sink.name)


def lag_of(state: SinkState) -> float:
    """Return for how many seconds the oldest event has waited for a sink; 0 if none waits."""
    return 0.0 if state.oldest is None else max(0.0, (datetime.now(UTC) - state.oldest).total_seconds())


def _pause_after(failures: int) -> float:
    """Return the seconds to wait after so many failures. They differ, so that several sinks do not fail at once."""
    return min(LONGEST_PAUSE, 2.0 ** min(failures - 1, 10)) * random.uniform(0.5, 1.0)


def _id(event: OutboxEvent) -> EventId:
    return event.thread_id, row_id(event.row)


def _decoded(event: OutboxEvent) -> SinkEvent:
    return sink_event(event.thread_id, event.contact_id, event.run_id, event.row)
