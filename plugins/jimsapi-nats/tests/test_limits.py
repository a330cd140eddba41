"""Limits of callers at several server processes on one PostgreSQL and one NATS: they are counted together."""

import asyncio
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager

import httpx
import pytest
from nats.aio.msg import Msg
from nats_server import NatsServer

from tests.serving import Served
from tests.waiting import eventually

pytestmark = pytest.mark.anyio

CHAT = "/api/v1/chat"
APP = ("--app", "tests.apps.scripted:app")


class Replicas:
    """Servers with the same limits, and what a test has sent to them.

    `published` is how many messages the notices of the replicas count.
    """

    def __init__(self, servers: Sequence[Served], clients: Sequence[httpx.AsyncClient]) -> None:
        self.servers = servers
        self.clients = clients
        self.admitted = 0
        self.published = 0
        self._notice = asyncio.Event()

    async def note(self, notice: Msg) -> None:
        """Count what a replica has published."""
        self.published += sum(messages for _, _, messages in struct.iter_unpack("!16s18si", notice.data[1:]))
        self._notice.set()

    async def send(self, replica: int, contact: str) -> None:
        """Send a message to a replica, which may refuse it."""
        answer = await self.clients[replica].post(CHAT, json={"contact_id": contact, "message": "send hello"})
        assert answer.status_code in (200, 429)
        self.admitted += answer.status_code == 200

    async def send_to_each(self, count: int, contact: str) -> None:
        """Send so many messages to each replica at once."""
        await asyncio.gather(*(self.send(place, contact) for place in range(len(self.clients)) for _ in range(count)))

    async def hear(self) -> None:
        """Wait until the replicas have published all that they have admitted, and until the others know of it."""
        async with asyncio.timeout(30):
            while self.published < self.admitted:
                self._notice.clear()
                await self._notice.wait()
        for client in (*self.clients, *self.clients):  # they read the notice meanwhile
            (await client.get("/healthz")).raise_for_status()


@asynccontextmanager
async def replicas(server: NatsServer, *options: str, count: int = 3) -> AsyncIterator[Replicas]:
    """Servers with these options, and a client of each."""
    with ExitStack() as stack:
        env = {"JIMS_NATS_URL": server.url}
        servers = [stack.enter_context(Served(*APP, *options, env=env)) for _ in range(count)]
        found = Replicas(servers, [served.async_client() for served in servers])
        async with watched(server, found):
            yield found
        for client in found.clients:
            await client.aclose()


@asynccontextmanager
async def watched(server: NatsServer, found: Replicas) -> AsyncIterator[None]:
    """Let the replicas' notices be counted."""
    async with server.operator() as operator:
        await operator.subscribe("jims.live.notices", cb=found.note)
        await operator.flush()
        await operator.flush()  # the ping of the first one may be sent before the subscription
        yield


def is_connected_again(served: Served) -> bool:
    return served.stderr.count("connected to the NATS server") == 2


async def test_while_nats_is_down_each_replica_counts_for_itself_and_later_together_again(
    url: str, server: NatsServer
) -> None:
    async with replicas(server, "--store", url, "--rate-limit", "4/day") as found:
        server.kill()
        await found.send_to_each(4, "ann")
        assert found.admitted == 12
        await found.send(0, "ben")
        await found.send_to_each(1, "ann")
        assert found.admitted == 13
        server.start()
        await asyncio.to_thread(eventually, lambda: all(map(is_connected_again, found.servers)))
        found.published = found.admitted
        async with watched(server, found):
            for message in range(8):
                await found.send(message % 3, "cleo")
                await found.hear()
            assert found.admitted == 13 + 4
            for _ in range(5):
                await found.send(1, "ben")
            assert found.admitted == 13 + 4 + 4, "what was admitted in the outage does not count at others"


async def clients_of_both_workers(found: Replicas) -> list[httpx.AsyncClient]:
    """Return a client for each worker of one command. It keeps its connection, and so its worker."""
    by_worker: dict[str, httpx.AsyncClient] = {}
    async with asyncio.timeout(30):
        while len(by_worker) < 2:
            client = found.servers[0].async_client()
            message = {"contact_id": f"contact {found.admitted}", "message": "who?"}
            answer = (await client.post(CHAT, json=message)).raise_for_status().json()
            found.admitted += 1
            if by_worker.setdefault(answer["assistant_messages"][0], client) is not client:
                await client.aclose()
    return list(by_worker.values())


async def test_the_workers_of_one_command_count_together(url: str, server: NatsServer) -> None:
    app = ("--app", "tests.apps.told_pid:app")
    options = (*app, "--store", url, "--rate-limit", "7/day", "--workers", "2")
    async with replicas(server, *options, count=1) as found:
        # What a worker admits before the other one is connected, that one never counts.
        await asyncio.to_thread(eventually, lambda: found.servers[0].stderr.count("connected to the NATS server") == 2)
        found.clients = await clients_of_both_workers(found)
        before = found.admitted
        for message in range(15):
            await found.send(message % 2, "ann")
            await found.hear()
        assert found.admitted - before == 7
