"""`Idempotency-Key`: a message that is sent again is answered once, over `/chat`, `/chat/stream` and `/runs` alike."""

import asyncio
import json
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from jimsapi import JimsApp, create_api
from jimsapi.asgi.testing import TestClient
from tests.api.conversation import CHAT, RUNS, STREAM, body, parse, read_event
from tests.api.test_runs import hold, release, wait
from tests.apps.scripted import Scripted
from tests.plugins.distributions import install
from tests.raw import metric
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
async def test_fifty_at_once_are_one_run_and_fifty_equal_answers(served: Served) -> None:
    async with served.async_client() as client:
        sent = body("hold fifty; send a", "fifty")
        headers = key()
        calls = [asyncio.create_task(client.post(CHAT, json=sent, headers=headers)) for _ in range(50)]
        await client.post(CHAT, json=body("reached fifty", "opener"))
        await client.post(CHAT, json=body("open fifty", "opener"))
        answers = await asyncio.gather(*calls)
        assert {(answer.status_code, answer.text, answer.headers["x-run-id"]) for answer in answers} == {
            (200, answers[0].text, answers[0].headers["x-run-id"])
        }
        seen = (await client.post(CHAT, json=body("see", "fifty"))).json()["assistant_messages"][0]
        assert json.loads(seen) == ["hold fifty; send a", "see"]


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


def test_a_cancelled_run_is_replayed_as_such(client: httpx.Client) -> None:
    headers, sent = key(), body("hold replay", "cancelled")
    run = client.post(RUNS, json=sent, headers=headers).json()["run_id"]
    client.post(CHAT, json=body("reached replay", "opener"))
    client.post(f"{RUNS}/{run}/cancel")
    for _ in range(2):
        answer = client.post(CHAT, json=sent, headers=headers)
        assert (answer.status_code, answer.json()) == (409, {"detail": "The run was cancelled"})
        assert answer.headers["x-run-id"] == run


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


def test_hanging_up_does_not_disturb_who_sent_it_too(client: httpx.Client) -> None:
    headers, sent = key(), body("stream a; hold hung; stream b", "hung")
    with client.stream("POST", STREAM, json=sent, headers=headers) as first:
        read_event(first.iter_lines())
    release(client, "hung")
    assert client.post(CHAT, json=sent, headers=headers).json()["assistant_messages"] == ["ab"]


@pytest.mark.anyio
async def test_a_caller_that_leaves_takes_the_answer_from_no_other(served: Served) -> None:
    async with served.async_client() as client:
        headers, sent = key(), body("hold leaving; send a", "leaving")
        leaving = asyncio.create_task(client.post(CHAT, json=sent, headers=headers))
        await client.post(CHAT, json=body("reached leaving", "opener"))
        staying = asyncio.create_task(client.post(CHAT, json=sent, headers=headers))
        leaving.cancel()
        with suppress(asyncio.CancelledError):
            await leaving
        await client.post(CHAT, json=body("open leaving", "opener"))
        assert (await staying).json()["assistant_messages"] == ["a"]


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


def test_keys_outlive_the_process_and_that_of_an_interrupted_run_begins_anew(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'jims.db'}"
    done, cut = (body("send a", "done"), key()), (body("hold cut; see", "cut"), key())
    with Served(*SCRIPTED, "--store", store) as server:
        with server.client() as client:
            first = client.post(CHAT, json=done[0], headers=done[1])
            interrupted = client.post(RUNS, json=cut[0], headers=cut[1]).json()
            client.post(CHAT, json=body("reached cut", "opener"))
        server.stop(signal.SIGKILL)
        server.start()
        with server.client() as client:
            again = client.post(CHAT, json=done[0], headers=done[1])
            assert (again.text, again.headers["x-run-id"]) == (first.text, first.headers["x-run-id"])
            release(client, "cut")
            answer = client.post(CHAT, json=cut[0], headers=cut[1])
            assert answer.headers["x-run-id"] != interrupted["run_id"]
            assert answer.json()["thread_id"] == interrupted["thread_id"]
            assert json.loads(answer.json()["assistant_messages"][0]) == ["hold cut; see"]
            assert said(client, "cut") == ["hold cut; see", "see"]
            shown = client.get(f"{RUNS}/{interrupted['run_id']}").json()
            assert shown["status"] == "interrupted"


# In this process.


@pytest.mark.anyio
async def test_callers_do_not_meet_in_a_key(site: Path) -> None:
    install(site, "jimsapi-users", (ROOT / "tests" / "apps" / "jimsapi_users.py").read_text())
    async with TestClient(create_api(JimsApp(Scripted()), store="memory:")) as client:
        runs = [
            (await client.post(CHAT, json=body("hi", "ann"), headers={"x-user": user, **key("one")})).headers[
                "x-run-id"
            ]
            for user in ("ann", "root", "talker", "ann-talks", "ann")
        ]
    assert len(set(runs)) == 4
    assert runs[0] == runs[-1]


@pytest.mark.anyio
async def test_a_bound_caller_may_leave_its_contact_out_the_second_time(site: Path) -> None:
    install(site, "jimsapi-users", (ROOT / "tests" / "apps" / "jimsapi_users.py").read_text())
    async with TestClient(create_api(JimsApp(Scripted()), store="memory:")) as client:
        headers = {"x-user": "ann", **key()}
        answers = [await client.post(CHAT, json=sent, headers=headers) for sent in (body("hi"), {"message": "hi"})]
    assert answers[0].headers["x-run-id"] == answers[1].headers["x-run-id"]


@pytest.mark.anyio
async def test_what_timed_out_is_replayed_and_what_never_had_its_turn_is_not() -> None:
    bot = Scripted()
    api = create_api(JimsApp(bot), store="memory:", run_timeout=2, queue_timeout=0.1)
    async with TestClient(api) as client:
        late, queued = key(), key()
        answers = asyncio.create_task(client.post(CHAT, json=body("hold on"), headers=late))
        await bot.reached["on"].wait()
        assert (await client.post(CHAT, json=body("hi"), headers=queued)).status_code == 503
        first = await answers
        again = await client.post(CHAT, json=body("hold on"), headers=late)
        assert (first.status_code, again.status_code, again.text) == (504, 504, first.text)
        assert (await client.post(CHAT, json=body("hi"), headers=queued)).json()["assistant_messages"] == [
            "You said: hi"
        ]
    assert bot.texts == ["hold on", "hi"]


@pytest.mark.anyio
async def test_streamed_background_and_repeated_runs_are_counted_once() -> None:
    api = create_api(JimsApp(Scripted(), name="bot"), store="memory:")
    async with TestClient(api) as client:
        for path in (CHAT, STREAM, RUNS):
            headers = key()
            for _ in range(3):
                answer = await client.post(path, json=body("hi", path), headers=headers)
                run = f"{RUNS}/{answer.headers['x-run-id']}"
                while (await client.get(run)).json()["status"] != "completed":
                    await asyncio.sleep(0)
                await asyncio.sleep(0)
        figures: Any = api.metrics()
    assert metric(figures, "jims_runs_total", status="completed") == 3
    assert metric(figures, "jims_pipeline_runs_total", status="success", pipeline="bot") == 3


def test_a_thread_that_was_deleted_frees_its_keys(client: httpx.Client) -> None:
    headers, sent = key(), body("send a", "deleted")
    first = client.post(CHAT, json=sent, headers=headers)
    assert client.delete(f"/api/v1/threads/{first.json()['thread_id']}").status_code == 204
    again = client.post(CHAT, json=sent, headers=headers)
    assert again.headers["x-run-id"] != first.headers["x-run-id"]


def test_a_run_that_still_waits_is_found_by_its_key(client: httpx.Client) -> None:
    hold(client, "waits", "waits")
    headers, sent = key(), body("send b", "waits")
    first, second = [client.post(RUNS, json=sent, headers=headers) for _ in range(2)]
    assert first.json() == second.json()
    assert first.json()["status"] == "queued"
    release(client, "waits")
    wait(client, first.headers["location"], "completed")
