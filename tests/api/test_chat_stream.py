"""The chat that is streamed, over real sockets: what JIMS's clients read, and what happens to those who do not read."""

import json
import re
import signal
import socket
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import orjson
import pytest

from jimsapi import Inbound, JimsApp, create_api
from jimsapi.asgi.connection import Request
from jimsapi.asgi.sse import EventStreamResponse
from jimsapi.asgi.testing import TestClient
from jimsapi.runs.admission import PUBLIC
from tests.api.conversation import CHAT, STREAM, body, parse, read_event
from tests.api.test_answers import FAULTY
from tests.apps.steered import opened, reached
from tests.apps.watched import ODD_TEXT, greet, watched
from tests.asgi.servers import APP, COMMANDS, Server
from tests.raw import request
from tests.serving import Served

KEY = "watchers-key"
AUTHORIZED = {"authorization": f"Bearer {KEY}"}
JSON = {"content-type": "application/json"}
READING = ("status", {"status": "Reading", "type": "reading"})

Events = list[tuple[str, Any]]


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Served("--app", "tests.apps.watched:app", "--api-key", KEY, "--log-format", "json") as server:
        yield server


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[httpx.Client]:
    with served.client(headers=AUTHORIZED) as client:
        yield client


def progress(text: str) -> Events:
    """What a whole stream that was read from its beginning tells after its start.

    Fails if its events are not counted from 1 to the last, whose id is `end`.
    """
    found = parse(text)
    assert [event.id for event in found] == [*map(str, range(1, len(found))), "end"]
    assert found[0].name == "started"
    return [(event.name, event.data) for event in found[1:]]


def stream(client: httpx.Client, message: str, contact: str = "ann", **fields: Any) -> Events:
    answer = client.post(STREAM, json=body(message, contact, **fields))
    assert answer.status_code == 200, answer.text
    return progress(answer.text)


def read_start(lines: Iterator[str]) -> None:
    """The first two events of a stream that goes on."""
    assert read_event(lines).name == "started"
    assert read_event(lines)[1:] == READING


def message(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


# What a client reads.


def test_statuses_come_first_and_then_what_chat_would_answer(client: httpx.Client) -> None:
    contact = str(uuid4())
    chatted = client.post(CHAT, json=body("plainly", contact)).json()
    thread_id = chatted["thread_id"]
    assert stream(client, "plainly", contact) == [
        READING,
        ("status", {"status": "Thinking hard", "type": "status"}),
        ("status", {"status": "Searching", "type": "search"}),
        ("result", chatted | {"created_new_thread": False}),
    ]
    events = client.get(f"/api/v1/threads/{thread_id}/events").json()["events"]
    assert [event["event_type"] for event in events][1:] == ["comm.user_message"] * 2


def test_the_start_names_the_run_and_its_thread(client: httpx.Client) -> None:
    for created in (True, False):
        answer = client.post(STREAM, json=body("hi", "starting"))
        lines = iter(answer.text.splitlines())
        result = progress(answer.text)[-1][1]
        expected = {
            "run_id": answer.headers["x-run-id"],
            "thread_id": result["thread_id"],
            "created_new_thread": created,
        }
        assert read_event(lines) == ("1", "started", expected)
        assert result["created_new_thread"] is created


def test_pieces_come_as_deltas_and_their_message_as_an_event_of_that_id(client: httpx.Client) -> None:
    events = stream(client, "stream one two three", "pieces")
    assert [name for name, _ in events] == ["status", "status", "delta", "delta", "delta", "event", "result"]
    deltas = [data for name, data in events if name == "delta"]
    assert [delta["content"] for delta in deltas] == ["one", "two", "three"]
    stored, result = events[-2][1], events[-1][1]
    assert {delta["message_id"] for delta in deltas} == {stored["event_id"]}
    assert (stored["event_type"], stored["event_data"]) == ("comm.assistant_message", message("onetwothree"))
    assert result["assistant_messages"] == ["onetwothree"]
    seen = client.get(f"/api/v1/threads/{result['thread_id']}/events").json()["events"][-1]
    assert seen["event_id"] == stored["event_id"]


def test_the_result_is_the_body_of_chat_to_the_byte(client: httpx.Client) -> None:
    chatted = client.post(CHAT, json=body("hi", "to-the-byte")).text
    streamed = client.post(STREAM, json=body("hi", "to-the-byte")).text
    assert streamed.endswith(f"event: result\ndata: {chatted.replace('true', 'false', 1)}\nid: end\n\n")


def test_its_headers_keep_it_out_of_caches_and_proxies_buffers_and_name_the_run(client: httpx.Client) -> None:
    answer = client.post(STREAM, json=body("hi"), headers={"x-request-id": "mine"})
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.headers["x-request-id"] == "mine"
    assert len(answer.headers["x-run-id"]) == 36
    assert "content-length" not in answer.headers


def test_odd_text_stays_whole_for_clients_that_split_lines_as_python_does(client: httpx.Client) -> None:
    with client.stream("POST", STREAM, json=body("oddly", "odd")) as answer:
        data = [json.loads(line.removeprefix("data: ")) for line in answer.iter_lines() if line.startswith("data: ")]
    said = ODD_TEXT.replace("\ud800", "").replace("\0", "")
    assert [told["status"] for told in data if "status" in told] == ["Reading", ODD_TEXT.replace("\ud800", "?")]
    assert [told["content"] for told in data if "content" in told] == [said]
    assert [told["event_data"]["content"] for told in data if "event_data" in told] == [said]
    assert data[-1]["assistant_messages"] == [said]


# Refusals and failures.


@pytest.mark.parametrize(("sent", "faults"), FAULTY)
def test_a_faulty_body_is_refused_as_chat_refuses_it(client: httpx.Client, sent: str, faults: Any) -> None:
    answer = client.post(STREAM, content=sent, headers=JSON)
    assert (answer.status_code, answer.json()) == (422, {"detail": faults})
    assert answer.headers["content-type"] == "application/json"


REFUSED: list[tuple[int, dict[str, str], bytes]] = [
    (401, {"authorization": "Bearer wrong"}, b"{"),
    (404, {}, orjson.dumps(body("hi", thread_id="0192b5f2-2c03-7b91-9c6c-9a1234567890"))),
    (413, {}, orjson.dumps(body("x" * 2_000_000))),
    (415, {"content-type": "text/plain"}, orjson.dumps(body("hi"))),
    (422, {}, orjson.dumps(body("\0"))),
]


@pytest.mark.parametrize(("status", "headers", "sent"), REFUSED, ids=[str(status) for status, _, _ in REFUSED])
def test_a_refusal_has_the_status_and_the_body_that_chat_gives_it(
    client: httpx.Client, status: int, headers: dict[str, str], sent: bytes
) -> None:
    refused, chatted = (client.post(path, content=sent, headers=JSON | headers) for path in (STREAM, CHAT))
    assert (refused.status_code, refused.headers["content-type"]) == (status, "application/json")
    assert refused.text == chatted.text
    assert ("x-run-id" in refused.headers) == ("x-run-id" in chatted.headers)


def test_another_method_is_405(client: httpx.Client) -> None:
    assert client.get(STREAM).json() == {"detail": "Method Not Allowed"}


@pytest.mark.parametrize("command", ["raise the roof", "unstorable", "exit now"])
def test_a_pipeline_that_fails_is_an_error_with_the_detail_of_chat(client: httpx.Client, command: str) -> None:
    chatted = client.post(CHAT, json=body(command, "failing"))
    assert chatted.status_code == 500
    streamed = stream(client, command, "failing")
    assert (streamed[0], streamed[-1]) == (READING, ("error", chatted.json()))
    assert {name for name, _ in streamed[1:-1]} <= {"delta"}  # and no event


# Those who hang up, and those who do not read.


def test_who_does_not_read_holds_up_nobody_and_gets_the_newest_and_the_end(
    served: Served, client: httpx.Client
) -> None:
    sent = orjson.dumps(body("flood 3000", "deaf"))
    lines = ("authorization: Bearer " + KEY, "content-type: application/json", f"content-length: {len(sent)}")
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.settimeout(20)
        deaf.connect(("127.0.0.1", served.port))
        deaf.sendall(request("POST", STREAM, *lines, "connection: close", body=sent))
        head = deaf.recv(1)  # the run has begun
        after = client.post(CHAT, json=body("see", "deaf")).json()  # answered once the flood has ended
        assert json.loads(after["assistant_messages"][0])["answered"] == 1
        while data := deaf.recv(1 << 20):
            head += data
    assert head.startswith(b"HTTP/1.1 200")
    assert head.endswith(b"\r\n0\r\n\r\n")  # whole, by the chunked coding
    numbers = [int(number) for number in re.findall(rb'"status":"(\d+) x', head)]
    assert len(numbers) < 3000
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == 2999
    missed = sum(map(int, re.findall(rb'event: gap\ndata: {"missed":(\d+)}', head)))
    assert len(numbers) + missed in (3000, 3001, 3002)  # two items stand before the flood
    assert b"event: result\n" in head[-1000:]


# What an operator sees.


def test_the_log_line_tells_the_run_the_thread_and_the_provider(served: Served, client: httpx.Client) -> None:
    answer = client.post(STREAM, json=body("hi", "logged"), headers={"x-request-id": "a-logged-stream"})
    thread_id = progress(answer.text)[-1][1]["thread_id"]
    while '"a-logged-stream"' not in served.stderr or not served.stderr.endswith("\n"):
        time.sleep(0.01)  # lines are written in batches
    (line,) = [json.loads(line) for line in served.stderr.splitlines() if '"a-logged-stream"' in line]
    assert line["run_id"] == answer.headers["x-run-id"]
    assert (line["thread_id"], line["provider"]) == (thread_id, "key")
    assert (line["route"], line["status"]) == (STREAM, 200)


def test_openapi_describes_it(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    described, chatted = paths[STREAM]["post"], paths[CHAT]["post"]
    assert described["requestBody"] == chatted["requestBody"]
    assert described["responses"]["200"]["content"] == {"text/event-stream": {"schema": {"type": "string"}}}
    for told in ("`started`", "`status`", "`delta`", "`event`", "`result`", "`error`", "`gap`", "15 seconds"):
        assert told in described["description"]


def test_a_shutdown_sends_open_streams_their_last_event() -> None:
    with Served("--app", "tests.apps.watched:app", "--drain-time", "20") as server, server.client() as client:
        with client.stream("POST", STREAM, json=body("hold for ever")) as answer:
            lines = answer.iter_lines()
            read_start(lines)
            assert server.process is not None
            server.process.send_signal(signal.SIGTERM)
            while client.get("/readyz").status_code != 503:
                pass
            late = client.post(STREAM, json=body("hi", "late"))
            assert (late.status_code, late.json()["detail"]) == (503, "The server is shutting down; try again")
            server.process.send_signal(signal.SIGTERM)  # hastens
            last = ["event: error", 'data: {"detail":"The run was interrupted; try again"}', "id: end", ""]
            assert list(lines) == last
        assert server.process.wait(20) == 0


SERVERS = [name for name in COMMANDS if name != "hypercorn-trio"]  # the service is asyncio's


@pytest.mark.parametrize("name", SERVERS)
def test_every_server_passes_events_on_at_once_and_lets_the_run_of_who_leaves_go_on(name: str) -> None:
    server = Server(name)
    server.command = [part.replace(APP, "tests.apps.watched:api") for part in server.command]
    with server, server.client() as client:
        with client.stream("POST", STREAM, json=body("hold on")) as answer:
            lines = answer.iter_lines()
            read_start(lines)
            client.post(CHAT, json=body("open on", "opener"))
            assert [read_event(lines).name for _ in range(3)] == ["delta", "event", "result"]
        with client.stream("POST", STREAM, json=body("hold still")) as answer:
            read_start(answer.iter_lines())
        client.post(CHAT, json=body("open still", "opener"))
        seen = client.post(CHAT, json=body("see")).json()["assistant_messages"][0]
        assert json.loads(seen)["answered"] == 2
        assert stream(client, "raise it")[-1] == ("error", {"detail": "Pipeline error: it"})


# Limits, in this process.


@pytest.fixture(autouse=True)
def closed_doors() -> None:
    opened.clear()
    reached.clear()


def serve(**settings: Any) -> Any:
    return create_api(JimsApp(watched, conversation_start_pipeline=greet), store="memory:", **settings)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("settings", "status"), [({"max_runs": 1}, 503), ({"thread_queue": 0}, 429), ({"contact_runs": 1}, 429)]
)
async def test_a_server_or_thread_that_is_full_refuses_with_a_status(settings: dict[str, int], status: int) -> None:
    api = serve(**settings)
    async with TestClient(api) as client:
        assert api.service is not None
        held = api.service.begin(Inbound(contact_id="ann", message="hold full"), PUBLIC)
        await reached["full"].wait()
        refused, chatted = [await client.post(path, json=body("hi")) for path in (STREAM, CHAT)]
        opened["full"].set()
        await held.answer
    assert (refused.status_code, refused.text) == (status, chatted.text)
    assert refused.headers["retry-after"]


@pytest.mark.anyio
async def test_a_run_that_waits_too_long_for_its_turn_is_an_error_and_its_message_is_not_stored() -> None:
    api = serve(queue_timeout=0.01)
    async with TestClient(api) as client:
        assert api.service is not None
        held = api.service.begin(Inbound(contact_id="ann", message="hold queue"), PUBLIC)
        await reached["queue"].wait()
        waited, chatted = [await client.post(path, json=body("hi")) for path in (STREAM, CHAT)]
        opened["queue"].set()
        await held.answer
        seen = (await client.post(CHAT, json=body("see"))).json()["assistant_messages"][0]
    assert (waited.status_code, chatted.status_code) == (200, 503)
    assert progress(waited.text) == [("error", chatted.json())]
    assert json.loads(seen)["asked"] == ["hold queue", "see"]


@pytest.mark.anyio
async def test_the_limits_of_a_caller_are_told_when_the_stream_begins() -> None:
    async with TestClient(serve(rate_limit="2/day")) as client:
        assert (await client.post(STREAM, json=body("hi"))).headers["ratelimit"].startswith('"contact";r=1;')


@pytest.mark.anyio
async def test_silence_is_broken_by_a_comment_every_15_seconds() -> None:
    api = serve()
    async with TestClient(api):
        (route,) = [route for route in api.routes if route.path == STREAM]

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": orjson.dumps(body("hi"))}

        scope = {"type": "http", "method": "POST", "path": STREAM, "headers": [(b"content-type", b"application/json")]}
        asked = Request(scope, receive)
        asked.admission = PUBLIC
        answer = await route.handler(asked)
        assert isinstance(answer, EventStreamResponse)
        assert (answer.keepalive, answer.ping) == (15.0, b": ping\n\n")
        await answer.discard()
