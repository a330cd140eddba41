"""The sink with a NATS server that restarts, loses messages, and refuses some."""

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from jimsapi_nats import connection, jimsapi_event_sink, sink
from jimsapi_nats.connection import servers_of
from jimsapi_nats.link import NatsLink
from jimsapi_nats.sink import EventPublisher, NotAcknowledged
from jimsapi_nats.stream import receives
from nats_server import MAX_PAYLOAD, PASSWORD, STREAM, NatsServer, rights_of_the_page

from jimsapi import Secret
from jimsapi.asgi.testing import TestClient
from jimsapi.plugins import OptionError, Settings, StartError
from jimsapi.runs import EventRefused
from jimsapi.testing.replica_link import echo, silent
from jimsapi.threads import SinkEvent, uuid7
from tests.cloud_events import read_cloud_event

pytestmark = pytest.mark.anyio

Client = Callable[..., TestClient]


def event(thread_id: UUID, data: Any = None) -> SinkEvent:
    now = datetime.now(UTC).replace(tzinfo=None)
    return SinkEvent(
        event_type="rag.step", event_data=data, thread_id=thread_id, event_id=uuid7(), created_at=now, contact_id="ann"
    )


def message_id(event: SinkEvent) -> str:
    assert event.thread_id is not None
    return f"{event.thread_id.hex}_{event.event_id.hex}"


async def until_stored(server: NatsServer, count: int) -> None:
    """Wait until the stream has so many events."""

    async def stored() -> int:
        return len({sent_id for sent_id, _ in await server.stored()})

    await server.wait_for(stored, count)


def publisher(server: NatsServer, port: int | None = None) -> EventPublisher:
    url = server.url if port is None else server.url.replace(str(server.port), str(port))
    return EventPublisher(servers_of(Secret(url)), "jims.events", STREAM)


async def test_every_event_arrives_in_the_order_of_its_thread_while_nats_is_killed_and_restarted_under_load(
    server: NatsServer, jimsapi_client: Client
) -> None:
    # Without a window for duplicates, the stream keeps what arrives twice.
    await server.add_stream(duplicate_window=0.1)
    async with jimsapi_client(nats_url=server.url, nats_stream=STREAM) as client:
        stop = asyncio.Event()

        async def talk(contact: str) -> None:
            while not stop.is_set():
                answer = await client.post("/api/v1/chat", json={"contact_id": contact, "message": "hi"})
                assert answer.status_code == 200
                await asyncio.sleep(0.002)

        talking = [asyncio.create_task(talk(f"contact {number}")) for number in range(8)]
        for _ in range(2):
            await asyncio.sleep(0.3)
            server.kill()
            await asyncio.sleep(0.2)
            await asyncio.to_thread(server.start)
        await asyncio.sleep(0.2)
        stop.set()
        await asyncio.gather(*talking)
        expected = await events_of(client, [f"contact {number}" for number in range(8)])
        count = sum(map(len, expected.values()))
        await until_stored(server, count)
    arrived: defaultdict[str, dict[str, None]] = defaultdict(dict)
    seen: dict[str, bytes] = {}
    for sent_id, payload in await server.stored():
        told = json.loads(payload)
        assert sent_id == f"{UUID(told['thread_id']).hex}_{UUID(told['event_id']).hex}"
        assert seen.setdefault(sent_id, payload) == payload
        arrived[told["thread_id"]].setdefault(told["event_id"])
    assert {thread: list(ids) for thread, ids in arrived.items()} == expected


async def events_of(client: TestClient, contacts: list[str]) -> dict[str, list[str]]:
    """The identifiers of all stored events, by thread, in order."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for contact in contacts:
        [thread] = (await client.get("/api/v1/threads", params={"contact_id": contact})).json()["threads"]
        page: dict[str, Any] = {"next": ""}
        while page["next"] is not None:
            params = {"limit": "100", **({"after": page["next"]} if page["next"] else {})}
            page = (await client.get(f"/api/v1/threads/{thread['thread_id']}/events", params=params)).json()
            found[thread["thread_id"]] += [one["event_id"] for one in page["events"]]
    return found


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, without: list[bytes]) -> None:
    """Copy lines until the other side closes. A message that has one of `without` in it is lost, once."""
    with suppress(ConnectionError, asyncio.IncompleteReadError):
        while line := await reader.readline():
            if line.startswith(b"HPUB "):
                line += await reader.readexactly(int(line.split()[-1]) + 2)
            if lost := [mark for mark in without if mark in line]:
                without.remove(lost[0])
            else:
                writer.write(line)
    writer.close()


@asynccontextmanager
async def losing(server: NatsServer, *marks: str) -> AsyncIterator[int]:
    """Open a port that connects to the server, and loses the message that has a mark in it, once for each mark."""
    without = [mark.encode() for mark in marks]

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", server.port)
        await asyncio.gather(copy(reader, to_server, without), copy(from_server, writer, []))

    relay = await asyncio.start_server(connect, "127.0.0.1", 0)
    async with relay:
        yield relay.sockets[0].getsockname()[1]


async def test_a_message_may_be_a_cloud_event_in_the_structured_mode(
    server: NatsServer, jimsapi_client: Client
) -> None:
    await server.add_stream()
    async with jimsapi_client(nats_url=server.url, nats_stream=STREAM, nats_format="cloudevents") as client:
        answer = (await client.post("/api/v1/chat", json={"contact_id": "ann", "message": "hi"})).json()
        path = f"/api/v1/threads/{answer['thread_id']}/events"
        stored = (await client.get(path)).json()["events"]
        await until_stored(server, len(stored))
    for event, message in zip(stored, await server.stored_messages(), strict=True):
        assert message.headers is not None
        read = read_cloud_event(message.data or b"", message.headers["content-type"])
        assert (read.get_id(), read.get_type()) == (message.headers["Nats-Msg-Id"], event["event_type"])
        assert read.get_source() == f"/threads/{answer['thread_id']}"
        assert read.get_extension("contactid") == "ann"
        assert read.get_data() == event["event_data"]


async def test_after_a_lost_event_the_later_ones_of_its_thread_wait_for_it(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink, "ACKNOWLEDGED_WITHIN", 1.5)
    await server.add_stream()
    events = [event(thread) for thread in [uuid7()] * 4]
    async with losing(server, str(events[1].event_id)) as port, publisher(server, port) as opened:
        with pytest.raises(NotAcknowledged):
            await opened.deliver(events)
        assert [sent_id for sent_id, _ in await server.stored()] == [message_id(events[0])]
        await opened.deliver(events)
    assert [sent_id for sent_id, _ in await server.stored()] == [message_id(one) for one in events]


async def test_an_event_that_is_delivered_again_is_stored_once(server: NatsServer) -> None:
    await server.add_stream()
    events = [event(uuid7()) for _ in range(5)]
    async with publisher(server) as opened:
        await opened.deliver(events)
        await opened.deliver(events)
    assert len(await server.stored()) == 5


@pytest.mark.parametrize("size", [MAX_PAYLOAD, MAX_PAYLOAD - 300], ids=["by itself", "with its headers"])
async def test_an_event_that_is_too_large_for_the_server_is_refused_and_the_others_are_stored(
    server: NatsServer, size: int
) -> None:
    await server.add_stream()
    large, small = event(uuid7(), "x" * size), event(uuid7())
    async with publisher(server) as opened:
        with pytest.raises(EventRefused, match="and the server accepts messages of 1048576") as refused:
            await opened.deliver([large, small])
    assert refused.value.ids == {(large.thread_id, large.event_id)}
    assert [sent_id for sent_id, _ in await server.stored()] == [message_id(small)]


async def test_an_event_that_is_too_large_for_the_stream_is_refused(server: NatsServer) -> None:
    await server.add_stream(max_msg_size=1000)
    large = event(uuid7(), "x" * 1000)
    async with publisher(server) as opened:
        with pytest.raises(EventRefused, match="more than the stream EVENTS accepts"):
            await opened.deliver([large])


async def test_a_full_stream_is_an_outage_and_no_reason_to_refuse_events(server: NatsServer) -> None:
    await server.add_stream(max_msgs=1, discard="new")
    async with publisher(server) as opened:
        await opened.deliver([event(uuid7())])
        with pytest.raises(Exception, match="maximum messages exceeded") as failed:
            await opened.deliver([event(uuid7())])
    assert not isinstance(failed.value, EventRefused)


async def test_a_server_starts_while_nats_is_down_and_its_events_arrive_later(
    server: NatsServer, jimsapi_client: Client
) -> None:
    await server.add_stream()
    server.kill()
    async with jimsapi_client(nats_url=server.url, nats_stream=STREAM) as client:
        answer = await client.post("/api/v1/chat", json={"contact_id": "ann", "message": "hi"})
        assert answer.status_code == 200
        server.start()
        await until_stored(server, 3)


async def test_a_user_that_the_server_rejects_for_a_while_is_tried_again(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connection, "CONNECT_AGAIN_AFTER", 0.05)
    await server.add_stream()
    async with publisher(server) as opened:
        server.kill()
        server.start(password="another")
        async with asyncio.timeout(10):
            while opened._connection.is_open or opened._connection._reason != "it rejects the user":
                await asyncio.sleep(0.01)
        server.kill()
        server.start()
        await opened.deliver([event(uuid7())])
    assert len(await server.stored()) == 1
    assert "it rejects the user" in caplog.text
    assert "sesame" not in caplog.text


async def test_the_rights_that_the_page_names_are_enough(server: NatsServer) -> None:
    await server.add_stream()
    server.kill()
    server.start(rights=rights_of_the_page("jims.events"))
    servers = servers_of(Secret(server.url.replace("ann:", "bob:")))
    async with EventPublisher(servers, "jims.events", STREAM) as opened:
        await opened.deliver([event(uuid7())])
    assert len(await server.stored()) == 1
    async with NatsLink(servers, "jims.live") as asking, NatsLink(servers, "jims.live") as answering:
        await asking.serve(silent)
        await answering.serve(echo)
        for replica in (None, answering._own):
            async with asyncio.timeout(5):
                assert await asking.ask(b"all", replica) == (b"to all", answering._own)


async def refusal(client: TestClient) -> str:
    """Why a server does not start."""
    with pytest.raises(RuntimeError) as refused:
        async with client:
            pass
    assert PASSWORD not in str(refused.value)
    assert "sesame" not in str(refused.value)
    return str(refused.value)


async def test_a_stream_that_is_missing_stops_the_start_and_is_not_created(
    server: NatsServer, jimsapi_client: Client
) -> None:
    text = await refusal(jimsapi_client(nats_url=server.url, nats_stream=STREAM))
    assert "no stream EVENTS; create it, for example with: nats stream add EVENTS --subjects jims.events" in text
    async with server.operator() as operator:
        assert await operator.jetstream().streams_info() == []


def connections() -> list[str]:
    """The connections to NATS that tasks of this process keep open."""
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("connection to NATS")]


async def test_no_connection_stays_open_after_a_refused_start_or_an_end(
    server: NatsServer, jimsapi_client: Client
) -> None:
    await refusal(jimsapi_client(nats_url=server.url, nats_stream=STREAM))
    assert connections() == []
    await server.add_stream()
    async with jimsapi_client(nats_url=server.url, nats_stream=STREAM):
        assert connections() != []
    assert connections() == []


async def test_a_stream_without_the_subject_stops_the_start(server: NatsServer, jimsapi_client: Client) -> None:
    await server.add_stream()
    text = await refusal(jimsapi_client(nats_url=server.url, nats_stream=STREAM, nats_prefix="shop.chat"))
    assert "the stream EVENTS receives jims.events, and not shop.chat.events" in text


async def test_a_wrong_password_stops_the_start(server: NatsServer, jimsapi_client: Client) -> None:
    url = server.url.replace("sesame", "barley")
    text = await refusal(jimsapi_client(nats_url=url, nats_stream=STREAM))
    assert "--nats-url: the NATS server rejects the user, the password or the token" in text
    assert "barley" not in text


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("jims.events", True), ("jims.*", True), ("jims.>", True), (">", True), ("*.events", True),
        ("jims", False), ("jims.events.>", False), ("jims.events.*", False), ("*", False), ("jims.other", False),
    ],
)  # fmt: skip
async def test_a_stream_receives_what_its_subjects_match(pattern: str, expected: bool) -> None:
    assert receives(pattern, "jims.events") is expected


async def test_without_a_stream_there_is_no_sink(jimsapi_settings: Callable[..., Settings]) -> None:
    assert jimsapi_event_sink(jimsapi_settings(nats_url="nats://localhost")) is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"nats_stream": "EVENTS"}, "--nats-stream needs --nats-url"),
        ({"nats_url": "nats://a", "nats_stream": "a b"}, "--nats-stream is not the name of a stream"),
        ({"nats_url": "nats://a", "nats_stream": "A", "nats_prefix": "jims.>"}, "--nats-prefix may have letters"),
    ],
)
async def test_faulty_options_are_refused(
    jimsapi_settings: Callable[..., Settings], given: dict[str, str], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        jimsapi_settings(**given)


@pytest.mark.parametrize(
    "url", ["localhost:4222", "http://ann:sesame@localhost", "nats://ann:sesame@", "nats://ann:sesame@host:x"]
)
async def test_a_faulty_url_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(StartError, match="--nats-url is not a URL") as refused:
        servers_of(Secret(url))
    assert "sesame" not in str(refused.value)


async def test_several_servers_have_one_user() -> None:
    servers = servers_of(Secret("nats://ann:a%2Fb@one:4222, tls://two"))
    assert servers.addresses == ("nats://one:4222", "tls://two")
    assert servers.user == "ann"
    assert servers.password is not None
    assert servers.password.reveal() == "a/b"
    assert "a/b" not in repr(servers)
    with pytest.raises(StartError, match="several users"):
        servers_of(Secret("nats://ann:a@one, nats://ben:b@two"))


async def test_a_name_without_a_password_is_a_token() -> None:
    servers = servers_of(Secret("nats://s3cr3t@one"))
    assert (servers.user, servers.password) == (None, None)
    assert servers.token is not None
    assert servers.token.reveal() == "s3cr3t"
    assert "s3cr3t" not in repr(servers)
