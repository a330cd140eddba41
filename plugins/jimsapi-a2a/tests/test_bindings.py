"""The two bindings: versions, errors in their own forms, and whatever a client may send."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from a2a_calls import VERSION, call, error, result, send, state, summary, text_message, texts

from jimsapi import create_api
from jimsapi.asgi.testing import TestClient
from tests.apps.scripted import Scripted

pytestmark = pytest.mark.anyio

A2A_JSON = "application/a2a+json"
JSON = "application/json"


@pytest.fixture
async def client() -> AsyncIterator[TestClient]:
    async with TestClient(create_api(Scripted(), store="memory:", max_body=2_000_000)) as client:
        yield client


async def test_both_bindings_answer_alike(client: TestClient) -> None:
    sent = await client.post("/a2a/message:send", json=text_message("send Hello", contextId="c"), headers=VERSION)
    assert (sent.status_code, sent.headers["content-type"]) == (200, A2A_JSON)
    task = sent.json()["task"]
    assert (state(task), texts(task)) == ("COMPLETED", ["Hello"])
    assert "x-run-id" in sent.headers
    shown = await client.get(f"/a2a/tasks/{task['id']}", params={"historyLength": 0}, headers=VERSION)
    assert shown.json() == {name: value for name, value in task.items() if name != "history"}
    query: dict[str, Any] = {
        "contextId": "c",
        "includeArtifacts": "true",
        "pageSize": 1,
        "status": "TASK_STATE_COMPLETED",
    }
    listed = (await client.get("/a2a/tasks", params=query, headers=VERSION)).json()
    assert listed == await result(client, "ListTasks", {**query, "includeArtifacts": True})
    assert listed["tasks"] == [task]
    refused = await client.post(f"/a2a/tasks/{task['id']}:cancel", headers=VERSION)
    assert (refused.status_code, refused.json()["error"]["details"][0]["reason"]) == (400, "TASK_NOT_CANCELABLE")


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("application/json", JSON),
        ("application/json; q=0.5", JSON),
        ("application/json, */*;q=0.1", JSON),
        ("application/json, application/a2a+json;q=0.9", JSON),
        ("Application/JSON;q=0.2, application/a2a+json;q=0", JSON),
        ("application/json, text/plain, */*", A2A_JSON),
        ("application/json, application/*", A2A_JSON),
        ("application/a2a+json, application/json", A2A_JSON),
        ("application/json;q=x, */*", A2A_JSON),
        ("application/json;q=0", A2A_JSON),
        ("text/html", A2A_JSON),
        ("*/*", A2A_JSON),
    ],
)
async def test_a_client_that_prefers_plain_json_gets_it(client: TestClient, accept: str, expected: str) -> None:
    headers = {**VERSION, "accept": accept}
    sent = await client.post("/a2a/message:send", json=text_message("send Hello"), headers=headers)
    missing = await client.get("/a2a/tasks/none", headers=headers)
    for answer, status in ((sent, 200), (missing, 404)):
        assert (answer.status_code, answer.headers["content-type"], answer.headers["vary"]) == (
            status,
            expected,
            "accept",
        )


async def test_a_stream_by_http_has_the_bare_events(client: TestClient) -> None:
    body = text_message("stream Hel; stream lo")
    answer = await client.post("/a2a/message:stream", json=body, headers={**VERSION, "content-type": A2A_JSON})
    found = [json.loads(line[6:]) for line in answer.text.splitlines() if line]
    assert summary(found) == ["task WORKING", "Hel", "+lo", "+.", "statusUpdate COMPLETED"]


@pytest.mark.parametrize("version", [None, "", "0.3", "2.0", "1.1", "x", "1", "10.0"])
async def test_another_version_is_refused(client: TestClient, version: str | None) -> None:
    headers = {} if version is None else {"A2A-Version": version}
    body = {"jsonrpc": "2.0", "id": "1", "method": "SendMessage", "params": text_message("hi")}
    answer = await client.post("/a2a", json=body, headers=headers)
    assert (answer.status_code, answer.json()["id"], answer.json()["error"]["code"]) == (200, "1", -32009)
    by_http = await client.post("/a2a/message:send", json=text_message("hi"), headers=headers)
    assert by_http.status_code == 400
    found = by_http.json()["error"]
    assert (found["code"], found["status"], found["details"][0]["reason"]) == (
        400, "FAILED_PRECONDITION", "VERSION_NOT_SUPPORTED",
    )  # fmt: skip
    assert found["details"][0]["domain"] == "a2a-protocol.org"


@pytest.mark.parametrize("headers", [{"A2A-Version": "1.0.1"}, {"a2a-version": "1.0"}])
async def test_a_patch_version_does_not_matter(client: TestClient, headers: dict[str, str]) -> None:
    assert (await client.post("/a2a/message:send", json=text_message("hi"), headers=headers)).status_code == 200


async def test_the_version_may_be_in_the_query(client: TestClient) -> None:
    answer = await client.post("/a2a/message:send?A2A-Version=1.0", json=text_message("hi"))
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("body", "code", "request_id"),
    [
        (b"{", -32700, None),
        (b"", -32700, None),
        (b"[]", -32600, None),
        (b'[{"jsonrpc":"2.0","id":1,"method":"GetTask"}]', -32600, None),
        (b"1", -32600, None),
        (b'{"jsonrpc":"1.0","id":1,"method":"GetTask"}', -32600, 1),
        (b'{"jsonrpc":"2.0","method":"GetTask"}', -32600, None),
        (b'{"jsonrpc":"2.0","id":null,"method":"GetTask"}', -32600, None),
        (b'{"jsonrpc":"2.0","id":true,"method":"GetTask"}', -32600, None),
        (b'{"jsonrpc":"2.0","id":{},"method":"GetTask"}', -32600, None),
        (b'{"jsonrpc":"2.0","id":"a","method":1}', -32600, "a"),
        (b'{"jsonrpc":"2.0","id":"a"}', -32600, "a"),
        (b'{"jsonrpc":"2.0","id":2.5,"method":"message/send","params":{}}', -32601, 2.5),
        (b'{"jsonrpc":"2.0","id":1,"method":"GetTask","params":[]}', -32602, 1),
        (b'{"jsonrpc":"2.0","id":1,"method":"GetTask"}', -32602, 1),
        (b'{"jsonrpc":"2.0","id":1,"method":"GetTask","params":null}', -32602, 1),
        (b'{"jsonrpc":"2.0","id":1,"method":"GetExtendedAgentCard"}', -32004, 1),
        (b'{"jsonrpc":"2.0","id":1,"method":"GetTask","params":{"id":"\\u0000"}}', -32602, 1),
        (b'{"jsonrpc":"2.0","id":1,"method":"GetTask","params":{"id":"\\ud800"}}', -32700, None),
        (b'{"jsonrpc":"2.0","id":1,"method":"GetTask","params":{"id":18446744073709551616}}', -32602, 1),
    ],
)  # fmt: skip
async def test_a_faulty_request_has_the_code_of_its_fault(
    client: TestClient, body: bytes, code: int, request_id: Any
) -> None:
    answer = await client.post("/a2a", content=body, headers={**VERSION, "content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (200, code), answer.text
    assert answer.json()["id"] == request_id


async def test_a_body_that_is_not_json_is_refused_by_its_type(client: TestClient) -> None:
    for path in ("/a2a", "/a2a/message:send"):
        answer = await client.post(path, content=b"hi", headers={**VERSION, "content-type": "text/plain"})
        assert answer.status_code == 415
        assert "CONTENT_TYPE_NOT_SUPPORTED" in answer.text


async def test_paths_that_do_not_exist_are_errors_of_a2a(client: TestClient) -> None:
    for method, path, status in (
        ("GET", "/a2a/nothing", 404),
        ("PUT", "/a2a/tasks", 405),
        ("POST", "/a2a/tasks/x", 404),
    ):
        answer = await client.request(method, path, headers=VERSION)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, status)
    assert (await client.get("/a2a/tasks/x:cancel", headers=VERSION)).status_code == 404


PART = {"text": "send ok"}
FAULTY: list[tuple[dict[str, Any], str]] = [
    ({"parts": []}, "message.parts"),
    ({"parts": None}, "message.parts"),
    ({"parts": "hi"}, "message.parts"),
    ({"parts": [{}]}, "message.parts.0"),
    ({"parts": [{"kind": "video", "frames": []}]}, "message.parts.0"),
    ({"parts": [PART, {"file": {"bytes": "aGk="}}]}, "message.parts.1"),
    ({"parts": [{"text": "a", "data": 1}]}, "message.parts.0"),
    ({"parts": [{"text": "a", "raw": "aGk="}]}, "message.parts.0"),
    ({"parts": [{"text": 1}]}, "message.parts.0.text"),
    ({"parts": [1]}, "message.parts.0"),
    ({"role": "ROLE_AGENT"}, "message.role"),
    ({"role": "user"}, "message.role"),
    ({"role": None}, "message.role"),
    ({"messageId": ""}, "message.messageId"),
    ({"messageId": "x" * 256}, "message.messageId"),
    ({"messageId": "x" * 1_000_000}, "message.messageId"),
    ({"messageId": "a\nb"}, "message.messageId"),
    ({"messageId": 5}, "message.messageId"),
    ({"contextId": "x" * 256}, "message.contextId"),
    ({"contextId": "x" * 1_000_000}, "message.contextId"),
    ({"contextId": 5}, "message.contextId"),
    ({"contextId": "a\tb"}, "message.contextId"),
    ({"taskId": []}, "message.taskId"),
    ({"metadata": []}, "message.metadata"),
]


@pytest.mark.parametrize(("changes", "field"), FAULTY)
async def test_a_faulty_message_names_its_field_and_stores_nothing(
    client: TestClient, changes: dict[str, Any], field: str
) -> None:
    sent = text_message("send ok")
    sent["message"].update(changes)
    found = await error(client, "SendMessage", sent)
    assert found["code"] == -32602
    assert field in [fault["field"] for fault in found["data"][1]["fieldViolations"]]
    assert len(found["message"]) < 2000
    by_http = await client.post("/a2a/message:send", json=sent, headers=VERSION)
    assert (by_http.status_code, by_http.json()["error"]["status"]) == (400, "INVALID_ARGUMENT")
    assert (await client.get("/api/v1/contacts", params={"contact_id": "nobody"})).status_code < 500


async def test_fields_that_are_not_known_are_ignored(client: TestClient) -> None:
    sent = text_message("", parts=[{"kind": "text", "text": "send ok", "new": 1}], kind="message", new=[])
    sent["new"] = {"x": 1}
    task = (await result(client, "SendMessage", {**sent, "tenant": ""}))["task"]
    assert texts(task) == ["ok"]


NESTED = b"[" * 150_000 + b"]" * 150_000


LONG = b'"' + b"x" * 999_000 + b'"'
OBJECTS = b'{"a":' * 2000 + b"1" + b"}" * 2000


@pytest.mark.parametrize("value", [NESTED, OBJECTS, b'"\\ud800"', b"9" * 5000, b"1e999", LONG], ids=len)
async def test_hostile_values_are_answered_in_the_form_of_the_binding(client: TestClient, value: bytes) -> None:
    message = b'{"messageId":"m","role":"ROLE_USER","parts":[{"data":%s}],"metadata":{"a":%s}}'
    headers = {**VERSION, "content-type": "application/json"}
    for place in (message % (value, b"1"), message % (b"1", value)):
        by_rpc = await client.post(
            "/a2a",
            content=b'{"jsonrpc":"2.0","id":1,"method":"SendMessage","params":{"message":%s}}' % place,
            headers=headers,
        )
        assert by_rpc.status_code == 200, by_rpc.text[:200]
        assert {"result", "error"} & by_rpc.json().keys()
        by_http = await client.post("/a2a/message:send", content=b'{"message":%s}' % place, headers=headers)
        assert by_http.status_code in (200, 400), by_http.text[:200]


async def test_a_body_that_is_too_large_is_refused(client: TestClient) -> None:
    for path in ("/a2a", "/a2a/message:send"):
        answer = await client.post(path, json=text_message("x" * 2_100_000), headers=VERSION)
        assert answer.status_code == 413
        assert answer.json()["error"]["message"]


async def test_the_routes_are_in_the_description_of_the_api(client: TestClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    assert {"/a2a", "/a2a/message:send", "/a2a/message:stream", "/a2a/tasks", "/a2a/tasks/{id}"} <= paths.keys()
    assert "text/event-stream" in paths["/a2a/message:stream"]["post"]["responses"]["200"]["content"]


async def test_an_error_of_the_server_has_the_form_of_the_binding(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jimsapi.stores.memory import MemoryStore
    from jimsapi.threads.errors import StoreUnavailable

    async def away(*_: object) -> None:
        raise StoreUnavailable("password=hunter2")

    async def broken(*_: object) -> None:
        raise RuntimeError("password=hunter2")

    task = await send(client, "send ok")
    for fault, code, status in ((away, -32000, 503), (broken, -32603, 500)):
        monkeypatch.setattr(MemoryStore, "run", fault)
        by_rpc = await call(client, "GetTask", {"id": task["id"]})
        assert (by_rpc.json()["error"]["code"], by_rpc.status_code) == (code, 200 if status == 503 else 500)
        by_http = await client.get(f"/a2a/tasks/{task['id']}", headers=VERSION)
        assert (by_http.status_code, by_http.json()["error"]["code"]) == (status, status)
        assert "hunter2" not in by_rpc.text + by_http.text
