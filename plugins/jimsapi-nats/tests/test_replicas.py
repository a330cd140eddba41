"""Two server processes on one PostgreSQL and one NATS: each shows the live streams of both."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from nats_server import NatsServer

from tests.serving import Served
from tests.waiting import PATIENCE, eventually

CHAT, STREAM, RUNS = "/api/v1/chat", "/api/v1/chat/stream", "/api/v1/runs"
SCRIPT = "status Looking; stream Hel; stream lo; think Hm; tool search; hold door; stream Bye; stream !; send Bye!"


Replicas = tuple[Served, Served]
Event = tuple[str, str, Any]


@pytest.fixture(scope="module")
def server() -> Iterator[NatsServer]:
    """A server that the replicas share."""
    with NatsServer() as running:
        yield running


@pytest.fixture(scope="module")
def replicas(postgres: Any, server: NatsServer) -> Iterator[Replicas]:
    """Two servers on one database and one NATS, with the scripted bot."""
    env = {"JIMS_NATS_URL": server.url}
    with postgres.database() as name:
        options = ("--app", "tests.apps.scripted:app", "--store", postgres.url(name))
        with Served(*options, env=env) as one, Served(*options, env=env) as other:
            yield one, other


def events(answer: httpx.Response) -> Iterator[Event]:
    """The server-sent events of an answer: the position, the type and the data of each."""
    fields: dict[str, str] = {}
    until = time.monotonic() + PATIENCE
    for line in answer.iter_lines():
        assert time.monotonic() < until, "only comments come"
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif "data" in fields:
            yield fields["id"], fields["event"], json.loads(fields["data"])
            fields = {}


@contextmanager
def resumed(served: Served, run: str, after: str = "") -> Iterator[Iterator[Event]]:
    """The events of a run after a position, as a client reads them that connects anew."""
    headers = {"last-event-id": after} if after else {}
    with served.client() as client, client.stream("GET", f"{RUNS}/{run}/stream", headers=headers) as answer:
        assert answer.status_code == 200
        yield events(answer)


def open_door(served: Served, door: str) -> None:
    """Let the bot of one process go on."""
    with served.client() as client:
        client.post(CHAT, json={"contact_id": "ben", "message": f"open {door}"}).raise_for_status()


def begin(served: Served, script: str) -> str:
    """Begin a run in the background, and wait until it runs."""
    with served.client() as client:
        run = str(client.post(RUNS, json={"contact_id": "ann", "message": script}).json()["run_id"])
        eventually(lambda: client.get(f"{RUNS}/{run}").json()["status"] == "running")
    return run


def test_a_stream_that_began_at_one_replica_is_resumed_at_another_in_mid_answer(replicas: Replicas) -> None:
    one, other = replicas
    body = {"contact_id": "resumed", "message": SCRIPT.replace("door", "first door")}
    with one.client() as client, client.stream("POST", STREAM, json=body) as answer:
        run = answer.headers["x-run-id"]
        coming = events(answer)
        first = [next(coming) for _ in range(3)]
    with resumed(other, run, first[-1][0]) as coming:
        before = next(coming)
        open_door(one, "first door")
        rest = [before, *coming]
    with resumed(one, run) as coming:
        whole = list(coming)
    assert [*first, *rest] == whole
    kinds = [kind for _, kind, _ in whole]
    assert kinds[:6] == ["started", "status", "delta", "delta", "reasoning", "activity"]
    assert [data["content"] for _, kind, data in whole if kind == "delta"][:4] == ["Hel", "lo", "Bye", "!"]


def test_a_stream_is_read_to_its_end_although_nats_is_restarted_in_mid_answer(
    replicas: Replicas, server: NatsServer
) -> None:
    one, other = replicas
    run = begin(one, SCRIPT.replace("stream Bye", "stream Bye; hold gate"))
    with resumed(other, run) as coming:
        first = [next(coming), next(coming)]
        server.kill()
        open_door(one, "door")
        server.start()
        found = next(event for event in coming if event[1] == "delta" and event[2]["content"] == "Bye")
        open_door(one, "gate")
        last = [found, *coming]
    with resumed(one, run, first[-1][0]) as coming:
        whole = list(coming)
    assert last == whole[-len(last) :]


@contextmanager
def sent(served: Served, chat: str, message: str) -> Iterator[httpx.Response]:
    """The answer to a message of a page with the AI SDK. It may be read in part."""
    body = {"id": chat, "messages": [{"id": "1", "role": "user", "parts": [{"type": "text", "text": message}]}]}
    with served.client() as client, client.stream("POST", "/ai-sdk/chat", json=body) as answer:
        assert answer.status_code == 200
        yield answer


@contextmanager
def resumed_by_page(served: Served, chat: str) -> Iterator[httpx.Response]:
    """The answer to a page that is loaded again."""
    with served.client() as client, client.stream("GET", f"/ai-sdk/chat/{chat}/stream") as answer:
        yield answer


def test_a_page_of_the_ai_sdk_resumes_its_answer_at_another_replica_from_its_beginning(replicas: Replicas) -> None:
    one, other = replicas
    with sent(one, "chat", SCRIPT.replace("door", "page's door")) as first:
        lines = first.iter_lines()
        read = [next(line for line in lines if "Hel" in line)]
        with resumed_by_page(other, "chat") as second:
            assert second.status_code == 200
            assert second.headers["x-run-id"] == first.headers["x-run-id"]
            coming = second.iter_lines()
            assert [next(line for line in coming if "Hel" in line)] == read, "it is live, since the run waits"
            open_door(one, "page's door")
            assert list(coming) == list(lines)
    with resumed_by_page(other, "chat") as late:
        assert late.status_code == 204
