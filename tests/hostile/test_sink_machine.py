"""Random histories of a sink's queue beside a model: in order, at most once, and all the rest is counted."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from jimsapi.runs import sinks as module
from jimsapi.runs.sinks import SinkQueue
from jimsapi.threads.event import Event
from tests.hostile.machines import run_machine

QUEUE_LIMIT, BATCH_LIMIT, QUEUE_BYTES = 6, 3, 200


def size_of(event: int) -> int:
    """The bytes of an event's data."""
    return event % 4 * 40


class _Sink:
    """A sink that holds each batch until it is told what becomes of it."""

    name = "held"

    def __init__(self) -> None:
        self.batches: list[Sequence[Event]] = []
        self.outcome: asyncio.Future[BaseException | None] | None = None

    async def deliver(self, events: Sequence[Event]) -> None:
        self.batches.append(list(events))
        self.outcome = asyncio.get_running_loop().create_future()
        error = await self.outcome
        if error is not None:
            raise error


class SinkMachine(RuleBasedStateMachine):
    """Events are numbers here: a queue does not look at them."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.Runner()
        self.sink = _Sink()
        self.queue = self.loop.run(self.made())
        self.count = 0
        self.waiting: list[int] = []
        self.held: list[int] = []
        self.batches: list[list[int]] = []
        self.outcomes = {"delivered": 0, "failed": 0, "dropped": 0}

    async def made(self) -> SinkQueue:
        return SinkQueue(self.sink)

    def teardown(self) -> None:
        if not self.started:
            self.start()
        while self.held:
            self.settle_batch(None)
        self.loop.run(self.queue.flush(1.0))
        assert self.queue.outcomes["delivered"] == self.outcomes["delivered"]
        assert sum(self.queue.outcomes.values()) == self.count
        self.loop.run(self.queue.stop())
        self.loop.close()

    started = False

    @precondition(lambda self: not self.started)
    @rule()
    def start(self) -> None:
        self.started = True
        self.loop.run(self.in_loop(self.queue.start))
        self.pass_on()

    @rule(number=st.integers(0, 9))
    def put(self, number: int) -> None:
        events = list(range(self.count, self.count + number))
        self.count += number
        sized = [(event, size_of(event)) for event in events]
        self.loop.run(self.in_loop(self.queue.put, cast("Sequence[tuple[Event, int]]", sized)))
        for event, size in sized:
            kept = sum(map(size_of, self.waiting + self.held))
            if len(self.waiting) < QUEUE_LIMIT and (not kept or kept + size <= QUEUE_BYTES):
                self.waiting.append(event)
            else:
                self.outcomes["dropped"] += 1
        self.pass_on()

    @precondition(lambda self: self.held)
    @rule(error=st.sampled_from([None, None, RuntimeError("no"), SystemExit(1), asyncio.CancelledError()]))
    def settle_batch(self, error: BaseException | None) -> None:
        assert self.sink.outcome is not None
        self.loop.run(self.in_loop(self.sink.outcome.set_result, error))
        self.outcomes["delivered" if error is None else "failed"] += len(self.held)
        self.held = []
        self.pass_on()

    @precondition(lambda self: self.started and not self.held)
    @rule()
    def flush(self) -> None:
        self.loop.run(self.queue.flush(1.0))

    @invariant()
    def the_sink_got_what_the_model_did(self) -> None:
        assert cast(Any, self.sink.batches) == self.batches
        seen = [event for batch in self.batches for event in batch]
        assert seen == sorted(set(seen))
        assert {name: self.queue.outcomes[name] for name in self.outcomes} == self.outcomes

    def pass_on(self) -> None:
        """The next batch goes to the sink if it has none."""
        if self.started and not self.held and self.waiting:
            self.held, self.waiting = self.waiting[:BATCH_LIMIT], self.waiting[BATCH_LIMIT:]
            self.batches.append(self.held)

    async def in_loop(self, call: Any, *arguments: Any) -> Any:
        result = call(*arguments)
        for _ in range(5):
            await asyncio.sleep(0)
        return result


def test_a_sink_gets_events_in_order_and_at_most_once_and_what_it_does_not_get_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "QUEUE_LIMIT", QUEUE_LIMIT)
    monkeypatch.setattr(module, "BATCH_LIMIT", BATCH_LIMIT)
    monkeypatch.setattr(module, "QUEUE_BYTES", QUEUE_BYTES)
    run_machine(SinkMachine)
