"""Whose conversation a message belongs to, and what becomes of it when its client leaves."""

import json
import time
from contextlib import closing
from typing import Any

import pytest

from jimsapi.asgi.testing import TestClient
from tests.apps.scripted import Scripted
from tests.raw import connect, request
from tests.serving import Served

pytestmark = pytest.mark.anyio

COMPLETIONS = "/v1/chat/completions"
ODD_NAMES = {
    "long": "x" * 10_000,
    "unicode": "Grüße-😀",
    "spaces": "  a  ",
    "path": "../../etc/passwd",
    "quote": "'); drop table threads; --",
    "uuid": "0192f3a4-0000-7000-8000-000000000000",
}


async def ask(client: TestClient, text: str, headers: dict[str, str] | None = None, **options: Any) -> Any:
    answer = await client.post(
        COMPLETIONS, json={"messages": [{"role": "user", "content": text}], **options}, headers=headers
    )
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["message"]["content"]


def named(thread: str, user: str | None = None, **more: str) -> dict[str, str]:
    """The headers of Open WebUI."""
    by = {} if user is None else {"x-openwebui-user-id": user}
    return {"x-openwebui-chat-id": thread, **by, **more}


async def seen(client: TestClient, headers: dict[str, str], **options: Any) -> list[str]:
    """The earlier messages of a conversation."""
    told: list[str] = json.loads(await ask(client, "see", headers, **options))
    return told[:-1]


async def test_two_people_behind_one_key_never_share_a_thread(client: TestClient) -> None:
    await ask(client, "ann's", named("c", "ann"))
    assert await seen(client, named("c", "bea")) == []
    assert await seen(client, named("c")) == []
    assert await seen(client, named("c"), user="bea") == ["see"]  # as the header says
    assert await seen(client, named("d", "ann")) == []
    assert await seen(client, named("c", "ann")) == ["ann's"]


async def test_the_header_names_the_contact_before_the_user_field_does(client: TestClient) -> None:
    await ask(client, "one", named("c", "ann"), user="bea")
    for contact, count in (("ann", 1), ("bea", 0), ("c", 0)):
        page = await client.get("/api/v1/threads", params={"contact_id": contact})
        assert len(page.json()["threads"]) == count


async def test_a_conversation_without_a_person_is_a_contact_of_its_own(client: TestClient) -> None:
    await ask(client, "one", named("c"))
    [thread] = (await client.get("/api/v1/threads", params={"contact_id": "c"})).json()["threads"]
    assert thread["contact_id"] == "c"


async def test_without_any_name_every_message_is_somebody_new_s(client: TestClient) -> None:
    await ask(client, "one")
    assert await seen(client, {}) == []


async def test_a_foreign_name_is_never_taken_for_a_thread_of_ours(client: TestClient) -> None:
    chat = {"contact_id": "ann", "message": "secret"}
    thread_id = (await client.post("/api/v1/chat", json=chat)).json()["thread_id"]
    assert await seen(client, named(thread_id, "bea")) == []
    assert await seen(client, named(thread_id, "ann")) == []


@pytest.mark.parametrize("name", ODD_NAMES.values(), ids=ODD_NAMES)
async def test_a_conversation_may_have_any_name(client: TestClient, name: str) -> None:
    header = name.encode().decode("latin-1")
    for headers in (named(header), named(header, "ann")):
        raw = {key.encode(): value.encode("latin-1") for key, value in headers.items()}
        await ask(client, "one", raw)  # type: ignore[arg-type] # httpx takes bytes, which may be any
        assert await seen(client, raw) == ["one"]  # type: ignore[arg-type] # as above


@pytest.mark.parametrize(("user", "status"), [("u" * 2000, 200), ("ü" * 1001, 422), ("a\0b", 422)])
async def test_a_person_s_name_is_as_every_contact_s(client: TestClient, user: str, status: int) -> None:
    answer = await client.post(COMPLETIONS, json={"messages": [{"role": "user", "content": "hi"}], "user": user})
    assert answer.status_code == status
    if status == 422:
        assert answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.usefixtures("people")
async def test_a_bound_caller_stays_its_own_contact_whatever_it_says(client: TestClient) -> None:
    ann, bea = {"x-user": "ann"}, {"x-user": "bea"}
    await ask(client, "ann's", named("c", "bea", **ann), user="bea")
    assert await seen(client, named("c", "ann", **bea), user="ann") == []
    assert await seen(client, named("c", **ann)) == ["ann's"]
    for user in ("ann", "bea"):
        threads = await client.get("/api/v1/threads", params={"contact_id": user}, headers={"x-user": user})
        assert len(threads.json()["threads"]) == 1
    assert await seen(client, named("c", "ann", **{"x-user": "root"})) == []  # another caller has names of its own


@pytest.mark.usefixtures("people")
async def test_who_may_not_chat_may_not_do_it_here_either(client: TestClient) -> None:
    body = {"messages": [{"role": "user", "content": "hi"}]}
    statuses = {}
    for user in ("talker", "reader", "nobody", "denied", "down", "wrong"):
        statuses[user] = (await client.post(COMPLETIONS, json=body, headers={"x-user": user})).status_code
        assert (await client.get("/v1/models", headers={"x-user": user})).status_code == statuses[user]
    assert statuses == {"talker": 200, "reader": 403, "nobody": 403, "denied": 403, "down": 503, "wrong": 401}
    answer = await client.post(COMPLETIONS, json=body)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Test realm="people"')
    error = {"message": "Unauthorized", "type": "authentication_error", "param": None, "code": "invalid_api_key"}
    assert answer.json() == {"error": error}
    assert (await client.get("/v1/models")).json() == answer.json()
    answer = await client.post(COMPLETIONS, json=body, headers={"x-user": "reader"})
    assert answer.json()["error"]["message"] == "These credentials lack the scope chat"


@pytest.mark.parametrize("settings", [{"openai_contact_header": "X-Person", "openai_thread_header": "X-Talk"}])
async def test_the_headers_have_the_names_that_the_operator_gave(client: TestClient) -> None:
    ann = {"x-person": "ann", "x-talk": "c"}
    await ask(client, "one", ann)
    assert await seen(client, named("c", "ann")) == []
    assert await seen(client, ann) == ["one"]


async def test_a_thread_says_where_it_came_from(client: TestClient, bot: Scripted) -> None:
    await ask(client, "one", named("c", "ann"))
    [thread] = (await client.get("/api/v1/threads", params={"contact_id": "ann"})).json()["threads"]
    assert thread["thread_config"] == {"interface": "openai"}


@pytest.mark.parametrize("stream", [False, True])
def test_hanging_up_does_not_stop_the_answer(served: Served, key: str, stream: bool) -> None:
    headers = named(f"gone-{stream}", authorization=f"Bearer {key}")

    def body(text: str, **options: Any) -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": text}], **options}

    steps = f"stream Hel; open begun-{stream}; hold door-{stream}; stream lo"
    sent = json.dumps(body(steps, stream=stream)).encode()
    lines = ["content-type: application/json", f"content-length: {len(sent)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    with served.client(headers=headers) as client:
        with closing(connect(served.port)) as connection:
            connection.sendall(request("POST", COMPLETIONS, *lines, body=sent))
            elsewhere = {"x-openwebui-chat-id": "elsewhere"}
            client.post(COMPLETIONS, json=body(f"hold begun-{stream}"), headers=elsewhere)
        client.post(COMPLETIONS, json=body(f"open door-{stream}"), headers=elsewhere)
        told = client.post(COMPLETIONS, json=body("see")).json()["choices"][0]["message"]["content"]
        assert json.loads(told) == [steps, "see"]
        [thread] = client.get("/api/v1/threads", params={"contact_id": f"gone-{stream}"}).json()["threads"]
        events = client.get(f"/api/v1/threads/{thread['thread_id']}/events").json()["events"]
        assert {"role": "assistant", "content": "Hello"} in [event["event_data"] for event in events]


def test_no_secret_and_no_message_is_in_the_log(served: Served, key: str) -> None:
    before = len(served.stderr)
    with served.client(headers={"authorization": f"Bearer {key}"}) as client:
        for steps in ("say hush-hush", "raise oh no", "say hush-hush"):
            client.post(COMPLETIONS, json={"messages": [{"role": "user", "content": steps}], "stream": True})
        client.post(COMPLETIONS, json={"messages": 5, "user": "hush-hush"})
        client.post(COMPLETIONS, json={}, headers={"authorization": "Bearer wrong-key"})
    until = time.monotonic() + 20
    while "status=401" not in (log := served.stderr[before:]) and time.monotonic() < until:
        time.sleep(0.05)
    assert "oh no" in log
    assert key not in log
    assert "wrong-key" not in log
    assert "hush-hush" not in log
