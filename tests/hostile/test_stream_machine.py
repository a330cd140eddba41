"""Random histories of streams beside a model that keeps everything."""

import asyncio
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from jimsapi.runs import stream as module
from jimsapi.runs.errors import RunCancelled
from jimsapi.runs.result import RunResult
from jimsapi.runs.stream import (
    THE_END,
    Delta,
    Ended,
    Gap,
    Item,
    Live,
    Read,
    RunStream,
    Status,
    StreamReleased,
    Streams,
)
from jimsapi.threads.event import NewEvent
from tests.hostile.machines import run_machine

MAX_ITEMS, MAX_BYTES, ALL_BYTES = 6, 4_000, 12_000
SOON = 30.0
"""Seconds after which a reader that waits counts as never woken; deltas may take a hundredth."""

_picks = st.integers(0, 11)


@dataclass(eq=False)
class _Model:
    """All that was ever put into a stream, and how it ended."""

    run_id: UUID
    stream: RunStream
    put: list[Live] = field(default_factory=list)
    ended: RunResult | BaseException | None = None
    closed: bool = False

    def all(self) -> dict[int, Item]:
        """Every item by its position."""
        items: dict[int, Item] = dict(enumerate(self.put, 1))
        if isinstance(self.ended, RunResult):
            items |= enumerate(self.ended.events, len(items) + 1)
        return items


@dataclass(eq=False)
class _Reader:
    of: _Model
    after: int
    waiting: asyncio.Task[Read | None] | None = None


class StreamMachine(RuleBasedStateMachine):
    """Readers get every item in order, or a gap that says exactly how many they missed."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.Runner()
        self.streams = Streams()
        self.models: list[_Model] = []
        self.readers: list[_Reader] = []
        self.now = 0.0

    def teardown(self) -> None:
        for model in self.models:
            self.end_with(model, RunCancelled())
            self.readers += [_Reader(model, after) for after in range(len(model.put) + 1)]
        for reader in self.readers:
            for _ in range(100):
                self.step(reader)
                if reader.after == THE_END:
                    break
            assert reader.after == THE_END, "a reader does not come to the end"
            if not self.is_released(reader.of):
                self.step(reader)
        self.loop.close()

    def pick(self, pick: int) -> _Model:
        return self.models[pick % len(self.models)]

    @rule()
    def open(self) -> None:
        if len(self.models) < 4:
            run_id = uuid4()
            self.models.append(_Model(run_id, self.loop.run(self.in_loop(self.streams.open, run_id))))

    @precondition(lambda self: self.models)
    @rule(pick=_picks, count=st.integers(1, 8), size=st.sampled_from([0, 10, 1500, 5000]), delta=st.booleans())
    def put(self, pick: int, count: int, size: int, delta: bool) -> None:
        model = self.pick(pick)
        for _ in range(count):
            item = Delta(uuid4(), f"{len(model.put)}") if delta else Status(f"{len(model.put)}", "test")
            self.loop.run(self.in_loop(model.stream.put, item, size))
            if model.ended is None:
                model.put.append(item)

    @precondition(lambda self: self.models)
    @rule(pick=_picks, events=st.integers(0, 3), fails=st.booleans())
    def end(self, pick: int, events: int, fails: bool) -> None:
        stored = tuple(NewEvent(uuid4(), "rag.step", b"{}") for _ in range(events))
        result = RunResult(uuid4(), uuid4(), True, [], stored)
        self.end_with(self.pick(pick), RunCancelled() if fails else result)

    def end_with(self, model: _Model, answer: RunResult | BaseException) -> None:
        self.loop.run(self.in_loop(model.stream.end, answer))
        model.ended = model.ended or answer

    @precondition(lambda self: self.models)
    @rule(pick=_picks)
    def close(self, pick: int) -> None:
        model = self.pick(pick)
        if model.ended is not None and not model.closed:  # a run ends once
            model.closed = True
            self.streams.close(model.run_id, self.now)
            assert model.put or self.streams.get(model.run_id) is None

    @rule(seconds=st.sampled_from([1.0, 30.0, 61.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.streams.tidy(self.now)

    @precondition(lambda self: self.models)
    @rule(pick=_picks, after=st.integers(0, 12))
    def come(self, pick: int, after: int) -> None:
        if len(self.readers) < 6:
            model = self.pick(pick)
            self.readers.append(_Reader(model, min(after, len(model.put))))

    @precondition(lambda self: self.readers)
    @rule(pick=_picks)
    def read(self, pick: int) -> None:
        self.step(self.readers[pick % len(self.readers)])

    @precondition(lambda self: self.readers)
    @rule(pick=_picks)
    def leave(self, pick: int) -> None:
        reader = self.readers.pop(pick % len(self.readers))
        if reader.waiting is not None:
            self.loop.run(self.cancel(reader.waiting))

    @invariant()
    def what_is_kept_is_bounded_and_the_newest(self) -> None:
        for model in self.models:
            assert model.stream.item_count == len(model.put)
            if self.is_released(model):
                assert all(model.stream.ready(after) == [] for after in range(len(model.put) + 1))
                continue
            kept = model.stream.ready(len(model.put) - 1) if model.put else []
            assert kept == ([(len(model.put), model.put[-1])] if model.put else [])
            first = next(
                after for after in range(len(model.put) + 1) if after == len(model.put) or model.stream.ready(after)
            )
            assert len(model.put) - first <= MAX_ITEMS
            assert [item for _, item in model.stream.ready(first)] == model.put[first:]
        alive = [model.stream for model in self.models if self.streams.get(model.run_id) is model.stream]
        assert self.streams.size == sum(stream.size for stream in alive)

    def is_released(self, model: _Model) -> bool:
        """Whether the process has given back what the stream held, some time after its end."""
        return model.closed and self.streams.get(model.run_id) is not model.stream

    def step(self, reader: _Reader) -> None:
        """Read once, and compare with what the model has behind the reader's position."""
        model = reader.of
        there = model.ended is not None or len(model.put) > reader.after
        if not there:
            if reader.waiting is None:
                reader.waiting = self.loop.run(self.begin(model.stream, reader.after))
            assert not reader.waiting.done()
            return
        try:
            found = self.loop.run(self.next(reader))
        except StreamReleased:  # the store has it
            assert self.is_released(model)
            assert isinstance(model.ended, RunResult)
            reader.after = THE_END
            return
        items = model.all()
        if found is None:
            assert reader.after == THE_END
            return
        position, item = found
        assert position > reader.after
        if position == THE_END:
            assert isinstance(item, Ended)
            assert item.answer is model.ended
            assert reader.after >= len(items)
        elif isinstance(item, Gap):
            assert item.missed == position - reader.after
            newest = len(model.put) - (not self.is_released(model))
            assert position <= newest, "the newest item is kept until the stream is released"
        else:
            assert item is items[position]
            assert position == reader.after + 1
        reader.after = position

    async def next(self, reader: _Reader) -> Read | None:
        waiting, reader.waiting = reader.waiting, None
        async with asyncio.timeout(SOON):
            return await (waiting or reader.of.stream.next(reader.after))

    async def begin(self, stream: RunStream, after: int) -> asyncio.Task[Read | None]:
        task = asyncio.create_task(stream.next(after))
        await asyncio.sleep(0)
        return task

    async def cancel(self, task: asyncio.Task[Read | None]) -> None:
        task.cancel()
        await asyncio.wait({task})

    async def in_loop(self, call: Any, *arguments: Any) -> Any:
        return call(*arguments)


def test_readers_get_everything_in_order_or_know_what_they_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ITEMS", MAX_ITEMS)
    monkeypatch.setattr(module, "MAX_BYTES", MAX_BYTES)
    monkeypatch.setattr(module, "ALL_BYTES", ALL_BYTES)
    run_machine(StreamMachine)
