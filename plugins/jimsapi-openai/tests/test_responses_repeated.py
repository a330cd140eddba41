"""Requests for responses and conversations that are repeated, use a key of another one, or are refused by limits."""

import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from jimsapi import create_api
from jimsapi.asgi.testing import TestClient
from tests.apps.scripted import Scripted

pytestmark = pytest.mark.anyio

KEY = {"idempotency-key": "k"}
HISTORY = [
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": "b"},
    {"role": "user", "content": "see"},
]


@pytest.fixture
async def own(people: None) -> AsyncIterator[TestClient]:
    """A client whose callers have identities."""
    async with TestClient(create_api(Scripted(), store="memory:")) as client:
        yield client


async def ask(client: TestClient, said: Any, headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
    return await client.post("/v1/responses", json={"input": said, "user": "ann", **fields}, headers=headers)


async def created(client: TestClient, said: Any, headers: dict[str, str] | None = None, **fields: Any) -> Any:
    answer = await ask(client, said, headers, **fields)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def conversation(client: TestClient, body: Any = None, headers: dict[str, str] | None = None) -> httpx.Response:
    return await client.post("/v1/conversations", json={} if body is None else body, headers=headers)


async def thread_ids(client: TestClient, contact: str = "ann", **headers: str) -> list[str]:
    found = await client.get("/api/v1/threads", params={"contact_id": contact}, headers=headers)
    return [thread["thread_id"] for thread in found.json()["threads"]]


def text_of(response: Any) -> str:
    return str(response["output"][0]["content"][0]["text"])


def is_mismatch(answer: httpx.Response) -> bool:
    """Return whether a request was refused because its key was used for another one."""
    return answer.status_code == 422 and "idempotency key" in answer.json()["error"]["message"]


async def places(client: TestClient) -> list[dict[str, Any]]:
    """Fields of requests for places of every kind: a thread's end, a fork, a conversation, a new thread, with items."""
    first = await created(client, "one")
    second = await created(client, "two", previous_response_id=first["id"])
    named = await created(client, "three")
    return [
        {"input": "see", "previous_response_id": first["id"]},
        {"input": "see", "previous_response_id": second["id"]},
        {"input": "see", "conversation": named["conversation"]["id"]},
        {"input": "see"},
        {"input": HISTORY},
        {"input": [{"role": "user", "content": "other"}, *HISTORY[1:]]},
    ]


async def test_a_repetition_in_another_process_gets_the_first_response_and_makes_no_thread(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/threads.db"
    async with TestClient(create_api(Scripted(), store=store)) as client:
        requests = [{"said": fields.pop("input"), **fields} for fields in await places(client)]
        first = [
            await created(client, **fields, headers={"idempotency-key": f"k{number}"})
            for number, fields in enumerate(requests)
        ]
        before = await thread_ids(client)
        same = [
            await created(client, **fields, headers={"idempotency-key": f"k{number}"})
            for number, fields in enumerate(requests)
        ]
    async with TestClient(create_api(Scripted(), store=store)) as client:
        again = [
            await created(client, **fields, headers={"idempotency-key": f"k{number}"})
            for number, fields in enumerate(requests)
        ]
        assert await thread_ids(client) == before
    for repeated in (same, again):
        for one, other in zip(first, repeated, strict=True):
            assert [one[name] for name in ("id", "conversation", "output")] == [
                other[name] for name in ("id", "conversation", "output")
            ]


async def test_a_key_is_not_used_for_another_place_or_message(client: TestClient) -> None:
    requests = await places(client)
    before = len(await thread_ids(client))
    for number, (used, other) in enumerate(itertools.permutations(requests, 2)):
        headers = {"idempotency-key": f"k{number}"}
        first = await client.post("/v1/responses", json={"user": "ann", **used}, headers=headers)
        assert first.status_code == 200, first.text
        for body in (other, {**used, "input": "else"}):
            answer = await client.post("/v1/responses", json={"user": "ann", **body}, headers=headers)
            assert is_mismatch(answer), (used, body, answer.text)
    # Of 30 requests that were accepted, 5 went to the conversation, and 1 to the thread whose end it continued.
    assert len(await thread_ids(client)) - before == 24


@pytest.mark.parametrize("named", ["header", "user"])
async def test_two_people_of_one_caller_who_use_the_same_key_never_share(own: TestClient, named: str) -> None:
    found = []
    for person in ("ann", "bea"):
        headers = {"x-user": "root", **KEY}
        if named == "header":
            headers["x-openwebui-user-id"] = person
        items = [{"role": "user", "content": f"of {person}"}, *HISTORY[1:]]
        found.append(await created(own, items, headers, user=person))
    assert [text_of(one) for one in found] == ['["of ann", "see"]', '["of bea", "see"]']
    assert found[0]["conversation"] != found[1]["conversation"]
    for other, one in (("bea", found[0]), ("ann", found[1])):
        headers = {"x-user": "root", "x-openwebui-user-id": other, **KEY}
        for fields in ({"conversation": one["conversation"]["id"]}, {"previous_response_id": one["id"]}):
            assert (await ask(own, "see", headers, **fields)).status_code == 404


async def test_a_key_of_a_refused_request_names_no_place(client: TestClient) -> None:
    one, two = [await created(client, "hi") for _ in range(2)]
    file = [{"type": "input_file", "file_id": "file-1"}]  # this server keeps no files
    refused = await ask(client, [{"role": "user", "content": file}], KEY, conversation=one["conversation"]["id"])
    assert refused.status_code == 422, refused.text
    again = await created(client, "see", KEY, conversation=two["conversation"]["id"])
    assert again["conversation"] == two["conversation"]


async def test_people_of_one_conversation_each_have_their_own_key(own: TestClient) -> None:
    made = [(await conversation(own, headers={"x-user": user, **KEY})).json() for user in ("ann", "bea", "root")]
    assert len({one["id"] for one in made}) == 3
    body = {"items": [{"role": "user", "content": "x"}]}
    path = f"/v1/conversations/{made[0]['id']}/items"
    added = [await own.post(path, json=body, headers={"x-user": user, **KEY}) for user in ("ann", "root")]
    assert [answer.status_code for answer in added] == [200, 200]
    listed = (await own.get(path, headers={"x-user": "ann"})).json()["data"]
    assert len(listed) == 2


@pytest.mark.parametrize("settings", [{"rate_limit": "2/day"}])
async def test_what_a_limit_refuses_makes_no_thread(client: TestClient) -> None:
    first = await created(client, "one")
    await created(client, "two", previous_response_id=first["id"])
    before = await thread_ids(client)
    fork = {"previous_response_id": first["id"]}
    refused = [
        await ask(client, "see", **fork),
        await ask(client, "see", KEY, **fork),
        await ask(client, HISTORY),
        await ask(client, HISTORY, {"idempotency-key": "other"}),
        await conversation(client, headers={"x-openwebui-user-id": "ann"}),
    ]
    for answer in refused:
        assert answer.status_code == 429, answer.text
        assert answer.json()["error"]["type"] == "rate_limit_error"
        assert "retry-after" in answer.headers
    assert await thread_ids(client) == before


@pytest.mark.parametrize("settings", [{"token_budget": "10/day"}])
async def test_what_a_budget_refuses_makes_no_thread(client: TestClient) -> None:
    first = await created(client, "one", KEY)
    await created(client, "use 100", previous_response_id=first["id"])
    before = await thread_ids(client)
    for said, fields in (("see", {"previous_response_id": first["id"]}), (HISTORY, {})):
        for headers in ({}, {"idempotency-key": "other"}):
            assert (await ask(client, said, headers, **fields)).status_code == 429
    assert (await created(client, "one", KEY))["id"] == first["id"]
    assert await thread_ids(client) == before


async def test_a_conversation_is_created_once_and_another_body_is_refused(client: TestClient) -> None:
    body = {"metadata": {"a": "1"}, "items": [{"role": "user", "content": "x"}]}
    made = await conversation(client, body, KEY)
    assert made.status_code == 200
    assert (await conversation(client, body, KEY)).json() == made.json()
    for other in ({**body, "metadata": {"a": "2"}}, {**body, "items": []}, {"metadata": {"a": "1"}}, {}):
        assert is_mismatch(await conversation(client, other, KEY)), other
    path = f"/v1/conversations/{made.json()['id']}"
    await client.post(path, json={"metadata": {"b": "3"}})
    assert (await conversation(client, body, KEY)).json()["metadata"] == {"b": "3"}
    assert len((await client.get(f"{path}/items")).json()["data"]) == 1


async def test_items_are_added_once_and_another_body_is_refused(client: TestClient) -> None:
    path = f"/v1/conversations/{(await conversation(client)).json()['id']}/items"
    call = {"type": "mcp_call", "name": "f", "arguments": '{"a": 1.5, "b": [true]}', "output": {"c": 1}}
    items = [{"role": "user", "content": "x"}, call]

    async def add(*sent: Any) -> httpx.Response:
        return await client.post(path, json={"items": sent}, headers=KEY)

    added = await add(*items)
    assert added.status_code == 200, added.text
    assert (await add(*items)).json() == added.json()
    for other in ([*items, call], items[:1], items[::-1], [items[0], {**call, "output": "3"}]):
        answer = await add(*other)
        assert is_mismatch(answer), (other, answer.text)
    assert len((await client.get(path)).json()["data"]) == 2


async def test_an_approval_that_is_repeated_gets_the_same_answer() -> None:
    async def refund(ctx: Any) -> None:
        ctx.send_message(f"said {await ctx.ask('refund', 'Refund?', options=['yes', 'no'])}")

    async with TestClient(create_api(refund, store="memory:")) as client:
        asked = await created(client, "refund")
        request_id = asked["output"][-1]["id"]
        approval = [{"type": "mcp_approval_response", "approval_request_id": request_id, "approve": True}]
        again = [await created(client, approval, KEY, previous_response_id=asked["id"]) for _ in range(2)]
        assert again[0]["id"] == again[1]["id"]
        assert text_of(again[0]) == "said yes"
        assert len(await thread_ids(client)) == 1
