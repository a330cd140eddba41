"""The contract of event sinks, with a real NATS server."""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import nats
import pytest
from jimsapi.asgi.testing import TestClient
from jimsapi.testing import EventSinkContract


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
