"""The URL of events: signed calls in the order of each thread, and what becomes of each answer."""

import asyncio
import base64
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from uuid import UUID

import httpx
import orjson
import pytest
from anyio import to_thread
from anyio.from_thread import start_blocking_portal
from standardwebhooks import Webhook

from jimsapi.builtin import event_sender
from jimsapi.builtin.event_sender import DeliveryUnfinished, EventSender, UnexpectedStatus
from jimsapi.runs import EventRefused
from jimsapi.testing import EventSinkContract
from jimsapi.testing.sink import make_events
from jimsapi.threads import SinkEvent
from tests.cloud_events import read_cloud_event
from tests.command import refusal, run_command
from tests.runs.receiver import KEY, OK, SECRET, Receiver, answer

pytestmark = pytest.mark.anyio

PASSWORD = "ten green bottles"
BASIC = base64.b64encode(f"ann:{PASSWORD}".encode()).decode()


def with_login(url: str) -> str:
    return url.replace("://", f"://ann:{PASSWORD.replace(' ', '%20')}@")


@asynccontextmanager
async def sending(receiver: Receiver, **options: Any) -> AsyncIterator[EventSender]:
    async with EventSender(receiver.url(), [KEY], **options) as sender:
        yield sender


async def calls(receiver: Receiver, count: int) -> list[Any]:
    return [(await receiver.call()).verified()["data"]["event_id"] for _ in range(count)]


class TestEventWebhook(EventSinkContract):
    distribution = "jimsapi"
    plugin = "event-webhook"
    secrets = (SECRET.removeprefix("whsec_"), SECRET, PASSWORD, PASSWORD.replace(" ", "%20"), BASIC)

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
        return {"event_webhook_url": with_login(self.receiver.url()), "event_webhook_secret": [SECRET]}

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
    assert "authorization" not in call.headers


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
        "timestamp": event.created_at.isoformat() + "+00:00",
        "contactid": "ann",
        "datacontenttype": "application/json",
        "data": {"role": "assistant", "content": "0"},
    }
    assert read_cloud_event(call.body, call.headers["content-type"]).get_type() == "comm.assistant_message"


async def test_a_cloud_event_may_have_any_contact_and_type() -> None:
    [event] = make_events(1)
    event.contact_id, event.event_type = "100 %\x01\ufffe\U0010ffff", "a\x7fb"
    async with Receiver() as receiver, sending(receiver, as_cloud_events=True) as sender:
        await sender.deliver([event])
        call = await receiver.call()
    read = read_cloud_event(call.body)
    assert unquote(read.get_extension("contactid")) == event.contact_id
    assert unquote(read.get_type()) == event.event_type


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


@pytest.mark.parametrize("status", [400, 413, 415, 422])
async def test_a_receiver_may_refuse_an_event_for_ever_and_gets_the_others(status: int) -> None:
    events = make_events(3)
    async with Receiver(OK, answer(status), OK) as receiver, sending(receiver) as sender:
        with pytest.raises(EventRefused, match=f"the receiver answered {status}") as refused:
            await sender.deliver(events)
        assert refused.value.ids == {(events[1].thread_id, events[1].event_id)}
        assert await calls(receiver, 3) == [str(event.event_id) for event in events]


class Statuses:
    """A receiver that answers each event with a status of its own, after `pause` seconds, and keeps its connections.

    `received` counts the calls for each event, also those whose answer never came.
    """

    def __init__(self, pause: float = 0.0) -> None:
        self.received: Counter[UUID] = Counter()
        self.statuses: dict[UUID, int] = {}
        self.pause = pause

    @asynccontextmanager
    async def sender(self) -> AsyncIterator[EventSender]:
        async with await asyncio.start_server(self._serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with EventSender(f"http://127.0.0.1:{port}/", [KEY]) as sender, asyncio.timeout(60):
                yield sender

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                event_id = UUID(orjson.loads(await reader.readexactly(length))["data"]["event_id"])
                self.received[event_id] += 1
                await asyncio.sleep(self.pause)
                writer.write(answer(self.statuses.get(event_id, 200)))
                await writer.drain()
        writer.close()


def events_of_threads(count: int) -> list[SinkEvent]:
    return [event for _ in range(count) for event in make_events(1)]


async def test_the_events_that_were_accepted_beside_a_refused_one_are_not_sent_again() -> None:
    events, receiver = events_of_threads(100), Statuses()
    receiver.statuses[events[50].event_id] = 400
    async with receiver.sender() as sender:
        with pytest.raises(EventRefused) as refused:
            await sender.deliver(events)
        await sender.deliver([event for event in events if (event.thread_id, event.event_id) not in refused.value.ids])
    assert receiver.received == dict.fromkeys((event.event_id for event in events), 1)


async def test_an_event_is_refused_at_once_also_if_another_one_fails() -> None:
    events, receiver = events_of_threads(3), Statuses()
    receiver.statuses = {events[0].event_id: 500, events[1].event_id: 400}
    async with receiver.sender() as sender:
        with pytest.raises(EventRefused) as refused:
            await sender.deliver(events)
        assert refused.value.ids == {(events[1].thread_id, events[1].event_id)}
        with pytest.raises(UnexpectedStatus):
            await sender.deliver([events[0], events[2]])
    assert receiver.received == {events[0].event_id: 2, events[1].event_id: 1, events[2].event_id: 1}


async def test_while_one_event_fails_no_other_one_is_sent_twice() -> None:
    # Like a durable sink: the batch three times, then each event by itself, and then what is left.
    events, receiver = events_of_threads(100), Statuses()
    receiver.statuses[events[50].event_id] = 500
    async with receiver.sender() as sender:
        for batch in (*itertools.repeat(events, 3), *([event] for event in events), [events[50]]):
            with suppress(UnexpectedStatus):
                await sender.deliver(batch)
    assert receiver.received.pop(events[50].event_id) == 5
    assert set(receiver.received.values()) == {1}
    assert len(receiver.received) == 99


async def test_what_an_operator_wants_again_after_a_minute_is_sent_although_its_batch_had_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert event_sender.REMEMBERED_FOR == 60
    monkeypatch.setattr(event_sender, "REMEMBERED_FOR", 0.1)
    events, receiver = events_of_threads(6), Statuses()
    receiver.statuses[events[5].event_id] = 500
    async with receiver.sender() as sender:
        with pytest.raises(UnexpectedStatus):
            await sender.deliver(events)
        receiver.statuses.clear()
        receiver.received.clear()
        await asyncio.sleep(0.2)
        await sender.deliver(events)
    assert receiver.received == dict.fromkeys((event.event_id for event in events), 1)


async def test_an_event_of_the_history_is_sent_also_if_its_batch_failed_a_moment_ago() -> None:
    events, receiver = events_of_threads(2), Statuses()
    receiver.statuses[events[1].event_id] = 500
    async with receiver.sender() as sender:
        with pytest.raises(UnexpectedStatus):
            await sender.deliver(events)
        events[0].run_id = None
        await sender.deliver(events[:1])
    assert receiver.received[events[0].event_id] == 2


async def test_accepted_events_are_remembered_while_their_batch_comes_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(event_sender, "REMEMBERED_FOR", 1.0)
    events, receiver = events_of_threads(2), Statuses()
    receiver.statuses[events[1].event_id] = 500
    async with receiver.sender() as sender:
        for _ in range(4):
            with pytest.raises(UnexpectedStatus):
                await sender.deliver(events)
            await asyncio.sleep(0.4)
    assert receiver.received == {events[0].event_id: 1, events[1].event_id: 4}


async def test_a_limited_number_of_accepted_events_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_sender, "REMEMBERED_AT_MOST", 3)
    events, receiver = make_events(6), Statuses()
    receiver.statuses[events[5].event_id] = 500
    async with receiver.sender() as sender:
        with pytest.raises(UnexpectedStatus):
            await sender.deliver(events)
        await sender.deliver([events[0], events[4]])
    assert [receiver.received[event.event_id] for event in events] == [2, 1, 1, 1, 1, 1]


async def test_a_slow_receiver_gets_each_event_once_and_no_call_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    # Like a durable sink, but for 3 seconds instead of 10: the batch is cancelled then, and comes again.
    monkeypatch.setattr(event_sender, "DELIVER_WITHIN", 2.5)
    monkeypatch.setattr(event_sender, "CALL_EXPECTED", 0.3)
    events, receiver = make_events(14), Statuses(pause=0.25)
    failures: list[BaseException | None] = []
    async with receiver.sender() as sender:
        while not failures or failures[-1]:
            try:
                async with asyncio.timeout(3):
                    await sender.deliver(events)
            except TimeoutError as error:
                failures.append(error)
            else:
                failures.append(None)
    *unfinished, _ = failures
    assert unfinished
    assert all(isinstance(error, DeliveryUnfinished) for error in unfinished)
    assert "of 14 events come later" in str(unfinished[0])
    assert receiver.received == dict.fromkeys((event.event_id for event in events), 1)


async def test_no_call_begins_that_would_be_cut_if_it_took_as_long_as_the_longest_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(event_sender, "DELIVER_WITHIN", 3.5)
    monkeypatch.setattr(event_sender, "CALL_EXPECTED", 0.1)
    events, receiver = make_events(3), Statuses(pause=1.2)
    async with receiver.sender() as sender:
        with pytest.raises(DeliveryUnfinished, match="1 of 3 events come later"):
            await sender.deliver(events)
    assert len(receiver.received) == 2


async def test_an_accepted_event_whose_response_is_cut_is_not_sent_again() -> None:
    cut = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nok"
    async with Receiver(cut, OK) as receiver, sending(receiver) as sender:
        await sender.deliver(make_events(1))
        assert receiver.calls.qsize() == 1


@asynccontextmanager
async def trickling(head: bytes, more: bytes) -> AsyncIterator[tuple[EventSender, asyncio.Event]]:
    """A sender, and an event that is set once it has hung up on a call.

    The receiver answers each call with `head`, and then with `more` again and again.
    """
    cut = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        with suppress(ConnectionError):
            while not reader.at_eof():
                writer.write(more)
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.02):
                        await reader.read(65_536)
        writer.close()
        cut.set()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with EventSender(f"http://127.0.0.1:{port}/", [KEY]) as sender:
            yield sender, cut


@pytest.mark.parametrize(
    ("head", "more"),
    [(b"", b"HTTP/1.1 102 Processing\r\n\r\n"), (b"HTTP/1.1 200 OK\r\nx: ", b"x")],
    ids=["informational responses", "a header"],
)
async def test_a_call_whose_response_never_begins_ends_with_its_delivery(
    head: bytes, more: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_sender, "DELIVER_WITHIN", 0.5)
    monkeypatch.setattr(event_sender, "CALL_EXPECTED", 0.1)
    async with trickling(head, more) as (sender, cut):
        async with asyncio.timeout(30):
            with pytest.raises(TimeoutError, match="the response had not begun"):
                await sender.deliver(make_events(1))
            await cut.wait()


async def test_an_accepted_event_whose_response_does_not_end_is_not_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_sender, "DELIVER_WITHIN", 0.5)
    monkeypatch.setattr(event_sender, "CALL_EXPECTED", 0.1)
    async with trickling(b"HTTP/1.1 200 OK\r\ncontent-length: 60000\r\n\r\n", b"x") as (sender, cut):
        async with asyncio.timeout(30):
            await sender.deliver(make_events(1))
            await cut.wait()


async def test_events_whose_responses_do_not_end_are_sent_while_there_is_time_for_the_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(event_sender, "READ_WITHIN", 0.1)
    async with trickling(b"HTTP/1.1 200 OK\r\ncontent-length: 60000\r\n\r\n", b"x") as (sender, _):
        async with asyncio.timeout(event_sender.DELIVER_WITHIN):
            await sender.deliver(make_events(5))


async def test_an_error_of_a_call_says_what_the_receiver_did(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with EventSender(f"http://127.0.0.1:{port}/", [KEY]) as sender:
            with pytest.raises(httpx.TransportError, match=r"closed the connection|disconnected"):
                await sender.deliver(make_events(1))
        async with EventSender(f"https://127.0.0.1:{port}/", [KEY]) as sender:
            with pytest.raises(httpx.ConnectError, match="closed the connection during the TLS handshake"):
                await sender.deliver(make_events(1))
    monkeypatch.setattr(event_sender, "CALL_TIMEOUT", 0.2)
    async with Receiver(None) as receiver, sending(receiver) as sender:
        with pytest.raises(httpx.ReadTimeout, match="no response within 5 s"):
            await sender.deliver(make_events(1))


@pytest.mark.parametrize("steps", range(1, 40))
async def test_a_delivery_that_is_cancelled_at_any_step_keeps_no_later_one_from_its_connections(
    steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_sender, "CALLS_AT_ONCE", 1)
    async with Receiver() as receiver, sending(receiver) as sender:
        cancelled = asyncio.ensure_future(sender.deliver(make_events(1)))
        for _ in range(steps):
            await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.wait({cancelled})
        await sender.deliver(make_events(1))


async def test_a_login_in_the_url_is_sent_as_basic_authentication() -> None:
    async with Receiver() as receiver, EventSender(with_login(receiver.url()), [KEY]) as sender:
        await sender.deliver(make_events(1))
        call = await receiver.call()
    assert call.headers["authorization"] == f"Basic {BASIC}"
    assert call.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert call.target == "/hook"


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
        (("--event-webhook-url", "http://example.com:99999/", "--event-webhook-secret", SECRET), "a port is from 1 to"),
        (
            ("--event-webhook-url", "https://example.com", "--event-webhook-secret", "foo"),
            "create one with: echo whsec",
        ),
        (("--event-webhook-url", "http://exa mple/", "--event-webhook-secret", SECRET), "valid host"),
        (("--event-webhook-url", "http://xn--a.example/", "--event-webhook-secret", SECRET), "valid host"),
        (("--event-webhook-url", "http://a..example/", "--event-webhook-secret", SECRET), "valid host"),
        (("--event-webhook-url", f"http://ann:{SECRET}@a..b/", "--event-webhook-secret", SECRET), "valid host"),
        (
            ("--event-webhook-url", f"http://{SECRET}@example.com/", "--event-webhook-secret", SECRET),
            "without a password",
        ),
        (("--event-webhook-url", f"http://:{SECRET}@example.com/", "--event-webhook-secret", SECRET), "without a user"),
        (("--event-webhook-secret", "whsec_c2hvcnQ="), "--event-webhook-secret: it has 5 bytes"),
    ],
)
def test_faulty_options_stop_the_start(tmp_path: Path, options: tuple[str, ...], reason: str) -> None:
    text = refusal(
        run_command("check", "--app", "tests.apps.steered:app", "--store", "memory:", *options, cwd=tmp_path)
    )
    assert reason in text
    assert SECRET not in text
