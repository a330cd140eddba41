"""Requests that an SDK sends again: one run answers all attempts, and a person may still say the same thing twice."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI

from jimsapi import ThreadContext, create_api
from jimsapi.asgi.testing import TestClient
from tests.serving import Served

pytestmark = pytest.mark.anyio

PATH = "/v1/chat/completions"


class Slow:
    """A bot whose first answer waits until it is released."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.reached = asyncio.Event()
        self.released = asyncio.Event()

    async def __call__(self, ctx: ThreadContext) -> None:
        self.texts.append(str(ctx.get_last_user_message()))
        if len(self.texts) == 1:
            self.reached.set()
            await self.released.wait()
        ctx.send_message(f"answer {len(self.texts)}")


@pytest.fixture
def bot() -> Slow:
    return Slow()


@pytest.fixture
def settings() -> dict[str, Any]:
    return {}


@pytest.fixture
async def client(bot: Slow, settings: dict[str, Any]) -> AsyncIterator[TestClient]:
    async with TestClient(create_api(bot, store="memory:", **settings)) as client:
        yield client


async def send(client: TestClient, count: str | None, text: str = "hi", **fields: Any) -> httpx.Response:
    headers = {} if count is None else {"x-stainless-retry-count": count}
    body = {"model": "m", "user": "ann", "messages": [{"role": "user", "content": text}], **fields}
    return await client.post(PATH, json=body, headers=headers)


def said(answer: httpx.Response) -> str:
    text: str = answer.json()["choices"][0]["message"]["content"]
    return text


async def abandon(client: TestClient, bot: Slow, *, stream: bool = False) -> None:
    """Send a request, and hang up before its answer."""
    first = asyncio.create_task(send(client, "0", stream=stream))
    await bot.reached.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first


@pytest.mark.parametrize("stream", [False, True])
async def test_an_attempt_after_a_lost_one_gets_the_answer_of_its_run(
    client: TestClient, bot: Slow, stream: bool
) -> None:
    await abandon(client, bot, stream=stream)
    again = asyncio.create_task(send(client, "1", stream=stream))
    await asyncio.sleep(0)
    bot.released.set()
    assert "answer 1" in (await again).text
    assert "answer 1" in (await send(client, "2", stream=stream)).text
    assert bot.texts == ["hi"]


async def test_the_same_message_said_twice_is_answered_twice(client: TestClient, bot: Slow) -> None:
    bot.released.set()
    assert [said(await send(client, "0")) for _ in range(2)] == ["answer 1", "answer 2"]
    assert said(await send(client, "1")) == "answer 2"


@pytest.mark.parametrize("count", [None, "x", ""])
async def test_a_request_without_a_count_is_a_new_one(client: TestClient, bot: Slow, count: str | None) -> None:
    bot.released.set()
    assert [said(await send(client, count)) for _ in range(2)] == ["answer 1", "answer 2"]


async def test_a_client_that_names_nobody_has_one_contact_for_all_attempts(client: TestClient, bot: Slow) -> None:
    bot.released.set()
    assert [said(await send(client, count, user=None)) for count in "012"] == ["answer 1"] * 3
    assert said(await send(client, "0", user=None)) == "answer 2"


async def test_another_body_or_person_is_another_request(client: TestClient, bot: Slow) -> None:
    bot.released.set()
    await send(client, "0")
    assert said(await send(client, "1", "other")) == "answer 2"
    assert said(await send(client, "1", user="bea")) == "answer 3"
    assert said(await send(client, "1")) == "answer 1"


@pytest.mark.parametrize("settings", [{"openai_contact_header": "x-contact"}])
async def test_a_person_that_a_header_names_is_told_apart(client: TestClient, bot: Slow) -> None:
    bot.released.set()
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    answers = []
    for count, contact in (("0", "ann"), ("1", "bea"), ("1", "ann")):
        headers = {"x-stainless-retry-count": count, "x-contact": contact}
        answers.append(said(await client.post(PATH, json=body, headers=headers)))
    assert answers == ["answer 1", "answer 2", "answer 1"]


@pytest.mark.parametrize("settings", [{"openai_on_disconnect": "cancel"}])
async def test_an_attempt_after_one_that_was_cancelled_is_a_new_message(client: TestClient, bot: Slow) -> None:
    await abandon(client, bot)
    assert said(await send(client, "1")) == "answer 2"


async def test_the_sdk_that_waits_too_little_gets_one_run() -> None:
    with Served("--app", "tests.apps.paced:app") as served:
        sdk = AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none", timeout=0.4, max_retries=5)
        async with sdk, httpx.AsyncClient(base_url=served.url) as reader:
            message: Any = {"role": "user", "content": "a1 wait 1"}
            try:
                answer = await sdk.chat.completions.create(model="m", messages=[message], user="ann")
                assert answer.choices[0].message.content == "a1 wait 1"
            except openai.APITimeoutError:  # a slow machine
                pass
            [thread] = (await reader.get("/api/v1/threads?contact_id=ann")).json()["threads"]
            events = (await reader.get(f"/api/v1/threads/{thread['thread_id']}/events")).json()["events"]
    assert [event["event_type"] for event in events].count("comm.user_message") == 1
