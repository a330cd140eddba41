"""The contract of event sinks, with a real NATS server."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Any

import nats
import pytest
from jimsapi import Event, Secret
from jimsapi.asgi.testing import TestClient
from jimsapi.testing import EventSinkContract
from jimsapi.threads import uuid7

from jimsapi_nats.sink import NatsSink


class TestNats(EventSinkContract):
    distribution = "jimsapi-nats"
    secrets = ("open-sesame",)

    @pytest.fixture(autouse=True)
    async def subscribe(self, anyio_backend: str, server: Any) -> AsyncIterator[None]:
        self.server = server
        self.client = await nats.connect(server.url, reconnect_time_wait=0.05, max_reconnect_attempts=-1)
        self.messages = await self.client.subscribe("jims.events")
        await self.client.flush()
        yield
        await self.client.close()

    @property
    def settings(self) -> dict[str, Any]:
        return {"nats_url": self.server.url}

    async def arrived(self) -> Sequence[str]:
        await self.client.flush()
        received = [await self.messages.next_msg() for _ in range(self.messages.pending_msgs)]
        return [json.loads(message.data)["event_id"] for message in received]

    @asynccontextmanager
    async def outage(self) -> AsyncIterator[None]:
        self.server.stop()
        try:
            yield
        finally:
            self.server.start()


@pytest.mark.anyio
async def test_a_server_that_cannot_be_reached_stops_the_start(
    jimsapi_client: Callable[..., TestClient], server: Any
) -> None:
    server.stop()
    with pytest.raises(RuntimeError, match="--nats-url: cannot connect to the NATS server") as refused:
        async with jimsapi_client(nats_url=server.url):
            pass
    assert "open-sesame" not in str(refused.value)


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, until: bytes | None = None) -> None:
    """Copy what arrives, until the other side closes. If `until` arrives, discard that and all that follows."""
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            kept, found, _ = (data, b"", b"") if until is None else data.partition(until)
            writer.write(kept)
            if found:
                await reader.read()
    writer.close()


@asynccontextmanager
async def without_messages(port: int) -> AsyncIterator[int]:
    """Open a port that connects to a NATS server and keeps all messages from it, as if they were lost on the way."""

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(copy(reader, to_server, b"HPUB "), copy(from_server, writer))

    relay = await asyncio.start_server(connect, "127.0.0.1", 0)
    async with relay:
        yield relay.sockets[0].getsockname()[1]


@pytest.mark.anyio
async def test_messages_that_the_server_does_not_get_are_not_delivered(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now()
    event = Event(event_type="rag.step", event_data={}, thread_id=uuid7(), event_id=uuid7(), created_at=now)
    async with without_messages(server.port) as port:
        url = Secret(server.url.replace(str(server.port), str(port)))
        async with NatsSink(url, "jims.events") as sink:
            monkeypatch.setattr("jimsapi_nats.sink.TIMEOUT", 0.5)
            monkeypatch.setattr("jimsapi_nats.sink.RECEIPT", 0.2)
            with pytest.raises(TimeoutError):
                await sink.deliver([event])
