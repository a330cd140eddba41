"""The contract of replica links, with a real NATS server."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from nats_server import PASSWORD, NatsServer

from jimsapi.testing import ReplicaLinkContract


class TestNats(ReplicaLinkContract):
    distribution = "jimsapi-nats"
    carries_notices = True
    secrets = (PASSWORD, "open%2Fsesame")

    @pytest.fixture(autouse=True)
    def broker(self, server: NatsServer) -> None:
        self.server = server

    @property
    def settings(self) -> dict[str, Any]:
        return {"nats_url": self.server.url}

    @asynccontextmanager
    async def outage(self) -> AsyncIterator[None]:
        self.server.kill()
        try:
            yield
        finally:
            self.server.start()
