"""What metrics show of open runs, and of messages that a limit has refused."""

import asyncio
from typing import Any

import pytest

from jimsapi.api.app import VERSION, create_api
from jimsapi.asgi.testing import TestClient
from tests.apps.scripted import Scripted
from tests.raw import metric

pytestmark = pytest.mark.anyio

CHAT = "/api/v1/chat"


@pytest.mark.parametrize(
    ("settings", "contact_id", "limit"),
    [
        ({"max_runs": 1}, "bob", "max-runs"),
        ({"contact_runs": 1}, "ann", "contact-runs"),
        ({"identity_runs": 1}, "bob", "identity-runs"),
        ({"rate_limit": "1/h"}, "ann", "contact"),
        ({"thread_queue": 0}, "ann", "thread-queue"),
        ({"thread_busy": "reject"}, "ann", "thread-busy"),
        ({"queue_timeout": 0.01}, "ann", "queue-timeout"),
    ],
)
async def test_a_refused_message_is_counted_by_the_limit_that_refused_it(
    settings: dict[str, Any], contact_id: str, limit: str
) -> None:
    bot = Scripted()
    api = create_api(bot, store="memory:", **settings)
    async with TestClient(api) as client:
        begun = await client.post("/api/v1/runs", json={"contact_id": "ann", "message": "hold door"})
        await bot.reached["door"].wait()
        refused = await client.post(CHAT, json={"contact_id": contact_id, "message": "hi"})
        assert (begun.status_code, refused.status_code >= 400) == (202, True)
        shown = api.metrics()
        assert metric(shown, "jims_messages_refused_total", limit=limit) == 1
        assert shown.count("jims_messages_refused_total{") == 1
        assert metric(shown, "jims_runs_open") == 1
        assert metric(shown, "jims_run_oldest_seconds") > 0
        bot.opened["door"].set()
        await client.get(f"/api/v1/runs/{begun.json()['run_id']}/events")
        shown = api.metrics()
        assert metric(shown, "jims_run_oldest_seconds") == 0
        assert metric(shown, "jims_run_wait_seconds_count") >= 1
        assert metric(shown, "jims_build_info", version=VERSION) == 1


async def test_the_age_of_the_oldest_run_is_shown_for_those_that_run_and_for_those_that_wait() -> None:
    bot = Scripted()
    api = create_api(bot, store="memory:", run_timeout=50)
    running, waiting = "jims_run_oldest_running_seconds", "jims_run_oldest_waiting_seconds"

    def ages() -> tuple[float, float]:
        shown = api.metrics()
        return metric(shown, running), metric(shown, waiting)

    async with TestClient(api) as client:
        assert ages() == (0, 0)
        assert metric(api.metrics(), "jims_run_timeout_seconds") == 50
        await client.post("/api/v1/runs", json={"contact_id": "ann", "message": "hold door"})
        await bot.reached["door"].wait()
        first = ages()
        assert first[0] > 0
        assert first[1] == 0
        queued = await client.post("/api/v1/runs", json={"contact_id": "ann", "message": "hold gate"})
        while ages()[1] < 0.05:
            await asyncio.sleep(0)
        runs, waits = ages()
        assert runs > waits
        bot.opened["door"].set()
        await bot.reached["gate"].wait()
        shown = api.metrics()
        assert metric(shown, running) > 0
        assert metric(shown, "jims_run_oldest_seconds") - metric(shown, running) > 0.04  # the time that it waited
        assert metric(shown, waiting) == 0
        bot.opened["gate"].set()
        await client.get(f"/api/v1/runs/{queued.json()['run_id']}/events")
        assert ages() == (0, 0)


async def test_open_streams_and_websockets_are_counted() -> None:
    bot = Scripted()
    api = create_api(bot, store="memory:")
    async with TestClient(api) as client:
        async with client.websocket("/api/v1/chat/ws") as websocket:
            await websocket.send_json({"type": "chat", "contact_id": "ann", "message": "hi"})
            await websocket.receive_json()  # now its handler works
            assert metric(api.metrics(), "jims_websockets_open") == 1
        sent = {"contact_id": "ann", "message": "hold door"}
        async with client.stream("POST", f"{CHAT}/stream", json=sent) as answer:
            await bot.reached["door"].wait()
            async with asyncio.timeout(30):  # a stream counts from the moment at which it has to wait
                while metric(api.metrics(), "jims_streams_open") != 1:
                    await asyncio.sleep(0.01)
            bot.opened["door"].set()
            await answer.aread()
        assert metric(api.metrics(), "jims_streams_open") == 0
