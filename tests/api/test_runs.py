"""Runs over HTTP: begun without waiting, looked at, watched from any place on, cancelled; across restarts too."""

import asyncio
import json
import signal
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from jimsapi import JimsApp, create_api
from jimsapi.asgi.testing import TestClient
from jimsapi.runs.stream import KEPT_FOR
from jimsapi.threads.errors import StoreUnavailable
from tests.api.conversation import CHAT, RUNS, STREAM, body, names, parse, read_event
from tests.api.test_answers import FAULTY
from tests.apps.scripted import Scripted
from tests.runs.serving import ended
from tests.serving import Served

SCRIPTED = ("--app", "tests.apps.scripted:app")
LIVE = "status Looking; stream Hel; stream lo; event found"


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Served(*SCRIPTED) as server:
        yield server


def begin(client: httpx.Client, message: str, contact: str | None = None, **fields: Any) -> str:
    """Begin a run in the background; returns its path."""
    answer = client.post(RUNS, json=body(message, contact or str(uuid4()), **fields))
    assert answer.status_code == 202, answer.text
    return answer.headers["location"]


def wait(client: httpx.Client, path: str, *statuses: str) -> dict[str, Any]:
    """Wait until a run has one of these statuses."""
    while (shown := client.get(path).json())["status"] not in statuses:
        time.sleep(0.005)
    view: dict[str, Any] = shown
    return view


def release(client: httpx.Client, door: str) -> None:
    client.post(CHAT, json=body(f"open {door}", f"opener of {door}"))


def hold(client: httpx.Client, door: str, contact: str | None = None) -> str:
    """Begin a run that holds, and wait until it does; returns its path."""
    path = begin(client, f"hold {door}; send done", contact)
    client.post(CHAT, json=body(f"reached {door}", f"opener of {door}"))
    return path


# Beginning and looking.


def test_a_run_is_begun_and_says_where_to_look(client: httpx.Client) -> None:
    answer = client.post(RUNS, json=body("hold begun; send done", "beginner"))
    run_id = answer.headers["x-run-id"]
    assert (answer.status_code, answer.headers["location"]) == (202, f"/api/v1/runs/{run_id}")
    assert answer.json().keys() == {"run_id", "thread_id", "status"}
    assert answer.json()["run_id"] == run_id
    assert answer.json()["status"] == "running"
    release(client, "begun")
    done = wait(client, answer.headers["location"], "completed")
    assert done["thread_id"] == answer.json()["thread_id"]
    chatted = client.post(CHAT, json=body("send done", "beginner")).json()
    assert done["result"] == chatted | {"created_new_thread": True}
    assert done["error"] is None
    accepted, started, finished = (
        datetime.fromisoformat(done[f"{when}_at"]) for when in ("accepted", "started", "finished")
    )
    assert accepted <= started <= finished


def test_the_events_of_an_answer_have_their_identifiers_if_the_client_asks_for_them(client: httpx.Client) -> None:
    sent = body("send a; event b", "identified")
    plain = client.post(CHAT, json=sent).json()["events"]
    assert [list(event) for event in plain] == [["event_type", "event_data"]] * 2
    answer = client.post(f"{CHAT}?event_ids=true", json=sent)
    ids = [event["event_id"] for event in answer.json()["events"]]
    assert client.get(f"{RUNS}/{answer.headers['x-run-id']}").json()["event_ids"] == ids
    stored = client.get(f"/api/v1/threads/{answer.json()['thread_id']}/events").json()["events"]
    assert [event["event_id"] for event in stored][-2:] == ids
    refused = client.post(f"{CHAT}?event_ids=perhaps", json=sent)
    assert (refused.status_code, refused.json()["detail"][0]["loc"]) == (422, ["query", "event_ids"])


def test_a_run_without_a_result_has_no_events(client: httpx.Client) -> None:
    failed = client.post(CHAT, json=body("use 1; raise no", "without"))
    assert client.get(f"{RUNS}/{failed.headers['x-run-id']}").json()["event_ids"] == []


def test_runs_are_shown_as_they_stand(client: httpx.Client) -> None:
    running = hold(client, "shown", "shown")
    queued = begin(client, "send b", "shown")
    views = [client.get(path).json() for path in (running, queued)]
    assert [view["status"] for view in views] == ["running", "queued"]
    assert [view["started_at"] is None for view in views] == [False, True]
    assert [(view["finished_at"], view["result"], view["error"]) for view in views] == [(None, None, None)] * 2
    release(client, "shown")
    assert wait(client, queued, "completed")["result"]["assistant_messages"] == ["b"]


@pytest.mark.parametrize("script", ["send a; raise the roof", "unstorable"])
def test_what_failed_says_what_chat_would_have_said(client: httpx.Client, script: str) -> None:
    chatted = client.post(CHAT, json=body(script, "failing"))
    view = wait(client, begin(client, script, "failing"), "failed")
    assert view["error"] == chatted.json() | {"status": chatted.status_code}
    assert view["result"] is None


@pytest.mark.parametrize(("sent", "faults"), FAULTY)
def test_a_faulty_body_is_refused_as_chat_refuses_it(client: httpx.Client, sent: str, faults: Any) -> None:
    answer = client.post(RUNS, content=sent, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()) == (422, {"detail": faults})


def test_what_no_thread_takes_is_refused_at_once(client: httpx.Client) -> None:
    answer = client.post(RUNS, json=body("hi", thread_id=str(uuid4())))
    assert answer.status_code == 404
    assert "location" not in answer.headers
    assert client.get(f"{RUNS}/{answer.headers['x-run-id']}").status_code == 404


def test_a_run_that_is_not_there_is_404_on_every_route(client: httpx.Client) -> None:
    run_id = uuid4()
    for method, path in (("GET", ""), ("GET", "/stream"), ("POST", "/cancel")):
        answer = client.request(method, f"{RUNS}/{run_id}{path}")
        assert (answer.status_code, answer.json()) == (404, {"detail": f"Run not found: {run_id}"})
    assert client.get(f"{RUNS}/no-uuid").status_code == 404


@pytest.mark.parametrize("prefer", ["respond-async", "wait=5, Respond-Async; x=1"])
def test_who_prefers_not_to_wait_does_not(client: httpx.Client, prefer: str) -> None:
    answer = client.post(CHAT, json=body("send a", "hasty"), headers={"prefer": prefer})
    assert (answer.status_code, answer.headers["preference-applied"]) == (202, "respond-async")
    assert answer.headers["location"] == f"{RUNS}/{answer.json()['run_id']}"
    assert wait(client, answer.headers["location"], "completed")["result"]["assistant_messages"] == ["a"]


@pytest.mark.parametrize("prefer", ["wait=5", "return=minimal", "respond-asynchronously"])
def test_other_preferences_change_nothing(client: httpx.Client, prefer: str) -> None:
    answer = client.post(CHAT, json=body("send a", "patient"), headers={"prefer": prefer})
    assert (answer.status_code, answer.json()["assistant_messages"]) == (200, ["a"])
    assert "preference-applied" not in answer.headers


# Cancelling.


def test_a_running_one_is_cancelled_and_its_caller_and_its_stream_are_told(client: httpx.Client) -> None:
    path = hold(client, "cancelled", "canceller")
    with client.stream("GET", f"{path}/stream") as stream:
        lines = stream.iter_lines()
        assert read_event(lines).name == "started"
        answer = client.post(f"{path}/cancel")
        assert answer.status_code == 202
        last = read_event(lines)
    error = {"detail": "The run was cancelled", "status": 409}
    assert (answer.json()["status"], answer.json()["error"]) == ("cancelled", error)
    assert last == ("end", "error", {"detail": "The run was cancelled"})
    assert client.get(path).json() == answer.json()
    assert client.post(f"{path}/cancel").status_code == 409  # it has ended
    seen = client.post(CHAT, json=body("see", "canceller")).json()
    assert json.loads(seen["assistant_messages"][0]) == ["hold cancelled; send done", "see"]


# Watching.


def test_a_run_is_watched_from_its_start_or_after_any_of_its_events(client: httpx.Client) -> None:
    answer = client.post(STREAM, json=body(LIVE, "watched"))
    whole = parse(answer.text)
    assert names(whole) == ["started", "status", "delta", "delta", "event", "event", "result"]
    assert [event.id for event in whole] == [*map(str, range(1, 7)), "end"]
    path = f"{RUNS}/{answer.headers['x-run-id']}/stream"
    assert client.get(path).text == answer.text
    for number, event in enumerate(whole[:-1], 1):
        assert event.id is not None
        by_header = client.get(path, headers={"last-event-id": event.id})
        assert by_header.status_code == 200
        assert parse(by_header.text) == whole[number:]
        assert client.get(path, params={"after": event.id}).text == by_header.text
    assert parse(client.get(path, headers={"last-event-id": "5"}, params={"after": "1"}).text) == whole[5:]
    assert client.get(path, params={"after": ""}).text == answer.text
    for behind in (client.get(path, headers={"last-event-id": "end"}), client.get(path, params={"after": "end"})):
        assert (behind.status_code, behind.content) == (204, b"")


@pytest.mark.parametrize("bogus", ["x", "-1", "1.5", "END", "1" * 19, "²", "1 "])
def test_an_id_that_no_event_has_is_refused(client: httpx.Client, bogus: str) -> None:
    path = f"{begin(client, 'send a')}/stream"
    answers = [(client.get(path, params={"after": bogus}), "query", "after")]
    if bogus.isascii() and bogus == bogus.strip():
        answers.append((client.get(path, headers={"last-event-id": bogus}), "header", "last-event-id"))
    for answer, place, field in answers:
        (fault,) = answer.json()["detail"]
        assert (answer.status_code, fault["type"], fault["loc"]) == (422, "invalid_id", [place, field])


def test_a_stream_with_a_bogus_id_begins_no_run(client: httpx.Client) -> None:
    answer = client.post(STREAM, json=body("hi", "bogus"), headers={"last-event-id": "x"})
    assert answer.status_code == 422
    assert client.get("/api/v1/threads", params={"contact_id": "bogus"}).json()["threads"] == []


# Elsewhere: mounted, forgotten, restarted.


@pytest.mark.anyio
async def test_a_location_bears_the_prefix_under_which_the_api_is_mounted() -> None:
    api = create_api(JimsApp(Scripted()), store="memory:")
    async with TestClient(api, root_path="/bot") as client:
        for path, headers in ((RUNS, {}), (CHAT, {"prefer": "respond-async"})):
            answer = await client.post(f"/bot{path}", json=body("hi"), headers=headers)
            assert answer.headers["location"] == f"/bot/api/v1/runs/{answer.json()['run_id']}"
            assert (await client.get(answer.headers["location"])).status_code == 200


@pytest.mark.anyio
async def test_a_minute_after_its_end_a_run_is_told_from_the_store() -> None:
    api = create_api(JimsApp(Scripted()), store="memory:")
    async with TestClient(api) as client:
        answer = await client.post(STREAM, json=body(LIVE))
        live = parse(answer.text)
        assert api.service is not None
        await ended(api.service)
        api.service.streams.tidy(asyncio.get_running_loop().time() + KEPT_FOR)
        path = f"{RUNS}/{answer.headers['x-run-id']}/stream"
        stored = parse((await client.get(path)).text)
        assert stored == [live[0], ("4", "gap", {"missed": 3}), *live[4:]]
        assert parse((await client.get(path, params={"after": "2"})).text) == [("4", "gap", {"missed": 2}), *live[4:]]
        assert parse((await client.get(path, params={"after": "4"})).text) == live[4:]


def test_after_a_restart_runs_are_shown_and_told_by_the_same_ids(tmp_path: Path) -> None:
    with Served(*SCRIPTED, "--store", f"sqlite:///{tmp_path / 'jims.db'}") as server:
        with server.client() as client:
            answer = client.post(STREAM, json=body(LIVE))
            live, run = parse(answer.text), f"{RUNS}/{answer.headers['x-run-id']}"
            before = client.get(run).json()
            killed = hold(client, "killed", "killed")
            assert server.process is not None
        server.stop(signal.SIGKILL)
        server.start()
        with server.client() as client:
            assert client.get(run).json() == before
            assert parse(client.get(f"{run}/stream").text) == [live[0], ("4", "gap", {"missed": 3}), *live[4:]]
            interrupted = client.get(killed).json()
            told = parse(client.get(f"{killed}/stream").text)
    assert interrupted["status"] == "interrupted"
    assert interrupted["error"] == {"detail": "The run was interrupted; try again", "status": 503}
    assert [(event.id, event.name) for event in told] == [("1", "started"), ("1", "gap"), ("end", "error")]
    assert told[1].data == {"missed": None}


def test_a_run_that_waits_at_a_shutdown_is_done_by_the_next_process(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'jims.db'}"
    with Served(*SCRIPTED, "--store", store, "--drain-time", "2") as server:
        with server.client() as client:
            running = hold(client, "shutdown", "ann")
            queued = begin(client, "see", "ann")
            with client.stream("GET", f"{queued}/stream") as stream:
                lines = stream.iter_lines()
                assert read_event(lines).name == "started"
                assert server.process is not None
                server.process.send_signal(signal.SIGTERM)
                # No id: that is not how the run ends, and who resumes behind the start finds more.
                assert read_event(lines) == (None, "error", {"detail": "The server is shutting down; try again"})
        assert server.process.wait(20) == 0
        server.start()
        with server.client() as client:
            done = wait(client, queued, "completed", "failed", "cancelled", "interrupted")
            resumed = parse(client.get(f"{queued}/stream", headers={"last-event-id": "1"}).text)
            assert names(resumed) == ["delta", "event", "result"]
            assert resumed[-1].data == done["result"]
            assert client.get(running).json()["status"] == "interrupted"
    assert json.loads(done["result"]["assistant_messages"][0]) == ["hold shutdown; send done", "see"]


# Limits.


@pytest.mark.anyio
async def test_a_busy_thread_refuses_with_the_run_that_is_open() -> None:
    bot = Scripted()
    async with TestClient(create_api(JimsApp(bot), store="memory:", thread_busy="reject")) as client:
        held = (await client.post(RUNS, json=body("hold on"))).json()
        await bot.reached["on"].wait()
        for path in (CHAT, STREAM, RUNS):
            refused = await client.post(path, json=body("hi"))
            assert (refused.status_code, refused.json()["run_id"]) == (409, held["run_id"])
            assert refused.headers["retry-after"] == "1"
        bot.opened["on"].set()
        while (await client.get(f"{RUNS}/{held['run_id']}")).json()["status"] != "completed":
            await asyncio.sleep(0)
        assert (await client.post(CHAT, json=body("hi"))).status_code == 200


@pytest.mark.anyio
async def test_a_stream_that_ends_for_want_of_the_store_goes_on_behind_what_was_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    api = create_api(JimsApp(Scripted()), store="memory:")
    async with TestClient(api) as client:
        assert api.service is not None
        store = api.service.store
        finish, away = store.finish, asyncio.Event()
        away.set()

        async def finish_or_not(*given: Any) -> Any:
            if away.is_set():
                raise StoreUnavailable("host=db.internal")
            return await finish(*given)

        monkeypatch.setattr(store, "finish", finish_or_not)
        answer = await client.post(STREAM, json=body("stream a"))
        *read, last = parse(answer.text)
        assert names(read) == ["started", "delta"]
        assert last == (None, "error", {"detail": "The store is not available; try again later"})
        away.clear()
        run = f"{RUNS}/{answer.headers['x-run-id']}"
        while (await client.get(run)).json()["status"] != "completed" or api.service.open_runs:
            await asyncio.sleep(0.005)
        rest = parse((await client.get(f"{run}/stream", headers={"last-event-id": "2"})).text)
        assert [(event.id, event.name) for event in rest] == [("3", "event"), ("end", "result")]
