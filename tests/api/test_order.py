"""Many messages at once: one thread for a contact, one answer after another in a thread, nobody else delayed."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.ports import free_port
from tests.raw import metric
from tests.serving import Served

pytestmark = pytest.mark.anyio

CHAT = "/api/v1/chat"
MANY = 50


METRICS_PORT = free_port()


@pytest.fixture(scope="module", params=[pytest.param("memory", marks=pytest.mark.long), "sqlite"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("store")
    store = "memory:" if request.param == "memory" else f"sqlite:///{folder / 'order.db'}"
    options = (
        "--drain-time",
        "2",
        "--metrics-port",
        str(METRICS_PORT),
        "--metrics-host",
        "127.0.0.1",
        "--context-events",
        "0",
    )
    with Served("--store", store, *options) as server:
        yield server


async def say(client: httpx.AsyncClient, contact: str, message: str, **fields: Any) -> dict[str, Any]:
    answer = await client.post(CHAT, json={"contact_id": contact, "message": message, **fields})
    assert answer.status_code == 200, answer.text
    decoded: dict[str, Any] = answer.json()
    return decoded


def seen(answer: dict[str, Any]) -> Any:
    """What the pipeline saw of its thread, by its own word."""
    return json.loads(answer["assistant_messages"][0])


async def runs_open(client: httpx.AsyncClient, count: int, name: str = "jims_runs_open") -> None:
    """Wait until the server has that many open runs."""
    while True:
        text = (await client.get(f"http://127.0.0.1:{METRICS_PORT}/metrics")).text
        if metric(text, name) == count:
            return


async def test_50_concurrent_messages_in_a_thread_are_answered_in_order_of_arrival(served: Served) -> None:
    async with served.async_client() as client:
        thread_id = (await say(client, "queue", "hello"))["thread_id"]
        holder = asyncio.create_task(say(client, "queue", "hold gate", thread_id=thread_id))
        await say(client, "watcher", "reached gate")
        waiting = []
        for number in range(MANY):
            waiting.append(asyncio.create_task(say(client, "queue", f"see {number}", thread_id=thread_id)))
            await runs_open(client, number + 2)
        await runs_open(client, MANY, "jims_runs_waiting")

        # Others are answered meanwhile.
        others = await asyncio.gather(*(say(client, f"other-{number}", "hi") for number in range(5)))
        assert [other["assistant_messages"] for other in others] == [["You said: hi"]] * 5
        assert not any(task.done() for task in (holder, *waiting))

        await say(client, "watcher", "open gate")
        held = await holder
        answers = [await task for task in waiting]
    asked = ["hello", "hold gate"]
    assert seen(held) == {"asked": asked, "answered": 1}
    for number, answer in enumerate(answers):
        asked.append(f"see {number}")
        assert seen(answer) == {"asked": asked, "answered": len(asked) - 1}
