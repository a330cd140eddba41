"""Tasks of A2A that one replica begins, and another shows, streams, cancels and answers."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.plugins.modules import load
from tests.serving import Served

pytestmark = pytest.mark.anyio

PLUGINS = Path(__file__).resolve().parents[1]
A2A = PLUGINS / "jimsapi-a2a" / "tests"
a2a = load(A2A / "a2a_calls.py")
AT_ONCE = {"returnImmediately": True}


@pytest.fixture(scope="module")
def replicas() -> Iterator[tuple[Served, Served]]:
    """Two servers with one database."""
    database = load(PLUGINS / "jimsapi-postgres" / "tests" / "database.py")
    with database.Postgres(fsync="off") as postgres, postgres.database() as name:
        options = ("--app", "a2a_bot:app", "--store", postgres.url(name))
        with Served(*options, folder=A2A) as first, Served(*options, folder=A2A) as second:
            yield first, second


async def test_a_task_moves_between_replicas(replicas: tuple[Served, Served]) -> None:
    async with replicas[0].async_client() as first, replicas[1].async_client() as second:
        task = await a2a.send(first, "hold door; send done", contextId="moving", message_id="m", configuration=AT_ONCE)
        await a2a.send(first, "reached door")
        assert a2a.state(await a2a.result(second, "GetTask", {"id": task["id"]})) == "WORKING"
        repeated = asyncio.create_task(a2a.send(second, "hold door; send done", contextId="moving", message_id="m"))
        body = {"jsonrpc": "2.0", "id": 1, "method": "SubscribeToTask", "params": {"id": task["id"]}}
        async with second.stream("POST", "/a2a", json=body, headers=a2a.VERSION) as watching:
            lines = watching.aiter_lines()
            events = (json.loads(line[6:])["result"] async for line in lines if line.startswith("data: "))
            seen = [await anext(events)]  # the subscription has begun before the door opens
            await a2a.send(first, "open door")
            seen += [event async for event in events]
        assert a2a.summary(seen) == ["task WORKING", "done", "+.", "statusUpdate COMPLETED"]
        done = await repeated
        assert (done["id"], a2a.texts(done)) == (task["id"], ["done"])
        for client in (first, second):
            assert await a2a.result(client, "GetTask", {"id": task["id"]}) == done
            listed = await a2a.result(client, "ListTasks", {"contextId": "moving", "includeArtifacts": True})
            assert listed["tasks"] == [done]


async def test_another_replica_answers_and_cancels(replicas: tuple[Served, Served]) -> None:
    async with replicas[0].async_client() as first, replicas[1].async_client() as second:
        asked = await a2a.send(first, "ask Refund?", contextId="c")
        answered = await a2a.send(second, "yes", taskId=asked["id"])
        assert (answered["id"], a2a.texts(answered)) == (asked["id"], ["answered: yes"])
        assert await a2a.result(first, "GetTask", {"id": asked["id"]}) == answered
        held = asyncio.create_task(a2a.send(first, "hold for ever", contextId="c"))
        await a2a.send(first, "reached for ever")
        [newest, _] = (await a2a.result(second, "ListTasks", {"contextId": "c"}))["tasks"]
        assert a2a.state(await a2a.result(second, "CancelTask", {"id": newest["id"]})) == "CANCELED"
        assert a2a.state(await held) == "CANCELED"
