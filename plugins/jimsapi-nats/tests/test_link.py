"""The link between replicas when something else than a replica answers, or when there is no NATS at the start."""

import asyncio

import pytest
from jimsapi_nats import connection
from jimsapi_nats.connection import servers_of
from jimsapi_nats.link import NatsLink, NotAReplica
from nats.js.api import StreamConfig
from nats_server import NatsServer

from jimsapi import Secret
from jimsapi.testing.replica_link import answer_at_last, echo, silent

pytestmark = pytest.mark.anyio


def link(server: NatsServer) -> NatsLink:
    return NatsLink(servers_of(Secret(server.url)), "jims.live")


async def test_a_stream_that_receives_the_questions_is_not_taken_for_a_replica(server: NatsServer) -> None:
    async with server.operator() as operator:
        await operator.jetstream().add_stream(StreamConfig(name="ALL", subjects=["jims.>"]))
    async with link(server) as asking:
        await asking.serve(silent)
        with pytest.raises(NotAReplica, match=r"what answers on jims\.live\.> is not a replica"):
            await asking.ask(b"all", None)


async def test_a_link_that_starts_without_nats_asks_and_answers_as_soon_as_it_is_there(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "CONNECT_AGAIN_AFTER", 0.05)
    server.kill()
    async with link(server) as asking, link(server) as answering:
        await asking.serve(silent)
        await answering.serve(echo)
        assert await asking.ask(b"all", None) is None
        await asyncio.to_thread(server.start)
        async with asyncio.timeout(10):
            await answer_at_last(asking)


async def test_without_another_replica_there_is_no_answer_at_once(server: NatsServer) -> None:
    async with link(server) as alone:
        async with asyncio.timeout(10):
            assert await alone.ask(b"one", "jims.live.gone") is None


async def test_a_link_that_begins_to_listen_while_its_connection_opens_receives_each_notice_once(
    server: NatsServer,
) -> None:
    received: asyncio.Queue[bytes] = asyncio.Queue()
    async with link(server) as sending, link(server) as listening:
        await listening.listen(received.put_nowait)
        await listening._connection.call(listening._subscribe)
        async with asyncio.timeout(10):
            for notice in (b"one", b"two"):
                await sending.publish(notice)
                assert await received.get() == notice
