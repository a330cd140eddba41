"""Responses and Conversations by OpenAI's own SDK, against a real server."""

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.serving import Served

WORK = "think They; think  ask; tool search; source https://example.org/q; source Book; use 7; use 8; send Hello"


@pytest.fixture(scope="module")
def sdk(served: Served, key: str) -> Iterator[Any]:
    with OpenAI(base_url=f"{served.url}/v1", api_key=key, timeout=30) as client:
        yield client


def ask(sdk: Any, text: Any, **options: Any) -> Any:
    return sdk.responses.create(model="scripted", input=text, **options)


def test_a_response_is_what_the_pipeline_said_with_an_estimate_of_its_length(sdk: Any) -> None:
    response = ask(sdk, "send Grüße")
    assert (response.output_text, response.status, response.model) == ("Grüße", "completed", "scripted")
    assert response.id.startswith("resp_")
    assert response.conversation.id.startswith("conv_")
    assert (response.usage.input_tokens, response.usage.output_tokens, response.usage.total_tokens) == (3, 2, 5)
    again = sdk.responses.retrieve(response.id)
    assert again.model_dump(exclude={"completed_at"}) == response.model_dump(exclude={"completed_at"})


def test_a_response_has_what_the_agent_did(sdk: Any) -> None:
    response = ask(sdk, WORK)
    reasoning, call, message = response.output
    assert (reasoning.type, [part.text for part in reasoning.summary]) == ("reasoning", ["They ask"])
    assert (call.type, call.name, call.output, call.status) == ("mcp_call", "search", "search", "completed")
    assert (call.server_label, call.arguments, call.error) == ("jimsapi", "{}", None)
    [citation] = message.content[0].annotations
    assert (citation.type, citation.url) == ("url_citation", "https://example.org/q")
    assert (response.usage.input_tokens, response.usage.output_tokens) == (15, 2)
    assert sdk.responses.retrieve(response.id).output == response.output


def test_a_stream_brings_what_the_agent_does_in_order(sdk: Any) -> None:
    with sdk.responses.stream(model="scripted", input=WORK + "; stream  and; stream  more") as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [item.type for item in final.output] == ["reasoning", "mcp_call", "message", "message"]
    assert final.output_text == "Hello and more"
    assert [event.type for event in events if "mcp_call" in event.type] == [
        "response.mcp_call.in_progress",
        "response.mcp_call_arguments.delta",
        "response.mcp_call_arguments.done",
        "response.mcp_call.completed",
    ]
    assert events[0].type == "response.created"
    assert events[0].response.output == []


def test_a_stream_is_resumed_after_a_number(sdk: Any) -> None:
    events = list(ask(sdk, "stream Hel; stream lo; tool search", stream=True))
    response_id = events[0].response.id
    again = list(sdk.responses.retrieve(response_id, stream=True))
    assert [event.type for event in again] == [event.type for event in events]
    assert again[2:-1] == events[2:-1]  # the others have the response, which has ended since
    assert again[-1].response.output == events[-1].response.output
    for after in range(len(events)):
        rest = list(sdk.responses.retrieve(response_id, stream=True, starting_after=after))
        assert rest == again[after + 1 :]
    with sdk.responses.stream(response_id=response_id) as stream:
        assert stream.get_final_response().output_text == "Hello"


def test_three_turns_continue_by_the_previous_response(sdk: Any) -> None:
    first = ask(sdk, "one")
    second = ask(sdk, "two", previous_response_id=first.id)
    assert second.previous_response_id == first.id
    third = ask(sdk, "see", previous_response_id=second.id)
    assert third.output_text == '["one", "two", "see"]'
    assert third.conversation == first.conversation
    assert ask(sdk, "see").output_text == '["see"]'


def test_an_earlier_response_is_continued_in_a_fork(sdk: Any) -> None:
    first = ask(sdk, "one")
    ask(sdk, "two", previous_response_id=first.id)
    other = ask(sdk, "see", previous_response_id=first.id)
    assert other.output_text == '["one", "see"]'
    assert other.conversation != first.conversation
    assert ask(sdk, "see", previous_response_id=other.id).output_text == '["one", "see", "see"]'


def test_a_conversation_has_items_and_metadata(sdk: Any) -> None:
    items: Any = [
        {"role": "user", "content": "before"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I see"}]},
    ]
    conversation = sdk.conversations.create(items=items, metadata={"topic": "quokkas"})
    assert sdk.conversations.retrieve(conversation.id) == conversation
    assert conversation.metadata == {"topic": "quokkas"}
    updated = sdk.conversations.update(conversation.id, metadata={"topic": "wombats"})
    assert sdk.conversations.retrieve(conversation.id) == updated
    assert ask(sdk, "see", conversation=conversation.id).output_text == '["before", "see"]'
    added = sdk.conversations.items.create(conversation.id, items=[{"role": "user", "content": "after"}])
    listed = list(sdk.conversations.items.list(conversation.id, order="asc", limit=2))
    assert [item.content[0].text for item in listed] == ["before", "I see", "see", '["before", "see"]', "after"]
    assert listed[-1] == added.data[0]
    assert list(sdk.conversations.items.list(conversation.id, limit=2)) == listed[::-1]
    for item in listed:
        assert sdk.conversations.items.retrieve(item.id, conversation_id=conversation.id) == item
    with pytest.raises(openai.APIStatusError, match="deletes no single items") as raised:
        sdk.conversations.items.delete(listed[0].id, conversation_id=conversation.id)
    assert raised.value.status_code == 405
    assert sdk.conversations.delete(conversation.id).deleted
    with pytest.raises(openai.NotFoundError, match="no conversation"):
        sdk.conversations.retrieve(conversation.id)


def test_a_response_in_the_background_is_retrieved_and_cancelled(sdk: Any) -> None:
    response = ask(sdk, "hold bg-1; send never", background=True)
    assert response.status in ("queued", "in_progress")
    ask(sdk, "reached bg-1")
    assert sdk.responses.retrieve(response.id).status == "in_progress"
    assert sdk.responses.cancel(response.id).status == "cancelled"
    assert sdk.responses.cancel(response.id).status == "cancelled"
    assert sdk.responses.retrieve(response.id).status == "cancelled"


def test_the_input_items_of_a_response(sdk: Any) -> None:
    response = ask(sdk, "send Hello", metadata={"page": "/checkout"})
    [item] = sdk.responses.input_items.list(response.id)
    assert item.content[0].text == "send Hello"
    assert sdk.responses.retrieve(response.id).metadata == {"page": "/checkout"}
