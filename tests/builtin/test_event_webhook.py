"""The URL of events: signed calls in the order of each thread, and what becomes of each answer."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import orjson
import pytest
from anyio import to_thread
from anyio.from_thread import start_blocking_portal
from standardwebhooks import Webhook

from jimsapi.builtin.event_sender import EventSender, UnexpectedStatus
from jimsapi.runs import EventRefused
from jimsapi.testing import EventSinkContract
from jimsapi.testing.sink import make_events
from tests.command import refusal, run_command
from tests.runs.receiver import KEY, OK, SECRET, Receiver, answer

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def sending(receiver: Receiver, **options: Any) -> AsyncIterator[EventSender]:
    async with EventSender(receiver.url(), [KEY], **options) as sender:
        yield sender


async def calls(receiver: Receiver, count: int) -> list[Any]:
    return [(await receiver.call()).verified()["data"]["event_id"] for _ in range(count)]


class TestEventWebhook(EventSinkContract):
    distribution = "jimsapi"
    plugin = "event-webhook"
    secrets = (SECRET.removeprefix("whsec_"), SECRET)

    @pytest.fixture(autouse=True)
    def place(self) -> Iterator[None]:
        """The receiver, in a loop of its own: the contract's tests have different ones, or none."""
        self.receiver = Receiver()
        with start_blocking_portal() as portal:
            self.portal = portal
            portal.call(self.receiver.__aenter__)
            yield
            portal.call(self.receiver.__aexit__, None, None, None)

    @property
    def settings(self) -> dict[str, Any]:
        return {"event_webhook_url": self.receiver.url(), "event_webhook_secret": [SECRET]}

    @property
    def outage(self) -> Any:
        @asynccontextmanager
        async def away() -> AsyncIterator[None]:
            await to_thread.run_sync(self.portal.call, self.receiver.__aexit__, None, None, None)
            yield
            await to_thread.run_sync(self.portal.call, self.receiver.__aenter__)

        return away

    async def arrived(self) -> Sequence[str]:
        found = []
        while not self.receiver.calls.empty():
            found.append(self.receiver.calls.get_nowait().verified()["data"]["event_id"])
        return found


async def test_a_call_is_signed_and_has_what_is_known_of_an_event() -> None:
    [event] = make_events(1)
    async with Receiver() as receiver, sending(receiver) as sender:
        await sender.deliver([event])
        call = await receiver.call()
    assert call.verified() == {
        "type": "comm.assistant_message",
        "timestamp": event.created_at.isoformat() + "+00:00",
        "data": {
            "thread_id": str(event.thread_id),
            "event_id": str(event.event_id),
            "contact_id": "ann",
            "run_id": str(event.run_id),
            "event_data": {"role": "assistant", "content": "0"},
        },
    }
    assert event.thread_id is not None
    assert call.headers["webhook-id"] == f"{event.thread_id.hex}_{event.event_id.hex}"
    assert call.headers["content-type"] == "application/json"


async def test_a_call_may_be_a_cloud_event() -> None:
    [event] = make_events(1)
    event.run_id = None
    async with Receiver() as receiver, sending(receiver, as_cloud_events=True) as sender:
        await sender.deliver([event])
        call = await receiver.call()
    Webhook(SECRET).verify(call.body, call.headers)
    assert orjson.loads(call.body) == {
        "specversion": "1.0",
        "id": call.headers["webhook-id"],
        "source": f"/threads/{event.thread_id}",
        "type": "comm.assistant_message",
        "time": event.created_at.isoformat() + "+00:00",
        "contactid": "ann",
        "datacontenttype": "application/json",
        "data": {"role": "assistant", "content": "0"},
    }
    assert call.headers["content-type"] == "application/cloudevents+json"


async def test_events_of_a_thread_are_sent_in_order_and_those_of_others_meanwhile() -> None:
    slow, quick = make_events(3), make_events(3)
    released, order = asyncio.Event(), []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        data = orjson.loads(await reader.readexactly(length))["data"]
        if UUID(data["thread_id"]) == slow[0].thread_id:
            await released.wait()
        order.append(UUID(data["event_id"]))
        if len(order) == 3:
            released.set()
        writer.write(OK.replace(b"200 OK\r\n", b"200 OK\r\nconnection: close\r\n"))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with EventSender(f"http://127.0.0.1:{port}/", [KEY]) as sender, asyncio.timeout(30):
            await sender.deliver([event for pair in zip(slow, quick, strict=True) for event in pair])
    assert order == [event.event_id for event in (*quick, *slow)]


@pytest.mark.parametrize("status", [301, 401, 404, 408, 429, 500, 503])
async def test_after_another_status_the_events_come_again_without_those_that_were_received(status: int) -> None:
    events = make_events(3)
    async with Receiver(OK, answer(status), OK) as receiver, sending(receiver) as sender:
        with pytest.raises(UnexpectedStatus, match=f"the answer was {status}"):
            await sender.deliver(events)
        await sender.deliver(events)
        expected = [events[0], events[1], events[1], events[2]]
        assert await calls(receiver, 4) == [str(event.event_id) for event in expected]


async def test_a_batch_that_was_received_is_sent_again_if_it_comes_again() -> None:
    events = make_events(2)
    async with Receiver() as receiver, sending(receiver) as sender:
        for _ in range(2):
            await sender.deliver(events)
        assert await calls(receiver, 4) == [str(event.event_id) for event in events] * 2


@pytest.mark.parametrize("status", [400, 413, 415, 422])
async def test_a_receiver_may_refuse_an_event_for_ever_and_gets_the_others(status: int) -> None:
    events = make_events(3)
    async with Receiver(OK, answer(status), OK) as receiver, sending(receiver) as sender:
        with pytest.raises(EventRefused, match=f"the receiver answered {status}") as refused:
            await sender.deliver(events)
        assert refused.value.event_ids == {events[1].event_id}
        assert await calls(receiver, 3) == [str(event.event_id) for event in events]


async def test_a_receiver_that_is_not_there_is_an_outage() -> None:
    async with Receiver() as receiver:
        url = receiver.url()
    async with EventSender(url, [KEY]) as sender:
        with pytest.raises(httpx.ConnectError):
            await sender.deliver(make_events(1))


async def test_neither_keys_nor_the_path_of_the_url_are_shown() -> None:
    sender = EventSender("https://example.com/hook?token=sesame", [KEY])
    assert repr(sender) == "EventSender('example.com')"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--event-webhook-url", "https://example.com"), "--event-webhook-url needs --event-webhook-secret"),
        (("--event-webhook-url", "example.com", "--event-webhook-secret", SECRET), "is not a URL"),
        (("--event-webhook-url", "ftp://example.com", "--event-webhook-secret", SECRET), "is not a URL"),
        (("--event-webhook-secret", "whsec_c2hvcnQ="), "--event-webhook-secret: it has 5 bytes"),
    ],
)
def test_faulty_options_stop_the_start(tmp_path: Path, options: tuple[str, ...], reason: str) -> None:
    text = refusal(
        run_command("check", "--app", "tests.apps.steered:app", "--store", "memory:", *options, cwd=tmp_path)
    )
    assert reason in text
    assert SECRET not in text
