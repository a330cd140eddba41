"""Answers that are regenerated and messages that are edited: the conversation goes on in a fork of its thread."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from jimsapi import ThreadContext, create_api
from jimsapi.asgi.testing import TestClient

pytestmark = pytest.mark.anyio

AG_UI = "/ag-ui"


async def tell(ctx: ThreadContext) -> None:
    """Answer with all earlier messages of the user."""
    ctx.send_message(" ".join(str(said["content"]) for said in ctx.history if said["role"] == "user"))


@pytest.fixture(params=["memory:", "sqlite"])
async def client(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[TestClient]:
    store = f"sqlite:///{tmp_path}/jims.db" if request.param == "sqlite" else request.param
    async with TestClient(create_api(tell, store=store, agui_contact_header="x-person")) as client:
        client.headers["x-person"] = "ann"
        yield client


class Page:
    """What a page of an AG-UI client has: all messages of the conversation, each with an identifier."""

    def __init__(self, client: TestClient, messages: list[dict[str, Any]] | None = None) -> None:
        self.client = client
        self.messages = messages or []

    def copy(self) -> "Page":
        return Page(self.client, list(self.messages))

    async def say(self, text: str, **headers: str) -> str:
        self.messages.append({"id": str(uuid4()), "role": "user", "content": text})
        return await self.run(**headers)

    async def run(self, **headers: str) -> str:
        """Run the agent with the messages, and add its answer to them."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = await self.client.post(AG_UI, json=self.body(self.messages), headers=named)
        assert answer.status_code == 200, answer.text
        events = [json.loads(line[6:]) for line in answer.text.splitlines() if line]
        text = "".join(event.get("delta", "") for event in events)
        [message_id] = {event["messageId"] for event in events if event["type"] == "TEXT_MESSAGE_START"}
        self.messages.append({"id": message_id, "role": "assistant", "content": text})
        return text

    def body(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        empty: dict[str, Any] = {"state": {}, "tools": [], "context": [], "forwardedProps": {}}
        return {"threadId": "t-1", "runId": str(uuid4()), "messages": messages, **empty}

    async def reload(self) -> None:
        answer = await self.client.post(AG_UI, json=self.body([]))
        events = [json.loads(line[6:]) for line in answer.text.splitlines() if line]
        self.messages = events[1]["messages"]

    @property
    def texts(self) -> list[str]:
        return [message["content"] for message in self.messages if message["role"] == "user"]


@pytest.fixture
async def page(client: TestClient) -> Page:
    """A page on which three messages were said and answered."""
    page = Page(client)
    for text in ("one", "two", "three"):
        await page.say(text)
    return page


async def stored(client: TestClient) -> list[str]:
    """The messages of the user in the conversation, as a page has them that is loaded now."""
    page = Page(client)
    await page.reload()
    return page.texts


async def threads(client: TestClient) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await client.get("/api/v1/threads", params={"contact_id": "ann"})).json()["threads"]
    return found


async def test_a_regenerated_answer_replaces_the_last_one(page: Page) -> None:
    page.messages.pop()
    assert await page.run() == "one two three"
    assert await stored(page.client) == ["one", "two", "three"]
    fork, parent = await threads(page.client)
    assert fork["parent"]["thread_id"] == parent["thread_id"]


async def test_an_earlier_answer_is_regenerated_without_what_followed(page: Page) -> None:
    del page.messages[3:]
    assert await page.run() == "one two"
    assert await page.say("four") == "one two four"
    assert await stored(page.client) == ["one", "two", "four"]
    assert len(await threads(page.client)) == 2


async def test_the_first_answer_is_regenerated(page: Page) -> None:
    del page.messages[1:]
    assert await page.run() == "one"
    assert await page.say("four") == "one four"


async def test_an_edited_message_with_a_new_identifier_replaces_the_old_one(page: Page) -> None:
    del page.messages[2:]
    assert await page.say("TWO") == "one TWO"
    assert await page.say("four") == "one TWO four"
    assert await stored(page.client) == ["one", "TWO", "four"]
    assert len(await threads(page.client)) == 2


async def test_a_message_that_is_edited_in_its_place_replaces_the_old_one(page: Page) -> None:
    del page.messages[3:]
    page.messages[2]["content"] = "TWO"
    assert await page.run() == "one TWO"


async def test_after_a_reload_messages_are_known_by_the_identifiers_of_their_events(page: Page) -> None:
    await page.reload()
    page.messages.pop()
    assert await page.run() == "one two three"
    await page.reload()
    del page.messages[1:]
    page.messages[0]["content"] = "ONE"
    assert await page.run() == "ONE"
    assert await stored(page.client) == ["ONE"]


async def test_answers_that_the_client_names_itself_do_not_matter(page: Page) -> None:
    for message in page.messages:
        if message["role"] == "assistant":
            message["id"] = str(uuid4())
    assert await page.say("four") == "one two three four"
    del page.messages[2:]
    assert await page.say("TWO") == "one TWO"


async def test_a_client_that_sends_its_newest_message_only_continues_the_thread(page: Page) -> None:
    for text in ("four", "five"):
        page.messages = []
        await page.say(text)
    page.messages = [{"id": "1", "role": "user", "content": "six"}]
    await page.run()
    page.messages = [{"id": "1", "role": "user", "content": "seven"}]  # an identifier that it uses always
    assert await page.run() == "one two three four five six seven"
    assert len(await threads(page.client)) == 1


async def test_a_message_of_another_channel_that_the_client_does_not_know_is_not_replaced(page: Page) -> None:
    [thread] = await threads(page.client)
    other = {"contact_id": "ann", "thread_id": thread["thread_id"], "message": "by mail"}
    await page.client.post("/api/v1/chat", json=other)
    assert await page.say("four") == "one two three by mail four"
    assert len(await threads(page.client)) == 1
    del page.messages[6:]
    assert await page.say("FOUR") == "one two three by mail FOUR"


async def test_messages_that_the_thread_does_not_have_replace_nothing(page: Page) -> None:
    for message in page.messages:
        message["id"] = str(uuid4())
    assert await page.say("four") == "one two three four"
    page.messages[:-1] = [{"id": None, "role": "user", "content": "?"}, {"role": "assistant", "id": 7}]
    page.messages.append({"role": "user", "content": "five"})  # without an identifier
    assert await page.run() == "one two three four five"
    page.messages = [{"id": "x" * 300, "role": "user", "content": "six"}]
    assert await page.run() == "one two three four five six"
    assert len(await threads(page.client)) == 1


async def test_a_page_goes_on_in_the_branch_that_it_shows(page: Page) -> None:
    other = page.copy()
    del page.messages[2:]
    assert await page.say("TWO") == "one TWO"
    assert await other.say("four") == "one two three four"
    assert await stored(page.client) == ["one", "two", "three", "four"]
    assert await other.say("five") == "one two three four five"
    assert len(await threads(page.client)) == 3


async def test_a_page_regenerates_in_the_branch_that_it_shows(page: Page) -> None:
    other = page.copy()
    del page.messages[2:]
    await page.say("TWO")
    await page.say("THREE")
    del other.messages[5:]
    assert await other.run() == "one two three"
    assert await stored(page.client) == ["one", "two", "three"]


async def test_a_message_that_the_server_has_refused_stays_without_effect(page: Page) -> None:
    page.messages.append({"id": str(uuid4()), "role": "user", "content": "refused"})
    assert await page.say("four") == "one two three four"
    del page.messages[2:]
    page.messages.append({"id": str(uuid4()), "role": "user", "content": "refused"})
    assert await page.say("TWO") == "one two three four TWO"  # in doubt, so as a new message
    assert len(await threads(page.client)) == 1


async def test_two_pages_that_edit_the_same_message_at_once_both_get_their_answer(page: Page) -> None:
    del page.messages[2:]
    other = page.copy()
    first, second = await asyncio.gather(page.say("TWO"), other.say("zwei"))
    assert first == "one TWO"
    assert second in ("one zwei", "one TWO zwei")  # the second way if the first message is not stored yet
    assert (await stored(page.client))[-1] == "zwei"


async def test_a_request_that_is_repeated_with_its_key_is_answered_once(page: Page) -> None:
    page.messages.pop()
    first = await page.run(idempotency_key="k-1")
    again = page.messages.pop()["id"]
    assert await page.run(idempotency_key="k-1") == first
    assert page.messages[-1]["id"] == again
    assert await stored(page.client) == ["one", "two", "three"]
    assert len(await threads(page.client)) == 2


async def test_another_contact_with_the_same_thread_forks_nothing_of_it(page: Page) -> None:
    page.client.headers["x-person"] = "bob"
    page.messages.pop()
    assert await page.run() == "three"
    page.client.headers["x-person"] = "ann"
    assert await stored(page.client) == ["one", "two", "three"]
    assert len(await threads(page.client)) == 1


async def test_in_a_long_thread_the_message_is_found(client: TestClient) -> None:
    page = Page(client)
    for number in range(30):
        await page.say(str(number))
    del page.messages[5:]
    assert await page.run() == "0 1 2"
    assert await stored(client) == ["0", "1", "2"]
