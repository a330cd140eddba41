"""The contract of an `EventSink`, as tests. A sink that passes them loses no events and keeps their order."""

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import msgspec

from jimsapi.asgi.testing import TestClient
from jimsapi.runs.sinks import BATCH_LIMIT, EventRefused, is_durable
from jimsapi.testing.contract import (
    CapturedOutput,
    DoesNotApply,
    NamedContract,
    cancel_in_mid_call,
    needs,
    nothing_left,
    within,
)
from jimsapi.threads.event import ASSISTANT_MESSAGE, THREAD_CREATED, USER_MESSAGE, Event, SinkEvent
from jimsapi.threads.ids import uuid7

MESSAGE = "Ann's cat is called Mephistopheles"
"""Text that must not appear in a log."""


class EventSinkContract(NamedContract):
    """Derive a class from this one in a test module, and declare how to read the events that have arrived:

        class TestAudit(EventSinkContract):
            distribution = "jimsapi-audit"
            outage = DoesNotApply("it writes to a file that is open")

            @pytest.fixture(autouse=True)
            def place(self, tmp_path):
                self.path = tmp_path / "audit.jsonl"

            @property
            def settings(self):
                return {"audit_file": self.path}

            async def arrived(self):
                return [json.loads(line)["id"] for line in self.path.read_text().splitlines()]

    pytest then runs every case against the installed plugin. `arrived` is called after the sink was closed. A
    best-effort sink may write late, for example from a task of its own, or keep what it cannot send in an outage and
    send it after that. A durable sink, which has `durable = True`, must not: when `deliver` returns, the events are at
    the destination, and if they are not, it raises. The destination must be empty at the start of each case.
    """

    hook = "jimsapi_event_sink"

    @cached_property
    def outage(self) -> Callable[[], AbstractAsyncContextManager[Any]] | DoesNotApply:
        """Return an async context manager in which the destination of the events is unavailable."""
        raise self.undeclared("outage", "an async context manager that stops its destination, or DoesNotApply(why)")

    async def arrived(self) -> Sequence[str]:
        """Return the events that have arrived, in order: for each the text that `mark_of` returns for it."""
        raise self.undeclared("arrived", "an async method that returns the ids of the events that arrived, in order")

    def mark_of(self, event: Event) -> str:
        """Return the text that identifies an event at the destination. The default is its `event_id`."""
        return str(event.event_id)

    async def test_a_batch_arrives_whole_and_in_order(self) -> None:
        await self.expect_arrival([make_events(20)])

    async def test_batches_arrive_in_the_order_of_their_delivery(self) -> None:
        await self.expect_arrival([make_events(3) for _ in range(10)])

    async def test_the_largest_batch_arrives(self) -> None:
        await self.expect_arrival([make_events(BATCH_LIMIT)])

    async def test_events_of_any_content_arrive(self) -> None:
        contents: list[Any] = [
            None, {}, [], "text", 5, 0.5, True, {"content": "🦊 Ümläut \u2028\n\r\x7f"}, {"a": {"b": [1, {"c": None}]}},
            18446744073709551615, -9007199254740993, {"": ""}, "x" * 100_000,
        ]  # fmt: skip
        events = [make_event("rag.step", content) for content in contents]
        events += [make_event("ü" * 255, {}), make_event("state.set.mood", "gay"), make_event("a\tb", {})]
        await self.expect_arrival([events])

    async def test_events_are_not_changed_for_the_other_sinks(self) -> None:
        events = make_events(3)
        before = copy.deepcopy(events)
        async with self.opened() as sink:
            await within(sink.deliver(events))
        assert events == before

    async def test_a_cancelled_delivery_does_not_stop_the_next_batch(self) -> None:
        later = make_events(5)
        async with nothing_left(), self.opened() as sink:
            # A sink may send from a task of its own, which ends when the sink is closed.
            await cancel_in_mid_call(lambda: sink.deliver(make_events(1)), may_leave_tasks=True)
            await within(sink.deliver(later))
        arrived = list(await self.arrived())
        assert arrived[-5:] == [self.mark_of(event) for event in later]

    @needs("outage")
    async def test_in_an_outage_delivering_fails_or_the_batch_arrives_later(self) -> None:
        batch, later = make_events(5), make_events(5)
        async with self.opened() as sink:
            async with self._outage():
                try:
                    await within(sink.deliver(batch))
                except Exception:
                    failed = True
                else:
                    failed = False
            await within(sink.deliver(later))
        arrived = list(await self.arrived())
        assert arrived[-5:] == [self.mark_of(event) for event in later], "after an outage, the next batch is lost"
        if not failed:
            assert arrived[-10:-5] == [self.mark_of(event) for event in batch], (
                "a batch counts as delivered in an outage, and never arrives: raise, so that it counts as failed, or "
                "keep it and send it before the next batch"
            )

    async def test_what_a_durable_sink_has_delivered_is_at_its_destination_at_once(self) -> None:
        async with self.opened() as sink:
            if not is_durable(sink):
                return
            events = make_events(20)
            await within(sink.deliver(events))
            assert list(await self.arrived()) == [self.mark_of(event) for event in events], (
                "`deliver` returned before the events were at the destination: a process that ends then loses them"
            )

    @needs("outage")
    async def test_a_durable_sink_raises_in_an_outage_and_receives_the_batch_again_after_it(self) -> None:
        events = make_events(5)
        async with self.opened() as sink:
            if not is_durable(sink):
                return
            async with self._outage():
                error: Exception | None = None
                try:
                    await within(sink.deliver(events))
                except Exception as raised:
                    error = raised
            assert error is not None, "`deliver` returned in an outage: these events do not come again"
            assert not isinstance(error, EventRefused), "an outage is no reason to refuse events for ever"
            await within(sink.deliver(events))
        arrived = list(await self.arrived())
        assert list(dict.fromkeys(arrived)) == [self.mark_of(event) for event in events]

    def _outage(self) -> AbstractAsyncContextManager[Any]:
        outage = self.outage
        assert not isinstance(outage, DoesNotApply)
        return outage()

    async def test_neither_messages_nor_secrets_are_logged(self, shown: CapturedOutput) -> None:
        async with self.opened() as sink:
            await within(sink.deliver([make_event(USER_MESSAGE, {"role": "user", "content": MESSAGE})]))
            shown.add(sink)
        shown.assert_contains_none_of([MESSAGE, *self.secrets])

    async def test_a_server_delivers_every_stored_event(self) -> None:
        api = self.api()
        async with TestClient(api) as client:
            assert await chat(client, "hi") == 200
            threads = (await client.get("/api/v1/threads", params={"contact_id": "ann"})).json()["threads"]
            page = await client.get(f"/api/v1/threads/{threads[0]['thread_id']}/events")
            stored = [msgspec.convert(one, Event) for one in page.json()["events"]]
        assert [event.event_type for event in stored] == [THREAD_CREATED, USER_MESSAGE, ASSISTANT_MESSAGE]
        assert list(await self.arrived()) == [self.mark_of(event) for event in stored]

    async def use(self, sink: Any) -> None:
        await within(sink.deliver(make_events(1)))

    async def expect_arrival(self, batches: Sequence[Sequence[Event]]) -> None:
        """Deliver the batches one after another, close the sink, and fail unless all events have arrived in order.

        Events of different threads may arrive at a durable sink in any order.
        """
        async with self.opened() as sink:
            for batch in batches:
                await within(sink.deliver(batch))
        events = [event for batch in batches for event in batch]
        arrived = list(await self.arrived())
        if not is_durable(sink):
            assert arrived == [self.mark_of(event) for event in events]
            return
        assert sorted(arrived) == sorted(self.mark_of(event) for event in events)
        for thread_id in {event.thread_id for event in events}:
            expected = [self.mark_of(event) for event in events if event.thread_id == thread_id]
            marks = set(expected)
            assert [mark for mark in arrived if mark in marks] == expected, "the events of a thread are out of order"


def make_event(event_type: str, data: Any) -> SinkEvent:
    """Return an event as a sink receives it."""
    return SinkEvent(
        event_type=event_type,
        event_data=data,
        thread_id=uuid7(),
        event_id=uuid7(),
        created_at=datetime.now(UTC).replace(tzinfo=None),
        contact_id="ann",
        run_id=uuid7(),
    )


def make_events(count: int) -> list[SinkEvent]:
    """Return `count` messages of one thread."""
    thread_id = uuid7()
    events = [make_event(ASSISTANT_MESSAGE, {"role": "assistant", "content": f"{number}"}) for number in range(count)]
    for event in events:
        event.thread_id = thread_id
    return events


async def chat(client: TestClient, message: str) -> int:
    """Send a message to the API. Returns the status."""
    return (await client.post("/api/v1/chat", json={"contact_id": "ann", "message": message})).status_code
