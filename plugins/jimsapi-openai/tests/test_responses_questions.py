"""Questions of the pipeline in Responses: requests for approval, and the answers to them."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from jimsapi import ThreadContext, create_api
from jimsapi.asgi.testing import TestClient

pytestmark = pytest.mark.anyio


async def refund(ctx: ThreadContext) -> None:
    kind = str(ctx.get_last_user_message())
    if kind == "sure":
        answer: Any = await ctx.ask("sure", "Are you sure?", schema={"type": "boolean"})
    elif kind == "colour":
        answer = await ctx.ask("colour", "Which colour?")
    elif kind == "size":
        answer = await ctx.ask("size", "Which size?", options=["S", "M"])
    elif kind == "refund":
        answer = await ctx.ask("refund", "Refund 20 EUR?", options=["no", "yes"])
    else:
        answer = "nothing"
    ctx.send_message(f"{kind}: {answer!r} {[one['content'] for one in ctx.history if one['role'] == 'user']}")


@pytest.fixture
async def client() -> AsyncIterator[TestClient]:
    async with TestClient(create_api(refund, store="memory:")) as client:
        yield client


async def send(client: TestClient, said: Any, **options: Any) -> httpx.Response:
    return await client.post("/v1/responses", json={"model": "m", "input": said, **options})


async def ask(client: TestClient, said: str, **options: Any) -> Any:
    answer = await send(client, said, **options)
    assert answer.status_code == 200, answer.text
    return answer.json()


def approval_of(asked: Any, approve: bool, reason: str | None = None) -> list[Any]:
    request = asked["output"][-1]
    assert request["type"] == "mcp_approval_request"
    answer = {"type": "mcp_approval_response", "approval_request_id": request["id"], "approve": approve}
    return [answer if reason is None else {**answer, "reason": reason}]


def text_of(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    return str(answer.json()["output"][0]["content"][0]["text"])


async def test_a_question_is_a_text_and_a_request_for_approval(client: TestClient) -> None:
    asked = await ask(client, "refund")
    message, request = asked["output"]
    assert message["content"][0]["text"] == "Refund 20 EUR?\n- no\n- yes"
    assert (request["name"], request["server_label"]) == ("refund", "jimsapi")
    assert '"options":["no","yes"]' in request["arguments"]
    path = f"/v1/conversations/{asked['conversation']['id']}/items"
    listed = (await client.get(path, params={"order": "asc"})).json()["data"]
    assert listed[1:] == asked["output"]
    assert (await client.get(f"{path}/{request['id']}")).json() == request
    after = await client.get(path, params={"after": request["id"], "limit": 1})
    assert after.json()["data"] == [message]
    assert (await client.get(f"/v1/responses/{asked['id']}")).json()["output"] == asked["output"]


@pytest.mark.parametrize(
    ("question", "approve", "reason", "value"),
    [
        ("refund", True, None, "'yes'"),
        ("refund", False, None, "'no'"),
        ("refund", False, "Yes", "'yes'"),
        ("sure", True, None, "True"),
        ("sure", False, None, "False"),
        ("colour", True, "red", "'red'"),
        ("colour", False, "red", "'red'"),
        ("size", True, "m", "'M'"),
    ],
)
@pytest.mark.parametrize("named", [False, True])
async def test_an_approval_is_the_answer(
    client: TestClient, question: str, approve: bool, reason: str | None, value: str, named: bool
) -> None:
    asked = await ask(client, question)
    options = {"previous_response_id": asked["id"]} if named else {}
    answer = await send(client, approval_of(asked, approve, reason), **options)
    assert text_of(answer) == f"{question}: {value} ['{question}']"
    assert answer.json()["conversation"] == asked["conversation"]
    [item] = (await client.get(f"/v1/responses/{answer.json()['id']}/input_items")).json()["data"]
    assert item["role"] == "user"


async def test_a_reason_that_is_no_answer_is_named_as_ignored(client: TestClient) -> None:
    asked = await ask(client, "refund")
    answer = await send(client, approval_of(asked, False, "Too much"))
    assert text_of(answer) == "refund: 'no' ['refund']"
    assert answer.headers["x-ignored-fields"] == "input.0.reason"


async def test_a_history_with_the_question_and_its_answer_is_answered_there(client: TestClient) -> None:
    asked = await ask(client, "refund")
    history = [{"role": "user", "content": "refund"}, *asked["output"], *approval_of(asked, True)]
    answer = await send(client, history)
    assert text_of(answer) == "refund: 'yes' ['refund']"
    later = [*history, *answer.json()["output"], {"role": "user", "content": "next"}]
    assert text_of(await send(client, later)) == "next: 'nothing' ['refund', 'next']"


async def test_the_next_message_answers_too(client: TestClient) -> None:
    asked = await ask(client, "refund")
    answer = await send(client, "Yes", previous_response_id=asked["id"])
    assert text_of(answer) == "refund: 'yes' ['refund']"
    asked = await ask(client, "refund")
    answer = await send(client, "what?", conversation=asked["conversation"]["id"])
    assert text_of(answer) == "what?: 'nothing' ['refund', 'what?']"
    late = await send(client, approval_of(asked, True))
    assert (late.status_code, "superseded" in late.text or "another message" in late.text) == (409, True)


async def test_a_question_that_another_message_closed_is_not_answered_after_the_earlier_response(
    client: TestClient,
) -> None:
    asked = await ask(client, "refund")
    await send(client, "what?", previous_response_id=asked["id"])
    answer = await send(client, approval_of(asked, True), previous_response_id=asked["id"])
    assert answer.status_code == 409, answer.text


async def test_an_approval_after_the_same_response_counts_once(client: TestClient) -> None:
    asked = await ask(client, "refund")
    first = await send(client, approval_of(asked, True), previous_response_id=asked["id"])
    assert text_of(first) == "refund: 'yes' ['refund']"
    for approve in (True, False):
        again = await send(client, approval_of(asked, approve), previous_response_id=asked["id"])
        assert again.status_code == 409, again.text


async def test_an_answer_counts_once_and_is_not_changed(client: TestClient) -> None:
    asked = await ask(client, "refund")
    await send(client, approval_of(asked, True))
    again = await send(client, approval_of(asked, False))
    assert (again.status_code, again.headers.get_list("x-should-retry")) == (409, ["false"])


@pytest.mark.parametrize(("question", "approve"), [("colour", True), ("colour", False), ("size", True)])
async def test_yes_or_no_to_another_question_is_refused(client: TestClient, question: str, approve: bool) -> None:
    asked = await ask(client, question)
    answer = await send(client, approval_of(asked, approve))
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "input.0")
    assert text_of(await send(client, approval_of(asked, True, "M"))).startswith(f"{question}: 'M'")


async def test_an_unknown_request_for_approval_is_not_found(client: TestClient) -> None:
    asked = await ask(client, "refund")
    request_id = asked["output"][-1]["id"]
    for unknown in ("mcpr_1", "mcpr_" + "0" * 64, request_id[:-4] + "0000", asked["output"][0]["id"]):
        approval = {"type": "mcp_approval_response", "approval_request_id": unknown, "approve": True}
        assert (await send(client, [approval])).status_code == 404
    assert (await send(client, approval_of(asked, True), store=False)).status_code == 422


async def test_open_webui_gets_the_question_as_a_text(client: TestClient) -> None:
    headers = {"x-openwebui-chat-id": "c", "x-openwebui-user-id": "ann"}
    body = {"model": "m", "input": "refund"}
    asked = (await client.post("/v1/responses", json=body, headers=headers)).json()
    assert [item["type"] for item in asked["output"]] == ["message"]
    answer = await client.post("/v1/responses", json={"model": "m", "input": "yes"}, headers=headers)
    assert text_of(answer) == "refund: 'yes' ['refund']"
