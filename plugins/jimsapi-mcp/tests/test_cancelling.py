"""Clients that cancel a call: by hanging up, by a notification, and by a tool. The server is a process of its own."""

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import httpx
import pytest
from jimsapi_mcp.progress import Progress, notified
from mcp_wire import BOTH, PATH, chat, legacy, modern, result, text, tool

from jimsapi import ThreadContext, create_api
from jimsapi.asgi.testing import TestClient
from jimsapi.runs import Status
from jimsapi.stores.memory import MemoryStore
from tests.serving import Served
from tests.waiting import eventually


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with Served("--app", "tests.apps.scripted:app") as server:
        yield server


@pytest.fixture
def client(server: Served) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def do(client: httpx.Client, message: str) -> None:
    """Send a message in another conversation, and wait for its answer."""
    assert client.post("/api/v1/chat", json={"contact_id": str(uuid4()), "message": message}).status_code == 200


def status(client: httpx.Client, run: str) -> str:
    return str(client.get(f"/api/v1/runs/{run}").json()["status"])


def session_of(client: httpx.Client) -> str:
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    return str(client.post(PATH, **legacy("initialize", params)).headers["mcp-session-id"])


@contextmanager
def held(client: httpx.Client, door: str, request: dict[str, Any]) -> Iterator[tuple[str, Iterator[str]]]:
    """A call whose pipeline waits at a door: its run, and the lines of its response."""
    with client.stream("POST", PATH, **request) as answer:
        assert answer.status_code == 200
        do(client, f"reached {door}")
        yield answer.headers["x-run-id"], answer.iter_lines()


def last(lines: Iterator[str]) -> Any:
    """The response at the end of a stream; None if it ends without one."""
    found = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    return found[-1] if found and "result" in found[-1] else None


def test_a_client_that_hangs_up_cancels_its_call(client: httpx.Client) -> None:
    door = str(uuid4())
    with held(client, door, modern("tools/call", chat(f"hold {door}; send late"))) as (run, _):
        assert status(client, run) == "running"
    eventually(lambda: status(client, run) == "cancelled")


def test_a_client_that_does_not_stream_cancels_its_call_by_hanging_up_too(client: httpx.Client) -> None:
    door, thread = str(uuid4()), str(uuid4())[:8]
    call = modern("tools/call", chat(f"hold {door}; send late", thread=thread), accept="application/json")
    with pytest.raises(httpx.ReadTimeout):
        client.post(PATH, **call, timeout=1.0)
    newest = modern("tools/call", tool("chat_get", thread=thread))
    eventually(lambda: result(client.post(PATH, **newest))["structuredContent"]["status"] == "cancelled")


def test_the_call_of_an_earlier_client_that_dies_goes_on_and_is_read_later(client: httpx.Client) -> None:
    door, session = str(uuid4()), session_of(client)
    with held(client, door, legacy("tools/call", chat(f"hold {door}; send late"), session=session)) as (run, _):
        pass
    do(client, f"open {door}")
    other = session_of(client)
    found = result(client.post(PATH, **legacy("tools/call", tool("chat_get", run_id=run, wait=20), session=other)))
    assert text(found) == "late"


@pytest.mark.parametrize("id", [7, "seven"])
def test_a_notification_cancels_the_call_of_an_earlier_client(client: httpx.Client, id: Any) -> None:
    door, session = str(uuid4()), session_of(client)
    call = legacy("tools/call", chat(f"hold {door}; send late"), id=id, session=session)
    with held(client, door, call) as (run, lines):
        notice = legacy("notifications/cancelled", {"requestId": id, "reason": "enough"}, id=None, session=session)
        assert client.post(PATH, **notice).status_code == 202
        assert last(lines) is None
    assert status(client, run) == "cancelled"


def test_a_notification_cancels_all_calls_of_a_client_with_its_number(client: httpx.Client) -> None:
    session = session_of(client)
    doors = [str(uuid4()), str(uuid4())]
    first, second = [legacy("tools/call", chat(f"hold {door}; send late"), session=session) for door in doors]
    with held(client, doors[0], first) as (run, lines), held(client, doors[1], second) as (other, others):
        notice = legacy("notifications/cancelled", {"requestId": 1}, id=None, session=session)
        assert client.post(PATH, **notice).status_code == 202
        assert (last(lines), last(others)) == (None, None)
    assert (status(client, run), status(client, other)) == ("cancelled", "cancelled")


@pytest.mark.parametrize("session_is", ["another", "none", "invalid"])
def test_a_notification_does_not_cancel_another_clients_call_with_the_same_number(
    client: httpx.Client, session_is: str
) -> None:
    door, session = str(uuid4()), session_of(client)
    other = {"another": session_of(client), "none": None, "invalid": "e-1"}[session_is]
    with held(client, door, legacy("tools/call", chat(f"hold {door}; send late"), session=session)) as (run, lines):
        for id in (1, "1", 1.0, True, None):
            notice = legacy("notifications/cancelled", {"requestId": id}, id=None, session=other)
            assert client.post(PATH, **notice).status_code == 202
        wrong = legacy("notifications/cancelled", {"requestId": "1"}, id=None, session=session)
        assert client.post(PATH, **wrong).status_code == 202
        assert status(client, run) == "running"
        do(client, f"open {door}")
        assert text(last(lines)["result"]) == "late"


def test_a_tool_cancels_a_call_of_this_client(client: httpx.Client) -> None:
    door = str(uuid4())
    with held(client, door, modern("tools/call", chat(f"hold {door}; send late"))) as (run, lines):
        cancelled = result(client.post(PATH, **modern("tools/call", tool("chat_cancel", run_id=run))))
        assert (cancelled["isError"], cancelled["structuredContent"]["status"]) == (False, "cancelled")
        ended = last(lines)["result"]
    assert (ended["isError"], ended["structuredContent"]["status"]) == (True, "cancelled")


def test_a_started_call_outlives_its_client_and_is_waited_for(client: httpx.Client) -> None:
    door = str(uuid4())
    started = result(client.post(PATH, **modern("tools/call", tool("chat_start", message=f"hold {door}; send late"))))
    run = started["structuredContent"]["run_id"]
    do(client, f"reached {door}")
    working = result(client.post(PATH, **modern("tools/call", tool("chat_get", run_id=run, wait=1))))
    assert (working["isError"], working["structuredContent"]["status"]) == (False, "running")
    with ThreadPoolExecutor(1) as waiting:
        got = waiting.submit(client.post, PATH, **modern("tools/call", tool("chat_get", run_id=run, wait=50)))
        do(client, f"open {door}")
        assert text(result(got.result())) == "late"


def test_a_busy_thread_is_answered_with_409_if_no_message_may_wait() -> None:
    with Served("--app", "tests.apps.scripted:app", "--thread-busy", "reject") as server, server.client() as client:
        door = str(uuid4())
        with held(client, door, modern("tools/call", chat(f"hold {door}; send late", thread="t"))):
            for era in (modern, legacy):
                busy = client.post(PATH, **era("tools/call", chat("hi", thread="t")))
                assert busy.status_code == 409
                assert busy.json()["id"] == 1
                assert busy.json()["error"]["code"] == 409
                assert int(busy.headers["retry-after"]) > 0
        assert len(client.post(PATH, **modern("tools/list")).json()["result"]["tools"]) == 4


def test_a_message_waits_for_the_one_before_it_in_its_thread(client: httpx.Client) -> None:
    door, thread = str(uuid4()), str(uuid4())[:8]
    with held(client, door, modern("tools/call", chat(f"hold {door}; send first", thread=thread))) as (_, lines):
        started = result(
            client.post(PATH, **modern("tools/call", tool("chat_start", message="send second", thread=thread)))
        )
        assert started["structuredContent"]["status"] == "queued"
        do(client, f"open {door}")
        assert text(last(lines)["result"]) == "first"
    run = started["structuredContent"]["run_id"]
    assert text(result(client.post(PATH, **modern("tools/call", tool("chat_get", run_id=run, wait=20))))) == "second"


async def endless(ctx: ThreadContext) -> None:
    await asyncio.sleep(600)


@pytest.mark.anyio
async def test_a_stream_of_progress_that_is_closed_closes_the_stream_of_its_run() -> None:
    closed: list[str] = []

    async def items() -> AsyncGenerator[Any, None]:
        try:
            yield Status("Looking", "work")
            await asyncio.Event().wait()
        finally:
            closed.append("run")

    stream = notified(items(), Progress("t", 0))
    assert b"Looking" in bytes(await anext(stream))  # type: ignore[arg-type] # not the last item
    await stream.aclose()
    assert closed == ["run"]


@pytest.mark.anyio
async def test_a_client_that_hangs_up_before_the_response_begins_cancels_its_call() -> None:
    api = create_api(endless, store="memory:")
    hung_up = asyncio.Event()

    async def server(scope: Any, receive: Any, send: Any) -> None:
        async def send_or_fail(message: Any) -> None:
            if message["type"] == "http.response.start" and not hung_up.is_set():
                hung_up.set()
                raise OSError("the client has disconnected")  # as ASGI 2.4 has it
            await send(message)

        await api(scope, receive, send_or_fail if scope["type"] == "http" else send)

    async with TestClient(server, raise_app_exceptions=False) as client:
        call = asyncio.create_task(client.post(PATH, **modern("tools/call", chat("hi", thread="t"))))
        await hung_up.wait()
        call.cancel()
        await asyncio.wait((call,))
        found = result(await client.post(PATH, **modern("tools/call", tool("chat_get", thread="t", wait=20))))
    assert found["structuredContent"]["status"] == "cancelled"


@pytest.mark.anyio
@pytest.mark.parametrize("accept", [BOTH, "application/json"])
async def test_a_client_that_hangs_up_while_the_store_accepts_its_message_cancels_its_call(
    accept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()
    accept_at_once = MemoryStore.accept

    async def slow(store: MemoryStore, plan: Any) -> Any:
        reached.set()
        await go_on.wait()
        return await accept_at_once(store, plan)

    monkeypatch.setattr(MemoryStore, "accept", slow)
    async with TestClient(create_api(endless, store="memory:")) as client:
        request = modern("tools/call", chat("hi", thread="t"), accept=accept)
        call = asyncio.create_task(client.post(PATH, **request))
        await reached.wait()
        call.cancel()
        await asyncio.wait((call,))
        go_on.set()
        found = result(await client.post(PATH, **modern("tools/call", tool("chat_get", thread="t", wait=20))))
        while "structuredContent" not in found:  # the store still accepts the message
            found = result(await client.post(PATH, **modern("tools/call", tool("chat_get", thread="t", wait=20))))
    assert found["structuredContent"]["status"] == "cancelled"
