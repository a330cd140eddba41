"""Receivers of runs on PostgreSQL: several processes look at them, and one calls."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
import pytest
from jimsapi_postgres.connections import Connection
from jimsapi_postgres.store import PostgresStore

from jimsapi.runs import Notice, RunService, Subscriptions
from jimsapi.runs import subscriptions as module
from jimsapi.runs.admission import PUBLIC
from jimsapi.threads import RunStatus, Subscription, uuid7
from tests.apps.scripted import Scripted
from tests.runs.receiver import KEY, Receiver
from tests.runs.serving import inbound, serving, taken

pytestmark = pytest.mark.anyio

OPEN = (RunStatus.QUEUED, RunStatus.RUNNING)
ALL_ARE_SILENT = "UPDATE jimsapi_owners SET beat_at = '-infinity'"


class Ends:
    """Notifies receivers of the end of their run."""

    kind = "test"

    def __init__(self, service: RunService) -> None:
        self._service = service
        self.asked = 0

    async def notice(self, subscription: Subscription) -> Notice | None:
        self.asked += 1
        run = await self._service.store.run(subscription.run_id, None, None)
        if run.status in OPEN:
            return None
        body = orjson.dumps({"state": run.status})
        return Notice(run.status, subscription.data.decode(), body, {"content-type": "application/json"}, last=True)


@asynccontextmanager
async def process(url: str, bot: Scripted) -> AsyncIterator[tuple[RunService, Ends]]:
    subscriptions = Subscriptions([KEY], allow_private=True)
    async with serving(bot, PostgresStore(url), subscriptions=subscriptions) as service:
        ends = Ends(service)
        service.use_notifier(ends)
        yield service, ends


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY", 0.01)
    monkeypatch.setattr(module, "LOOK_AGAIN_AFTER", 0.0)


async def settled(service: RunService) -> None:
    subscriptions = service.store.subscriptions
    assert subscriptions is not None, "PostgreSQL keeps some"
    while await subscriptions.count():
        await asyncio.sleep(0.01)


async def test_one_of_two_processes_calls_a_receiver(url: str) -> None:
    bot = Scripted()
    async with Receiver() as receiver, process(url, bot) as (first, _), process(url, Scripted()) as (second, ends):
        run = await taken(first.begin(inbound("hold on; send done"), PUBLIC))
        assert run.thread is not None
        subscription = Subscription(
            uuid7(), run.run_id, run.thread.thread_id, "test", "first", None, receiver.url().encode()
        )
        assert await second.subscriptions.add(subscription, 1)
        while not ends.asked:
            await asyncio.sleep(0.01)
        bot.opened["on"].set()
        assert (await receiver.call()).verified() == {"state": "completed"}
        await settled(first)
        assert receiver.calls.empty()


async def test_a_receiver_of_a_process_that_died_is_called_by_another_one(url: str, store: PostgresStore) -> None:
    async with Receiver() as receiver, process(url, Scripted()) as (dead, _):
        run = await taken(dead.begin(inbound("hold on"), PUBLIC))
        assert run.thread is not None
        subscription = Subscription(
            uuid7(), run.run_id, run.thread.thread_id, "test", "first", None, receiver.url().encode()
        )
        await store.subscriptions.add(subscription, 1)

        async def silence(connection: Connection) -> None:
            await connection.execute(ALL_ARE_SILENT)

        await store._write(silence)
        async with process(url, Scripted()) as (_, _):
            assert (await receiver.call()).verified() == {"state": "interrupted"}
