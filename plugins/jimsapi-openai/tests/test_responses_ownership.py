"""Whose response and conversation it is, asked of every route below /v1/responses and /v1/conversations.

A route that these tests do not know fails them.
"""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from jimsapi import ThreadContext, create_api
from jimsapi.api.app import Api
from jimsapi.asgi.testing import TestClient

pytestmark = pytest.mark.anyio

Calls = dict[tuple[str, str], dict[str, Any]]

OF_RESPONSES: Calls = {
    ("GET", "/v1/responses/{id}"): {},
    ("POST", "/v1/responses/{id}/cancel"): {},
    ("DELETE", "/v1/responses/{id}"): {},
    ("GET", "/v1/responses/{id}/input_items"): {},
}
OF_CONVERSATIONS: Calls = {
    ("GET", "/v1/conversations/{id}"): {},
    ("POST", "/v1/conversations/{id}"): {"metadata": {"mine": "yes"}},
    ("GET", "/v1/conversations/{id}/items"): {},
    ("POST", "/v1/conversations/{id}/items"): {"items": [{"role": "assistant", "content": "mine"}]},
    ("GET", "/v1/conversations/{id}/items/{item_id}"): {},
    ("DELETE", "/v1/conversations/{id}/items/{item_id}"): {},
    ("DELETE", "/v1/conversations/{id}"): {},
}
CREATE = {("POST", "/v1/responses"), ("POST", "/v1/conversations")}


async def pipeline(ctx: ThreadContext) -> None:
    said = str(ctx.get_last_user_message())
    if said == "refund" and await ctx.ask("refund", "Refund?", options=["yes", "no"]) == "yes":
        ctx.send_message("refunded")
        return
    ctx.send_message(" ".join(str(one["content"]) for one in ctx.history))


@pytest.fixture
async def api(people: None) -> Api:
    return create_api(pipeline, store="memory:")


@pytest.fixture
async def client(api: Api) -> AsyncIterator[TestClient]:
    async with TestClient(api) as client:
        yield client


async def create(client: TestClient, user: str, said: Any = "hi", **options: Any) -> httpx.Response:
    body = {"model": "m", "input": said, **options.pop("body", {})}
    return await client.post("/v1/responses", json=body, headers={"x-user": user, **options})


async def secret_of(client: TestClient, user: str = "ann", said: str = "secret") -> Any:
    answer = await create(client, user, said)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def call(
    client: TestClient, user: str, route: tuple[str, str], body: Any, secret: Any, **headers: str
) -> httpx.Response:
    method, path = route
    named = secret["id"] if "responses" in path else secret["conversation"]["id"]
    path = path.replace("{id}", named).replace("{item_id}", secret["output"][0]["id"])
    return await client.request(method, path, json=body or None, headers={"x-user": user, **headers})


async def seen(client: TestClient, secret: Any) -> tuple[int, Any]:
    """What `ann` has: that nobody has changed it."""
    conversation = f"/v1/conversations/{secret['conversation']['id']}"
    items = (await client.get(f"{conversation}/items", headers={"x-user": "ann"})).json()["data"]
    return len(items), (await client.get(conversation, headers={"x-user": "ann"})).json()["metadata"]


async def test_every_route_is_known_here(api: Api, client: TestClient) -> None:
    found = {
        (method, route.path)
        for route in api.routes
        for method in route.methods
        if route.path.startswith(("/v1/responses", "/v1/conversations"))
    }
    assert found == OF_RESPONSES.keys() | OF_CONVERSATIONS.keys() | CREATE


async def test_a_bound_caller_finds_nothing_of_another_contact(client: TestClient) -> None:
    secret = await secret_of(client)
    for route, body in (OF_RESPONSES | OF_CONVERSATIONS).items():
        answer = await call(client, "bea", route, body, secret)
        assert answer.status_code == 404, (route, answer.text)
        assert answer.json()["error"]["code"] == "not_found"
        assert "secret" not in answer.text
    named = ({"conversation": secret["conversation"]["id"]}, {"previous_response_id": secret["id"]})
    for body in named:
        answer = await create(client, "bea", body=body)
        assert answer.status_code == 404
        assert "secret" not in answer.text
    assert await seen(client, secret) == (2, {})


async def test_the_stream_of_another_contact_is_not_found(client: TestClient) -> None:
    secret = await secret_of(client)
    for user in ("bea", "talker"):
        path = f"/v1/responses/{secret['id']}?stream=true"
        answer = await client.get(path, headers={"x-user": user})
        assert (answer.status_code, "secret" in answer.text) == (404, False)


async def test_a_caller_without_scopes_is_refused_everywhere(client: TestClient) -> None:
    secret = await secret_of(client)
    for route, body in (OF_RESPONSES | OF_CONVERSATIONS).items():
        answer = await call(client, "nobody", route, body, secret)
        assert answer.status_code == 403, (route, answer.text)
    assert (await create(client, "nobody")).status_code == 403
    assert (await client.post("/v1/conversations", json={}, headers={"x-user": "nobody"})).status_code == 403


async def test_an_unbound_caller_with_chat_alone_reads_and_changes_nothing(client: TestClient) -> None:
    secret = await secret_of(client)
    for route, body in (OF_RESPONSES | OF_CONVERSATIONS).items():
        answer = await call(client, "talker", route, body, secret)
        assert answer.status_code == (404 if route in OF_RESPONSES and route[0] != "DELETE" else 403), (
            route,
            answer.text,
        )
        assert "secret" not in answer.text
    assert (await create(client, "talker", body={"previous_response_id": secret["id"]})).status_code == 404
    assert await seen(client, secret) == (2, {})


async def test_a_bound_caller_with_chat_alone_has_its_own_responses(client: TestClient) -> None:
    mine = await secret_of(client, "ann-talks")
    for route, body in OF_RESPONSES.items():
        answer = await call(client, "ann-talks", route, body, mine)
        assert answer.status_code == (403 if route[0] == "DELETE" else 200), (route, answer.text)
    for route, body in OF_CONVERSATIONS.items():
        assert (await call(client, "ann-talks", route, body, mine)).status_code == 403
    of_ann = await secret_of(client)
    assert (await call(client, "ann-talks", ("GET", "/v1/responses/{id}"), {}, of_ann)).status_code == 404


async def test_a_caller_with_threads_alone_reads_all_and_asks_nothing(client: TestClient) -> None:
    secret = await secret_of(client)
    answer = await call(client, "reader", ("GET", "/v1/conversations/{id}/items"), {}, secret)
    assert (answer.status_code, "secret" in answer.text) == (200, True)
    assert (await call(client, "reader", ("GET", "/v1/responses/{id}"), {}, secret)).status_code == 200
    for body in ({}, {"conversation": secret["conversation"]["id"]}, {"previous_response_id": secret["id"]}):
        assert (await create(client, "reader", body=body)).status_code == 403


@pytest.mark.parametrize("options", [{}, {"store": False}])
async def test_only_who_may_add_items_brings_a_history(client: TestClient, options: Any) -> None:
    history = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    for user, status in (("ann-talks", 403), ("talker", 403), ("ann", 200), ("root", 200)):
        assert (await create(client, user, history, body=options)).status_code == status
    items = {"items": history}
    for user, status in (("ann-talks", 403), ("ann", 200)):
        answer = await client.post("/v1/conversations", json=items, headers={"x-user": user})
        assert answer.status_code == status


async def test_another_person_that_a_header_names_finds_nothing(client: TestClient) -> None:
    of_ann = {"x-openwebui-user-id": "ann"}
    secret = (await create(client, "root", "secret", **of_ann)).json()
    for route, body in (OF_RESPONSES | OF_CONVERSATIONS).items():
        answer = await call(client, "root", route, body, secret, **{"x-openwebui-user-id": "bea"})
        assert (answer.status_code, "secret" in answer.text) == (404, False), (route, answer.text)
    for named in ({"conversation": secret["conversation"]["id"]}, {"previous_response_id": secret["id"]}):
        answer = await create(client, "root", body=named, **{"x-openwebui-user-id": "bea"})
        assert answer.status_code == 404
    assert (await create(client, "root", body={"previous_response_id": secret["id"]}, **of_ann)).status_code == 200


async def test_a_question_of_another_contact_is_not_answered(client: TestClient) -> None:
    asked = await secret_of(client, said="refund")
    request = asked["output"][-1]
    assert request["type"] == "mcp_approval_request"
    approval = [{"type": "mcp_approval_response", "approval_request_id": request["id"], "approve": True}]
    for user in ("bea", "nobody", "reader"):
        assert (await create(client, user, approval)).status_code == (404 if user == "bea" else 403)
    headers = {"x-openwebui-user-id": "bea"}
    assert (await create(client, "root", approval, **headers)).status_code == 404
    answer = await create(client, "ann", approval)
    assert answer.json()["output"][0]["content"][0]["text"] == "refunded"
    assert answer.json()["conversation"] == asked["conversation"]


async def test_an_item_of_another_conversation_is_not_found(client: TestClient) -> None:
    one, other = await secret_of(client), await secret_of(client, said="else")
    path = f"/v1/conversations/{other['conversation']['id']}/items"
    headers = {"x-user": "ann"}
    item = one["output"][0]["id"]
    assert (await client.get(f"{path}/{item}", headers=headers)).status_code == 404
    assert (await client.get(f"{path}?after={item}", headers=headers)).status_code == 404
    assert (await client.get(f"{path}?order=asc&after={item}", headers=headers)).status_code == 404
