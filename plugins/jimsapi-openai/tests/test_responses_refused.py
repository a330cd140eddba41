"""Bodies, identifiers and threads of odd content: they are refused by their names, and cost little."""

from typing import Any
from uuid import UUID

import httpx
import msgspec
import pytest
from jimsapi_openai import conversations
from jimsapi_openai.ids import item_id, run_of, thread_of
from jimsapi_openai.inputs import MOST_ITEMS, MOST_NAMED, Input, Message, earlier_events

from jimsapi import create_api
from jimsapi.api.app import Api
from jimsapi.asgi.testing import TestClient
from jimsapi.stores import MemoryStore
from jimsapi.threads import EventRow, NewEvent, ThreadStore, id_beside, uuid7
from tests.apps.scripted import Scripted

pytestmark = pytest.mark.anyio

MESSAGE = {"role": "user", "content": "see"}
DEEP = '{"a":' * 500 + "1" + "}" * 500
UNSTORABLE = [
    {"type": "mcp_call", "name": "f", "arguments": DEEP},
    {"type": "mcp_call", "name": "f", "arguments": '{"a":"\\u0000"}'},
    {"type": "mcp_call", "name": "f\0", "arguments": "{}"},
    {"role": "assistant", "content": "a\0b"},
    {"type": "reasoning", "summary": [{"type": "summary_text", "text": "a\0b"}]},
]


def store_of(client: TestClient) -> ThreadStore:
    api = client.app
    assert isinstance(api, Api)
    assert api.service is not None
    return api.service.store


async def ask(client: TestClient, said: Any, **fields: Any) -> httpx.Response:
    return await client.post("/v1/responses", json={"input": said, **fields})


async def created(client: TestClient, said: Any, **fields: Any) -> Any:
    answer = await ask(client, said, **fields)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def append(client: TestClient, conversation: str, *events: NewEvent) -> None:
    thread_id = thread_of(conversation)
    assert thread_id is not None
    await store_of(client).append(thread_id, None, list(events))


@pytest.mark.parametrize("item", [{}, MESSAGE, 1])
async def test_an_input_of_very_many_items_is_refused_before_they_are_read(client: TestClient, item: Any) -> None:
    answer = await ask(client, [item] * MOST_ITEMS + [MESSAGE])
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "input")
    assert str(MOST_ITEMS) in answer.json()["error"]["message"]
    path = f"/v1/conversations/{(await client.post('/v1/conversations', json={})).json()['id']}/items"
    for at in ("/v1/conversations", path):
        answer = await client.post(at, json={"items": [item] * 20_000})
        assert answer.status_code == 422
        assert len(answer.content) < 10_000
    assert (
        await ask(client, [{"role": "developer", "content": "x"}] * (MOST_ITEMS - 1) + [MESSAGE])
    ).status_code == 200


def test_of_items_without_effect_only_the_names_that_are_shown_are_kept() -> None:
    earlier: list[tuple[str, dict[str, Any]]] = [(f"input.{number}", {}) for number in range(999)]
    events, ignored = earlier_events(Input([Message("hi")], [], earlier))
    assert events == []
    assert ignored == [f"input.{number}" for number in range(MOST_NAMED)]


@pytest.mark.parametrize("item", UNSTORABLE)
async def test_an_item_that_no_store_accepts_is_refused_wherever_it_comes(client: TestClient, item: Any) -> None:
    for fields in ({}, {"store": False}):
        answer = await ask(client, [item, {"role": "assistant", "content": "b"}, MESSAGE], **fields)
        assert (answer.status_code, answer.json()["error"]["param"][:7]) == (422, "input.0"), answer.text
    path = f"/v1/conversations/{(await client.post('/v1/conversations', json={})).json()['id']}/items"
    for at in ("/v1/conversations", path):
        answer = await client.post(at, json={"items": [MESSAGE, item]})
        assert (answer.status_code, answer.json()["error"]["param"][:7]) == (422, "items.1"), answer.text
    assert (await client.get(path)).json()["data"] == []


@pytest.mark.parametrize("summary", [5, True, {"text": "x"}, "text"])
async def test_a_reasoning_whose_summary_is_no_list_is_refused(client: TestClient, summary: Any) -> None:
    answer = await client.post("/v1/conversations", json={"items": [{"type": "reasoning", "summary": summary}]})
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "items.0.summary")
    history = [{"type": "reasoning", "summary": summary}, {"role": "assistant", "content": "b"}, MESSAGE]
    assert (await ask(client, history)).headers["x-ignored-fields"] == "input.0"


async def test_an_identifier_with_the_prefix_of_another_item_is_not_found(client: TestClient) -> None:
    response = await created(client, "tool a; send Hi")
    path = f"/v1/conversations/{response['conversation']['id']}/items"
    listed = (await client.get(path)).json()["data"]
    known = {item["id"] for item in listed}
    assert len(known) == 3
    for one in known:
        event_id = UUID(one.rpartition("_")[2])
        for prefix in ("msg", "rs", "mcp", "fc", "fco"):
            named = item_id(prefix, event_id)
            status = 200 if named in known else 404
            assert (await client.get(f"{path}/{named}")).status_code == status, named
            assert (await client.delete(f"{path}/{named}")).status_code == (405 if named in known else 404), named
            for order in ("asc", "desc"):
                answer = await client.get(path, params={"after": named, "order": order})
                assert answer.status_code == status, (named, order)


async def test_an_event_of_another_program_is_no_request_for_approval(client: TestClient) -> None:
    conversation = (await client.post("/v1/conversations", json={})).json()["id"]
    for event_type in ("question.asked", "comm.assistant_message", "jims.score"):
        event = NewEvent(uuid7(), event_type, b'{"score": NaN, "content": "x"}')
        await append(client, conversation, event)
        named = f"mcpr_{conversation.removeprefix('conv_')}{event.event_id.hex}"
        approval = {"type": "mcp_approval_response", "approval_request_id": named, "approve": True}
        answer = await ask(client, [approval])
        assert answer.status_code == 404, answer.text


async def test_a_message_of_another_program_begins_another_turn(client: TestClient) -> None:
    first = await created(client, "one")
    data = b'{"role": "user", "content": "foreign", "score": NaN}'
    await append(client, first["conversation"]["id"], NewEvent(uuid7(), "comm.user_message", data))
    again = await created(client, "see", previous_response_id=first["id"])
    assert again["conversation"] != first["conversation"]
    assert again["output"][0]["content"][0]["text"] == '["one", "see"]'


async def test_a_response_is_retrieved_whatever_is_beside_its_message(client: TestClient) -> None:
    response = await created(client, "hi", metadata={"a": "b"})
    run_id = run_of(response["id"])
    assert run_id is not None
    run = await store_of(client).run(run_id, None, None)
    assert run.message_id is not None
    beside = NewEvent(id_beside(run.message_id, 2), "message.metadata", b'{"metadata": {"x": NaN}}')
    await append(client, response["conversation"]["id"], beside)
    for path in ("", "/input_items", "?stream=true"):
        answer = await client.get(f"/v1/responses/{response['id']}{path}")
        assert answer.status_code == 200, answer.text


async def test_the_event_of_another_message_is_not_shown_as_that_of_a_response(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    response = await created(client, "hi")
    read = MemoryStore.events_by_id

    async def others(self: MemoryStore, thread_id: UUID, ids: Any) -> list[EventRow]:
        return [msgspec.structs.replace(row, event_id=uuid7()) for row in await read(self, thread_id, ids)]

    monkeypatch.setattr(MemoryStore, "events_by_id", others)
    listed = await client.get(f"/v1/responses/{response['id']}/input_items")
    assert listed.json()["data"] == []


async def test_a_number_of_an_event_that_json_cannot_hold_is_refused(client: TestClient) -> None:
    response = await created(client, "hi")
    for after, status in ((2**53, 200), (2**53 + 1, 422), (2**64, 422), (10**30, 422)):
        query = {"stream": "true", "starting_after": str(after)}
        answer = await client.get(f"/v1/responses/{response['id']}", params=query)
        assert answer.status_code == status, answer.text
        assert "starting_after" in answer.text or status == 200


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The calls that read events, of a server that reads five times at most."""
    calls: list[str] = []
    monkeypatch.setattr(conversations, "MOST_READS", 5)
    for name in ("events", "load_events"):
        read = getattr(MemoryStore, name)

        def counted(self: MemoryStore, *arguments: Any, read: Any = read, name: str = name) -> Any:
            calls.append(name)
            return read(self, *arguments)

        monkeypatch.setattr(MemoryStore, name, counted)
    return calls


def states(count: int) -> list[NewEvent]:
    """Events that make no item."""
    return [NewEvent(uuid7(), "state.set.x", b"{}") for _ in range(count)]


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_a_page_reads_a_part_of_a_thread_of_very_many_events(reads: list[str], order: str) -> None:
    async with TestClient(create_api(Scripted(), store="memory:")) as client:
        first = await created(client, "send Hi")
        named = first["conversation"]["id"]
        await append(client, named, *states(1000))
        await created(client, "send Hi", conversation=named)
        reads.clear()
        found = (await client.get(f"/v1/conversations/{named}/items", params={"order": order})).json()
        assert len(reads) == 5
        assert (len(found["data"]), found["has_more"]) == (2, True)


async def test_an_item_that_is_too_far_from_the_beginning_is_found_from_the_newest(reads: list[str]) -> None:
    async with TestClient(create_api(Scripted(), store="memory:")) as client:
        first = await created(client, "send Hi")
        named = first["conversation"]["id"]
        await append(client, named, *states(1000))
        last = await created(client, "send Hi", conversation=named)
        path = f"/v1/conversations/{named}/items"
        reads.clear()
        query = {"after": last["output"][-1]["id"]}
        refused = await client.get(path, params={**query, "order": "asc"})
        assert (refused.status_code, "order" in refused.json()["error"]["message"]) == (422, True)
        assert len(reads) == 5
        assert len((await client.get(path, params=query)).json()["data"]) == 1
        unknown = await client.get(path, params={"after": item_id("msg", uuid7()), "order": "asc"})
        assert unknown.status_code == 404
