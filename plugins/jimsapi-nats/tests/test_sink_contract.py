"""The contract of event sinks, with a real NATS server."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from nats_server import PASSWORD, STREAM, NatsServer

from jimsapi.testing import EventSinkContract


class TestNats(EventSinkContract):
    distribution = "jimsapi-nats"
    secrets = (PASSWORD, "open%2Fsesame")

    @pytest.fixture(autouse=True)
    async def stream(self, anyio_backend: str, server: NatsServer) -> None:
        self.server = server
        await server.add_stream()

    @property
    def settings(self) -> dict[str, Any]:
        return {"nats_url": self.server.url, "nats_stream": STREAM}

    async def arrived(self) -> Sequence[str]:
        return [json.loads(payload)["event_id"] for _, payload in await self.server.stored()]

    @asynccontextmanager
    async def outage(self) -> AsyncIterator[None]:
        self.server.kill()
        try:
            yield
        finally:
            self.server.start()
