"""OpenAI's own SDK against a real server."""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.serving import Served

THREAD = "X-OpenWebUI-Chat-Id"


@pytest.fixture(scope="module")
def sdk(served: Served, key: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{served.url}/v1", api_key=key, timeout=30) as client:
        yield client


def said(text: str) -> list[Any]:
    return [{"role": "system", "content": "You are kind."}, {"role": "user", "content": text}]


def ask(sdk: OpenAI, text: str, **options: Any) -> str:
    completion = sdk.chat.completions.create(model="scripted", messages=said(text), **options)
    content: str = completion.choices[0].message.content
    return content


def named() -> dict[str, Any]:
    """A conversation of its own."""
    return {"extra_headers": {THREAD: str(uuid4())}}


def test_a_completion_is_what_the_pipeline_said_with_an_estimate_of_its_length(sdk: OpenAI) -> None:
    completion = sdk.chat.completions.create(model="scripted", messages=said("send Grüße"))
    choice = completion.choices[0]
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", "Grüße", "stop")
    assert completion.id.startswith("chatcmpl-")
    assert (completion.object, completion.model) == ("chat.completion", "scripted")
    assert completion.usage is not None
    # 12 and 7 bytes of UTF-8, four to a token.
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (3, 2)
    assert completion.usage.total_tokens == 5


def test_a_stream_brings_every_piece_then_why_it_stopped_then_the_usage(sdk: OpenAI) -> None:
    options = {"stream_options": {"include_usage": True}}
    stream = sdk.chat.completions.create(
        model="scripted", messages=said("status Looking; stream Hel; stream lo"), stream=True, **options  # type: ignore[call-overload] # the SDK's overloads know no dict
    )  # fmt: skip
    chunks = list(stream)
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    deltas = [chunk.choices[0] for chunk in chunks[:-1]]
    assert [choice.delta.content for choice in deltas] == ["", "Hel", "lo", None]
    assert [choice.delta.role for choice in deltas] == ["assistant", None, None, None]
    assert [choice.finish_reason for choice in deltas] == [None, None, None, "stop"]
    assert chunks[-1].choices == []
    usage = chunks[-1].usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens > 0


WORK = "think They; think  ask; tool search; source https://example.org/q; source Book; use 7; use 8; send Hello"
CITED = {
    "type": "url_citation",
    "url_citation": {
        "url": "https://example.org/q",
        "title": "https://example.org/q",
        "start_index": 0,
        "end_index": 0,
    },
}


def test_a_completion_has_what_the_agent_did_and_what_its_models_have_used(sdk: OpenAI) -> None:
    completion = sdk.chat.completions.create(model="scripted", messages=said(WORK))
    message = completion.choices[0].message
    assert (message.content, message.tool_calls) == ("Hello", None)
    assert message.model_dump()["reasoning_content"] == "They ask"
    assert [annotation.model_dump() for annotation in message.annotations or ()] == [CITED]
    assert completion.usage is not None
    used = completion.usage
    assert (used.prompt_tokens, used.completion_tokens, used.total_tokens) == (15, 2, 17)
    assert used.prompt_tokens_details is not None
    assert used.prompt_tokens_details.cached_tokens == 0


def test_a_stream_brings_what_the_agent_does_as_it_happens(sdk: OpenAI) -> None:
    stream = sdk.chat.completions.create(
        model="scripted", messages=said(WORK), stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    deltas = [chunk.choices[0].delta.model_dump(exclude_none=True) for chunk in chunks[:-1]]
    assert deltas[1:-1] == [
        {"reasoning_content": "They"},
        {"reasoning_content": " ask"},
        {"annotations": [CITED]},
        {"content": "Hello"},
    ]
    assert chunks[-1].usage is not None
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (15, 2)


def test_a_failed_pipeline_raises_its_text_and_is_not_asked_again(sdk: OpenAI) -> None:
    conversation = named()
    with pytest.raises(openai.InternalServerError) as raised:
        ask(sdk, "raise no model", **conversation)
    assert raised.value.message.endswith("Pipeline error: no model")
    assert (raised.value.type, raised.value.code) == ("server_error", "internal_server_error")
    # By default the SDK retries twice after a 500.
    assert ask(sdk, "see", **conversation) == '["raise no model", "see"]'


def test_a_pipeline_that_fails_in_mid_stream_raises_there(sdk: OpenAI) -> None:
    conversation = named()
    stream = sdk.chat.completions.create(
        model="scripted", messages=said("stream Hel; raise no model"), stream=True, **conversation
    )
    assert [next(stream).choices[0].delta.content for _ in range(2)] == ["", "Hel"]
    with pytest.raises(openai.APIError) as raised:
        next(stream)
    assert raised.value.message == "Pipeline error: no model"
    assert ask(sdk, "see", **conversation) == '["stream Hel; raise no model", "see"]'


@pytest.mark.anyio
async def test_the_async_client_does_the_same(served: Served, key: str) -> None:
    async with AsyncOpenAI(base_url=f"{served.url}/v1", api_key=key) as client:
        messages = said("stream Hel; stream lo")
        plain = await client.chat.completions.create(model="scripted", messages=messages)
        assert plain.choices[0].message.content == "Hello"
        stream = await client.chat.completions.create(model="scripted", messages=messages, stream=True)
        assert [chunk.choices[0].delta.content async for chunk in stream] == ["", "Hel", "lo", None]


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("by", ["user", "extra_headers", "default_headers"])
def test_three_turns_are_one_thread(sdk: OpenAI, by: str, streamed: bool) -> None:
    name = str(uuid4())
    client = sdk.with_options(default_headers={THREAD: name}) if by == "default_headers" else sdk
    ways: dict[str, Any] = {"user": {"user": name}, "extra_headers": {"extra_headers": {THREAD: name}}}
    options = ways.get(by, {})
    history: list[Any] = []
    answers = []
    for text in ("one", "two", "see"):
        history.append({"role": "user", "content": text})
        if streamed:
            stream = client.chat.completions.create(model="scripted", messages=history, stream=True, **options)
            answer = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
        else:
            whole = client.chat.completions.create(model="scripted", messages=history, **options)
            answer = whole.choices[0].message.content
        history.append({"role": "assistant", "content": answer})
        answers.append(answer)
    # The whole history came each time, and only what was new is in the thread.
    assert answers == ["You said: one", "You said: two", '["one", "two", "see"]']


def test_a_message_that_no_thread_took_is_sent_again_and_is_in_the_thread_once(key: str) -> None:
    options = ("--app", "tests.apps.scripted:app", "--api-key", key, "--thread-busy", "reject", "--log-format", "json")
    with Served(*options) as server, OpenAI(base_url=f"{server.url}/v1", api_key=key) as client:
        conversation = named()
        held = client.chat.completions.create(
            model="scripted", messages=said("stream On it; hold door"), stream=True, **conversation
        )
        assert [next(held).choices[0].delta.content for _ in range(2)] == ["", "On it"]
        with pytest.raises(openai.ConflictError, match="busy"):
            ask(client.with_options(max_retries=1), "twice?", **conversation)
        assert ask(client, "open door") == ""
        assert list(held)[-1].choices[0].finish_reason == "stop"
        assert ask(client, "see", **conversation) == '["stream On it; hold door", "see"]'
        assert server.stop() == 0
        assert server.stderr.count('"status":409') == 2


def test_an_idempotency_key_makes_a_message_that_is_sent_twice_one(sdk: OpenAI) -> None:
    headers = {THREAD: str(uuid4()), "Idempotency-Key": str(uuid4())}
    answers = {ask(sdk, "send once", extra_headers=headers) for _ in range(2)}
    assert answers == {"once"}
    assert ask(sdk, "see", extra_headers={THREAD: headers[THREAD]}) == '["send once", "see"]'


def test_the_models_are_the_pipeline(sdk: OpenAI) -> None:
    [model] = sdk.models.list().data
    assert (model.id, model.object) == ("scripted", "model")
    assert sdk.models.retrieve("scripted") == model
    with pytest.raises(openai.NotFoundError, match="no model 'gpt/4o' here, only 'scripted'"):
        sdk.models.retrieve("gpt/4o")


def test_a_wrong_key_is_an_authentication_error(sdk: OpenAI) -> None:
    with pytest.raises(openai.AuthenticationError, match="Error code: 401 - Unauthorized") as raised:
        ask(sdk.with_options(api_key="wrong"), "hi")
    assert (raised.value.type, raised.value.code) == ("authentication_error", "invalid_api_key")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"n": 2}, "n: The server sends one answer to a message: omit n"),
        ({"response_format": {"type": "json_object"}}, "response_format: Answers are text: omit response_format"),
        ({"messages": [{"role": "assistant", "content": "hi"}]}, "messages: There is no message with the role user"),
        ({"messages": "hi"}, "messages: Input should be a valid list"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]},
            "files: This server stores no files: its operator has to set --files-store of the plugin jimsapi-files",
        ),
    ],
)
def test_what_cannot_be_done_is_refused_by_its_name(sdk: OpenAI, options: Any, text: str) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as raised:
        sdk.chat.completions.create(**{"model": "scripted", "messages": said("hi"), **options})
    assert raised.value.message.endswith(text)
    assert raised.value.type == "invalid_request_error"
    assert raised.value.param == text.partition(":")[0]


def test_the_pipeline_reads_the_metadata_of_a_completion(sdk: OpenAI) -> None:
    assert ask(sdk, "metadata", metadata={"page": "/checkout"}) == '{"page": "/checkout"}'
    assert ask(sdk, "metadata") == "{}"
