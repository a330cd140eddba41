"""The exact answers: the formats that clients of many languages parse, and errors."""

import json
from typing import Any

import httpx
import pytest

from jimsapi import JimsApp, ThreadContext, create_api
from jimsapi.asgi.testing import TestClient
from tests.apps.scripted import Scripted

pytestmark = pytest.mark.anyio

COMPLETIONS = "/v1/chat/completions"
ODD = 'line\nend\r\n\u2028\u2029\u0085"\\ 😀'


def body(text: Any, **options: Any) -> dict[str, Any]:
    return {"model": "any", "messages": [{"role": "user", "content": text}], **options}


async def ask(client: TestClient, text: Any, headers: dict[str, str] | None = None, **options: Any) -> httpx.Response:
    return await client.post(COMPLETIONS, json=body(text, **options), headers=headers)


async def content(client: TestClient, text: Any, headers: dict[str, str] | None = None) -> str:
    answer = await ask(client, text, headers)
    assert answer.status_code == 200, answer.text
    told: str = answer.json()["choices"][0]["message"]["content"]
    return told


def lines(answer: httpx.Response) -> list[Any]:
    """The data of each event of a whole stream, which has nothing but data."""
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    *events, rest = answer.text.split("\n\n")
    assert rest == ""
    assert all(event.startswith("data: ") for event in events)
    return [event if event == "data: [DONE]" else json.loads(event.removeprefix("data: ")) for event in events]


async def test_the_chunks_of_a_stream(client: TestClient) -> None:
    answer = await ask(client, "stream Hel; status Looking; stream lo; event x", stream=True)
    *chunks, done = lines(answer)
    assert done == "data: [DONE]"
    head = {key: chunks[0].pop(key) for key in ("id", "object", "created", "model")}
    assert head["object"] == "chat.completion.chunk"
    assert head["model"] == "Scripted"
    assert head["id"] == f"chatcmpl-{answer.headers['x-run-id'].replace('-', '')}"
    assert [{key: chunk.pop(key) for key in head} for chunk in chunks[1:]] == [head] * 3
    assert chunks == [
        {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]},
        {"choices": [{"index": 0, "delta": {"content": "Hel"}, "finish_reason": None}]},
        {"choices": [{"index": 0, "delta": {"content": "lo"}, "finish_reason": None}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    ]


async def test_the_usage_is_told_before_the_end_of_a_stream_that_asks_for_it(client: TestClient) -> None:
    answer = await ask(client, "send eight by", stream=True, stream_options={"include_usage": True})
    *_, stop, usage, done = lines(answer)
    assert stop["choices"][0]["finish_reason"] == "stop"
    assert usage["choices"] == []
    assert usage["usage"] == {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6}
    assert done == "data: [DONE]"


async def test_a_completion_as_one_object(client: TestClient) -> None:
    answer = await ask(client, "send Hello")
    told = answer.json()
    assert isinstance(told.pop("created"), int)
    assert told == {
        "id": f"chatcmpl-{answer.headers['x-run-id'].replace('-', '')}",
        "object": "chat.completion",
        "model": "Scripted",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    }


@pytest.mark.parametrize(
    ("steps", "text"),
    [
        ("send One; send Two", "One\n\nTwo"),
        ("stream One; send Two", "One\n\nTwo"),
        ("stream On; send One; stream Two", "One\n\nTwo"),
        ("buttons Choose", "Choose\n- Yes"),
        ("send One; send ; send Two", "One\n\nTwo"),
        ("event x", ""),
    ],
)
async def test_several_messages_are_one_text_whole_or_in_pieces(client: TestClient, steps: str, text: str) -> None:
    assert await content(client, steps) == text
    *chunks, stop, _ = lines(await ask(client, steps, stream=True))
    assert "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks) == text
    assert stop["choices"][0]["delta"] == {}


async def test_odd_characters_arrive_and_end_no_line_for_clients_that_split_as_python_does() -> None:
    async def echo(ctx: ThreadContext) -> None:
        await ctx.stream(ctx.get_last_user_message())

    async with TestClient(create_api(echo, store="memory:")) as client:
        assert await content(client, ODD) == ODD
        answer = await ask(client, ODD, stream=True)
        chunks = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
        assert chunks[1]["choices"][0]["delta"]["content"] == ODD


async def test_text_parts_are_lines_and_the_newest_message_of_the_user_counts(
    client: TestClient, bot: Scripted
) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:,"}}
    messages: list[dict[str, Any]] = [
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": [image]},
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "user", "content": [{"type": "text", "text": "send Hel"}, {"type": "text", "text": "lo"}]},
        {"role": "tool", "content": "42", "tool_call_id": "1"},
    ]
    tools = [{"type": "function", "function": {"name": "f"}}]
    answer = await client.post(COMPLETIONS, json={"messages": messages, "tools": tools, "temperature": 0.5, "seed": 7})
    assert answer.json()["choices"][0]["message"]["content"] == "Hel\nlo"
    assert bot.texts == ["send Hel\nlo"]


@pytest.mark.parametrize("stream", [False, True])
async def test_fields_without_effect_are_named_in_the_answer(client: TestClient, stream: bool) -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    answer = await ask(client, "hi", stream=stream, tools=tools, temperature=0.5, seed=7, own=1, stop=None)
    assert answer.headers["x-ignored-fields"] == "seed, temperature, tools"
    assert "x-ignored-fields" not in (await ask(client, "hi", stream=stream, tools=[])).headers


@pytest.mark.parametrize(
    ("field", "value"), [("logprobs", True), ("modalities", ["text", "audio"]), ("metadata", "text"), ("metadata", [])]
)
async def test_fields_without_which_the_answer_would_mislead_are_refused(
    client: TestClient, bot: Scripted, field: str, value: Any
) -> None:
    answer = await ask(client, "hi", **{field: value})
    assert answer.status_code == 422
    assert answer.json()["error"]["param"] == field
    assert bot.texts == []


async def test_fields_that_ask_for_what_every_answer_is_are_accepted(client: TestClient) -> None:
    answer = await ask(client, "hi", logprobs=False, modalities=["text"], n=1, response_format={"type": "text"})
    assert answer.status_code == 200


async def test_a_failure_in_mid_stream_is_the_last_that_is_told(client: TestClient) -> None:
    answer = await ask(client, "stream Hel; raise no model", stream=True)
    assert answer.status_code == 200
    *_, piece, error = lines(answer)
    assert piece["choices"][0]["delta"] == {"content": "Hel"}
    assert error == {
        "error": {
            "message": "Pipeline error: no model",
            "type": "server_error",
            "param": None,
            "code": "internal_server_error",
        }
    }


async def test_what_has_begun_is_not_to_be_sent_again(client: TestClient) -> None:
    answer = await ask(client, "raise no model")
    assert (answer.status_code, answer.headers["x-should-retry"]) == (500, "false")
    assert "x-run-id" in answer.headers
    assert answer.json()["error"]["message"] == "Pipeline error: no model"
    assert (await ask(client, "hi", stream=True)).headers["x-should-retry"] == "false"


@pytest.mark.parametrize("settings", [{"hide_errors": True}])
async def test_a_hidden_error_is_the_reference_of_its_run(client: TestClient) -> None:
    answer = await ask(client, "raise no model")
    assert answer.json()["error"]["message"] == f"Pipeline error: reference {answer.headers['x-run-id']}"
    answer = await ask(client, "stream Hel; raise no model", stream=True)
    told = lines(answer)[-1]["error"]["message"]
    assert told == f"Pipeline error: reference {answer.headers['x-run-id']}"


@pytest.mark.parametrize("settings", [{"run_timeout": 0.05}])
async def test_a_run_that_takes_too_long_is_told_with_its_status(client: TestClient) -> None:
    answer = await ask(client, "hold door")
    assert (answer.status_code, answer.headers["x-should-retry"]) == (504, "false")
    assert answer.json()["error"]["code"] == "gateway_timeout"
    streamed = lines(await ask(client, "stream Hel; hold door", stream=True))
    assert "did not answer within" in streamed[-1]["error"]["message"]


@pytest.mark.parametrize("settings", [{"rate_limit": "1/h"}])
@pytest.mark.parametrize("stream", [False, True])
async def test_who_has_used_up_a_limit_may_ask_again_later(client: TestClient, stream: bool) -> None:
    assert (await ask(client, "hi", stream=stream, user="ann")).status_code == 200
    answer = await ask(client, "hi", stream=stream, user="ann")
    assert answer.status_code == 429
    assert answer.json()["error"]["type"] == "rate_limit_error"
    assert answer.json()["error"]["code"] == "rate_limit_exceeded"
    assert int(answer.headers["retry-after"]) > 0
    assert "ratelimit" in answer.headers
    assert "x-should-retry" not in answer.headers
    assert int(answer.headers["content-length"]) == len(answer.content)


@pytest.mark.parametrize("settings", [{"token_budget": "5/day"}])
@pytest.mark.parametrize("stream", [False, True])
async def test_who_has_used_up_a_budget_is_refused_as_by_a_limit(client: TestClient, stream: bool) -> None:
    assert (await ask(client, "use 7; send a", stream=stream, user="ann")).status_code == 200
    answer = await ask(client, "hi", stream=stream, user="ann")
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert answer.json()["error"]["message"].startswith("The budget of this contact is used up: 5 tokens per day")
    assert int(answer.headers["retry-after"]) > 0
    assert answer.headers["ratelimit"].startswith('"tokens";r=0;t=')
    assert answer.headers.get_list("ratelimit-policy") == ['"tokens";q=5;w=86400;qu="tokens"']


@pytest.mark.parametrize("settings", [{"max_body": 1000}])
@pytest.mark.parametrize(
    ("sent", "status", "text"),
    [
        ({"content": b"{"}, 422, "JSON"),
        ({"content": b"hi", "headers": {"content-type": "text/plain"}}, 415, "application/json"),
        ({"json": body("x" * 1000)}, 413, "over the limit of 1000 bytes"),
        ({"json": body("a\0b")}, 422, "messages.0.content: Text must not contain the character NUL"),
        ({"json": []}, 422, "object"),
        ({"json": {}}, 422, "messages: Field required"),
        ({"json": body("hi", user=5, n="two")}, 422, "user: Input should be a valid string; n: "),
        ({"json": body([])}, 422, "messages.0.content: A message must be a text"),
        ({"json": body([{"type": "text"}])}, 422, "A part of a message must have a type"),
        ({"json": body("hi"), "headers": {"idempotency-key": ""}}, 422, "Idempotency-Key"),
        ({"json": body("hi", user="u" * 300)}, 200, ""),
    ],
)
async def test_refusals_are_in_the_form_that_the_sdks_read(
    client: TestClient, sent: dict[str, Any], status: int, text: str
) -> None:
    headers = {"content-type": "application/json", **sent.pop("headers", {})}
    answer = await client.post(COMPLETIONS, headers=headers, **sent)
    assert answer.status_code == status
    if status != 200:
        error = answer.json()["error"]
        assert text in error["message"]
        assert error["type"] == "invalid_request_error"
        assert isinstance(error["code"], str)
        assert "x-should-retry" not in answer.headers


async def test_open_webui_s_own_prompts_are_answered_outside_of_every_thread(client: TestClient) -> None:
    chat = {"x-openwebui-chat-id": "c", "x-openwebui-user-id": "ann"}
    task, answer = "### Task:\nMake a title", "You said: ### Task:\nMake a title"
    assert await content(client, "hi", chat) == "You said: hi"
    assert await content(client, task, chat) == answer
    *_, piece, _, done = lines(await ask(client, task, chat, stream=True))
    assert (piece["choices"][0]["delta"]["content"], done) == (answer, "data: [DONE]")
    assert await content(client, "see", chat) == '["hi", "see"]'
    assert len((await client.get("/api/v1/threads", params={"contact_id": "ann"})).json()["threads"]) == 1


async def test_a_message_that_open_webui_put_documents_before_stays_in_its_thread(client: TestClient) -> None:
    chat = {"x-openwebui-chat-id": "c", "x-openwebui-user-id": "ann"}
    asked = "### Task:\nRespond to the user query using the provided context.\n<context>…</context>\n\nHow many?"
    await content(client, asked, chat)
    assert json.loads(await content(client, "see", chat)) == [asked, "see"]


async def test_a_task_is_a_message_as_all_others_are_where_it_is_not_open_webui_s(client: TestClient) -> None:
    task = "### Task:\nMake a title"
    for headers, status in (({}, 200), ({"x-openwebui-user-id": "ann"}, 404)):
        answer = await ask(client, task, headers)
        run = await client.get(f"/api/v1/runs/{answer.headers['x-run-id']}")
        assert run.status_code == status


async def test_the_model_has_the_name_of_the_app_or_the_option_s() -> None:
    app = JimsApp(Scripted(), name="support")
    for settings, name in (({}, "support"), ({"openai_model": "acme/support-1"}, "acme/support-1")):
        async with TestClient(create_api(app, store="memory:", **settings)) as client:
            listed = (await client.get("/v1/models")).json()
            [model] = listed["data"]
            assert listed["object"] == "list"
            assert isinstance(model.pop("created"), int)
            assert model == {"id": name, "object": "model", "owned_by": "jimsapi"}
            assert (await client.get(f"/v1/models/{name.replace('/', '%2F')}")).json()["id"] == name
            assert (await ask(client, "hi")).json()["model"] == name


async def test_an_unknown_model_is_not_found_in_the_sdks_form(client: TestClient) -> None:
    answer = await client.get("/v1/models/none")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"


async def test_the_routes_are_in_the_openapi_document(client: TestClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    assert {"/v1/chat/completions", "/v1/models", "/v1/models/{id}"} <= set(paths)
    assert paths["/v1/chat/completions"]["post"]["summary"].startswith("Answer the newest message")


@pytest.mark.parametrize(
    ("method", "path"), [("post", COMPLETIONS), ("post", "/v1/responses"), ("get", "/v1/responses/{id}")]
)
async def test_the_document_lists_answers_as_json_and_as_streams(client: TestClient, method: str, path: str) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    assert set(paths[path][method]["responses"]["200"]["content"]) == {"application/json", "text/event-stream"}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("POST", "/v1/embeddings", 404), ("GET", "/v1/", 404), ("GET", COMPLETIONS, 405), ("DELETE", "/v1/models", 405)],
)
async def test_a_path_that_is_not_served_is_refused_in_the_form_of_the_sdks(
    client: TestClient, method: str, path: str, status: int
) -> None:
    answer = await client.request(method, path)
    assert answer.status_code == status
    assert answer.json()["error"].keys() == {"message", "type", "param", "code"}


@pytest.mark.parametrize("path", ["/v2/models", "/v1x", "/nowhere"])
async def test_other_paths_are_refused_as_before(client: TestClient, path: str) -> None:
    answer = await client.get(path)
    assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})
