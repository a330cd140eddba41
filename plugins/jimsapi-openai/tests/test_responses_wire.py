"""The exact answers and events of Responses, what is refused, and streams whose pieces are gone."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import httpx
import pytest

from jimsapi import JimsApp, ThreadContext, create_api
from jimsapi.asgi.testing import TestClient
from tests.apps.scripted import Scripted

pytestmark = pytest.mark.anyio

RESPONSES = "/v1/responses"
OPEN_WEBUI = {"x-openwebui-chat-id": "c", "x-openwebui-user-id": "ann"}


async def ask(client: TestClient, said: Any, headers: dict[str, str] | None = None, **options: Any) -> httpx.Response:
    return await client.post(RESPONSES, json={"model": "any", "input": said, **options}, headers=headers)


async def created(client: TestClient, text: Any, headers: dict[str, str] | None = None, **options: Any) -> Any:
    answer = await ask(client, text, headers, **options)
    assert answer.status_code == 200, answer.text
    return answer.json()


def said(response: Any) -> str:
    texts = [part["text"] for item in response["output"] if item["type"] == "message" for part in item["content"]]
    return "".join(texts)


def events_of(answer: httpx.Response) -> list[Any]:
    """The events of a stream, which is complete and whose names are their types."""
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8", answer.text
    *frames, done, rest = answer.text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    events = []
    for frame in frames:
        name, data = frame.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        events.append(event)
    numbers = [event["sequence_number"] for event in events]
    assert numbers == sorted(set(numbers))
    return events


async def streamed(client: TestClient, text: Any, headers: dict[str, str] | None = None, **options: Any) -> list[Any]:
    return events_of(await ask(client, text, headers, stream=True, **options))


async def resumed(client: TestClient, response_id: str, after: int | None = None) -> list[Any]:
    query = {"stream": "true"} | ({} if after is None else {"starting_after": str(after)})
    return events_of(await client.get(f"{RESPONSES}/{response_id}", params=query))


def kinds(events: list[Any]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


async def test_the_events_of_a_message(client: TestClient) -> None:
    events = await streamed(client, "status Looking; stream Hel; stream lo; source https://a.example/")
    assert [event["sequence_number"] for event in events] == list(range(11))
    assert kinds(events) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.annotation.added",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    item = events[2]["item"]
    assert item == {"id": item["id"], "type": "message", "status": "in_progress", "role": "assistant", "content": []}
    assert {event["item_id"] for event in events[3:9]} == {item["id"]}
    assert [event["delta"] for event in events[4:6]] == ["Hel", "lo"]
    citation = {"type": "url_citation", "url": "https://a.example/", "title": "https://a.example/"}
    part = {
        "type": "output_text",
        "text": "Hello",
        "annotations": [{**citation, "start_index": 0, "end_index": 0}],
        "logprobs": [],
    }
    assert events[8]["part"] == part
    assert events[9]["item"] == {**item, "status": "completed", "content": [part]}
    assert events[10]["response"]["output"] == [events[9]["item"]]


async def test_a_response_has_every_field_of_the_format(client: TestClient) -> None:
    response = await created(client, "send Hi", metadata={"a": "b"})
    assert {"error", "incomplete_details", "instructions", "temperature", "top_p", "tools", "tool_choice"} < set(
        response
    )
    assert (response["object"], response["store"], response["background"]) == ("response", True, False)
    assert response["metadata"] == {"a": "b"}
    assert isinstance(response["created_at"], int)
    assert response["completed_at"] >= response["created_at"]


async def test_calls_of_tools_that_overlap_fail_or_stay_open_keep_their_places(client: TestClient) -> None:
    events = await streamed(client, "begin one; begin two; end one; send Hi")
    final = events[-1]["response"]["output"]
    assert [(item["type"], item["status"]) for item in final] == [
        ("mcp_call", "completed"),
        ("mcp_call", "failed"),
        ("message", "completed"),
    ]
    assert final[1]["error"]["content"] == [{"type": "text", "text": "the call did not end"}]
    added = [event["output_index"] for event in events if event["type"].endswith("output_item.added")]
    assert added == [0, 1, 2]
    for event in events:
        if event["type"].endswith("output_item.done"):
            assert event["item"] == final[event["output_index"]]


async def test_buttons_are_a_list_in_the_text(client: TestClient) -> None:
    assert said(await created(client, "buttons Choose")) == "Choose\n- Yes"
    assert said((await streamed(client, "buttons Choose"))[-1]["response"]) == "Choose\n- Yes"


async def test_open_webui_gets_calls_as_pairs_and_its_chat_is_one_thread(client: TestClient) -> None:
    events = await streamed(client, "tool search; send Hi", OPEN_WEBUI)
    call, output, _ = events[-1]["response"]["output"]
    assert (call["type"], call["name"], call["arguments"], call["status"]) == (
        "function_call",
        "search",
        "{}",
        "completed",
    )
    assert (output["type"], output["call_id"]) == ("function_call_output", call["call_id"])
    assert output["output"] == [{"type": "input_text", "text": "search"}]
    history = [
        {"role": "user", "content": [{"type": "input_text", "text": "tool search; send Hi"}]},
        call,
        output,
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hi"}]},
        {"role": "user", "content": [{"type": "input_text", "text": "see"}]},
    ]
    assert said(await created(client, history, OPEN_WEBUI)) == '["tool search; send Hi", "see"]'
    task = "### Task:\nMake a title"
    response = await created(client, task, OPEN_WEBUI)
    assert (said(response), response["store"]) == (f"You said: {task}", False)
    assert said(await created(client, "see", OPEN_WEBUI)) == '["tool search; send Hi", "see", "see"]'


@pytest.mark.parametrize("settings", [{"run_timeout": 0.05}])
async def test_a_run_that_takes_too_long_fails(client: TestClient) -> None:
    answer = await ask(client, "hold door")
    assert (answer.status_code, answer.headers["x-should-retry"]) == (504, "false")
    assert kinds(await streamed(client, "stream Hel; hold door"))[-2:] == ["error", "failed"]


async def test_a_failed_pipeline_is_an_error_and_in_a_stream_its_last_events(client: TestClient) -> None:
    answer = await ask(client, "raise no model")
    assert (answer.status_code, answer.headers["x-should-retry"]) == (500, "false")
    assert answer.json()["error"]["message"] == "Pipeline error: no model"
    events = await streamed(client, "stream Hel; raise no model")
    error, failed = events[-2:]
    assert (error["code"], error["message"], error["param"]) == (
        "internal_server_error",
        "Pipeline error: no model",
        None,
    )
    assert failed["response"]["status"] == "failed"
    assert failed["response"]["error"] == {"code": "server_error", "message": "Pipeline error: no model"}
    shown = (await client.get(f"{RESPONSES}/{failed['response']['id']}")).json()
    assert (shown["status"], shown["error"], shown["output"]) == ("failed", failed["response"]["error"], [])
    again = await created(client, "see", previous_response_id=shown["id"])
    assert said(again) == '["stream Hel; raise no model", "see"]'


@pytest.mark.parametrize("settings", [{"hide_errors": True}])
async def test_a_hidden_error_is_the_reference_of_its_run(client: TestClient) -> None:
    failed = (await streamed(client, "raise no model"))[-1]["response"]
    assert "reference" in failed["error"]["message"]
    shown = (await client.get(f"{RESPONSES}/{failed['id']}")).json()
    assert shown["error"] == failed["error"]


async def test_a_cancelled_response_ends_its_stream_as_incomplete(client: TestClient, bot: Scripted) -> None:
    begun = await created(client, "stream Hel; hold door", background=True)
    await bot.reached["door"].wait()
    stream = asyncio.create_task(resumed(client, begun["id"]))
    assert (await client.post(f"{RESPONSES}/{begun['id']}/cancel")).json()["status"] == "cancelled"
    events = await stream
    assert kinds(events)[-1] == "incomplete"
    assert events[-1]["response"]["status"] == "cancelled"


async def threads_of(client: TestClient) -> list[Any]:
    """The threads of `ann`."""
    found: list[Any] = (await client.get("/api/v1/threads", params={"contact_id": "ann"})).json()["threads"]
    return found


async def test_what_a_reader_missed_is_in_the_last_event(client: TestClient, bot: Scripted) -> None:
    words = [f"{number}." for number in range(1500)]
    steps = "; ".join(["stream begin", *(f"stream {word}" for word in words)])
    events = await streamed(client, steps)
    response = events[-1]["response"]
    assert len(events) > 1500
    rest = await resumed(client, response["id"], 5)
    assert kinds(rest) == ["completed"]
    assert rest[0]["sequence_number"] == 6
    assert rest[0]["response"]["output"] == response["output"]
    assert kinds(await resumed(client, response["id"], len(events) - 2)) == ["completed"]
    whole = await resumed(client, response["id"])
    assert kinds(whole)[:2] == ["created", "in_progress"]
    assert kinds(whole).count("output_text.delta") == 1
    assert whole[-1]["response"]["output"] == response["output"]


async def test_a_stream_that_is_resumed_while_it_runs_brings_the_rest(client: TestClient, bot: Scripted) -> None:
    begun = await created(client, "stream Hel; hold door; stream lo", background=True)
    await bot.reached["door"].wait()
    for after in (-1, 3, 4):
        stream = asyncio.create_task(resumed(client, begun["id"], None if after < 0 else after))
        if after == 4:
            bot.opened["door"].set()
            assert kinds(await stream)[0] == "output_text.delta"
            assert (await resumed(client, begun["id"], 4))[0]["delta"] == "lo"
        else:
            stream.cancel()


class Queue:
    """A queue of background runs. It notes them in `runs`, and no worker receives them."""

    name = "notes"

    def __init__(self) -> None:
        self.runs: list[UUID] = []

    async def put(self, run_ids: Sequence[UUID]) -> None:
        self.runs += run_ids

    async def receive(self, do: Any, at_once: int) -> None: ...

    def stop_receiving(self) -> None: ...


async def test_a_background_response_is_left_to_workers_unless_its_caller_reads_the_stream(
    client: TestClient, bot: Scripted
) -> None:
    queue = Queue()
    client.app.service.use_workers(queue)
    begun = [await created(client, "one", {"idempotency-key": "k"}, background=True) for _ in range(2)]
    assert begun[0]["status"] == "queued"
    assert begun[0]["id"] == begun[1]["id"]
    assert len(queue.runs) == 1
    assert kinds(await streamed(client, "two", background=True))[-1] == "completed"
    assert bot.texts == ["two"]


async def test_a_background_response_streams_and_outlives_its_client(client: TestClient, bot: Scripted) -> None:
    stream = asyncio.create_task(ask(client, "hold door; send late", stream=True, background=True))
    await bot.reached["door"].wait()
    stream.cancel()
    bot.opened["door"].set()
    assert said(await created(client, "send now")) == "now"


async def test_without_storing_the_pipeline_sees_the_input_and_nothing_is_kept(client: TestClient) -> None:
    history = [
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "You said: one"},
        {"role": "user", "content": "see"},
    ]
    answer = await ask(client, history, store=False, user="ann")
    assert said(answer.json()) == '["one", "see"]'
    assert answer.headers["x-ignored-fields"] == "input.0"
    assert (answer.json()["store"], answer.json()["conversation"]) == (False, None)
    assert (await client.get(f"{RESPONSES}/{answer.json()['id']}")).status_code == 404
    assert await threads_of(client) == []


async def test_a_long_history_makes_no_long_header(client: TestClient) -> None:
    many = [{"role": "developer", "content": "Be kind."}] * 900
    answer = await ask(client, [*many, {"role": "user", "content": "hi"}])
    assert answer.headers["x-ignored-fields"].endswith("input.19")


async def test_earlier_items_of_the_input_begin_a_new_thread(client: TestClient) -> None:
    history = [
        {"role": "user", "content": "one"},
        {"type": "mcp_call", "id": "mcp_1", "name": "f", "server_label": "x", "arguments": '{"a":1}', "output": "2"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "fine"}]},
        {"role": "user", "content": "two"},
        {"role": "user", "content": "see"},
    ]
    response = await created(client, history, user="ann")
    assert said(response) == '["one", "two", "see"]'
    listed = (await client.get(f"/v1/conversations/{response['conversation']['id']}/items?order=asc")).json()["data"]
    assert [item["type"] for item in listed] == ["message", "mcp_call", *["message"] * 4]
    assert (listed[1]["arguments"], listed[1]["output"]) == ('{"a":1}', "2")


async def test_several_new_messages_of_a_conversation_are_one(client: TestClient) -> None:
    first = await created(client, "one")
    said_now = [{"role": "user", "content": "see"}, {"role": "user", "content": "two"}]
    response = await created(
        client, [{"role": "user", "content": "two"}, said_now[0]], previous_response_id=first["id"]
    )
    assert response["conversation"] == first["conversation"]
    [item] = (await client.get(f"{RESPONSES}/{response['id']}/input_items")).json()["data"]
    assert item["content"] == [{"type": "input_text", "text": "two\n\nsee"}]


async def test_parallel_answers_to_one_response_are_branches(client: TestClient) -> None:
    first = await created(client, "one")
    options = {"previous_response_id": first["id"]}
    found = await asyncio.gather(*[created(client, "see", **options) for _ in range(4)])
    assert [said(response) for response in found] == ['["one", "see"]'] * 4
    assert len({response["conversation"]["id"] for response in found}) == 4


async def test_a_response_in_progress_is_not_continued(client: TestClient, bot: Scripted) -> None:
    begun = await created(client, "hold door", background=True)
    await bot.reached["door"].wait()
    answer = await ask(client, "two", previous_response_id=begun["id"])
    assert (answer.status_code, "in progress" in answer.text) == (409, True)
    assert "x-should-retry" not in answer.headers
    bot.opened["door"].set()


async def test_a_conversation_takes_messages_one_after_another(client: TestClient, bot: Scripted) -> None:
    conversation = (await client.post("/v1/conversations", json={})).json()
    first = await created(client, "hold door", background=True, conversation=conversation["id"])
    await bot.reached["door"].wait()
    second = asyncio.create_task(created(client, "see", conversation={"id": conversation["id"]}))
    bot.opened["door"].set()
    assert said(await second) == '["hold door", "see"]'
    assert (await client.get(f"{RESPONSES}/{first['id']}")).json()["status"] == "completed"


@pytest.mark.parametrize(
    ("options", "place"),
    [
        ({"text": {"format": {"type": "json_schema"}}}, "text.format"),
        ({"include": ["message.output_text.logprobs"]}, "include"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"conversation": "conv_1", "previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": {}}, "conversation.id"),
        ({"store": False, "background": True}, "store"),
        ({"store": False, "previous_response_id": "resp_1"}, "store"),
        ({"metadata": "text"}, "metadata"),
        ({"input": []}, "input"),
        ({"input": [{"role": "assistant", "content": "hi"}]}, "input"),
        ({"input": [{"role": "user", "content": []}]}, "input.0.content"),
        ({"input": [{"role": "user", "content": [{"type": "refusal", "refusal": "x"}]}]}, "input.0.content.0"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}, {"role": "user", "content": "x"}]}, "input.0"),
        ({"input": [{"type": "mcp_approval_response", "approve": "yes"}]}, "input.0"),
        ({"input": "a\0b"}, "input"),
    ],
)
async def test_what_is_not_served_is_refused_by_its_name(
    client: TestClient, bot: Scripted, options: Any, place: str
) -> None:
    answer = await client.post(RESPONSES, json={"model": "m", "input": "hi", **options})
    assert answer.status_code == 422, answer.text
    assert answer.json()["error"]["param"] == place
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert bot.texts == []


@pytest.mark.parametrize("stream", [False, True])
async def test_fields_without_effect_are_named_in_the_answer(client: TestClient, stream: bool) -> None:
    tools = [{"type": "web_search"}]
    answer = await ask(client, "hi", stream=stream, tools=tools, temperature=0.5, instructions="Be kind.", own=1)
    assert answer.headers["x-ignored-fields"] == "instructions, temperature, tools"
    plain = await ask(client, "hi", stream=stream, tools=[], text={"format": {"type": "text"}}, truncation=None)
    assert "x-ignored-fields" not in plain.headers


@pytest.mark.parametrize(
    "identifier", ["resp_" + "0" * 32, "resp_1", "conv_" + "0" * 32, "resp_" + "0" * 31 + "g", "0" * 32]
)
async def test_an_unknown_identifier_is_not_found_in_the_form_of_the_sdks(client: TestClient, identifier: str) -> None:
    tried = [
        await client.get(f"{RESPONSES}/{identifier}"),
        await client.get(f"{RESPONSES}/{identifier}?stream=true"),
        await client.post(f"{RESPONSES}/{identifier}/cancel"),
        await client.delete(f"{RESPONSES}/{identifier}"),
        await client.get(f"{RESPONSES}/{identifier}/input_items"),
        await ask(client, "hi", previous_response_id=identifier),
        await ask(client, "hi", conversation=identifier),
        await client.get(f"/v1/conversations/{identifier}"),
        await client.post(f"/v1/conversations/{identifier}", json={"metadata": {}}),
        await client.delete(f"/v1/conversations/{identifier}"),
        await client.get(f"/v1/conversations/{identifier}/items"),
        await client.post(f"/v1/conversations/{identifier}/items", json={"items": []}),
        await client.get(f"/v1/conversations/{identifier}/items/msg_1"),
        await client.delete(f"/v1/conversations/{identifier}/items/msg_1"),
    ]
    for answer in tried:
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found"), answer.request.url


async def test_a_response_of_its_own_thread_is_deleted_and_one_among_others_is_not(client: TestClient) -> None:
    alone = await created(client, "one", user="ann")
    assert (await client.delete(f"{RESPONSES}/{alone['id']}")).json() == {
        "id": alone["id"],
        "object": "response",
        "deleted": True,
    }
    assert (await client.get(f"{RESPONSES}/{alone['id']}")).status_code == 404
    assert await threads_of(client) == []
    first = await created(client, "one", user="ann")
    second = await created(client, "two", previous_response_id=first["id"])
    for response in (first, second):
        answer = await client.delete(f"{RESPONSES}/{response['id']}")
        assert (answer.status_code, answer.headers.get_list("x-should-retry")) == (409, ["false"])
        assert first["conversation"]["id"] in answer.json()["error"]["message"]
    assert (await client.delete(f"/v1/conversations/{first['conversation']['id']}")).status_code == 200


@pytest.mark.parametrize(
    "item",
    [
        {"type": "function_call", "name": "f", "arguments": "{}", "call_id": "1"},
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": "a\0b"},
        {"role": "assistant", "content": []},
        {"type": "mcp_call", "name": "f", "arguments": "[]"},
        {"type": "mcp_call", "name": "f", "arguments": "{"},
        {"role": "user", "content": [{"type": "input_file", "file_data": "data:text/plain,x"}]},
    ],
)
async def test_an_item_that_a_conversation_does_not_keep_is_refused(client: TestClient, item: Any) -> None:
    items = [{"role": "user", "content": "fine"}, item]
    answer = await client.post("/v1/conversations", json={"items": items})
    assert (answer.status_code, answer.json()["error"]["param"][:7]) == (422, "items.1")
    conversation = (await client.post("/v1/conversations", json={"metadata": None})).json()
    path = f"/v1/conversations/{conversation['id']}/items"
    assert (await client.post(path, json={"items": items})).status_code == 422
    assert (await client.get(path)).json()["data"] == []


async def test_a_request_that_is_sent_again_is_one(client: TestClient) -> None:
    first = await created(client, "one")
    again = [
        await created(client, "see", {"x-stainless-retry-count": count}, previous_response_id=first["id"])
        for count in "012"
    ]
    assert len({response["id"] for response in again}) == 1
    assert again[0]["output"] == again[1]["output"] == again[2]["output"]
    assert said(again[0]) == '["one", "see"]'
    history = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    background = [await created(client, "one", {"idempotency-key": "b"}, background=True) for _ in range(2)]
    assert background[0]["id"] == background[1]["id"]
    seeded = [await created(client, history, {"idempotency-key": "k"}, user="ann") for _ in range(2)]
    assert seeded[0]["id"] == seeded[1]["id"]
    assert len(await threads_of(client)) == 1
    made = [(await client.post("/v1/conversations", json={}, headers={"x-stainless-retry-count": c})) for c in "01"]
    assert made[0].json() == made[1].json()
    path = f"/v1/conversations/{made[0].json()['id']}/items"
    body = {"items": [{"role": "user", "content": "x"}]}
    added = [(await client.post(path, json=body, headers={"x-stainless-retry-count": count})) for count in "01"]
    assert added[0].json() == added[1].json()
    assert len((await client.get(path)).json()["data"]) == 1


async def test_private_events_are_in_no_item_and_a_fork_keeps_them() -> None:
    async def note(ctx: ThreadContext) -> None:
        ctx.send_message(f"seen {(ctx.get_state('secret') or {}).get('x')}")
        ctx.set_state("secret", {"x": 1})
        ctx.send_event("agent.note", {"hidden": "yes"})

    app = JimsApp(note, private_events=("state.*", "agent.*"))
    async with TestClient(create_api(app, store="memory:")) as client:
        first = await created(client, "one")
        await created(client, "two", previous_response_id=first["id"])
        fork = await created(client, "three", previous_response_id=first["id"])
        assert said(fork) == "seen 1"
        for response in (first, fork):
            shown = await client.get(f"/v1/conversations/{response['conversation']['id']}/items")
            assert "hidden" not in shown.text
            assert "secret" not in shown.text


async def test_the_routes_are_in_the_openapi_document(client: TestClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    assert {RESPONSES, f"{RESPONSES}/{{id}}", "/v1/conversations", "/v1/conversations/{id}/items"} <= set(paths)
