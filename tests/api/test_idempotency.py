"""`Idempotency-Key`: a message that is sent again is answered once, over `/chat`, `/chat/stream` and `/runs` alike."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from jimsapi import JimsApp, create_api
from jimsapi.asgi.testing import TestClient
from tests.api.conversation import CHAT, RUNS, STREAM, body, parse
from tests.apps.scripted import Scripted
from tests.plugins.distributions import install
from tests.serving import ROOT, Served

SCRIPTED = ("--app", "tests.apps.scripted:app")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    store = f"sqlite:///{tmp_path_factory.mktemp('store') / 'jims.db'}"
    with Served(*SCRIPTED, "--store", store, "--log-format", "json", "--verbose") as server:
        yield server


def key(value: str | None = None) -> dict[str, str]:
    return {"idempotency-key": value or str(uuid4())}


def said(client: httpx.Client, contact: str) -> list[str]:
    """What a contact has said in its newest thread."""
    answer = client.post(CHAT, json=body("see", contact)).json()
    texts: list[str] = json.loads(answer["assistant_messages"][0])
    return texts


@pytest.mark.anyio
async def test_it_is_one_run_whichever_way_it_is_asked_for(served: Served) -> None:
    async with served.async_client() as client:
        sent, headers = body("status a; hold mixed; send b", "mixed"), key()
        ways = [CHAT, STREAM, RUNS] * 8
        calls = [asyncio.create_task(client.post(way, json=sent, headers=headers)) for way in ways]
        await client.post(CHAT, json=body("reached mixed", "opener"))
        await client.post(CHAT, json=body("open mixed", "opener"))
        answers = await asyncio.gather(*calls)
        assert len({answer.headers["x-run-id"] for answer in answers}) == 1
        assert [answer.status_code for answer in answers] == [200, 200, 202] * 8
        result = answers[0].json()
        assert all(answer.json() == result for answer in answers[::3])
        streams = [parse(answer.text) for answer in answers[1::3]]
        assert all(stream[0].name == "started" and stream[-1].data == result for stream in streams)
        assert {answer.headers["location"] for answer in answers[2::3]} == {f"{RUNS}/{answers[0].headers['x-run-id']}"}
        seen = (await client.post(CHAT, json=body("see", "mixed"))).json()["assistant_messages"][0]
        assert len(json.loads(seen)) == 2


@pytest.mark.parametrize("script", ["send a; event b", "raise it", "unstorable"])
def test_a_replay_has_the_status_the_body_and_the_run_of_the_first(client: httpx.Client, script: str) -> None:
    headers, contact = key(), str(uuid4())
    sent = body(script, contact)
    first, again = [client.post(CHAT, json=sent, headers=headers) for _ in range(2)]
    assert first.status_code == (200 if script.startswith("send") else 500)
    assert (again.status_code, again.text) == (first.status_code, first.text)
    assert again.headers["x-run-id"] == first.headers["x-run-id"]
    streamed = parse(client.post(STREAM, json=sent, headers=headers).text)
    assert streamed[0].data["run_id"] == first.headers["x-run-id"]
    assert streamed[-1].data == first.json()
    begun = client.post(RUNS, json=sent, headers=headers)
    status = "completed" if first.status_code == 200 else "failed"
    assert (begun.status_code, begun.json()["status"]) == (202, status)
    assert begun.headers["location"] == f"{RUNS}/{begun.json()['run_id']}" == f"{RUNS}/{first.headers['x-run-id']}"
    assert said(client, contact) == [script, "see"]


def test_another_body_is_422(client: httpx.Client) -> None:
    headers = key()
    assert client.post(CHAT, json=body("send a", "other"), headers=headers).status_code == 200
    for path in (CHAT, STREAM, RUNS):
        for sent in (body("send b", "other"), body("send a", "other", event_type="comm.user_button")):
            answer = client.post(path, json=sent, headers=headers)
            assert (answer.status_code, "used for another request" in answer.json()["detail"]) == (422, True)
    assert client.post(CHAT, json=body("send b", "another contact"), headers=headers).status_code == 200


def test_without_a_key_or_with_another_it_is_another_run(client: httpx.Client) -> None:
    sent = body("send a", "keyless")
    runs = [client.post(CHAT, json=sent, headers=headers).headers["x-run-id"] for headers in ({}, {}, key(), key())]
    assert len(set(runs)) == 4


@pytest.mark.parametrize("value", ["", "x" * 256, "a\tb", "schlüssel"])
@pytest.mark.parametrize("path", [CHAT, STREAM, RUNS])
def test_a_key_that_is_none_is_refused(client: httpx.Client, path: str, value: str) -> None:
    headers = [(b"idempotency-key", value.encode("latin-1"))]
    answer = client.post(path, json=body("hi", "faulty"), headers=headers)
    (fault,) = answer.json()["detail"]
    assert (answer.status_code, fault["type"], fault["loc"]) == (422, "invalid_key", ["header", "idempotency-key"])
    assert fault["input"] is None


def test_two_keys_are_refused_and_the_longest_is_taken(client: httpx.Client) -> None:
    twice = [("idempotency-key", "a"), ("idempotency-key", "a")]
    assert client.post(CHAT, json=body("hi", "twice"), headers=twice).status_code == 422
    assert client.get("/api/v1/threads", params={"contact_id": "twice"}).json()["threads"] == []
    assert client.post(CHAT, json=body("hi", "twice"), headers=key("x" * 255)).status_code == 200


def test_a_stream_is_resumed_by_sending_it_again(client: httpx.Client) -> None:
    headers, sent = key(), body("status a; stream b", "resumed")
    whole = parse(client.post(STREAM, json=sent, headers=headers).text)
    rest = parse(client.post(STREAM, json=sent, headers={**headers, "last-event-id": "2"}).text)
    assert rest == whole[2:]


def test_the_key_is_in_no_log(served: Served, client: httpx.Client) -> None:
    secret = f"key-{uuid4()}"
    for path in (CHAT, STREAM, RUNS):
        client.post(path, json=body("raise it", "logged"), headers=key(secret))
    client.post(CHAT, json=body("other", "logged"), headers=key(secret))
    client.post(CHAT, json=body("hi", "logged"), headers=key(secret + "x" * 256))
    answer = client.post(CHAT, json=body("hi", "logged"), headers={"x-request-id": "the-last-of-these"})
    assert answer.status_code == 200
    while '"the-last-of-these"' not in served.stderr:
        pass
    assert secret not in served.stderr


# In this process.


@pytest.mark.anyio
async def test_a_bound_caller_may_leave_its_contact_out_the_second_time(site: Path) -> None:
    install(site, "jimsapi-users", (ROOT / "tests" / "apps" / "jimsapi_users.py").read_text())
    async with TestClient(create_api(JimsApp(Scripted()), store="memory:")) as client:
        headers = {"x-user": "ann", **key()}
        answers = [await client.post(CHAT, json=sent, headers=headers) for sent in (body("hi"), {"message": "hi"})]
    assert answers[0].headers["x-run-id"] == answers[1].headers["x-run-id"]


def test_a_thread_that_was_deleted_frees_its_keys(client: httpx.Client) -> None:
    headers, sent = key(), body("send a", "deleted")
    first = client.post(CHAT, json=sent, headers=headers)
    assert client.delete(f"/api/v1/threads/{first.json()['thread_id']}").status_code == 204
    again = client.post(CHAT, json=sent, headers=headers)
    assert again.headers["x-run-id"] != first.headers["x-run-id"]
