"""Durable sinks: they receive every event in order, also after outages and in another process, and delay no answer."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from jimsapi.api.metrics import ServiceCollector
from jimsapi.asgi.open_work import OpenWork
from jimsapi.runs import EventRefused
from jimsapi.runs import durable_sinks as module
from jimsapi.runs.admission import PUBLIC
from jimsapi.runs.disclosure import Disclosure
from jimsapi.runs.durable_sinks import DurableSink
from jimsapi.runs.service import RunService
from jimsapi.stores.memory import MemoryStore
from jimsapi.testing.store.samples import outbox_of
from jimsapi.threads.errors import StoreUnusable
from jimsapi.threads.event import Event, SinkEvent
from jimsapi.threads.outbox import OutboxBatch
from tests.apps.scripted import Scripted
from tests.runs.serving import STORES, inbound, make_store, serving

pytestmark = pytest.mark.anyio

WITHIN = 30.0


@pytest.fixture(autouse=True)
def no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST_PAUSE", 0.002)
    monkeypatch.setattr(module, "POLL_EVERY", 0.01)


class Sink:
    """Keeps what it receives. While `error` returns an exception for a batch, it raises that and keeps nothing."""

    name = "kept"
    durable = True

    def __init__(self) -> None:
        self.received: list[SinkEvent] = []
        self.batches: list[int] = []
        self.error: Callable[[Sequence[SinkEvent]], BaseException | None] = lambda events: None
        self._changed = asyncio.Event()

    async def deliver(self, events: Sequence[SinkEvent]) -> None:
        self._changed.set()
        self.batches.append(len(events))
        if (error := self.error(events)) is not None:
            raise error
        self.received += events

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait until something is true. It is looked at after each delivery."""
        async with asyncio.timeout(WITHIN):
            while not true():
                self._changed.clear()
                await self._changed.wait()
                await asyncio.sleep(0)

    def types(self) -> list[str]:
        return [event.event_type for event in self.received]


async def event_ids(service: RunService, thread_id: UUID) -> list[UUID]:
    return [event.event_id for event in (await service.store.events(thread_id, None, 1000, None)).events]


@pytest.mark.parametrize("kind", STORES)
async def test_a_sink_receives_every_event_with_its_contact_and_its_run(kind: str, tmp_path: Path) -> None:
    sink = Sink()
    async with serving(Scripted(), make_store(kind, tmp_path), durable_sinks=[DurableSink(sink)]) as service:
        run = service.begin(inbound("send done"), PUBLIC)
        result = await run.wait_for_answer()
        await service.append(result.thread_id, [Event(event_type="job.ended")], PUBLIC)
        stored = await event_ids(service, result.thread_id)
        await sink.until(lambda: len(sink.received) == len(stored))
    assert [event.event_id for event in sink.received] == stored
    assert {event.contact_id for event in sink.received} == {"ann"}
    assert [event.run_id for event in sink.received] == [run.run_id] * (len(stored) - 1) + [None]
    assert {event.thread_id for event in sink.received} == {result.thread_id}


@pytest.mark.parametrize("kind", STORES)
async def test_a_sink_that_is_down_delays_no_answer_and_receives_everything_later(kind: str, tmp_path: Path) -> None:
    sink = Sink()
    sink.error = lambda events: ConnectionError("down")
    async with serving(Scripted(), make_store(kind, tmp_path), durable_sinks=[DurableSink(sink)]) as service:
        results = [await service.chat(inbound(contact=contact), PUBLIC) for contact in ("ann", "ben", "ann")]
        await sink.until(lambda: len(sink.batches) >= 12)
        assert sink.received == []
        sink.error = lambda events: None
        threads = {result.thread_id for result in results}
        stored = {thread_id: await event_ids(service, thread_id) for thread_id in threads}
        await sink.until(lambda: len(sink.received) >= sum(map(len, stored.values())))
        for thread_id, expected in stored.items():
            assert [event.event_id for event in sink.received if event.thread_id == thread_id] == expected
        assert (await outbox_of(service.store).dead_letters("kept", 10)) == []


async def test_what_waits_when_a_process_ends_is_delivered_by_the_next_one(tmp_path: Path) -> None:
    first, second = Sink(), Sink()
    first.error = lambda events: ConnectionError("down")
    async with serving(Scripted(), make_store("sqlite", tmp_path), durable_sinks=[DurableSink(first)]) as service:
        thread_id = (await service.chat(inbound(), PUBLIC)).thread_id
        stored = await event_ids(service, thread_id)
        await first.until(lambda: len(first.batches) >= 2)
    async with serving(Scripted(), make_store("sqlite", tmp_path), durable_sinks=[DurableSink(second)]):
        await second.until(lambda: len(second.received) >= len(stored))
    assert first.received == []
    assert [event.event_id for event in second.received] == stored


async def test_one_process_works_for_a_sink_and_another_continues_when_it_ends() -> None:
    store, first, second = MemoryStore(), Sink(), Sink()
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(serving(Scripted(), store, durable_sinks=[DurableSink(first)]))
        await service.chat(inbound(), PUBLIC)
        await first.until(lambda: len(first.received) == 3)
        async with serving(Scripted(), store, durable_sinks=[DurableSink(second)]) as other:
            await other.chat(inbound(), PUBLIC)
            await first.until(lambda: len(first.received) == 5)
            assert second.batches == []
            await stack.aclose()
            await other.chat(inbound(), PUBLIC)
            await second.until(lambda: len(second.received) == 2)
    assert len(first.received) == 5


def fails_with(event_type: str) -> Callable[[Sequence[SinkEvent]], BaseException | None]:
    """What makes a sink fail with each batch that has an event of this type."""

    def error(events: Sequence[SinkEvent]) -> BaseException | None:
        return ValueError("a faulty event") if any(event.event_type == event_type for event in events) else None

    return error


async def poisoned(service: RunService) -> UUID:
    """A thread with a faulty event, and one after it."""
    thread_id = (await service.chat(inbound(contact="ann"), PUBLIC)).thread_id
    await service.append(thread_id, [Event(event_type="poison"), Event(event_type="later")], PUBLIC)
    return thread_id


async def talk_until(service: RunService, true: Callable[[], Awaitable[bool]]) -> None:
    """Let other contacts send messages until something is true."""
    async with asyncio.timeout(WITHIN):
        number = 0
        while not await true():
            number += 1
            await service.chat(inbound(contact=f"other {number}"), PUBLIC)
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("kind", STORES)
async def test_an_event_that_fails_while_others_do_not_becomes_a_dead_letter(kind: str, tmp_path: Path) -> None:
    sink = Sink()
    sink.error = fails_with("poison")
    async with serving(Scripted(), make_store(kind, tmp_path), durable_sinks=[DurableSink(sink)]) as service:
        thread_id = await poisoned(service)

        async def is_dead() -> bool:
            return bool(await outbox_of(service.store).dead_letters("kept", 10))

        await talk_until(service, is_dead)
        [letter] = await outbox_of(service.store).dead_letters("kept", 10)
        assert (letter.thread_id, letter.event_type) == (thread_id, "poison")
        assert letter.reason == "ValueError: a faulty event"
        await sink.until(lambda: "later" in sink.types())
        sink.error = lambda events: None
        await outbox_of(service.store).replay("kept")
        await sink.until(lambda: "poison" in sink.types())


async def test_an_event_that_fails_holds_up_no_other_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GIVE_UP_AFTER", 1_000_000)  # on a slow machine it would be given up meanwhile
    sink = Sink()
    sink.error = fails_with("poison")
    async with serving(Scripted(), make_store("sqlite", tmp_path), durable_sinks=[DurableSink(sink)]) as service:
        await poisoned(service)
        await sink.until(lambda: len(sink.batches) > 4)
        for number in range(3):
            result = await service.chat(inbound(contact=f"other {number}"), PUBLIC)
            wanted = set(await event_ids(service, result.thread_id))
            await sink.until(lambda: wanted <= {event.event_id for event in sink.received})  # noqa: B023
        assert "later" not in sink.types()


async def test_dead_letters_that_fail_again_are_dead_again_and_hold_up_nobody(tmp_path: Path) -> None:
    sink = Sink()
    sink.error = fails_with("poison")
    async with serving(Scripted(), make_store("sqlite", tmp_path), durable_sinks=[DurableSink(sink)]) as service:
        await poisoned(service)

        async def is_dead() -> bool:
            letters = await outbox_of(service.store).dead_letters("kept", 10)
            return [letter.again for letter in letters] == [False]

        await talk_until(service, is_dead)
        first = await outbox_of(service.store).dead_letters("kept", 10)
        assert await outbox_of(service.store).replay("kept") == 1
        await talk_until(service, is_dead)
        assert (await outbox_of(service.store).dead_letters("kept", 10))[0].number > first[0].number
        result = await service.chat(inbound(contact="dora"), PUBLIC)
        wanted = set(await event_ids(service, result.thread_id))
        await sink.until(lambda: wanted <= {event.event_id for event in sink.received})


async def test_what_is_deleted_while_a_sink_is_down_is_not_delivered_later(tmp_path: Path) -> None:
    sink = Sink()
    sink.error = lambda events: ConnectionError("down")
    async with serving(Scripted(), make_store("sqlite", tmp_path), durable_sinks=[DurableSink(sink)]) as service:
        deleted = (await service.chat(inbound(contact="ann"), PUBLIC)).thread_id
        await sink.until(lambda: len(sink.batches) > 5)
        await service.store.delete_thread(deleted, None)
        kept = (await service.chat(inbound(contact="ben"), PUBLIC)).thread_id
        wanted = await event_ids(service, kept)
        sink.error = lambda events: None
        await sink.until(lambda: len(sink.received) >= len(wanted))
    assert [event.event_id for event in sink.received] == wanted


async def test_a_sink_that_accepts_one_event_in_an_outage_loses_no_other(tmp_path: Path) -> None:
    sink = Sink()
    accepted = 0

    def flapping(events: Sequence[SinkEvent]) -> BaseException | None:
        nonlocal accepted
        if len(events) > 1 or accepted:
            return ConnectionError("down")
        accepted += 1
        return None

    sink.error = flapping
    async with serving(Scripted(), make_store("sqlite", tmp_path), durable_sinks=[DurableSink(sink)]) as service:
        results = [await service.chat(inbound(contact=contact), PUBLIC) for contact in ("ann", "ben", "cora")]
        await sink.until(lambda: len(sink.batches) > 60)
        sink.error = lambda events: None
        wanted = {event for result in results for event in await event_ids(service, result.thread_id)}
        await sink.until(lambda: wanted <= {event.event_id for event in sink.received})
        assert await outbox_of(service.store).dead_letters("kept", 10) == []


async def test_secrets_in_the_exception_of_a_sink_are_not_stored() -> None:
    sink = Sink()

    def refusing(events: Sequence[SinkEvent]) -> BaseException | None:
        return EventRefused("no: token=sesame", events)

    sink.error = refusing
    disclosure = Disclosure(redact=lambda text: text.replace("sesame", "***"))
    async with serving(Scripted(), durable_sinks=[DurableSink(sink)], disclosure=disclosure) as service:
        await service.chat(inbound(), PUBLIC)
        async with asyncio.timeout(WITHIN):
            while not (letters := await outbox_of(service.store).dead_letters("kept", 10)):
                await asyncio.sleep(0.001)
    assert letters[0].reason == "no: token=***"


async def test_two_sinks_of_one_name_are_refused() -> None:
    sinks = [DurableSink(Sink()), DurableSink(Sink())]
    with pytest.raises(StoreUnusable, match="two durable event sinks are named kept"):
        async with serving(Scripted(), durable_sinks=sinks):
            pass


async def test_a_sink_that_is_removed_while_its_server_works_is_registered_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY", 0.01)
    monkeypatch.setattr(module, "TRY_EVERY", 0.01)
    sink = Sink()
    async with serving(Scripted(), durable_sinks=[DurableSink(sink)]) as service:
        await outbox_of(service.store).remove("kept")
        async with asyncio.timeout(WITHIN):
            while not await outbox_of(service.store).sinks():
                await asyncio.sleep(0.001)
        result = await service.chat(inbound(), PUBLIC)
        wanted = set(await event_ids(service, result.thread_id))
        await sink.until(lambda: wanted <= {event.event_id for event in sink.received})
    assert "event sink kept is not registered any more" in caplog.text


@pytest.mark.parametrize("kind", STORES)
async def test_events_that_a_sink_refuses_become_dead_letters_at_once(kind: str, tmp_path: Path) -> None:
    sink = Sink()

    def refusing(events: Sequence[SinkEvent]) -> BaseException | None:
        found = [event for event in events if event.event_type == "comm.user_message"]
        return EventRefused("no such field", found) if found else None

    sink.error = refusing
    durable = DurableSink(sink)
    async with serving(Scripted(), make_store(kind, tmp_path), durable_sinks=[durable]) as service:
        await service.chat(inbound(), PUBLIC)
        await sink.until(lambda: "comm.assistant_message" in sink.types())
        assert "comm.user_message" not in sink.types()
        async with asyncio.timeout(WITHIN):
            while not (letters := await outbox_of(service.store).dead_letters("kept", 10)):
                await asyncio.sleep(0.001)
        assert [(letter.event_type, letter.reason) for letter in letters] == [("comm.user_message", "no such field")]
        assert durable.outcomes["refused"] == 1


@pytest.mark.parametrize("kind", STORES)
async def test_an_event_that_is_refused_in_a_fork_is_delivered_in_its_parent(kind: str, tmp_path: Path) -> None:
    sink = Sink()
    async with serving(Scripted(), make_store(kind, tmp_path), durable_sinks=[DurableSink(sink)]) as service:
        parent = (await service.chat(inbound(), PUBLIC)).thread_id
        fork = (await service.fork(parent, None)).thread_id
        wanted = await event_ids(service, parent)
        await sink.until(lambda: len(sink.received) == 2 * len(wanted))
        sink.received.clear()

        def refusing(events: Sequence[SinkEvent]) -> BaseException | None:
            found = [event for event in events if event.thread_id == fork]
            return EventRefused("no forks", found) if found else None

        sink.error = refusing
        assert await outbox_of(service.store).rewind("kept", datetime(2000, 1, 1, tzinfo=UTC))
        async with asyncio.timeout(WITHIN):
            while len(letters := await outbox_of(service.store).dead_letters("kept", 10)) < len(wanted):
                await asyncio.sleep(0.001)
    assert [event.event_id for event in sink.received if event.thread_id == parent] == wanted
    assert {letter.thread_id for letter in letters} == {fork}


async def test_an_event_that_is_refused_among_others_that_fail_is_a_dead_letter_at_once() -> None:
    sink = Sink()
    calls = 0

    def refusing_after_an_outage(events: Sequence[SinkEvent]) -> BaseException | None:
        nonlocal calls
        calls += 1
        if calls <= module.PROBE_AFTER:
            return ConnectionError("down")
        found = [event for event in events if event.event_type == "comm.user_message"]
        return EventRefused("no such field", found) if found else None

    sink.error = refusing_after_an_outage
    async with serving(Scripted(), durable_sinks=[DurableSink(sink)]) as service:
        await service.chat(inbound(), PUBLIC)
        await sink.until(lambda: "comm.assistant_message" in sink.types())
        assert calls <= module.PROBE_AFTER + 4
        assert "comm.user_message" not in sink.types()


async def test_a_sink_that_is_too_slow_for_a_batch_receives_fewer_events_at_a_time() -> None:
    sink = Sink()
    sink.error = lambda events: TimeoutError() if len(events) > 2 else None
    async with serving(Scripted(), durable_sinks=[DurableSink(sink)]) as service:
        result = await service.chat(inbound(), PUBLIC)
        await service.append(result.thread_id, [Event(event_type="job.ended") for _ in range(20)], PUBLIC)
        stored = await event_ids(service, result.thread_id)
        await sink.until(lambda: len(sink.received) >= len(stored))
    assert [event.event_id for event in sink.received] == stored


async def test_a_sink_may_not_take_longer_than_the_time_for_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DELIVERY_TIMEOUT", 0.01)

    class Slow(Sink):
        async def deliver(self, events: Sequence[SinkEvent]) -> None:
            if not self.batches:
                self.batches.append(len(events))
                await asyncio.Event().wait()
            await super().deliver(events)

    sink = Slow()
    async with serving(Scripted(), durable_sinks=[DurableSink(sink)]) as service:
        await service.chat(inbound(), PUBLIC)
        await sink.until(lambda: "comm.assistant_message" in sink.types())


async def test_a_process_that_lost_its_hold_does_not_move_the_sink(monkeypatch: pytest.MonkeyPatch) -> None:
    store, sink = MemoryStore(), Sink()
    taken = asyncio.Event()

    async def read(name: str, limit: int) -> OutboxBatch:
        batch = await read_before(name, limit)
        if batch.after is not None and not taken.is_set():
            [state] = await store.outbox.sinks()
            assert state.owner is not None
            await store.outbox.hold(name, state.owner, 0.0)
            assert await store.outbox.hold(name, UUID(int=1), 60.0)
            taken.set()
        return batch

    read_before = store.outbox.read
    monkeypatch.setattr(store.outbox, "read", read)
    async with serving(Scripted(), store, durable_sinks=[DurableSink(sink)]) as service:
        await service.chat(inbound(), PUBLIC)
        async with asyncio.timeout(WITHIN):
            await taken.wait()
        await sink.until(lambda: bool(sink.received))
        [state] = await store.outbox.sinks()
        assert state.waiting == 3
        assert state.owner == UUID(int=1)


async def test_a_store_without_an_outbox_cannot_have_durable_sinks() -> None:
    store: Any = SimpleNamespace(name="plain:", outbox=None)
    sinks = module.DurableSinks([DurableSink(Sink())], store, UUID(int=1))
    with pytest.raises(StoreUnusable, match="has no outbox, which these sinks need: kept; use another store"):
        await sinks.start()


@pytest.mark.parametrize("sinks", [1, 0])
async def test_a_sink_that_is_not_configured_any_more_is_named_in_the_log(
    caplog: pytest.LogCaptureFixture, sinks: int
) -> None:
    store = MemoryStore()
    await store.outbox.register("former")
    async with serving(Scripted(), store, durable_sinks=[DurableSink(Sink())][:sinks]) as service:
        assert "former" in [state.name for state in service.durable_sinks.states]
    assert "events wait for the sink former, which is not configured" in caplog.text
    assert "jimsapi sinks remove former" in caplog.text


async def test_without_durable_sinks_the_outbox_stays_empty() -> None:
    async with serving(Scripted()) as service:
        await service.chat(inbound(), PUBLIC)
        await outbox_of(service.store).register("later")
        assert (await outbox_of(service.store).sinks())[0].waiting == 0
        assert await outbox_of(service.store).read("later", 10) == OutboxBatch([], None)


async def test_the_lag_in_the_metrics_grows_only_when_the_store_is_asked_again() -> None:
    store = MemoryStore()
    await store.outbox.register("former")
    async with serving(Scripted(), store) as service:
        await service.chat(inbound(), PUBLIC)
    async with serving(Scripted(), store) as service:
        lags = [lag_in_metrics(service, "former") for _ in range(2)]
    assert lags[0] == lags[1] > 0


def lag_in_metrics(service: RunService, sink: str) -> float:
    metrics = ServiceCollector(service, OpenWork(), "").collect()
    found = next(metric for metric in metrics if metric.name == "jims_sink_lag_seconds")
    return next(sample.value for sample in found.samples if sample.labels == {"sink": sink})
