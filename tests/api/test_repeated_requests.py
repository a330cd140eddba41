"""Messages that are sent again by clients that know little of each other's runs: what is the same, and what is new."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from jimsapi import JimsApp, create_api
from jimsapi.asgi.testing import TestClient
from tests.api.conversation import CHAT, STREAM, body, parse
from tests.apps.scripted import Scripted

pytestmark = pytest.mark.anyio

CONFIG = {"greet": "send Hi", "shop": {"city": "Perth", "floor": 1}}
MESSAGE: dict[str, Any] = {"contact_id": "ann", "message": "see", "thread_config": CONFIG}


async def test_another_run_is_told_from_its_beginning_whatever_event_was_the_last_of_an_earlier_one() -> None:
    async with TestClient(create_api(JimsApp(Scripted()), store="memory:")) as client:
        for last in ("2", "end"):
            answer = await client.post(STREAM, json=body("send a"), headers={"last-event-id": last})
            assert [event.id for event in parse(answer.text)] == ["1", "2", "3", "end"]


async def test_a_run_that_was_interrupted_is_tried_anew_and_told_from_its_beginning() -> None:
    headers = {"idempotency-key": str(uuid4())}
    bot = Scripted()
    api = create_api(JimsApp(bot), store="memory:")
    async with TestClient(api) as client:
        asked = asyncio.create_task(client.post(STREAM, json=body("stream a; hold door"), headers=headers))
        await bot.reached["door"].wait()
        assert api.service is not None
        api.service.interrupt()
        assert [event.name for event in parse((await asked).text)] == ["started", "delta", "error"]
        bot.opened["door"].set()
        again = await client.post(STREAM, json=body("stream a; hold door"), headers=headers | {"last-event-id": "end"})
    assert [event.name for event in parse(again.text)] == ["started", "delta", "event", "result"]


async def test_whose_last_event_was_the_end_is_told_no_more() -> None:
    headers = {"idempotency-key": str(uuid4())}
    async with TestClient(create_api(JimsApp(Scripted()), store="memory:")) as client:
        await client.post(STREAM, json=body("send a"), headers=headers)
        again = await client.post(STREAM, json=body("send a"), headers=headers | {"last-event-id": "end"})
    assert (again.status_code, again.content) == (204, b"")


@pytest.mark.parametrize(
    "again",
    [
        {"message": "see", "thread_config": {"shop": {"floor": 1, "city": "Perth"}, "greet": "send Hi"}},
        {**MESSAGE, "event_type": "comm.user_message", "thread_id": None, "webhook_url": None},
    ],
    ids=["in another order", "with what is so anyway"],
)
async def test_the_same_message_in_other_words_is_the_same(again: dict[str, Any]) -> None:
    headers = {"idempotency-key": str(uuid4())}
    async with TestClient(create_api(JimsApp(Scripted()), store="memory:")) as client:
        first = await client.post(CHAT, json=MESSAGE, headers=headers)
        second = await client.post(CHAT, json={"contact_id": "ann", **again}, headers=headers)
    assert (second.status_code, second.json()) == (200, first.json())
    assert second.headers["x-run-id"] == first.headers["x-run-id"]
